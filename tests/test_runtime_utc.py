"""The frames' clock in UTC: of live cameras, of recordings, where nobody knows."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime.utc import Utc, iso_utc, parse_epoch


def test_a_live_frame_has_the_machines_time() -> None:
    before = time.time()
    utc_s = Utc(is_live=True).of(time.monotonic())
    assert utc_s is not None
    assert before - 1 < utc_s < time.time() + 1


def test_a_live_clock_that_is_set_in_flight_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    utc = Utc(is_live=True)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(time, "time", lambda: 160.0)
    assert utc.of(90.0) == 150.0
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    assert utc.of(90.0) == 1.7e9 - 10


def test_a_pause_between_reading_two_clocks_is_no_time_that_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another thread runs for 50 ms between the first two readings.
    readings = iter([100.0, 100.05, 100.05, 100.0501])
    monkeypatch.setattr(time, "monotonic", lambda: next(readings))
    stamps = iter([1000.0, 1000.05005])
    monkeypatch.setattr(time, "time", lambda: next(stamps))
    assert Utc(is_live=True).of(100.0) == pytest.approx(1000.0, abs=1e-6)


@pytest.mark.parametrize(
    ("epoch_s", "t", "utc_s"),
    [
        (None, 12.5, None),
        (None, 999_999_999.0, None),
        (None, 1.7e9, 1.7e9),
        (None, 1e12, None),
        (1.6e9, 12.5, 1.6e9 + 12.5),
        (1.6e9, None, None),
        (None, None, None),
    ],
)
def test_a_recording_has_a_time_where_its_clock_or_the_user_tells_it(
    epoch_s: float | None, t: float | None, utc_s: float | None
) -> None:
    assert Utc(False, epoch_s).of(t) == utc_s


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-04T09:30:00Z", "2026-05-04 09:30", "2026-05-04T11:30:00+02:00", "1777887000",
        "1777887000.0",
    ],
)  # fmt: skip
def test_an_epoch_is_iso_8601_in_utc_or_unix_seconds(text: str) -> None:
    assert parse_epoch(text) == 1777887000.0


@pytest.mark.parametrize("text", ["", "yesterday", "nan", "-1", "1e15", "2026-13-01"])
def test_an_epoch_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_epoch(text)
    assert str(refused.value) == (
        f"--epoch {text}: no time; expected ISO 8601, such as 2026-05-04T09:30:00Z, or Unix seconds"
    )


def test_a_time_is_rounded_to_the_millisecond_as_a_whole() -> None:
    assert iso_utc(1777887000.1254) == "2026-05-04T09:30:00.125Z"
    assert iso_utc(1777887059.9996) == "2026-05-04T09:31:00.000Z"


@given(st.floats(0, 4e9))
def test_what_is_written_is_read_back_to_the_millisecond(utc_s: float) -> None:
    assert abs(parse_epoch(iso_utc(utc_s)) - utc_s) <= 0.00051
