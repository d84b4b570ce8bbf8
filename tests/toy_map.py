"""Packs of made-up vectors and commands run on them, for tests of what is told of a region."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from s4g.core.geo import LocalFrame
from s4g.core.images import encode_rgb
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.level import PackedTiles, level_record, pack_level
from s4g.tilepacks.manifest import LayerRecord, Manifest, OverviewRecord, ProjectionRecord
from s4g.tilepacks.quantise import quantise
from s4g.tilepacks.reader import Pack, open_pack
from s4g.tilepacks.tiling import Lattice, hilbert_order
from s4g.tilepacks.variants import Variant
from s4g.tilepacks.write import write_pack

FRAME = LocalFrame(47.0, 8.0)
NORTH_UP = (Variant(0, 0.0),)


def spec_of(dim: int) -> EncoderSpec:
    return EncoderSpec(
        model_id="70" * 32, backbone="toy", input_px=64, mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25), embedding_dim=dim, nested_dims=(dim,), gsd_min_m=0.3,
        gsd_max_m=3.0, north_up=True, temperature=0.1, provenance={},
    )  # fmt: skip


def lattice_of(rows: int, columns: int, stride_px: int = 16, footprint_m: float = 64.0) -> Lattice:
    """A lattice of 64-px tiles, by default of 64 m every 16 m, around the frame's origin."""
    stride_m = stride_px * footprint_m / 64
    west = -((columns - 1) * stride_m + footprint_m) / 2
    north = ((rows - 1) * stride_m + footprint_m) / 2
    return Lattice(footprint_m, 64, stride_px, west, north, columns, rows)


def tiles_of(
    lattice: Lattice,
    vectors: npt.NDArray[np.float32],
    cells: Sequence[int] | None = None,
    variants: Sequence[int] | None = None,
    detail: Sequence[int] | None = None,
) -> PackedTiles:
    """Tiles with vectors (N, D) as a pack holds them; by default one in each cell."""
    own = np.arange(lattice.count) if cells is None else np.asarray(cells)
    order = hilbert_order(lattice, own.astype(np.uint32))
    kinds = np.zeros(len(own), np.uint8) if variants is None else np.array(variants, np.uint8)
    seen = np.full(len(own), 96, np.uint8) if detail is None else np.array(detail, np.uint8)
    return PackedTiles(
        lattice, own[order].astype(np.uint32), kinds[order], seen[order], quantise(vectors[order])
    )


def write_map(
    path: Path,
    levels: Sequence[PackedTiles],
    variants: tuple[Variant, ...] = NORTH_UP,
    picture: npt.NDArray[np.uint8] | None = None,
    attribution: str = "toy imagery",
    dates: Sequence[str] = ("2024-07-01",),
) -> Pack:
    """Write and open a pack whose region is the first level's lattice; 1 m/px of picture."""
    dim, first = levels[0].codes.shape[1], levels[0].lattice
    width = (first.columns - 1) * first.stride_m + first.footprint_m
    height = (first.rows - 1) * first.stride_m + first.footprint_m
    bounds = FRAME.wgs84_bounds(
        first.west_m, first.north_m - height, first.west_m + width, first.north_m
    )
    sections: dict[str, Any] = {}
    records = []
    with TemporaryDirectory() as folder:
        for number, tiles in enumerate(levels):
            made = pack_level(tiles, Path(folder), len(variants), 8, 10**6, lambda steps: None)
            records.append(level_record(tiles.lattice, made.values))
            sections |= {f"level{number}.{name}": data for name, data in made.sections.items()}
    overview = None
    if picture is not None:
        overview = OverviewRecord(
            first.west_m, first.north_m, 1.0, picture.shape[1], picture.shape[0]
        )
        sections["overview"] = encode_rgb(picture, ".webp", 100)
    manifest = Manifest(
        "s4g-pack 0", spec_of(dim),
        tuple(LayerRecord(f"toy{n}.tif", 0.5, attribution, d) for n, d in enumerate(dates)),
        variants, ProjectionRecord(dim, "leading", {"full": 1.0}), bounds, FRAME, 0.6,
        tuple(records), overview,
    )  # fmt: skip
    write_pack(path, manifest, sections, False)
    return open_pack(path)


def write_route(
    path: Path, *lines: Sequence[tuple[float, float]], frame: LocalFrame = FRAME
) -> Path:
    """Write lines of east, north metres as GeoJSON."""
    written = []
    for line in lines:
        east, north = np.array(line, float).T
        lat, lon = frame.to_wgs84(east, north)
        written.append([[float(x), float(y)] for x, y in zip(lon, lat, strict=True)])
    path.write_text(json.dumps({"type": "MultiLineString", "coordinates": written}))
    return path
