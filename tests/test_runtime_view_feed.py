"""The live map's news over real connections: to one viewer, to ten, to slow ones."""

from __future__ import annotations

import json
import runpy
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the map needs aiohttp (the view extra)")
from s4g.core.images import decode_rgb
from s4g.runtime import view_feed
from s4g.runtime.fix import Reason, State
from s4g.runtime.view_live import LiveView
from s4g.tilepacks.reader import Pack, open_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_view.py"))))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def pack(toy_pack: Path, stack: ExitStack) -> Pack:
    return stack.enter_context(open_pack(toy_pack))


@pytest.fixture
def served(stack: ExitStack, pack: Pack) -> Any:
    return toy.live(stack, pack)


def fly(served: Any, pack: Pack, first: int, end: int) -> None:
    for number in range(first, end):
        served.view.observe(toy.seen(toy.fix(pack, number)))


def has(count: int) -> Any:
    return lambda event: event.name == "state" and event.data["told"][2] >= count


def points_of(events: Any, count: int) -> list[list[float]]:
    """Return what a viewer is told until it was told of so many places."""
    told: list[list[float]] = []
    while True:
        event = events.next()
        told += event.data["points"]
        if event.data["told"][2] >= count and event.name == "state":
            return told


def test_a_viewer_is_told_what_was_and_then_what_is_new(served: Any, pack: Pack) -> None:
    fly(served, pack, 0, 3)
    with served.client.events() as events:
        assert len(points_of(events, 3)) == 3
        fly(served, pack, 3, 4)
        second = events.until(has(4))
        assert (second.data["told"], len(second.data["points"])) == ([3, 1, 4, 1], 1)
        assert second.data["fix"]["frame"] == 3


def test_news_come_while_nothing_happens_so_that_silence_means_a_broken_link(
    served: Any, pack: Pack
) -> None:
    fly(served, pack, 0, 1)
    with served.client.events() as events:
        ages = [events.until(has(1)).data["age_s"] for _ in range(5)]
    assert ages == sorted(ages) and ages[0] < ages[-1]


def test_who_comes_back_is_told_what_was_missed_and_nothing_twice(served: Any, pack: Pack) -> None:
    fly(served, pack, 0, 5)
    with served.client.events() as events:
        last = events.until(has(5))
    fly(served, pack, 5, 9)
    with served.client.events(Last_Event_ID=last.id) as events:
        told = points_of(events, 9)
    lons = [point[1] for point in told]
    assert len(lons) == 4 and lons == sorted(set(lons))


@pytest.mark.parametrize(
    "number", ["", "nonsense", "00000000-3-1", "RUN-99-1", "RUN-1-99", "RUN--1-0", "RUN-1-1; x"]
)
def test_a_number_of_another_run_or_none_at_all_begins_anew(
    served: Any, pack: Pack, number: str
) -> None:
    fly(served, pack, 0, 5)
    with served.client.events() as events:
        events.until(has(5))
    with served.client.events(Last_Event_ID=number.replace("RUN", served.view.run)) as events:
        past = events.next()
    assert past.name == "past"
    assert past.data["told"] == [0, 0, 5, 1]
    assert len(past.data["points"]) == 5


def test_state_and_reason_are_told_and_no_position_with_them(served: Any, pack: Pack) -> None:
    served.view.observe(toy.seen(toy.fix(pack, 0)))
    served.view.observe(toy.seen(toy.fix(pack, 1, State.NO_FIX, reason=Reason.DARK)))
    with served.client.events() as events:
        fix = events.until(has(1)).data["fix"]
    assert (fix["state"], fix["reason"], fix["lat"], fix["lon"]) == ("NO_FIX", "dark", None, None)


def test_ten_viewers_are_told_the_same_and_it_is_put_together_once(
    stack: ExitStack, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    message = LiveView.message

    def counted(view: LiveView) -> Any:
        made.append(message(view))
        return made[-1]

    monkeypatch.setattr(LiveView, "message", counted)
    served = toy.live(stack, pack)
    viewers = [stack.enter_context(served.client.events()) for _ in range(10)]
    toy.wait_until(lambda: served.view.viewers == 10)
    fly(served, pack, 0, 50)
    told = [viewer.until(has(50)) for viewer in viewers]
    assert {json.dumps(one.data["fix"]) for one in told} == {
        json.dumps(json.loads(toy.fix(pack, 49).to_json()))
    }
    # Each was put together once, whoever got it.
    assert len([one for one in made if one.points == (0, 50)]) <= 1
    assert len({one.points for one in made}) <= 51
    assert told[0].data["stats"]["viewers"] == 10


def test_viewers_that_leave_are_forgotten(served: Any) -> None:
    for _ in range(3):
        with served.client.events() as events:
            events.next()
            toy.wait_until(lambda: served.view.viewers == 1)
        toy.wait_until(lambda: served.view.viewers == 0)


def test_more_viewers_than_there_may_be_are_refused(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_feed, "_MOST_VIEWERS", 1)
    with served.client.events() as events:
        events.next()
        answer = served.client.get("/live/events")
    assert (answer.status, answer.body) == (503, b"503: 1 others watch already")


def test_a_viewer_that_takes_nothing_gets_the_newest_in_the_end_and_holds_up_nobody(
    served: Any, pack: Pack
) -> None:
    stalled = served.client.connect(receive_bytes=2048)
    stalled.sendall(b"GET /live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    toy.wait_until(lambda: served.view.viewers == 1)
    with served.client.events() as quick:
        for round_number in range(60):
            first = 200 * round_number
            fly(served, pack, first, first + 200)
            quick.until(has(first + 200))  # comes each time
        # What waits for the other is what its sockets hold, not what was said: 1.5 MB.
        stalled.settimeout(toy.PATIENCE_S)
        got = b""
        newest = f'"frame":{12_000 - 1},'.encode()
        while newest not in got[-200_000:]:
            part = stalled.recv(1 << 16)
            assert part, "it was cut off"
            got += part
    states = got.count(b"event: state")
    assert states < 60 * 3
    stalled.close()


def test_a_viewer_that_is_stuck_is_cut_off(
    served: Any, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_feed, "_STUCK_S", 0.2)
    stalled = served.client.connect(receive_bytes=2048)
    stalled.sendall(b"GET /live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    toy.wait_until(lambda: served.view.viewers == 1)
    ended = threading.Event()

    def speak() -> None:
        number = 0
        while not ended.is_set():
            fly(served, pack, number, number + 300)
            number += 300
            ended.wait(0.02)

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        toy.wait_until(lambda: served.view.viewers == 0)
    finally:
        ended.set()
        speaker.join()
        stalled.close()


def test_a_picture_is_made_when_it_is_asked_for(served: Any, pack: Pack) -> None:
    assert served.client.get("/live/frame.jpg").status == 404
    fly(served, pack, 1, 2)
    answer = served.client.get("/live/frame.jpg")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert answer.headers["Cache-Control"] == "no-store"
    assert abs(decode_rgb(answer.body, "frame").mean() - 43) < 3
    assert served.client.get("/live/view.jpg").status == 404  # nothing was cut from it


def test_a_picture_is_encoded_once_for_all(
    served: Any, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = view_feed.frame_jpeg
    monkeypatch.setattr(view_feed, "frame_jpeg", lambda k: encoded.append(k) or encode(k))
    served.view.ask_picture()
    fly(served, pack, 0, 1)
    assert {served.client.get("/live/frame.jpg").status for _ in range(5)} == {200}
    assert len(encoded) == 1


def test_the_end_of_a_run_is_told(pack: Pack) -> None:
    with ExitStack() as stack:
        served = toy.live(stack, pack)
        events = served.client.events()
        fly(served, pack, 0, 2)
        events.until(has(2))
        served.view.observe(toy.seen(toy.fix(pack, 2)))
    assert events.until(lambda event: event.name == "state" and event.data["told"][2] == 3)
    assert events.until(lambda event: event.name == "end").data == {}
    with pytest.raises(EOFError):
        events.next()
    events.close()


def test_the_frame_thread_goes_on_whatever_viewers_do(served: Any, pack: Pack) -> None:
    wires = []
    for _ in range(5):
        wire: socket.socket = served.client.connect(receive_bytes=2048)
        wire.sendall(b"GET /live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wires.append(wire)
    toy.wait_until(lambda: served.view.viewers == 5)
    fly(served, pack, 0, 3000)  # returns; what cannot be kept is let go
    for wire in wires:
        wire.close()
    toy.wait_until(lambda: served.view.viewers == 0)


def test_what_cannot_be_told_is_said_once_and_the_next_is_told(
    served: Any, pack: Pack, capfd: pytest.CaptureFixture[str]
) -> None:
    with served.client.events() as events:
        events.next()
        served.view.observe(toy.seen(toy.fix(pack, 0, sigma_m=float("nan"))))
        toy.wait_until(lambda: "viewers see no news" in capfd.readouterr().err)
        fly(served, pack, 1, 2)
        assert events.until(has(2)).data["fix"]["frame"] == 1
    assert "viewers see no news" not in capfd.readouterr().err
