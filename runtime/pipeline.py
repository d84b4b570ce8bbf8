"""The loop: frame and telemetry in, fix out. The pure parts live in normalise and locate."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..core.camera import Attitude, Camera
from ..core.console import say
from ..core.dusk import brighten
from ..core.engine import Embeddings, Engine, FrameEngine
from ..core.errors import InputError
from ..core.warp import FrameWarp
from ..tilepacks.reader import Pack
from .fix import Candidate, Diagnostics, Fix, Reason, State
from .frames import RGB, Frame, FrameSource, Outage
from .intrinsics import Lens
from .locate import Estimate, Evidence, gather, joined, locate
from .normalise import (
    WANTED_PATCHES,
    PatchPlan,
    cut_patches,
    find_level,
    max_reduction,
    picture_fault,
    plan_patches,
    plan_warps,
)
from .telemetry import Sample, Telemetry

# Patches matched at first, and the most that are matched where those leave doubt. More patches are
# more evidence and more inference; on the Brighton photos five are enough over the map, and 13
# find the place where the frame sees the map in a corner only.
FIRST_PATCHES = WANTED_PATCHES
MAX_PATCHES = 13
TOP_TILES = 5  # candidates reported with each fix
_WARM_UPS = 2

Stages = dict[str, float]


class StageClock:
    """Milliseconds spent in each stage of one frame."""

    def __init__(self) -> None:
        """Start the first stage now."""
        self.ms: Stages = {}
        self._last_s = time.monotonic()

    def done(self, stage: str, extra_s: float = 0.0) -> None:
        """Add the time since the last call, and `extra_s` spent before, to a stage."""
        now_s = time.monotonic()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now_s - self._last_s + extra_s) * 1e3
        self._last_s = now_s


@dataclass(frozen=True)
class Finding:
    """What one frame gave: a reason why not, or an estimate with its evidence."""

    plan: PatchPlan | None = None
    evidence: Evidence | None = None
    estimate: Estimate | None = None
    reason: Reason | None = None


class Localiser:
    """Localises single frames in a pack; keeps only buffers between calls.

    Args:
        pack: an open pack.
        engine: the encoder the pack was built with.
        lens: what the user said about the optics.
        level_m: tile side to use whatever the height, or None to choose per frame.
        max_patches: most patches to match per frame.
        live: whether a frame of a shape that the lens does not fit is told and left out, for a
            camera may change its mode in flight.

    Raises:
        InputError: the pack has no such level.
    """

    def __init__(
        self,
        pack: Pack,
        engine: Engine,
        lens: Lens,
        level_m: float | None = None,
        max_patches: int = MAX_PATCHES,
        live: bool = False,
    ) -> None:
        """Prepare the buffers and run the encoder, so that the first frames are not slow."""
        self.pack = pack
        self._engine = engine
        self._frame_engine = engine if isinstance(engine, FrameEngine) else None
        self._lens = lens
        self._max_patches = max_patches
        self._live = live
        self._told_misfit = False
        self._footprints_m = [level.footprint_m for level in pack.levels]
        self._fixed_level = (
            None if level_m is None else find_level(self._footprints_m, level_m, str(pack.path))
        )
        side = engine.spec.input_px
        self._patches = np.zeros((max_patches, side, side, 3), np.uint8)
        self._warm_up()

    def _warm_up(self) -> None:
        """Run the encoder at every batch size that a frame may ask for, where that prepares it.

        A GPU prepares each size when it first comes up, and TensorRT records it the second time.
        """
        first = min(self._max_patches, FIRST_PATCHES)
        if self._engine.backend.endswith(" cpu"):
            self._engine.embed(self._patches[:first])
            return
        side = self._engine.spec.input_px
        black, camera = self._patches[0], Camera(side, side, side, side, 0.0, 0.0)
        as_it_is = FrameWarp(camera, np.eye(3), 1, side)
        for count in range(1, max(first, self._max_patches - first) + 1):
            for _ in range(_WARM_UPS):
                if self._frame_engine is None:
                    self._engine.embed(self._patches[:count])
                else:
                    self._frame_engine.embed_frame(black, [as_it_is] * count)

    def find(self, frame: Frame, sample: Sample, clock: StageClock) -> Finding:
        """Match one frame; book the stages' times.

        Raises:
            InputError: the photo is corrupt, or the lens is unknown or of another aspect (files).
        """
        camera = self._camera(frame, sample)
        if isinstance(camera, Reason):
            return Finding(reason=camera)
        plan = self._plan(camera, sample, self._fixed_level)
        clock.done("plan")
        if isinstance(plan, Reason):
            return Finding(reason=plan)
        clock.done("decode", frame.decode_s)
        finding = self._find_at(plan, frame, camera, sample, clock)
        finer = self._next_finer(plan)
        if finding.reason is not Reason.AMBIGUOUS or finer is None:
            return finding
        # Smaller tiles fit where the frame sees the map in a corner only.
        plan = self._plan(camera, sample, finer)
        clock.done("plan")
        if isinstance(plan, Reason):
            return finding
        second = self._find_at(plan, frame, camera, sample, clock)
        return second if second.reason is None else finding

    def _camera(self, frame: Frame, sample: Sample) -> Camera | Reason:
        """Return the intrinsics of a frame."""
        try:
            return self._lens.camera_for(frame.width_px, frame.height_px, sample.hfov_deg)
        except InputError as error:
            if not self._live or self._lens.camera is None:
                raise
            if not self._told_misfit:
                say(f"{frame.name}: {error}; there is no fix until then")
            self._told_misfit = True
            return Reason.FRAME_SIZE

    def _plan(self, camera: Camera, sample: Sample, level: int | None) -> PatchPlan | Reason:
        return plan_patches(
            camera,
            sample.attitude,
            self._footprints_m,
            self._engine.spec.input_px,
            self._max_patches,
            level,
        )

    def _next_finer(self, plan: PatchPlan) -> int | None:
        """Return the level of the next smaller tiles, unless the user fixed the level."""
        smaller = [f for f in self._footprints_m if f < plan.footprint_m]
        if not smaller or self._fixed_level is not None:
            return None
        return self._footprints_m.index(max(smaller))

    def _find_at(
        self, plan: PatchPlan, frame: Frame, camera: Camera, sample: Sample, clock: StageClock
    ) -> Finding:
        """Match the patches of a plan: a first few, and the others where doubt remains."""
        attitude = sample.attitude
        rgb, reduction = frame.rgb(
            max_reduction(camera, attitude, plan, self._engine.spec.input_px)
        )
        camera = camera.reduced(reduction)
        clock.done("decode")
        evidence: Evidence | None = None
        done, planned = 0, len(plan.centers_m)
        while True:
            count = min(planned, FIRST_PATCHES if done == 0 else planned)
            queries = self._embed(rgb, camera, attitude, plan, done, count, clock)
            if isinstance(queries, Reason):
                return Finding(plan, reason=queries)
            evidence = self._match(plan, queries, done, evidence, clock)
            spec = self._engine.spec
            estimate = locate(
                evidence, plan.footprint_m, spec.temperature, spec.unknown_score, attitude.agl_m
            )
            clock.done("locate")
            done = count
            if estimate.is_sure or done == planned:
                reason = None if estimate.is_certain else Reason.AMBIGUOUS
                return Finding(plan, evidence, estimate, reason)

    def _embed(
        self,
        rgb: RGB,
        camera: Camera,
        attitude: Attitude,
        plan: PatchPlan,
        first: int,
        last: int,
        clock: StageClock,
    ) -> Embeddings | Reason:
        """Embed patches `first` to `last - 1`, or say what is wrong with the picture.

        An engine that cuts patches itself gets the frame, which then crosses to its device once.
        """
        warps = plan_warps(camera, attitude, plan, self._engine.spec.input_px, first, last)
        patches = self._patches[: len(warps)]
        queries: Embeddings | None = None
        if self._frame_engine is None:
            cut_patches(rgb, warps, patches)
            fault = picture_fault(patches[0]) if first == 0 else None
            brighten(patches)
        else:
            clock.done("normalise")
            judged = patches if first == 0 else None
            queries = self._frame_engine.embed_frame(rgb, warps, judged)
            clock.done("embed")
            fault = picture_fault(patches[0]) if first == 0 else None
        clock.done("normalise")
        if fault is not None:
            return fault
        if queries is None:
            queries = self._engine.embed(patches)
            clock.done("embed")
        return queries

    def _match(
        self,
        plan: PatchPlan,
        queries: Embeddings,
        first: int,
        before: Evidence | None,
        clock: StageClock,
    ) -> Evidence:
        """Search patches from `first` on; return what they found with what was found `before`."""
        centers_m = plan.centers_m[first : first + len(queries)]
        evidence = gather(self.pack, plan.level, queries, centers_m)
        evidence = evidence if before is None else joined(before, evidence)
        clock.done("search")
        return evidence


class FixMaker:
    """Turns findings into fixes, each frame by itself."""

    def __init__(self, pack: Pack, diagnostics: bool = False) -> None:
        """Remember the region's border; with `diagnostics` fixes tell how they came about."""
        self._pack = pack
        self._bounds_m = pack.frame.local_bounds(pack.bounds)
        self._diagnostics = diagnostics
        self._anchor_t: float | None = None

    def without(self, frame: int, t: float | None, file: str | None, reason: Reason) -> Fix:
        """Return what is said of a frame that cannot be looked at, or of none at all."""
        age_s = None if t is None or self._anchor_t is None else t - self._anchor_t
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
            heading_deg=sample.attitude.yaw_deg % 360.0,
            agl_m=sample.attitude.agl_m,
        )
        if finding.estimate is not None:
            fix = self._with_match(fix, finding, finding.estimate)
        if state is State.TRACK:
            self._anchor_t = t
            return replace(fix, anchor_age_s=0.0)
        if t is None or self._anchor_t is None:
            return fix
        return replace(fix, anchor_age_s=t - self._anchor_t)

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

    def _with_match(self, fix: Fix, finding: Finding, estimate: Estimate) -> Fix:
        fix = self.with_evidence(fix, finding)
        if fix.state is not State.TRACK:
            return fix
        lat, lon = (float(v) for v in self._pack.frame.to_wgs84(estimate.east_m, estimate.north_m))
        return replace(
            fix,
            lat=lat,
            lon=lon,
            sigma_m=estimate.sigma_m,
            hpl_m=estimate.hpl_m,
            source="visual",
        )

    def _top(self, evidence: Evidence, footprint_m: float) -> tuple[Candidate, ...]:
        east, north = evidence.tiles_m[0, :TOP_TILES].T
        lat, lon = self._pack.frame.to_wgs84(east, north)
        places = zip(lat, lon, evidence.scores[0], strict=False)
        return tuple(Candidate(float(a), float(o), footprint_m, float(s)) for a, o, s in places)


class Fixer(Protocol):
    """Turns findings into fixes: each by itself (`FixMaker`), or over time (`Tracker`)."""

    def fix(self, frame: Frame, sample: Sample, finding: Finding) -> Fix:
        """Return the fix of a frame, its latency still open."""
        ...

    def without(self, frame: int, t: float | None, file: str | None, reason: Reason) -> Fix:
        """Return what is said of a frame that cannot be looked at, or of none at all."""
        ...


def run_frames(
    source: FrameSource,
    telemetry: Telemetry,
    localiser: Localiser,
    maker: Fixer,
    realtime: bool = False,
    max_frames: int | None = None,
) -> Generator[tuple[Fix, Stages], None, None]:
    """Yield a fix and its stages' milliseconds for every frame of a source.

    A live source that shows nothing, and telemetry that tells nothing, give fixes that say so,
    without stages.

    Args:
        source: where the frames come from.
        telemetry: attitude and height for each of them.
        localiser: matches frames.
        maker: turns matches into fixes.
        realtime: hold files back to the pace of their own clock.
        max_frames: stop after this many.

    Raises:
        InputError: a frame is corrupt.
        S4GError: the camera was lost.
    """
    pace = Pace() if realtime else None
    latest = 0
    for frame in source.frames():
        if isinstance(frame, Outage):
            fix = maker.without(latest, frame.t, None, Reason.NO_FRAMES)
            yield replace(fix, latency_ms=None), {}
            continue
        latest = frame.index
        if max_frames is not None and frame.index >= max_frames:
            return
        sample = telemetry.at(frame)
        lacking = sample if isinstance(sample, Reason) else _lacking(sample)
        if isinstance(sample, Reason) or lacking is not None:
            assert lacking is not None
            yield maker.without(frame.index, frame.t, frame.file, lacking), {}
            continue
        if pace is not None:
            frame = pace.hold(frame, frame.t if frame.t is not None else sample.t)
        clock = StageClock()
        finding = localiser.find(frame, sample, clock)
        fix = maker.fix(frame, sample, finding)
        latency_ms = (time.monotonic() - frame.arrived_s) * 1e3
        yield replace(fix, latency_ms=latency_ms), clock.ms | {"total": latency_ms}


def _lacking(sample: Sample) -> Reason | None:
    """Return what a sample does not tell and localising needs."""
    if not sample.agl_known:
        return Reason.NO_HEIGHT
    return None if sample.yaw_known and sample.tilt_known else Reason.NO_TELEMETRY


class Pace:
    """Holds the frames of a file back until their time has come."""

    def __init__(self) -> None:
        """Start with the first frame."""
        self._start_s: float | None = None

    def hold(self, frame: Frame, t: float | None) -> Frame:
        """Wait for a frame's time and return it as if it had arrived just then.

        Raises:
            InputError: the frame has no time.
        """
        if t is None:
            raise InputError(
                f"--realtime: {frame.name} has no time; add a 't' column to the telemetry"
            )
        if self._start_s is None:
            self._start_s = time.monotonic() - t
        wait_s = self._start_s + t - time.monotonic()
        if wait_s <= 0:
            return frame
        time.sleep(wait_s)
        return replace(frame, arrived_s=time.monotonic() - frame.decode_s)
