"""Fixes over time: what is believed, when it is said, and when it is taken back."""

from __future__ import annotations

import cmath
import math
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s4g.core.camera import Attitude
from s4g.core.errors import IntegrityError
from s4g.core.geo import BBox, LocalFrame
from s4g.runtime.bias import Correction
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.frames import Frame
from s4g.runtime.hypotheses import Expected
from s4g.runtime.localise import Finding, Seen, View
from s4g.runtime.locate import Evidence, locate
from s4g.runtime.normalise import PatchPlan
from s4g.runtime.odometry import Step
from s4g.runtime.registration import Registered
from s4g.runtime.single import unknown_tilt_m
from s4g.runtime.telemetry import Sample
from s4g.runtime.tracker import Start, Tracker

FOOTPRINT_M, STRIDE_M = 80.0, 20.0
SIDE_M = 4000.0
SPEED_MPS, PERIOD_S, AGL_M = 15.0, 0.5, 120.0
OFFSETS_M = np.array([[0.0, 0.0], [60.0, 40.0], [-60.0, 40.0], [-60.0, -40.0], [60.0, -40.0]])
LEVEL = Attitude(0.0, 0.0, 0.0, AGL_M)
POSITIONLESS = {State.INIT, State.ACQUIRING, State.NO_FIX, State.OUT_OF_PACK}


def make_pack() -> Any:
    frame = LocalFrame(47.0, 8.0)
    corners = [frame.to_wgs84(s * SIDE_M / 2, s * SIDE_M / 2) for s in (-1, 1)]
    (south, west), (north, east) = ((float(a), float(b)) for a, b in corners)
    return SimpleNamespace(
        frame=frame,
        bounds=BBox(west, south, east, north),
        imagery=lambda: None,
        spec=SimpleNamespace(temperature=0.025, unknown_score=0.5),
        levels=[SimpleNamespace(footprint_m=FOOTPRINT_M)],
    )


class Flight:
    """A drone flying north-east, whose frames show the ground below it, or what they are told."""

    def __init__(self, start: Start | None = None, at_m: tuple[float, float] = (-900.0, -900.0)):
        self.pack = make_pack()
        self.tracker = Tracker(self.pack, start)
        self.rng = np.random.default_rng(7)
        self.place_m = np.array(at_m)
        self.velocity_mps = SPEED_MPS * np.array([math.sqrt(0.5), math.sqrt(0.5)])
        self.t, self.index = 100.0, 0
        self.unknown: tuple[str, ...] = ()

    def finding(self, seen_m: np.ndarray | None, lacks: complex = 1) -> Finding:
        """What the pack says to a view of a place, or to ground that it does not hold.

        `lacks` is the factor by which patches (east + i north) lie elsewhere than supposed.
        """
        count = 24
        tiles = self.rng.uniform(-SIDE_M / 2, SIDE_M / 2, (len(OFFSETS_M), count, 2))
        scores = self.rng.uniform(0.30, 0.42, (len(OFFSETS_M), count))
        if seen_m is not None:
            really = OFFSETS_M @ np.array([1, 1j]) * lacks
            views = seen_m + np.stack([really.real, really.imag], axis=1)
            corner = np.floor(views / STRIDE_M) * STRIDE_M
            for i, (dx, dy) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
                tiles[:, i] = corner + STRIDE_M * np.array([dx, dy])
                away = np.linalg.norm(tiles[:, i] - views, axis=1) / FOOTPRINT_M
                scores[:, i] = 0.9 - 0.8 * away + self.rng.normal(0, 0.02, len(away))
        order = np.argsort(-scores, axis=1)
        evidence = Evidence(
            order,
            np.take_along_axis(scores, order, axis=1).astype(np.float32),
            np.take_along_axis(tiles, order[..., None], axis=1),
            OFFSETS_M,
        )
        estimate = locate(evidence, FOOTPRINT_M, 0.025, 0.5, AGL_M)
        reason = None if estimate.is_certain else Reason.AMBIGUOUS
        return Finding(PatchPlan(0, FOOTPRINT_M, OFFSETS_M), evidence, estimate, reason, LEVEL)

    def step(
        self, finding: Finding | None = None, velocity: bool = True, still: bool = False
    ) -> Fix:
        """Fly on for a frame and return its fix."""
        if self.index and not still:
            self.place_m = self.place_m + self.velocity_mps * PERIOD_S
        self.t += PERIOD_S
        self.index += 1
        finding = self.finding(self.place_m) if finding is None else finding
        moving = (0.0, 0.0) if still else tuple(self.velocity_mps)
        sample = Sample(Attitude(0.0, 0.0, 0.0, AGL_M), t=self.t)
        if self.unknown:
            sample = replace(sample, **{f"{name}_known": False for name in self.unknown})
        if velocity:
            sample = replace(sample, vel_e_mps=moving[0], vel_n_mps=moving[1])
        frame = Frame(self.index, self.t, None, f"frame {self.index}", 640, 480, 0.0)
        fix = self.tracker.fix(frame, sample, finding)
        assert (fix.lat is None) == (fix.state in POSITIONLESS)
        return fix

    def fly(self, seconds: float, **how: Any) -> list[Fix]:
        return [self.step(**how) for _ in range(round(seconds / PERIOD_S))]

    def error_m(self, fix: Fix) -> float:
        assert fix.lat is not None
        east, north = self.pack.frame.to_local(fix.lat, fix.lon)
        return math.dist((float(east), float(north)), tuple(self.place_m))


BLIND = Finding(reason=Reason.UNIFORM)


def test_a_place_is_named_when_three_frames_of_new_ground_agree() -> None:
    flight = Flight()
    states = []
    while not states or states[-1] is not State.TRACK:
        states.append(flight.step().state)
    # Half a footprint is flown in five and a half frames; the first counts as new ground.
    assert 9 <= len(states) <= 14
    assert set(states[:-1]) == {State.ACQUIRING}


def test_positions_are_within_a_fraction_of_a_tile_and_within_their_protection_level() -> None:
    flight = Flight()
    flight.fly(10)
    for _ in range(60):
        fix = flight.step()
        assert fix.state is State.TRACK
        assert flight.error_m(fix) < 8
        assert flight.error_m(fix) < fix.hpl_m
    alone = flight.finding(flight.place_m).estimate
    assert fix.sigma_m < 0.9 * alone.sigma_m
    assert (fix.ve_mps, fix.vn_mps) == pytest.approx(tuple(flight.velocity_mps), abs=1)


def test_the_same_ground_over_and_over_is_no_more_than_one_sure_sight() -> None:
    flight = Flight()
    states = [fix.state for fix in flight.fly(15, still=True)]
    assert set(states[:20]) == {State.ACQUIRING}  # ten seconds
    assert set(states[22:]) == {State.TRACK}


def test_the_same_ground_that_is_seen_without_being_sure_proves_nothing() -> None:
    flight = Flight()
    sure = flight.finding(flight.place_m)
    assert sure.estimate is not None
    doubtful = replace(sure, estimate=replace(sure.estimate, mass=0.98))
    fixes = [flight.step(doubtful, still=True) for _ in range(30)]
    assert {fix.state for fix in fixes} == {State.ACQUIRING}


def test_frames_too_far_apart_to_be_combined_stand_alone() -> None:
    flight = Flight()
    flight.step(velocity=False)
    for _ in range(5):
        flight.t += 40
        flight.place_m = flight.rng.uniform(-1500, 1500, 2)
        fix = flight.step(velocity=False)
        assert fix.state is State.TRACK
        assert flight.error_m(fix) < 15


def test_a_frame_too_far_from_the_last_that_is_not_sure_has_no_fix() -> None:
    flight = Flight()
    flight.step(velocity=False)
    flight.t += 40
    sure = flight.finding(flight.place_m)
    assert sure.estimate is not None
    doubtful = replace(sure, estimate=replace(sure.estimate, mass=0.98))
    assert flight.step(doubtful, velocity=False).lat is None


def test_one_frame_that_surely_sees_a_far_place_withdraws_the_position() -> None:
    flight = Flight()
    flight.fly(10)
    assert flight.step().state is State.TRACK
    assert flight.step(flight.finding(flight.place_m + 1000)).state is State.NO_FIX
    assert flight.step().state is State.TRACK


def test_without_matches_a_position_is_ever_less_sure_until_it_is_given_up() -> None:
    flight = Flight()
    flight.fly(15)
    fixes = flight.fly(120, finding=BLIND)
    sigmas = [fix.sigma_m for fix in fixes if fix.sigma_m is not None]
    assert len(sigmas) > 10
    assert all(np.diff(sigmas) > 0)
    assert {fix.state for fix in fixes[: len(sigmas)]} == {State.DEGRADED}
    assert {fix.source for fix in fixes[: len(sigmas)]} == {"propagated"}
    assert fixes[0].reason is Reason.UNIFORM
    assert fixes[-1].state in (State.NO_FIX, State.OUT_OF_PACK)
    assert fixes[20].anchor_age_s == pytest.approx(10.5)


def test_after_a_short_blackout_it_goes_on_where_it_was() -> None:
    flight = Flight()
    flight.fly(15)
    flight.fly(5, finding=BLIND)
    fix = flight.step()
    assert fix.state is State.TRACK
    assert flight.error_m(fix) < 10
    assert flight.tracker.resets == 0


def test_after_half_a_minute_of_blackout_it_knows_how_little_it_knows() -> None:
    flight = Flight(at_m=(-1500.0, -1500.0))
    flight.fly(20)
    drift = np.array([0.8, -0.5])
    for _ in range(60):
        flight.place_m = flight.place_m + drift * PERIOD_S  # wind that no velocity tells
        fix = flight.step(BLIND)
        if fix.lat is not None:
            assert flight.error_m(fix) < fix.hpl_m
    back = flight.fly(6)
    assert back[-1].state is State.TRACK
    assert flight.error_m(back[-1]) < 12


def test_ten_seconds_of_another_place_end_in_no_fix_within_three_and_are_not_believed() -> None:
    flight = Flight()
    flight.fly(20)
    false_m = np.array([700.0, -600.0])
    states = []
    for _ in range(round(9.5 / PERIOD_S)):
        fix = flight.step(flight.finding(flight.place_m + false_m))
        states.append(fix.state)
        if fix.lat is not None:
            assert flight.error_m(fix) < fix.hpl_m
    first = states.index(State.NO_FIX)
    assert (first + 1) * PERIOD_S <= 3
    assert set(states[first:]) == {State.NO_FIX}
    back = flight.fly(10)
    assert back[-1].state is State.TRACK
    assert flight.error_m(back[-1]) < 10
    assert flight.tracker.resets == 0


def test_a_drone_that_was_carried_away_is_found_again() -> None:
    flight = Flight()
    flight.fly(20)
    flight.place_m = flight.place_m + np.array([1400.0, 300.0])
    fixes = flight.fly(25)
    for fix, ago in zip(fixes, range(len(fixes), 0, -1), strict=True):
        if fix.lat is not None and ago < len(fixes) - 6:
            away = flight.velocity_mps * PERIOD_S * (ago - 1)
            east, north = flight.pack.frame.to_local(fix.lat, fix.lon)
            assert math.dist((float(east), float(north)), tuple(flight.place_m - away)) < 30
    assert fixes[-1].state is State.TRACK
    assert flight.tracker.resets == 1


def test_ground_that_the_pack_does_not_hold_is_never_a_place() -> None:
    flight = Flight()
    for _ in range(200):
        assert flight.step(flight.finding(None)).lat is None
        flight.place_m = np.array([-900.0, -900.0])


def test_near_the_border_an_unseen_position_is_out_of_the_pack() -> None:
    flight = Flight(at_m=(1500.0, 1500.0))
    flight.fly(15)
    states = [fix.state for fix in flight.fly(60, finding=BLIND)]
    assert states[0] is State.DEGRADED
    assert State.OUT_OF_PACK in states


def test_without_velocities_it_keeps_up_with_the_drone() -> None:
    flight = Flight(at_m=(-1500.0, -1500.0))
    flight.fly(40, velocity=False)
    for _ in range(20):
        fix = flight.step(velocity=False)
        assert fix.state is State.TRACK
        assert flight.error_m(fix) < 12


def test_a_start_narrows_what_is_looked_at() -> None:
    """Ground that repeats itself far away is then no rival."""
    pack = make_pack()
    lat, lon = (float(v) for v in pack.frame.to_wgs84(-900.0, -900.0))
    flight = Flight(Start(lat, lon, 200.0))
    twin_m = np.array([1200.0, 1500.0])
    for _ in range(40):
        here = flight.finding(flight.place_m)
        there = flight.finding(flight.place_m + twin_m)
        both = Evidence(
            *(
                np.concatenate([getattr(f.evidence, name) for f in (here, there)], axis=1)
                for name in ("ids", "scores", "tiles_m")
            ),
            OFFSETS_M,
        )
        estimate = locate(both, FOOTPRINT_M, 0.025, 0.5, AGL_M)
        fix = flight.step(replace(here, evidence=both, estimate=estimate, reason=Reason.AMBIGUOUS))
    assert fix.state is State.TRACK
    assert flight.error_m(fix) < 10


def test_asking_where_it_is_changes_nothing() -> None:
    asked, other = Flight(), Flight()
    assert asked.tracker.at(0.0) is None
    for _ in range(30):
        fix, same = asked.step(), other.step()
        assert fix == same
        later = asked.tracker.at(asked.t + 0.3)
    assert later is not None
    assert (later.state, later.source) == (State.TRACK, "propagated")
    moved = asked.velocity_mps * 0.3
    asked.place_m = asked.place_m + moved
    assert asked.error_m(later) < 8
    much_later = asked.tracker.at(asked.t + 8)
    assert (much_later.state, much_later.reason, much_later.lat) == (
        State.NO_FIX, Reason.STALE, None,
    )  # fmt: skip


def test_a_clock_that_goes_back_does_not_end_it() -> None:
    flight = Flight()
    flight.fly(15)
    flight.t -= 3600
    fixes = flight.fly(10)
    assert fixes[-1].state is State.TRACK
    assert flight.error_m(fixes[-1]) < 10


def test_frames_without_a_clock_are_localised_one_by_one() -> None:
    flight = Flight()
    frame = Frame(0, None, "a.jpg", "a.jpg", 640, 480, 0.0)
    sample = Sample(Attitude(0.0, 0.0, 0.0, AGL_M))
    fix = flight.tracker.fix(frame, sample, flight.finding(flight.place_m))
    assert fix.state is State.TRACK
    assert flight.error_m(fix) < 20


def test_no_frame_at_all_is_told_with_its_reason() -> None:
    flight = Flight()
    flight.fly(15)
    fix = flight.tracker.without(flight.index, flight.t + 0.5, None, Reason.NO_FRAMES)
    assert (fix.state, fix.reason) == (State.DEGRADED, Reason.NO_FRAMES)
    later = flight.tracker.without(flight.index, flight.t + 30, None, Reason.NO_FRAMES)
    assert (later.state, later.lat) == (State.NO_FIX, None)


def test_while_no_frame_comes_the_position_flies_on_as_fast_as_it_flew() -> None:
    flight = Flight()
    flight.fly(15)
    for step in range(1, 3):
        flight.place_m = flight.place_m + flight.velocity_mps * PERIOD_S
        t = flight.t + step * PERIOD_S
        fix = flight.tracker.without(flight.index, t, None, Reason.NO_FRAMES)
        assert fix.state is State.DEGRADED
        assert flight.error_m(fix) < 8
    flight.t += 2 * PERIOD_S
    fix = flight.step()
    assert fix.state is State.TRACK
    assert flight.error_m(fix) < 8
    assert (fix.ve_mps, fix.vn_mps) == pytest.approx(tuple(flight.velocity_mps), abs=3)


def test_how_the_drone_moved_is_seen_in_frames_where_nobody_reports_it() -> None:
    flight = Flight(at_m=(-1500.0, -1500.0))

    def stepped(finding: Finding) -> Finding:
        moved = flight.velocity_mps * PERIOD_S + flight.rng.normal(0, 0.5, 2)
        return replace(finding, step=Step(PERIOD_S, moved, 0.8, 0.0))

    for _ in range(40):
        place = flight.place_m + flight.velocity_mps * PERIOD_S * (flight.index > 0)
        fix = flight.step(stepped(flight.finding(place)), velocity=False)
    assert fix.state is State.TRACK
    assert flight.error_m(fix) < 8
    for _ in range(20):
        fix = flight.step(stepped(BLIND), velocity=False)
        assert fix.state is State.DEGRADED
    assert flight.error_m(fix) < min(15, fix.hpl_m)
    for _ in range(20):
        fix = flight.step(BLIND, velocity=False)
    assert (fix.state, fix.lat) == (State.NO_FIX, None)


def test_a_movement_seen_under_a_guessed_heading_is_none() -> None:
    flight = Flight()
    flight.fly(20, velocity=False)
    flight.unknown = ("yaw",)
    wild = Step(PERIOD_S, np.array([-300.0, 0.0]), 0.5, 0.0)
    fix = flight.step(replace(BLIND, step=wild), velocity=False)
    assert flight.error_m(fix) < 20


def test_a_place_nearby_is_not_kept_from_what_frames_surely_see() -> None:
    """The drone was blown aside by less than a tile, which no velocity told."""
    flight = Flight()
    flight.fly(20)
    flight.place_m = flight.place_m + np.array([50.0, -30.0])
    fixes = []
    for _ in range(16):
        fix = flight.step()
        fixes.append(fix)
        if fix.lat is not None:
            assert flight.error_m(fix) < fix.hpl_m
    assert [fix.state for fix in fixes[-4:]] == [State.TRACK] * 4
    assert flight.error_m(fixes[-1]) < 10
    assert flight.tracker.resets == 1


def test_a_pause_of_minutes_leaves_nothing_known() -> None:
    flight = Flight()
    flight.fly(20)
    flight.t += 120
    flight.place_m = np.array([-900.0, 500.0])
    fix = flight.step(BLIND)
    assert (fix.state, fix.lat) == (State.ACQUIRING, None)
    assert flight.fly(10)[-1].state is State.TRACK


def test_a_clock_that_was_set_back_makes_no_match_older_or_younger_than_it_is() -> None:
    flight = Flight()
    flight.fly(20)
    flight.t -= 3600
    ages = [fix.anchor_age_s for fix in flight.fly(4, finding=BLIND)]
    assert ages == pytest.approx(PERIOD_S * np.arange(1, 9))


def test_a_clock_that_stutters_moves_nothing_twice() -> None:
    flight = Flight()
    flight.fly(20)
    for _ in range(10):
        flight.t -= 2 * PERIOD_S
        flight.step(BLIND)
    assert flight.fly(10)[-1].state is State.TRACK


@pytest.mark.parametrize("east_mps", [math.nan, math.inf])
def test_a_velocity_that_is_no_number_is_not_told(east_mps: float) -> None:
    flight = Flight()
    flight.fly(20)
    flight.velocity_mps, honest = np.array([east_mps, 3.0]), flight.velocity_mps
    flight.place_m, place_m = np.zeros(2), flight.place_m
    flight.step(BLIND, still=False)
    flight.velocity_mps = honest
    flight.place_m = place_m + honest * PERIOD_S
    fix = flight.step()
    assert fix.state is State.TRACK
    assert flight.error_m(fix) < 10


def expected_next(flight: Flight) -> Expected:
    t = flight.t + PERIOD_S
    sample = Sample(Attitude(0.0, 0.0, 0.0, AGL_M), t=t)
    return flight.tracker.expect(Frame(flight.index, t, None, "", 640, 480, 0.0), sample)


def test_where_the_drone_is_well_known_no_other_place_is_looked_at_but_now_and_then() -> None:
    flight = Flight(at_m=(-1500.0, -1500.0))
    assert expected_next(flight).within is None
    flight.fly(20)
    looks = []
    for _ in range(100):
        expected = expected_next(flight)
        looks.append(expected.within is not None)
        finding = flight.finding(flight.place_m + flight.velocity_mps * PERIOD_S)
        if (gate := expected.within) is not None:
            ahead = flight.place_m + flight.velocity_mps * PERIOD_S
            assert math.dist((gate.east_m, gate.north_m), tuple(ahead)) < gate.radius_m / 4
            assert gate.radius_m < 2 * FOOTPRINT_M
            assert finding.evidence is not None
            finding = replace(finding, evidence=replace(finding.evidence, within=gate))
        assert flight.step(finding).state is State.TRACK
    assert 0.7 < np.mean(looks) < 1
    flight.step(BLIND)
    assert expected_next(flight).within is None
    assert expected_next(flight).near is not None


# ---- heading and height that telemetry does not tell ---------------------------------------------


def under(flight: Flight, yaw_deg: float, agl_m: float = AGL_M) -> Finding:
    """A frame that fits one heading, tried with all others."""
    finding = flight.finding(flight.place_m)
    foreign = flight.finding(None).evidence
    assert finding.evidence is not None and finding.plan is not None and foreign is not None
    right = Attitude(yaw_deg, 0.0, 0.0, agl_m)
    seen = []
    for number in range(16):
        evidence = finding.evidence if number == round(yaw_deg / 22.5) % 16 else foreign
        middle = Evidence(
            *(getattr(evidence, n)[:1] for n in ("ids", "scores", "tiles_m", "offsets_m"))
        )
        seen.append(Seen(replace(right, yaw_deg=22.5 * number), finding.plan, middle))
    return replace(finding, attitude=right, seen=tuple(seen))


def test_a_heading_that_was_found_is_told_and_expected_of_the_next_frame() -> None:
    flight = Flight()
    flight.unknown = ("yaw",)
    frame = Frame(0, 100.0, None, "", 640, 480, 0.0)
    nothing = Sample(Attitude(0.0, 0.0, 0.0, AGL_M), yaw_known=False)
    assert flight.tracker.expect(frame, nothing).yaw_deg is None
    fixes = []
    while not fixes or fixes[-1].state is not State.TRACK:
        fixes.append(flight.step(under(flight, 50.0)))
    assert len(fixes) <= 16
    for _ in range(20):
        fix = flight.step(under(flight, 50.0))
        assert (fix.state, fix.heading_deg) == (State.TRACK, 50.0)
        assert flight.error_m(fix) < 10
    expected = flight.tracker.expect(replace(frame, t=flight.t + PERIOD_S), nothing)
    assert expected.yaw_deg == 50.0
    # Three seconds on it may have turned by more than the headings around it serve.
    assert flight.tracker.expect(replace(frame, t=flight.t + 3.0), nothing).yaw_deg is None
    ahead = flight.place_m + flight.velocity_mps * PERIOD_S
    assert math.dist((expected.near.east_m, expected.near.north_m), tuple(ahead)) < 8
    # A glimpse of fog changes nothing, a second of it everything but the place.
    flight.step(BLIND)
    assert flight.tracker.expect(frame, nothing).yaw_deg == 50.0
    flight.fly(1.5, finding=BLIND)
    fix = flight.step(BLIND)
    assert (fix.state, fix.heading_deg) == (State.DEGRADED, None)
    again = flight.tracker.expect(replace(frame, t=flight.t), nothing)
    assert (again.yaw_deg, again.near is None) == (None, False)


def test_a_height_that_was_found_is_told_as_the_fixs_own() -> None:
    flight = Flight()
    flight.unknown = ("agl",)
    fix = flight.fly(15)[-1]
    assert fix.state is State.TRACK
    fix = flight.step(under(flight, 0.0, agl_m=77.0))
    assert (fix.heading_deg, fix.agl_m) == (0.0, 77.0)
    assert flight.step(BLIND).agl_m == 77.0


def test_a_compass_that_fails_in_flight_costs_no_position() -> None:
    flight = Flight()
    flight.fly(20)
    flight.unknown = ("yaw",)
    for _ in range(10):
        fix = flight.step(under(flight, 50.0))
        assert fix.state is State.TRACK
        assert flight.error_m(fix) < 8
    flight.unknown = ()
    fix = flight.step()
    assert fix.state is State.TRACK
    assert abs(turn_deg(fix.heading_deg)) < 2  # told as 0


def test_a_heading_guessed_anew_corrects_nothing_unless_the_frame_is_sure_by_itself() -> None:
    flight = Flight()
    flight.fly(20)
    flight.unknown = ("yaw",)
    finding = under(flight, 50.0)
    assert finding.estimate is not None
    doubtful = replace(finding.estimate, mass=0.4)
    doubted = replace(finding, estimate=doubtful, reason=Reason.AMBIGUOUS)
    fix = flight.step(doubted)
    assert (fix.state, fix.heading_deg) == (State.DEGRADED, None)
    assert flight.step(under(flight, 50.0)).state is State.TRACK
    # Of a heading known from the frame before a glimpse is enough.
    assert flight.step(doubted).state is State.TRACK
    assert flight.tracker.track is not None and flight.tracker.track.held > 0.99
    nothing = Sample(Attitude(0.0, 0.0, 0.0, AGL_M), t=flight.t + PERIOD_S, yaw_known=False)
    frame = Frame(0, nothing.t, None, "", 640, 480, 0.0)
    assert flight.tracker.expect(frame, nothing).within is None


def test_an_unknown_tilt_is_never_averaged_away() -> None:
    flight = Flight()
    flight.unknown = ("tilt",)
    fix = flight.fly(60)[-1]
    assert fix.state is State.TRACK
    assert fix.sigma_m > math.tan(math.radians(5)) * AGL_M


class OnTheMap:
    """Registration that knows the place of every view, or finds its file damaged."""

    def __init__(self, flight: Flight, damaged: bool = False) -> None:
        self.flight, self.damaged = flight, damaged
        self.asked_t: list[float] = []
        self.is_possible = True

    def close(self) -> None:
        self.is_possible = False

    def register(self, view: Any, footprint_m: float, near_m: Any, reach_m: float) -> Registered:
        self.asked_t.append(self.flight.t)
        if self.damaged:
            raise IntegrityError("region.s4gpack: tile 3 of the imagery is damaged")
        assert math.dist(near_m, self.flight.place_m) <= reach_m
        return Registered(self.flight.place_m.copy(), 0.2, 0.9, 0.1, 0.0, 1.0)


def fly_on_imagery(flight: Flight, registration: OnTheMap) -> list[Fix]:
    flight.tracker._registration = registration  # type: ignore[assignment]
    view = View(np.zeros((8, 8, 3), np.uint8), FOOTPRINT_M, np.zeros(2), AGL_M)
    fixes = []
    for _ in range(60):
        place_m = flight.place_m + flight.velocity_mps * PERIOD_S
        fixes.append(flight.step(replace(flight.finding(place_m), view=view)))
    return fixes


def test_frames_that_lie_on_the_packs_imagery_are_known_better_than_by_tiles() -> None:
    by_tiles, by_imagery = Flight(), Flight()
    by_tiles.fly(10)
    by_imagery.fly(10)
    plain = [by_tiles.error_m(by_tiles.step()) for _ in range(60)]
    fixes = fly_on_imagery(by_imagery, OnTheMap(by_imagery))
    assert by_imagery.error_m(fixes[-1]) < 1 < max(plain)
    assert fixes[-1].source == "visual"


def test_frames_are_laid_on_imagery_about_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    flight = Flight()
    flight.fly(10)
    monkeypatch.setattr(sys.modules[__name__], "PERIOD_S", 0.1)
    registration = OnTheMap(flight)
    fly_on_imagery(flight, registration)
    assert np.diff(registration.asked_t) == pytest.approx(0.5, abs=0.01)


def test_imagery_that_is_damaged_in_flight_is_told_once_and_costs_no_fix(capsys: Any) -> None:
    flight = Flight()
    flight.fly(10)
    registration = OnTheMap(flight, damaged=True)
    fixes = fly_on_imagery(flight, registration)
    assert {fix.state for fix in fixes} == {State.TRACK}
    assert len(registration.asked_t) == 1
    assert capsys.readouterr().err == (
        "note: region.s4gpack: tile 3 of the imagery is damaged; frames are laid on imagery no "
        "more\n"
    )


def turn_deg(heading_deg: float | None) -> float:
    assert heading_deg is not None
    return (heading_deg + 180.0) % 360.0 - 180.0


def test_a_compass_and_a_height_that_are_off_are_put_right_by_what_frames_show() -> None:
    flight = Flight()
    for _ in range(60):
        correction = expected_next(flight).correction
        # The nose points 8 degrees more to the east than is told, from 0.8 of the height.
        left_deg, left = 8.0 - correction.turn_deg, 0.8 / correction.height_factor
        ahead_m = flight.place_m + flight.velocity_mps * PERIOD_S * bool(flight.index)
        fix = flight.step(flight.finding(ahead_m, cmath.rect(left, -math.radians(left_deg))))
    assert turn_deg(fix.heading_deg) == pytest.approx(8.0, abs=2.0)
    assert fix.agl_m == pytest.approx(0.8 * AGL_M, rel=0.04)
    assert flight.error_m(fix) < 8


def test_a_heading_that_nobody_tells_teaches_nothing_about_the_compass() -> None:
    flight = Flight()
    flight.unknown = ("yaw", "agl")
    for _ in range(40):
        ahead_m = flight.place_m + flight.velocity_mps * PERIOD_S * bool(flight.index)
        finding = flight.finding(ahead_m, cmath.rect(0.8, -math.radians(8.0)))
        flight.step(replace(finding, seen=under(flight, 0.0).seen))
    assert expected_next(flight).correction == Correction()


def test_a_frame_is_compared_with_the_whole_pack_each_second_and_when_it_seems_less_like() -> None:
    flight = Flight()
    flight.fly(10)
    sure = []
    for _ in range(8):
        gate = expected_next(flight).within
        assert gate is not None
        sure.append(gate.sure_score)
        flight.step()
    assert sure.count(math.inf) == round(8 * PERIOD_S / 1.0)
    usual = [score for score in sure if score < math.inf]
    best = flight.finding(flight.place_m).evidence
    assert best is not None
    assert all(abs(score + 0.05 - best.scores[0, 0]) < 0.1 for score in usual)


def test_a_tilt_that_was_told_a_while_ago_makes_a_position_less_sure() -> None:
    level = Sample(LEVEL)
    assert unknown_tilt_m(level, 100.0) == 0.0
    swayed_m = unknown_tilt_m(replace(level, age_s=0.5), 100.0)
    assert swayed_m == pytest.approx(100.0 * math.tan(math.radians(2.5)))
    untold_m = unknown_tilt_m(replace(level, tilt_known=False), 100.0)
    assert unknown_tilt_m(replace(level, age_s=9.0), 100.0) == untold_m


def test_a_hovering_drone_that_was_carried_away_is_found_after_ten_seconds_and_not_before() -> None:
    flight = Flight()
    flight.step()
    fixes = flight.fly(12, still=True)
    assert fixes[-1].state is State.TRACK
    flight.place_m = flight.place_m + [500.0, 0.0]
    fixes = flight.fly(20, still=True)
    first = next(i for i, fix in enumerate(fixes) if fix.lat is not None)
    assert first == round(10 / PERIOD_S)
    assert all(flight.error_m(fix) < 8 for fix in fixes[first:])
    assert flight.tracker.resets == 1
