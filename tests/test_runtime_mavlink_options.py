from pathlib import Path

import pytest

from s4g.core.errors import InputError
from s4g.runtime.mavlink_local import Origin
from s4g.runtime.mavlink_options import MavlinkOptions, read_options
from s4g.runtime.sink import parse_sink_url
from s4g.runtime.telemetry_link import Address

COMMON = ("heartbeat", "statustext", "named_value_float")
UDP = "mavlink+udp://127.0.0.1:14550"


def read(url: str) -> MavlinkOptions:
    return read_options(parse_sink_url(url))


def test_left_alone_it_speaks_to_ardupilot_as_the_vehicles_odometry_component() -> None:
    assert read(UDP) == MavlinkOptions(
        "ardupilot", ("gps_input", *COMMON), None, None, 197, 1, 0, None, 0, None, None, None, 10.0,
        Address(UDP, "udpout", "127.0.0.1", 14550, "--to"),
    )  # fmt: skip


def test_every_setting_is_read() -> None:
    got = read(
        UDP + "?as=px4&messages=odometry,heartbeat&sysid=7&compid=198&sensor_id=3&gps_id=1"
        "&ground_alt=-2.5&origin=47.5,-8.25,488&sign=/etc/key&hdop=1.2&satellites=10&hold=5&rate=20"
    )
    assert got == MavlinkOptions(
        "px4", ("odometry", "heartbeat"), 7, 7, 198, 3, 1, 1.2, 10, -2.5,
        Origin(47.5, -8.25, 488.0), Path("/etc/key"), 5.0,
        Address(UDP, "udpout", "127.0.0.1", 14550, "--to"),
    )  # fmt: skip


def test_px4_and_ground_stations_get_messages_of_their_own() -> None:
    assert read(UDP + "?as=px4").kinds == ("global_position_sensor", *COMMON)
    gcs = read(UDP + "?as=gcs")
    assert gcs.kinds == ("global_position_int", "gps_raw_int", *COMMON)
    assert (gcs.system, gcs.component, gcs.follow, gcs.hold_s) == (200, 1, None, 0.0)


@pytest.mark.parametrize(
    ("url", "kind", "host", "port"),
    [
        ("mavlink+udp://10.0.0.2:14550", "udpout", "10.0.0.2", 14550),
        ("mavlink+udpin://:14551", "udpin", "127.0.0.1", 14551),
        ("mavlink+tcp://[::1]:5760", "tcp", "::1", 5760),
        ("mavlink:/dev/ttyTHS1?baud=921600", "serial", "/dev/ttyTHS1", 921600),
        ("mavlink:/dev/ttyACM0", "serial", "/dev/ttyACM0", 115200),
    ],
)
def test_addresses_are_those_of_telemetry(url: str, kind: str, host: str, port: int) -> None:
    assert read(url).address == Address(url.partition("?")[0], kind, host, port, "--to")


def test_the_link_of_the_telemetry_has_no_address() -> None:
    assert read("mavlink:telemetry").address is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("as=inav", "as=inav is none of ardupilot, px4, gcs"),
        (
            "messages=gps_input,vision",
            "messages=gps_input,vision: no message 'vision' with as=ardupilot; there are "
            "gps_input, global_position_sensor, odometry, external_position_estimate, heartbeat, "
            "statustext, named_value_float",
        ),
        (  # it would pass for the autopilot's own word
            "messages=global_position_int",
            "messages=global_position_int: no message 'global_position_int' with as=ardupilot; "
            "there are gps_input, global_position_sensor, odometry, external_position_estimate, "
            "heartbeat, statustext, named_value_float",
        ),
        (
            "as=gcs&messages=gps_input",
            "messages=gps_input: no message 'gps_input' with as=gcs; there are "
            "global_position_int, gps_raw_int, heartbeat, statustext, named_value_float",
        ),
        ("sysid=0", "sysid=0 is no number from 1 to 255"),
        ("compid=256", "compid=256 is no number from 1 to 255"),
        ("sensor_id=1.5", "sensor_id=1.5 is no whole number"),
        ("sensor_id=0", "sensor_id=0 is no number from 1 to 255"),
        ("ground_alt=high", "ground_alt=high is no number from -500 to 9000"),
        ("hold=-1", "hold=-1 is no number from 0 to 600"),
        ("hdop=0", "hdop=0 is no number from 0.1 to 100"),
        ("satellites=255", "satellites=255 is no number from 0 to 254"),
        (
            "origin=97,8,400",
            "origin=97,8,400 is no place; expected degrees, degrees, metres above sea",
        ),
        (
            "speed=9",
            "no setting 'speed' here; there are as, baud, compid, gps_id, ground_alt, hdop, hold, "
            "messages, origin, rate, satellites, sensor_id, sign, sysid",
        ),
    ],
)
def test_wrong_settings_are_refused(query: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        read(f"{UDP}?{query}")
    assert str(error.value) == f"--to {UDP}?{query}: {message}"


def test_an_origin_of_two_numbers_is_refused() -> None:
    with pytest.raises(InputError) as error:
        read(f"{UDP}?origin=47,8")
    assert str(error.value) == (
        f"--to {UDP}?origin=47,8: origin 47,8: expected latitude, longitude, altitude"
    )


@pytest.mark.parametrize("url", ["mavlink:flight.tlog", "mavlink+quic://host:1", "mavlink:"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError) as error:
        read(url)
    assert str(error.value) == (
        f"--to {url}: no MAVLink address; expected mavlink+udp://HOST:PORT, "
        "mavlink+udpin://HOST:PORT, mavlink+tcp://HOST:PORT, mavlink:/dev/DEVICE or "
        "mavlink:telemetry"
    )
