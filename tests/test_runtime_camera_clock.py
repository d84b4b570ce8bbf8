import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.camera_clock import DriverClock, StreamClock

PERIOD_S = 0.1
LATENCY_S = 0.15


def test_a_drivers_stamp_on_the_monotonic_clock_is_the_time_of_capture() -> None:
    clock = DriverClock(LATENCY_S)
    assert clock.capture_s(99.96, 100.0) == 99.96
    assert clock.capture_s(100.01, 100.0) == 100.0  # not from the future


def test_an_old_buffer_of_a_driver_stays_old() -> None:
    clock = DriverClock(LATENCY_S)
    clock.capture_s(99.96, 100.0)
    assert clock.capture_s(99.96, 107.0) == 99.96


@pytest.mark.parametrize("stamp_s", [0.0, 3.5, 1.7e9])
def test_a_driver_with_another_clock_is_as_good_as_its_arrivals(stamp_s: float) -> None:
    clock = DriverClock(LATENCY_S)
    assert clock.capture_s(stamp_s, 100.0) == pytest.approx(100.0 - LATENCY_S)
    assert clock.capture_s(stamp_s + 0.1, 100.2) == pytest.approx(100.2 - LATENCY_S)


def captures(arrivals: list[tuple[float, float]]) -> list[float | None]:
    """Return what a clock says of frames made and arrived at these times."""
    clock = StreamClock(LATENCY_S)
    return [clock.capture_s(made_s - 90.0, arrived_s) for made_s, arrived_s in arrivals]


def test_a_steady_stream_was_taken_one_latency_ago() -> None:
    arrivals = [(100 + i * PERIOD_S, 100 + i * PERIOD_S + LATENCY_S) for i in range(20)]
    first, *others = captures(arrivals)
    assert first is None
    assert others == pytest.approx([made_s for made_s, _ in arrivals[1:]])


@given(st.lists(st.floats(0.0, 0.09), min_size=3, max_size=40))
def test_jitter_makes_frames_arrive_later_but_not_younger(jitter_s: list[float]) -> None:
    made_s = [100 + i * PERIOD_S for i in range(len(jitter_s) + 2)]
    delays_s = [LATENCY_S, LATENCY_S, *(LATENCY_S + j for j in jitter_s)]
    arrivals = [(m, m + d) for m, d in zip(made_s, delays_s, strict=True)]
    for (made, arrived), told in zip(arrivals[2:], captures(arrivals)[2:], strict=True):
        assert told is not None
        assert made - 1e-6 <= told <= made + 0.02 * (arrived - 100) + 1e-6


def test_what_queued_up_is_known_to_be_old() -> None:
    flowing = [(100 + i * PERIOD_S, 100 + i * PERIOD_S + LATENCY_S) for i in range(10)]
    queued = [(101 + i * PERIOD_S, 103 + i * 1e-3 + LATENCY_S) for i in range(20)]
    told = captures([*flowing, *queued])[10:]
    ages_s = [arrived_s - t for (_, arrived_s), t in zip(queued, told, strict=True)]
    true_s = [arrived_s - made_s for made_s, arrived_s in queued]
    assert ages_s == pytest.approx(true_s, abs=0.05)
    assert ages_s[0] > 2.0


def test_frames_that_a_server_kept_for_newcomers_are_not_taken_for_new() -> None:
    kept = [(98 + i * PERIOD_S, 100 + i * 1e-3) for i in range(21)]
    live = [(100.1 + i * PERIOD_S, 100.1 + i * PERIOD_S + LATENCY_S) for i in range(5)]
    told = captures([*kept, *live])
    assert told[:20] == [None] * 20
    assert told[22:] == pytest.approx([made_s for made_s, _ in live[1:]], abs=0.2)


def test_a_stream_whose_first_stamp_comes_twice_is_still_a_burst() -> None:
    clock = StreamClock(LATENCY_S)
    stamps_s = [0.0, 0.0, 0.1, 0.2, 0.3]
    assert [clock.capture_s(s, 100 + i * 1e-3) for i, s in enumerate(stamps_s)] == [None] * 5


@given(st.floats(0.98, 1.02))
def test_a_camera_that_counts_at_a_rate_two_percent_wrong_is_not_late(rate: float) -> None:
    clock = StreamClock(LATENCY_S)
    for i in range(3000):
        arrived_s = 100 + i * PERIOD_S
        told = clock.capture_s(i * PERIOD_S * rate, arrived_s)
        if i > 0:
            assert told is not None
            assert arrived_s - told == pytest.approx(LATENCY_S, abs=0.01)


@pytest.mark.parametrize("stamp_s", [0.0, math.nan, math.inf, -9.2e15])
def test_a_stream_without_stamps_is_as_good_as_its_arrivals(stamp_s: float) -> None:
    clock = StreamClock(LATENCY_S)
    told = [clock.capture_s(stamp_s, 100.0 + i) for i in range(6)]
    assert told == [None, None, *(100.0 + i - LATENCY_S for i in range(2, 6))]
    assert not clock.restarted


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_no_stamp_makes_a_frame_younger_than_its_arrival(stamps_s: list[float]) -> None:
    clock = StreamClock(LATENCY_S)
    for i, stamp_s in enumerate(stamps_s):
        told = clock.capture_s(stamp_s, 100.0 + i)
        assert told is None or told <= 100.0 + i - LATENCY_S


@pytest.mark.parametrize(
    ("stamp_s", "restarted"),
    [(5.1, False), (5.0, False), (4.9, False), (0.0, True), (4.4, True), (6.0, False), (9.0, True)],
)
def test_a_stream_whose_stamps_jump_is_another_one(stamp_s: float, restarted: bool) -> None:
    clock = StreamClock(LATENCY_S)
    clock.capture_s(4.9, 99.9)
    clock.capture_s(5.0, 100.0)
    clock.capture_s(stamp_s, 100.1)
    assert clock.restarted == restarted


def test_a_pause_of_the_network_is_no_restart() -> None:
    clock = StreamClock(LATENCY_S)
    clock.capture_s(5.0, 100.0)
    clock.capture_s(5.1, 104.0)
    assert not clock.restarted
    clock.capture_s(9.1, 104.1)  # what lay between was lost
    assert clock.restarted
