"""The settings of `--to mavlink…`: whom it speaks to, as whom, and which messages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.console import parse_numbers
from ..core.errors import InputError
from .mavlink_local import Origin
from .sink import SinkUrl
from .telemetry_link import Address

# What is sent where the URL does not choose.
DEFAULT_MESSAGES = {
    "ardupilot": ("gps_input",),
    "px4": ("global_position_sensor",),
    "gcs": ("global_position_int", "gps_raw_int"),
}
_COMMON = ("heartbeat", "statustext", "named_value_float")
_TO_AUTOPILOT = ("gps_input", "global_position_sensor", "odometry", "external_position_estimate")
_SETTINGS = (
    "as", "messages", "sysid", "compid", "sensor_id", "gps_id", "ground_alt", "origin", "sign",
    "hdop", "satellites", "baud", "hold",
)  # fmt: skip
_LINKS = {"udp": "udpout", "udpin": "udpin", "tcp": "tcp"}
_GCS_SYSTEM, _GCS_COMPONENT = 200, 1
_COMPONENT = 197  # MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY
_DEFAULT_BAUD = 115_200
HOLD_S = 10.0


@dataclass(frozen=True)
class MavlinkOptions:
    """What the URL says.

    Attributes:
        receiver: `ardupilot`, `px4` or `gcs`.
        kinds: of the messages to send.
        follow: system to listen to, None for the first autopilot heard.
        system: to send as, None for the vehicle's.
        component: to send as.
        sensor_id: of GLOBAL_POSITION_SENSOR.
        gps_id: of GPS_INPUT.
        hdop: made up for GPS_INPUT, None to leave it out.
        satellites: made up for GPS_INPUT, 0 to make none up.
        ground_alt_m: of the ground above mean sea level, None where unknown.
        origin: that the vehicle is asked to take, None where it has its own.
        key: file with the key for signatures, None for none.
        hold_s: for which another place than before has to stand until it is sent.
        address: of the link, None for that of `--telemetry`.
    """

    receiver: str
    kinds: tuple[str, ...]
    follow: int | None
    system: int | None
    component: int
    sensor_id: int
    gps_id: int
    hdop: float | None
    satellites: int
    ground_alt_m: float | None
    origin: Origin | None
    key: Path | None
    hold_s: float
    address: Address | None


def read_options(url: SinkUrl) -> MavlinkOptions:
    """Read the settings.

    Raises:
        InputError: one is wrong.
    """
    url.refuse_others(_SETTINGS)
    receiver = url.choice("as", "ardupilot", tuple(DEFAULT_MESSAGES))
    to_gcs = receiver == "gcs"
    system = _whole(url, "sysid", 1, 255)
    ground = "ground_alt" in url.settings
    return MavlinkOptions(
        receiver=receiver,
        kinds=_kinds(url, receiver),
        follow=None if to_gcs else system,
        system=system or (_GCS_SYSTEM if to_gcs else None),
        component=_whole(url, "compid", 1, 255) or (_GCS_COMPONENT if to_gcs else _COMPONENT),
        sensor_id=_whole(url, "sensor_id", 1, 255) or 1,
        gps_id=_whole(url, "gps_id", 0, 3) or 0,
        hdop=url.number("hdop", 1.0, 0.1, 100.0) if "hdop" in url.settings else None,
        satellites=_whole(url, "satellites", 0, 254) or 0,
        ground_alt_m=url.number("ground_alt", 0.0, -500.0, 9000.0) if ground else None,
        origin=_origin(url),
        key=Path(url.settings["sign"]) if "sign" in url.settings else None,
        hold_s=0.0 if to_gcs else url.number("hold", HOLD_S, 0.0, 600.0),
        address=_address(url),
    )


def _address(url: SinkUrl) -> Address | None:
    if url.via is None and url.rest == "telemetry":
        return None
    if url.via is None and url.rest.startswith("/"):
        baud = _whole(url, "baud", 1200, 12_500_000) or _DEFAULT_BAUD
        return Address(url.name, "serial", url.rest, baud, "--to")
    if url.via not in _LINKS:
        raise InputError(
            f"--to {url.url}: no MAVLink address; expected mavlink+udp://HOST:PORT, "
            "mavlink+udpin://HOST:PORT, mavlink+tcp://HOST:PORT, mavlink:/dev/DEVICE or "
            "mavlink:telemetry"
        )
    return Address(url.name, _LINKS[url.via], *url.host_port(), "--to")


def _kinds(url: SinkUrl, receiver: str) -> tuple[str, ...]:
    text = url.settings.get("messages")
    if text is None:
        return DEFAULT_MESSAGES[receiver] + _COMMON
    # What tells a ground station where the vehicle is would pass for the autopilot's own word.
    allowed = (DEFAULT_MESSAGES["gcs"] if receiver == "gcs" else _TO_AUTOPILOT) + _COMMON
    chosen = tuple(dict.fromkeys(text.split(",")))
    for kind in chosen:
        if kind not in allowed:
            raise InputError(
                f"--to {url.url}: messages={text}: no message {kind!r} with as={receiver}; there "
                f"are {', '.join(allowed)}"
            )
    return chosen


def _whole(url: SinkUrl, key: str, low: int, high: int) -> int | None:
    if key not in url.settings:
        return None
    value = url.number(key, low, low, high)
    if value != int(value):
        raise InputError(f"--to {url.url}: {key}={url.settings[key]} is no whole number")
    return int(value)


def _origin(url: SinkUrl) -> Origin | None:
    text = url.settings.get("origin")
    if text is None:
        return None
    lat, lon, alt_m = parse_numbers(
        text, 3, f"--to {url.url}: origin", "latitude, longitude, altitude"
    )
    if not (abs(lat) <= 90 and abs(lon) <= 180 and abs(alt_m) <= 9000):
        raise InputError(
            f"--to {url.url}: origin={text} is no place; expected degrees, degrees, metres above "
            "sea"
        )
    return Origin(lat, lon, alt_m)
