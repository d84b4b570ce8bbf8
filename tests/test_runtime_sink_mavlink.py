"""The output over loopback UDP: the test is the vehicle, and hears what an autopilot would."""

import math
import os
import pty
import runpy
import select
import socket
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.runtime import mavlink_stream, mavlink_vehicle, sink_mavlink
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.mavlink_local import Origin, ardupilot_metres, px4_metres
from s4g.runtime.observe import Observation
from s4g.runtime.sink import Moment, parse_sink_url
from s4g.runtime.sink_hub import Outputs
from s4g.runtime.sink_mavlink import MavlinkSink, open_sink
from s4g.runtime.tail import REPORTED, Tail
from s4g.runtime.telemetry_live import MavlinkTelemetry
from s4g.runtime.track import Track
from s4g.runtime.utc import Utc

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_mavlink.py"))))
m = toy.common
PATIENCE_S = 20.0
FIX = Fix(
    frame=3, t=0.0, state=State.TRACK, lat=47.3977419, lon=-8.5455938, sigma_m=6.5, hpl_m=24.2,
    ve_mps=-3.25, vn_mps=11.5, agl_m=120.0, source="visual", anchor_age_s=0.0,
)  # fmt: skip
ALL = "gps_input,global_position_sensor,odometry,external_position_estimate"
POSITIONS = {
    "GPS_INPUT", "GLOBAL_POSITION_SENSOR", "ODOMETRY", "COMMAND_INT", "GLOBAL_POSITION_INT",
    "GPS_RAW_INT",
}  # fmt: skip


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due or stale by a clock is so only where a test says it: machines may be busy."""
    for name in ("_BEAT_S", "_VALUES_S", "_TEXT_S", "_ORIGIN_S", "_RESET_S"):
        monkeypatch.setattr(sink_mavlink, name, 1e6)
    monkeypatch.setattr(sink_mavlink, "STALE_S", 1e3)
    for name in ("FRESH_S", "_BODY_FRESH_S"):
        monkeypatch.setattr(mavlink_vehicle, name, 1e6)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def running(**more: Any) -> Any:
    return SimpleNamespace(**{"tracker": None, "is_live": True, "telemetry": None} | more)


class Bench:
    """An output, and the vehicle that it speaks to."""

    def __init__(self, query: str = "", run: Any = None) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(PATIENCE_S)
        self.url = f"mavlink+udp://127.0.0.1:{self.socket.getsockname()[1]}"
        self.sink: MavlinkSink = open_sink(parse_sink_url(self.url + query), run or running())
        self.to = ("127.0.0.1", self.sink.stream.link.port)
        self.pilot = toy.Autopilot(system=42)
        self.reader = m.MAVLink(None)

    def say(self, *made: Any, pilot: Any = None) -> None:
        """Speak as the vehicle, and wait until it has been heard."""
        for message in made:
            before = self.sink.vehicle.counts
            self.socket.sendto((pilot or self.pilot).pack(message), self.to)
            until(lambda before=before: self.sink.vehicle.counts != before)

    def beat(self) -> None:
        self.say(m.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3))

    def stand(self) -> None:
        """Say all that a vehicle has to say of itself."""
        self.beat()
        self.say(
            m.MAVLink_global_position_int_message(0, 1, 2, 612_500, 0, 0, 0, 150, 0),
            m.MAVLink_attitude_message(0, 0.0, 0.0, 0.0, 0.01, 0.02, 0.03),
            m.MAVLink_gps_global_origin_message(473900000, -85456000, 488_250),
        )

    def send(self, fix: Fix = FIX, age_s: float = 0.0, **more: Any) -> None:
        self.sink.send(Moment(replace(fix, t=time.monotonic() - age_s), **{"utc_s": None} | more))

    def heard(self) -> list[Any]:
        """Return all that has come so far; what is sent over loopback is there at once."""
        got = []
        self.socket.setblocking(False)
        while select.select([self.socket], [], [], 0.0)[0]:
            got.append(self.reader.decode(bytearray(self.socket.recv(999))))
        return got

    def kinds(self) -> list[str]:
        return [message.get_type() for message in self.heard()]

    def close(self) -> None:
        self.sink.close()
        self.socket.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*args: Any) -> Bench:
        made.append(Bench(*args))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_an_autopilot_gets_nothing_of_a_fix_before_its_heartbeat(
    opened: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    bench = opened()
    bench.send()
    bench.send()
    assert bench.kinds() == []
    assert bench.sink.withheld == {"vehicle": 2}
    bench.stand()
    bench.send()
    got = bench.heard()
    assert [g.get_type() for g in got] == [
        "GPS_INPUT", "NAMED_VALUE_FLOAT", "NAMED_VALUE_FLOAT", "STATUSTEXT",
    ]  # fmt: skip
    assert {(g.get_srcSystem(), g.get_srcComponent()) for g in got} == {(42, 197)}
    assert (got[0].lat, got[0].lon, got[0].alt) == (473977419, -85455938, 612.5)
    assert capsys.readouterr().err == (
        f"--to {bench.url}: no autopilot's HEARTBEAT has come yet; nothing is sent\n"
    )


def test_the_system_that_is_given_needs_no_heartbeat(opened: Callable[..., Bench]) -> None:
    bench = opened("?sysid=9&compid=198&ground_alt=400")
    bench.send()
    got = bench.heard()
    assert (got[0].get_type(), got[0].alt) == ("GPS_INPUT", 520.0)
    assert {(g.get_srcSystem(), g.get_srcComponent()) for g in got} == {(9, 198)}


def test_px4_gets_a_global_position_sensor_addressed_to_it(opened: Callable[..., Bench]) -> None:
    bench = opened("?as=px4&sensor_id=4")
    bench.beat()
    before_us = time.monotonic() * 1e6
    bench.send(age_s=0.25)
    got = bench.heard()[0]
    assert (got.get_msgId(), got.target_system, got.id, got.eph) == (296, 42, 4, 6.5)
    assert math.isnan(got.alt)  # the vehicle has told none, and PX4 needs none
    assert before_us <= got.time_usec <= time.monotonic() * 1e6
    assert 250_000 <= got.processing_time <= 250_000 + got.time_usec - before_us + 1


@pytest.mark.parametrize(
    "fix",
    [
        Fix(frame=4, t=0.0, state=State.NO_FIX, reason=Reason.AMBIGUOUS),
        Fix(frame=4, t=0.0, state=State.OUT_OF_PACK),
        Fix(frame=4, t=0.0, state=State.ACQUIRING, reason=Reason.AMBIGUOUS),
        replace(FIX, state=State.NO_FIX),  # were a position left in it by mistake
    ],
    ids=lambda fix: fix.state.value,
)
@pytest.mark.parametrize("query", [f"?messages={ALL},statustext", "?as=gcs"])
def test_without_a_fix_no_message_that_holds_a_position_is_sent(
    opened: Callable[..., Bench], fix: Fix, query: str
) -> None:
    bench = opened(query)
    bench.stand()
    bench.send()
    assert POSITIONS & set(bench.kinds())
    bench.sink._due_s["text"] = 0.0
    for _ in range(5):
        bench.send(fix)
        bench.sink.idle()
    got = bench.kinds()
    assert not POSITIONS & set(got)
    assert got.count("STATUSTEXT") == 1
    bench.send()
    assert POSITIONS & set(bench.kinds())


def test_a_fix_that_waited_too_long_is_not_sent(
    opened: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    bench = opened()
    bench.stand()
    bench.send(age_s=1e3 + 1)
    assert "GPS_INPUT" not in bench.kinds()
    assert bench.sink.withheld == {"stale": 1}
    assert (
        capsys.readouterr().err == f"--to {bench.url}: a fix was over 1000 s old and was not sent\n"
    )


def test_another_place_is_held_back_until_it_has_stood_without_a_gap(
    opened: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    bench = opened("?messages=gps_input&hold=4", running(is_live=False))
    bench.stand()
    lost = Fix(frame=1, t=0.0, state=State.NO_FIX)
    sent = []
    for t, fix, resets in [
        (0, FIX, 0), (1, lost, 0), (2, FIX, 0), (3, FIX, 1), (6, FIX, 1), (6.5, lost, 1),
        (8, FIX, 1), (10.4, FIX, 1), (10.5, FIX, 1), (11, lost, 1), (12, FIX, 1),
    ]:  # fmt: skip
        bench.sink.send(Moment(replace(fix, t=float(t)), None, 0.0, resets))
        sent += [t] * len(bench.heard())
    assert sent == [0, 2, 10.5, 12]
    assert bench.sink.withheld == {"hold": 4}
    assert capsys.readouterr().err == (
        f"--to {bench.url}: another place was taken up; it is sent once it has stood for 4 s "
        "(hold=)\n"
    )


def test_gps_input_is_not_sent_without_an_altitude_and_that_is_told_once(
    opened: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    bench = opened()
    bench.beat()
    bench.send()
    bench.send()
    assert "GPS_INPUT" not in bench.kinds()
    assert bench.sink.withheld == {"altitude": 2}
    assert capsys.readouterr().err == (
        f"--to {bench.url}: GPS_INPUT needs an altitude, and the vehicle tells none "
        "(GLOBAL_POSITION_INT, ALTITUDE or VFR_HUD); it is not sent: stream one of them, or give "
        "ground_alt=M\n"
    )


def test_the_users_ground_comes_before_the_vehicles_altitude(opened: Callable[..., Bench]) -> None:
    bench = opened("?ground_alt=400&messages=gps_input")
    bench.stand()
    bench.send()
    bench.send(replace(FIX, agl_m=None))
    assert [g.alt for g in bench.heard()] == [520.0, 612.5]


@pytest.mark.parametrize(
    ("receiver", "measure"), [("ardupilot", ardupilot_metres), ("px4", px4_metres)]
)
def test_odometry_is_in_the_receivers_metres_from_its_origin(
    opened: Callable[..., Bench], receiver: str, measure: Any
) -> None:
    bench = opened(f"?as={receiver}&messages=odometry")
    bench.stand()
    bench.send(resets=3)
    (got,) = bench.heard()
    north_m, east_m = measure(Origin(47.39, -8.5456, 488.25), FIX.lat, FIX.lon)
    assert (got.x, got.y, got.z) == pytest.approx((north_m, east_m, -124.25), rel=1e-6)
    assert (got.frame_id, got.child_frame_id, got.reset_counter) == (20, 12, 3)
    assert (got.vx, got.vy, got.vz) == pytest.approx((11.5, -3.25, 1.5))


def test_an_origin_that_moves_is_a_reset(opened: Callable[..., Bench]) -> None:
    bench = opened("?messages=odometry")
    bench.stand()
    bench.say(m.MAVLink_gps_global_origin_message(473910000, -85456000, 488_250))
    bench.send(resets=255)
    (got,) = bench.heard()
    assert got.reset_counter == 0


def test_odometry_waits_for_the_vehicles_own_word_on_the_origin(
    opened: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    bench = opened("?messages=odometry&origin=47.39,-8.5456,488.25")
    bench.beat()
    bench.sink.idle()
    bench.sink.idle()
    asked, request = bench.heard()  # once, not with each idle
    assert (asked.get_type(), asked.latitude, asked.longitude, asked.altitude) == (
        "SET_GPS_GLOBAL_ORIGIN", 473900000, -85456000, 488250,
    )  # fmt: skip
    assert (request.get_type(), request.param1, request.target_system) == ("COMMAND_LONG", 49, 42)
    bench.send()
    assert bench.kinds() == []
    assert "needs the vehicle's GPS_GLOBAL_ORIGIN" in capsys.readouterr().err
    bench.stand()
    bench.sink._due_s["origin"] = 0.0
    bench.sink.idle()
    bench.send()
    assert bench.kinds() == ["ODOMETRY"]


def test_odometry_is_not_sent_without_an_attitude(
    opened: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    bench = opened("?messages=odometry&ground_alt=400")
    bench.beat()
    bench.say(m.MAVLink_gps_global_origin_message(473910000, -85456000, 488_250))
    bench.send()
    assert bench.kinds() == []
    assert bench.sink.withheld == {"body": 1}
    assert "needs the vehicle's ATTITUDE, climb and altitude" in capsys.readouterr().err


def test_a_position_estimate_is_sent_once_a_second_and_only_of_a_match(
    opened: Callable[..., Bench],
) -> None:
    bench = opened("?messages=external_position_estimate")
    bench.beat()
    bench.send(replace(FIX, state=State.DEGRADED))
    assert bench.kinds() == []
    for _ in range(5):
        bench.send()
    (got,) = bench.heard()
    assert (got.command, got.target_system, got.param3) == (43003, 42, 6.5)
    bench.sink._due_s["reset"] = 0.0
    bench.send()
    assert bench.kinds() == ["COMMAND_INT"]


def test_a_ground_station_sees_a_vehicle_of_its_own(
    opened: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    bench = opened("?as=gcs")
    bench.sink.idle()
    bench.send()
    beat, position, raw, *_ = bench.heard()
    assert (beat.type, beat.autopilot) == (2, 0)
    assert (position.get_type(), position.alt, position.relative_alt) == (
        "GLOBAL_POSITION_INT", 0, 120000,
    )  # fmt: skip
    assert (raw.get_type(), raw.h_acc) == ("GPS_RAW_INT", 6500)
    assert (position.get_srcSystem(), position.get_srcComponent()) == (200, 1)
    assert capsys.readouterr().err == (
        f"--to {bench.url}: altitude above sea is unknown, sent as 0; give ground_alt=M\n"
    )


def test_heartbeats_go_out_once_a_second_whether_there_are_fixes_or_not(
    opened: Callable[..., Bench],
) -> None:
    bench = opened()
    for _ in range(10):
        bench.sink.idle()
    (got,) = bench.heard()
    assert (got.get_type(), got.type, got.get_srcComponent()) == ("HEARTBEAT", 18, 197)
    bench.sink._due_s["beat"] = 0.0
    bench.sink.idle()
    assert bench.kinds() == ["HEARTBEAT"]


def test_states_are_told_when_they_change_and_not_while_they_flicker(
    opened: Callable[..., Bench],
) -> None:
    bench = opened("?messages=statustext")
    bench.beat()
    lost = Fix(frame=1, t=0.0, state=State.NO_FIX, reason=Reason.STALE)
    bench.send()
    for fix in (lost, FIX, lost, lost):
        bench.send(fix)
    bench.sink._due_s["text"] = 0.0
    bench.sink.idle()
    bench.sink.idle()
    assert [g.text for g in bench.heard()] == ["s4g: TRACK", "s4g: NO_FIX stale"]


def test_the_accuracy_of_speed_is_the_trackers(opened: Callable[..., Bench]) -> None:
    tail = Tail(0.0, 0.0, 6.5, REPORTED)
    track = Track(
        LocalFrame(47.39, -8.54), (-1e4, -1e4, 1e4, 1e4), time.monotonic(), FIX, tail,
        np.zeros(2), REPORTED, 1.0, 1.0, 60.0, None, None,
    )  # fmt: skip
    bench = opened("?messages=gps_input", running(tracker=SimpleNamespace(track=track)))
    bench.stand()
    bench.send()
    (got,) = bench.heard()
    assert not got.ignore_flags & (8 | 32)
    assert got.speed_accuracy == pytest.approx(REPORTED.sigma_mps, rel=0.02)


def test_timesync_is_answered_on_the_clock_of_the_time_stamps(opened: Callable[..., Bench]) -> None:
    bench = opened("?messages=odometry")
    bench.stand()
    bench.say(m.MAVLink_timesync_message(0, 777))
    bench.sink.idle()
    bench.send()
    (answer, odometry) = bench.heard()
    assert (answer.get_type(), answer.ts1) == ("TIMESYNC", 777)
    assert 0 <= odometry.time_usec * 1000 - answer.tc1 < PATIENCE_S * 1e9


def test_gps_time_goes_with_a_fix_whose_utc_is_known(opened: Callable[..., Bench]) -> None:
    bench = opened("?messages=gps_input")
    bench.stand()
    bench.send(utc_s=1_785_000_000.125)
    (got,) = bench.heard()
    assert (got.time_week, got.time_week_ms) == (2428, 580_818_125)


def test_fixes_of_files_keep_their_own_clock(opened: Callable[..., Bench]) -> None:
    bench = opened("?as=px4&messages=global_position_sensor", running(is_live=False))
    bench.beat()
    bench.sink.send(Moment(replace(FIX, t=12.5), None))
    (got,) = bench.heard()
    assert (got.time_usec, got.processing_time) == (12_500_000, 0)


def test_sequence_numbers_count_on(opened: Callable[..., Bench]) -> None:
    bench = opened("?messages=gps_input")
    bench.stand()
    numbers = []
    for _ in range(300):
        bench.send()
        numbers += [g.get_header().seq for g in bench.heard()]
    assert numbers == [i % 256 for i in range(300)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(st.binary(min_size=1, max_size=280), max_size=4),
    st.integers(0, 10),
    st.integers(1, 255),
)
def test_no_bytes_of_the_vehicle_change_what_is_sent(
    shared: Bench, datagrams: list[bytes], at: int, by: int
) -> None:
    bent = bytearray(shared.pilot.pack(m.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3)))
    bent[at] ^= by
    for data in (*datagrams, bytes(bent)):
        shared.socket.sendto(data, shared.to)
    shared.stand()
    shared.send()
    got = shared.heard()
    assert [g.get_type() for g in got] == ["GPS_INPUT"]
    assert (got[0].lat, got[0].lon, got[0].alt, got[0].get_srcSystem()) == (
        473977419, -85455938, 612.5, 42,
    )  # fmt: skip


@pytest.fixture
def shared(opened: Callable[..., Bench]) -> Bench:
    bench = opened("?messages=gps_input")
    bench.stand()
    return bench


def test_the_vehicles_own_position_never_comes_back(opened: Callable[..., Bench]) -> None:
    bench = opened(f"?messages={ALL}")
    bench.stand()
    for lat, lon in ((473977419, -85455938), (0, 0), (-339000000, 1512000000)):
        bench.say(m.MAVLink_global_position_int_message(0, lat, lon, 612_500, 0, 0, 0, 150, 90))
        bench.sink._due_s["reset"] = 0.0
        bench.send()
        gps, sensor, odometry, command = bench.heard()
        for found in ((gps.lat, gps.lon), (sensor.lat, sensor.lon), (command.x, command.y)):
            assert found == (473977419, -85455938)
        assert odometry.x == pytest.approx(861.8, abs=0.1)
    bench.send(Fix(frame=1, t=0.0, state=State.NO_FIX))
    assert bench.kinds() == []


def test_signed_what_is_sent_is_taken_by_pymavlink_and_unsigned_is_not_listened_to(
    opened: Callable[..., Bench], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(128, 160)))
    bench = opened(f"?messages=gps_input&sign={key}")
    bench.reader.signing.secret_key = key.read_bytes()
    for data in (bench.pilot.heartbeat(), bytes(12), bench.pilot.heartbeat()):
        bench.socket.sendto(data, bench.to)
    until(lambda: bench.sink.stream.refused == 2)
    assert bench.sink.vehicle.system is None
    signing = bench.pilot._mav.signing
    signing.secret_key, signing.sign_outgoing = key.read_bytes(), True
    signing.timestamp = int((time.time() - 1_420_070_400) * 100_000)
    bench.stand()
    bench.send()
    bench.send()
    assert bench.kinds() == ["GPS_INPUT", "GPS_INPUT"]
    assert bench.reader.signing.goodsig_count == 2
    signing.secret_key = bytes(32)
    bench.socket.sendto(bench.pilot.pack(m.MAVLink_vfr_hud_message(1, 1, 1, 1, 9.0, 0)), bench.to)
    until(lambda: bench.sink.stream.refused == 3)


def test_one_serial_port_carries_telemetry_and_fixes() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    telemetry = MavlinkTelemetry(f"serial:{os.ttyname(theirs)}:921600")
    run = running(telemetry=telemetry)
    sink = open_sink(parse_sink_url("mavlink:telemetry?messages=gps_input,heartbeat"), run)
    pilot = toy.Autopilot(system=42)
    os.write(ours, pilot.heartbeat() + pilot.attitude(5.0, 0.1) + pilot.global_position(5.0, 80.0))
    until(lambda: sink.vehicle.counts.taken == 3 and telemetry.counts.rows == 2)
    sink.idle()
    sink.send(Moment(replace(FIX, t=time.monotonic()), None))
    reader, got = m.MAVLink(None), []
    while len(got) < 2:
        got += reader.parse_buffer(os.read(ours, 999)) or []
    assert [g.get_type() for g in got] == ["HEARTBEAT", "GPS_INPUT"]
    assert (got[1].alt, got[1].get_srcSystem()) == (500.0, 42)
    sink.close()
    os.write(ours, pilot.attitude(6.0, 0.2))
    until(lambda: telemetry.counts.rows == 3)  # the telemetry lives on
    telemetry.close()
    for end in (ours, theirs):
        os.close(end)


@pytest.mark.parametrize(("kinds", "component"), [("gps_input", 197), ("heartbeat", 198)])
def test_on_a_shared_link_one_of_the_two_sends_heartbeats(kinds: str, component: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pilot:
        pilot.bind(("127.0.0.1", 0))
        pilot.settimeout(PATIENCE_S)
        telemetry = MavlinkTelemetry(f"udpout:127.0.0.1:{pilot.getsockname()[1]}")
        url = parse_sink_url(f"mavlink:telemetry?compid=198&messages={kinds}")
        sink = open_sink(url, running(telemetry=telemetry))
        telemetry._beat_s = 0.0  # due at once
        reader, got = m.MAVLink(None), m.MAVLink_heartbeat_message(0, 0, 0, 0, 0, 0)
        while got.get_type() != "HEARTBEAT" or got.get_srcComponent() != component:
            sink._due_s["beat"] = 0.0
            sink.idle()
            got = reader.decode(bytearray(pilot.recv(999)))
        assert telemetry._is_beating is (component == 197)
        sink.close()
        telemetry.close()


def test_the_link_of_telemetry_that_is_no_stream_cannot_be_shared() -> None:
    with pytest.raises(InputError) as error:
        open_sink(parse_sink_url("mavlink:telemetry"), running())
    assert str(error.value) == (
        "--to mavlink:telemetry: --telemetry is no MAVLink stream; give one (udpin:…, serial:…), "
        "or another address here"
    )


def test_a_missing_serial_device_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError) as error:
        open_sink(parse_sink_url("mavlink:/dev/s4g-none?baud=57600"), running())
    assert str(error.value).startswith("--to mavlink:/dev/s4g-none: no device /dev/s4g-none; found")


def test_a_port_in_use_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        url = f"mavlink+udpin://:{other.getsockname()[1]}"
        with pytest.raises(InputError) as error:
            open_sink(parse_sink_url(url), running())
    assert str(error.value) == (
        f"--to {url}: cannot be opened (Address already in use); another program may listen there; "
        "give another port, or stop it"
    )


def test_udpin_answers_who_sent_last() -> None:
    sink = open_sink(parse_sink_url("mavlink+udpin://:0?messages=gps_input,heartbeat"), running())
    sink.idle()  # nobody is there yet
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pilot:
        pilot.settimeout(PATIENCE_S)
        data = toy.Autopilot(system=42).heartbeat()
        pilot.sendto(data, ("127.0.0.1", sink.stream.link.port))
        until(lambda: sink.vehicle.is_heard)
        sink._due_s["beat"] = 0.0
        sink.idle()
        assert m.MAVLink(None).decode(bytearray(pilot.recv(999))).get_type() == "HEARTBEAT"
    sink.close()


def test_a_lost_tcp_connection_fails_the_fix_and_is_taken_up_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mavlink_stream, "RETRY_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mavlink+tcp://127.0.0.1:{server.getsockname()[1]}?sysid=1&ground_alt=0"
        sink = open_sink(parse_sink_url(url), running())
        first, _ = server.accept()
        first.close()
        second, _ = server.accept()
        second.settimeout(PATIENCE_S)
        sent = False
        while not sent:
            try:
                sink.send(Moment(replace(FIX, t=time.monotonic()), None))
                sent = True
            except OSError:
                time.sleep(0.01)
        (got, *_) = m.MAVLink(None).parse_buffer(second.recv(9999))
        assert got.get_type() == "GPS_INPUT"
        second.close()
        sink.close()
    assert capsys.readouterr().err == ""  # whoever calls `send` tells it


def test_between_frames_positions_go_on_at_the_outputs_own_rate(
    opened: Callable[..., Bench],
) -> None:
    bench = opened("?messages=gps_input")
    bench.stand()
    now_s = time.monotonic()
    track = Track(
        LocalFrame(47.39, -8.54), (-1e4, -1e4, 1e4, 1e4), now_s, replace(FIX, t=now_s),
        Tail(0.0, 0.0, 6.5, REPORTED), np.array([0.0, 20.0]), REPORTED, 1.0, 1.0, 60.0, now_s, None,
    )  # fmt: skip
    outputs = Outputs([(bench.sink, 50.0)], Utc(True), True)
    outputs.observe(Observation(track.said(), {}, track=track))  # one frame, and no other
    got: list[Any] = []
    until(lambda: len(got) >= 4 or got.extend(bench.heard()))
    outputs.close()
    times = [g.time_usec for g in got]
    assert times == sorted(set(times))
    for found in got:
        ahead_m = (found.lat / 1e7 - 47.39) * 111_170  # 20 m/s north
        assert ahead_m == pytest.approx(20 * (found.time_usec / 1e6 - now_s), abs=0.1)
        assert found.horiz_accuracy > 6.5
        assert found.time_week > 2300


def test_closed_it_leaves_no_thread_and_no_port(opened: Callable[..., Bench]) -> None:
    bench = opened()
    bench.sink.close()
    assert not bench.sink.stream.thread.is_alive()
