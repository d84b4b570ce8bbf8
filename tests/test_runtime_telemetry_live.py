"""A stream over loopback; clocks are the real ones, so times are told by what was sent when."""

import runpy
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime import mavlink_stream, telemetry_live
from s4g.runtime.fix import Reason
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry_live import MavlinkTelemetry

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_mavlink.py"))))
PATIENCE_S = 20.0  # of the tests, with a busy machine; nothing is measured


def frame(t: float | None) -> Frame:
    return Frame(0, t, None, "/dev/video0 frame 0", 64, 48, 0.0)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a thread will do."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


class Wire:
    """A telemetry that listens on loopback, and an autopilot that sends to it."""

    def __init__(self, **more: Any) -> None:
        self.telemetry = MavlinkTelemetry("udpin::0", **more)
        self._to = ("127.0.0.1", self.telemetry.stream.link.port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE_S)
        self.pilot = toy.Autopilot()
        self.boot_s = 100.0 - time.monotonic()  # what to add to our time for the autopilot's

    def send(self, *messages: bytes) -> None:
        for message in messages:
            self._socket.sendto(message, self._to)

    def attitude(self, t: float, yaw_rad: float) -> None:
        """Send an attitude of the time t and wait until it has arrived."""
        before = self.counted()
        self.send(self.pilot.attitude(t + self.boot_s, yaw_rad))
        until(lambda: self.counted() > before)

    def counted(self) -> int:
        counts = self.telemetry.counts
        return counts.rows + counts.older + counts.foreign + counts.damaged

    def hear(self) -> Any:
        return toy.common.MAVLink(None).decode(bytearray(self._socket.recv(999)))

    def close(self) -> None:
        self.telemetry.close()
        self._socket.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def test_a_frame_between_two_attitudes_is_interpolated(wire: Wire) -> None:
    now_s = time.monotonic()
    wire.attitude(now_s - 0.2, 0.1)
    wire.attitude(now_s, 0.3)
    tracks = wire.telemetry._collector.tracks
    middle_s = (tracks.body.first_s + tracks.body.last_s) / 2
    found = wire.telemetry.at(frame(middle_s))
    assert found.attitude.yaw_deg == pytest.approx(11.459, abs=0.01)  # 0.2 rad
    assert found.t == middle_s
    assert (found.yaw_known, found.tilt_known, found.agl_known) == (True, True, False)
    assert found.age_s == pytest.approx((tracks.body.last_s - tracks.body.first_s) / 2)


def test_an_offset_is_how_late_frames_are_stamped() -> None:
    wire = Wire(offset_s=5.0)
    wire.attitude(time.monotonic(), 0.1)
    at_s = wire.telemetry._collector.tracks.body.last_s
    assert wire.telemetry.at(frame(at_s)) is Reason.NO_TELEMETRY
    assert wire.telemetry.at(frame(at_s + 5.0)).age_s == pytest.approx(0.0, abs=1e-6)
    wire.close()


def test_a_frame_newer_than_all_waits_for_the_attitude_that_is_due(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry_live, "WAIT_S", PATIENCE_S)
    for ago_s in (0.02, 0.01, 0.0):  # two of the same millisecond would count as one
        wire.attitude(time.monotonic() - ago_s, 0.1)
    at_s = time.monotonic() + 0.05
    results: list[Any] = []
    asker = threading.Thread(target=lambda: results.append(wire.telemetry.at(frame(at_s))))
    asker.start()
    body = wire.telemetry._collector.tracks.body
    while asker.is_alive() or body.last_s < at_s:
        wire.attitude(time.monotonic(), 0.1 if time.monotonic() < at_s else 0.5)
        time.sleep(0.002)
    assert results == [wire.telemetry.at(frame(at_s))]  # what is said once all has come


@pytest.mark.parametrize(
    ("ago_s", "age_s"),
    [((20.0, 12.0), 0.4), ((100.0, 0.5), 0.4), ((0.0, 0.0), 0.009)],
    ids=["overdue", "sparse", "fresh"],
)
def test_a_frame_does_not_wait_where_nothing_is_due_or_needed(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, ago_s: tuple[float, float], age_s: float
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("waited")

    now_s = time.monotonic()
    for one_s in ago_s:
        wire.telemetry._collector.tracks.body.append(now_s - one_s, 1, 0, 0, 0)
    monkeypatch.setattr(wire.telemetry._changed, "wait_for", refuse)
    monkeypatch.setattr(telemetry_live, "WAIT_S", 3.0)
    found = wire.telemetry.at(frame(now_s - ago_s[1] + age_s))
    assert found.age_s == pytest.approx(age_s)


def test_a_frame_long_after_the_last_message_has_no_telemetry(wire: Wire) -> None:
    wire.attitude(time.monotonic(), 0.1)
    last_s = wire.telemetry._collector.tracks.body.last_s
    assert wire.telemetry.at(frame(last_s + 1.01)) is Reason.NO_TELEMETRY
    wire.attitude(time.monotonic(), 0.1)  # it is back
    assert wire.telemetry.at(frame(wire.telemetry._collector.tracks.body.last_s)).yaw_known


def test_noise_and_strangers_do_no_harm(wire: Wire) -> None:
    now_s = time.monotonic()
    wire.attitude(now_s, 0.1)
    # Half a message must not swallow what the next datagram brings.
    wire.send(b"\xfd\xff\x00", b"noise", toy.Autopilot(system=7).attitude(5.0, 2.0))
    until(lambda: wire.telemetry.counts.foreign == 1)
    wire.attitude(now_s + 0.1, 0.2)
    assert wire.telemetry.counts.rows == 2
    assert wire.telemetry.counts.damaged >= 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_no_bytes_stop_the_thread(wire: Wire, datagrams: list[bytes]) -> None:
    wire.send(*datagrams)
    wire.attitude(time.monotonic(), 0.1)
    assert wire.telemetry.stream.thread.is_alive()


def test_a_restart_of_the_autopilot_forgets_and_is_told_once(
    wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    wire.attitude(time.monotonic(), 0.1)
    wire.send(wire.pilot.global_position(time.monotonic() + wire.boot_s, 80.0))
    until(lambda: wire.telemetry.counts.rows == 2)
    for i in (1, 2):
        wire.boot_s -= 50.0
        wire.attitude(time.monotonic(), 0.2)
        assert wire.telemetry.counts.restarts == i
    at_s = wire.telemetry._collector.tracks.body.last_s
    assert not wire.telemetry.at(frame(at_s)).agl_known
    told = [line for line in capsys.readouterr().err.splitlines() if "anew" in line]
    assert told == [
        "--telemetry udpin::0: the autopilot's clock began anew; what it said is forgotten"
    ]


def test_silence_and_return_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(telemetry_live, "MAX_GAP_S", 0.0)
    wire = Wire()
    until(lambda: {"silent"} <= wire.telemetry._said)
    for i in range(3):
        wire.attitude(time.monotonic() + i / 10, 0.1)
    until(lambda: {"silent", "back"} <= wire.telemetry._said)
    wire.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "--telemetry udpin::0: nothing of use for 0 s"
    assert lines[1].startswith("--telemetry udpin::0: is back after ")


def test_it_only_listens_unless_asked(wire: Wire) -> None:
    for i in range(3):
        wire.attitude(time.monotonic() + i / 10, 0.1)
    wire._socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.hear()


def test_asked_to_it_requests_what_it_reads() -> None:
    wire = Wire(request_rates=True)
    wire.pilot = toy.Autopilot(system=42)
    wire.attitude(time.monotonic(), 0.1)
    asked = [wire.hear() for _ in range(6)]
    wire.close()
    assert {m.get_type() for m in asked} == {"COMMAND_LONG"}
    assert {(m.target_system, m.target_component) for m in asked} == {(42, 1)}
    assert {(m.get_srcSystem(), m.get_srcComponent()) for m in asked} == {(42, 197)}
    assert {m.command for m in asked} == {toy.common.MAV_CMD_SET_MESSAGE_INTERVAL}
    assert (asked[0].param1, asked[0].param2) == (toy.common.MAVLINK_MSG_ID_ATTITUDE, 20000)


def test_a_udp_stream_that_has_to_be_asked_for_hears_a_heartbeat() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE_S)
        telemetry = MavlinkTelemetry(f"udpout:127.0.0.1:{server.getsockname()[1]}")
        data, peer = server.recvfrom(999)
        message = toy.common.MAVLink(None).decode(bytearray(data))
        assert (message.get_type(), message.get_srcComponent()) == ("HEARTBEAT", 197)
        server.sendto(toy.Autopilot().attitude(5.0, 0.1), peer)
        until(lambda: telemetry.counts.rows == 1)
        telemetry.close()


def test_a_lost_connection_is_taken_up_again_and_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mavlink_stream, "RETRY_S", 0.01)
    pilot = toy.Autopilot()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        telemetry = MavlinkTelemetry(url)
        for i in range(3):
            peer, _ = server.accept()
            whole = pilot.attitude(5.0 + i, 0.1)
            peer.sendall(b"noise" + whole[:7])
            peer.sendall(whole[7:] + whole[:9])  # and closes within the next message
            until(lambda i=i: telemetry.counts.rows == i + 1)
            peer.close()
        telemetry.close()
    told = [line for line in capsys.readouterr().err.splitlines() if "lost" in line]
    assert told == [f"--telemetry {url}: lost (closed by the other side); trying again"]


def test_frames_without_a_time_are_refused(wire: Wire) -> None:
    with pytest.raises(InputError) as error:
        wire.telemetry.at(Frame(0, None, "a.jpg", "photos/a.jpg", 64, 48, 0.0))
    assert str(error.value) == (
        "--telemetry udpin::0: a stream goes by time, and photos/a.jpg has none; give a CSV with a "
        "'file' column"
    )


def test_a_stream_that_tells_nothing_says_what_it_heard(wire: Wire) -> None:
    assert wire.telemetry.complaint() is None
    wire.send(b"noise")
    until(lambda: wire.telemetry.counts.damaged == 1)
    assert wire.telemetry.at(frame(time.monotonic())) is Reason.NO_TELEMETRY
    assert wire.telemetry.complaint() == (
        "--telemetry udpin::0: covers no frame: no attitude or height came from any autopilot (0 "
        "messages of other systems, 1 damaged); check address and stream rates"
    )


def test_a_stream_beside_recorded_frames_names_both_clocks(wire: Wire) -> None:
    wire.attitude(time.monotonic(), 0.1)
    at_s = wire.telemetry._collector.tracks.body.last_s
    wire.telemetry.at(frame(-50.0))
    assert wire.telemetry.complaint() == (
        f"--telemetry udpin::0: covers no frame: its rows run from {at_s:.3f} to {at_s:.3f} s, the "
        "frames from -50.000 to -50.000 s; a stream goes with a live camera, a log with recorded "
        "frames"
    )
    wire.telemetry.at(frame(at_s))
    assert wire.telemetry.complaint() is None


def test_a_closed_telemetry_leaves_no_thread_and_no_port() -> None:
    wire = Wire()
    wire.close()
    assert not wire.telemetry.stream.thread.is_alive()
    again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    again.bind(wire._to)
    again.close()
