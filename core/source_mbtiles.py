"""MBTiles: a tile pyramid in an SQLite file (MBTiles 1.3; rows count from the south)."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from .errors import InputError, IntegrityError
from .geo import BBox
from .tile_image import MAX_TILE_BYTES, begins, one_line, tile_origin, tile_size_px
from .tile_pyramid import MAX_ZOOM, plain_attribution, pyramid_bounds, tiles_bounds

_MAGIC = b"SQLite format 3\0"
# A file may hold views, and a view may never end; reading one tile takes some dozens of steps, and
# the zooms of a hundred million tiles without an index less than this.
_MAX_STEPS = 1_000_000_000
_METADATA = ("name", "format", "bounds", "attribution")
_MAX_TEXT = 10_000


class MbtilesReader:
    """An MBTiles file as a `TileReader`; one connection a thread, never written to.

    Raises:
        InputError: the file cannot be read, holds vector tiles or none, or has changes that are
            not yet written into it.
        IntegrityError: it is no SQLite file, is damaged, or has no table of tiles.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read what it says of itself."""
        self.name = str(path)
        self._path = path
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        _check_file(path)
        try:
            metadata = self._metadata()
            self.attribution = plain_attribution(metadata.get("attribution"))
            self.min_zoom, self.max_zoom = self._zooms()
            self.bounds = self._bounds(metadata.get("bounds"))
            self.tile_px = self._tile_px()
        except BaseException:
            self.close()
            raise

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return a tile, or None where the file has none.

        Raises:
            IntegrityError: the file is damaged there.
        """
        row = (1 << zoom) - 1 - y
        found = self._rows(
            "SELECT length(tile_data), CASE WHEN length(tile_data) <= ? THEN tile_data END "
            "FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ? LIMIT 1",
            (MAX_TILE_BYTES, zoom, x, row),
        )
        if not found:
            return None
        length, data = found[0]
        if not isinstance(data, bytes):
            raise IntegrityError(
                f"{tile_origin(self.name, zoom, x, y)} is no picture or too large "
                f"({length} bytes, at most {MAX_TILE_BYTES}); make the file again"
            )
        return data

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            while self._opened:
                self._opened.pop().close()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            uri = self._path.resolve().as_uri() + "?mode=ro&immutable=1"
            # Each thread uses its own; only `close` comes from another.
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            with self._lock:
                self._opened.append(connection)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.set_progress_handler(lambda: 1, _MAX_STEPS)
            self._local.connection = connection
        return connection

    def _rows(self, query: str, values: tuple[int | str, ...] = ()) -> list[tuple[object, ...]]:
        try:
            return self._connection().execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise IntegrityError(
                f"{self.name}: cannot be read as MBTiles ({one_line(str(error), 200)}); "
                "fetch or make it again"
            ) from None

    def _metadata(self) -> dict[str, str]:
        marks = ", ".join("?" * len(_METADATA))
        rows = self._rows(
            "SELECT name, value FROM metadata WHERE typeof(value) = 'text' "
            f"AND length(value) < {_MAX_TEXT} AND name IN ({marks}) LIMIT 100",
            _METADATA,
        )
        metadata = {str(name): str(value) for name, value in rows}
        if metadata.get("format", "").lower() in ("pbf", "mvt"):
            raise InputError(
                f"{self.name}: holds vector tiles ({metadata['format']}), which are no imagery; "
                "give an MBTiles file of PNG, JPEG or WebP tiles"
            )
        return metadata

    def _zooms(self) -> tuple[int, int]:
        """Return the finest zoom and the coarsest from which all follow without a gap.

        The table tells, not the metadata: that is written by hand, and often wrong.
        """
        zooms: list[int] = []
        below: int = MAX_ZOOM + 1
        while True:
            rows = self._rows("SELECT max(zoom_level) FROM tiles WHERE zoom_level < ?", (below,))
            zoom = rows[0][0]
            if zoom is None or (zooms and zoom != zooms[-1] - 1):
                break
            if not isinstance(zoom, int) or zoom < 0:
                raise IntegrityError(f"{self.name}: has a zoom level {zoom!r:.40}; make it again")
            zooms.append(zoom)
            below = zoom
        if not zooms:
            raise InputError(f"{self.name}: holds no tiles; give one that has imagery")
        return zooms[-1], zooms[0]

    def _bounds(self, text: str | None) -> BBox:
        """Return the bounds of the metadata, else those of the finest zoom's tiles."""
        if text is not None:
            try:
                west, south, east, north = (float(side) for side in text.split(","))
            except ValueError:
                raise InputError(
                    f"{self.name}: its bounds are {text!r:.80}, expected west,south,east,north in "
                    "degrees; correct its metadata"
                ) from None
            return pyramid_bounds(self.name, west, south, east, north)
        (sides,) = self._rows(
            "SELECT min(tile_column), min(tile_row), max(tile_column), max(tile_row) FROM tiles "
            "WHERE zoom_level = ?",
            (self.max_zoom,),
        )
        x0, row0, x1, row1 = (side if isinstance(side, int) else -1 for side in sides)
        tiles = 1 << self.max_zoom
        if not (0 <= x0 <= x1 < tiles and 0 <= row0 <= row1 < tiles):
            raise IntegrityError(
                f"{self.name}: columns {x0} to {x1} and rows {row0} to {row1} are outside zoom "
                f"{self.max_zoom}; make it again"
            )
        return tiles_bounds(self.max_zoom, x0, tiles - 1 - row1, x1 + 1, tiles - row0)

    def _tile_px(self) -> int:
        ((column, row),) = self._rows(
            "SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ? LIMIT 1",
            (self.max_zoom,),
        )
        if not isinstance(column, int) or not isinstance(row, int):
            raise IntegrityError(f"{self.name}: its tiles have no numbers; make it again")
        y = (1 << self.max_zoom) - 1 - row
        data = self.tile(self.max_zoom, column, y) or b""
        return tile_size_px(data, tile_origin(self.name, self.max_zoom, column, y))


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
        log = path.with_name(path.name + "-wal")
        unwritten = log.exists() and log.stat().st_size > 0
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if magic != _MAGIC:
        raise IntegrityError(
            f"{path}: is no MBTiles file (begins {begins(magic)}); fetch or make it again"
        )
    if unwritten:
        raise InputError(
            f"{path}: has changes that are still in {log.name}; close the program that writes it, "
            f"or run: sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'"
        )
