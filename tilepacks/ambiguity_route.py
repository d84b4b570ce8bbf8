"""What a flight will meet along its route: where it is hard, where there is nothing to see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.geo import Floats
from .ambiguity import compare_tiles
from .area import Area
from .options import Progress, silent
from .reader import Pack
from .search import Ids

# A frame farther than this from every tile's centre, in footprints, sees less than half of any.
_REACH = 0.5
_NOTHING_GREY = 1.0  # mean gradient per pixel below which there is water, snow, sand or cloud
_DETAIL_STEPS = 16  # of a pack's `detail`, to a grey level
_SAME_M = 1e-6
MAX_SAMPLES = 200_000
# What a place of the route is, the first that holds.
KINDS = ("outside", "nothing to see", "hard", "fine")
OUTSIDE, NOTHING, HARD, FINE = range(4)


@dataclass(frozen=True)
class RouteAhead:
    """A route in regular steps, S samples, and what the pack knows about each.

    Attributes:
        line: (S,) int64, number of the line of the route that it is on.
        at_m: (S,) float64, metres along the route; between two lines there are none.
        length_m: (S,) metres of the route that it stands for.
        east_m: (S,) metres in the pack's frame.
        north_m: the same.
        tile: (S,) int64, the nearest tile, the hardest where several lie there; -1 outside.
        cosine: (S,) of the most similar place elsewhere; NaN outside.
        own: (S,) what a frame taken there may score (see `ambiguity`); NaN outside or unknown.
        away_m: (S,) how far the most similar place lies; NaN outside.
        detail_grey: (S,) what there is to see, grey levels per pixel; NaN outside.
        kind: (S,) int64, an index of `KINDS`.
    """

    line: Ids
    at_m: Floats
    length_m: Floats
    east_m: Floats
    north_m: Floats
    tile: Ids
    cosine: Floats
    own: Floats
    away_m: Floats
    detail_grey: Floats
    kind: Ids

    def metres(self, *kinds: int) -> float:
        """Return how much of the route is of some kinds."""
        return float(self.length_m[np.isin(self.kind, kinds)].sum())


@dataclass(frozen=True)
class Stretch:
    """A part of the route without a safe fix.

    Attributes:
        first: number of its first sample.
        last: number of its last one.
        from_m: metres along the route where it begins.
        to_m: where it ends.
        kinds: the `KINDS` that it has.
        worst: its hardest sample, or its first where none has a rival.
    """

    first: int
    last: int
    from_m: float
    to_m: float
    kinds: tuple[str, ...]
    worst: int


def look_ahead(
    pack: Pack,
    level: int,
    route: Area,
    spacing_m: float,
    progress: Progress = silent,
) -> RouteAhead:
    """Compare the tiles along a route with all others of their level.

    Args:
        pack: an open pack.
        level: number of the level.
        route: of `read_route`.
        spacing_m: of the samples along it.
        progress: how to show progress.

    Raises:
        InputError: the spacing is wrong, or gives more samples than `MAX_SAMPLES`.
        IntegrityError: a section is damaged or altered.
    """
    line, at, length, east, north = _samples(pack, route, spacing_m)
    sample, tile = _nearest(pack, level, east, north)
    tiles, place = np.unique(tile, return_inverse=True)
    with progress("comparing tiles", len(tiles)) as advance:
        found = compare_tiles(pack, level, tiles, advance)
    # Of several tiles in a place the hardest comes last, and stays.
    order = np.lexsort((found.hardness[place], sample))
    chosen = np.full(len(at), -1)
    chosen[sample[order]] = place[order]
    inside = np.flatnonzero(chosen >= 0)
    rows = chosen[inside]
    number, kind = np.full(len(at), -1), np.full(len(at), OUTSIDE)
    number[inside] = tiles[rows]
    detail = pack.detail(level)[tiles[rows] - pack.levels[level].first] / _DETAIL_STEPS
    kind[inside] = np.where(found.hard[rows], HARD, FINE)
    kind[inside[detail < _NOTHING_GREY]] = NOTHING
    known = np.full((4, len(at)), np.nan)
    known[:, inside] = found.cosine[rows], found.own[rows], found.away_m[rows], detail
    cosine, own, away, grey = known
    return RouteAhead(line, at, length, east, north, number, cosine, own, away, grey, kind)


def stretches(ahead: RouteAhead) -> list[Stretch]:
    """Return where the route gives no safe fix, longest first.

    Length is what counts: so far the drone flies by its own motion alone.
    """
    bad = ahead.kind != FINE
    starts = bad & ~(np.roll(bad, 1) & (np.roll(ahead.line, 1) == ahead.line))
    starts[:1] = bad[:1]
    ends = bad & ~(np.roll(bad, -1) & (np.roll(ahead.line, -1) == ahead.line))
    ends[-1:] = bad[-1:]
    passed = np.cumsum(ahead.length_m)
    found = []
    for first, last in zip(np.flatnonzero(starts), np.flatnonzero(ends), strict=True):
        own = slice(int(first), int(last) + 1)
        hardness = ahead.cosine[own] - np.nan_to_num(ahead.own[own])
        hardness[~np.isfinite(ahead.away_m[own])] = -np.inf
        kinds = tuple(KINDS[kind] for kind in np.unique(ahead.kind[own]))
        start_m = float(passed[first] - ahead.length_m[first])
        worst = int(first + hardness.argmax())
        found.append(Stretch(own.start, int(last), start_m, float(passed[last]), kinds, worst))
    return sorted(found, key=lambda stretch: stretch.from_m - stretch.to_m)


def _samples(
    pack: Pack, route: Area, spacing_m: float
) -> tuple[Ids, Floats, Floats, Floats, Floats]:
    """Return line, metres along the route, metres each stands for, and place (S,) of samples."""
    if not spacing_m > 0:
        raise InputError(f"--spacing {spacing_m:g}: expected metres above 0")
    parts, passed, count = [], 0.0, 0
    for number, (ring, *_) in enumerate(route.rings):
        lon, lat = np.array(ring).T
        east, north = pack.frame.to_local(lat, lon)
        along = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(east), np.diff(north)))])
        # Of a tiny spacing the quotient may be no number that fits.
        count += int(min(float(along[-1]) / spacing_m, MAX_SAMPLES)) + 2
        if count > MAX_SAMPLES:
            raise InputError(
                f"--spacing {spacing_m:g} m: more than {MAX_SAMPLES:,} samples along "
                f"{route.name}; choose a longer one"
            )
        # A millionth of a step is rounding, not another sample.
        steps = math.ceil(along[-1] / spacing_m - 1e-6)
        at = np.append(spacing_m * np.arange(steps), along[-1])
        half = np.diff(at) / 2
        length = np.append(half, 0.0) + np.append(0.0, half)
        place = np.interp(at, along, east), np.interp(at, along, north)
        parts.append((np.full(len(at), number), at + passed, length, *place))
        passed += float(along[-1])
    line, at, length, east, north = (np.concatenate(part) for part in zip(*parts, strict=True))
    return line, at, length, east, north


def _nearest(pack: Pack, level: int, east_m: Floats, north_m: Floats) -> tuple[Ids, Ids]:
    """Return pairs of a sample and a tile nearest to it; none for a sample outside the pack."""
    record = pack.levels[level]
    # At least as far as the middle between four tiles: a coarse lattice has no holes.
    reach = max(_REACH * record.footprint_m, record.stride_m)
    samples, tiles = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, (east, north) in enumerate(zip(east_m.tolist(), north_m.tolist(), strict=True)):
        near = pack.tiles_within(level, east, north, reach)
        if len(near):
            away = np.hypot(pack.east_m[near] - east, pack.north_m[near] - north)
            near = near[away <= away.min() + _SAME_M]
        samples.append(np.full(len(near), number))
        tiles.append(near)
    return np.concatenate(samples), np.concatenate(tiles)


def route_text(pack: Pack, ahead: RouteAhead, found: list[Stretch], rows: int) -> str:
    """Return the longest stretches and the totals as lines for a person.

    Args:
        pack: an open pack.
        ahead: of `look_ahead`.
        found: of `stretches`.
        rows: how many of them to tell.
    """
    lines = []
    for number, stretch in enumerate(found[:rows], 1):
        place = _place(pack, ahead, stretch.worst)
        like = ""
        if place["cosine"] is not None and place["rival_away_m"] is not None:
            like = f", cosine {place['cosine']:.2f} to a place {place['rival_away_m']:.0f} m away"
        lines.append(
            f"{number:>3}  km {stretch.from_m / 1000:7.2f} to {stretch.to_m / 1000:7.2f}  "
            f"{' and '.join(stretch.kinds)}, worst at {place['lat']:.6f},{place['lon']:.6f}{like}"
        )
    if len(found) > rows:
        left = sum(stretch.to_m - stretch.from_m for stretch in found[rows:])
        lines.append(f"     {len(found) - rows} shorter ones, {left / 1000:.2f} km in all")
    totals = {name: value / 1000 for name, value in _totals(ahead).items()}
    lines.append(
        f"route {totals['length_m']:.2f} km: {totals['in_pack_m']:.2f} in the pack, "
        f"{totals['hard_m']:.2f} hard, {totals['nothing_m']:.2f} with nothing to see, "
        f"{totals['outside_m']:.2f} outside"
    )
    return "\n".join(lines)


def route_values(pack: Pack, ahead: RouteAhead, found: list[Stretch]) -> dict[str, Any]:
    """Return the totals, all stretches and all samples as JSON values; lengths in metres."""
    return {
        **{name: round(value, 1) for name, value in _totals(ahead).items()},
        "stretches": [
            {
                "from_m": round(stretch.from_m, 1),
                "to_m": round(stretch.to_m, 1),
                "why": list(stretch.kinds),
                "worst": _place(pack, ahead, stretch.worst),
            }
            for stretch in found
        ],
        "samples": [_place(pack, ahead, number) for number in range(len(ahead.kind))],
    }


def _totals(ahead: RouteAhead) -> dict[str, float]:
    return {
        "length_m": ahead.metres(OUTSIDE, NOTHING, HARD, FINE),
        "in_pack_m": ahead.metres(NOTHING, HARD, FINE),
        "hard_m": ahead.metres(HARD),
        "nothing_m": ahead.metres(NOTHING),
        "outside_m": ahead.metres(OUTSIDE),
    }


def _place(pack: Pack, ahead: RouteAhead, number: int) -> dict[str, Any]:
    lat, lon = pack.frame.to_wgs84(ahead.east_m[number], ahead.north_m[number])
    return {
        "at_m": round(float(ahead.at_m[number]), 1),
        "lat": round(float(lat), 7),
        "lon": round(float(lon), 7),
        "what": KINDS[ahead.kind[number]],
        "tile": None if ahead.tile[number] < 0 else int(ahead.tile[number]),
        "cosine": _number(ahead.cosine[number], 4),
        "own_cosine": _number(ahead.own[number], 4),
        "rival_away_m": _number(ahead.away_m[number], 1),
        "detail_grey": _number(ahead.detail_grey[number], 2),
    }


def _number(value: float, digits: int) -> float | None:
    """Return a number that JSON has: none for what is not known or not there."""
    return round(float(value), digits) if math.isfinite(value) else None
