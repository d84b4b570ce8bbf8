"""Fixes of frames that stand alone: nothing is carried from one to the next."""

from __future__ import annotations

import math
from dataclasses import replace

from ..tilepacks.reader import Pack
from .fix import Candidate, Diagnostics, Fix, Reason, State
from .frames import Frame
from .hypotheses import ANYTHING, Expected
from .localise import Finding
from .locate import HPL_PER_SIGMA, Estimate, Evidence
from .telemetry import Sample

TOP_TILES = 5  # candidates reported with each fix
# A camera whose tilt nobody tells is supposed to look straight down, and off by this per axis; one
# whose tilt was told some time ago may have swayed so much a second since.
_UNKNOWN_TILT_DEG, _SWAY_DEG_PER_S = 5.0, 5.0


def unknown_tilt_m(sample: Sample, agl_m: float) -> float:
    """Return what the unknown of the tilt adds to the error, standard deviation per axis."""
    tilt_deg = _UNKNOWN_TILT_DEG
    if sample.tilt_known:
        tilt_deg = min(_SWAY_DEG_PER_S * sample.age_s, _UNKNOWN_TILT_DEG)
    return math.tan(math.radians(tilt_deg)) * agl_m


class FixMaker:
    """Turns findings into fixes, each frame by itself.

    Attributes:
        track: None, always: nothing is carried on.
    """

    track = None

    def __init__(self, pack: Pack, diagnostics: bool = False) -> None:
        """Remember the region's border; with `diagnostics` fixes tell how they came about."""
        self._pack = pack
        self._bounds_m = pack.frame.local_bounds(pack.bounds)
        self._diagnostics = diagnostics
        self._anchor_t: float | None = None

    def expect(self, frame: Frame, sample: Sample) -> Expected:
        """Return what earlier frames tell of one: nothing."""
        return ANYTHING

    def without(self, frame: int, t: float | None, file: str | None, reason: Reason) -> Fix:
        """Return what is said of a frame that cannot be looked at, or of none at all."""
        age_s = None if t is None or self._anchor_t is None else max(t - self._anchor_t, 0.0)
        return Fix(frame, t, State.NO_FIX, file, reason, anchor_age_s=age_s)

    def fix(self, frame: Frame, sample: Sample, finding: Finding) -> Fix:
        """Return the fix of a frame, its latency still open."""
        t = frame.t if frame.t is not None else sample.t
        state = self._state(finding)
        fix = Fix(
            frame=frame.index,
            t=t,
            state=state,
            file=frame.file,
            reason=finding.reason,
            heading_deg=sample.attitude.yaw_deg % 360.0 if sample.yaw_known else None,
            agl_m=sample.attitude.agl_m if sample.agl_known else None,
        )
        if finding.estimate is not None:
            fix = self._with_match(fix, sample, finding, finding.estimate)
        if state is State.TRACK:
            self._anchor_t = t
            return replace(fix, anchor_age_s=0.0)
        if t is None or self._anchor_t is None:
            return fix
        return replace(fix, anchor_age_s=max(t - self._anchor_t, 0.0))

    def _state(self, finding: Finding) -> State:
        if finding.reason is not None or finding.estimate is None or finding.plan is None:
            return State.NO_FIX
        look_east = finding.estimate.east_m + float(finding.plan.centers_m[0, 0])
        look_north = finding.estimate.north_m + float(finding.plan.centers_m[0, 1])
        west, south, east, north = self._bounds_m
        inside = west <= look_east <= east and south <= look_north <= north
        return State.TRACK if inside else State.OUT_OF_PACK

    def with_evidence(self, fix: Fix, finding: Finding) -> Fix:
        """Add what was found in the frame to its fix: candidates and, if asked for, diagnostics."""
        evidence, estimate = finding.evidence, finding.estimate
        if evidence is None or estimate is None or finding.plan is None:
            return fix
        footprint_m = finding.plan.footprint_m
        top = self._top(evidence, footprint_m)
        fix = replace(fix, score=float(evidence.scores[0, 0]), top=top)
        if not self._diagnostics:
            return fix
        lat, lon = (float(v) for v in self._pack.frame.to_wgs84(estimate.east_m, estimate.north_m))
        patches = len(evidence.offsets_m)
        seen = Diagnostics(lat, lon, estimate.mass, estimate.spread_m, footprint_m, patches)
        return replace(fix, diagnostics=seen)

    def _with_match(self, fix: Fix, sample: Sample, finding: Finding, estimate: Estimate) -> Fix:
        fix = self.with_evidence(fix, finding)
        if fix.state is not State.TRACK:
            return fix
        assert finding.attitude is not None
        sigma_m = math.hypot(estimate.sigma_m, unknown_tilt_m(sample, finding.attitude.agl_m))
        lat, lon = (float(v) for v in self._pack.frame.to_wgs84(estimate.east_m, estimate.north_m))
        return replace(
            fix,
            lat=lat,
            lon=lon,
            sigma_m=sigma_m,
            hpl_m=HPL_PER_SIGMA * sigma_m,
            heading_deg=finding.attitude.yaw_deg % 360.0,
            agl_m=finding.attitude.agl_m,
            source="visual",
        )

    def _top(self, evidence: Evidence, footprint_m: float) -> tuple[Candidate, ...]:
        east, north = evidence.tiles_m[0, :TOP_TILES].T
        lat, lon = self._pack.frame.to_wgs84(east, north)
        places = zip(lat, lon, evidence.scores[0], strict=False)
        return tuple(Candidate(float(a), float(o), footprint_m, float(s)) for a, o, s in places)
