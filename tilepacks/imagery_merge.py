"""Imagery of packs cut and merged: encoded tiles are copied, and made anew only where it must be.

Lower tiles follow from the encoded ones below them (imagery_tiles.py): where those are what they
were in a pack, so is the tile above. Anew are tiles above a cut or a seam, and tiles of the highest
zoom in which the imagery of two packs meets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.geo import BBox
from ..core.open_file import Archive
from ..core.pmtiles_directory import Ints, first_id, tile_places
from ..core.pmtiles_write import TileTable, digests_of
from ..core.tile_pyramid import tile_range
from .format import damaged
from .imagery_archive import archive_parts, checked_entries, write_archive
from .imagery_plan import coarsest_zoom
from .imagery_tiles import merged_tile, parent_tile
from .manifest import ImageryRecord
from .reader import Pack

_ANEW = -1  # in place of a pack's number

Imagery = tuple[ImageryRecord, memoryview]


def cut_imagery(pack: Pack, bounds: BBox, path: Path) -> Imagery | None:
    """Return the imagery of a pack that touches a box, or None where there is none.

    Tiles of the highest zoom stay as they are, also where the box goes through them.

    Args:
        pack: the pack, open.
        bounds: the box, those of the pack to be.
        path: of the file that will hold the archive.

    Raises:
        IntegrityError: the imagery is damaged.
        S4GError: the disk is full.
    """
    record = pack.manifest.imagery
    if record is None:
        return None
    return _join([_read(pack, record)], record, bounds, pack.attribution, path)


def merge_imagery(
    packs: Sequence[Pack], bounds: BBox, path: Path
) -> tuple[Imagery | None, list[str]]:
    """Return the imagery of several packs as one; where they overlap, the first one's is on top.

    Args:
        packs: open.
        bounds: of the pack to be.
        path: of the file that will hold the archive.

    Returns:
        The imagery, or None where no pack has any or their zooms have nothing in common, and what
        the user should know.

    Raises:
        IntegrityError: the imagery of one is damaged.
        S4GError: the disk is full.
    """
    having = {pack: pack.manifest.imagery for pack in packs}
    records = [record for record in having.values() if record is not None]
    if not records:
        return None, []
    most = min(record.max_zoom for record in records)
    if most < max(record.min_zoom for record in records):
        return None, ["the imagery of the packs has no zoom in common: the merged one has none"]
    notes = [
        f"{pack.path} has no imagery: its part of the merged one is a hole"
        for pack, record in having.items()
        if record is None
    ]
    notes += [
        f"{pack.path} has imagery of zoom {record.max_zoom}, the merged one ends at {most}"
        for pack, record in having.items()
        if record is not None and record.max_zoom > most
    ]
    whole = dataclasses.replace(
        records[0],
        max_zoom=most,
        gsd_m=max(record.gsd_m for record in records),
        quality=min(record.quality for record in records),
    )
    parts = [_read(pack, record) for pack, record in having.items() if record is not None]
    credits = (layer.attribution for pack in packs for layer in pack.manifest.layers)
    credit = "; ".join(dict.fromkeys(credit for credit in credits if credit))
    return _join(parts, whole, bounds, credit, path), notes


@dataclass(frozen=True)
class _Part:
    """The tiles of a pack: numbers, ascending, and where their bytes lie in `data`."""

    data: Archive
    ids: Ints
    offsets: Ints
    lengths: Ints
    min_zoom: int
    name: str

    def rows_of(self, zoom: int) -> Ints:
        first, after = np.searchsorted(self.ids, [first_id(zoom), first_id(zoom + 1)])
        return np.arange(first, after)

    def tile(self, row: int) -> bytes:
        start = int(self.offsets[row])
        return bytes(self.data[start : start + int(self.lengths[row])])


@dataclass(frozen=True)
class _Layer:
    """Tiles of one zoom, ascending: the part each comes from and its row there, or `_ANEW`."""

    ids: Ints
    parts: Ints
    rows: Ints


def _read(pack: Pack, record: ImageryRecord) -> _Part:
    view = pack.container.section("imagery")
    try:
        parts = archive_parts(view, record, pack.bounds)
        found = list(checked_entries(parts, record))
    except ValueError as error:
        raise damaged(pack.path, str(error)) from None
    runs = np.concatenate([entries.runs for entries in found])
    ids = np.repeat(np.concatenate([entries.ids for entries in found]), runs)
    offsets = np.repeat(np.concatenate([entries.offsets for entries in found]), runs)
    lengths = np.repeat(np.concatenate([entries.lengths for entries in found]), runs)
    ids += np.arange(len(ids)) - np.repeat(np.cumsum(runs) - runs, runs)
    return _Part(parts.data, ids, offsets, lengths, record.min_zoom, str(pack.path))


def _join(
    parts: Sequence[_Part], record: ImageryRecord, bounds: BBox, attribution: str, path: Path
) -> Imagery | None:
    join = _Join(parts, record.quality)
    layers = [join.highest(record.max_zoom, bounds)]
    if not len(layers[0].ids):
        return None
    zooms = coarsest_zoom(bounds, record.max_zoom), record.max_zoom
    for zoom in range(zooms[1], zooms[0], -1):
        layers.append(join.above(layers[-1], zoom))
    layers.reverse()
    ids = np.concatenate([layer.ids for layer in layers])
    owners = np.concatenate([layer.parts for layer in layers])
    rows = np.concatenate([layer.rows for layer in layers])

    def contents(at: Ints) -> Iterator[bytes]:
        for owner, row in zip(owners[at].tolist(), rows[at].tolist(), strict=True):
            yield join.tile(owner, row)

    every = np.arange(len(ids))
    lengths = np.array([len(data) for data in contents(every)])
    table = TileTable(ids, lengths, digests_of(contents(every)))
    archive = write_archive(path, table, contents, zooms, bounds, attribution)
    return dataclasses.replace(record, min_zoom=zooms[0], tiles=len(ids)), archive


class _Join:
    """Parts as one, and what is made anew for it."""

    def __init__(self, parts: Sequence[_Part], quality: int) -> None:
        self._parts, self._quality = parts, quality
        self._anew: list[bytes] = []

    def tile(self, part: int, row: int) -> bytes:
        return self._anew[row] if part == _ANEW else self._parts[part].tile(row)

    def highest(self, zoom: int, bounds: BBox) -> _Layer:
        """Return the tiles of the highest zoom that touch a box, each place once."""
        x0, y0, x1, y1 = tile_range(bounds, zoom)
        ids, owners, rows = [], [], []
        for number, part in enumerate(self._parts):
            own = part.rows_of(zoom)
            x, y = tile_places(zoom, part.ids[own])
            own = own[(x >= x0) & (x < x1) & (y >= y0) & (y < y1)]
            ids.append(part.ids[own])
            owners.append(np.full(len(own), number))
            rows.append(own)
        order = np.argsort(np.concatenate(ids), kind="stable")  # parts stay in their order
        all_ids, all_owners, all_rows = (np.concatenate(v)[order] for v in (ids, owners, rows))
        found, first, counts = np.unique(all_ids, return_index=True, return_counts=True)
        layer = _Layer(found, all_owners[first], all_rows[first])
        for at in np.flatnonzero(counts > 1).tolist():
            several = range(first[at], first[at] + counts[at])
            tiles = [self.tile(int(all_owners[i]), int(all_rows[i])) for i in several]
            made = merged_tile(list(dict.fromkeys(tiles)), self._origin(found[at]), self._quality)
            if made in tiles:
                chosen = several[tiles.index(made)]
                layer.parts[at], layer.rows[at] = all_owners[chosen], all_rows[chosen]
            elif made is not None:
                layer.parts[at], layer.rows[at] = _ANEW, self._keep(made)
        return layer

    def above(self, below: _Layer, zoom: int) -> _Layer:
        """Return the tiles above those of a zoom."""
        # Along the Hilbert curve the four tiles below one follow each other.
        above, first, counts = np.unique(
            (below.ids - first_id(zoom)) >> 2, return_index=True, return_counts=True
        )
        ids = above + first_id(zoom - 1)
        owners, rows = np.full(len(ids), _ANEW), np.full(len(ids), -1)
        same = np.minimum.reduceat(below.parts, first)
        same[same != np.maximum.reduceat(below.parts, first)] = _ANEW
        done = np.zeros(len(ids), np.bool_)
        for number, part in enumerate(self._parts):
            if zoom - 1 < part.min_zoom:
                continue
            start, end = (
                np.searchsorted(part.ids, first_id(zoom) + 4 * above + step) for step in (0, 4)
            )
            whole = (same == number) & (end - start == counts)
            row = np.searchsorted(part.ids, ids)
            there = whole & (part.ids[np.minimum(row, len(part.ids) - 1)] == ids)
            owners[there], rows[there] = number, row[there]
            done |= whole
        for at in np.flatnonzero(~done).tolist():
            made = self._made_from(below, range(first[at], first[at] + counts[at]), zoom)
            if made is not None:
                rows[at] = self._keep(made)
        kept = rows >= 0
        return _Layer(ids[kept], owners[kept], rows[kept])

    def _made_from(self, below: _Layer, at: range, zoom: int) -> bytes | None:
        x, y = tile_places(zoom, below.ids[at.start : at.stop])
        four: list[bytes | None] = [None] * 4
        for slot, i in zip(((x & 1) + 2 * (y & 1)).tolist(), at, strict=True):
            four[slot] = self.tile(int(below.parts[i]), int(below.rows[i]))
        return parent_tile(four, self._origin(below.ids[at.start]), self._quality)

    def _keep(self, data: bytes) -> int:
        self._anew.append(data)
        return len(self._anew) - 1

    def _origin(self, number: int) -> str:
        return f"{self._parts[0].name}: section imagery: tile number {number}"
