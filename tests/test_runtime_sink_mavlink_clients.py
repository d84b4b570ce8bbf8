"""Programs that others wrote decode what the output sends.

They may live in an environment of their own: `S4G_MAVPROXY` names `mavproxy.py`, and
`S4G_MAVSDK_PYTHON` a Python that has MAVSDK.
"""

import contextlib
import json
import os
import queue
import re
import runpy
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s4g.runtime.fix import Fix, State
from s4g.runtime.sink import Moment, parse_sink_url
from s4g.runtime.sink_mavlink import open_sink

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_mavlink.py"))))
m = toy.common
PATIENCE_S = 60.0  # the programs take seconds to start on a busy machine
FIX = Fix(
    frame=3, t=0.0, state=State.TRACK, lat=47.3977419, lon=-8.5455938, sigma_m=6.5, hpl_m=24.25,
    ve_mps=-3.25, vn_mps=11.5, agl_m=120.0, source="visual", anchor_age_s=0.0,
)  # fmt: skip
ALL = "gps_input,global_position_sensor,odometry,external_position_estimate,statustext"


def mavproxy() -> str:
    beside = str(Path(sys.executable).parent)
    found = os.environ.get("S4G_MAVPROXY") or shutil.which(
        "mavproxy.py", path=os.pathsep.join((beside, os.environ.get("PATH", "")))
    )
    if found is None:
        pytest.skip("needs MAVProxy: pip install --no-deps MAVProxy, or S4G_MAVPROXY")
    return found


def mavsdk_python() -> str:
    python = os.environ.get("S4G_MAVSDK_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import mavsdk"], capture_output=True).returncode:
        pytest.skip("needs MAVSDK: pip install mavsdk, or S4G_MAVSDK_PYTHON")
    return python


class Bridge:
    """A vehicle between the output and a ground station, which dials in by TCP."""

    def __init__(self, query: str) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        url = f"mavlink+udp://127.0.0.1:{self._udp.getsockname()[1]}{query}"
        run: Any = SimpleNamespace(tracker=None, is_live=True, telemetry=None)
        self.sink = open_sink(parse_sink_url(url), run)
        self._to = ("127.0.0.1", self.sink.stream.link.port)
        self._pilot = toy.Autopilot(system=42)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Ten times a second: the vehicle speaks, a fix is sent, all goes to the station."""
        client: socket.socket | None = None
        while not self._stop.wait(0.1):
            spoken = [
                self._pilot.pack(message)
                for message in (
                    m.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3),
                    m.MAVLink_vfr_hud_message(20, 20, 90, 50, 612.5, -1.5),
                    m.MAVLink_attitude_message(0, 0.0, 0.0, 0.0, 0.01, 0.02, 0.03),
                    m.MAVLink_gps_global_origin_message(473900000, -85456000, 488_250),
                )
            ]
            for data in spoken:
                self._udp.sendto(data, self._to)
            self.sink.idle()
            self.sink.send(Moment(replace(FIX, t=time.monotonic()), 1_785_000_000.125))
            if client is None and select.select([self._server], [], [], 0)[0]:
                client, _ = self._server.accept()
            while select.select([self._udp], [], [], 0)[0]:
                spoken.append(self._udp.recv(999))
            if client is not None:
                try:
                    client.sendall(b"".join(spoken))
                except OSError:
                    client = None
        if client is not None:
            client.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.sink.close()
        self._udp.close()
        self._server.close()


class Client:
    """A program, its lines as they come, and its standard input, which ends it."""

    def __init__(self, arguments: list[str], said: str = "", **more: Any) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            arguments, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, **more
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        self._process.stdin.write(said)
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def lines(self) -> Iterator[str]:
        """Yield lines until the program ends."""
        end = time.monotonic() + PATIENCE_S
        seen = []
        while (left_s := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=left_s)
                if line is None:
                    break
                seen.append(line)
                yield line
        raise AssertionError("".join(seen[-20:]))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._reader.join()


def found(client: Client, wanted: set[str], parse: Any) -> dict[str, dict[str, Any]]:
    """Return the newest message of each kind, once all kinds that are wanted have come."""
    got: dict[str, dict[str, Any]] = {}
    for line in client.lines():
        if (message := parse(line)) is not None:
            got[message["name"]] = message
            if wanted <= set(got):
                return got
    raise AssertionError


def from_mavproxy(line: str) -> dict[str, Any] | None:
    """Take `< GPS_INPUT {time_usec : 5, q : [1.0, 0.0], …}` apart."""
    match = re.search(r"< ([A-Z_]+) \{(.*)\}", line)
    if match is None:
        return None
    fields = re.findall(r"(\w+) : (\[.*?\]|.*?)(?:, (?=\w+ : )|$)", match[2])
    return {"name": match[1]} | {
        key: [float(v) for v in value[1:-1].split(",")] if value[0] == "[" else value
        for key, value in fields
    }


def from_mavsdk(line: str) -> dict[str, Any] | None:
    try:
        message: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return message if "name" in message else None


@pytest.mark.slow
def test_mavproxy_decodes_every_message_to_an_autopilot(tmp_path: Path) -> None:
    program = mavproxy()
    # What it watches is what the autopilot says itself: another component is only logged.
    bridge = Bridge(f"?messages={ALL}&compid=1")
    client = Client(
        [
            sys.executable if not os.environ.get("S4G_MAVPROXY") else interpreter(program),
            program, f"--master=tcp:127.0.0.1:{bridge.port}", "--dialect=all",
            f"--state-basedir={tmp_path}", "--default-modules=log,misc",
        ],
        "watch GPS_INPUT ODOMETRY GLOBAL_POSITION_SENSOR COMMAND_INT\n",
        cwd=tmp_path,
    )  # fmt: skip
    try:
        kinds = {"GPS_INPUT", "ODOMETRY", "GLOBAL_POSITION_SENSOR", "COMMAND_INT"}
        got = found(client, kinds, from_mavproxy)
    finally:
        client.close()
        bridge.close()
    gps = got["GPS_INPUT"]
    assert (int(gps["lat"]), int(gps["lon"])) == (473977419, -85455938)
    assert (float(gps["alt"]), float(gps["horiz_accuracy"])) == (612.5, 6.5)
    assert (int(gps["time_week"]), int(gps["time_week_ms"])) == (2428, 580_818_125)
    assert (int(gps["fix_type"]), int(gps["ignore_flags"])) == (3, 2 + 4 + 16 + 32 + 128)
    sensor = got["GLOBAL_POSITION_SENSOR"]
    assert (int(sensor["lat"]), int(sensor["lon"])) == (473977419, -85455938)
    assert (float(sensor["eph"]), int(sensor["source"]), int(sensor["id"])) == (6.5, 2, 1)
    odometry = got["ODOMETRY"]
    assert (int(odometry["frame_id"]), int(odometry["child_frame_id"])) == (20, 12)
    assert float(odometry["x"]) == pytest.approx(861.8, abs=0.1)
    assert odometry["q"] == [1.0, 0.0, 0.0, 0.0]
    command = got["COMMAND_INT"]
    assert (int(command["command"]), int(command["x"])) == (43003, 473977419)


def interpreter(program: str) -> str:
    """Return the Python that a script of another environment names in its first line."""
    with Path(program).open() as script:
        return script.readline().removeprefix("#!").strip()


@pytest.mark.slow
def test_mavsdk_decodes_gps_input_and_odometry() -> None:
    python = mavsdk_python()
    bridge = Bridge(f"?messages={ALL}")
    listener = Path(__file__).with_name("mavsdk_listener.py")
    client = Client([python, str(listener), f"tcpout://127.0.0.1:{bridge.port}"])
    try:
        got = found(client, {"GPS_INPUT", "ODOMETRY"}, from_mavsdk)
    finally:
        client.close()
        bridge.close()
    gps = got["GPS_INPUT"]
    assert (gps["system"], gps["lat"], gps["lon"]) == (42, 473977419, -85455938)
    assert (gps["alt"], gps["horiz_accuracy"], gps["fix_type"]) == (612.5, 6.5, 3)
    odometry = got["ODOMETRY"]
    assert (odometry["frame_id"], odometry["child_frame_id"]) == (20, 12)
    assert odometry["x"] == pytest.approx(861.8, abs=0.1)
    assert odometry["pose_covariance"][0] == 42.25


@pytest.mark.slow
def test_mavsdk_shows_a_vehicle_that_has_no_autopilot() -> None:
    python = mavsdk_python()
    bridge = Bridge("?as=gcs&ground_alt=400&sysid=42&compid=1")
    listener = Path(__file__).with_name("mavsdk_listener.py")
    client = Client([python, str(listener), f"tcpout://127.0.0.1:{bridge.port}"])
    try:
        got = found(client, {"GLOBAL_POSITION_INT", "GPS_RAW_INT", "position"}, from_mavsdk)
    finally:
        client.close()
        bridge.close()
    assert got["GPS_RAW_INT"]["h_acc"] == 6500
    assert got["GLOBAL_POSITION_INT"]["alt"] == 520_000
    assert got["position"]["lat"] == pytest.approx(47.3977419, abs=1e-7)
