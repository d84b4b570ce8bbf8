"""Fixes as MAVLink messages, to an autopilot or to a ground station that has none to listen to.

An autopilot takes up a position that it has refused for seven to ten seconds: its own gate does
not save it from one that is wrong for longer. So a fix without a position is silence here. No
GPS_INPUT "without a fix" is sent either: it would carry numbers in `lat` and `lon`, and ArduPilot
copies them before it looks at `fix_type`; its filter takes nothing while no message comes, and
after four seconds it has the receiver down as without a fix. STATUSTEXT tells at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..core.console import say
from ..core.errors import InputError
from . import mavlink_messages as messages
from . import mavlink_status as status
from .cli_part import Running
from .fix import Fix, State
from .mavlink_hold import Hold
from .mavlink_local import Measure, ardupilot_metres, px4_metres
from .mavlink_messages import Place
from .mavlink_options import read_options
from .mavlink_signing import Signer
from .mavlink_stream import MavlinkStream
from .mavlink_vehicle import Vehicle
from .sink import Moment, SinkUrl
from .telemetry_live import MavlinkTelemetry
from .telemetry_mavlink import load_dialect

DEFAULT_RATE_HZ = 10.0
# A position this old is none any more: whatever held it up, a newer one is on its way.
STALE_S = 1.0
_BEAT_S = 1.0
_VALUES_S = 0.5
_TEXT_S = 1.0  # a state that flickers is not told more often
_ORIGIN_S = 5.0
# It puts the filter where it says, and is meant for now and then.
_RESET_S = 1.0


def open_sink(url: SinkUrl, running: Running) -> MavlinkSink:
    """Open an output `mavlink+udp://HOST:PORT`, `mavlink:/dev/ttyTHS1?baud=921600` and so on.

    Raises:
        InputError: a setting is wrong, or the link cannot be opened.
    """
    return MavlinkSink(url, running)


class MavlinkSink:
    """Sends what `as=` and `messages=` say; follows the vehicle heard on the same link.

    Attributes:
        withheld: positions that were not sent, by what was lacking.
    """

    wants_all = False
    wants_frames = False
    frame_period_s = 0.0
    default_rate_hz: float | None = DEFAULT_RATE_HZ

    def __init__(self, url: SinkUrl, running: Running) -> None:
        """Open the link, or share that of `--telemetry`."""
        self.name = url.name
        self._label = f"--to {url.name}"
        self._options = options = read_options(url)
        self._tracker = running.tracker
        self._is_live = running.is_live
        self._measure: Measure = px4_metres if options.receiver == "px4" else ardupilot_metres
        signer = None if options.key is None else Signer(options.key, self._label)
        self._hold = Hold(options.hold_s)
        self.vehicle = Vehicle(options.follow)
        self.withheld: dict[str, int] = {}
        self._said: set[str] = set()
        self._text: Fix | None = None
        self._told: tuple[State, object] | None = None
        self._due_s = dict.fromkeys(("beat", "values", "text", "origin", "reset"), -math.inf)
        self._is_shared, self.stream = self._open(running)
        self._dialect: Any = self.stream.dialect
        if signer is not None:
            self.stream.sign(signer)
        if not self._is_shared:
            self.stream.start(self)

    def send(self, moment: Moment) -> None:
        """Send what is due of a fix.

        Raises:
            OSError: the link is lost.
        """
        fix, now_s = moment.fix, time.monotonic()
        self._note_state(fix)
        if self._sender() is None:
            self._withhold("vehicle", "no autopilot's HEARTBEAT has come yet; nothing is sent")
            return
        place = messages.place_of(fix, moment.utc_s, self._speed_sigma_mps(fix))
        is_held = self._hold.keeps(place is not None, fix.t, moment.resets)
        # A live fix carries the time of this machine's clock, which goes on while it waits.
        sent_s = now_s if self._is_live else (fix.t or 0.0) + moment.delay_s
        if place is not None and sent_s - place.t > STALE_S:
            self._withhold("stale", f"a fix was over {STALE_S:g} s old and was not sent")
        elif place is not None and is_held:
            self._withhold(
                "hold",
                f"another place was taken up; it is sent once it has stood for "
                f"{self._hold.seconds:g} s (hold=)",
            )
        elif place is not None:
            self._send_place(place, fix, moment.resets, sent_s, now_s)
        if "named_value_float" in self._options.kinds and self._is_due("values", _VALUES_S, now_s):
            for message in status.named_values(self._dialect, fix):
                self._post(message)
        self._tell_state(now_s)

    def idle(self) -> None:
        """Send heartbeats, and what else is due without a fix."""
        now_s = time.monotonic()
        if "heartbeat" in self._options.kinds and self._is_due("beat", _BEAT_S, now_s):
            self._post(status.heartbeat(self._dialect, is_vehicle=self._options.receiver == "gcs"))
        self._tell_state(now_s)
        self._answer(now_s)
        if (
            "odometry" in self._options.kinds
            and self.vehicle.is_heard
            and self.vehicle.origin is None
        ):
            self._settle_origin(now_s)

    def close(self) -> None:
        """Release the link, unless it is that of `--telemetry`."""
        if not self._is_shared:
            self.stream.close()

    def take(self, heard: Sequence[Any], damaged: int, now_s: float) -> None:
        """Take what the vehicle says (`mavlink_stream.Listener`)."""
        if damaged:
            self.vehicle.note_damage(damaged)
        for message in heard:
            try:
                self.vehicle.add(message, now_s)
            except Exception:  # whatever is in it, the next may be good
                self.vehicle.note_damage(1)

    def reopened(self) -> None:
        """Go on (`mavlink_stream.Listener`)."""

    def _send_place(self, place: Place, fix: Fix, resets: int, sent_s: float, now_s: float) -> None:
        makers: dict[str, Callable[[], Any]] = {
            "gps_input": lambda: self._gps_input(place, fix, now_s),
            "global_position_sensor": lambda: messages.global_position_sensor(
                self._dialect, place, self._alt_m(fix, now_s), sent_s, self._options.sensor_id,
                self._target(),
            ),
            "external_position_estimate": lambda: self._estimate(place, fix, sent_s, now_s),
            "odometry": lambda: self._odometry(place, fix, resets, now_s),
            "global_position_int": lambda: messages.global_position_int(
                self._dialect, place, self._shown_alt_m(fix, now_s), fix.agl_m
            ),
            "gps_raw_int": lambda: messages.gps_raw_int(
                self._dialect, place, self._shown_alt_m(fix, now_s)
            ),
        }  # fmt: skip
        for kind in self._options.kinds:
            if (make := makers.get(kind)) and (message := make()) is not None:
                self._post(message)

    def _gps_input(self, place: Place, fix: Fix, now_s: float) -> Any | None:
        alt_m = self._alt_m(fix, now_s)
        if alt_m is None:
            # ArduPilot would take an altitude that is left out for 0.
            self._withhold(
                "altitude",
                "GPS_INPUT needs an altitude, and the vehicle tells none (GLOBAL_POSITION_INT, "
                "ALTITUDE or VFR_HUD); it is not sent: stream one of them, or give ground_alt=M",
            )
            return None
        return messages.gps_input(
            self._dialect,
            place,
            alt_m,
            self._options.gps_id,
            self._options.hdop,
            self._options.satellites,
        )

    def _estimate(self, place: Place, fix: Fix, sent_s: float, now_s: float) -> Any | None:
        # It is no measurement that a filter weighs: only what was matched is worth it.
        if fix.state is not State.TRACK or not self._is_due("reset", _RESET_S, now_s):
            return None
        return messages.external_position_estimate(self._dialect, place, sent_s, self._target())

    def _odometry(self, place: Place, fix: Fix, resets: int, now_s: float) -> Any | None:
        origin, body = self.vehicle.origin, self.vehicle.body(now_s)
        alt_m = self._alt_m(fix, now_s)
        if origin is None:
            self._withhold(
                "origin",
                "ODOMETRY needs the vehicle's GPS_GLOBAL_ORIGIN, which it has not told; it is not "
                "sent: let the vehicle set one, or give origin=LAT,LON,ALT",
            )
            return None
        if body is None or alt_m is None:
            self._withhold(
                "body",
                "ODOMETRY needs the vehicle's ATTITUDE, climb and altitude, and one is missing; "
                "it is not sent: stream ATTITUDE and GLOBAL_POSITION_INT",
            )
            return None
        north_m, east_m = self._measure(origin, place.lat, place.lon)
        return messages.odometry(
            self._dialect,
            place,
            (north_m, east_m, origin.alt_m - alt_m),
            body,
            resets + self.vehicle.origin_moves,
        )

    def _alt_m(self, fix: Fix, now_s: float) -> float | None:
        """Return the altitude above mean sea level: as the user says, else as the vehicle does."""
        if self._options.ground_alt_m is not None and fix.agl_m is not None:
            return self._options.ground_alt_m + fix.agl_m
        return self.vehicle.alt_m(now_s)

    def _shown_alt_m(self, fix: Fix, now_s: float) -> float | None:
        alt_m = self._alt_m(fix, now_s)
        if alt_m is None:
            self._say_once("shown", "altitude above sea is unknown, sent as 0; give ground_alt=M")
        return alt_m

    def _speed_sigma_mps(self, fix: Fix) -> float | None:
        """Return how well the speed is known, which a fix does not tell."""
        track = None if self._tracker is None else self._tracker.track
        tail = None if track is None or fix.t is None else track.expected(fix.t)
        if tail is None or fix.vn_mps is None:
            return None
        return math.sqrt(float(tail.covariance[2, 2] + tail.covariance[3, 3]) / 2)

    def _note_state(self, fix: Fix) -> None:
        if (fix.state, fix.reason) != self._told:
            self._text = fix
        else:
            self._text = None

    def _tell_state(self, now_s: float) -> None:
        fix = self._text
        if fix is None or "statustext" not in self._options.kinds or self._sender() is None:
            return
        if self._is_due("text", _TEXT_S, now_s):
            self._post(status.statustext(self._dialect, fix))
            self._told, self._text = (fix.state, fix.reason), None

    def _answer(self, now_s: float) -> None:
        if not self._is_live:
            return
        while self.vehicle.asked_ns:
            asked_ns = self.vehicle.asked_ns.pop(0)
            self._post(status.timesync(self._dialect, asked_ns, now_s))

    def _settle_origin(self, now_s: float) -> None:
        """Ask the vehicle for its origin, or to take the user's; what it then tells counts."""
        if not self._is_due("origin", _ORIGIN_S, now_s):
            return
        if self._options.origin is not None:
            self._post(
                status.set_origin(self._dialect, self._options.origin, self._target(), now_s)
            )
        self._post(status.ask_origin(self._dialect, self._target()))

    def _sender(self) -> int | None:
        """Return the system to send as: the user's, else the vehicle's, None before it is heard."""
        return self._options.system if self._options.system is not None else self.vehicle.system

    def _target(self) -> int:
        return self.vehicle.system or self._options.system or 0

    def _post(self, message: Any) -> None:
        # Before the vehicle is heard, whoever listens to heartbeats takes us for system 1.
        self.stream.post(message, self._sender() or 1, self._options.component)

    def _is_due(self, what: str, period_s: float, now_s: float) -> bool:
        if now_s < self._due_s[what]:
            return False
        self._due_s[what] = now_s + period_s
        return True

    def _withhold(self, what: str, why: str) -> None:
        self.withheld[what] = self.withheld.get(what, 0) + 1
        self._say_once(what, why)

    def _say_once(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            say(f"{self._label}: {text}")

    def _open(self, running: Running) -> tuple[bool, MavlinkStream]:
        if self._options.address is not None:
            dialect = load_dialect(self._label)
            return False, MavlinkStream(self._label, self._options.address, dialect, tells=False)
        if not isinstance(running.telemetry, MavlinkTelemetry):
            raise InputError(
                f"{self._label}: --telemetry is no MAVLink stream; give one (udpin:…, serial:…), "
                "or another address here"
            )
        return True, running.telemetry.share(self, beats="heartbeat" in self._options.kinds)
