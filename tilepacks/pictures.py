"""Pictures of a pack for people: what it covers, and where it will be hard to fly by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ..core.geo import Floats
from ..core.ground import RGB
from ..core.images import encode_rgb
from .ambiguity import Ambiguity
from .ambiguity_route import KINDS, OUTSIDE, RouteAhead, Stretch
from .reader import Pack

_SIDE_PX = 1000
_LEAST_PX = 800  # of the sheet's width: the legend has room
_MARGIN_PX = 16
_LINE_PX = 20
_INK, _PAPER, _FAINT = (30, 30, 30), (255, 255, 255), (225, 225, 225)
_FONT, _FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45
_TITLE_PX = 560
_COVER = 0.6  # how much of the ground a colour hides
_BEYOND = 0.25  # of the region's larger side, what a picture shows around it
_GREY_PER_DETAIL = 1 / 16
_MUCH_GREY = 8.0
# A frame's score minus the rival's: nothing left is hard, so much is as good as any.
_SAFE_MARGIN, _NEARLY = 0.3, 0.75
# By `KINDS`; told apart also by those who see no red or green.
_KIND_COLOURS = ((0, 0, 0), (255, 150, 0), (215, 20, 30), (30, 110, 220))
_SHIFT, _FAR_PX = 4, 1e5  # lines are drawn to a sixteenth of a pixel, far beyond the map
_MARKS = 20  # of the longest stretches get their number


class _Sheet:
    """A map of the region, north up, with a legend below; colours are RGB."""

    def __init__(
        self, pack: Pack, title: str, lines: int, bounds: Sequence[float] | None = None
    ) -> None:
        own = pack.frame.local_bounds(pack.bounds)
        self._west, self._south, self._east, self._north = own if bounds is None else bounds
        self._gsd_m = max(self._east - self._west, self._north - self._south) / _SIDE_PX
        width = max(1, round((self._east - self._west) / self._gsd_m))
        height = max(1, round((self._north - self._south) / self._gsd_m))
        below = _LINE_PX * (lines + 1) + 16
        shape = (height + 2 * _MARGIN_PX + below, max(width, _LEAST_PX) + 2 * _MARGIN_PX, 3)
        self.image: RGB = np.full(shape, 255, np.uint8)
        self._map = self.image[_MARGIN_PX : _MARGIN_PX + height, _MARGIN_PX : _MARGIN_PX + width]
        self._map[:] = _FAINT
        self._bottom = _MARGIN_PX + height
        self.text(_shortened(title, _TITLE_PX), 0, 0)
        if pack.attribution:
            self.text(_shortened(f"imagery: {pack.attribution}", _TITLE_PX), 0, lines)
        self._scale_bar(width)
        self._picture(pack)
        frame = (_MARGIN_PX - 1, _MARGIN_PX - 1), (_MARGIN_PX + width, _MARGIN_PX + height)
        cv2.rectangle(self.image, *frame, _FAINT)

    def text(self, text: str, column_px: int, line: int) -> None:
        """Write a line of the legend."""
        place = (_MARGIN_PX + column_px, self._bottom + _LINE_PX * (line + 1))
        cv2.putText(self.image, text, place, _FONT, _FONT_SIZE, _INK, 1, cv2.LINE_AA)

    def squares(self, east_m: Floats, north_m: Floats, side_m: float, colours: RGB) -> None:
        """Tint a square around each centre; later ones cover earlier ones."""
        half = max(0.5, side_m / self._gsd_m / 2)
        x, y = self._pixels(east_m, north_m)
        ground = self._map.astype(np.float32)
        for column, row, colour in zip(x.tolist(), y.tolist(), colours.tolist(), strict=True):
            first = (round(column - half), round(row - half))
            last = (max(first[0], round(column + half) - 1), max(first[1], round(row + half) - 1))
            cv2.rectangle(self._map, first, last, colour, -1)
        self._map[:] = np.asarray(ground * (1 - _COVER) + self._map * _COVER + 0.5, np.uint8)

    def ramp(self, first: str, last: str, line: int, stepped: bool = False) -> None:
        """Draw the colours of `_heat` with the values of their ends."""
        top = self._bottom + 10 + _LINE_PX * line
        left = _MARGIN_PX + _width_px(first) + 8
        share = np.linspace(0, _NEARLY if stepped else 1, 160)
        if stepped:
            share[-16:] = 1
        bar = np.broadcast_to(_heat(share), (12, 160, 3)).astype(np.float32)
        # As on white paper: what covers the ground there lets the paper through here.
        self.image[top : top + 12, left : left + 160] = bar * _COVER + 255 * (1 - _COVER)
        self.text(first, 0, line)
        self.text(last, left - _MARGIN_PX + 168, line)

    def swatch(self, colour: tuple[int, int, int], text: str, column_px: int, line: int) -> int:
        """Draw a colour of the legend and what it means; return where the next may begin."""
        y = self._bottom + _LINE_PX * (line + 1) - 5
        cv2.line(
            self.image, (_MARGIN_PX + column_px, y), (_MARGIN_PX + column_px + 20, y), colour, 4
        )
        self.text(text, column_px + 28, line)
        return column_px + 28 + _width_px(text) + 20

    def line(self, east_m: Floats, north_m: Floats, colour: tuple[int, int, int], px: int) -> None:
        """Draw a line."""
        x, y = self._pixels(east_m, north_m)
        fine = np.clip(np.stack([x, y], axis=1), -_FAR_PX, _FAR_PX) * (1 << _SHIFT)
        points = np.rint(fine).astype(np.int32)
        cv2.polylines(self._map, [points], False, colour, px, cv2.LINE_AA, _SHIFT)

    def mark(self, east_m: float, north_m: float, text: str) -> None:
        """Write a word beside a place, on paper of its own."""
        x, y = self._pixels(np.array([east_m]), np.array([north_m]))
        width, height = _width_px(text) + 6, 16
        left = min(max(0, round(float(x[0])) + 8), max(0, self._map.shape[1] - width))
        top = min(max(0, round(float(y[0])) - 20), max(0, self._map.shape[0] - height))
        cv2.rectangle(self._map, (left, top), (left + width, top + height), _PAPER, -1)
        place = (left + 3, top + 12)
        cv2.putText(self._map, text, place, _FONT, _FONT_SIZE, _INK, 1, cv2.LINE_AA)

    def png(self) -> bytes:
        """Return the picture as a PNG file."""
        return encode_rgb(self.image, ".png")

    def _pixels(self, east_m: Floats, north_m: Floats) -> tuple[Floats, Floats]:
        return (east_m - self._west) / self._gsd_m, (self._north - north_m) / self._gsd_m

    def _picture(self, pack: Pack) -> None:
        """Lay the pack's overview under everything, pale."""
        overview = pack.overview()
        if overview is None:
            return
        picture, west, north, gsd = overview
        scale = gsd / self._gsd_m
        shift = ((west - self._west) / self._gsd_m, (self._north - north) / self._gsd_m)
        # Pixel centres: the middle of the picture's first pixel lies half a pixel inside it.
        offset = scale / 2 - 0.5
        place = np.array([[scale, 0, shift[0] + offset], [0, scale, shift[1] + offset]])
        size = (self._map.shape[1], self._map.shape[0])
        if scale < 1:  # warpAffine has no area average: it would drop what lies between pixels
            picture = np.asarray(cv2.blur(picture, (math.ceil(1 / scale),) * 2), np.uint8)
        warped = cv2.warpAffine(picture, place, size, flags=cv2.INTER_LINEAR, borderValue=_PAPER)
        self._map[:] = np.asarray(128 + warped.astype(np.float32) / 2, np.uint8)

    def _scale_bar(self, width: int) -> None:
        most_m = 0.25 * max(width, _LEAST_PX) * self._gsd_m
        length_m = 10.0 ** math.floor(math.log10(most_m))
        length_m *= next(step for step in (5, 2, 1) if step * length_m <= most_m)
        length = round(length_m / self._gsd_m)
        right, y = self.image.shape[1] - _MARGIN_PX, self._bottom + 16
        cv2.line(self.image, (right - length, y), (right, y), _INK, 2)
        label = f"{length_m:g} m" if length_m < 1000 else f"{length_m / 1000:g} km"
        cv2.putText(
            self.image, label, (right - length, y + 18), _FONT, _FONT_SIZE, _INK, 1, cv2.LINE_AA
        )
        north = (right - 6, y + 10), (right - 12, y + 26), (right, y + 26)
        cv2.fillPoly(self.image, [np.array(north, np.int32)], _INK, cv2.LINE_AA)
        cv2.putText(self.image, "N", (right - 26, y + 24), _FONT, _FONT_SIZE, _INK, 1, cv2.LINE_AA)


def draw_preview(pack: Pack, level: int) -> bytes:
    """Return a PNG of a level: its tiles on the region's picture, coloured by what they show.

    Raises:
        IntegrityError: a section is damaged or altered.
    """
    record = pack.levels[level]
    own = slice(record.first, record.first + record.count)
    title = f"{pack.path.name}, level {record.footprint_m:g} m: {record.count} tiles"
    sheet = _Sheet(pack, title, 2)
    share = 1 - pack.detail(level).astype(np.float64) * _GREY_PER_DETAIL / _MUCH_GREY
    order = np.argsort(share, kind="stable")
    sheet.squares(
        pack.east_m[own][order],
        pack.north_m[own][order],
        0.6 * record.stride_m,
        _heat(share[order]),
    )
    sheet.ramp(f"{_MUCH_GREY:g} grey levels/px", "0: nothing to see (water, sand, snow, cloud)", 1)
    return sheet.png()


def draw_ambiguity(pack: Pack, level: int, found: Ambiguity) -> bytes:
    """Return a PNG of a level: red where another place looks alike, blue where none does."""
    record = pack.levels[level]
    title = f"{pack.path.name}, level {record.footprint_m:g} m: most similar place elsewhere"
    sheet = _Sheet(pack, title, 2)
    if np.isfinite(found.own).all():
        # A step at the end of the scale: what is hard stands out from what nearly is.
        share = _NEARLY * (1 - np.maximum(found.margin, 0).astype(np.float64) / _SAFE_MARGIN)
        share[found.hard] = 1
        ends = f"a frame scores {_SAFE_MARGIN:g} more", "no more: hard"
    else:
        low, high = (float(v) for v in np.percentile(found.cosine, [2, 98]))
        share = (found.cosine.astype(np.float64) - low) / max(high - low, 1e-6)
        ends = f"cosine {low:.2f}", f"{high:.2f}"
    order = np.argsort(share, kind="stable")
    spread = np.sqrt(record.count / max(1, len(found.tiles)))
    sheet.squares(
        found.east_m[order], found.north_m[order], record.stride_m * spread, _heat(share[order])
    )
    sheet.ramp(*ends, 1, stepped=bool(np.isfinite(found.own).all()))
    return sheet.png()


def draw_route(
    pack: Pack, level: int, ahead: RouteAhead, found: Sequence[Stretch], name: str
) -> bytes:
    """Return a PNG of the region with a route, coloured by what it meets, its stretches numbered.

    Args:
        pack: an open pack.
        level: the level that was compared.
        ahead: of `look_ahead`.
        found: of `stretches`; the number is the place in this list, from 1.
        name: of the route.

    Raises:
        IntegrityError: a section is damaged or altered.
    """
    length_km = ahead.metres(*range(len(KINDS))) / 1000
    title = f"{name} ({length_km:.1f} km) over {pack.path.name}, level "
    title += f"{pack.levels[level].footprint_m:g} m"
    sheet = _Sheet(pack, title, 2, _with_route(pack, ahead))
    if (ahead.kind == OUTSIDE).all():
        west_m, south_m, east_m, north_m = pack.frame.local_bounds(pack.bounds)
        sides = np.array([west_m, east_m, east_m, west_m, west_m])
        ends = np.array([south_m, south_m, north_m, north_m, south_m])
        sheet.line(sides, ends, _INK, 1)
        sheet.mark(east_m, north_m, "the pack")
    east, north = (_pieces(ahead, places) for places in (ahead.east_m, ahead.north_m))
    for piece in range(len(ahead.kind)):
        sheet.line(east[piece], north[piece], _PAPER, 8)
    for piece in np.argsort(-ahead.kind, kind="stable"):  # what matters covers what does not
        sheet.line(east[piece], north[piece], _KIND_COLOURS[ahead.kind[piece]], 4)
    for number in np.unique(ahead.line):
        begin = int(np.argmax(ahead.line == number))
        label = "start" if number == 0 else f"line {number + 1}"
        sheet.mark(float(ahead.east_m[begin]), float(ahead.north_m[begin]), label)
    for number, stretch in enumerate(found[:_MARKS], 1):
        middle = (stretch.first + stretch.last) // 2
        sheet.mark(float(ahead.east_m[middle]), float(ahead.north_m[middle]), str(number))
    column_px = 0
    for kind, text in enumerate(KINDS):
        label = f"{text} {ahead.metres(kind) / 1000:.1f} km"
        column_px = sheet.swatch(_KIND_COLOURS[kind], label, column_px, 1)
    return sheet.png()


def _with_route(pack: Pack, ahead: RouteAhead) -> tuple[float, float, float, float]:
    """Return the region's box with the route's, which reaches beyond it a little at most.

    Of a route that lies wholly outside all is shown, to see where it and the region are.
    """
    west, south, east, north = pack.frame.local_bounds(pack.bounds)
    first_x, last_x = float(ahead.east_m.min()), float(ahead.east_m.max())
    first_y, last_y = float(ahead.north_m.min()), float(ahead.north_m.max())
    more = _BEYOND * max(east - west, north - south)
    if (ahead.kind == OUTSIDE).all():
        more = max(east, last_x) - min(west, first_x) + max(north, last_y) - min(south, first_y)
    return (
        max(west - more, min(west, first_x - more / 8)),
        max(south - more, min(south, first_y - more / 8)),
        min(east + more, max(east, last_x + more / 8)),
        min(north + more, max(north, last_y + more / 8)),
    )


def _pieces(ahead: RouteAhead, places_m: Floats) -> Floats:
    """Return the route around each sample, (S, 3): half-way from the last, there, half-way on."""
    after = np.append(places_m[1:], places_m[-1:])
    ends = np.append(ahead.line[1:] != ahead.line[:-1], True)
    after[ends] = places_m[ends]
    before = np.append(places_m[:1], places_m[:-1])
    begins = np.roll(ends, 1)
    before[begins] = places_m[begins]
    return np.stack([(before + places_m) / 2, places_m, (places_m + after) / 2], axis=1)


def _width_px(text: str) -> int:
    width: int = cv2.getTextSize(text, _FONT, _FONT_SIZE, 1)[0][0]
    return width


def _shortened(text: str, most_px: int) -> str:
    """Return a text that leaves room for what stands beside it."""
    if _width_px(text) <= most_px:
        return text
    while _width_px(text + "...") > most_px:
        text = text[:-1]
    return text + "..."


def _heat(share: Floats) -> RGB:
    """Return colours (N, 3) uint8 RGB for 0 (blue) to 1 (red), by OpenCV's Turbo map."""
    values = np.rint(25 + 205 * np.clip(share, 0, 1)).astype(np.uint8)
    bgr = cv2.applyColorMap(values[:, None], cv2.COLORMAP_TURBO)[:, 0]
    return np.ascontiguousarray(bgr[:, ::-1])
