"""Fixes as Cursor on Target 2.0 events, what ATAK, WinTAK and TAK servers read.

Source: MITRE, Cursor on Target Message Router User's Guide (MP090284), and its event schema. There
`ce` is the radius that holds the position with 90 %: 2.146 standard deviations per axis of a
circular Gaussian. 9999999.0 stands for what is not known, here height and its error. An event
always has a position, so without a fix there is none, and the track goes stale.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from .sink import Moment
from .utc import iso_utc

CE_PER_SIGMA = math.sqrt(-2 * math.log(1 - 0.90))
UNKNOWN = "9999999.0"
HOW = "m-p"  # from a machine, passed on: not measured by GNSS (m-g)
DEFAULT_KIND = "a-f-A-M-F-Q"  # friendly, air, military, fixed wing, unmanned
_KIND = re.compile(r"[a-z](-[A-Za-z0-9.]+)+")


@dataclass(frozen=True)
class CotIdentity:
    """Who the track is.

    Attributes:
        uid: one and the same for the vehicle, always; no other has it.
        callsign: shown beside it.
        kind: its CoT type.
    """

    uid: str
    callsign: str
    kind: str = DEFAULT_KIND

    def __post_init__(self) -> None:
        """Check what was given.

        Raises:
            ValueError: something is empty, not printable or no CoT type; the message names it.
        """
        for name, value in (("uid", self.uid), ("callsign", self.callsign)):
            if not value.strip() or not value.isprintable():
                raise ValueError(f"{name}={value!r} is empty or has characters that XML has not")
        if _KIND.fullmatch(self.kind) is None:
            raise ValueError(
                f"type={self.kind} is no type of Cursor on Target; expected one like {DEFAULT_KIND}"
            )


def cot_event(moment: Moment, identity: CotIdentity, stale_s: float) -> bytes | None:
    """Return a fix as an event; None where it has no position or its UTC is not known.

    Args:
        moment: told to the output. `start` is the time of the fix, `time` when it is handed over.
        identity: of the vehicle.
        stale_s: seconds after the fix at which the track counts as lost.
    """
    fix = moment.fix
    if fix.lat is None or fix.lon is None or fix.sigma_m is None or moment.utc_s is None:
        return None
    who = f"uid={quoteattr(identity.uid)} type={quoteattr(identity.kind)}"
    when = " ".join(
        f'{name}="{iso_utc(utc_s)}"'
        for name, utc_s in (
            ("time", moment.utc_s + moment.delay_s),
            ("start", moment.utc_s),
            ("stale", moment.utc_s + stale_s),
        )
    )
    remarks = fix.state.value if fix.source is None else f"{fix.state.value} ({fix.source})"
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
        f'<event version="2.0" {who} {when} how="{HOW}">'
        f'<point lat="{fix.lat:.7f}" lon="{fix.lon:.7f}" hae="{UNKNOWN}" '
        f'ce="{CE_PER_SIGMA * fix.sigma_m:.2f}" le="{UNKNOWN}"/>'
        f"<detail><contact callsign={quoteattr(identity.callsign)}/>"
        '<precisionlocation geopointsrc="CALC" altsrc="???"/>'
        f"{_track(fix.ve_mps, fix.vn_mps)}<remarks>{escape(remarks)}</remarks></detail></event>"
    ).encode()


def _track(ve_mps: float | None, vn_mps: float | None) -> str:
    """Return course over ground in degrees from true north, and speed; nothing where unknown."""
    if ve_mps is None or vn_mps is None:
        return ""
    course_deg = round(math.degrees(math.atan2(ve_mps, vn_mps)) % 360, 2) % 360
    return f'<track course="{course_deg:.2f}" speed="{math.hypot(ve_mps, vn_mps):.2f}"/>'
