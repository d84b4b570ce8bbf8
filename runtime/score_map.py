"""The map of a score as SVG: truth and fixes, on the pack's imagery where it is given."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import LocalFrame
from ..core.ground import ArrayGround, GroundWindow
from ..core.images import encode_rgb
from ..tilepacks.reader import Pack
from .score_flight import Flight
from .score_plots import dots, mark_size_px, path
from .score_statistics import R95_PER_SIGMA
from .score_truth import carried_off

Floats = npt.NDArray[np.float64]
RGB = npt.NDArray[np.uint8]

_LONGEST_PX = 1400  # of the picture
_JPEG_QUALITY = 80
_EDGE_SHARE = 0.08  # room around what is shown, share of its longer side
_ROOM_SHARE = 0.25  # most that is added for fixes beyond the true track
_LEAST_SIDE_M = 60.0
_LEAST_SHAPE = 0.5  # shorter side over longer
_MOST_CIRCLES = 120
_RIM_PX = 2.0  # that a mark is wider below
_BAR_SHARE = 0.2  # of the width: the scale bar is at most this long


@dataclass(frozen=True)
class Map:
    """A map and what belongs below it.

    Attributes:
        svg: the picture.
        bar_m: length of the scale bar, metres.
        bar_share: the same as a share of the map's width.
        every: of how many fixes one has its 95 % circle drawn.
        beyond: fixes that lie beyond the map.
        credit: of the imagery, may be empty.
    """

    svg: str
    bar_m: float
    bar_share: float
    every: int
    beyond: int
    credit: str


def draw_map(flight: Flight, pack: Pack | None, marked: Sequence[int]) -> Map:
    """Return the map of a flight.

    Args:
        flight: whose truth and fixes are drawn.
        pack: whose imagery is the background; a plain sheet where it is None or has none.
        marked: rows of fixes to join with their true positions, as the false ones are.

    Raises:
        InputError: the flight lies wholly outside the pack.
        IntegrityError: the pack's imagery is damaged.
    """
    if pack is not None and not _covers(pack, flight):
        raise InputError(
            f"{pack.path}: holds no ground of this flight; give the pack that it was flown with"
        )
    frame = _frame_around(flight) if pack is None else pack.frame
    true_m = _local(frame, flight.true_lat, flight.true_lon)
    fixed_m = _local(frame, _column(flight, "lat"), _column(flight, "lon"))
    window = _window(true_m, fixed_m)
    picture = None if pack is None else _picture(pack, window)
    true, fixed = _pixels(window, true_m), _pixels(window, fixed_m)
    frames = flight.frames
    with_sigma = np.flatnonzero(frames.issued & np.isfinite(frames.sigma_m))
    every = max(1, math.ceil(len(with_sigma) / _MOST_CIRCLES))
    radius_px = R95_PER_SIGMA * frames.sigma_m / window.gsd_m
    joined = np.union1d(np.flatnonzero(frames.issued & ~frames.right), np.array(marked, np.int64))
    size_px = mark_size_px(len(frames))
    parts = [
        _ground(picture, window),
        *_track(true, true_m),
        path("join", "".join(f"M{_at(fixed[i])}L{_at(true[i])}" for i in joined.tolist())),
        path("r95", "".join(_circle(fixed[i], radius_px[i]) for i in with_sigma[::every].tolist())),
        dots("dot missed", true[~frames.issued], size_px),
    ]
    for state in sorted(set(frames.state[frames.issued].tolist()), reverse=True):
        chosen = fixed[frames.issued & (frames.state == state)]
        parts += [dots("dot rim", chosen, size_px + _RIM_PX), dots(f"dot {state}", chosen, size_px)]
    size = window.width_px, window.height_px
    inside = ((fixed >= 0) & (fixed <= np.array(size))).all(axis=1)
    body = "\n".join(part for part in parts if part)
    bar_m = round_length_m(_BAR_SHARE * window.width_px * window.gsd_m)
    return Map(
        svg=f'<svg class="map" viewBox="0 0 {size[0]} {size[1]}" role="img"'
        f' aria-label="Map of truth and fixes">\n{body}\n</svg>',
        bar_m=bar_m,
        bar_share=bar_m / (window.width_px * window.gsd_m),
        every=every,
        beyond=int((frames.issued & ~inside).sum()),
        credit="" if pack is None or picture is None else pack.attribution,
    )


def _covers(pack: Pack, flight: Flight) -> bool:
    box, lat, lon = pack.bounds, flight.true_lat, flight.true_lon
    within = (lat >= box.south) & (lat <= box.north) & (lon >= box.west) & (lon <= box.east)
    return bool(within.any())


def _frame_around(flight: Flight) -> LocalFrame:
    return LocalFrame(float(np.median(flight.true_lat)), float(np.median(flight.true_lon)))


def _column(flight: Flight, name: str) -> Floats:
    values = (getattr(fix, name) for fix in flight.fixes)
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _local(frame: LocalFrame, lat: Floats, lon: Floats) -> Floats:
    """Return east and north (N, 2) of places in metres, NaN where there is none."""
    local_m = np.full((len(lat), 2), np.nan)
    if (known := np.isfinite(lat)).any():
        local_m[known] = np.stack(frame.to_local(lat[known], lon[known]), axis=-1)
    return local_m


def _window(true_m: Floats, fixed_m: Floats) -> GroundWindow:
    """Return what the map shows: the true track, and fixes that are not too far from it."""
    low, high = true_m.min(axis=0), true_m.max(axis=0)
    longest_m = max(float((high - low).max()), _LEAST_SIDE_M)
    if (found_m := fixed_m[np.isfinite(fixed_m[:, 0])]).size:
        room_m = _ROOM_SHARE * longest_m
        low = np.clip(found_m.min(axis=0), low - room_m, low)
        high = np.clip(found_m.max(axis=0), high, high + room_m)
    centre_m = (low + high) / 2
    size_m = high - low + 2 * _EDGE_SHARE * longest_m
    size_m = np.maximum(size_m, max(_LEAST_SIDE_M, _LEAST_SHAPE * float(size_m.max())))
    gsd_m = float(size_m.max()) / _LONGEST_PX
    width_px, height_px = (round(side) for side in (size_m / gsd_m).tolist())
    west_m = float(centre_m[0]) - width_px * gsd_m / 2
    north_m = float(centre_m[1]) + height_px * gsd_m / 2
    return GroundWindow(west_m, north_m, gsd_m, width_px, height_px)


def _pixels(window: GroundWindow, local_m: Floats) -> Floats:
    """Return columns and rows (N, 2) of places."""
    x = (local_m[:, 0] - window.west_m) / window.gsd_m
    return np.stack([x, (window.north_m - local_m[:, 1]) / window.gsd_m], axis=-1)


def _picture(pack: Pack, window: GroundWindow) -> RGB | None:
    """Return the imagery of a window (H, W, 3) uint8, black where there is none."""
    imagery = pack.imagery()
    if imagery is None:
        overview = pack.overview()
        if overview is None:
            return None
        valid = np.ones(overview[0].shape[:2], bool)
        imagery = ArrayGround(overview[0], valid, pack.frame, *overview[1:])
    try:
        return imagery.read(pack.frame, window).rgb
    finally:
        imagery.close()


def _ground(picture: RGB | None, window: GroundWindow) -> str:
    size = f'width="{window.width_px}" height="{window.height_px}"'
    if picture is None:
        return f'<rect class="sheet" {size}/>'
    data = base64.b64encode(encode_rgb(picture, ".jpg", _JPEG_QUALITY)).decode()
    return f'<image {size} href="data:image/jpeg;base64,{data}"/>'


def _track(true: Floats, true_m: Floats) -> Iterator[str]:
    """Yield the path that was flown over its casing, broken where the drone was carried off."""
    pieces = ("M" + "L".join(map(_at, piece)) for piece in np.split(true, carried_off(true_m)))
    line = "".join(pieces)
    yield path("casing", line)
    yield path("truth", line)


def _at(pixel: Floats) -> str:
    return f"{pixel[0]:.1f} {pixel[1]:.1f}"


def _circle(centre: Floats, radius_px: float) -> str:
    half = f"a{radius_px:.1f} {radius_px:.1f} 0 1 0"
    start = _at(centre - [radius_px, 0])
    return f"M{start}{half} {2 * radius_px:.1f} 0{half} {-2 * radius_px:.1f} 0"


def round_length_m(most_m: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not above."""
    power = 10.0 ** math.floor(math.log10(most_m))
    return max(step * power for step in (1, 2, 5) if step * power <= most_m)
