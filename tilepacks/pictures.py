"""Pictures of a pack for people: what it covers, and where it will be hard to fly by."""

from __future__ import annotations

import cv2
import numpy as np

from ..core.geo import Floats
from ..core.ground import RGB
from ..core.images import encode_rgb
from .ambiguity import Ambiguity
from .reader import Pack

_SIDE_PX = 1000
_MARGIN_PX = 16
_LEGEND_PX = 64
_INK, _PAPER, _FAINT = (30, 30, 30), (255, 255, 255), (225, 225, 225)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GREY_PER_DETAIL = 1 / 16


class _Sheet:
    """A map of the region, north up, with a legend below; colours are RGB."""

    def __init__(self, pack: Pack, title: str) -> None:
        self._west, self._south, self._east, self._north = pack.frame.local_bounds(pack.bounds)
        self._gsd_m = max(self._east - self._west, self._north - self._south) / _SIDE_PX
        width = round((self._east - self._west) / self._gsd_m)
        height = round((self._north - self._south) / self._gsd_m)
        shape = (height + 2 * _MARGIN_PX + _LEGEND_PX, max(width, 640) + 2 * _MARGIN_PX, 3)
        self.image: RGB = np.full(shape, 255, np.uint8)
        self._map = self.image[_MARGIN_PX : _MARGIN_PX + height, _MARGIN_PX : _MARGIN_PX + width]
        self._map[:] = _FAINT
        self._bottom = _MARGIN_PX + height
        self.text(title, 0, 0)
        self._scale_bar(width)

    def text(self, text: str, column_px: int, line: int) -> None:
        """Write a line of the legend."""
        place = (_MARGIN_PX + column_px, self._bottom + 20 + 20 * line)
        cv2.putText(self.image, text, place, _FONT, 0.45, _INK, 1, cv2.LINE_AA)

    def picture(self, pack: Pack) -> None:
        """Lay the pack's overview under everything, pale."""
        overview = pack.overview()
        if overview is None:
            return
        image, west, north, gsd = overview
        scale = gsd / self._gsd_m
        shift = ((west - self._west) / self._gsd_m, (self._north - north) / self._gsd_m)
        place = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        size = (self._map.shape[1], self._map.shape[0])
        warped = cv2.warpAffine(image, place, size, flags=cv2.INTER_AREA, borderValue=_FAINT)
        self._map[:] = np.asarray(128 + warped.astype(np.float32) / 2, np.uint8)

    def squares(self, east_m: Floats, north_m: Floats, side_m: float, colours: RGB) -> None:
        """Fill a square around each centre; later ones cover earlier ones."""
        half = max(0.5, side_m / self._gsd_m / 2)
        x, y = (east_m - self._west) / self._gsd_m, (self._north - north_m) / self._gsd_m
        for column, row, colour in zip(x.tolist(), y.tolist(), colours.tolist(), strict=True):
            first = (round(column - half), round(row - half))
            last = (max(first[0], round(column + half) - 1), max(first[1], round(row + half) - 1))
            cv2.rectangle(self._map, first, last, colour, -1)

    def ramp(self, first: str, last: str, line: int) -> None:
        """Draw the colours of `_heat` with the values of their ends."""
        top = self._bottom + 10 + 20 * line
        bar = np.broadcast_to(_heat(np.linspace(0, 1, 160))[None], (12, 160, 3))
        self.image[top : top + 12, _MARGIN_PX + 60 : _MARGIN_PX + 220] = bar
        self.text(first, 0, line)
        self.text(last, 228, line)

    def png(self) -> bytes:
        """Return the picture as a PNG file."""
        return encode_rgb(self.image, ".png")

    def _scale_bar(self, width: int) -> None:
        length_m = 10 ** np.floor(np.log10(0.4 * width * self._gsd_m))
        length = round(length_m / self._gsd_m)
        right = self.image.shape[1] - _MARGIN_PX
        y = self._bottom + 16
        cv2.line(self.image, (right - length, y), (right, y), _INK, 2)
        label = f"{length_m:g} m" if length_m < 1000 else f"{length_m / 1000:g} km"
        cv2.putText(self.image, label, (right - length, y + 18), _FONT, 0.45, _INK, 1, cv2.LINE_AA)


def draw_preview(pack: Pack, level: int) -> bytes:
    """Return a PNG of a level: its tiles on the region's picture, coloured by what they show.

    Raises:
        IntegrityError: a section is damaged or altered.
    """
    record = pack.levels[level]
    own = slice(record.first, record.first + record.count)
    sheet = _Sheet(pack, f"{pack.path.name}, level {record.footprint_m:g} m: {record.count} tiles")
    sheet.picture(pack)
    detail = pack.detail(level) * _GREY_PER_DETAIL
    sheet.squares(pack.east_m[own], pack.north_m[own], 0.5 * record.stride_m, _heat(1 - detail / 8))
    sheet.ramp("much", "nothing to see (water, sand, cloud)", 1)
    return sheet.png()


def draw_ambiguity(pack: Pack, level: int, found: Ambiguity) -> bytes:
    """Return a PNG of a level: red where another place looks alike, blue where none does."""
    record = pack.levels[level]
    sheet = _Sheet(
        pack, f"{pack.path.name}, level {record.footprint_m:g} m: most similar place elsewhere"
    )
    sheet.picture(pack)
    low, high = (float(v) for v in np.percentile(found.cosine, [2, 98]))
    share = (found.cosine.astype(np.float64) - low) / max(high - low, 1e-6)
    order = np.argsort(share, kind="stable")
    spread = np.sqrt(record.count / max(1, len(found.tiles)))
    sheet.squares(
        found.east_m[order], found.north_m[order], record.stride_m * spread, _heat(share[order])
    )
    sheet.ramp(f"{low:.2f}", f"{high:.2f} cosine: hard to tell apart", 1)
    return sheet.png()


def _heat(share: Floats) -> RGB:
    """Return colours (N, 3) uint8 RGB for 0 (blue) to 1 (red), by OpenCV's Turbo map."""
    values = np.clip(np.rint(25 + 205 * share), 0, 255).astype(np.uint8)
    bgr = cv2.applyColorMap(values[:, None], cv2.COLORMAP_TURBO)[:, 0]
    return np.ascontiguousarray(bgr[:, ::-1])
