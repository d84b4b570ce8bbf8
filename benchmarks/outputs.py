"""Fix rate and latency while others look on: no viewer, one, ten, a TCP client that stalls.

`s4g-run` flies at 10 Hz over the demo's landscape, at the pace of the flight's clock, in a process
of its own for each row. Viewers read the live map's events and fetch both pictures as often as
there are new ones, as the page does, from another process; TCP clients read NMEA, or connect and
never read. A fix is late when its line comes later after the first line than its frame came after
the first frame. Beside what the clock on the wall tells stands the processor time of the thread
that matches frames, for each frame, and what of it goes to those who look on: a machine that does
other work as well makes frames late, but not these. The fixes must be the same in all rows.

Example:
    python benchmarks/outputs.py --work /tmp/work --seconds 60
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from brighton import command

from s4g.core.console import run_command
from s4g.runtime import pipeline
from s4g.runtime.cli import cli
from s4g.runtime.observe import Observation, Observer

_GROUND = "landscape:seed=11,size_m=1500"
_ROUTE = Path(__file__).resolve().parents[1] / "docs" / "demo-route.csv"
_FPS = 10
_SPEED_MPS = 25.0
_NMEA_HZ = 100  # far more than anyone needs: a client that stalls shows within half a minute
_SMALL_BUFFER = 4096
_START_S = 60.0
_SCRAPE_AT = 0.9  # of the flight
_PICTURE = re.compile(rb'"picture":{"number":(?P<number>\d+).*?"has_view":(?P<has_view>true|false)')


@dataclass(frozen=True)
class Row:
    """Who looks on.

    Attributes:
        name: for the table.
        viewers: of the live map; None for a run without it.
        client: of an NMEA output, None for a run without it.
    """

    name: str
    viewers: int | None = None
    client: Callable[[int], Any] | None = None


@contextmanager
def reading(port: int) -> Iterator[None]:
    """Read what an output sends, in a thread."""
    with socket.create_connection(("127.0.0.1", port)) as client:

        def read() -> None:
            while client.recv(65536):
                pass

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield
        client.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def stalled(port: int) -> Iterator[None]:
    """Connect and never read."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        client.connect(("127.0.0.1", port))
        yield


ROWS = (
    Row("nobody"),
    Row("live map, no viewer", 0),
    Row("live map, one viewer", 1),
    Row("live map, ten viewers", 10),
    Row("NMEA over TCP, a client that reads", None, reading),
    Row("NMEA over TCP, a client that stalls", None, stalled),
    Row("ten viewers and a client that stalls", 10, stalled),
)


def make_flight(work: Path) -> tuple[Path, Path]:
    """Return pack and flight, made where they are missing."""
    pack, flight = work / "outputs.s4gpack", work / "outputs-flight"
    work.mkdir(parents=True, exist_ok=True)
    if not pack.exists():
        command(
            "s4g-pack", "--source", f"{_GROUND},season=summer,year=0", "--levels", "80",
            "--imagery", "--out", str(pack),
        )  # fmt: skip
    if not flight.exists():
        command(
            "s4g-sim", "--source", f"{_GROUND},season=autumn,year=1", "--route", str(_ROUTE),
            "--agl", "150", "--speed", f"{_SPEED_MPS:g}", "--fps", str(_FPS), "--out", str(flight),
        )  # fmt: skip
    return pack, flight


def look(address: str, count: int) -> None:
    """Look at a live map as so many pages do, until it ends; print what each has seen, as JSON."""
    with ThreadPoolExecutor(count) as pool:
        print(json.dumps(list(pool.map(look_once, [address] * count))), flush=True)


def look_once(address: str) -> tuple[int, int]:
    """Return how many messages and pictures one viewer has got."""
    host, port = address.split(":")
    events = HTTPConnection(host, int(port), timeout=_START_S)
    events.request("GET", "/live/events")
    pictures = HTTPConnection(host, int(port), timeout=_START_S)
    shown, messages, loaded = 0, 0, 0
    # A run that ends cuts off what is under way.
    with suppress(HTTPException, ConnectionError):
        for line in events.getresponse():
            if line.startswith(b"event: end"):
                break
            messages += line.startswith(b"event: state")
            match = _PICTURE.search(line)
            if match is None or int(match["number"]) <= shown:
                continue
            shown = int(match["number"])
            for name in ("frame", "view") if match["has_view"] == b"true" else ("frame",):
                pictures.request("GET", f"/live/{name}.jpg?n={shown}")
                answer = pictures.getresponse()
                loaded += len(answer.read()) > 0 and answer.status == 200
    return messages, loaded


def run_timed(times: Path, words: Sequence[str]) -> NoReturn:
    """Run `s4g-run` here; write the processor time of frames and of those who look on."""
    frames_ms: list[float] = []
    looking_us: list[float] = []
    since_s: float | None = None

    def tell(observers: Iterable[Observer], seen: Observation) -> None:
        nonlocal since_s
        start_s = time.thread_time()
        if since_s is not None:
            frames_ms.append((start_s - since_s) * 1e3)
        for observer in observers:
            observer.observe(seen)
        since_s = time.thread_time()
        looking_us.append((since_s - start_s) * 1e6)

    pipeline.tell = tell
    try:
        run_command(cli, words)
    finally:
        times.write_text(json.dumps({"frames_ms": frames_ms, "looking_us": looking_us}), "utf-8")


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fly(row: Row, pack: Path, flight: Path, frames: int, threads: int) -> dict[str, Any]:
    """Run `s4g-run` with those who look on; return what came of it."""
    port = free_port()
    times = pack.with_name("outputs-times.json")
    words: list[object] = [
        sys.executable, __file__, "--run", times, "--camera", flight / "frames", "--pack", pack,
        "--telemetry", flight / "telemetry.csv", "--intrinsics", flight / "camera.json",
        "--realtime", "--threads", threads, "--max-frames", frames, "--metrics", 0,
    ]  # fmt: skip
    if row.viewers is not None:
        words += ["--view", 0]
    if row.client is not None:
        words += ["--to", f"nmea+tcp://127.0.0.1:{port}?rate={_NMEA_HZ}"]
    with ExitStack() as stack:
        run = stack.enter_context(
            subprocess.Popen(
                [str(word) for word in words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(run.kill)
        assert run.stdout is not None and run.stderr is not None
        told = _addresses(run.stderr, row)
        threading.Thread(target=run.stderr.read, daemon=True).start()
        if row.client is not None:
            stack.enter_context(row.client(port))
        viewers = None
        if row.viewers:
            viewers = subprocess.Popen(
                [sys.executable, __file__, "--look", told["live map"], str(row.viewers)],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(viewers.kill)
        fixes, came_s, metrics = [], [], ""
        for line in run.stdout:
            came_s.append(time.monotonic())
            fixes.append(json.loads(line))
            if len(fixes) == int(_SCRAPE_AT * frames):
                with urllib.request.urlopen(f"http://{told['metrics']}/metrics") as answer:
                    metrics = answer.read().decode()
        if run.wait(_START_S) or len(fixes) < frames:
            sys.exit(f"s4g-run ended with {run.returncode} after {len(fixes)} fixes")
        looked = [] if viewers is None else json.loads(viewers.communicate(timeout=_START_S)[0])
    return summary(fixes, came_s, metrics, looked) | json.loads(times.read_text("utf-8"))


def _addresses(stderr: Any, row: Row) -> dict[str, str]:
    """Read where the run serves, from what it says on stderr."""
    wanted = {"metrics"} | ({"live map"} if row.viewers is not None else set())
    told: dict[str, str] = {}
    for line in stderr:
        match = re.match(r"(metrics|live map): http://([\d.]+:\d+)/", line)
        if match is not None:
            told[match[1]] = match[2]
        if wanted <= set(told):
            return told
    sys.exit("s4g-run ended before it served; run it by hand to see why")


def summary(
    fixes: list[dict[str, Any]],
    came_s: list[float],
    metrics: str,
    looked: list[list[int]],
) -> dict[str, Any]:
    """Return the figures of a row."""
    came, due = np.array(came_s), np.array([fix["t"] for fix in fixes])
    behind_ms = ((came - came[0]) - (due - due[0])) * 1e3
    latency_ms = np.array([fix["latency_ms"] for fix in fixes])
    cpu_s = read(metrics, "process_cpu_seconds_total")
    outputs = ("sent", "dropped", "let_go")
    positions = [(fix["state"], fix["lat"], fix["lon"]) for fix in fixes]
    return {
        "rate": (len(fixes) - 1) / (came[-1] - came[0]),
        "latency": np.percentile(latency_ms, [50, 95]),
        "behind": np.percentile(behind_ms - behind_ms.min(), [50, 95, 100]),
        "cpu": cpu_s / (_SCRAPE_AT * (came[-1] - came[0])),
        "positions": positions,
        "counts": {name: read(metrics, f"s4g_output_{name}_total") for name in outputs},
        "looked": looked,
    }


def read(metrics: str, name: str) -> float:
    """Return a metric's value, over all labels; not a number where there is none."""
    values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.M)
    return sum(map(float, values)) if values else float("nan")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="folder that keeps pack and flight")
    parser.add_argument("--seconds", type=float, default=60.0, help="of flight in each row")
    parser.add_argument("--threads", type=int, default=1, help="of s4g-run")
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(ROWS))))
    parser.add_argument("--look", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        run_timed(Path(options.run[0]), options.run[1:])
    if options.look is not None:
        look(options.look[0], int(options.look[1]))
        return
    pack, flight = make_flight(options.work)
    frames = min(int(options.seconds * _FPS), len(list((flight / "frames").iterdir())))
    print(
        f"{frames} frames at {_FPS} Hz, {options.threads} thread; {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}\n"
    )
    print(
        "| who looks on | fixes/s | latency p50 / p95 ms | late p50 / p95 / most ms | frame's "
        "processor ms p50 / p95 | looking on µs p50 / p95 | all processor | seen by each | output: "
        "sent, overtaken, let go |"
    )
    print("|---" * 9 + "|")
    first: list[Any] | None = None
    for row in (ROWS[number] for number in options.rows):
        found = fly(row, pack, flight, frames, options.threads)
        first = first or found["positions"]
        same = "" if found["positions"] == first else " (other fixes!)"
        seen = np.mean(found["looked"], axis=0) if found["looked"] else None
        counts = found["counts"]
        cells = [
            row.name + same,
            f"{found['rate']:.2f}",
            "{:.1f} / {:.1f}".format(*found["latency"]),
            "{:.0f} / {:.0f} / {:.0f}".format(*found["behind"]),
            "{:.1f} / {:.1f}".format(*np.percentile(found["frames_ms"], [50, 95])),
            "{:.0f} / {:.0f}".format(*np.percentile(found["looking_us"], [50, 95])),
            f"{100 * found['cpu']:.0f} %",
            "" if seen is None else f"{seen[0]:.0f} messages, {seen[1]:.0f} pictures",
            "{sent:.0f}, {dropped:.0f}, {let_go:.0f}".format(**counts) if row.client else "",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
