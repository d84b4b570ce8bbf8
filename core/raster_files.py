"""Opening rasters with GDAL: what a name may be, HTTP, palettes, and few files open at once.

A dataset of GDAL serves one thread at a time. Whoever reads borrows one and gives it back, so
readers in several threads do not wait for each other, and no more files are open than are used.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from .errors import InputError, IntegrityError, S4GError

MAX_OPEN_FILES = 64
# GDAL waits 1, 2, 4, 8 s between tries; a request that gets under 1 kB/s for 30 s is given up.
# Not CPL_VSIL_CURL_ALLOWED_EXTENSIONS: it refuses signed addresses, which end in a query.
HTTP_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
}
_ANSWER = re.compile(r"HTTP response code:? (?:on \S+: )?(\d{3})")
_CURL = re.compile(r"CURL error: ([^\n]+)")


def load_rasterio() -> Any:
    """Return the module rasterio with the parts used here.

    Raises:
        S4GError: it is not installed.
    """
    try:
        import rasterio
        import rasterio.vrt
        import rasterio.warp
    except ImportError:
        raise S4GError("reading GeoTIFF needs rasterio: pip install 's4g[pack]'") from None
    return rasterio


def gdal_errors() -> tuple[type[Exception], type[Exception], type[Exception]]:
    """Return what rasterio raises for a file that GDAL or PROJ cannot use."""
    rasterio = load_rasterio()
    errors = rasterio.errors
    return errors.RasterioError, errors.CRSError, rasterio._err.CPLE_BaseError


def gdal_reason(error: Exception, name: str) -> str:
    """Return what GDAL says in short: without the file's name and the SQL that failed.

    Args:
        error: of `gdal_errors`.
        name: as GDAL was given it; whoever tells the reason names the file.
    """
    text = str(error).rpartition("failed: ")[2]
    for told in (f"'{name}' ", f"`{name}' ", f"{name}: "):
        text = text.replace(told, "")
    return " ".join(text.split()).rstrip(".")


@dataclass(frozen=True)
class RasterPath:
    """A raster as people and as GDAL name it.

    Attributes:
        name: for messages, without the query of an address, which may hold a key.
        gdal: what GDAL opens.
        remote: whether it is read over HTTP.
    """

    name: str
    gdal: str
    remote: bool = False


def is_url(source: str) -> bool:
    """Return whether a source is an address of the web."""
    return source.lower().startswith(("http://", "https://"))


def without_query(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def raster_path(source: str | Path) -> RasterPath:
    """Take a path, `file.gpkg:table`, or an address of a GeoTIFF."""
    text = str(source)
    if is_url(text):
        return RasterPath(without_query(text), f"/vsicurl/{text}", remote=True)
    file, colon, table = text.rpartition(":")
    if colon and file.lower().endswith(".gpkg") and not Path(text).exists():
        return RasterPath(text, f"GPKG:{file}:{table}")
    return RasterPath(text, text)


class RasterFiles:
    """Open datasets, kept for the next read; the least recently used is closed first."""

    def __init__(self, limit: int = MAX_OPEN_FILES) -> None:
        """Keep at most `limit` files open; more only while more threads than that read."""
        self._limit = limit
        self._idle: list[tuple[tuple[RasterPath, int | None], Any]] = []  # last used last
        self._borrowed = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def borrow(self, path: RasterPath, overview: int | None = None) -> Iterator[Any]:
        """Yield the dataset, or one of its overviews, for this thread alone.

        Raises:
            InputError: it is no image that can be read.
            S4GError: a server does not answer.
        """
        key = (path, overview)
        with load_rasterio().Env(**(HTTP_OPTIONS if path.remote else {})):
            dataset = self._take(key)
            try:
                if dataset is None:
                    dataset = _open(path, overview)
                yield dataset
            except BaseException:
                with self._lock:
                    self._borrowed -= 1
                if dataset is not None:
                    dataset.close()
                raise
            with self._lock:
                self._borrowed -= 1
                self._idle.append((key, dataset))

    def _take(self, key: tuple[RasterPath, int | None]) -> Any:
        with self._lock:
            self._borrowed += 1
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
            keep = max(0, self._limit - self._borrowed)
            surplus = self._idle[: len(self._idle) - keep] if len(self._idle) > keep else []
            del self._idle[: len(surplus)]
        for _, dataset in surplus:
            dataset.close()
        return None

    def close(self, path: RasterPath) -> None:
        """Close what is open of a raster and not being read."""
        with self._lock:
            mine = [dataset for key, dataset in self._idle if key[0] == path]
            self._idle = [entry for entry in self._idle if entry[0][0] != path]
        for dataset in mine:
            dataset.close()


def _open(path: RasterPath, overview: int | None) -> Any:
    rasterio = load_rasterio()
    # What a server sends may not lead anywhere else, as a VRT would.
    options: dict[str, Any] = {"driver": "GTiff"} if path.remote else {}
    if not path.remote:
        _refuse_description(path)
    try:
        dataset, again = rasterio.open(path.gdal, **options), path.gdal
        if not path.remote and has_palette(dataset):
            again = _palette_vrt(dataset, path)
        if overview is not None:
            options["overview_level"] = overview
        if overview is not None or again != path.gdal:
            dataset.close()
            dataset = rasterio.open(again, **options)
    except gdal_errors() as error:
        raise _open_error(path, error) from None
    return dataset


def has_palette(dataset: Any) -> bool:
    """Return whether pixels are numbers of colours."""
    palette = load_rasterio().enums.ColorInterp.palette
    return bool(dataset.count) and dataset.colorinterp[0] == palette


def _refuse_description(path: RasterPath) -> None:
    """Refuse what only describes imagery, unless its name says so: it may lead to any place."""
    try:
        with Path(path.gdal).open("rb") as file:
            head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        return  # GDAL's own words, or a table of a GeoPackage
    if head[:1] in (b"<", b"{") and not path.gdal.lower().endswith(".vrt"):
        raise InputError(
            f"{path.name}: is text that describes imagery, not an image; a VRT's name ends in .vrt"
        )


def _open_error(path: RasterPath, error: Exception) -> S4GError:
    if not path.remote:
        reason = gdal_reason(error, path.gdal)
        return InputError(f"{path.name}: not an image that can be read ({reason})")
    if (answer := _http_answer(error)) is None:
        return InputError(
            f"{path.name}: the server sent no GeoTIFF; give the address of the file itself"
        )
    if not answer.isdigit():
        return S4GError(
            f"{path.name}: cannot be reached ({answer}); check the address and the network"
        )
    if answer.startswith("5"):
        return S4GError(f"{path.name}: the server failed (HTTP {answer}); try again later")
    return InputError(
        f"{path.name}: the server refused it (HTTP {answer}); check the address, and whether it "
        "needs a signature"
    )


@contextlib.contextmanager
def reading(path: RasterPath) -> Iterator[None]:
    """Name the file where GDAL fails to read pixels.

    Raises:
        IntegrityError: a part of a local file is damaged.
        S4GError: a server stopped to answer.
    """
    try:
        yield
    except gdal_errors() as error:
        if path.remote:
            answer = _http_answer(error) or "not all of it came"
            reason = f"HTTP {answer}" if answer.isdigit() else answer
            raise S4GError(
                f"{path.name}: reading stopped ({reason}); check the network and try again"
            ) from None
        raise IntegrityError(
            f"{path.name}: cannot be read ({gdal_reason(error, path.gdal)}); the file is damaged, "
            "fetch it again"
        ) from None


def _http_answer(error: BaseException | None) -> str | None:
    """Return the status or curl's words found in an error or its causes; never an address."""
    while error is not None:
        if match := _ANSWER.search(str(error)) or _CURL.search(str(error)):
            return match[1]
        error = error.__cause__ or error.__context__
    return None


def _palette_vrt(dataset: Any, path: RasterPath) -> str:
    """Return a virtual raster, as XML, of the colours that the pixels point at: RGBA."""
    colours = dataset.colormap(1)
    size = f'rasterXSize="{dataset.width}" rasterYSize="{dataset.height}"'
    wkt = escape(dataset.crs.to_wkt()) if dataset.crs else ""
    steps = ", ".join(repr(step) for step in dataset.transform.to_gdal())
    place = f"<SRS>{wkt}</SRS><GeoTransform>{steps}</GeoTransform>" if wkt else ""
    bands = []
    for number, name in enumerate(("Red", "Green", "Blue", "Alpha")):
        table = ",".join(f"{index}:{colours[index][number]}" for index in sorted(colours))
        masked = "<UseMaskBand>true</UseMaskBand>" if name == "Alpha" else ""
        bands.append(
            f'<VRTRasterBand dataType="Byte" band="{number + 1}"><ColorInterp>{name}</ColorInterp>'
            f'<ComplexSource><SourceFilename relativeToVRT="0" shared="0">{escape(path.gdal)}'
            f"</SourceFilename><SourceBand>1</SourceBand><LUT>{table}</LUT>{masked}"
            "</ComplexSource></VRTRasterBand>"
        )
    return f"<VRTDataset {size}>{place}{''.join(bands)}</VRTDataset>"
