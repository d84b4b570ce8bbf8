"""Fixes over time: belief and tail together decide where the drone is and whether to say so.

Each frame moves both on, weighs the whole pack anew, and corrects the tail with what it shows near
the prediction. A position is given only where the belief holds nearly all of its mass around the
tail; one that frames contradict is withdrawn within seconds, and a new place is taken up at once
only when nothing was known before: a drone is carried away more rarely than ground repeats itself.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass, replace

import numpy as np

from ..core.camera import Attitude
from ..core.console import say
from ..core.errors import IntegrityError
from ..tilepacks.reader import Pack
from .belief import Belief, Implied
from .bias import Correction, PoseBias
from .fix import Fix, Reason, State
from .frames import Frame
from .hypotheses import (
    ANYTHING,
    COVERED_DEG,
    HEADING_STEP_DEG,
    HEADINGS,
    Expected,
    fit_places,
    heading_bin,
)
from .localise import Finding
from .locate import (
    KERNEL_SHARE,
    LEVER_SHARE,
    MODE_REACH,
    OUTLIER_FLOOR,
    TILT_SIGMA_RAD,
    Estimate,
    Evidence,
    Floats,
    Gate,
    locate_near,
    tile_probabilities,
)
from .motion import NOT_KNOWN, FrameClock, Motion, motion, reported_mps
from .odometry import Step
from .registration import Registration
from .sights import Sights
from .single import FixMaker, unknown_tilt_m
from .tail import GATE, Tail
from .telemetry import Sample
from .track import Track

# The belief's cells, as a share of the smallest tiles: finer than its kernel.
_CELL_SHARE = 0.25
# Half a footprint on, half of what a frame shows is new, and as good as another frame.
_NEWS_SHARE = 0.5
_LEAST_NEWS = 0.05
# Where nothing tells how fast the drone flies, it is supposed to move at least so fast; where
# nothing tells its heading, to turn so fast.
_SUPPOSED_MPS = 12.0
_SUPPOSED_DEG_PER_S = 15.0
# Frames' worth of new ground, all agreeing, before a place is believed at first.
_FIRST_NEWS = 3.0
# ... and seconds of it before a place far from where the drone was known to be.
_JUMP_S = 10.0
# A place this near, in footprints, is taken up sooner: a drone turns more sharply than was thought
# more often than it is carried away.
_NEAR_FOOTPRINTS, _NEAR_JUMP_S = 3.0, 3.0
# What frames surely see contradicts a place beyond this squared distance (0.03 % by chance).
_CONTRADICTION = 16.0
# A circular Gaussian keeps 95 % within so many standard deviations.
_R95_PER_SIGMA = 2.448
_TAKEN_MASS = 0.99
# Where the belief holds so much around it, tiles elsewhere are not looked at.
_GATED_MASS = 0.99
# A frame is compared with the whole pack this often, and whenever it is less like the best tile
# nearby than frames usually are: without rivals any tile would pass for the place.
_COMPARE_S, _LESS_THAN_USUAL, _USUAL_SHARE = 1.0, 0.05, 0.1
# Probability a second that all is wrong.
_LEAK_PER_S = 1e-3
# A place that is this uncertain, in footprints, is none any more: the next is taken up at once.
_GONE_FOOTPRINTS = 3.0
# A match must hold this much of its patch's probability near the prediction.
_ANCHOR_MASS = 0.5
# A matched frame is looked for on the pack's imagery within so many of its sigmas, and this often:
# the attitude, whose error is then all that counts, errs another way only after some seconds.
_REGISTER_SIGMAS, _REGISTER_S, _TILT_S = 4.0, 0.45, 2.0
# How well the imagery tells heading and height, standard deviation.
_IMAGERY_TURN_RAD, _IMAGERY_SCALE = 0.015, 0.015
# Of the attitude's error half stays the same for a whole flight, and no filter averages it out.
_STEADY_TILT = 0.5
# A heading or height that was found is looked for nearby after frames without a picture this long.
_POSE_S = 1.0


@dataclass(frozen=True)
class Start:
    """Where the drone says it starts: within `radius_m` of a place, with 95 %."""

    lat_deg: float
    lon_deg: float
    radius_m: float


class Tracker:
    """Turns findings into fixes over time.

    Attributes:
        resets: how often another place was taken up than the one believed before.
        track: what is known after the newest frame, None before the first.
    """

    def __init__(self, pack: Pack, start: Start | None = None, diagnostics: bool = False) -> None:
        """Believe in every place of the pack alike, or in those around `start`."""
        self._pack = pack
        self._spec = pack.spec
        self._single = FixMaker(pack, diagnostics)
        self._agl_m = 0.0
        self._pose: Attitude | None = None  # heading and height that were found
        self._pose_t = 0.0
        self._searches = 0
        self._gated = 0.0  # what the belief held of a gate
        self._steady_m = 0.0
        self._bias = PoseBias()
        self._correction = Correction()  # of the frame that is matched
        self._usual_score: float | None = None  # cosine of the best tile of matched frames
        self._compared_t = -math.inf  # when one was last looked up in the whole pack
        smallest_m = min(level.footprint_m for level in pack.levels)
        # A drone beyond the border may still see ground of the pack.
        more_m = max(level.footprint_m for level in pack.levels)
        self._bounds_m = west, south, east, north = pack.frame.local_bounds(pack.bounds)
        grid_m = west - more_m, south - more_m, east + more_m, north + more_m
        self._cells = grid_m, _CELL_SHARE * smallest_m
        self._belief = Belief(*self._cells)
        if start is not None:
            start_e, start_n = pack.frame.to_local(start.lat_deg, start.lon_deg)
            self._belief.start(float(start_e), float(start_n), start.radius_m)
        self._tail: Tail | None = None
        self._registration = Registration(pack)
        self._registered_t: float | None = None
        self._clock = FrameClock()
        self._motion = NOT_KNOWN
        self._moved_m = math.inf  # since the last frame that was weighed
        self._news = 0.0
        self._anchor_t: float | None = None
        self._doubted_t: float | None = None  # since when frames see another place
        self._doubt_m = 0.0  # error per axis if they are right and it is near
        self._sees_elsewhere = False  # ... or whether it is far
        self._sights = Sights()
        self._alone = False  # whether the last frame is too long ago to tell anything
        self._footprint_m = smallest_m
        self.resets = 0
        self.track: Track | None = None

    def close(self) -> None:
        """Release the pack's imagery."""
        self._registration.close()

    def expect(self, frame: Frame, sample: Sample) -> Expected:
        """Return what is known of a frame that is to be matched."""
        t = frame.t if frame.t is not None else sample.t
        if t is None:
            return ANYTHING
        self._searches += 1
        place = None if self.track is None else self.track.expected(t)
        # A frame that stands alone shows nothing that was learnt from others to be still so.
        far_m = _GONE_FOOTPRINTS * self._footprint_m
        is_followed = place is not None and place.sigma_m <= far_m
        self._correction = self._bias.correction if is_followed else Correction()
        moves = reported_mps(sample) is None
        expected = Expected(turn=self._searches, moves=moves, correction=self._correction)
        if self._pose is not None:
            expected = replace(expected, agl_m=self._pose.agl_m)
            if _SUPPOSED_DEG_PER_S * (t - self._pose_t) <= COVERED_DEG:
                expected = replace(expected, yaw_deg=self._pose.yaw_deg)
        # Frames that contradict what is believed are looked at without prejudice.
        if self.track is None or self._doubted_t is not None:
            return expected
        if place is None or place.sigma_m > self._footprint_m:
            return expected
        east, north = (float(v) for v in place.position_m)
        near = Gate(east, north, self._reach_m(place) + self._footprint_m / 2, self._sure_score(t))
        # A frame that did not match there may show another place, and now and then one is looked
        # at that could.
        self._gated = self.track.held * (1 - _LEAK_PER_S * max(t - self.track.t, 0.0))
        sure = self._anchor_t == self._clock.t and self._gated >= _GATED_MASS
        # Under a wrong heading some tile nearby always fits best: let all of the pack compete.
        sure = sure and sample.yaw_known and sample.agl_known
        return replace(expected, near=near, only_near=sure)

    def _sure_score(self, t: float) -> float:
        """Return from which cosine on the best tile nearby is taken for the best of all."""
        if self._usual_score is None or t - self._compared_t >= _COMPARE_S:
            self._compared_t = t
            return math.inf
        return self._usual_score - _LESS_THAN_USUAL

    def without(self, frame: int, t: float | None, file: str | None, reason: Reason) -> Fix:
        """Return what is said of a frame that cannot be looked at, or of none at all."""
        if t is None:
            return self._single.without(frame, t, file, reason)
        self._predict(t, None, None)
        return self._conclude(t, self._bare(frame, t, file, reason))

    def fix(self, frame: Frame, sample: Sample, finding: Finding) -> Fix:
        """Return the fix of a frame, its latency still open; without a clock, of it alone."""
        t = frame.t if frame.t is not None else sample.t
        if t is None:
            return self._single.fix(frame, sample, finding)
        sample = self._correction.of(sample)
        # Between views of which one was cut under a wrong heading or height nothing is to be seen.
        told = sample.yaw_known and sample.agl_known
        found = finding.reason is None and self._pose is not None and self._pose_t == self._clock.t
        self._predict(t, sample, finding.step if told or found else None)
        self._know_headings(sample)
        if finding.plan is not None and finding.evidence is not None:
            self._weigh(t, sample, finding, finding.evidence)
        self._know_pose(t, sample, finding)
        fix = self._bare(frame.index, t, frame.file, finding.reason)
        if sample.yaw_known or self._pose is not None:
            yaw_deg = sample.attitude.yaw_deg if self._pose is None else self._pose.yaw_deg
            fix = replace(fix, heading_deg=yaw_deg % 360.0)
        if sample.agl_known or self._pose is not None:
            self._agl_m = sample.attitude.agl_m if self._pose is None else self._pose.agl_m
            fix = replace(fix, agl_m=self._agl_m)
        self._steady_m = math.hypot(
            _STEADY_TILT * TILT_SIGMA_RAD * self._agl_m, unknown_tilt_m(sample, self._agl_m)
        )
        said = self._conclude(t, self._single.with_evidence(fix, finding))
        if self._alone and said.lat is None and _is_sure(finding.estimate):
            return self._single.fix(frame, sample, finding)
        return said

    def at(self, t: float) -> Fix | None:
        """Return what is said of a time after the newest frame; None before the first.

        It changes nothing, and may be asked from another thread.
        """
        return None if self.track is None else self.track.at(t)

    def _bare(self, frame: int, t: float, file: str | None, reason: Reason | None) -> Fix:
        age_s = None if self._anchor_t is None else t - self._anchor_t
        return Fix(frame, t, State.ACQUIRING, file, reason, anchor_age_s=age_s)

    def _conclude(self, t: float, fix: Fix) -> Fix:
        """Keep what is known after a frame, and return what is said of it."""
        tail = None if self._tail is None else self._tail.copy()
        held = 0.0
        if tail is not None:
            east, north = tail.position_m
            held = self._belief.mass_within(float(east), float(north), self._reach_m(tail))
        self.track = Track(
            self._pack.frame,
            self._bounds_m,
            t,
            fix,
            tail,
            np.zeros(2) if self._motion.now_mps is None else self._motion.now_mps,
            self._motion.model,
            math.hypot(self._steady_m, self._doubt_m),
            held,
            self._footprint_m,
            self._anchor_t,
            self._doubted_t,
            self._sees_elsewhere,
        )
        return self.track.said()

    def _predict(self, t: float, sample: Sample | None, step: Step | None) -> None:
        passed = self._clock.tick(t)
        if passed.is_gap:
            self._forget()
        self._shift(passed.shift_s)
        before, self._motion = self._motion, motion(self._motion, sample, step)
        if self._tail is not None:
            self._hand_over(self._tail, before)
        seconds, moved, model = passed.seconds, self._motion.mean_mps, self._motion.model
        self._alone = passed.is_gap
        self._bias.passed(seconds)
        if seconds == 0:
            return
        # A turn between two frames is known at its ends alone.
        turn_m = self._motion.turned_mps * seconds / 4
        speed = float(np.linalg.norm(moved))
        unsure_mps = math.hypot(model.sigma_mps + model.share * speed, model.jitter_mps)
        unsure_m = math.hypot(unsure_mps * seconds, turn_m)
        self._alone = unsure_m > _GONE_FOOTPRINTS * self._footprint_m
        likely = moved if self._tail is None else moved + self._tail.state[2:]
        self._belief.predict(likely * seconds, unsure_m, _LEAK_PER_S * seconds)
        self._sights.moved(likely * seconds)
        if self._belief.headings > 1:
            self._belief.turn(_SUPPOSED_DEG_PER_S * seconds / HEADING_STEP_DEG)
        if self._tail is not None:
            self._tail.predict(moved, seconds, model)
            self._tail.covariance[[0, 1], [0, 1]] += turn_m**2
            if self._tail.sigma_m > _GONE_FOOTPRINTS * self._footprint_m:
                self._tail = None
                self._trust()
        if self._motion.now_mps is None:
            known = 0.0 if self._tail is None else float(np.linalg.norm(self._tail.state[2:]))
            speed = max(known, _SUPPOSED_MPS)
        self._moved_m += speed * seconds

    def _forget(self) -> None:
        """Begin anew, with every place of the pack alike."""
        self._belief = Belief(*self._cells)
        self._tail = self._pose = None
        self._sights.forget()
        self._motion = NOT_KNOWN
        self._news, self._moved_m = 0.0, math.inf
        self._trust()

    def _trust(self) -> None:
        """Doubt no more."""
        self._doubted_t, self._doubt_m, self._sees_elsewhere = None, 0.0, False

    def _shift(self, seconds: float) -> None:
        """Set remembered times back with the clock."""
        self._pose_t += seconds
        self._compared_t += seconds
        self._anchor_t = None if self._anchor_t is None else self._anchor_t + seconds
        self._doubted_t = None if self._doubted_t is None else self._doubted_t + seconds
        self._sights.shifted(seconds)

    def _hand_over(self, tail: Tail, before: Motion) -> None:
        """Let the tail know where its velocity comes from now, if from elsewhere than before."""
        now = self._motion.now_mps
        if now is None and before.now_mps is not None:
            tail.state[2:] += before.now_mps  # what it was last becomes the tail's own
        if now is not None and before.now_mps is None:
            tail.trust(now, self._motion.model)

    def _weigh(self, t: float, sample: Sample, finding: Finding, evidence: Evidence) -> None:
        """Take in a frame."""
        assert finding.plan is not None
        footprint_m = self._footprint_m = finding.plan.footprint_m
        news = min(1.0, max(_LEAST_NEWS, self._moved_m / (_NEWS_SHARE * footprint_m)))
        self._moved_m = 0.0
        own = self._own(evidence)
        self._believe(finding, evidence, own, news)
        self._news += news
        taken = self._take_up(t, finding.estimate, news)
        anchored = finding.attitude is not None and (
            self._correct(t, sample, finding, evidence, own, news) or taken
        )
        self._doubt(t, finding, anchored)

    def _own(self, evidence: Evidence) -> Floats:
        temperature = self._spec.temperature
        logits = evidence.scores.astype(np.float64) / temperature
        return tile_probabilities(logits, self._spec.unknown_score / temperature)

    def _believe(self, finding: Finding, evidence: Evidence, own: Floats, news: float) -> None:
        """Multiply the belief by what a frame says, under each heading that was tried."""
        kernel_m = KERNEL_SHARE * self._footprint_m
        said: list[Implied | None] = [None] * self._belief.headings
        gate = evidence.within
        within = None if gate is None else (gate.east_m, gate.north_m, gate.radius_m)
        chosen = 0
        if self._belief.headings > 1:
            chosen = -1 if finding.attitude is None else heading_bin(finding.attitude.yaw_deg)
            # The best last, so that of several heights it counts.
            for one in sorted(finding.seen, key=lambda one: float(one.evidence.scores[0, 0])):
                said[heading_bin(one.attitude.yaw_deg)] = _implied(
                    one.evidence, self._own(one.evidence)
                )
            if chosen >= 0:
                said[chosen] = None
            self._belief.update(said, kernel_m, OUTLIER_FLOOR, news, within, self._gated)
            said = [None] * self._belief.headings
        if chosen >= 0:
            said[chosen] = _implied(evidence, own)
            share = _independent(evidence.offsets_m, self._footprint_m) / len(own)
            self._belief.update(said, kernel_m, OUTLIER_FLOOR, news * share, within, self._gated)

    def _know_headings(self, sample: Sample) -> None:
        """Tell headings apart where telemetry does not."""
        headings = 1 if sample.yaw_known else HEADINGS
        if self._belief.headings != headings:
            self._belief.part(headings)

    def _know_pose(self, t: float, sample: Sample, finding: Finding) -> None:
        """Keep the heading and height under which a frame was surely matched."""
        sure = finding.reason is None or self._anchor_t == t
        if finding.seen and finding.attitude is not None and sure:
            self._pose, self._pose_t = finding.attitude, t
        elif finding.evidence is not None or t - self._pose_t > _POSE_S:
            self._pose = None  # it has turned or climbed, or telemetry tells it again

    def _correct(
        self,
        t: float,
        sample: Sample,
        finding: Finding,
        evidence: Evidence,
        own: Floats,
        news: float,
    ) -> bool:
        """Correct the tail with what the frame shows near it."""
        if self._tail is None:
            return False
        assert finding.attitude is not None
        reach_m, agl_m = self._reach_m(self._tail), finding.attitude.agl_m
        found = locate_near(evidence, own, self._footprint_m, agl_m, self._tail.position_m, reach_m)
        # A heading or height that is guessed anew has to convince by itself.
        guessed = bool(finding.seen) and self._pose is None
        known = found is not None and found.mass >= _ANCHOR_MASS and not guessed
        if found is None or not (known or self._agrees(finding.estimate)):
            return False
        place = np.array([found.east_m, found.north_m])
        # Frames of much the same ground are wrong alike.
        sigma_m = math.hypot(found.sigma_m, unknown_tilt_m(sample, agl_m)) / math.sqrt(news)
        if self._tail.distance2(place, sigma_m) > GATE:
            return False
        exact = self._on_imagery(t, sample, finding, place, found.sigma_m)
        if exact is not None and self._tail.distance2(*exact) <= GATE:
            place, sigma_m = exact
        self._tail.correct(place, sigma_m)
        self._anchor_t = t
        score = float(evidence.scores[0, 0])
        usual = score if self._usual_score is None else self._usual_score
        self._usual_score = usual + _USUAL_SHARE * (score - usual)
        self._learn_from_places(sample, evidence, own, news)
        return True

    def _learn_from_places(
        self, sample: Sample, evidence: Evidence, own: Floats, news: float
    ) -> None:
        """Learn from where the patches of a matched frame lie what is wrong with its telemetry."""
        assert self._tail is not None
        fit = fit_places(evidence, own, self._tail.position_m, self._footprint_m)
        if fit is not None and _tells_all(sample):
            sigma = fit.sigma / math.sqrt(news)
            self._learn(-cmath.phase(fit.factor), sigma, abs(fit.factor), sigma)

    def _learn(self, turn_rad: float, sigma_rad: float, factor: float, sigma: float) -> None:
        """Take in what a frame lacked besides what was corrected already."""
        corrected_rad = math.radians(self._correction.turn_deg)
        self._bias.learn_turn(corrected_rad + turn_rad, sigma_rad)
        self._bias.learn_height(self._correction.height_factor * factor, sigma)

    def _on_imagery(
        self, t: float, sample: Sample, finding: Finding, place_m: Floats, sigma_m: float
    ) -> tuple[Floats, float] | None:
        """Return where the frame lies on the pack's own imagery, and how far the drone may be off.

        What is left is the attitude's error, which more frames than some a second do not average.
        """
        last, view = self._registered_t, finding.view
        if view is None or (last is not None and 0 <= t - last < _REGISTER_S):
            return None
        if not self._registration.is_possible:
            return None
        try:
            found = self._registration.register(
                view.rgb, view.footprint_m, place_m + view.center_m, _REGISTER_SIGMAS * sigma_m
            )
        except IntegrityError as error:
            # The file was changed in flight; what is searched was read before.
            say(f"note: {error}; frames are laid on imagery no more")
            self._registration.close()
            return None
        if found is None:
            return None
        self._registered_t = t
        if _tells_all(sample):
            turn_rad = math.radians(found.turn_deg)
            self._learn(turn_rad, _IMAGERY_TURN_RAD, found.scale, _IMAGERY_SCALE)
        news = 1.0 if last is None or t < last else min((t - last) / _TILT_S, 1.0)
        parts = (
            TILT_SIGMA_RAD * view.agl_m,
            unknown_tilt_m(sample, view.agl_m),
            LEVER_SHARE * float(np.linalg.norm(view.center_m)),
            found.sigma_m,
        )
        return found.position_m - view.center_m, float(np.linalg.norm(parts)) / math.sqrt(news)

    def _agrees(self, seen: Estimate | None) -> bool:
        """Tell whether a frame by itself surely sees the tail's place."""
        if self._tail is None or seen is None or not seen.is_certain:
            return False
        place = np.array([seen.east_m, seen.north_m])
        return self._tail.distance2(place, seen.sigma_m) <= GATE

    def _doubt(self, t: float, finding: Finding, anchored: bool) -> None:
        """Remember since when frames surely see another place than the tail's."""
        if self._tail is None or anchored:
            self._trust()
            return
        seen = finding.estimate
        if seen is None or not seen.is_certain:
            return
        place = np.array([seen.east_m, seen.north_m])
        if self._tail.distance2(place, seen.sigma_m) <= _CONTRADICTION:
            return
        if self._doubted_t is None:
            self._doubted_t = t
        away_m = math.dist(place, self._tail.position_m)
        if away_m <= _NEAR_FOOTPRINTS * self._footprint_m:
            self._doubt_m = max(self._doubt_m, away_m / _R95_PER_SIGMA)
        else:
            self._sees_elsewhere = True

    def _take_up(self, t: float, seen: Estimate | None, news: float) -> bool:
        """Start the tail where the belief has gathered, or move it there after long doubt."""
        if seen is not None and _is_sure(seen):
            place_m = np.array([seen.east_m, seen.north_m])
            self._sights.note(t, place_m, news, MODE_REACH * self._footprint_m)
        doubted_s = 0.0 if self._doubted_t is None else t - self._doubted_t
        if self._tail is not None and doubted_s < _NEAR_JUMP_S:
            return False
        found = self._gathered() or self._hovered(t, seen)
        if found is None:
            return False
        place, sigma_m = found
        if self._tail is not None:
            if self._tail.distance2(place, sigma_m) <= _CONTRADICTION:
                return False
            near_m = _NEAR_FOOTPRINTS * self._footprint_m
            if doubted_s < _JUMP_S and math.dist(place, self._tail.position_m) > near_m:
                return False
            self.resets += 1
        model = self._motion.model
        east_m, north_m = (float(v) for v in place)
        self._tail = Tail(east_m, north_m, max(sigma_m, self._belief.cell_m / 2), model)
        if self._motion.now_mps is not None:
            self._tail.trust(self._motion.now_mps, model)
        self._anchor_t = t
        self._trust()
        return True

    def _gathered(self) -> tuple[Floats, float] | None:
        """Return where the belief has gathered after enough new ground, and its spread."""
        if self._news < _FIRST_NEWS:
            return None
        mode = self._belief.mode(MODE_REACH * self._footprint_m)
        if mode.mass < _TAKEN_MASS:
            return None
        return np.array([mode.east_m, mode.north_m]), mode.spread_m

    def _hovered(self, t: float, seen: Estimate | None) -> tuple[Floats, float] | None:
        """Return what a drone that shows no new ground has surely seen for long; it is believed."""
        place = self._sights.hovered_over(t, _FIRST_NEWS)
        if place is None or seen is None:
            return None
        self._belief.settle(float(place[0]), float(place[1]), seen.sigma_m, _TAKEN_MASS)
        return place, seen.sigma_m

    def _reach_m(self, tail: Tail) -> float:
        return MODE_REACH * self._footprint_m + 3 * tail.sigma_m


def _tells_all(sample: Sample) -> bool:
    """Tell whether nothing of the attitude is guessed: what is wrong would be laid to the rest."""
    return sample.yaw_known and sample.tilt_known and sample.agl_known


def _is_sure(seen: Estimate | None) -> bool:
    return seen is not None and seen.is_certain and seen.mass >= _TAKEN_MASS


def _implied(evidence: Evidence, own: Floats) -> Implied:
    return Implied(evidence.tiles_m - evidence.offsets_m[:, None, :], own)


def _independent(offsets_m: Floats, footprint_m: float) -> float:
    """Return how many patches' worth of ground the patches of a frame show together."""
    span = (offsets_m.max(axis=0) - offsets_m.min(axis=0)) / footprint_m + 1
    return min(float(len(offsets_m)), float(span.prod()))
