"""Opening a pack: verify, check, and make it searchable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import BBox, Floats, LocalFrame
from ..core.ground import RGB
from ..core.spec import EncoderSpec
from .format import damaged, read_container
from .graph import assemble
from .links import decode_graph
from .manifest import LevelRecord, Manifest
from .overview import decode_overview
from .quantise import Floats32, are_unit, dequantise
from .search import Ids, LevelSearch
from .tiling import Cells


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
    """An open pack; made by `open_pack`, a context manager.

    Attributes:
        path: the file.
        spec: contract of the encoder it was built with.
        attribution: credit to show with its imagery.
        bounds: WGS84 box of the region.
        frame: local frame around the region's centre; all metres are in it.
        levels: finest first; level i holds the tiles `first` to `first + count - 1`.
        east_m: (N,) float64, tile centres, metres.
        north_m: (N,) float64, tile centres, metres.
        manifest: everything else it says about itself.
        section_bytes: size of each section.
    """

    def __init__(self, path: Path) -> None:
        """See `open_pack`."""
        container = read_container(path)
        sections = container.sections
        try:
            self.manifest = Manifest.from_values(container.manifest, str(path))
            self._overview = self._overview_bytes(sections)
            parts = [
                _level(record, self.manifest.spec.embedding_dim, f"level{number}.", sections)
                for number, record in enumerate(self.manifest.levels)
            ]
        except ValueError as error:
            raise damaged(path, str(error)) from None
        self.path = path
        self.spec: EncoderSpec = self.manifest.spec
        self.attribution: str = self.manifest.attribution
        self.bounds: BBox = self.manifest.bounds
        self.frame: LocalFrame = self.manifest.frame
        self.section_bytes = {name: len(data) for name, data in sections.items()}
        self._searches: list[LevelSearch] = [search for search, _ in parts]
        self.levels: tuple[Level, ...] = _levels(self.manifest.levels)
        centers = [
            record.lattice.centers_m(cells)
            for record, (_, cells) in zip(self.manifest.levels, parts, strict=True)
        ]
        self.east_m: Floats = np.concatenate([east for east, _ in centers])
        self.north_m: Floats = np.concatenate([north for _, north in centers])

    def search(self, queries: Floats32, level: int, k: int) -> tuple[Ids, Floats32]:
        """Find the tiles of a level that are most like each query.

        Args:
            queries: (B, D) float32, embeddings of the pack's encoder.
            level: number of the level, from 0.
            k: tiles per query; clipped to the level's count.

        Returns:
            Tile numbers (B, k) int64 and cosines (B, k) float32, best first.

        Raises:
            InputError: a query is zero, not finite or of another length, or level or k is wrong.
        """
        if not 0 <= level < len(self.levels):
            raise InputError(f"{self.path}: level {level}: the pack has {len(self.levels)} levels")
        if k < 1:
            raise InputError(f"{self.path}: k {k}: expected at least 1")
        ids, scores = self._searches[level].search(self._unit(queries), k)
        return ids + self.levels[level].first, scores

    def overview(self) -> tuple[RGB, float, float, float] | None:
        """Return the region's picture (H, W, 3) uint8 and its west_m, north_m and gsd_m, if any."""
        record = self.manifest.overview
        if record is None:
            return None
        try:
            image = decode_overview(self._overview, record)
        except ValueError as error:
            raise damaged(self.path, str(error)) from None
        return image, record.west_m, record.north_m, record.gsd_m

    def close(self) -> None:
        """Release the memory of vectors and graphs; the pack cannot be searched any more."""
        self._searches = []
        self.levels = ()

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

    def _overview_bytes(self, sections: dict[str, bytes]) -> bytes:
        return b"" if self.manifest.overview is None else _section(sections, "overview")

    def _unit(self, queries: Floats32) -> Floats32:
        """Return queries scaled to length one; hnswlib would take nonsense without a word."""
        dim = self.spec.embedding_dim
        if queries.ndim != 2 or queries.shape[1] != dim or queries.dtype != np.float32:
            raise InputError(
                f"{self.path}: queries of shape {queries.shape} and type {queries.dtype}; expected "
                f"(B, {dim}) float32"
            )
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise InputError(f"{self.path}: a query is zero or not finite")
        unit: Floats32 = np.ascontiguousarray(queries / lengths, np.float32)
        return unit


def open_pack(path: Path) -> Pack:
    """Open a pack: verify the SHA-256 of every byte, then check every value, then use it.

    Raises:
        InputError: there is no such file, or its format is too new.
        IntegrityError: it is no pack, or it is damaged, cut short or altered.
    """
    return Pack(path)


def _levels(records: tuple[LevelRecord, ...]) -> tuple[Level, ...]:
    levels, first = [], 0
    for record in records:
        lattice = record.lattice
        levels.append(Level(lattice.footprint_m, lattice.stride_m, first, record.count))
        first += record.count
    return tuple(levels)


def _level(
    record: LevelRecord, dim: int, prefix: str, sections: dict[str, bytes]
) -> tuple[LevelSearch, Cells]:
    """Return a level's search and its cells.

    Raises:
        ValueError: a section is missing or holds impossible values.
    """
    cells = _array(sections, prefix + "cells", "<u4", record.count)
    if int(cells.max()) >= record.lattice.count or len(np.unique(cells)) != len(cells):
        raise ValueError(f"section {prefix}cells names a place twice or outside the lattice")
    codes = _array(sections, prefix + "codes", "i1", record.vectors * dim).reshape(-1, dim)
    scales = _array(sections, prefix + "scales", "<f4", record.vectors)
    if not are_unit(codes, scales):
        raise ValueError(f"sections {prefix}codes and {prefix}scales are no unit vectors")
    vector_of_tile = None
    if record.vectors < record.count:
        vector_of_tile = _array(sections, prefix + "vectors", "<u4", record.count)
        if len(np.unique(vector_of_tile)) != record.vectors or (
            int(vector_of_tile.max()) >= record.vectors
        ):
            raise ValueError(f"section {prefix}vectors does not name every vector")
    index = None
    if record.search.method == "graph":
        graph = decode_graph(_section(sections, prefix + "graph"))
        index = assemble(graph, dequantise(codes, scales))
    return LevelSearch(codes, scales, vector_of_tile, index, record.search.ef), cells


def _array(sections: dict[str, bytes], name: str, dtype: str, count: int) -> npt.NDArray[Any]:
    data = _section(sections, name)
    if len(data) != count * np.dtype(dtype).itemsize:
        raise ValueError(f"section {name} has {len(data)} bytes, not those of {count} numbers")
    return np.frombuffer(data, dtype)


def _section(sections: dict[str, bytes], name: str) -> bytes:
    if name not in sections:
        raise ValueError(f"section {name} is missing")
    return sections[name]
