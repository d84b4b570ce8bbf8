"""The two plots of a score as SVG: the error over time, and Stanford's, error against HPL."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .score_flight import Flight
from .score_statistics import R95_PER_SIGMA
from .score_times import running

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Pixels of the pictures: the frames of the plots lie at these places.
_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 628, 22, 272
_SIDE = 460
_FIRST_DECADE = -1  # errors below 0.1 m are drawn there: no map is that good
_FEW, _FEW_PX, _MANY_PX = 600, 5.5, 3.0  # marks are smaller where there are many
_GRAIN_PX = 0.5  # marks that share a place are drawn once
_MOST_TICKS = 8
_LETTER_PX = 11.0  # of a label, at the size that a phone needs
_EDGE_PX = 12.0


@dataclass(frozen=True)
class _Axis:
    """A linear or logarithmic axis from `start_px` to `end_px`."""

    low: float
    high: float
    start_px: float
    end_px: float
    logarithmic: bool

    def px(self, values: npt.ArrayLike) -> Floats:
        """Return where values lie; those beyond an end lie on it."""
        within, low, high = np.clip(values, self.low, self.high), self.low, self.high
        if self.logarithmic:
            within, low, high = np.log10(within), math.log10(low), math.log10(high)
        share = (np.asarray(within, np.float64) - low) / (high - low)
        return np.asarray(self.start_px + (self.end_px - self.start_px) * share)

    @property
    def ticks(self) -> list[float]:
        """Decades, or steps of 1, 2 or 5 times a power of ten."""
        if self.logarithmic:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        power = 10 ** math.floor(math.log10(self.high - self.low))
        steps = (power * share for share in (0.1, 0.2, 0.5, 1))
        step = next(s for s in steps if (self.high - self.low) / s < _MOST_TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def error_plot(flight: Flight) -> str:
    """Return the error of each fix over time, or over the frames where they bear no times.

    Frames without a position are a grey ground; lines are the 95 % radius and the protection
    level, at their largest where many fall on one pixel; events are named.
    """
    timed = running(flight.t_s)
    along = flight.t_s if timed.any() else np.arange(len(flight.t_s), dtype=np.float64)
    shown = timed if timed.any() else np.ones(len(along), bool)
    along, frames = along[shown], flight.frames.where(shown)
    step = float(np.median(np.diff(along))) if len(along) > 1 else 1.0
    x = _Axis(float(along[0]), float(along[-1]) + (step or 1.0), _LEFT, _RIGHT, False)
    y = _metres(flight, _BOTTOM, _TOP)
    starts_px, ends_px = x.px(along), x.px(np.append(along[1:], x.high))
    parts = [
        path("none", "".join(_grounds(starts_px, ends_px, frames.issued))),
        *_grid(x, y, "time, s" if timed.any() else "frame", "error, m"),
    ]
    for name, values_m in (("hpl", frames.hpl_m), ("r95", R95_PER_SIGMA * frames.sigma_m)):
        parts.append(path(f"line {name}", "".join(_lines(starts_px, y.px(values_m), values_m))))
    parts += _limit(flight, y)
    parts += _events(flight, x)
    parts += _marks(frames.state, frames.issued, starts_px, y.px(frames.error_m))
    return _svg("Error over time", _WIDTH, _HEIGHT, parts)


def stanford_plot(flight: Flight) -> str:
    """Return the error of each fix against its protection level.

    Right of the diagonal lie misleading fixes; those beyond the alert limit whose protection
    level is within it, in the shaded corner, are hazardous.
    """
    frames, end_px = flight.frames, _SIDE - (_HEIGHT - _BOTTOM)
    x = _metres(flight, _LEFT, _SIDE - 12)
    y = _metres(flight, end_px, _TOP)
    right_px, limit_m = float(x.end_px), flight.alert_limit_m
    parts = []
    if limit_m is not None:
        at_x, at_y = float(x.px(limit_m)), float(y.px(limit_m))
        parts.append(
            f'<rect class="hazard" x="{at_x:.4g}" y="{at_y:.4g}" width="{right_px - at_x:.4g}"'
            f' height="{end_px - at_y:.4g}"/>'
        )
    parts += _grid(x, y, "error, m", "protection level, m")
    parts.append(path("line diagonal", f"M{_LEFT} {end_px}L{right_px:g} {_TOP}"))
    if limit_m is not None:
        cross = f"M{_LEFT} {at_y:.5g}H{right_px:g}M{at_x:.5g} {end_px}V{_TOP}"
        parts.append(path("line limit", cross))
    bounded = frames.issued & np.isfinite(frames.hpl_m)
    parts += _marks(frames.state, bounded, x.px(frames.error_m), y.px(frames.hpl_m))
    return _svg("Error against protection level", _SIDE, _SIDE, parts)


def _metres(flight: Flight, start_px: float, end_px: float) -> _Axis:
    """Return an axis over whole decades that holds all errors, bounds and limits."""
    frames = flight.frames
    values = [frames.error_m, frames.hpl_m, R95_PER_SIGMA * frames.sigma_m]
    largest = max((float(v[np.isfinite(v)].max(initial=0)) for v in values), default=0.0)
    largest = max(largest, flight.alert_limit_m or 0.0, 10.0 ** (_FIRST_DECADE + 2))
    high = 10.0 ** math.ceil(math.log10(largest) - 1e-9)
    return _Axis(10.0**_FIRST_DECADE, high, start_px, end_px, True)


def _grid(x: _Axis, y: _Axis, x_label: str, y_label: str) -> Iterator[str]:
    left, right, top, bottom = x.start_px, x.end_px, y.end_px, y.start_px
    centre, middle = (left + right) / 2, (top + bottom) / 2
    for value in y.ticks:
        at = float(y.px(value))
        yield f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.5g}" y2="{at:.5g}"/>'
        yield f'<text x="{left - 7}" y="{at + 4:.5g}" text-anchor="end">{_label(value)}</text>'
    for value in x.ticks:
        at = float(x.px(value))
        # A label at the edge would be cut.
        anchor = "end" if at > right - _EDGE_PX else "middle"
        yield f'<line class="grid" x1="{at:.5g}" x2="{at:.5g}" y1="{top}" y2="{bottom}"/>'
        yield f'<text x="{at:.5g}" y="{bottom + 17}" text-anchor="{anchor}">{_label(value)}</text>'
    yield f'<text x="{centre:g}" y="{bottom + 38}" text-anchor="middle">{x_label}</text>'
    turned = f"translate(14 {middle:g}) rotate(-90)"
    yield f'<text transform="{turned}" text-anchor="middle">{y_label}</text>'


def _label(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _events(flight: Flight, x: _Axis) -> Iterator[str]:
    """Yield a line for each event, and its name where there is room on a phone."""
    free_px = float(_LEFT)
    for event in flight.times.relocalisations:
        at_px, name = float(x.px(event.t_s)), html.escape(event.event)
        width_px = _LETTER_PX * len(event.event)
        yield f'<path class="event" d="M{at_px:.1f} {_TOP}V{_BOTTOM}"><title>{name}</title></path>'
        start_px = min(at_px, _RIGHT - width_px)
        if start_px >= free_px:
            yield f'<text x="{start_px:.1f}" y="{_TOP - 7}">{name}</text>'
            free_px = start_px + width_px


def _limit(flight: Flight, y: _Axis) -> Iterator[str]:
    if flight.alert_limit_m is not None:
        at = float(y.px(flight.alert_limit_m))
        yield path("line limit", f"M{_LEFT} {at:.5g}H{_RIGHT}")


def _grounds(starts_px: Floats, ends_px: Floats, issued: Mask) -> Iterator[str]:
    """Yield a box for each run of frames without a position."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], issued, [True]])))
    for first, last in zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True):
        left, right = float(starts_px[first]), float(ends_px[last])
        width = max(right - left, _GRAIN_PX)
        yield f"M{left:.1f} {_TOP}h{width:.1f}V{_BOTTOM}h{-width:.1f}z"


def _lines(x_px: Floats, y_px: Floats, values: Floats) -> Iterator[str]:
    """Yield a line for each run of values, of which each pixel's column shows the largest."""
    known = np.concatenate([[False], np.isfinite(values), [False]])
    edges = np.flatnonzero(np.diff(known))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        columns, first = np.unique(np.round(x_px[start:stop]), return_index=True)
        highest = np.minimum.reduceat(y_px[start:stop], first)
        points = [f"{a:g} {b:.1f}" for a, b in zip(columns, highest, strict=True)]
        yield "M" + "L".join(points if len(points) > 1 else points * 2)


def _marks(states: npt.NDArray[np.str_], shown: Mask, x_px: Floats, y_px: Floats) -> Iterator[str]:
    """Yield the marks of each state, the usual one first, so that rare ones lie on top."""
    size_px = mark_size_px(int(shown.sum()))
    places = np.stack([x_px, y_px], axis=-1)
    for state in sorted(set(states[shown].tolist()), reverse=True):
        yield dots(f"dot {state}", places[shown & (states == state)], size_px)


def mark_size_px(count: int) -> float:
    """Return the width of so many marks."""
    return _FEW_PX if count <= _FEW else _MANY_PX


def dots(kind: str, places_px: Floats, size_px: float) -> str:
    """Return round marks of a class as one path, those that share a place drawn once.

    Args:
        kind: the class.
        places_px: (N, 2) columns and rows; nothing is drawn of none.
        size_px: width of a mark.
    """
    if not len(places_px):
        return ""
    places = np.unique(np.round(places_px / _GRAIN_PX), axis=0) * _GRAIN_PX
    drawn = "".join(f"M{x:g} {y:g}h0" for x, y in places)
    return f'<path class="{kind}" stroke-width="{size_px:g}" d="{drawn}"/>'


def path(kind: str, drawn: str) -> str:
    """Return a path of a class, nothing where nothing is drawn."""
    return f'<path class="{kind}" d="{drawn}"/>' if drawn else ""


def _svg(label: str, width: int, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(part for part in parts if part)
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">\n'
        f"{body}\n</svg>"
    )
