"""From a plan to a pack: embed every level block by block, choose dimensions, link, write.

Reading runs ahead of the encoder in threads of its own. What is done is kept beside the pack to be
(work.py), so that a build goes on where it was stopped, and the pack is the same byte for byte
however often that happened and however many threads read.
"""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..core.engine import Engine
from ..core.errors import InputError, S4GError
from ..core.files import atomic_file
from ..core.ground import GroundImage, GroundSource, notes_of
from ..core.source_mosaic import rasters_in
from .dims import Gallery, check_dims, choose_dims, make_projection, measure_dims
from .embed import EmbeddedBlock, embed_block, read_block
from .format import Container, encode_container
from .graph import M
from .level import LevelTiles, finish_level, level_record
from .manifest import LayerRecord, LevelRecord, Manifest, ProjectionRecord
from .overview import make_overview, overview_record
from .plan import Plan
from .probes import Probes, make_probes
from .projection import Projection, add_moments
from .reader import open_pack
from .search import GRAPH_MIN_VECTORS
from .tiling import Block, Lattice, blocks
from .variants import Variant, make_variants, margin_px
from .work import WorkFolder, work_folder

# Given a description and a total, a context that yields a function to advance a progress bar.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def silent(description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda steps: None)


@dataclass(frozen=True)
class BuildOptions:
    """What a pack shall be like.

    Attributes:
        min_valid: least share of a tile that must be imagery.
        overview: whether to add a picture of the region.
        dims: length of its vectors; None: the fewest that lose nothing.
        headings: how many headings each tile is embedded at.
        links: wanted per node of the search graph.
        graph_min_vectors: levels with fewer distinct vectors are scanned, not linked.
        workers: threads that read imagery; no part of the result.
    """

    min_valid: float = 0.6
    overview: bool = True
    dims: int | None = None
    headings: int = 1
    links: int = M
    graph_min_vectors: int = GRAPH_MIN_VECTORS
    workers: int = 2


def build_pack(
    layers: Sequence[GroundSource],
    engine: Engine,
    plan: Plan,
    out: Path,
    options: BuildOptions,
    progress: Progress = silent,
    overwrite: bool = False,
    restart: bool = False,
) -> None:
    """Build a pack, or go on with one that was begun.

    Args:
        layers: imagery of the region, one or several dates; the first one decides the plan.
        engine: the encoder, the one the plan was made for.
        plan: region and levels.
        out: the file to write.
        options: what it shall be like.
        progress: how to show progress.
        overwrite: replace an existing pack.
        restart: throw away what an interrupted build has done.

    Raises:
        InputError: a level has no tile with enough imagery, or the pack was begun with another
            plan, or is being built by another process.
        S4GError: a source is damaged, the disk is full, or the encoder or hnswlib failed.
    """
    check_dims(options.dims, engine.spec)
    variants = make_variants(len(layers), options.headings)
    with work_folder(out, _fingerprint(layers, engine, plan, options), restart) as work:
        job = _Job(layers, engine, plan, options, variants, work, progress)
        for number in range(len(plan.lattices)):
            job.embed_level(number)
        projection = job.projection()
        levels = [job.finish_level(number, projection) for number in range(len(plan.lattices))]
        _write(out, job, projection, levels, overwrite)
        work.remove()


def _fingerprint(
    layers: Sequence[GroundSource], engine: Engine, plan: Plan, options: BuildOptions
) -> dict[str, Any]:
    """Return everything that decides a pack's bytes, by the names a user knows it by."""
    chosen = asdict(options)
    del chosen["workers"]
    return {
        "imagery": [_identity(layer) for layer in layers],
        "encoder": [
            engine.spec.model_id,
            engine.spec.precision,
            _states([Path(engine.name)]),  # two INT8 exports of one checkpoint differ
        ],
        "region": [str(plan.region), asdict(plan.frame)],
        "area": None if plan.area is None else [plan.area.rings, plan.area.margin_m],
        "levels and stride": [asdict(lattice) for lattice in plan.lattices],
        "options": chosen,
        "version of s4g": __version__,
    }


def _identity(layer: GroundSource) -> list[Any]:
    path = Path(layer.name)
    files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
    if not files and glob.has_magic(layer.name):
        files = rasters_in(layer.name)
    told = [layer.name, layer.gsd_m, str(layer.bounds), layer.attribution, *notes_of(layer)]
    return [*told, _states(files)]


def _states(files: Sequence[Path]) -> list[list[Any]]:
    """Return what shows that a file was changed: its size and when it was written."""
    states = [(file, file.stat()) for file in files if file.is_file()]
    return [[str(file), state.st_size, state.st_mtime_ns] for file, state in states]


@dataclass(frozen=True)
class _Reading:
    """A block whose imagery is being read."""

    index: int
    block: Block
    wanted: npt.NDArray[np.bool_]
    future: Future[list[GroundImage]]


class _Job:
    """One build: what it is made of, and the folder it works in."""

    def __init__(
        self,
        layers: Sequence[GroundSource],
        engine: Engine,
        plan: Plan,
        options: BuildOptions,
        variants: tuple[Variant, ...],
        work: WorkFolder,
        progress: Progress,
    ) -> None:
        self.layers, self.engine, self.plan = layers, engine, plan
        self.options, self.variants, self.work = options, variants, work
        self._progress = progress

    def embed_level(self, number: int) -> None:
        """Embed the blocks of a level that are not done yet."""
        lattice = self.plan.lattices[number]
        (self.work.path / _folder(number)).mkdir(exist_ok=True)
        with self._progress(f"level {lattice.footprint_m:g} m: tiles", lattice.count) as advance:
            todo = self._todo(number, advance)
            for reading in self._read_ahead(todo, lattice):
                found = embed_block(
                    reading.future.result(),
                    reading.block,
                    lattice,
                    reading.wanted,
                    self.variants,
                    self.engine,
                    self.options.min_valid,
                    margin_px(lattice.input_px, self.variants),
                )
                self._keep_block(number, reading.index, found)
                advance(reading.wanted.size)

    def _todo(
        self, number: int, advance: Callable[[int], None]
    ) -> Iterator[tuple[int, Block, npt.NDArray[np.bool_]]]:
        lattice = self.plan.lattices[number]
        for index, block in enumerate(blocks(lattice)):
            wanted = self.plan.wanted(lattice, block)
            done = self.work.read(_block_name(number, index)) if wanted.any() else None
            if done is None and wanted.any():
                yield index, block, wanted
            else:
                advance(wanted.size)

    def _read_ahead(
        self, todo: Iterator[tuple[int, Block, npt.NDArray[np.bool_]]], lattice: Lattice
    ) -> Iterator[_Reading]:
        """Yield blocks in order; the imagery of a few is read beforehand."""
        margin = margin_px(lattice.input_px, self.variants)
        waiting: deque[_Reading] = deque()
        with ThreadPoolExecutor(self.options.workers, "s4g-read") as pool:
            try:
                for index, block, wanted in todo:
                    future = pool.submit(read_block, self.layers, self.plan.frame, block, margin)
                    waiting.append(_Reading(index, block, wanted, future))
                    if len(waiting) > self.options.workers:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
            finally:
                for reading in waiting:
                    reading.future.cancel()

    def _keep_block(self, number: int, index: int, found: EmbeddedBlock) -> None:
        self.work.write(
            _block_name(number, index),
            {"tiles": len(found.cells)},
            {
                "cells": found.cells.astype("<u4").tobytes(),
                "variants": found.variants.tobytes(),
                "detail": found.detail.tobytes(),
                "embeddings": found.embeddings.astype("<f2").tobytes(),
            },
        )

    def tiles(self, number: int) -> LevelTiles:
        """Return the tiles of a level that is embedded.

        Raises:
            InputError: there are none.
        """
        lattice = self.plan.lattices[number]
        names = [
            _block_name(number, index)
            for index, block in enumerate(blocks(lattice))
            if self.plan.wanted(lattice, block).any()
        ]

        def done() -> Iterator[Container]:
            for name in names:
                block = self.work.read(name)
                if block is None:
                    raise S4GError(
                        f"{self.work.path / name}: was damaged since it was written; run the same "
                        "command again, which makes it anew"
                    )
                yield block

        tiles = LevelTiles(lattice, done, self.engine.spec.embedding_dim)
        if not len(tiles.cells):
            self.work.remove()  # with other options there is nothing to go on from
            raise InputError(
                f"{self.layers[0].name}: level {lattice.footprint_m:g}: none of {lattice.count} "
                f"tiles has {self.options.min_valid:.0%} imagery; lower --min-valid or choose "
                "another --bbox"
            )
        return tiles

    def probes(self, number: int, tiles: LevelTiles) -> Probes:
        """Return a level's probes, made once."""
        name, dim = f"probes{number}", self.engine.spec.embedding_dim
        if (kept := self.work.read(name)) is None:
            made = make_probes(
                self.layers, self.plan.frame, tiles.lattice, tiles.cells, self.engine
            )
            sections = {
                "embeddings": made.embeddings.tobytes(),
                "east": made.east_m.tobytes(),
                "north": made.north_m.tobytes(),
            }
            self.work.write(name, {"probes": len(made.east_m)}, sections)
            return made
        embeddings = np.frombuffer(kept.section("embeddings"), np.float32).reshape(-1, dim)
        east, north = (np.frombuffer(kept.section(key), np.float64) for key in ("east", "north"))
        return Probes(embeddings, east, north)

    def projection(self) -> tuple[Projection, dict[str, float]]:
        """Return how embeddings become vectors, and what share of probes that was seen to find."""
        spec, kept = self.engine.spec, self.work.read("projection")
        if kept is not None:
            matrix = np.frombuffer(kept.section("matrix"), np.float32)
            dims, shares = kept.manifest["dims"], kept.manifest["shares"]
            columns = matrix.reshape(-1, dims) if len(matrix) else None
            return Projection(dims, columns), shares
        levels = [self.tiles(number) for number in range(len(self.plan.lattices))]
        moments = np.zeros((spec.embedding_dim, spec.embedding_dim))
        for tiles in levels:
            for part in tiles.parts():
                add_moments(moments, part)
        with self._progress("dimensions", len(levels)) as advance:
            galleries = []
            for number, tiles in enumerate(levels):
                probes = self.probes(number, tiles)
                galleries.append(Gallery(tiles.lattice, tiles.cells, tiles.parts, probes))
                advance(1)
            if self.options.dims is None:
                dims, shares = choose_dims(galleries, spec, moments)
                made = make_projection(spec, moments, dims)
            else:
                made = make_projection(spec, moments, self.options.dims)
                shares = measure_dims(galleries, made)
        data = b"" if made.matrix is None else made.matrix.tobytes()
        shares = {key: round(value, 4) for key, value in shares.items()}
        self.work.write("projection", {"dims": made.dims, "shares": shares}, {"matrix": data})
        return made, shares

    def finish_level(
        self, number: int, projection: tuple[Projection, dict[str, float]]
    ) -> Container:
        """Return a level's sections, made once."""
        name = f"done{number}"
        if (kept := self.work.read(name)) is not None:
            return kept
        tiles = self.tiles(number)
        lattice = tiles.lattice
        with self._progress(f"level {lattice.footprint_m:g} m: links", len(tiles.cells)) as advance:
            values, sections = finish_level(
                tiles,
                projection[0],
                self.probes(number, tiles),
                self.work.path,
                len(self.variants),
                self.options.links,
                self.options.graph_min_vectors,
                advance,
            )
        self.work.write(name, values, sections)
        made = self.work.read(name)
        assert made is not None
        return made


def _folder(number: int) -> str:
    return f"level{number}"


def _block_name(number: int, index: int) -> str:
    return f"{_folder(number)}/{index:06d}"


def _write(
    out: Path,
    job: _Job,
    projection: tuple[Projection, dict[str, float]],
    levels: Sequence[Container],
    overwrite: bool,
) -> None:
    plan, made = job.plan, projection[0]
    sections: dict[str, bytes | memoryview] = {}
    records: list[LevelRecord] = []
    if made.matrix is not None:
        sections["projection"] = made.matrix.astype("<f4").tobytes()
    for number, level in enumerate(levels):
        records.append(level_record(plan.lattices[number], level.manifest))
        sections |= {f"level{number}.{name}": level.section(name) for name in level.names}
    overview = None
    if job.options.overview:
        overview = overview_record(plan.extent_m, job.layers[0].gsd_m)
        sections["overview"] = make_overview(job.layers[0], plan.frame, overview)
    kind = "leading" if made.matrix is None else "matrix"
    manifest = Manifest(
        tool=f"s4g {__version__}",
        spec=job.engine.spec,
        layers=tuple(_layer_record(layer) for layer in job.layers),
        variants=job.variants,
        projection=ProjectionRecord(made.dims, kind, projection[1]),
        bounds=plan.region,
        frame=plan.frame,
        min_valid=job.options.min_valid,
        levels=tuple(records),
        overview=overview,
    )
    with atomic_file(out, overwrite) as temporary:
        with temporary.open("wb") as file:
            for part in encode_container(manifest.to_values(), sections):
                file.write(part)
        # Read back before it gets its name.
        with open_pack(temporary) as pack:
            pack.verify()


def _layer_record(layer: GroundSource) -> LayerRecord:
    date = str(getattr(layer, "date", ""))
    name, credit = _shown(_public_name(layer.name)), _shown(layer.attribution)
    return LayerRecord(name, layer.gsd_m, credit, _shown(date))


def _shown(text: str) -> str:
    """Return text as a manifest may hold it: on one line, printable."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _public_name(name: str) -> str:
    """Return a source's name without the folders it lies in: they are nobody's business."""
    return Path(name).name if Path(name).exists() else name
