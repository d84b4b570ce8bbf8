"""The grab thread and its reader, with captures that do what real ones cannot be made to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from s4g.core.errors import S4GError
from s4g.runtime import camera, grab
from s4g.runtime.camera import LiveCamera
from s4g.runtime.camera_clock import DriverClock
from s4g.runtime.frames import Frame, LiveOptions, Outage

QUICK = LiveOptions(max_age_s=60.0, outage_period_s=0.05)
Step = np.ndarray | Exception | None


def picture(red: int, shape: tuple[int, ...] = (4, 6, 3)) -> np.ndarray:
    image = np.zeros(shape, np.uint8)
    image[..., 2] = red
    return image


class Capture:
    """Hands out a list of pictures, one for each ticket; None is the end of the source."""

    def __init__(self, *steps: Step, stamp_s: Callable[[], float] = time.monotonic) -> None:
        self.tickets = threading.Semaphore(0)
        self.steps, self.at, self.stamp_s = list(steps), -1, stamp_s
        self.released = False

    def grab(self) -> bool:
        self.tickets.acquire()
        if self.at + 1 >= len(self.steps) or self.steps[self.at + 1] is None:
            return False
        self.at += 1
        return True

    def retrieve(self, buffer: np.ndarray | None) -> tuple[bool, np.ndarray | None]:
        image = self.steps[self.at]
        if isinstance(image, Exception):
            raise image
        assert image is not None
        if buffer is not None and buffer.shape == image.shape and buffer.dtype == image.dtype:
            buffer[:] = image
            return True, buffer
        return True, image.copy()

    def get(self, what: int) -> float:
        assert what == cv2.CAP_PROP_POS_MSEC
        return self.stamp_s() * 1e3

    def release(self) -> None:
        self.released = True


class Source:
    """Opens one capture after the other, and says what is wrong where there is a text instead."""

    name = "cam"

    def __init__(self, *captures: Capture | str) -> None:
        self.captures = list(captures)
        self.opened: list[Capture] = []

    def open(self) -> Capture | str:
        assert all(capture.released for capture in self.opened)
        if not self.captures:
            return "it is gone"
        capture = self.captures.pop(0)
        if isinstance(capture, Capture):
            self.opened.append(capture)
        return capture

    def clock(self) -> DriverClock:
        return DriverClock(0.0)


Opener = Callable[..., LiveCamera]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    cameras: list[LiveCamera] = []
    monkeypatch.setattr(grab, "_BACK_OFF_S", 0.001)

    def open_with(*captures: Capture | str, options: LiveOptions = QUICK) -> LiveCamera:
        source = Source(*captures)
        monkeypatch.setattr(camera, "LiveSource", lambda name, options: source)
        cameras.append(LiveCamera("cam", options))
        return cameras[-1]

    yield open_with
    for opened in cameras:
        for capture in opened._grabber._source.opened:
            capture.tickets.release(100)
        opened.close()


def wait_until(check: Callable[[], bool]) -> None:
    for _ in range(1000):
        if check():
            return
        time.sleep(0.005)
    pytest.fail("the grab thread did not get on")


def next_frame(events: Iterator[Frame | Outage]) -> Frame:
    for _, event in zip(range(400), events, strict=False):
        if isinstance(event, Frame):
            return event
    pytest.fail("no frame came")


def next_outage(events: Iterator[Frame | Outage]) -> Outage:
    event = next(events)
    assert isinstance(event, Outage)
    return event


def test_a_slow_reader_gets_the_newest_frame_and_the_others_are_counted(live: Opener) -> None:
    capture = Capture(*(picture(red) for red in range(10)))
    cam = live(capture)
    capture.tickets.release(5)
    wait_until(lambda: cam.dropped == 4)
    events = cam.frames()
    frame = next_frame(events)
    assert (frame.index, frame.rgb()[0][0, 0].tolist()) == (0, [4, 0, 0])
    capture.tickets.release(1)
    frame = next_frame(events)
    assert (frame.index, frame.rgb()[0][0, 0, 0], cam.dropped) == (1, 5, 4)
    assert cam.counts.grabbed == 6


def test_a_frame_that_is_kept_does_not_change_while_others_come(live: Opener) -> None:
    capture = Capture(*(picture(red) for red in range(40)))
    events = live(capture).frames()
    kept = []
    for red in range(40):
        capture.tickets.release(1)
        frame = next_frame(events)
        if red % 3 == 0:
            kept.append((red, frame.rgb()[0][1:, ::2]))
    assert [int(view[0, 0, 0]) for _, view in kept] == [red for red, _ in kept]


def test_frames_that_are_let_go_are_not_allocated_anew(live: Opener) -> None:
    capture = Capture(*(picture(red) for red in range(40)))
    events = live(capture).frames()
    addresses = set()
    for _ in range(40):
        capture.tickets.release(1)
        addresses.add(next_frame(events).rgb()[0].ctypes.data)
    assert len(addresses) <= 2


def test_the_time_of_a_frame_is_the_drivers(live: Opener) -> None:
    taken_s = time.monotonic() - 0.2
    capture = Capture(picture(1), stamp_s=lambda: taken_s)
    capture.tickets.release(1)
    frame = next_frame(live(capture).frames())
    assert frame.t == pytest.approx(taken_s)
    assert frame.arrived_s > taken_s + 0.1


def test_a_camera_that_is_lost_is_told_once_a_period_and_opened_again(
    live: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Capture(picture(1), None), Capture(picture(2))
    cam = live(first, "no device /dev/video0; found no camera", second)
    events = cam.frames()
    first.tickets.release(1)
    assert next_frame(events).index == 0
    first.tickets.release(1)
    outages = [next_outage(events) for _ in range(3)]
    assert [b.t - a.t >= 0.05 for a, b in zip(outages, outages[1:], strict=False)] == [True, True]
    assert all(outage.reason.startswith("no frame for 0.") for outage in outages)
    second.tickets.release(1)
    frame = next_frame(events)
    assert (frame.index, frame.rgb()[0][0, 0, 0]) == (1, 2)
    assert cam.counts.reopened == 1
    lost, found = capsys.readouterr().err.splitlines()
    assert lost.startswith("camera cam: no frame for 0.")
    assert lost.endswith("; trying again until it is back")
    assert found.startswith("camera cam: frames again, after 0.")


def test_an_outage_says_what_is_wrong_with_the_source(live: Opener) -> None:
    first = Capture(picture(1), None)
    cam = live(first)
    events = cam.frames()
    first.tickets.release(2)
    wait_until(lambda: cam._grabber.trouble == "it is gone")
    next_frame(events)
    reason = next_outage(events).reason
    assert reason.endswith(" s: it is gone")


def test_a_camera_that_comes_and_goes_does_not_fill_the_log(
    live: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    captures = [Capture(picture(red), None) for red in range(5)]
    events = live(*captures).frames()
    for capture in captures:
        capture.tickets.release(1)
        next_frame(events)
        next_outage(events)
        capture.tickets.release(1)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_pauses_before_a_source_is_opened_grow_until_it_delivers_again(
    live: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Capture(picture(1), None), Capture(picture(2), None)
    cam = live(first, "gone", "gone", second)
    pauses_s: list[float] = []
    wait = cam._grabber._stop.wait
    monkeypatch.setattr(
        cam._grabber._stop, "wait", lambda pause_s: pauses_s.append(pause_s) or wait(0.001)
    )
    first.tickets.release(2)
    second.tickets.release(2)
    wait_until(lambda: len(pauses_s) > 20)
    assert pauses_s[:6] == pytest.approx([0.001, 0.002, 0.004, 0.001, 0.002, 0.004])
    assert max(pauses_s) == pytest.approx(1.6)


def test_a_frame_that_waited_too_long_is_not_handed_on(live: Opener) -> None:
    capture = Capture(picture(1), picture(2))
    cam = live(capture, options=LiveOptions(max_age_s=0.1, outage_period_s=0.05))
    capture.tickets.release(1)
    wait_until(lambda: cam._grabber._newest is not None)
    time.sleep(0.15)
    events = cam.frames()
    next_outage(events)
    assert cam.counts.expired == 1
    capture.tickets.release(1)
    assert next_frame(events).rgb()[0][0, 0, 0] == 2


def test_a_driver_that_hands_out_old_buffers_is_opened_anew(
    live: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grab, "STALL_S", 0.05)
    now_s = time.monotonic()
    stuck = Capture(*[picture(1)] * 100_000, stamp_s=lambda: now_s)
    second = Capture(picture(2))
    cam = live(stuck, second, options=LiveOptions(max_age_s=0.02, outage_period_s=0.05))
    stuck.tickets.release(100_000)
    wait_until(lambda: stuck.released)
    assert cam.counts.late > 0
    second.tickets.release(1)
    wait_until(lambda: cam.counts.reopened == 1)


@pytest.mark.parametrize(
    "broken",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 6, 2), np.uint8),
        np.zeros((4, 6), np.uint16),
        cv2.error("a JPEG that is none"),
    ],
    ids=["empty", "two colours", "16 bits", "not decoded"],
)
def test_garbage_is_counted_and_not_handed_on(live: Opener, broken: Step) -> None:
    capture = Capture(broken, picture(1), broken, picture(2))
    cam = live(capture)
    events = cam.frames()
    for red in (1, 2):
        capture.tickets.release(2)
        assert next_frame(events).rgb()[0][0, 0, 0] == red
    assert cam.counts.broken == 2


def test_a_camera_that_delivers_garbage_alone_is_an_outage(
    live: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grab, "STALL_S", 0.05)
    capture = Capture(*[np.zeros((0, 0, 3), np.uint8)] * 100_000)
    cam = live(capture)
    capture.tickets.release(100_000)
    wait_until(lambda: capture.released)
    assert next_outage(cam.frames()).reason.startswith("no frame for ")


def test_frames_that_change_size_come_in_their_size(live: Opener) -> None:
    shapes = [(4, 6, 3), (8, 12, 3), (8, 12, 3), (4, 6, 3), (5, 5)]
    capture = Capture(*(picture(9, shape) for shape in shapes))
    events = live(capture).frames()
    sizes = []
    for _ in shapes:
        capture.tickets.release(1)
        frame = next_frame(events)
        assert frame.rgb()[0].shape == (frame.height_px, frame.width_px, 3)
        sizes.append((frame.height_px, frame.width_px))
    assert sizes == [shape[:2] for shape in shapes]


def test_a_run_ends_where_the_outage_lasts_longer_than_it_may(live: Opener) -> None:
    capture = Capture(picture(1))
    events = live(capture, options=LiveOptions(outage_period_s=0.05, give_up_s=0.2)).frames()
    with pytest.raises(S4GError) as error:
        for _ in events:
            pass
    assert str(error.value) == (
        "--camera cam: no frame for 0.2 s: it is silent; check cable, power and network"
    )


def test_a_fault_of_the_thread_ends_the_run_instead_of_starving_it(live: Opener) -> None:
    capture = Capture(RuntimeError("a bug"))
    capture.tickets.release(1)
    with pytest.raises(RuntimeError, match="a bug"):
        for _ in live(capture).frames():
            pass


def test_closing_says_what_was_lost(live: Opener, capsys: pytest.CaptureFixture[str]) -> None:
    capture = Capture(np.zeros((0, 0), np.uint8), picture(1), picture(2))
    cam = live(capture)
    capture.tickets.release(3)
    wait_until(lambda: cam.counts.grabbed == 3)
    capture.tickets.release(1)
    cam.close()
    said = capsys.readouterr().err
    assert said == "camera cam: 3 frames, 1 without a picture\n"
