"""Fixes as a GPX 1.1 track (https://www.topografix.com/GPX/1/1/).

GPX has no field for an uncertainty in metres and knows no height above ground, so both go into
`<extensions>` under a namespace of our own. `<ele>`, metres above sea level, is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from .sink import Moment
from .utc import iso_utc

NAMESPACE = "urn:s4g:fix:1"
_SEGMENT_BEGINS = b"<trkseg>\n"
_SEGMENT_ENDS = b"</trkseg>\n"
_TRACK_ENDS = b"</trk>\n</gpx>\n"


@dataclass(frozen=True)
class GpxTrack:
    """What has been written so far; text and `ends` after it make a whole file at any moment.

    Attributes:
        in_segment: whether a segment is open.
    """

    in_segment: bool = False

    @property
    def ends(self) -> bytes:
        """What closes the file now."""
        return (_SEGMENT_ENDS if self.in_segment else b"") + _TRACK_ENDS

    def after(self, moment: Moment, is_apart: bool) -> tuple[bytes, GpxTrack]:
        """Return the text of a fix and the track with it.

        Args:
            moment: has a position.
            is_apart: whether it begins a segment: there was a gap, or another place is believed.

        Raises:
            ValueError: it has no position.
        """
        point = gpx_point(moment)
        if self.in_segment and not is_apart:
            return point, self
        ended = _SEGMENT_ENDS if self.in_segment else b""
        return ended + _SEGMENT_BEGINS + point, GpxTrack(True)


def gpx_begins(name: str) -> bytes:
    """Return all that comes before the first segment."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<gpx version="1.1" creator="s4g-run" xmlns="http://www.topografix.com/GPX/1/1" '
        f'xmlns:s4g="{NAMESPACE}">\n'
        f"<trk>\n<name>{escape(name)}</name>\n"
    ).encode()


def gpx_point(moment: Moment) -> bytes:
    """Return a fix as a `trkpt` on a line of its own: degrees WGS84 to 1 cm, UTC where known.

    Raises:
        ValueError: the fix has no position.
    """
    fix = moment.fix
    if fix.lat is None or fix.lon is None:
        raise ValueError("a fix without a position has no place in a track")
    when = "" if moment.utc_s is None else f"<time>{iso_utc(moment.utc_s)}</time>"
    values = {
        "state": fix.state.value,
        "source": fix.source,
        "frame": str(fix.frame),
        "t": _decimal(fix.t, 6),
        "sigma_m": _decimal(fix.sigma_m, 2),
        "hpl_m": _decimal(fix.hpl_m, 2),
        "ve_mps": _decimal(fix.ve_mps, 2),
        "vn_mps": _decimal(fix.vn_mps, 2),
        "heading_deg": _decimal(fix.heading_deg, 2),
        "agl_m": _decimal(fix.agl_m, 2),
        "anchor_age_s": _decimal(fix.anchor_age_s, 3),
    }
    extensions = "".join(
        f"<s4g:{key}>{escape(value)}</s4g:{key}>" for key, value in values.items() if value
    )
    return (
        f'<trkpt lat="{fix.lat:.7f}" lon="{fix.lon:.7f}">{when}'
        f"<extensions>{extensions}</extensions></trkpt>\n"
    ).encode()


def _decimal(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
