"""What viewers of a run are told, and what that costs the thread that matches frames."""

from __future__ import annotations

import dataclasses
import json
import runpy
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s4g.core.images import decode_rgb
from s4g.runtime.board import Reading
from s4g.runtime.fix import Reason, State
from s4g.runtime.localise import Finding, View
from s4g.runtime.locate import Evidence
from s4g.runtime.normalise import PatchPlan
from s4g.runtime.observe import Observation
from s4g.runtime.sink_hub import SinkStatus
from s4g.runtime.view_live import LiveView, Pace, board_values, outputs_values
from s4g.runtime.view_picture import frame_jpeg, view_jpeg
from s4g.tilepacks.reader import Pack, open_pack

pytest.importorskip("aiohttp", reason="the map needs aiohttp (the view extra)")
toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_view.py"))))


class Clock:
    """Shows what it is set to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def pack(toy_pack: Path) -> Iterator[Pack]:
    with open_pack(toy_pack) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(pack: Pack, clock: Clock) -> LiveView:
    return LiveView(pack, Pace.NONE, clock=clock)


def told(view: LiveView) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(view.message().text)
    return values


def test_before_the_first_frame_there_is_nothing_to_tell(view: LiveView) -> None:
    values = told(view)
    assert (values["fix"], values["age_s"], values["points"]) == (None, None, [])


def test_a_fix_is_told_as_it_is_written_to_a_log(view: LiveView, pack: Pack) -> None:
    made = toy.fix(pack, 3)
    view.observe(toy.seen(made))
    assert told(view)["fix"] == json.loads(made.to_json())


@pytest.mark.parametrize("state", [State.NO_FIX, State.OUT_OF_PACK, State.ACQUIRING, State.INIT])
def test_without_a_position_none_is_told(view: LiveView, pack: Pack, state: State) -> None:
    view.observe(toy.seen(toy.fix(pack, 0)))
    view.observe(toy.seen(toy.fix(pack, 1, state)))
    values = told(view)
    assert (values["fix"]["lat"], values["fix"]["lon"]) == (None, None)
    assert len(values["points"]) == 1


def test_news_are_told_once(view: LiveView, pack: Pack) -> None:
    for number in range(3):
        view.observe(toy.seen(toy.fix(pack, number)))
    first = told(view)
    view.observe(toy.seen(toy.fix(pack, 3, State.NO_FIX)))
    view.observe(toy.seen(toy.fix(pack, 4)))
    second = told(view)
    assert (first["told"], len(first["points"]), len(first["events"])) == ([0, 0, 3, 1], 3, 1)
    assert (second["told"], len(second["points"]), len(second["events"])) == ([3, 1, 4, 3], 1, 2)
    assert (told(view)["points"], told(view)["events"]) == ([], [])


def test_who_comes_later_is_told_what_was_said_before_and_no_more(
    view: LiveView, pack: Pack
) -> None:
    for number in range(5):
        view.observe(toy.seen(toy.fix(pack, number)))
    view.message()
    view.observe(toy.seen(toy.fix(pack, 5)))
    view.catch_up()
    past = json.loads(view.catching_up(2, 0).text)
    assert past["run"] == view.run
    assert (past["told"], len(past["points"]), len(past["events"])) == ([2, 0, 5, 1], 3, 1)


def test_the_age_of_a_fix_grows_while_none_comes(view: LiveView, pack: Pack, clock: Clock) -> None:
    view.observe(toy.seen(toy.fix(pack, 0)))
    clock.now_s += 2.5
    assert told(view)["age_s"] == 2.5


@dataclasses.dataclass
class Straight:
    """A track that goes on as it did."""

    pack: Pack
    t: float
    asked: list[float] = dataclasses.field(default_factory=list)

    def at(self, t: float) -> Any:
        self.asked.append(t)
        return toy.fix(self.pack, 7, State.DEGRADED, sigma_m=9.0, anchor_age_s=t - self.t)


@pytest.mark.parametrize(
    ("pace", "asked_s"), [(Pace.LIVE, 1000.5), (Pace.REAL_TIME, 100.5 + 0.020)]
)
def test_between_frames_it_is_told_where_the_drone_is_by_now(
    pack: Pack, clock: Clock, pace: Pace, asked_s: float
) -> None:
    view = LiveView(pack, pace, clock=clock)
    track: Any = Straight(pack, 100.0)
    view.observe(toy.seen(toy.fix(pack, 0), track=track))
    clock.now_s += 0.5
    now = told(view)["now"]
    assert track.asked == [pytest.approx(asked_s)]
    assert (now["state"], now["sigma_m"]) == ("DEGRADED", 9.0)


def test_a_fix_is_carried_on_for_two_seconds_and_no_longer(pack: Pack, clock: Clock) -> None:
    view = LiveView(pack, Pace.LIVE, clock=clock)
    view.observe(toy.seen(toy.fix(pack, 0), track=Straight(pack, 100.0)))
    clock.now_s += 2.0
    assert told(view)["now"] is not None
    clock.now_s += 0.01
    assert told(view)["now"] is None


def test_files_read_as_fast_as_they_can_be_are_not_carried_on(
    view: LiveView, pack: Pack, clock: Clock
) -> None:
    view.observe(toy.seen(toy.fix(pack, 0), track=Straight(pack, 100.0)))
    clock.now_s += 0.5
    assert told(view)["now"] is None


def test_pixels_are_kept_only_when_somebody_asks_and_then_once(view: LiveView, pack: Pack) -> None:
    view.observe(toy.seen(toy.fix(pack, 0)))
    assert view.picture is None
    view.ask_picture()
    view.observe(toy.seen(toy.fix(pack, 1)))
    view.observe(toy.seen(toy.fix(pack, 2)))
    assert view.picture is not None
    assert (view.picture.number, view.picture.frame) == (1, 1)
    assert told(view)["picture"] == {
        "number": 1, "frame": 1, "has_view": False, "footprint_m": None,
    }  # fmt: skip


def test_no_reference_to_a_frames_pixels_is_left_behind(view: LiveView, pack: Pack) -> None:
    made = toy.frame(0)
    rgb = np.zeros((8, 8, 3), np.uint8)
    finding = Finding(view=View(rgb, 48.0, np.zeros(2), 120.0))
    pixels = [weakref.ref(made.decoded), weakref.ref(rgb)]
    view.observe(Observation(toy.fix(pack, 0), {}, made, finding=finding))
    del made, rgb, finding
    assert [one() for one in pixels] == [None, None]


def test_what_was_kept_stays_when_the_frame_is_written_over(view: LiveView, pack: Pack) -> None:
    made = toy.frame(0, 64, 48)
    rgb = np.full((32, 32, 3), 200, np.uint8)
    finding = Finding(view=View(rgb, 48.0, np.zeros(2), 120.0))
    view.ask_picture()
    view.observe(Observation(toy.fix(pack, 0), {}, made, finding=finding))
    assert made.decoded is not None
    made.decoded[:], rgb[:] = 255, 0
    kept = view.picture
    assert kept is not None
    shown, middle = frame_jpeg(kept), view_jpeg(kept)
    assert shown is not None and middle is not None
    assert abs(decode_rgb(shown, "frame").mean() - 40) < 3
    assert abs(decode_rgb(middle, "view").mean() - 200) < 3
    assert told(view)["picture"]["footprint_m"] == 48.0


@pytest.mark.parametrize(
    ("size", "jpeg", "shown"),
    [
        ((1920, 1080), False, (640, 360)),
        ((1920, 1080), True, (640, 360)),
        ((5280, 3956), True, (640, 480)),
        ((320, 240), False, (320, 240)),
        ((320, 240), True, (320, 240)),
    ],
)
def test_pictures_are_small_and_keep_their_shape(
    view: LiveView, pack: Pack, size: tuple[int, int], jpeg: bool, shown: tuple[int, int]
) -> None:
    view.ask_picture()
    view.observe(toy.seen(toy.fix(pack, 0), frame=toy.frame(0, *size, jpeg)))
    assert view.picture is not None
    data = frame_jpeg(view.picture)
    assert data is not None
    assert decode_rgb(data, "frame").shape == (shown[1], shown[0], 3)


@pytest.mark.parametrize("length", [2, 50, 200])
def test_a_torn_picture_is_none(view: LiveView, pack: Pack, length: int) -> None:
    whole = toy.frame(0, 640, 480, True)
    broken = dataclasses.replace(whole, encoded=whole.encoded[:length])
    view.ask_picture()
    view.observe(toy.seen(toy.fix(pack, 0), frame=broken))
    assert view.picture is not None
    assert frame_jpeg(view.picture) is None


def test_a_time_without_a_frame_leaves_the_question_open(view: LiveView, pack: Pack) -> None:
    view.ask_picture()
    silent = toy.fix(pack, 0, State.NO_FIX, reason=Reason.NO_FRAMES, latency_ms=None)
    view.observe(Observation(silent, {}))
    assert view.picture is None
    view.observe(toy.seen(toy.fix(pack, 1)))
    assert view.picture is not None


def test_memory_does_not_grow_while_nobody_reads(view: LiveView, pack: Pack) -> None:
    made = toy.seen(toy.fix(pack, 0))
    for _ in range(10_000):
        view.observe(made)
    assert len(view._noted) == 4096


def test_where_a_frame_fits_is_told_once_and_the_likeliest_first(
    view: LiveView, pack: Pack
) -> None:
    ids = np.arange(6).reshape(1, 6)
    tiles_m = np.stack([np.arange(6) * 12.0, np.zeros(6)], axis=-1)[None]
    scores = np.array([[0.9, 0.8, 0.5, 0.3, 0.1, -1.0]], np.float32)
    evidence = Evidence(ids, scores, tiles_m, np.array([[3.0, 4.0]]))
    plan = PatchPlan(0, 48.0, np.zeros((1, 2)))
    view.observe(toy.seen(toy.fix(pack, 0), finding=Finding(plan, evidence)))
    surface = told(view)["surface"]
    lat, lon = pack.frame.to_wgs84(-3.0, -4.0)  # the drone, where the best tile is the middle
    assert surface["kernel_m"] == 12.0
    assert surface["points"][0] == [pytest.approx(lat, abs=1e-6), pytest.approx(lon, abs=1e-6), 1.0]
    shares = [point[2] for point in surface["points"]]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) < 6  # the filler of cosine -1 is no place
    assert "surface" not in told(view)


def test_counters_are_told_with_the_rest(pack: Pack) -> None:
    view = LiveView(pack, Pace.NONE, lambda: {"dropped": 7, "resets": 1})
    view.observe(toy.seen(toy.fix(pack, 0)))
    stats = told(view)["stats"]
    assert (stats["dropped"], stats["resets"], stats["frames"], stats["viewers"]) == (7, 1, 1, 0)
    assert stats["latency_ms"] == [20.0, 20.0]
    assert stats["stages_ms"] == {"total": 20.0}


def test_outputs_are_told_without_what_they_said_went_wrong() -> None:
    status = SinkStatus("nmea+tcp://127.0.0.1:1", "lost", 5, 2, 1, 0, "connection refused")
    assert outputs_values([status]) == [
        {"name": "nmea+tcp://127.0.0.1:1", "state": "lost", "sent": 5, "dropped": 2, "errors": 1}
    ]


def test_of_the_machine_only_what_is_known_is_told() -> None:
    assert board_values(None) == {}
    assert board_values(Reading(0.0)) == {"throttled": []}
    reading = Reading(0.0, None, {"tj": 81.26, "gpu": 70.0}, ("over-current",), 3, 0.5, "25W")
    assert board_values(reading) == {
        "throttled": ["over-current"], "hottest_c": 81.3, "power_mode": "25W", "gpu_load": 0.5,
    }  # fmt: skip


def test_every_reason_and_state_has_words_on_the_page() -> None:
    words = Path(__file__).parents[1] / "runtime" / "view" / "words.js"
    text = words.read_text(encoding="utf-8")
    assert [s.value for s in State if f"  {s.value}: {{" not in text] == []
    assert [r.value for r in Reason if f'  {r.value}: "' not in text] == []
