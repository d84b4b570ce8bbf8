"""One pack in the making: its blocks, its dimensions and its levels, kept as they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .. import __version__
from ..core.engine import Engine
from ..core.errors import InputError, S4GError
from ..core.ground import GroundSource
from ..core.spec import EncoderSpec
from .blocks import BlockEmbedder, BlockTask
from .dims import Gallery, choose_dims, make_projection, measure_dims
from .embed import EmbeddedBlock
from .format import Buffer, Container
from .imagery import make_imagery
from .imagery_plan import plan_imagery
from .level import LevelTiles, finish_level, level_record
from .manifest import ImageryRecord, LayerRecord, Manifest, ProjectionRecord
from .options import BuildOptions, Progress
from .overview import make_overview, overview_record
from .plan import Plan
from .probes import COUNT, COUNT_LINKED, Probes, make_probes
from .projection import Moments, Projection, add_moments
from .search import least_linked
from .tiling import blocks
from .variants import Variant
from .words import counted
from .work import WorkFolder
from .write import write_pack

# A projection, and the share of probes that was seen to find their place with it.
Measured = tuple[Projection, dict[str, float]]


class Job:
    """One pack: what it is made of, and the folder in which it is made.

    Attributes:
        plan: its region and levels.
        levels: numbers of the plan's levels that have tiles, once it is embedded.
    """

    def __init__(
        self,
        layers: Sequence[GroundSource],
        engine: Engine,
        plan: Plan,
        options: BuildOptions,
        variants: tuple[Variant, ...],
        work: WorkFolder,
        progress: Progress,
        shard: int = 0,
    ) -> None:
        """Take what decides the pack; `shard` is its number among packs that are built at once."""
        self.plan = plan
        self.levels: Sequence[int] = range(len(plan.lattices))
        self._layers, self._engine, self._options = layers, engine, options
        self._variants, self._work, self._shard = variants, work, shard
        self._progress = progress

    def embed(self, embedder: BlockEmbedder) -> None:
        """Embed all blocks that are not done yet."""
        with self._progress("tiles", self.plan.count) as advance:
            for task, found in embedder.embed(self.todo(advance)):
                self.keep(task, found)
                advance(task.wanted.size)

    def todo(self, advance: Callable[[int], None] = lambda steps: None) -> Iterator[BlockTask]:
        """Yield the blocks that are not done yet; `advance` is told of the others."""
        for number, lattice in enumerate(self.plan.lattices):
            self._work.sub(_folder(number))
            for index, block in enumerate(blocks(lattice)):
                wanted = self.plan.wanted(lattice, block)
                done = self._work.read(_block_name(number, index)) if wanted.any() else None
                if done is None and wanted.any():
                    yield BlockTask(self._shard, number, index, lattice, block, wanted)
                else:
                    advance(wanted.size)

    def keep(self, task: BlockTask, found: EmbeddedBlock) -> None:
        """Keep what came of a block."""
        self._work.write(
            _block_name(task.level, task.index),
            {"tiles": len(found.cells)},
            {
                "cells": found.cells.astype("<u4").tobytes(),
                "variants": found.variants.tobytes(),
                "detail": found.detail.tobytes(),
                "embeddings": found.embeddings.astype("<f2").tobytes(),
            },
        )

    def drop_empty_levels(self) -> None:
        """Leave out the levels without tiles, where other packs of a set have them."""
        self.levels = [number for number in self.levels if len(self.tiles(number).cells)]

    def check(self) -> None:
        """Refuse a level without tiles.

        Raises:
            InputError: there is one.
        """
        for number in self.levels:
            lattice = self.plan.lattices[number]
            if not len(self.tiles(number).cells):
                self._work.remove()  # with other options there is nothing to go on from
                raise InputError(
                    f"{self._layers[0].name}: level {lattice.footprint_m:g}: none of "
                    f"{counted(lattice.count, 'tile')} has {self._options.min_valid:.0%} imagery; "
                    "lower --min-valid or choose another --bbox"
                )

    def tiles(self, number: int) -> LevelTiles:
        """Return the tiles of a level that is embedded."""
        lattice = self.plan.lattices[number]
        names = [
            _block_name(number, index)
            for index, block in enumerate(blocks(lattice))
            if self.plan.wanted(lattice, block).any()
        ]

        def done() -> Iterator[Container]:
            for name in names:
                block = self._work.read(name)
                if block is None:
                    raise S4GError(
                        f"{self._work.path / name}: was damaged since it was written; run the same "
                        "command again, which makes it anew"
                    )
                yield block

        return LevelTiles(lattice, done, self._engine.spec.embedding_dim)

    def galleries(self) -> list[Gallery]:
        """Return the tiles of each level with its probes."""
        found = []
        with self._progress("trial views", len(self.levels)) as advance:
            for number in self.levels:
                tiles = self.tiles(number)
                probes = self._probes(number, tiles)
                found.append(Gallery(tiles.lattice, tiles.cells, tiles.parts, probes))
                advance(1)
        return found

    def projection(self, given: Projection | None = None) -> Measured:
        """Return how embeddings become vectors, and what share of probes that was seen to find.

        Args:
            given: the projection of another pack that this one shall be like.
        """
        if (kept := read_projection(self._work)) is not None:
            return kept
        galleries = self.galleries()
        moments = np.zeros((self._engine.spec.embedding_dim,) * 2)
        for gallery in galleries if given is None else ():
            for part in gallery.parts():
                add_moments(moments, part)
        made = measure(galleries, self._engine.spec, moments, self._options.dims, given)
        keep_projection(self._work, made)
        return made

    def finish(self, made: Measured, out: Path, overwrite: bool = False) -> None:
        """Link the levels and write the pack."""
        projection, shares = made
        levels = [self._finish_level(number, projection) for number in self.levels]
        sections: dict[str, Buffer] = {}
        if projection.matrix is not None:
            sections["projection"] = projection.matrix.astype("<f4").tobytes()
        for number, level in enumerate(levels):
            sections |= {f"level{number}.{name}": level.section(name) for name in level.names}
        overview = None
        if self._options.overview:
            overview = overview_record(self.plan.extent_m, self._layers[0].gsd_m)
            sections["overview"] = make_overview(self._layers[0], self.plan.frame, overview)
        imagery = self._imagery()
        if imagery is not None:
            sections["imagery"] = imagery[1]
        kind = "leading" if projection.matrix is None else "matrix"
        manifest = Manifest(
            tool=f"s4g {__version__}",
            spec=self._engine.spec,
            layers=tuple(_layer_record(layer) for layer in self._layers),
            variants=self._variants,
            projection=ProjectionRecord(projection.dims, kind, shares),
            bounds=self.plan.covers,
            frame=self.plan.frame,
            min_valid=self._options.min_valid,
            levels=tuple(
                level_record(self.plan.lattices[number], level.manifest)
                for number, level in zip(self.levels, levels, strict=True)
            ),
            overview=overview,
            imagery=None if imagery is None else imagery[0],
        )
        write_pack(out, manifest, sections, overwrite)

    def _imagery(self) -> tuple[ImageryRecord, memoryview] | None:
        """Return the pyramid of imagery, if one is wanted, mapped from the work folder."""
        quality = self._options.imagery_quality
        if quality is None:
            return None
        source, workers = self._layers[0], self._options.workers
        imagery = plan_imagery(self.plan, source.gsd_m)
        with self._progress("imagery", imagery.count) as advance:
            return make_imagery(source, self.plan, imagery, self._work, quality, workers, advance)

    def _probes(self, number: int, tiles: LevelTiles) -> Probes:
        """Return a level's probes, made once."""
        name, dim = f"probes{number}", self._engine.spec.embedding_dim
        if (kept := self._work.read(name)) is None:
            dims = self._options.dims or dim
            count = COUNT if len(tiles.cells) < least_linked(dims) else COUNT_LINKED
            made = make_probes(
                self._layers, self.plan.frame, tiles.lattice, tiles.cells, self._engine, count
            )
            sections = {
                "embeddings": made.embeddings.tobytes(),
                "east": made.east_m.tobytes(),
                "north": made.north_m.tobytes(),
            }
            self._work.write(name, {"probes": len(made.east_m)}, sections)
            return made
        embeddings = np.frombuffer(kept.section("embeddings"), np.float32).reshape(-1, dim)
        east, north = (np.frombuffer(kept.section(key), np.float64) for key in ("east", "north"))
        return Probes(embeddings, east, north)

    def _finish_level(self, number: int, projection: Projection) -> Container:
        """Return a level's sections, made once."""
        name = f"done{number}"
        if (kept := self._work.read(name)) is not None:
            return kept
        tiles = self.tiles(number)
        lattice = tiles.lattice
        with self._progress(f"level {lattice.footprint_m:g} m: links", len(tiles.cells)) as advance:
            values, sections = finish_level(
                tiles,
                projection,
                self._probes(number, tiles),
                self._work.path,
                len(self._variants),
                self._options.links,
                self._options.graph_min_vectors or least_linked(projection.dims),
                advance,
            )
        self._work.write(name, values, sections)
        made = self._work.read(name)
        assert made is not None
        return made


def measure(
    galleries: Sequence[Gallery],
    spec: EncoderSpec,
    moments: Moments,
    dims: int | None,
    given: Projection | None,
) -> Measured:
    """Return the projection that is given or chosen, and the shares of probes found with it.

    Args:
        galleries: tiles and probes.
        spec: the encoder's contract.
        moments: second moments of the embeddings (`add_moments`), unless one is given.
        dims: length of the vectors; None: the fewest that lose nothing.
        given: the projection to measure.
    """
    if given is None and dims is None:
        dims, shares = choose_dims(galleries, spec, moments)
        made = make_projection(spec, moments, dims)
    else:
        made = given or make_projection(spec, moments, dims or spec.embedding_dim)
        shares = measure_dims(galleries, made)
    return made, {key: round(value, 4) for key, value in shares.items()}


def keep_projection(work: WorkFolder, made: Measured) -> None:
    """Keep a projection."""
    projection, shares = made
    matrix = b"" if projection.matrix is None else projection.matrix.tobytes()
    values = {"dims": projection.dims, "shares": shares}
    work.write("projection", values, {"matrix": matrix})


def read_projection(work: WorkFolder) -> Measured | None:
    """Return the projection that is kept, if any."""
    if (kept := work.read("projection")) is None:
        return None
    matrix = np.frombuffer(kept.section("matrix"), np.float32)
    dims = kept.manifest["dims"]
    columns = matrix.reshape(-1, dims) if len(matrix) else None
    return Projection(dims, columns), kept.manifest["shares"]


def _folder(number: int) -> str:
    return f"level{number}"


def _block_name(number: int, index: int) -> str:
    return f"{_folder(number)}/{index:06d}"


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
