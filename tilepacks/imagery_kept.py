"""Encoded imagery tiles kept in a build's work folder, and the archive made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from ..core.errors import InputError, IntegrityError, S4GError
from ..core.geo import BBox
from ..core.pmtiles_directory import Ints, first_id, tile_ids, tile_places
from ..core.pmtiles_write import Digests, TileTable, digests_of
from .format import Container, open_container
from .imagery_archive import write_archive
from .work import WorkFolder

Tiles = dict[tuple[int, int], bytes]  # by column and row, counted from the north

_ARCHIVE = "imagery.pmtiles"


class KeptTiles:
    """Entries of a work folder, each with tiles of some zooms.

    Attributes:
        path: the folder they lie in.
    """

    def __init__(self, work: WorkFolder, folder: str) -> None:
        """Keep entries in a subfolder, which is there."""
        self._work, self._folder = work, folder
        self.path = work.path / folder

    def has(self, name: str) -> bool:
        """Return whether an entry is there and whole."""
        entry = self._work.read(self._entry(name))
        if entry is None:
            return False
        entry.close()
        return True

    def keep(self, name: str, tiles: dict[int, Tiles]) -> None:
        """Keep tiles, given by zoom.

        Raises:
            S4GError: the disk is full; what is done stays.
        """
        ids, sections = [np.empty(0, np.int64)], {}
        contents: list[bytes] = []
        for zoom, some in sorted(tiles.items()):
            places = np.array(list(some), np.int64).reshape(-1, 2)
            ids.append(tile_ids(zoom, places[:, 0], places[:, 1]))
            contents += some.values()
            sections[_zoom(zoom)] = b"".join(some.values())
        sections |= {
            "ids": np.concatenate(ids).astype("<i8").tobytes(),
            "lengths": np.array([len(content) for content in contents], "<i8").tobytes(),
            "digests": digests_of(contents).tobytes(),
        }
        self._work.write(self._entry(name), {"tiles": len(contents)}, sections)

    def tiles(self, name: str, zoom: int) -> Tiles:
        """Return the tiles that an entry has of a zoom.

        Raises:
            S4GError: it is no longer whole.
        """
        with closing(self._open(name)) as entry:
            ids, lengths, _ = _columns(entry)
            here = (ids >= first_id(zoom)) & (ids < first_id(zoom + 1))
            ends = np.cumsum(lengths[here])
            data = self._section(entry, zoom)
            x, y = tile_places(zoom, ids[here])
            places = zip(x.tolist(), y.tolist(), strict=True)
            starts = (ends - lengths[here]).tolist()
            parts = (bytes(data[a:b]) for a, b in zip(starts, ends.tolist(), strict=True))
            return dict(zip(places, parts, strict=True))

    def archive(
        self, names: Sequence[str], zooms: tuple[int, int], bounds: BBox, attribution: str
    ) -> tuple[int, memoryview]:
        """Put all tiles of entries into one archive, a file in the work folder.

        Returns:
            How many tiles there are, and the archive, mapped; without tiles, nothing.

        Raises:
            S4GError: an entry is no longer whole, or the disk is full.
        """
        columns = []
        for name in names:
            with closing(self._open(name)) as entry:
                columns.append(_columns(entry))
        ids, lengths, digests = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        if not len(ids):
            return 0, memoryview(b"")
        counts = [len(part[0]) for part in columns]
        entries = np.repeat(np.arange(len(names)), counts)
        # Where each tile starts in its entry's section of its zoom.
        zoom = np.searchsorted([first_id(z) for z in range(zooms[1] + 2)], ids, side="right") - 1
        ends = np.cumsum(lengths)
        section = np.diff(entries, prepend=-1).astype(bool) | np.diff(zoom, prepend=-1).astype(bool)
        first = np.maximum.accumulate(np.where(section, np.arange(len(ids)), 0))
        starts = ends - lengths - (ends - lengths)[first]
        order = np.argsort(ids)
        table = TileTable(ids[order], lengths[order], digests[order])

        def contents(rows: Ints) -> Iterator[bytes]:
            at = order[rows]
            yield from self._contents(names, entries[at], zoom[at], starts[at], lengths[at])

        path = self._work.path / _ARCHIVE
        return len(ids), write_archive(path, table, contents, zooms, bounds, attribution)

    def _contents(
        self, names: Sequence[str], entries: Ints, zooms: Ints, starts: Ints, lengths: Ints
    ) -> Iterator[bytes]:
        """Yield tiles; those of one entry and zoom follow each other, which opens it once."""
        current, entry, data = (-1, -1), None, memoryview(b"")
        rows = zip(*(v.tolist() for v in (entries, zooms, starts, lengths)), strict=True)
        for number, zoom, start, length in rows:
            if (number, zoom) != current:
                if entry is not None:
                    entry.close()
                current, entry = (number, zoom), self._open(names[number])
                data = self._section(entry, zoom)
            yield bytes(data[start : start + length])
        if entry is not None:
            entry.close()

    def _entry(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _open(self, name: str) -> Container:
        try:
            return open_container(self.path / name)
        except (InputError, IntegrityError):
            raise _gone(self.path / name) from None

    def _section(self, entry: Container, zoom: int) -> memoryview:
        try:
            return entry.section(_zoom(zoom))
        except IntegrityError:
            raise _gone(entry.path) from None


def _zoom(zoom: int) -> str:
    return f"zoom{zoom}"


def _gone(path: Path) -> S4GError:
    return S4GError(
        f"{path}: was damaged since it was written; run the same command again, which makes it anew"
    )


def _columns(entry: Container) -> tuple[Ints, Ints, Digests]:
    """Return numbers, lengths and digests of an entry's tiles."""
    try:
        ids, lengths = (np.frombuffer(entry.section(key), "<i8") for key in ("ids", "lengths"))
        digests = np.frombuffer(entry.section("digests"), "S16")
    except IntegrityError:
        raise _gone(entry.path) from None
    # Copies: what lies in a mapped file would keep it open, and there may be thousands.
    return ids.astype(np.int64), lengths.astype(np.int64), digests.copy()
