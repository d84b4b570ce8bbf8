import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest

from s4g.core.camera import Attitude
from s4g.core.engine import load_engine
from s4g.core.errors import InputError
from s4g.core.geo import distance_m
from s4g.runtime import locate, pipeline
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.frames import Frame, PhotoFiles
from s4g.runtime.intrinsics import Lens
from s4g.runtime.locate import Estimate, Evidence
from s4g.runtime.normalise import PatchPlan
from s4g.runtime.pipeline import Finding, FixMaker, Localiser, Pace, run_frames
from s4g.runtime.score import read_truth
from s4g.runtime.telemetry import CsvTelemetry, Sample, read_telemetry
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


def test_finer_tiles_are_tried_where_coarser_ones_leave_doubt(
    pack, toy_encoder, toy_flight, monkeypatch
) -> None:
    """Tiles of 64 m are taken first here and match nothing; those of 48 m do."""
    coarse = [level.footprint_m for level in pack.levels].index(64.0)
    plan, match = pipeline.plan_patches, pipeline.locate

    def plan_coarse(*arguments):
        *others, level = arguments
        return plan(*others, coarse if level is None else level)

    def doubt_coarse(evidence, footprint_m, *others):
        estimate = match(evidence, footprint_m, *others)
        return dataclasses.replace(estimate, mass=0.1) if footprint_m == 64.0 else estimate

    monkeypatch.setattr(pipeline, "plan_patches", plan_coarse)
    monkeypatch.setattr(pipeline, "locate", doubt_coarse)
    engine = load_engine(toy_encoder, "cpu", 1)
    results = fly(pack, Localiser(pack, engine, Lens(60.0)), toy_flight)
    assert [(fix.state, fix.top[0].level_m) for fix, _ in results] == [(State.TRACK, 48.0)] * 6
    fixed = fly(pack, Localiser(pack, engine, Lens(60.0), level_m=64.0), toy_flight)
    assert [fix.reason for fix, _ in fixed] == [Reason.AMBIGUOUS] * 6


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
    return Finding(PatchPlan(0, 48.0, np.zeros((1, 2))), evidence, estimate, reason)


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


def test_telemetry_that_does_not_cover_a_frame_names_it(pack, localiser, toy_flight) -> None:
    whole = read_telemetry(toy_flight.telemetry)
    rows = {k: v for k, v in whole.row_of_file.items() if k != "photo_3.jpg"}
    telemetry = CsvTelemetry("t.csv", whole.columns, rows)
    results = run_frames(PhotoFiles(toy_flight.photos), telemetry, localiser, FixMaker(pack))
    with pytest.raises(InputError) as error:
        list(results)
    assert str(error.value) == (
        "t.csv: has no row for frame photo_3.jpg; add it or remove the frame"
    )
