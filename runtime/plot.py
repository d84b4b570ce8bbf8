"""The picture of a run: true and found positions on the pack's own imagery."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..core.images import encode_rgb
from ..tilepacks.reader import Pack
from .score_map import round_length_m
from .score_read import ScoredFix
from .score_truth import Truth, carried_off

RGB = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# Colours (RGB) that stay apart on vegetation, on soil and for the colour-blind.
_TRUTH = (255, 255, 255)
_FIX = (255, 176, 0)
_CARRIED = (200, 120, 255)  # a position carried on from earlier matches
_ERROR = (230, 40, 90)
_NO_FIX = (120, 200, 255)
_INK, _PAPER = (30, 30, 30), (250, 250, 250)

_MIN_SIDE_PX, _MAX_SIDE_PX = 1000, 2048
_DIMMED = 0.75  # share of the imagery's brightness left, so that marks stand out
_EDGE_SHARE = 0.03  # least distance of a mark from the picture's edge, share of its longer side
_ROOM_SHARE = 0.25  # most that is added at a side for marks beyond the imagery
_SHIFT = 4  # OpenCV draws at 1/16 px


class _Canvas:
    """Imagery with a map from the pack's metres to pixels."""

    def __init__(self, rgb: RGB, west_m: float, north_m: float, gsd_m: float) -> None:
        longest = max(rgb.shape[:2])
        scale = min(max(_MIN_SIDE_PX / longest, 1.0), _MAX_SIDE_PX / longest)
        size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        self.rgb = np.asarray(cv2.resize(rgb, size, interpolation=way), np.uint8)
        self.west_m, self.north_m, self.gsd_m = west_m, north_m, gsd_m / scale
        # Everything is drawn larger on larger pictures.
        self.unit = max(self.rgb.shape[:2]) / 1000

    def pixels(self, east_m: Floats, north_m: Floats) -> Floats:
        """Return columns and rows (N, 2) of places."""
        x = (east_m - self.west_m) / self.gsd_m - 0.5
        return np.stack([x, (self.north_m - north_m) / self.gsd_m - 0.5], axis=-1)

    def line(self, a: Floats, b: Floats, color: tuple[int, int, int], width: float) -> None:
        """Draw a line between two pixels."""
        cv2.line(self.rgb, _fixed(a), _fixed(b), color, self._px(width), cv2.LINE_AA, shift=_SHIFT)

    def circle(self, at: Floats, radius: float, color: tuple[int, int, int], width: float) -> None:
        """Draw a ring, or a disc where `width` is negative."""
        thickness = -1 if width < 0 else self._px(width)
        radius_px = max(1, round(radius * self.unit * (1 << _SHIFT)))
        cv2.circle(self.rgb, _fixed(at), radius_px, color, thickness, cv2.LINE_AA, shift=_SHIFT)

    def text(self, text: str, x: float, y: float, color: tuple[int, int, int] = _INK) -> None:
        """Write text with its baseline's left end at a pixel."""
        at = (round(x), round(y))
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(self.rgb, text, at, font, 0.55 * self.unit, color, self._px(1.3), cv2.LINE_AA)

    def text_width(self, text: str) -> float:
        """Return the width of a text in pixels."""
        font = cv2.FONT_HERSHEY_SIMPLEX
        return float(cv2.getTextSize(text, font, 0.55 * self.unit, self._px(1.3))[0][0])

    def box(self, left: float, top: float, right: float, bottom: float) -> None:
        """Lay a light panel over part of the picture."""
        cut = np.s_[round(top) : round(bottom), round(left) : round(right)]
        paper = np.full_like(self.rgb[cut], 250)
        self.rgb[cut] = cv2.addWeighted(self.rgb[cut], 0.12, paper, 0.88, 0)

    def _px(self, width: float) -> int:
        return max(1, int(width * self.unit + 0.5))


def _fixed(point: Floats) -> tuple[int, int]:
    """Return a pixel in the 1/16 px units of OpenCV's drawing, kept in its range."""
    x, y = np.clip(np.asarray(point) * (1 << _SHIFT), -(2**30), 2**30).round()
    return int(x), int(y)


def draw_track(pack: Pack, fixes: Sequence[ScoredFix], truth: Truth | None) -> bytes:
    """Return a PNG of the fixes, and of the truth with error lines where it is given.

    Args:
        pack: whose imagery is the background; a plain sheet where it carries none.
        fixes: of the run, in order.
        truth: true positions, or None.
    """
    places = [None if truth is None else truth.at(fix.file, fix.t) for fix in fixes]
    issued = [fix.place for fix in fixes]
    canvas = _background(pack, [p for p in (*issued, *places) if p is not None])
    found = _pixels(canvas, pack, issued)
    true = _pixels(canvas, pack, places)
    _draw_path(canvas, true)
    for fixed, real in zip(found, true, strict=True):
        if np.isfinite(fixed).all() and np.isfinite(real).all():
            canvas.line(fixed, real, _ERROR, 2.2)
    for fix, fixed, real in zip(fixes, found, true, strict=True):
        if np.isfinite(real).all():
            missed = not np.isfinite(fixed).all()
            canvas.circle(real, 5.5, _INK, -1)
            canvas.circle(real, 4.0, _NO_FIX if missed else _TRUTH, -1)
        if np.isfinite(fixed).all():
            canvas.circle(fixed, 7.0, _INK, 4.0)
            canvas.circle(fixed, 7.0, _CARRIED if _is_carried(fix) else _FIX, 2.2)
    _draw_legend(canvas, fixes, truth is not None)
    _draw_scale_bar(canvas)
    _draw_north(canvas)
    _draw_credit(canvas, pack.attribution)
    return encode_rgb(canvas.rgb, ".png")


def _is_carried(fix: ScoredFix) -> bool:
    return fix.place is not None and fix.state == "DEGRADED"


def _background(pack: Pack, places: Sequence[tuple[float, float]]) -> _Canvas:
    """Return the pack's imagery, or a plain sheet, with room around it for marks beyond it."""
    overview = pack.overview()
    if overview is not None:
        rgb, west_m, north_m, gsd_m = overview
        picture = np.asarray(cv2.convertScaleAbs(rgb, alpha=_DIMMED), np.uint8)
    else:
        west_m, south_m, east_m, north_m = pack.frame.local_bounds(pack.bounds)
        gsd_m = max(east_m - west_m, north_m - south_m) / _MIN_SIDE_PX
        shape = (math.ceil((north_m - south_m) / gsd_m), math.ceil((east_m - west_m) / gsd_m), 3)
        picture = np.full(shape, 70, np.uint8)
    margins = _margins(pack, places, picture.shape, west_m, north_m, gsd_m)
    left, _, top, _ = margins
    picture = np.asarray(
        cv2.copyMakeBorder(picture, top, margins[3], left, margins[1], cv2.BORDER_CONSTANT),
        np.uint8,
    )
    return _Canvas(picture, west_m - left * gsd_m, north_m + top * gsd_m, gsd_m)


def _margins(
    pack: Pack,
    places: Sequence[tuple[float, float]],
    shape: tuple[int, ...],
    west_m: float,
    north_m: float,
    gsd_m: float,
) -> tuple[int, int, int, int]:
    """Return the pixels to add left, right, above and below, so that all places are in it."""
    if not places:
        return 0, 0, 0, 0
    height, width = shape[:2]
    lat, lon = np.array(places, np.float64).T
    east, north = pack.frame.to_local(lat, lon)
    x, y = (east - west_m) / gsd_m, (north_m - north) / gsd_m
    edge, room = _EDGE_SHARE * max(height, width), int(_ROOM_SHARE * max(height, width))
    over = (edge - x.min(), x.max() + edge - width, edge - y.min(), y.max() + edge - height)
    # No more than the room: a stray fix may be very far.
    left, right, top, bottom = (int(np.clip(np.ceil(v), 0, room)) for v in over)
    return left, right, top, bottom


def _pixels(canvas: _Canvas, pack: Pack, places: Sequence[tuple[float, float] | None]) -> Floats:
    """Return columns and rows (N, 2) of latitude/longitude places, NaN where there is none."""
    pixels = np.full((len(places), 2), np.nan)
    known = [i for i, place in enumerate(places) if place is not None]
    if known:
        lat, lon = np.array([places[i] for i in known], np.float64).T
        pixels[known] = canvas.pixels(*pack.frame.to_local(lat, lon))
    return pixels


def _draw_path(canvas: _Canvas, true: Floats) -> None:
    """Draw the true path (N, 2), broken where the drone was carried off."""
    carried = set(carried_off(true * canvas.gsd_m).tolist())
    for row in range(1, len(true)):
        if row not in carried and np.isfinite(true[row - 1 : row + 1]).all():
            canvas.line(true[row - 1], true[row], _TRUTH, 1.6)


def _draw_legend(canvas: _Canvas, fixes: Sequence[ScoredFix], has_truth: bool) -> None:
    u = canvas.unit
    carried = sum(map(_is_carried, fixes))
    issued = sum(fix.place is not None for fix in fixes) - carried
    rows = [("fix", f"fix ({issued} of {len(fixes)} frames)")]
    if carried:
        rows.append(("carried", f"carried on ({carried} frames)"))
    if has_truth:
        rows += [("truth", "true position"), ("missed", "true, no fix"), ("error", "error")]
    width = max(canvas.text_width(text) for _, text in rows) + 58 * u
    canvas.box(14 * u, 14 * u, 14 * u + width, (26 + 27 * len(rows)) * u)
    for number, (kind, text) in enumerate(rows):
        y = (38 + 27 * number) * u
        at = np.array([34 * u, y - 5 * u])
        if kind in ("fix", "carried"):
            canvas.circle(at, 7.0, _INK, 4.0)
            canvas.circle(at, 7.0, _FIX if kind == "fix" else _CARRIED, 2.2)
        elif kind == "error":
            canvas.line(at - [11 * u, 0], at + [11 * u, 0], _ERROR, 2.6)
        else:
            canvas.circle(at, 5.5, _INK, -1)
            canvas.circle(at, 4.0, _TRUTH if kind == "truth" else _NO_FIX, -1)
        canvas.text(text, 54 * u, y)


def _draw_scale_bar(canvas: _Canvas) -> None:
    u, (height, width) = canvas.unit, canvas.rgb.shape[:2]
    length_m = round_length_m(0.2 * width * canvas.gsd_m)
    length = length_m / canvas.gsd_m
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    left, y = 28 * u, height - 30 * u
    canvas.box(14 * u, y - 32 * u, left + max(length, canvas.text_width(text)) + 14 * u, y + 16 * u)
    canvas.text(text, left, y - 12 * u)
    for a, b in (
        ((0, 0), (length, 0)),
        ((0, -5 * u), (0, 5 * u)),
        ((length, -5 * u), (length, 5 * u)),
    ):
        canvas.line(np.array([left, y]) + a, np.array([left, y]) + b, _INK, 2.4)


def _draw_north(canvas: _Canvas) -> None:
    u, width = canvas.unit, canvas.rgb.shape[1]
    x, top = width - 42 * u, 26 * u
    canvas.box(x - 26 * u, 14 * u, x + 28 * u, 98 * u)
    arrow = np.array([[0, 0], [11, 34], [0, 26], [-11, 34]]) * u + [x, top]
    cv2.fillPoly(canvas.rgb, [arrow.round().astype(np.int32)], _INK, cv2.LINE_AA)
    canvas.text("N", x - canvas.text_width("N") / 2, top + 60 * u)


def _draw_credit(canvas: _Canvas, credit: str) -> None:
    if not credit.isascii() or not credit:
        return  # OpenCV's font has ASCII alone
    u, (height, width) = canvas.unit, canvas.rgb.shape[:2]
    length = canvas.text_width(credit)
    if length + 20 * u > 0.7 * width:
        return
    canvas.box(width - length - 20 * u, height - 30 * u, width, height)
    canvas.text(credit, width - length - 10 * u, height - 10 * u)
