import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from s4g.core.camera import Attitude, Camera
from s4g.core.engine import Embeddings, Images, load_engine
from s4g.core.errors import InputError
from s4g.core.geo import distance_m
from s4g.core.warp import FrameWarp, cut_with_opencv
from s4g.runtime import localise, locate, pipeline
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.frames import Frame, Outage, PhotoFiles
from s4g.runtime.hypotheses import Expected
from s4g.runtime.intrinsics import Lens
from s4g.runtime.locate import Estimate, Evidence, Gate
from s4g.runtime.normalise import PatchPlan
from s4g.runtime.odometry import Step
from s4g.runtime.pipeline import Finding, FixMaker, Localiser, Pace, StageClock, run_frames
from s4g.runtime.score import read_truth
from s4g.runtime.telemetry import Sample, read_telemetry
from s4g.tilepacks.reader import Pack, open_pack


@pytest.fixture
def pack(toy_pack: Path) -> Pack:
    return open_pack(toy_pack)


@pytest.fixture
def localiser(pack: Pack, toy_encoder: Path) -> Localiser:
    return Localiser(pack, load_engine(toy_encoder, "cpu", 1), Lens(60.0), level_m=48.0)


def fly(pack: Pack, localiser: Localiser, flight, **more) -> list[tuple[Fix, dict[str, float]]]:
    telemetry = read_telemetry(flight.telemetry)
    maker = FixMaker(pack, diagnostics=True)
    return list(run_frames(PhotoFiles(flight.photos), telemetry, localiser, maker, **more))


def test_photos_are_localised_where_they_were_taken(pack, localiser, toy_flight) -> None:
    truth = read_truth(toy_flight.truth)
    results = fly(pack, localiser, toy_flight)
    assert [fix.state for fix, _ in results] == [State.TRACK] * 6
    for fix, _ in results:
        lat, lon = truth.at(fix.file, fix.t)
        assert float(distance_m(fix.lat, fix.lon, lat, lon)) < 5.0
        assert fix.sigma_m > 0
        assert fix.anchor_age_s == 0.0
        assert fix.source == "visual"


def test_every_stage_is_timed(pack, localiser, toy_flight) -> None:
    (fix, stages), *_ = fly(pack, localiser, toy_flight, max_frames=1)
    names = ["plan", "decode", "normalise", "embed", "search", "locate", "total"]
    assert list(stages) == names
    assert fix.latency_ms == stages["total"]
    assert sum(stages[name] for name in names[:-1]) <= stages["total"] + 1


def test_the_same_frames_give_the_same_fixes(pack, localiser, toy_flight) -> None:
    def lines() -> list[dict[str, object]]:
        values = [json.loads(fix.to_json()) for fix, _ in fly(pack, localiser, toy_flight)]
        return [{k: v for k, v in value.items() if k != "latency_ms"} for value in values]

    assert lines() == lines()


def test_max_frames_ends_the_run(pack, localiser, toy_flight) -> None:
    assert len(fly(pack, localiser, toy_flight, max_frames=2)) == 2


def test_the_level_is_chosen_by_height_unless_it_is_fixed(pack, toy_encoder, toy_flight) -> None:
    engine = load_engine(toy_encoder, "cpu", 1)
    for level_m, used_m in ((None, 48.0), (64.0, 64.0)):
        results = fly(pack, Localiser(pack, engine, Lens(60.0), level_m), toy_flight)
        assert {fix.top[0].level_m for fix, _ in results} == {used_m}


def test_more_patches_are_matched_only_where_the_first_leave_doubt(
    pack, localiser, toy_flight, monkeypatch
) -> None:
    def patches(sure: float) -> list[int]:
        monkeypatch.setattr(locate, "SURE_MASS", sure)
        return [fix.diagnostics.patches for fix, _ in fly(pack, localiser, toy_flight)]

    assert patches(0.0) == [5] * 6
    assert all(count > 5 for count in patches(1.1))


def test_each_patch_is_searched_as_the_place_it_shows(
    pack, localiser, toy_flight, monkeypatch
) -> None:
    monkeypatch.setattr(locate, "SURE_MASS", 1.1)  # all patches are matched, in two parts
    frame = next(PhotoFiles(toy_flight.photos).frames())
    sample = read_telemetry(toy_flight.telemetry).at(frame)
    finding = localiser.find(frame, sample, pipeline.StageClock())
    assert len(finding.plan.centers_m) > 5
    assert np.array_equal(finding.evidence.offsets_m, finding.plan.centers_m)


def test_finer_tiles_are_tried_where_coarser_ones_leave_doubt(
    pack, toy_encoder, toy_flight, monkeypatch
) -> None:
    """Tiles of 64 m are taken first here and match nothing; those of 48 m do."""
    coarse = [level.footprint_m for level in pack.levels].index(64.0)
    plan, match = localise.plan_patches, localise.locate

    def plan_coarse(*arguments):
        *others, level = arguments
        return plan(*others, coarse if level is None else level)

    def doubt_coarse(evidence, footprint_m, *others):
        estimate = match(evidence, footprint_m, *others)
        return dataclasses.replace(estimate, mass=0.1) if footprint_m == 64.0 else estimate

    monkeypatch.setattr(localise, "plan_patches", plan_coarse)
    monkeypatch.setattr(localise, "locate", doubt_coarse)
    engine = load_engine(toy_encoder, "cpu", 1)
    results = fly(pack, Localiser(pack, engine, Lens(60.0)), toy_flight)
    assert [(fix.state, fix.top[0].level_m) for fix, _ in results] == [(State.TRACK, 48.0)] * 6
    fixed = fly(pack, Localiser(pack, engine, Lens(60.0), level_m=64.0), toy_flight)
    assert [fix.reason for fix, _ in fixed] == [Reason.AMBIGUOUS] * 6


class EngineOfFrames:
    """An engine that cuts patches itself, as one on a GPU does: with OpenCV, on the CPU."""

    backend = "double"

    def __init__(self, path: Path) -> None:
        self._engine = load_engine(path, "cpu", 1)
        self.spec, self.name = self._engine.spec, self._engine.name
        self.frames: list[tuple[int, bool]] = []  # patches cut, whether they were wanted back
        self.images = 0

    def embed(self, images: Images) -> Embeddings:
        self.images += len(images)
        return self._engine.embed(images)

    def embed_frame(
        self, frame: Images, warps: Sequence[FrameWarp], patches: Images | None = None
    ) -> Embeddings:
        cut = np.stack([cut_with_opencv(frame, warp) for warp in warps])
        self.frames.append((len(warps), patches is not None))
        if patches is not None:
            patches[: len(cut)] = cut
        return self._engine.embed(cut)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture
def engine_of_frames(toy_encoder: Path) -> EngineOfFrames:
    return EngineOfFrames(toy_encoder)


def test_an_engine_that_takes_frames_gets_frames_and_gives_the_same_fixes(
    pack, localiser, engine_of_frames, toy_flight
) -> None:
    other = Localiser(pack, engine_of_frames, Lens(60.0), level_m=48.0)
    warm = len(engine_of_frames.frames), engine_of_frames.images

    def fixes(of: Localiser) -> list[Fix]:
        return [dataclasses.replace(fix, latency_ms=0.0) for fix, _ in fly(pack, of, toy_flight)]

    assert fixes(other) == fixes(localiser)
    assert engine_of_frames.frames[warm[0] :] == [(5, True)] * 6
    assert engine_of_frames.images == warm[1]


def test_only_the_first_patches_come_back_to_be_judged(
    pack, engine_of_frames, toy_flight, monkeypatch
) -> None:
    monkeypatch.setattr(locate, "SURE_MASS", 1.1)  # doubt remains
    localiser = Localiser(pack, engine_of_frames, Lens(60.0), level_m=48.0)
    engine_of_frames.frames.clear()
    fly(pack, localiser, toy_flight, max_frames=1)
    (first, back), (more, again) = engine_of_frames.frames
    assert (first, back, again) == (5, True, False)
    assert more > 0


def test_an_engine_on_a_gpu_is_run_at_every_size_before_the_first_frame(
    pack, engine_of_frames
) -> None:
    """Its kernel is compiled then and each size is recorded, and not while the drone waits."""
    Localiser(pack, engine_of_frames, Lens(60.0))
    assert engine_of_frames.frames == [(n, False) for n in range(1, 9) for _ in range(2)]
    engine_of_frames.frames.clear()
    Localiser(pack, engine_of_frames, Lens(60.0), max_patches=3)
    assert [n for n, _ in engine_of_frames.frames] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("backend", "sizes"),
    [("onnxruntime cpu", [5]), ("onnxruntime cuda", [n for n in range(1, 9) for _ in range(2)])],
)
def test_an_engine_that_takes_no_frames_is_run_as_its_hardware_needs(
    pack, toy_encoder, backend, sizes, monkeypatch
) -> None:
    engine = load_engine(toy_encoder, "cpu", 1)
    seen: list[int] = []
    monkeypatch.setattr(engine, "backend", backend)
    monkeypatch.setattr(engine, "embed", lambda images: seen.append(len(images)))
    Localiser(pack, engine, Lens(60.0))
    assert seen == sizes


def test_no_frame_asks_for_a_size_that_was_not_prepared(
    pack, engine_of_frames, toy_flight, monkeypatch
) -> None:
    monkeypatch.setattr(locate, "SURE_MASS", 1.1)  # doubt remains: all patches are asked for
    localiser = Localiser(pack, engine_of_frames, Lens(60.0))
    prepared = {n for n, _ in engine_of_frames.frames}
    engine_of_frames.frames.clear()
    fly(pack, localiser, toy_flight)
    asked = {n for n, _ in engine_of_frames.frames}
    assert len(asked) > 1 and asked <= prepared


def test_a_frame_that_shows_nothing_gives_no_fix_with_any_engine(pack, engine_of_frames) -> None:
    localiser = Localiser(pack, engine_of_frames, Lens(60.0), level_m=48.0)
    finding = localiser.find(black(), sample(), pipeline.StageClock())
    assert finding.reason is Reason.DARK


def test_stages_are_timed_in_the_same_order_with_any_engine(
    pack, engine_of_frames, toy_flight
) -> None:
    localiser = Localiser(pack, engine_of_frames, Lens(60.0), level_m=48.0)
    (_, stages), *_ = fly(pack, localiser, toy_flight, max_frames=1)
    names = ["plan", "decode", "normalise", "embed", "search", "locate", "total"]
    assert list(stages) == names


def test_a_level_that_the_pack_lacks_is_refused(pack, toy_encoder) -> None:
    with pytest.raises(InputError) as error:
        Localiser(pack, load_engine(toy_encoder, "cpu", 1), Lens(60.0), level_m=99.0)
    assert str(error.value) == (
        f"--level 99: {pack.path} has levels of 48, 64 m; choose one of them"
    )


def sample(agl_m: float = 100.0, pitch_deg: float = 0.0) -> Sample:
    return Sample(Attitude(0.0, pitch_deg, 0.0, agl_m))


def black(index: int = 0, t: float | None = 0.0) -> Frame:
    picture = np.zeros((240, 320, 3), np.uint8)
    return Frame(index, t, None, f"frame {index}", 320, 240, time.monotonic(), decoded=picture)


@pytest.mark.parametrize(
    ("telemetry", "reason"),
    [
        (sample(), Reason.DARK),
        (sample(agl_m=0.0), Reason.NO_HEIGHT),
        (sample(agl_m=10.0), Reason.TOO_LOW),
        (sample(pitch_deg=40.0), Reason.TILT),
    ],
)
def test_a_frame_that_cannot_serve_gives_no_fix_and_the_reason(
    pack, localiser, telemetry, reason
) -> None:
    finding = localiser.find(black(), telemetry, pipeline.StageClock())
    fix = FixMaker(pack).fix(black(), telemetry, finding)
    assert (fix.state, fix.reason) == (State.NO_FIX, reason)
    assert (fix.lat, fix.lon, fix.sigma_m, fix.hpl_m, fix.source) == (None,) * 5


def finding(east_m: float, mass: float = 0.9, reason: Reason | None = None) -> Finding:
    estimate = Estimate(east_m, 0.0, mass, 3.0, 4.0, 15.0)
    evidence = Evidence(
        np.array([[0, 1]]),
        np.array([[0.9, 0.8]], np.float32),
        np.zeros((1, 2, 2)),
        np.zeros((1, 2)),
    )
    attitude = sample().attitude
    return Finding(PatchPlan(0, 48.0, np.zeros((1, 2))), evidence, estimate, reason, attitude)


def test_an_ambiguous_match_shows_its_candidates_and_withholds_the_position(pack) -> None:
    fix = FixMaker(pack).fix(black(), sample(), finding(0.0, 0.3, Reason.AMBIGUOUS))
    assert (fix.state, fix.reason, fix.lat) == (State.NO_FIX, Reason.AMBIGUOUS, None)
    assert len(fix.top) == 2
    assert fix.diagnostics is None


def test_ground_beyond_the_region_is_out_of_pack(pack) -> None:
    fix = FixMaker(pack).fix(black(), sample(), finding(500.0))
    assert (fix.state, fix.lat, fix.reason) == (State.OUT_OF_PACK, None, None)


def test_the_anchor_ages_while_there_is_no_fix(pack) -> None:
    maker = FixMaker(pack)
    assert (
        maker.fix(black(0, 1.0), sample(), finding(0, 0.1, Reason.AMBIGUOUS)).anchor_age_s is None
    )
    assert maker.fix(black(1, 2.0), sample(), finding(0)).anchor_age_s == 0.0
    lost = maker.fix(black(2, 4.5), sample(), finding(0, 0.1, Reason.AMBIGUOUS))
    assert lost.anchor_age_s == 2.5


def test_realtime_holds_files_back_and_latency_starts_when_their_time_has_come() -> None:
    pace = Pace()
    first = pace.hold(black(0, 10.0), 10.0)
    began = time.monotonic()
    second = pace.hold(black(1, 10.2), 10.2)
    assert time.monotonic() - began > 0.1
    assert second.arrived_s > first.arrived_s + 0.1


def test_realtime_needs_times() -> None:
    with pytest.raises(InputError) as error:
        Pace().hold(black(3, None), None)
    assert str(error.value) == (
        "--realtime: frame 3 has no time; add a 't' column to the telemetry"
    )


def test_a_frame_that_the_telemetry_does_not_cover_has_no_fix(pack, localiser, toy_flight) -> None:
    whole = read_telemetry(toy_flight.telemetry)
    rows = {k: v for k, v in whole.row_of_file.items() if k != "photo_3.jpg"}
    telemetry = dataclasses.replace(whole, row_of_file=rows)
    results = list(run_frames(PhotoFiles(toy_flight.photos), telemetry, localiser, FixMaker(pack)))
    reasons = [fix.reason for fix, _ in results]
    assert reasons == [None, None, None, Reason.NO_TELEMETRY, None, None]
    assert results[3][1] == {}


def test_how_the_drone_moved_is_looked_for_where_that_is_asked_for(
    pack, localiser, toy_flight, monkeypatch
) -> None:
    asked = []
    step = Step(2.0, np.array([24.0, 8.0]), 1.0, 0.0)
    seen = SimpleNamespace(
        step=lambda t, view, *how: (asked.append((t, view.copy(), *how)), step)[1]
    )
    monkeypatch.setattr(localiser, "_odometry", seen)
    telemetry = read_telemetry(toy_flight.telemetry)
    clock = pipeline.StageClock()
    for frame in PhotoFiles(toy_flight.photos).frames():
        sample = telemetry.at(frame)
        assert localiser.find(frame, sample, clock).step is None
        finding = localiser.find(frame, sample, clock, Expected(moves=True))
        assert finding.step is step
    assert [t for t, *_ in asked] == [0, 2, 4, 6, 8, 10]
    t, view, footprint_m, center_m, agl_m, yaw_known = asked[-1]
    assert (view.shape, footprint_m, agl_m, yaw_known) == ((64, 64, 3), 48.0, 100.0, True)
    assert view.std() > 10
    assert np.array_equal(center_m, finding.plan.centers_m[0])


class Lacking:
    """Telemetry that does not tell everything, and has zeros there."""

    def __init__(self, flight, *names: str) -> None:
        self.whole = read_telemetry(flight.telemetry)
        self.unknown = {f"{name}_known": False for name in names}
        fields = {"yaw": ["yaw_deg"], "tilt": ["pitch_deg", "roll_deg"], "agl": ["agl_m"]}
        self.zeros = {field: 0.0 for name in names for field in fields[name]}

    def at(self, frame: Frame) -> Sample:
        sample = self.whole.at(frame)
        attitude = dataclasses.replace(sample.attitude, **self.zeros)
        return dataclasses.replace(sample, attitude=attitude, **self.unknown)


@pytest.mark.parametrize("lacking", [("yaw",), ("agl",), ("yaw", "agl")])
def test_what_telemetry_does_not_tell_is_found_in_the_frame(
    pack, localiser, toy_flight, lacking
) -> None:
    truth = read_truth(toy_flight.truth)
    photos, telemetry = PhotoFiles(toy_flight.photos), Lacking(toy_flight, *lacking)
    results = list(run_frames(photos, telemetry, localiser, FixMaker(pack)))
    found = [fix for fix, _ in results if fix.state is State.TRACK]
    assert len(found) >= 3
    for fix in found:
        number = fix.frame
        away_deg = (fix.heading_deg - 340 - 12 * number + 180) % 360 - 180
        assert abs(away_deg) < 12
        assert fix.agl_m == pytest.approx(100, rel=0.15)
        lat, lon = truth.at(fix.file, fix.t)
        assert float(distance_m(fix.lat, fix.lon, lat, lon)) < 6


def test_an_unknown_tilt_is_supposed_to_be_none_and_makes_positions_less_sure(
    pack, localiser, toy_flight
) -> None:
    known = fly(pack, localiser, toy_flight, max_frames=1)[0][0]
    photos, telemetry = PhotoFiles(toy_flight.photos), Lacking(toy_flight, "tilt")
    fix, _ = next(run_frames(photos, telemetry, localiser, FixMaker(pack)))
    assert fix.state is State.TRACK
    five_degrees_m = math.tan(math.radians(5)) * 100
    assert fix.sigma_m == pytest.approx(math.hypot(known.sigma_m, five_degrees_m), rel=0.05)
    assert fix.hpl_m == pytest.approx(3.72 * fix.sigma_m)


def test_what_is_not_found_is_not_made_up(pack, localiser, toy_flight, monkeypatch) -> None:
    monkeypatch.setattr(localise, "_WORTH_MORE", 2.0)
    photos, telemetry = PhotoFiles(toy_flight.photos), Lacking(toy_flight, "yaw", "agl")
    fix, _ = next(run_frames(photos, telemetry, localiser, FixMaker(pack)))
    assert (fix.state, fix.reason) == (State.NO_FIX, Reason.AMBIGUOUS)
    assert (fix.lat, fix.heading_deg, fix.agl_m) == (None, None, None)
    assert len(fix.top) == 5


@pytest.mark.parametrize("field", ["yaw_deg", "pitch_deg", "roll_deg", "agl_m"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_attitude_that_is_no_number_is_none(pack, localiser, toy_flight, field, value) -> None:
    class Broken:
        def at(self, frame: Frame) -> Sample:
            attitude = dataclasses.replace(sample().attitude, **{field: value})
            return Sample(attitude)

    results = run_frames(PhotoFiles(toy_flight.photos), Broken(), localiser, FixMaker(pack))
    fix, _ = next(results)
    assert (fix.state, fix.reason, fix.lat) == (State.NO_FIX, Reason.NO_TELEMETRY, None)
    assert (fix.heading_deg, fix.agl_m) == (None, None)


def test_a_live_frame_of_another_shape_has_no_fix_and_that_is_said_once(
    pack, toy_encoder, toy_flight, capsys
) -> None:
    lens = Lens(camera=Camera.from_hfov(640, 640, 60.0))
    engine = load_engine(toy_encoder, "cpu", 1)
    localiser = Localiser(pack, engine, lens, live=True)
    results = fly(pack, localiser, toy_flight)
    assert {(fix.state, fix.reason) for fix, _ in results} == {(State.NO_FIX, Reason.FRAME_SIZE)}
    assert capsys.readouterr().err == (
        f"{toy_flight.photos}/photo_0.jpg: frame of 320x240 px, camera calibrated at 640x640: the "
        "aspect ratio differs; calibrate at the frame's own size; there is no fix until then\n"
    )
    with pytest.raises(InputError, match="the aspect ratio differs"):
        fly(pack, Localiser(pack, engine, lens), toy_flight)
    with pytest.raises(InputError, match="field of view is unknown"):
        fly(pack, Localiser(pack, engine, Lens(), live=True), toy_flight)


def test_a_camera_that_shows_nothing_gives_no_fix(pack, localiser, toy_flight) -> None:
    class Dead:
        def frames(self):
            yield Outage(7.0, 7.0, "no frame for 1.0 s")

    telemetry = read_telemetry(toy_flight.telemetry)
    ((fix, stages),) = run_frames(Dead(), telemetry, localiser, FixMaker(pack))
    assert (fix.state, fix.reason, fix.t, stages) == (State.NO_FIX, Reason.NO_FRAMES, 7.0, {})


def gated(
    pack, localiser, flight, away_m: float, sure_score: float = math.inf
) -> tuple[Finding, Gate]:
    """Match the flight's first frame, looking for it alone within 30 m of a place east of it."""
    frame = next(iter(PhotoFiles(flight.photos).frames()))
    sample = read_telemetry(flight.telemetry).at(frame)
    assert not isinstance(sample, Reason)
    lat, lon = read_truth(flight.truth).at(frame.file, frame.t)
    east_m, north_m = (float(v) for v in pack.frame.to_local(lat, lon))
    gate = Gate(east_m + away_m, north_m, 30.0, sure_score)
    return localiser.find(frame, sample, StageClock(), Expected(near=gate, only_near=True)), gate


def test_a_frame_that_matches_where_it_is_expected_is_looked_for_nowhere_else(
    pack, localiser, toy_flight
) -> None:
    finding, gate = gated(pack, localiser, toy_flight, 0.0)
    assert finding.reason is None
    assert finding.evidence.within == gate


def test_a_frame_that_does_not_match_where_it_is_expected_is_looked_for_everywhere_at_once(
    pack, localiser, toy_flight
) -> None:
    finding, gate = gated(pack, localiser, toy_flight, -120.0)
    assert finding.reason is None
    assert finding.evidence.within is None
    found_m = math.dist(
        (finding.estimate.east_m, finding.estimate.north_m), (gate.east_m, gate.north_m)
    )
    assert found_m == pytest.approx(120.0, abs=5.0)


def test_a_frame_as_like_its_place_as_frames_usually_are_is_not_looked_up_elsewhere(
    pack, localiser, toy_flight
) -> None:
    finding, gate = gated(pack, localiser, toy_flight, -120.0, sure_score=-1.0)
    assert finding.evidence.within == gate
