"""Fixes as GeoJSON (RFC 7946): a point each, and lines along them.

Coordinates are longitude, latitude; a third would be the height above the ellipsoid, which is not
known. What was not told is left out of the properties.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .sink import Moment
from .utc import iso_utc

BEGINS = b'{"type":"FeatureCollection","features":[\n'
_ENDS = b"\n]}\n"
_BETWEEN = b",\n"
# The line that grows is written again with each point, so it may not grow for ever.
LONGEST_LINE = 500

Position = tuple[float, float]


@dataclass(frozen=True)
class GeoJsonTrack:
    """What has been written so far; text and `ends` after it make a whole file at any moment.

    Attributes:
        segment: number of stretches without a gap so far, less one.
        line: coordinates of the last one, or of its last part, as text.
        last: the last of them.
        count: how many they are.
    """

    segment: int = -1
    line: bytes = b""
    last: bytes = b""
    count: int = 0

    @property
    def ends(self) -> bytes:
        """What closes the file now: the line along the last positions, and brackets."""
        return self._line() + _ENDS

    def after(self, moment: Moment, is_apart: bool) -> tuple[bytes, GeoJsonTrack]:
        """Return the text of a fix and the track with it.

        Args:
            moment: has a position.
            is_apart: whether it begins a segment: there was a gap, or another place is believed.

        Raises:
            ValueError: it has no position.
        """
        here = json.dumps(position_of(moment), separators=(",", ":")).encode()
        ended = b""
        if self.segment < 0 or is_apart:
            ended = self._line()
            track = GeoJsonTrack(self.segment + 1, here, here, 1)
        elif self.count >= LONGEST_LINE:
            ended = self._line()
            track = GeoJsonTrack(self.segment, self.last + b"," + here, here, 2)
        else:
            line = self.line + b"," + here
            track = GeoJsonTrack(self.segment, line, here, self.count + 1)
        between = b"" if self.segment < 0 else _BETWEEN
        return ended + between + geojson_point(moment, track.segment), track

    def _line(self) -> bytes:
        if self.count < 2:
            return b""
        return (
            _BETWEEN + b'{"type":"Feature","geometry":{"type":"LineString","coordinates":['
            + self.line
            + b']},"properties":{"segment":%d}}' % self.segment
        )  # fmt: skip


def position_of(moment: Moment) -> Position:
    """Return longitude and latitude in degrees WGS84, to 1 cm.

    Raises:
        ValueError: the fix has no position.
    """
    if moment.fix.lat is None or moment.fix.lon is None:
        raise ValueError("a fix without a position is no point")
    return round(moment.fix.lon, 7), round(moment.fix.lat, 7)


def geojson_point(moment: Moment, segment: int) -> bytes:
    """Return a fix as a Feature on one line.

    Args:
        moment: has a position.
        segment: number of the stretch without a gap that it belongs to.

    Raises:
        ValueError: it has none.
    """
    fix = moment.fix
    properties: dict[str, Any] = {
        "segment": segment,
        "frame": fix.frame,
        "t": _rounded(fix.t, 6),
        "time": None if moment.utc_s is None else iso_utc(moment.utc_s),
        "state": fix.state.value,
        "source": fix.source,
        "sigma_m": _rounded(fix.sigma_m, 2),
        "hpl_m": _rounded(fix.hpl_m, 2),
        "ve_mps": _rounded(fix.ve_mps, 2),
        "vn_mps": _rounded(fix.vn_mps, 2),
        "heading_deg": _rounded(fix.heading_deg, 2),
        "agl_m": _rounded(fix.agl_m, 2),
        "anchor_age_s": _rounded(fix.anchor_age_s, 3),
    }
    value = {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": position_of(moment)},
        "properties": {key: value for key, value in properties.items() if value is not None},
    }
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
