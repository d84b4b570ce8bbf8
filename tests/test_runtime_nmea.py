"""NMEA sentences as an independent reader, pynmea2, reads them: checksums and all."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s4g.runtime.fix import Diagnostics, Fix, Reason, State
from s4g.runtime.nmea import LONGEST_BYTES, angle, checksum, sentences

pynmea2 = pytest.importorskip("pynmea2", reason="an independent reader of NMEA (pip install)")

UTC_S = 1_777_887_000.25  # 2026-05-04 09:30:00.25
FIX = Fix(
    0, 1.0, State.TRACK, lat=46.8425012, lon=-91.9941313, sigma_m=12.345, hpl_m=45.0, ve_mps=-3.0,
    vn_mps=4.0, agl_m=120.0, source="visual",
)  # fmt: skip
PROPAGATED = replace(FIX, state=State.DEGRADED, source="propagated")


def read(fix: Fix, utc_s: float | None = UTC_S) -> tuple[Any, Any, Any]:
    """Return GGA, RMC and GST; GLL must say the same."""
    lines = sentences(fix, utc_s).splitlines(keepends=True)
    for line in lines:
        assert line.endswith("\r\n")
        assert len(line) <= LONGEST_BYTES
    gga, rmc, gst, gll = all_four = [pynmea2.parse(line, check=True) for line in lines]
    assert [one.talker for one in all_four] == ["GN"] * 4
    assert [one.sentence_type for one in all_four] == ["GGA", "RMC", "GST", "GLL"]
    assert gll.data[:4] == gga.data[1:5]
    assert gll.data[4] == gga.data[0]
    assert (gll.status, gll.faa_mode) == (rmc.status, rmc.mode_indicator)
    return gga, rmc, gst


def test_the_sentences_of_a_fix_are_these() -> None:
    assert sentences(FIX, UTC_S).splitlines() == [
        "$GNGGA,093000.25,4650.550072,N,09159.647878,W,1,00,,,M,,M,,*77",
        "$GNRMC,093000.25,A,4650.550072,N,09159.647878,W,9.72,323.1,040526,,,A*61",
        "$GNGST,093000.25,,12.35,12.35,0.0,12.35,12.35,*44",
        "$GNGLL,4650.550072,N,09159.647878,W,093000.25,A,A*6C",
    ]


def test_the_checksum_is_that_of_published_sentences() -> None:
    # From gpsd's and u-blox' documents.
    assert checksum("GPGGA,092750.000,5321.6802,N,00630.3372,W,1,8,1.03,61.7,M,55.2,M,,") == "76"
    assert checksum("GPGLL,4916.45,N,12311.12,W,225444,A") == "31"


@given(st.floats(-90, 90), st.floats(-180, 180))
@example(0.0, 0.0)
@example(90.0, 180.0)
@example(-90.0, -180.0)
@example(-0.0, -1e-12)
@example(46.99999999999, 8.99999999999)  # minutes that round to 60
@example(-59.9999999999, -179.9999999999)
def test_a_position_is_read_back_to_a_centimetre_in_every_quadrant(lat: float, lon: float) -> None:
    for sentence in read(replace(FIX, lat=lat, lon=lon))[:2]:
        assert abs(sentence.latitude - lat) < 1e-8 + 1e-13
        assert abs(math.remainder(sentence.longitude - lon, 360)) < 1e-8 + 1e-13
        assert -90 <= sentence.latitude <= 90
        assert -180 <= sentence.longitude <= 180


@pytest.mark.parametrize(("lon", "text"), [(180.5, "17930.000000,W"), (-181.0, "17900.000000,E")])
def test_a_longitude_beyond_the_date_line_is_brought_back(lon: float, text: str) -> None:
    assert text in sentences(replace(FIX, lon=lon), UTC_S)


@given(st.floats(0, 180))
def test_minutes_are_never_sixty(degrees: float) -> None:
    text = angle(degrees, 3)
    assert len(text) == len("dddmm.mmmmmm")
    assert float(text[3:]) < 60
    assert int(text[:3]) + float(text[3:]) / 60 == pytest.approx(degrees, abs=1e-8)


def test_a_matched_position_is_quality_1_and_mode_a() -> None:
    gga, rmc, _ = read(FIX)
    assert (gga.gps_qual, rmc.status, rmc.mode_indicator) == (1, "A", "A")


def test_a_position_carried_on_is_quality_6_and_mode_e() -> None:
    gga, rmc, _ = read(PROPAGATED)
    assert (gga.gps_qual, rmc.status, rmc.mode_indicator) == (6, "A", "E")


def test_nothing_is_claimed_of_satellites_and_altitude() -> None:
    gga, rmc, gst = read(FIX)
    assert gga.num_sats == "00"
    assert (gga.horizontal_dil, gga.altitude, gga.geo_sep) == ("", None, "")
    assert (gst.rms, gst.std_dev_altitude) == (None, None)
    assert (rmc.mag_variation, rmc.mag_var_dir) == ("", "")


NO_POSITION = [state for state in State if state not in (State.TRACK, State.DEGRADED)]


@pytest.mark.parametrize("state", NO_POSITION)
def test_without_a_fix_there_is_no_position_no_speed_and_no_uncertainty(state: State) -> None:
    # Even where an object holds numbers: the state decides, and guesses are never positions.
    for fix in (
        Fix(3, 1.0, state, reason=Reason.AMBIGUOUS,
            diagnostics=Diagnostics(47.0, 8.0, 0.5, 30.0, 48.0, 4)),
        replace(FIX, state=state),
    ):  # fmt: skip
        assert [line.split("*")[0] for line in sentences(fix, UTC_S).splitlines()] == [
            "$GNGGA,093000.25,,,,,0,00,,,M,,M,,",
            "$GNRMC,093000.25,V,,,,,,,040526,,,N",
            "$GNGST,093000.25,,,,,,,",
            "$GNGLL,,,,,093000.25,V,N",
        ]
        gga, rmc, _ = read(fix)
        assert (gga.gps_qual, gga.lat, gga.lon) == (0, "", "")
        assert (rmc.status, rmc.mode_indicator, rmc.lat, rmc.lon) == ("V", "N", "", "")


@pytest.mark.parametrize("state", [State.TRACK, State.DEGRADED])
def test_a_state_with_a_position_that_holds_none_gives_none(state: State) -> None:
    gga, rmc, _ = read(replace(FIX, state=state, lat=None, lon=None))
    assert (gga.gps_qual, gga.lat, rmc.status, rmc.mode_indicator) == (0, "", "V", "N")


@given(st.floats(0, 9999))
def test_the_uncertainty_is_one_standard_deviation_along_each_axis(sigma_m: float) -> None:
    _, _, gst = read(replace(FIX, sigma_m=sigma_m))
    axes = (gst.std_dev_major, gst.std_dev_minor, gst.std_dev_latitude, gst.std_dev_longitude)
    assert axes == (pytest.approx(sigma_m, abs=0.0051),) * 4
    assert gst.orientation == 0.0


@given(st.floats(-80, 80), st.floats(-80, 80))
@example(-1e-3, 80.0)  # 360° rounds to 0
def test_speed_is_in_knots_and_the_course_clockwise_from_north(east: float, north: float) -> None:
    _, rmc, _ = read(replace(FIX, ve_mps=east, vn_mps=north))
    speed_mps = rmc.spd_over_grnd * 1852 / 3600
    assert speed_mps == pytest.approx(math.hypot(east, north), abs=0.003)
    if rmc.true_course is None:
        assert math.hypot(east, north) < 0.1
        return
    assert 0 <= rmc.true_course < 360
    course = math.degrees(math.atan2(east, north))
    assert abs(math.remainder(rmc.true_course - course, 360)) < 0.0501


def test_a_speed_that_nobody_knows_is_left_out() -> None:
    _, rmc, _ = read(replace(FIX, ve_mps=None, vn_mps=None))
    assert (rmc.spd_over_grnd, rmc.true_course) == (None, None)


@pytest.mark.parametrize(
    ("utc_s", "shown"),
    [
        (UTC_S, datetime(2026, 5, 4, 9, 30, 0, 250_000)),
        (1_798_761_599.997, datetime(2027, 1, 1)),  # the rounding carries into the next year
        (1_777_887_059.994, datetime(2026, 5, 4, 9, 30, 59, 990_000)),
    ],
)
def test_time_and_date_are_utc_rounded_together(utc_s: float, shown: datetime) -> None:
    gga, rmc, gst = read(FIX, utc_s)
    assert rmc.datetime == shown.replace(tzinfo=timezone.utc)
    assert gga.timestamp == rmc.timestamp
    assert gst.data[0] == gga.data[0]


def test_where_nobody_knows_the_time_it_is_left_out() -> None:
    gga, rmc, gst = read(FIX, None)
    assert (gga.timestamp, rmc.timestamp, rmc.datestamp, gst.data[0]) == (None, None, None, "")
    assert gga.latitude == pytest.approx(46.8425012, abs=1e-8)


def test_the_longest_sentences_are_within_the_standard() -> None:
    # The date is checked as well: read() asserts the length of each line.
    long = replace(PROPAGATED, lat=-89.9999999, lon=-179.9999999, sigma_m=99999.0, ve_mps=-999.0)
    assert read(long)[1].datestamp == date(2026, 5, 4)
