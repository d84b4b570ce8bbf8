"""A MAVLink stream while it runs: a thread reads it, frames are looked up at their capture time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..core.console import say
from ..core.errors import InputError
from .fix import Reason
from .frames import Frame
from .mavlink_status import heartbeat
from .mavlink_stream import Listener, MavlinkStream
from .telemetry_link import parse_address
from .telemetry_mavlink import Collector, Counts, load_dialect
from .telemetry_sample import Coverage, Sample
from .telemetry_series import MAX_GAP_S
from .telemetry_vehicle import Mount, Tracks, sample_at

# A frame newer than the newest attitude waits this long for the next one, if one is due by then:
# its attitude is then interpolated, not held. One held for less than `HELD_S` is as good: at
# 30 degrees per second it is 0.3 degrees off.
WAIT_S = 0.03
HELD_S = 0.01
KEPT_ROWS = 2048  # of each quantity: 20 s of the fastest usual streams
_HEARTBEAT_S = 1.0
_OUR_COMPONENT = 197  # MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY
_RATES_HZ = {
    "ATTITUDE": 50,
    "GLOBAL_POSITION_INT": 10,
    "LOCAL_POSITION_NED": 10,
    "DISTANCE_SENSOR": 10,
    "TERRAIN_REPORT": 2,
    "GIMBAL_DEVICE_ATTITUDE_STATUS": 20,
}


class MavlinkTelemetry:
    """Telemetry from a running MAVLink stream; frames' times are of the monotonic clock.

    Listens only, but for `request_rates`, and for a heartbeat each second on `udpout:`, without
    which the other side would not know whom to send to.

    Args:
        url: `udpin:HOST:PORT`, `udpout:HOST:PORT`, `tcp:HOST:PORT` or `serial:/dev/DEVICE:BAUD`;
            without HOST, this machine alone.
        mount_deg: yaw, pitch, roll of a camera fixed to the body (`telemetry_vehicle.sample_at`).
        system: to listen to; None takes the first whose autopilot tells its attitude.
        request_rates: ask the autopilot for the messages that are read, at useful rates.
        offset_s: how much later than the moment they show frames are stamped.

    Raises:
        InputError: the URL is none, it cannot be opened, or pymavlink is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        mount_deg: Mount | None = None,
        system: int | None = None,
        request_rates: bool = False,
        offset_s: float = 0.0,
    ) -> None:
        """Open the stream and start to read it."""
        self.name = f"--telemetry {url}"
        self._address = parse_address(url)
        self._dialect = load_dialect(self.name)
        self._mount = mount_deg
        self._offset_s = offset_s
        self._request_rates = request_rates
        self._coverage = Coverage()
        self._collector = Collector(Tracks.limited(KEPT_ROWS), system, forget=True)
        self._changed = threading.Condition()
        self._said: set[str] = set()
        self._asked_at_restart = -1
        self._is_beating = self._address.kind == "udpout"
        self._heard_s = self._beat_s = time.monotonic()
        self.stream = MavlinkStream(self.name, self._address, self._dialect)
        self.stream.start(self)

    @property
    def counts(self) -> Counts:
        """What became of the messages so far."""
        with self._changed:
            return replace(self._collector.counts)

    def at(self, frame: Frame) -> Sample | Reason:
        """Return the camera's attitude and height when a frame was taken, as far as known.

        Raises:
            InputError: the frame has no time.
        """
        if frame.t is None:
            raise InputError(
                f"{self.name}: a stream goes by time, and {frame.name} has none; give a CSV with a "
                "'file' column"
            )
        t = frame.t - self._offset_s
        with self._changed:
            body = self._collector.tracks.body
            if self._is_due(t):
                self._changed.wait_for(lambda: (body.last_s or 0.0) >= t, WAIT_S)
            sample = sample_at(self._collector.tracks, t, frame, self._mount)
        self._coverage.note(frame, isinstance(sample, Sample))
        return sample

    def _is_due(self, t: float) -> bool:
        """Tell whether an attitude later than t is to be expected within the time to wait."""
        body = self._collector.tracks.body
        step_s, last_s = body.last_step_s, body.last_s
        if step_s is None or last_s is None or t - last_s <= HELD_S:
            return False
        return abs(last_s + step_s - time.monotonic()) <= WAIT_S

    def complaint(self) -> str | None:
        """Return one line that says why no frame so far was covered; None where one was."""
        with self._changed:
            rows_s, counts = self._collector.tracks.range_s, self._collector.counts
            system = self._collector.system
        if rows_s is not None:
            on_frames = (rows_s[0] + self._offset_s, rows_s[1] + self._offset_s)
            remedy = "a stream goes with a live camera, a log with recorded frames"
            return self._coverage.clocks(self.name, on_frames, remedy)
        if not self._coverage.is_empty:
            return None
        return (
            f"{self.name}: covers no frame: no attitude or height came from "
            f"{'any autopilot' if system is None else f'system {system}'} ({counts.foreign} "
            f"messages of other systems, {counts.damaged} damaged); check address and stream rates"
        )

    def close(self) -> None:
        """Stop the thread and release the stream."""
        self.stream.close()

    def share(self, listener: Listener, beats: bool) -> MavlinkStream:
        """Hand what comes to an output, too, which sends on the same link from now on.

        Args:
            listener: the output.
            beats: whether it sends heartbeats; they are then its business alone.
        """
        self._is_beating = self._is_beating and not beats
        self.stream.share(listener)
        return self.stream

    def take(self, heard: Sequence[Any], damaged: int, now_s: float) -> None:
        """Take what came (`mavlink_stream.Listener`)."""
        if self._collect(heard, damaged, now_s):
            if now_s - self._heard_s > MAX_GAP_S:
                self._say_once("back", f"is back after {now_s - self._heard_s:.1f} s")
            self._heard_s = now_s
        elif now_s - self._heard_s > MAX_GAP_S:
            self._say_once("silent", f"nothing of use for {MAX_GAP_S:g} s")
        if self._is_beating and now_s >= self._beat_s:
            self._beat_s = now_s + _HEARTBEAT_S
            self._send(heartbeat(self._dialect))
        self._ask()

    def reopened(self) -> None:
        """Ask again for the messages that are read (`mavlink_stream.Listener`)."""
        self._asked_at_restart = -1

    def _collect(self, messages: Sequence[Any], damaged: int, now_s: float) -> bool:
        """Put messages into tracks; return whether there was anything of use in them."""
        if not messages and not damaged:
            return False
        with self._changed:
            counts = self._collector.counts
            rows, restarts = counts.rows, counts.restarts
            counts.damaged += damaged
            for message in messages:
                try:
                    self._collector.add(message, now_s)
                except Exception:  # whatever is in it, the next may be good
                    counts.damaged += 1
            used, restarted = counts.rows > rows, counts.restarts > restarts
            self._changed.notify_all()
        if restarted:
            self._say_once("restart", "the autopilot's clock began anew; what it said is forgotten")
        return used

    def _ask(self) -> None:
        """Ask for the messages that are read, once for each start of the autopilot."""
        with self._changed:
            system, restarts = self._collector.system, self._collector.counts.restarts
        if not self._request_rates or system is None or self._asked_at_restart == restarts:
            return
        self._asked_at_restart = restarts
        for kind, rate_hz in _RATES_HZ.items():
            number = getattr(self._dialect, f"MAVLINK_MSG_ID_{kind}")
            command = self._dialect.MAVLink_command_long_message(
                system,
                self._dialect.MAV_COMP_ID_AUTOPILOT1,
                self._dialect.MAV_CMD_SET_MESSAGE_INTERVAL,
                *(0, number, 1e6 / rate_hz, 0, 0, 0, 0, 0),
            )
            self._send(command)

    def _send(self, message: Any) -> None:
        self.stream.post(message, self._collector.system or 1, _OUR_COMPONENT)

    def _say_once(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            say(f"{self.name}: {text}")
