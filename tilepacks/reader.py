"""An open pack: what it says is known at once, what it holds is verified when it is used first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import BBox, Floats, LocalFrame
from ..core.ground import RGB, GroundSource
from ..core.spec import EncoderSpec
from .columns import decode_column, inflate
from .format import Container, damaged, open_container
from .graph import assemble
from .imagery_archive import check_archive, open_archive
from .links import decode_graph
from .manifest import LevelRecord, Manifest
from .nearby import MAX_METRES, Nearby
from .overview import decode_overview
from .projection import Projection
from .quantise import Floats32, inverse_lengths
from .search import Ids, LevelSearch
from .tiling import Cells

# How far the columns of a projection may be from orthonormal: float32's rounding, not an attack.
_ORTHONORMAL = 1e-3
# Tiles that share a vector take next to no bytes, but memory. A region of so many that all look
# alike is nothing to fly by.
_FREE_TILES, _TILES_PER_VECTOR = 1 << 20, 64
_T = TypeVar("_T")


@dataclass(frozen=True)
class Level:
    """A level of a pack.

    Attributes:
        footprint_m: side of its tiles on the ground, metres.
        stride_m: distance of neighbouring tiles, metres.
        first: number of its first tile.
        count: number of its tiles.
    """

    footprint_m: float
    stride_m: float
    first: int
    count: int


class Pack:
    """An open pack; made by `open_pack`, a context manager. Several threads may use it.

    Attributes:
        path: the file.
        spec: contract of the encoder it was built with.
        bounds: WGS84 box of the region.
        frame: local frame around the region's centre; all metres are in it.
        levels: finest first; level i holds the tiles `first` to `first + count - 1`.
        manifest: everything else it says about itself.
    """

    def __init__(self, container: Container) -> None:
        """See `open_pack`."""
        self.path = container.path
        self._container: Container | None = container
        try:
            self.manifest = Manifest.from_values(container.manifest, str(self.path))
            _check_sizes(container, self.manifest)
        except ValueError as error:
            raise damaged(self.path, str(error)) from None
        self.spec: EncoderSpec = self.manifest.spec
        self.bounds: BBox = self.manifest.bounds
        self.frame: LocalFrame = self.manifest.frame
        self.levels: tuple[Level, ...] = _levels(self.manifest.levels)
        self.section_bytes = {name: container.length(name) for name in container.names}
        self._parts = [
            _LevelParts(container, number, record, self.manifest)
            for number, record in enumerate(self.manifest.levels)
        ]
        self._lock = threading.Lock()

    @property
    def container(self) -> Container:
        """The file; to check its signature, for one.

        Raises:
            InputError: the pack is closed.
        """
        if self._container is None:
            raise InputError(f"{self.path}: the pack is closed; open it again")
        return self._container

    @property
    def attribution(self) -> str:
        """Credit to show with its imagery."""
        credits = (layer.attribution for layer in self.manifest.layers)
        return "; ".join(dict.fromkeys(credit for credit in credits if credit))

    @cached_property
    def _centers_m(self) -> tuple[Floats, Floats]:
        parts = [part.record.lattice.centers_m(part.cells) for part in self._parts]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    @property
    def east_m(self) -> Floats:
        """Tile centres, (N,) float64, metres in the frame."""
        return self._centers_m[0]

    @property
    def north_m(self) -> Floats:
        """Tile centres, (N,) float64, metres in the frame."""
        return self._centers_m[1]

    def prepare(self, levels: tuple[int, ...] | None = None) -> None:
        """Verify and assemble what search needs, so that no later query waits for it.

        Args:
            levels: numbers of the levels; None for all.

        Raises:
            IntegrityError: a section is damaged or altered.
        """
        for number in range(len(self.levels)) if levels is None else levels:
            self._part(number).ready()
        _ = self.projection

    def make_ready(self) -> None:
        """Check every byte, and every value that a search uses; nothing of it is read again.

        What else there is, the picture of the region and its imagery, is checked as it is decoded.

        Raises:
            IntegrityError: something is damaged or altered.
        """
        self.prepare()
        self.container.verify()
        _ = self._centers_m

    def verify(self) -> None:
        """Check every byte and every value.

        Raises:
            IntegrityError: something is damaged or altered.
        """
        self.make_ready()
        self.overview()
        self._verify_imagery()
        for number in range(len(self.levels)):
            self.detail(number)
            self.variants(number)

    def search(self, queries: Floats32, level: int, k: int) -> tuple[Ids, Floats32]:
        """Find the tiles of a level that are most like each query, anywhere.

        Args:
            queries: (B, D) float32, embeddings of the pack's encoder.
            level: number of the level, from 0.
            k: tiles per query; clipped to the level's count.

        Returns:
            Tile numbers (B, k) int64 and cosines (B, k) float32, best first.

        Raises:
            InputError: a query is zero, not finite or of another length, or level or k is wrong.
            IntegrityError: a section is damaged or altered.
        """
        part = self._part(level)
        if k < 1:
            raise InputError(f"{self.path}: k {k}: expected at least 1")
        ids, scores = part.search.search(self._vectors(queries), k)
        return ids + self.levels[level].first, scores

    def search_near(
        self, queries: Floats32, level: int, k: int, points_m: Floats, radius_m: float
    ) -> tuple[Ids, Floats32] | None:
        """Find the tiles around a point of each query that are most like it, exactly.

        Args:
            queries: (B, D) float32, embeddings of the pack's encoder.
            level: number of the level, from 0.
            k: tiles per query; clipped to the level's count.
            points_m: (B, 2) east, north in the pack's frame, near each other.
            radius_m: of tile centres around them.

        Returns:
            Tile numbers (B, k) int64 and cosines (B, k) float32, best first, -1 where fewer tiles
            are there; None where `search` is faster, and where there is no tile at all.

        Raises:
            InputError: a query is zero, not finite or of another length, or level, k, a point or
                the radius is wrong.
            IntegrityError: a section is damaged or altered.
        """
        part = self._part(level)
        if k < 1:
            raise InputError(f"{self.path}: k {k}: expected at least 1")
        vectors = self._vectors(queries)
        middle = points_m.mean(axis=0)
        apart_m = float(np.hypot(*(points_m - middle).T).max())
        east, north = float(middle[0]), float(middle[1])
        tiles = self._within(part, east, north, radius_m + apart_m)
        if not len(tiles) or not part.search.is_slower_than(len(tiles)):
            return None
        own = self.levels[level]
        ids = tiles + own.first
        east_m, north_m = self.east_m[ids] - points_m[:, :1], self.north_m[ids] - points_m[:, 1:]
        near = east_m**2 + north_m**2 <= radius_m**2
        found, scores = part.search.best_of(vectors, tiles, near, min(k, own.count))
        return found + own.first, scores

    def search_within(
        self, queries: Floats32, level: int, east_m: float, north_m: float, radius_m: float
    ) -> tuple[Ids, Floats32]:
        """Compare queries with every tile of a level around a point, exactly.

        Args:
            queries: (B, D) float32, embeddings of the pack's encoder.
            level: number of the level, from 0.
            east_m: of the point, metres in the pack's frame.
            north_m: the same.
            radius_m: of tile centres around it.

        Returns:
            Tile numbers (T,) int64, ascending, and cosines (B, T) float32: the score surface.

        Raises:
            InputError: a query is zero, not finite or of another length, or level, point or
                radius is wrong.
            IntegrityError: a section is damaged or altered.
        """
        part = self._part(level)
        tiles = self._within(part, east_m, north_m, radius_m)
        return tiles + self.levels[level].first, part.search.scores(self._vectors(queries), tiles)

    def tiles_within(self, level: int, east_m: float, north_m: float, radius_m: float) -> Ids:
        """Return the numbers of a level's tiles around a point, (T,) int64, ascending.

        Raises:
            InputError: level, point or radius is wrong.
            IntegrityError: a section is damaged or altered.
        """
        part = self._part(level)
        return self._within(part, east_m, north_m, radius_m) + self.levels[level].first

    def vectors(self, level: int) -> LevelSearch:
        """Return a level's vectors as they are, for tools that look at all of them."""
        return self._part(level).search

    def cells(self, level: int) -> Cells:
        """Return the lattice cell of each tile of a level, (N,) uint32."""
        return self._part(level).cells

    def detail(self, level: int) -> npt.NDArray[np.uint8]:
        """Return how much there is to see in each tile, (N,) uint8, sixteenths of a grey level.

        It is the mean gradient per pixel; below about 16, one grey level, there is water, snow,
        sand or cloud.
        """
        return self._part(level).bytes("detail")

    def variants(self, level: int) -> npt.NDArray[np.uint8]:
        """Return which of the manifest's variants each tile of a level is, (N,) uint8."""
        if len(self.manifest.variants) == 1:
            return np.zeros(self.levels[level].count, np.uint8)
        found = self._part(level).bytes("variants")
        if int(found.max()) >= len(self.manifest.variants):
            raise damaged(self.path, f"section level{level}.variants names one that is not there")
        return found

    def overview(self) -> tuple[RGB, float, float, float] | None:
        """Return the region's picture (H, W, 3) uint8 and its west_m, north_m and gsd_m, if any."""
        record = self.manifest.overview
        if record is None:
            return None
        try:
            image = decode_overview(bytes(self.container.read("overview")), record)
        except ValueError as error:
            raise damaged(self.path, str(error)) from None
        return image, record.west_m, record.north_m, record.gsd_m

    def imagery(self) -> GroundSource | None:
        """Return the region's imagery, if any, read where it lies in the file; close it after use.

        The first call verifies the section, which takes as long as reading all of it. It serves on
        after the pack is closed. Where the file is cut short or written over meanwhile, reading
        ground raises IntegrityError.

        Raises:
            IntegrityError: the section is damaged or altered.
        """
        record = self.manifest.imagery
        if record is None:
            return None
        part = self.container.part("imagery")
        try:
            return open_archive(part, record, self.bounds, str(self.path))
        except ValueError as error:
            raise damaged(self.path, str(error)) from None

    def _verify_imagery(self) -> None:
        record = self.manifest.imagery
        if record is None:
            return
        try:
            check_archive(self.container.part("imagery"), record, self.bounds)
        except ValueError as error:
            raise damaged(self.path, str(error)) from None
        if (imagery := self.imagery()) is not None:
            imagery.close()

    def fate(self) -> str | None:
        """Return what became of the file since it was opened, None while it is as it was.

        What was prepared serves on whatever it is: it lies in memory, as it was verified. Imagery
        serves on where the file `is gone` or `was replaced`, and raises IntegrityError otherwise.
        """
        return self.container.fate()

    def close(self) -> None:
        """Let go of the file; the pack cannot be searched any more."""
        with self._lock:
            self._parts, self.levels = [], ()
            container, self._container = self._container, None
            if container is not None:
                container.close()

    def __enter__(self) -> Pack:
        """Return the pack."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _part(self, level: int) -> _LevelParts:
        if not 0 <= level < len(self._parts):
            raise InputError(f"{self.path}: level {level}: the pack has {len(self.levels)} levels")
        return self._parts[level]

    def _within(self, part: _LevelParts, east_m: float, north_m: float, radius_m: float) -> Ids:
        if not (abs(east_m) <= MAX_METRES and abs(north_m) <= MAX_METRES):
            raise InputError(
                f"{self.path}: point {east_m:g}, {north_m:g} m: expected metres in the pack's frame"
            )
        if not 0 <= radius_m <= MAX_METRES:
            raise InputError(f"{self.path}: radius {radius_m:g} m: expected a number from 0")
        return part.nearby.within(east_m, north_m, radius_m)

    @cached_property
    def projection(self) -> Projection:
        """From embeddings to the vectors of the pack; verified when it is used first."""
        record = self.manifest.projection
        if record.kind == "leading":
            return Projection(record.dims)
        matrix = np.frombuffer(self.container.read("projection"), "<f4")
        matrix = matrix.reshape(self.spec.embedding_dim, record.dims)
        with np.errstate(over="ignore", invalid="ignore"):
            product = matrix.T.astype(np.float64) @ matrix
        if not np.abs(product - np.eye(record.dims)).max() < _ORTHONORMAL:
            raise damaged(self.path, "section projection holds no orthonormal directions")
        return Projection(record.dims, matrix)

    def _vectors(self, queries: Floats32) -> Floats32:
        """Return queries as vectors of the pack; hnswlib would take nonsense without a word."""
        dim = self.spec.embedding_dim
        if queries.ndim != 2 or queries.shape[1] != dim or queries.dtype != np.float32:
            raise InputError(
                f"{self.path}: queries of shape {queries.shape} and type {queries.dtype}; expected "
                f"(B, {dim}) float32"
            )
        try:
            return np.ascontiguousarray(self.projection.apply(queries))
        except ValueError:
            raise InputError(f"{self.path}: a query is zero or not finite") from None


def open_pack(path: Path) -> Pack:
    """Open a pack: verify header, manifest and layout; sections are verified when used first.

    Raises:
        InputError: there is no such file, or its format is too new.
        IntegrityError: it is no pack, or it is damaged, cut short or altered.
    """
    if path.name == "index.s4gset":
        raise InputError(f"{path}: is the index of a set of packs; give its folder, {path.parent}")
    if path.is_dir():
        if (path / "index.s4gset").is_file():
            raise InputError(
                f"{path}: is a set of packs; take the part for a flight out of it: s4g-pack "
                f"extract {path} --bbox W,S,E,N --out flight.s4gpack"
            )
        raise InputError(f"{path}: is a folder, expected a .s4gpack file or a set of packs")
    container = open_container(path)
    try:
        return Pack(container)
    except BaseException:
        container.close()
        raise


class _LevelParts:
    """What a level holds, each part made when it is asked for first, by one thread."""

    def __init__(
        self, container: Container, number: int, record: LevelRecord, manifest: Manifest
    ) -> None:
        self.record = record
        self._container, self._prefix = container, f"level{number}."
        self._dims, self._kinds = manifest.projection.dims, len(manifest.variants)
        self._lock = threading.RLock()
        self._made: dict[str, Any] = {}

    def ready(self) -> None:
        _ = self.search, self.nearby

    @property
    def cells(self) -> Cells:
        return self._once("cells", self._read_cells)

    @property
    def nearby(self) -> Nearby:
        return self._once("nearby", self._make_nearby)

    @property
    def search(self) -> LevelSearch:
        return self._once("search", self._make_search)

    def _once(self, name: str, make: Callable[[], _T]) -> _T:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            found: _T = self._made[name]
            return found

    def _read_cells(self) -> Cells:
        cells = self._column("cells")
        if int(cells.max()) >= self.record.lattice.count:
            raise self._damaged("cells", "names a place outside the lattice")
        return cells

    def bytes(self, name: str) -> npt.NDArray[np.uint8]:
        data = self._container.read(self._prefix + name)
        try:
            return np.frombuffer(inflate(data, self.record.count), np.uint8)
        except ValueError as error:
            raise self._damaged(name, str(error)) from None

    def _make_nearby(self) -> Nearby:
        variants = None
        if self._kinds > 1:
            variants = self.bytes("variants")
            if int(variants.max()) >= self._kinds:
                raise self._damaged("variants", "names one that is not there")
        nearby = Nearby(self.record.lattice, self.cells, variants, self._kinds)
        if nearby.repeats:
            raise self._damaged("cells", "names a place twice")
        return nearby

    def _make_search(self) -> LevelSearch:
        record = self.record
        codes = np.frombuffer(self._container.read(self._prefix + "codes"), np.int8)
        codes = codes.reshape(record.vectors, self._dims)
        shared = None
        if record.vectors < record.count:
            shared = self._column("vectors")
            named = np.bincount(shared[shared < record.vectors], minlength=record.vectors)
            if int(shared.max()) >= record.vectors or not named.all():
                raise self._damaged("vectors", "does not name every vector")
        try:
            inverse = inverse_lengths(codes)
            sample, index = self._read_sample(), None
            if record.search.method == "graph":
                data = self._container.read(self._prefix + "graph")
                own = codes if sample is None else codes[sample]
                index = assemble(decode_graph(data, len(own)), own, record.search.dims)
        except ValueError as error:
            raise damaged(self._container.path, f"{self._prefix[:-1]}: {error}") from None
        nearby = None if sample is None else self.nearby
        reach = 0 if sample is None else record.search.step - 1
        search = LevelSearch(codes, inverse, shared, sample, nearby, reach, index, record.search.ef)
        search.prepare()
        return search

    def _read_sample(self) -> Ids | None:
        record = self.record
        if record.search.step == 1:
            return None
        sample = self._column("sample", record.search.sampled).astype(np.int64)
        if int(sample[-1]) >= record.vectors or (np.diff(sample) <= 0).any():
            raise self._damaged("sample", "does not name vectors in ascending order")
        return sample

    def _column(self, name: str, count: int | None = None) -> npt.NDArray[np.uint32]:
        data = self._container.read(self._prefix + name)
        try:
            return decode_column(data, self.record.count if count is None else count)
        except ValueError as error:
            raise self._damaged(name, str(error)) from None

    def _damaged(self, name: str, reason: str) -> Exception:
        return damaged(self._container.path, f"section {self._prefix}{name} {reason}")


def _check_sizes(container: Container, manifest: Manifest) -> None:
    """Check that sections are there and that counts fit them, before anything is allocated.

    Raises:
        ValueError: a section is missing or of another size; the message names it.
    """
    dims, spec = manifest.projection.dims, manifest.spec
    tiles = sum(record.count for record in manifest.levels)
    vectors = sum(record.vectors for record in manifest.levels)
    if tiles > _FREE_TILES + _TILES_PER_VECTOR * vectors:
        raise ValueError(f"it has {tiles} tiles of only {vectors} vectors")
    wanted: dict[str, int | None] = {}
    if manifest.projection.kind == "matrix":
        wanted["projection"] = 4 * dims * spec.embedding_dim
    if manifest.overview is not None:
        wanted["overview"] = None
    if manifest.imagery is not None:
        wanted["imagery"] = None
    for number, record in enumerate(manifest.levels):
        prefix = f"level{number}."
        wanted[prefix + "codes"] = record.vectors * dims
        wanted |= {prefix + "cells": None, prefix + "detail": None}
        if len(manifest.variants) > 1:
            wanted[prefix + "variants"] = None
        if record.vectors < record.count:
            wanted[prefix + "vectors"] = None
        if record.search.step > 1:
            wanted[prefix + "sample"] = None
            if not 1 <= record.search.sampled <= record.vectors:
                raise ValueError(f"level{number} has a sample of {record.search.sampled} vectors")
        if record.search.method == "graph":
            wanted[prefix + "graph"] = None
            if not 1 <= record.search.dims <= dims:
                raise ValueError(f"level{number} is searched in {record.search.dims} dimensions")
        # A cell is four bytes, and a zlib stream holds at most about 1,032 times its length.
        if 0 < 1032 * container.length(prefix + "cells") < 4 * record.count:
            raise ValueError(f"section {prefix}cells is too short for {record.count} tiles")
        if (record.search.method, record.search.step > 1) in (("exact", True), ("sample", False)):
            raise ValueError(
                f"level{number} is searched by {record.search.method} in steps of "
                f"{record.search.step}"
            )
    for name, length in wanted.items():
        if name not in container.names:
            raise ValueError(f"section {name} is missing")
        if length is not None and container.length(name) != length:
            raise ValueError(f"section {name} has {container.length(name)} bytes, not {length}")


def _levels(records: tuple[LevelRecord, ...]) -> tuple[Level, ...]:
    levels, first = [], 0
    for record in records:
        lattice = record.lattice
        levels.append(Level(lattice.footprint_m, lattice.stride_m, first, record.count))
        first += record.count
    return tuple(levels)
