"""Many rasters as one: a folder of them, a pattern, the images of a STAC collection."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .geo import BBox, LocalFrame
from .ground import GroundImage, GroundSource, GroundWindow, files_of
from .raster_files import RasterFiles
from .source_raster import RasterGround, stretch_notes
from .stretch import common_stretch

# What counts as a raster in a folder: previews and sidecars beside them do not.
_SUFFIXES = (".tif", ".tiff", ".jp2", ".img")


class MosaicGround:
    """Sources of any projection and scale as one: where several show a place, the first wins.

    Attributes:
        sources: in order of preference.
        gsd_m: of the finest.
        notes: what the user should know about choices made for them.
        date: ISO 8601, empty where unknown.
        datetime: when it was taken, where known.
    """

    def __init__(self, sources: Sequence[GroundSource], name: str = "") -> None:
        """Take open sources, which are closed with the mosaic.

        Raises:
            InputError: there is none, or they lie on both sides of the antimeridian.
        """
        if not sources:
            raise InputError(f"{name or 'mosaic'}: holds no imagery")
        self.sources = tuple(sources)
        self.name = name or ", ".join(source.name for source in sources)
        boxes = [source.bounds for source in sources]
        west, east = min(b.west for b in boxes), max(b.east for b in boxes)
        if east - west > 180:
            raise InputError(
                f"{self.name}: reaches over {east - west:.0f} degrees of longitude; imagery on "
                "both sides of the antimeridian, or so far apart, is packed by itself"
            )
        self.bounds = BBox(west, min(b.south for b in boxes), east, max(b.north for b in boxes))
        self.gsd_m = min(source.gsd_m for source in sources)
        self.attribution = join_distinct(source.attribution for source in sources)
        self.notes: tuple[str, ...] = ()
        self.date = ""
        self.datetime: datetime | None = None
        self._index: tuple[LocalFrame, npt.NDArray[np.float64]] | None = None

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        """Return the window, area-averaged when coarser than native; invalid pixels are black.

        A hole of one source, down to a pixel, is filled from the next. Only sources that reach
        into the window are read.

        Raises:
            IntegrityError: a part of a file is damaged.
            S4GError: a server stopped to answer.
        """
        shape = (window.height_px, window.width_px)
        rgb, valid = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.bool_)
        for number, (rows, columns) in self._reaching(frame, window):
            missing = ~valid[rows, columns]
            if not missing.any():
                continue
            part = GroundWindow(
                window.west_m + columns.start * window.gsd_m,
                window.north_m - rows.start * window.gsd_m,
                window.gsd_m,
                missing.shape[1],
                missing.shape[0],
            )
            image = self.sources[number].read(frame, part)
            new = image.valid & missing
            rgb[rows, columns][new] = image.rgb[new]
            valid[rows, columns] |= new
        return GroundImage(rgb, valid)

    def _reaching(
        self, frame: LocalFrame, window: GroundWindow
    ) -> list[tuple[int, tuple[slice, slice]]]:
        """Return the sources that may show something of a window, and which of its pixels."""
        west, south, east, north = self._boxes(frame).T
        size = [window.width_px, window.height_px]
        # One pixel more on each side, as boxes are sampled and pixels interpolated.
        begin = np.floor(np.stack([west - window.west_m, window.north_m - north]) / window.gsd_m)
        end = np.ceil(np.stack([east - window.west_m, window.north_m - south]) / window.gsd_m)
        first = np.clip(begin.T - 1, 0, size).astype(int)
        last = np.clip(end.T + 1, 0, size).astype(int)
        hit = np.flatnonzero((first < last).all(axis=1))
        return [
            (int(i), (slice(first[i, 1], last[i, 1]), slice(first[i, 0], last[i, 0]))) for i in hit
        ]

    def _boxes(self, frame: LocalFrame) -> npt.NDArray[np.float64]:
        """Return (N, 4) west, south, east, north of the sources, kept for the last frame."""
        index = self._index  # another thread may replace it by its equal
        if index is None or index[0] != frame:
            boxes = np.array([frame.local_bounds(source.bounds) for source in self.sources])
            index = self._index = (frame, boxes)
        return index[1]

    def value_ranges(self) -> Iterator[tuple[float, float]]:
        """Yield the least and the greatest value of each raster, which is read for it."""
        for source in self.sources:
            if isinstance(source, RasterGround):
                yield from source.value_ranges()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from, as far as they lie on this machine."""
        found = (file for source in self.sources for file in files_of(source))
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """Close all files."""
        for source in self.sources:
            source.close()


def join_distinct(texts: Iterable[str]) -> str:
    """Return the different ones in order, joined."""
    return "; ".join(dict.fromkeys(text for text in texts if text))


def rasters_in(source: str) -> list[Path]:
    """Return the rasters of a folder, or those that match a pattern such as `ortho/*.tif`, sorted.

    Raises:
        InputError: there is none.
    """
    if Path(source).is_dir():
        found = [path for path in Path(source).iterdir() if path.suffix.lower() in _SUFFIXES]
        if not found:
            raise InputError(
                f"{source}: holds no rasters ({', '.join(_SUFFIXES)}); for folders within it give "
                f"a pattern: '{source.rstrip('/')}/**/*.tif'"
            )
        return sorted(found)
    files = sorted(Path(name) for name in glob.glob(source, recursive=True))  # noqa: PTH207
    if not files:
        raise InputError(f"{source}: nothing matches")
    return files


def open_mosaic(
    rasters: Sequence[str | Path],
    name: str,
    stretch: tuple[float, float] | None = None,
    as_given: bool = False,
) -> MosaicGround:
    """Open rasters as one source, of which only some are open at a time.

    Args:
        rasters: what `RasterGround` takes.
        name: of the whole.
        stretch: the values that become black and white, None to choose, the same for all.
        as_given: whether the first given wins; else the finest, then the first by name.

    Raises:
        InputError: one of them cannot be used; it is named.
        IntegrityError: one is damaged.
    """
    files = RasterFiles()
    grounds: list[RasterGround] = []
    try:
        for raster in rasters:
            grounds.append(RasterGround(raster, stretch, files))
        if not as_given:
            grounds.sort(key=lambda ground: (_rounded(ground.gsd_m), ground.name))
        if stretch is None:
            _share_stretch(grounds)
        mosaic = MosaicGround(grounds, name)
    except BaseException:
        for ground in grounds:
            ground.close()
        raise
    mosaic.notes = stretch_notes(grounds, name)
    return mosaic


def _share_stretch(grounds: Sequence[RasterGround]) -> None:
    """Stretch rasters of one type and number of bands alike: no seam shows where they meet."""
    kinds: dict[tuple[Any, ...], list[RasterGround]] = {}
    for ground in grounds:
        if ground.quantiles is not None:
            kinds.setdefault((ground.dtype, len(ground.quantiles)), []).append(ground)
    for alike in kinds.values():
        common = common_stretch([g.quantiles for g in alike if g.quantiles is not None])
        for ground in alike:
            ground.stretch = common


def _rounded(gsd_m: float) -> float:
    """Round to two digits: rasters of one series differ in the third by where they lie."""
    return round(gsd_m, 1 - math.floor(math.log10(gsd_m)))
