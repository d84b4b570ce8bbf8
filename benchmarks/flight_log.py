"""What a flight log costs: the thread that matches frames, the disk, and the time of a replay.

Frames of a real flight come at a camera's pace to a recorder on a real disk. Those of 640 x 480 px
are the flight's; larger ones are four of them side by side, which keeps their detail. `mjpeg` are
frames as a camera's own JPEGs show them, `video` the same off the JPEG's grid, as a video codec
leaves them, `raw` frames with a sensor's noise.
Then `s4g-run` flies the whole flight with and without a log, and the log is rerun.

Example:
    python benchmarks/flight_log.py --flight demo/flight --pack demo/region.s4gpack --work /tmp/work
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from s4g.core.camera import Attitude
from s4g.core.images import list_images, read_rgb
from s4g.runtime.fix import Fix, State
from s4g.runtime.frames import Frame
from s4g.runtime.intrinsics import Lens
from s4g.runtime.log_disk import RecorderOptions
from s4g.runtime.log_folder import new_flight
from s4g.runtime.log_format import Flight
from s4g.runtime.log_record import Recorder
from s4g.runtime.observe import Observation
from s4g.runtime.telemetry_sample import Sample

RGB = npt.NDArray[np.uint8]
SIZES = ((640, 480), (1280, 720))
NOISE = 4.0  # grey levels per pixel of a small sensor in daylight


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    kind: str
    size: str
    copy_p50_us: float
    copy_p95_us: float
    writer_ms: float
    mb_per_minute: float
    lost: int


def frames_of(folder: Path, width: int, height: int, kind: str, count: int) -> list[RGB]:
    """Return frames of a size as a camera shows them."""
    pictures = [read_rgb(path) for path in list_images(folder)[: 2 * count]]
    rng = np.random.default_rng(0)
    frames = []
    for number in range(count):
        parts = [pictures[(number + i) % len(pictures)] for i in range(4)]
        wide = np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])
        frame = parts[0] if wide.shape[1] > width else wide[:height, :width]
        if kind.startswith("video"):
            frame = np.roll(frame, (3, 5), (0, 1))
        if kind.startswith("raw"):
            frame = np.clip(frame + rng.normal(0, NOISE, frame.shape), 0, 255).astype(np.uint8)
            yuv = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)  # what a camera sends
            frame = np.asarray(cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB_I420), np.uint8)
        frames.append(np.ascontiguousarray(frame))
    return frames


def record(folder: Path, kind: str, frames: list[RGB], hz: float, seconds: float) -> Row:
    """Record frames at a pace and measure what that costs."""
    flight = Flight(
        new_flight(folder), 1, 0, Lens(60.0), True, "", "", "", None, "", "", {}, {}, time.time()
    )
    exact = not kind.endswith("lossy")
    recorder = Recorder(RecorderOptions(folder, 2 << 30, exact=exact), flight)
    photos = [cv2.imencode(".jpg", f[..., ::-1])[1].tobytes() for f in frames]
    took_us, due_s = [], time.monotonic()
    sample = Sample(Attitude(0.0, 0.0, 0.0, 100.0), 0.0)
    pixels = np.empty_like(frames[0])
    height, width = pixels.shape[:2]
    cpu_s, own_s = time.process_time(), time.thread_time()
    for number in range(int(hz * seconds)):
        time.sleep(max(due_s - time.monotonic(), 0.0))
        due_s += 1 / hz
        t = number / hz
        np.copyto(pixels, frames[number % len(frames)])
        picture = (
            {"encoded": photos[number % len(photos)]} if kind == "photos" else {"decoded": pixels}
        )
        frame = Frame(number, t, None, "frame", width, height, 0.0, **picture)  # type: ignore[arg-type]
        fix = Fix(number, t, State.TRACK, lat=46.9, lon=9.0, sigma_m=5.0)
        seen = Observation(fix, {}, frame, sample)
        begun = time.perf_counter()
        recorder.observe(seen)
        took_us.append((time.perf_counter() - begun) * 1e6)
    own_s = time.thread_time() - own_s
    recorder.close()
    cpu_s = time.process_time() - cpu_s - own_s
    path = folder / f"flight-{flight.flight:04d}"
    size = sum(file.stat().st_size for file in path.iterdir())
    shutil.rmtree(path)
    p50, p95 = np.percentile(took_us, [50, 95])
    lost = recorder.lost_steps + recorder.lost_pictures
    minutes = seconds / 60
    return Row(
        kind, f"{width}x{height}", p50, p95, cpu_s / len(took_us) * 1e3, size / 1e6 / minutes, lost
    )


def command(*words: object) -> tuple[float, str, str]:
    """Run a command of the package; return seconds, stdout and stderr."""
    begun = time.monotonic()
    code = "import sys; from s4g.core.console import run_command; "
    code += "from s4g.runtime.cli import cli; run_command(cli, sys.argv[1:])"
    if words[0] == "replay":
        code = "import sys; from s4g.core.console import run_command; "
        code += "from s4g.runtime.cli_replay import replay; run_command(replay, sys.argv[2:])"
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    return time.monotonic() - begun, result.stdout, result.stderr


def fly(options: argparse.Namespace, folder: Path) -> None:
    """Fly with and without a log, rerun it, and print the times."""
    flight = options.flight
    words = [
        "--camera", flight / "frames", "--pack", options.pack, "--telemetry",
        flight / "telemetry.csv", "--intrinsics", flight / "camera.json", "--threads", 1,
    ]  # fmt: skip
    for name, more in (("without a log", []), ("with a log", ["--log-dir", folder])):
        took_s, out, _ = command(*words, *more)
        latency = [fix["latency_ms"] for fix in map(json.loads, out.splitlines())]
        p50, p95 = np.percentile(latency, [50, 95])
        print(f"{name:14} {took_s:6.1f} s, latency p50 {p50:5.1f} ms, p95 {p95:5.1f} ms")
    took_s, out, _ = command("replay", folder)
    frames = len(latency)
    print(f"replay         {took_s:6.1f} s for {frames} frames, {frames / took_s:.0f} a second")
    print(out.splitlines()[-1])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flight", type=Path, required=True, help="folder of s4g-sim or the demo")
    parser.add_argument("--pack", type=Path, required=True, help="its region")
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    options = parser.parse_args()
    folder = options.work / "flight_log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    head = "frames", "size", "frame thread p50", "p95", "writer", "disk", "lost"
    print("{:14} {:>9} {:>17} {:>9} {:>9} {:>12} {:>5}".format(*head))
    for width, height in SIZES:
        for kind in ("photos", "mjpeg", "video", "raw", "video, lossy", "raw, lossy"):
            frames = frames_of(options.flight / "frames", width, height, kind, 12)
            row = record(folder, kind, frames, options.hz, options.seconds)
            print(
                f"{row.kind:14} {row.size:>9} {row.copy_p50_us:14.0f} us {row.copy_p95_us:6.0f} us "
                f"{row.writer_ms:6.1f} ms {row.mb_per_minute:5.0f} MB/min {row.lost:5}",
                flush=True,
            )
    fly(options, folder)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
