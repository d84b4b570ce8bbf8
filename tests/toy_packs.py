"""Packs written without an encoder: made-up vectors on one endless grid, and what packs hold."""

from __future__ import annotations

import dataclasses
import runpy
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from s4g.core.geo import LocalFrame
from s4g.core.images import encode_rgb
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.format import Buffer
from s4g.tilepacks.graph import M
from s4g.tilepacks.level import PackedTiles, level_record, pack_level
from s4g.tilepacks.manifest import (
    LayerRecord,
    LevelRecord,
    Manifest,
    OverviewRecord,
    ProjectionRecord,
)
from s4g.tilepacks.quantise import quantise
from s4g.tilepacks.reader import Pack
from s4g.tilepacks.tiling import Lattice, hilbert_order
from s4g.tilepacks.variants import Variant
from s4g.tilepacks.write import write_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))

DIM = 16  # of embeddings
FRAME = LocalFrame(47.0, 8.0)
WEST_M, NORTH_M = -300.0, 280.0  # of row 0 and column 0 of every level
FOOTPRINT_M, STRIDE_M = 80.0, 20.0  # of the finest level
ROWS, COLUMNS = 28, 26  # of the finest level; beyond them its vectors repeat
WHOLE = range(ROWS), range(COLUMNS)
SPEC = EncoderSpec(
    model_id="70" * 32,
    backbone="toy",
    input_px=64,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    embedding_dim=DIM,
    nested_dims=(DIM,),
    gsd_min_m=0.3,
    gsd_max_m=30.0,
    north_up=True,
    temperature=0.1,
    provenance={"recipe": "toy"},
)
SPRING = LayerRecord("toy.tif", 0.5, "toy", "2024-04-01")
AUTUMN = LayerRecord("toy.tif", 0.5, "toy", "2024-10-01")
WINTER = LayerRecord("snow.tif", 0.5, "toy", "")


def lattice_of(rows: range, columns: range, footprint_m: float = FOOTPRINT_M) -> Lattice:
    """Return rows and columns of the endless grid of a footprint as a lattice."""
    stride_m = footprint_m / 4
    west, north = WEST_M + columns.start * stride_m, NORTH_M - rows.start * stride_m
    return Lattice(footprint_m, 64, 16, west, north, len(columns), len(rows))


def extent_of(rows: range, columns: range) -> tuple[float, float, float, float]:
    """Return west, south, east, north metres of tiles of the finest level."""
    place = lattice_of(rows, columns)
    east = place.west_m + (len(columns) - 1) * STRIDE_M + FOOTPRINT_M
    south = place.north_m - (len(rows) - 1) * STRIDE_M - FOOTPRINT_M
    return place.west_m, south, east, place.north_m


def matrix_of(dims: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return orthonormal directions (DIM, dims) float32."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((DIM, DIM)))
    return np.ascontiguousarray(q[:, :dims], np.float32)


def write_toy_pack(
    path: Path,
    rows: range = WHOLE[0],
    columns: range = WHOLE[1],
    *,
    footprints_m: Sequence[float] = (FOOTPRINT_M,),
    layers: Sequence[LayerRecord] = (SPRING,),
    headings_deg: Sequence[float] = (0.0,),
    seed: int = 0,
    holes: float = 0.1,
    water: bool = False,
    matrix: npt.NDArray[np.float32] | None = None,
    picture: tuple[npt.NDArray[np.uint8], float] | None = None,
    found: float | None = None,
    shift_m: float = 0.0,
    graph_min_vectors: int = 1 << 30,
    **changes: Any,
) -> Path:
    """Write a pack of some rows and columns of the finest level, and what of others lies there.

    A place has the same vector in every pack of the same `seed`.

    Args:
        path: the file.
        rows: of the finest level.
        columns: of the finest level.
        footprints_m: of the levels.
        layers: the imagery.
        headings_deg: at which every tile is held.
        seed: of vectors and holes.
        holes: share of places without imagery.
        water: whether a part of the ground looks everywhere the same.
        matrix: directions (DIM, dims); None: leading dimensions, all of them.
        picture: (H, W, 3) uint8 and its metres per pixel, from the north-west corner.
        found: what the manifest says of trial views.
        shift_m: how far the grids lie east of where they should.
        graph_min_vectors: levels of fewer vectors are scanned.
        **changes: of the manifest.
    """
    variants = [Variant(n, heading) for n in range(len(layers)) for heading in headings_deg]
    levels: list[LevelRecord] = []
    sections: dict[str, Buffer] = {} if matrix is None else {"projection": matrix.tobytes()}
    for number, footprint_m in enumerate(footprints_m):
        scale = max(1, round(footprint_m / FOOTPRINT_M))
        own = [_coarser(part, scale) for part in (rows, columns)]
        place = lattice_of(own[0], own[1], footprint_m)
        place = dataclasses.replace(place, west_m=place.west_m + shift_m)
        parts = [
            _tiles(own[0], own[1], f"{footprint_m} {layers[v.layer]} {v.heading_deg}", seed, water)
            for v in variants
        ]
        seen = [_seen(own[0], own[1], f"{layers[v.layer]}", seed, holes) for v in variants]
        if not np.any(seen):
            seen[0][0] = True  # no level is empty
        cells = np.concatenate([np.flatnonzero(mask) for mask in seen]).astype(np.uint32)
        kinds = np.concatenate([np.full(mask.sum(), i) for i, mask in enumerate(seen)])
        vectors = np.concatenate([part[mask] for part, mask in zip(parts, seen, strict=True)])
        projected = vectors if matrix is None else vectors @ matrix
        detail = (np.abs(vectors[:, 0]) * 200).astype(np.uint8)
        order = hilbert_order(place, cells)
        tiles = PackedTiles(
            place,
            cells[order],
            kinds[order].astype(np.uint8),
            detail[order],
            quantise(projected.astype(np.float32))[order],
        )
        with TemporaryDirectory() as folder:
            made = pack_level(
                tiles, Path(folder), len(variants), M, graph_min_vectors, lambda steps: None
            )
        levels.append(level_record(place, {**made.values, "found": found}))
        sections |= {f"level{number}.{name}": data for name, data in made.sections.items()}
    extent = extent_of(rows, columns)
    overview = None
    if picture is not None:
        image, gsd_m = picture
        sections["overview"] = encode_rgb(image, ".webp", 80)
        overview = OverviewRecord(extent[0], extent[3], gsd_m, image.shape[1], image.shape[0])
    manifest = Manifest(
        tool="toy",
        spec=SPEC,
        layers=tuple(layers),
        variants=tuple(variants),
        projection=ProjectionRecord(
            DIM if matrix is None else matrix.shape[1],
            "leading" if matrix is None else "matrix",
            {},
        ),
        bounds=FRAME.wgs84_bounds(*extent),
        frame=FRAME,
        min_valid=0.6,
        levels=tuple(levels),
        overview=overview,
    )
    write_pack(path, dataclasses.replace(manifest, **changes), sections, overwrite=True)
    return path


def content_of(pack: Pack) -> dict[Any, tuple[int, bytes]]:
    """Return detail and vector of every tile by its footprint, centre, imagery and heading."""
    values: list[tuple[int, bytes]] = []
    for number, level in enumerate(pack.levels):
        search = pack.vectors(number)
        rows = range(level.count) if search.vector_of_tile is None else search.vector_of_tile
        vectors = [vector.tobytes() for vector in search.codes]
        values += zip(pack.detail(number).tolist(), [vectors[row] for row in rows], strict=True)
    places = places_of(pack)
    found = dict(zip(places, values, strict=True))
    assert len(found) == len(places)
    return found


def places_of(pack: Pack) -> list[Any]:
    """Return footprint, centre in metres, imagery and heading of every tile."""
    found: list[Any] = []
    east, north = (np.round(side, 2).tolist() for side in (pack.east_m, pack.north_m))
    kinds = [(pack.manifest.layers[v.layer], v.heading_deg) for v in pack.manifest.variants]
    for number, level in enumerate(pack.levels):
        for tile, variant in enumerate(pack.variants(number).tolist(), level.first):
            found.append((level.footprint_m, east[tile], north[tile], *kinds[variant]))
    return found


def answers_of(pack: Pack, queries: npt.NDArray[np.float32], k: int) -> list[Any]:
    """Return the cosines and the places that a pack finds for queries in each of its levels."""
    places, found = places_of(pack), []
    for number in range(len(pack.levels)):
        ids, scores = pack.search(queries, number, k)
        found.append((scores.tolist(), [[places[i] for i in row] for row in ids]))
    return found


def queries_of(count: int) -> npt.NDArray[np.float32]:
    """Return queries (count, DIM) float32 of length one."""
    found: npt.NDArray[np.float32] = toy.unit(count, DIM, seed=8)
    return found


def _coarser(part: range, scale: int) -> range:
    """Return rows of a coarser level that lie within those of the finest, but one at least."""
    first = -(-part.start // scale)
    return range(first, max(first, (part.stop + 3 - 4 * scale) // scale) + 1)


def _tiles(
    rows: range, columns: range, what: str, seed: int, water: bool
) -> npt.NDArray[np.float32]:
    """Return the vectors (rows * columns, DIM) of some places, row by row."""
    field = toy.smooth(ROWS, COLUMNS, DIM, zlib.crc32(f"{what} {seed}".encode()))
    field = field.reshape(ROWS, COLUMNS, DIM)
    if water:
        field[4:13, 8:15] = field[4, 8]
    part = field[np.ix_(np.array(rows) % ROWS, np.array(columns) % COLUMNS)]
    found: npt.NDArray[np.float32] = part.reshape(-1, DIM)
    return found


def _seen(rows: range, columns: range, what: str, seed: int, holes: float) -> npt.NDArray[np.bool_]:
    """Return whether there is imagery at some places, (rows * columns,)."""
    field = np.random.default_rng(zlib.crc32(f"{what} {seed} holes".encode()))
    seen = field.random((ROWS, COLUMNS)) >= holes
    part = seen[np.ix_(np.array(rows) % ROWS, np.array(columns) % COLUMNS)]
    found: npt.NDArray[np.bool_] = part.ravel()
    return found
