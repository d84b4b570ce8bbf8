"""From a frame and its telemetry to what the pack says of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..core.camera import Attitude, Camera
from ..core.console import say
from ..core.dusk import brighten
from ..core.engine import Embeddings, Engine, FrameEngine
from ..core.errors import InputError
from ..core.warp import FrameWarp
from ..tilepacks.reader import Pack
from .fix import Reason
from .frames import RGB, Frame
from .hypotheses import (
    ANYTHING,
    Expected,
    best_of,
    best_score,
    possible,
    turned,
    useful_heights_m,
)
from .intrinsics import Lens
from .locate import Estimate, Evidence, Gate, gather, joined, locate, tile_probabilities
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
from .odometry import Odometry, Step
from .telemetry import Sample

# Patches matched at first, and the most that are matched where those leave doubt. More patches are
# more evidence and more inference; on the Brighton photos five are enough over the map, and 13
# find the place where the frame sees the map in a corner only.
FIRST_PATCHES = WANTED_PATCHES
MAX_PATCHES = 13
_WARM_UPS = 2
# Patches of a search that are embedded at once: as many as every engine is prepared for.
_SCANNED = MAX_PATCHES - FIRST_PATCHES
# Least probability that the middle of a frame is known ground, for a closer look at it.
_WORTH_MORE = 0.2

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
class Seen:
    """The middle of a frame under one attitude that it may have."""

    attitude: Attitude
    plan: PatchPlan
    evidence: Evidence


@dataclass(frozen=True)
class View:
    """The middle of a frame, as it was cut first.

    Attributes:
        rgb: (S, S, 3) uint8, tilt undone, north up; the next frame overwrites it.
        footprint_m: its side on the ground.
        center_m: (2,) east, north of its middle from the drone.
        agl_m: height it was cut for.
    """

    rgb: RGB
    footprint_m: float
    center_m: npt.NDArray[np.float64]
    agl_m: float


@dataclass(frozen=True)
class Finding:
    """What one frame gave: a reason why not, or an estimate with its evidence.

    Attributes:
        plan: of the patches that were matched.
        evidence: what the pack says about them.
        estimate: the position that it makes likely.
        reason: why that is none to go by.
        attitude: under which they were cut; None where none was likely.
        seen: the frame's middle under each attitude that was tried, where telemetry tells no
            heading or height.
        step: how the drone moved since the last frame, where that was asked for and seen.
        view: the frame's middle, None where nothing was cut.
    """

    plan: PatchPlan | None = None
    evidence: Evidence | None = None
    estimate: Estimate | None = None
    reason: Reason | None = None
    attitude: Attitude | None = None
    seen: tuple[Seen, ...] = ()
    step: Step | None = None
    view: View | None = None


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
        self._patches = np.zeros((max(max_patches, _SCANNED), side, side, 3), np.uint8)
        self._odometry = Odometry()
        self._view = np.zeros((side, side, 3), np.uint8)  # the middle of the frame
        self._seen: View | None = None
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

    def find(
        self, frame: Frame, sample: Sample, clock: StageClock, expected: Expected = ANYTHING
    ) -> Finding:
        """Match one frame, under the heading and height that fit it best where they are not told.

        Args:
            frame: the frame.
            sample: its telemetry, as it was told.
            clock: where the stages' times are booked.
            expected: what earlier frames tell.

        Raises:
            InputError: the photo is corrupt, or the lens is unknown or of another aspect (files).
        """
        self._seen = None
        sample = expected.correction.of(sample)
        finding = self._find(frame, sample, clock, expected)
        finding = replace(finding, view=self._seen)
        t = frame.t if frame.t is not None else sample.t
        if not expected.moves or self._seen is None or t is None:
            return finding
        seen = self._seen
        step = self._odometry.step(
            t, seen.rgb, seen.footprint_m, seen.center_m, seen.agl_m, sample.yaw_known
        )
        clock.done("odometry")
        return replace(finding, step=step)

    def _find(self, frame: Frame, sample: Sample, clock: StageClock, expected: Expected) -> Finding:
        camera = self._camera(frame, sample)
        if isinstance(camera, Reason):
            return Finding(reason=camera)
        if sample.yaw_known and sample.agl_known:
            return self._find_as(sample.attitude, frame, camera, expected.within, clock)
        seen = self._scan(frame, camera, sample, expected, clock)
        if isinstance(seen, Reason):
            return Finding(reason=seen)
        scores = [best_score(one.evidence, expected) for one in seen]
        best, attitude = best_of([one.attitude for one in seen], scores)
        plan, evidence = seen[best].plan, seen[best].evidence
        if self._own(evidence).sum() < _WORTH_MORE:
            estimate = self._locate(plan, evidence, attitude)
            return Finding(plan, evidence, estimate, Reason.AMBIGUOUS, seen=tuple(seen))
        finding = self._find_as(attitude, frame, camera, expected.within, clock)
        return replace(self._refined(finding, sample), seen=tuple(seen))

    def _find_as(
        self,
        attitude: Attitude,
        frame: Frame,
        camera: Camera,
        within: Gate | None,
        clock: StageClock,
    ) -> Finding:
        """Match a frame of a known attitude, looking for the drone in the whole pack or a gate."""
        plan = self._plan(camera, attitude, self._fixed_level)
        clock.done("plan")
        if isinstance(plan, Reason):
            return Finding(reason=plan)
        clock.done("decode", frame.decode_s)
        finding = self._find_at(plan, frame, camera, attitude, within, clock)
        finer = self._next_finer(plan)
        if finding.reason is not Reason.AMBIGUOUS or finer is None:
            return finding
        # Smaller tiles fit where the frame sees the map in a corner only.
        plan = self._plan(camera, attitude, finer)
        clock.done("plan")
        if isinstance(plan, Reason):
            return finding
        second = self._find_at(plan, frame, camera, attitude, within, clock)
        return second if second.reason is None else finding

    def _scan(
        self,
        frame: Frame,
        camera: Camera,
        sample: Sample,
        expected: Expected,
        clock: StageClock,
    ) -> list[Seen] | Reason:
        """Match the middle of a frame under each attitude that it may have."""
        side = self._engine.spec.input_px
        heights_m = useful_heights_m(camera, self._footprints_m, side)
        tried: list[tuple[Attitude, PatchPlan]] = []
        refused = Reason.TOO_LOW
        for attitude in possible(sample, expected, heights_m):
            plan = plan_patches(camera, attitude, self._footprints_m, side, 1, self._fixed_level)
            if isinstance(plan, Reason):
                refused = plan
            else:
                tried.append((attitude, plan))
        clock.done("plan")
        if not tried:
            return refused
        reduction = min(max_reduction(camera, a, plan, side) for a, plan in tried)
        rgb, reduction = frame.rgb(reduction)
        camera = camera.reduced(reduction)
        clock.done("decode")
        seen: list[Seen] = []
        for start in range(0, len(tried), _SCANNED):
            part = tried[start : start + _SCANNED]
            warps = [plan_warps(camera, a, plan, side, 0, 1)[0] for a, plan in part]
            queries = self._embed(rgb, warps, clock, judge=start == 0, blur=sample.agl_known)
            if isinstance(queries, Reason):
                return queries
            for (attitude, plan), query in zip(part, queries, strict=True):
                evidence = gather(
                    self.pack, plan.level, query[None], plan.centers_m, expected.within
                )
                seen.append(Seen(attitude, plan, evidence))
            clock.done("search")
        return seen

    def _refined(self, finding: Finding, sample: Sample) -> Finding:
        """Return a finding under the heading and height that its patches tell together."""
        plan, evidence, estimate = finding.plan, finding.evidence, finding.estimate
        if finding.reason or plan is None or evidence is None or estimate is None:
            return finding
        assert finding.attitude is not None
        place_m = np.array([estimate.east_m, estimate.north_m])
        own = self._own(evidence)
        told = turned(finding.attitude, sample, evidence, own, place_m, plan.footprint_m)
        if told is None:
            return finding
        attitude, offsets_m = told
        evidence = replace(evidence, offsets_m=offsets_m)
        estimate = self._locate(plan, evidence, attitude)
        if not estimate.is_certain:
            return finding
        plan = replace(plan, centers_m=offsets_m)
        return replace(finding, plan=plan, evidence=evidence, estimate=estimate, attitude=attitude)

    def _own(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        spec = self._engine.spec
        logits = evidence.scores.astype(np.float64) / spec.temperature
        return tile_probabilities(logits, spec.unknown_score / spec.temperature)

    def _locate(self, plan: PatchPlan, evidence: Evidence, attitude: Attitude) -> Estimate:
        spec = self._engine.spec
        return locate(
            evidence, plan.footprint_m, spec.temperature, spec.unknown_score, attitude.agl_m
        )

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

    def _plan(self, camera: Camera, attitude: Attitude, level: int | None) -> PatchPlan | Reason:
        return plan_patches(
            camera,
            attitude,
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
        self,
        plan: PatchPlan,
        frame: Frame,
        camera: Camera,
        attitude: Attitude,
        within: Gate | None,
        clock: StageClock,
    ) -> Finding:
        """Match the patches of a plan: a first few, and the others where doubt remains."""
        rgb, reduction = frame.rgb(
            max_reduction(camera, attitude, plan, self._engine.spec.input_px)
        )
        camera = camera.reduced(reduction)
        clock.done("decode")
        evidence: Evidence | None = None
        done, planned = 0, len(plan.centers_m)
        while True:
            count = min(planned, FIRST_PATCHES if done == 0 else planned)
            side = self._engine.spec.input_px
            warps = plan_warps(camera, attitude, plan, side, done, count)
            queries = self._embed(rgb, warps, clock, judge=done == 0)
            if self._seen is None:
                np.copyto(self._view, self._patches[0])
                center_m = plan.centers_m[0]
                self._seen = View(self._view, plan.footprint_m, center_m, attitude.agl_m)
            if isinstance(queries, Reason):
                return Finding(plan, reason=queries)
            evidence = self._match(plan, queries, done, evidence, within, clock)
            if done == 0 and within is not None and self._is_elsewhere(plan, queries, evidence):
                within = None
                evidence = self._match(plan, queries, done, None, within, clock)
            estimate = self._locate(plan, evidence, attitude)
            clock.done("locate")
            done = count
            if estimate.is_sure or done == planned:
                reason = None if estimate.is_certain else Reason.AMBIGUOUS
                return Finding(plan, evidence, estimate, reason, attitude)

    def _embed(
        self, rgb: RGB, warps: list[FrameWarp], clock: StageClock, judge: bool, blur: bool = True
    ) -> Embeddings | Reason:
        """Embed patches, or say what is wrong with the picture.

        An engine that cuts patches itself gets the frame, which then crosses to its device once.

        Args:
            rgb: the frame.
            warps: how the patches lie in it.
            clock: where the times are booked.
            judge: look at the first patch for what is wrong.
            blur: for blur too; at a wrong scale a good picture seems blurred.
        """
        patches = self._patches[: len(warps)]
        queries: Embeddings | None = None
        if self._frame_engine is None:
            cut_patches(rgb, warps, patches)
        else:
            clock.done("normalise")
            queries = self._frame_engine.embed_frame(rgb, warps, patches if judge else None)
            clock.done("embed")
        fault = picture_fault(patches[0]) if judge else None
        if queries is None:
            brighten(patches)
        clock.done("normalise")
        if fault is not None and (blur or fault is not Reason.BLURRED):
            return fault
        if queries is None:
            queries = self._engine.embed(patches)
            clock.done("embed")
        return queries

    def _is_elsewhere(self, plan: PatchPlan, queries: Embeddings, evidence: Evidence) -> bool:
        """Tell whether the tile most like the middle of the frame puts the drone beyond a gate.

        Without rivals the best of a few tiles would pass for the place.
        """
        gate = evidence.within
        if gate is None or evidence.scores[0, 0] >= gate.sure_score:
            return False
        ids, _ = self.pack.search(queries[:1], plan.level, 1)
        tile_m = np.array([self.pack.east_m[ids[0, 0]], self.pack.north_m[ids[0, 0]]])
        drone_m = tile_m - plan.centers_m[0]
        return math.dist(drone_m, (gate.east_m, gate.north_m)) > gate.radius_m

    def _match(
        self,
        plan: PatchPlan,
        queries: Embeddings,
        first: int,
        before: Evidence | None,
        within: Gate | None,
        clock: StageClock,
    ) -> Evidence:
        """Search patches from `first` on; return what they found with what was found `before`."""
        centers_m = plan.centers_m[first : first + len(queries)]
        evidence = gather(self.pack, plan.level, queries, centers_m, within)
        evidence = evidence if before is None else joined(before, evidence)
        clock.done("search")
        return evidence
