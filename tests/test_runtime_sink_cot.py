"""Cursor on Target: events by its conventions, sent over UDP and TCP, read by takproto."""

from __future__ import annotations

import importlib.util
import math
import runpy
import socket
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime import sink_cot
from s4g.runtime.cot import CE_PER_SIGMA, CotIdentity, cot_event
from s4g.runtime.fix import State
from s4g.runtime.sink import Moment

t = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sink_moments.py"))))
WHO = CotIdentity("s4g-1", "Falke 1")
WAIT_S = 20.0


def parsed(moment: Moment, who: CotIdentity = WHO) -> ET.Element:
    event = cot_event(moment, who, 5.0)
    assert event is not None
    return ET.fromstring(event)


def open_cot(text: str) -> Any:
    return sink_cot.open_sink(t.url(text), t.running())


def test_an_event_is_what_the_schema_says() -> None:
    moment = t.seen_at(-47.25, 11.5, 3, sigma_m=2.5)
    event = cot_event(moment, WHO, 5.0)
    assert event == (
        b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
        b'<event version="2.0" uid="s4g-1" type="a-f-A-M-F-Q" time="2026-05-04T09:30:00.725Z" '
        b'start="2026-05-04T09:30:00.725Z" stale="2026-05-04T09:30:05.725Z" how="m-p">'
        b'<point lat="-47.2500000" lon="11.5000000" hae="9999999.0" ce="5.36" le="9999999.0"/>'
        b'<detail><contact callsign="Falke 1"/>'
        b'<precisionlocation geopointsrc="CALC" altsrc="???"/>'
        b'<track course="143.13" speed="5.00"/><remarks>TRACK (visual)</remarks></detail></event>'
    )


def test_ce_is_the_radius_that_holds_nine_positions_in_ten() -> None:
    assert math.isclose(CE_PER_SIGMA, 2.146, abs_tol=5e-4)
    # A circular Gaussian within r: 1 - exp(-r²/2σ²).
    assert math.isclose(1 - math.exp(-(CE_PER_SIGMA**2) / 2), 0.90, rel_tol=1e-12)


def test_a_delay_separates_the_time_of_the_event_from_that_of_the_fix() -> None:
    fix = t.seen_at(47.0, 11.0).fix
    event = parsed(Moment(fix, t.START_UTC_S, delay_s=0.25))
    assert event.attrib["time"] == "2026-05-04T09:30:00.375Z"
    assert event.attrib["start"] == "2026-05-04T09:30:00.125Z"
    assert event.attrib["stale"] == "2026-05-04T09:30:05.125Z"


@given(moment=t.moments())
def test_there_is_no_event_without_a_position_or_a_time(moment: Moment) -> None:
    event = cot_event(moment, WHO, 5.0)
    assert (event is None) == (moment.fix.lat is None or moment.utc_s is None)
    if event is not None:
        point = ET.fromstring(event).find("point")
        assert point is not None and moment.fix.lat is not None and moment.fix.lon is not None
        assert math.isclose(float(point.attrib["lat"]), moment.fix.lat, abs_tol=6e-8)
        assert math.isclose(float(point.attrib["lon"]), moment.fix.lon, abs_tol=6e-8)
        assert point.attrib["hae"] == point.attrib["le"] == "9999999.0"


def test_no_course_is_made_up_where_no_speed_is_known() -> None:
    assert parsed(t.seen_at(47.0, 11.0, ve_mps=None)).find("detail/track") is None


@given(east=st.floats(-100, 100), north=st.floats(-100, 100))
def test_a_course_is_from_0_to_below_360(east: float, north: float) -> None:
    track = parsed(t.seen_at(47.0, 11.0, ve_mps=east, vn_mps=north)).find("detail/track")
    assert track is not None
    assert 0 <= float(track.attrib["course"]) < 360
    if math.hypot(east, north) > 1:
        angle = math.radians(float(track.attrib["course"]))
        assert math.isclose(math.sin(angle), east / math.hypot(east, north), abs_tol=1e-3)
        assert math.isclose(math.cos(angle), north / math.hypot(east, north), abs_tol=1e-3)


def test_a_course_that_rounds_to_360_is_north() -> None:
    track = parsed(t.seen_at(47.0, 11.0, ve_mps=-1e-6, vn_mps=5.0)).find("detail/track")
    assert track is not None
    assert track.attrib["course"] == "0.00"


@given(name=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1))
def test_any_name_that_can_be_printed_arrives_as_it_is(name: str) -> None:
    try:
        who = CotIdentity(name, name)
    except ValueError:
        assert not name.strip() or not name.isprintable()
        return
    event = parsed(t.seen_at(47.0, 11.0), who)
    contact = event.find("detail/contact")
    assert contact is not None
    assert (event.attrib["uid"], contact.attrib["callsign"]) == (name, name)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("uid=", "uid='' is empty or has characters that XML has not"),
        ("callsign=a%00b", "callsign='a\\x00b' is empty or has characters that XML has not"),
        (
            "type=drone",
            "type=drone is no type of Cursor on Target; expected one like a-f-A-M-F-Q",
        ),
        ("stale=0", "stale=0 is no number from 1 to 86400"),
        ("baud=9600", "no setting 'baud' here; there are callsign, rate, stale, ttl, type, uid"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: str, complaint: str) -> None:
    url = f"cot+udp://127.0.0.1:6969?{settings}"
    with pytest.raises(InputError) as error:
        open_cot(url)
    assert str(error.value) == f"--to {url}: {complaint}"


def test_a_url_without_a_host_is_refused() -> None:
    with pytest.raises(InputError) as error:
        open_cot("cot:track.xml")
    assert str(error.value) == (
        "--to cot:track.xml: expected cot+udp://HOST:PORT, such as cot+udp://239.2.3.1:6969"
    )


def test_a_server_that_does_not_listen_is_refused_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(InputError) as error:
        open_cot(f"cot+tcpout://127.0.0.1:{port}")
    assert str(error.value) == (
        f"--to cot+tcpout://127.0.0.1:{port}: cannot be opened (Connection refused); check host "
        "and port, and that the other side listens"
    )


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(WAIT_S)
        yield receiver


def test_each_datagram_is_one_event_and_no_fix_is_none(receiver: socket.socket) -> None:
    sink = open_cot(f"cot+udp://127.0.0.1:{receiver.getsockname()[1]}?uid=a&callsign=B%26B")
    assert (sink.wants_all, sink.default_rate_hz) == (False, 1.0)
    for moment in (t.seen_at(47.0, 11.0, 0), t.lost_at(1), t.seen_at(47.1, 11.0, 2)):
        sink.send(moment)
        sink.idle()
    sink.close()
    events = [ET.fromstring(receiver.recv(65535)) for _ in range(2)]
    points = [point for event in events for point in event.iter("point")]
    assert [point.attrib["lat"] for point in points] == ["47.0000000", "47.1000000"]
    assert [event.attrib["uid"] for event in events] == ["a", "a"]
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(65535)


def test_an_event_goes_to_a_group(receiver: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        member.bind(("239.2.3.1", 0))
        member.settimeout(WAIT_S)
        try:
            request = struct.pack("4sI", socket.inet_aton("239.2.3.1"), socket.INADDR_ANY)
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            sink = open_cot(f"cot+udp://239.2.3.1:{member.getsockname()[1]}?ttl=0")
            sink.send(t.seen_at(47.0, 11.0))
        except OSError as error:
            pytest.skip(f"no network here for multicast: {error}")
        assert ET.fromstring(member.recv(65535)).attrib["how"] == "m-p"
        sink.close()


def test_a_tak_server_gets_events_one_after_the_other_and_may_talk_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = open_cot(f"cot+tcpout://127.0.0.1:{server.getsockname()[1]}")
        connection, _ = server.accept()
        with connection:
            connection.settimeout(WAIT_S)
            connection.sendall(b"<event/>" * 2000)
            sink.send(t.seen_at(47.0, 11.0, 0))
            sink.idle()
            sink.send(t.seen_at(47.1, 11.0, 1))
            sink.close()
            data = b""
            try:
                while more := connection.recv(65535):
                    data += more
            except ConnectionResetError:
                pass  # what was not read of the talk resets the connection after the last event
    assert data.count(b"<?xml") == 2
    assert data.endswith(b"</event>")


def test_a_flight_whose_utc_nobody_knows_is_told_with_the_remedy(receiver: socket.socket) -> None:
    sink = open_cot(f"cot+udp://127.0.0.1:{receiver.getsockname()[1]}")
    with pytest.raises(OSError) as error:
        sink.send(t.seen_at(47.0, 11.0, utc_s=None))
    assert str(error.value) == ("an event needs the time in UTC, and it is not known; add --epoch")
    sink.close()


def test_a_uid_is_the_same_for_a_machine_each_time(receiver: socket.socket) -> None:
    port = receiver.getsockname()[1]
    uids = []
    for _ in range(2):
        sink = open_cot(f"cot+udp://127.0.0.1:{port}")
        sink.send(t.seen_at(47.0, 11.0))
        sink.close()
        uids.append(ET.fromstring(receiver.recv(65535)).attrib["uid"])
    assert uids[0] == uids[1]
    assert uids[0].startswith("s4g-")
    assert socket.gethostname() not in uids[0]


@pytest.mark.skipif(
    importlib.util.find_spec("takproto") is None, reason="takproto is not installed"
)
def test_takproto_reads_the_event() -> None:
    import takproto

    moment = t.seen_at(47.25, -11.5, 3, state=State.DEGRADED, source="propagated")
    event = cot_event(moment, WHO, 5.0)
    assert event is not None
    read = takproto.parse_proto(bytearray(event)).cotEvent
    assert (read.uid, read.type, read.how) == ("s4g-1", "a-f-A-M-F-Q", "m-p")
    assert (read.lat, read.lon) == (47.25, -11.5)
    assert math.isclose(read.ce, 5.36)
    assert (read.hae, read.le) == (9999999.0, 9999999.0)
    assert read.startTime == 1777887000725
    assert read.staleTime - read.startTime == 5000
    assert read.detail.contact.callsign == "Falke 1"
    assert (read.detail.track.course, read.detail.track.speed) == (143.13, 5.0)
    assert read.detail.precisionLocation.geopointsrc == "CALC"
    assert "DEGRADED (propagated)" in read.detail.xmlDetail
