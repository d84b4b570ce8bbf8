"""From frame to fix over 100 km²: milliseconds by stage, memory, and a cold start.

A flight of 1280x720 frames over a pack with imagery (country.py) is localised by `s4g-run`'s own
loop in a process of its own for each row: frames as JPEGs and as a video, every frame by itself
and over time, with one and two threads. Files give frames as fast as they are wanted; latency is
from a file's bytes to its fix. `--clock cpu` counts the processor's time instead, for machines that
do other work as well: with one thread it is what an idle machine takes. A cold start is a fresh
`s4g-run` from exec to its first line; the files are in the page cache, as they are after the pack
was checked on the ground.

Example:
    python benchmarks/frame_loop.py --work /tmp/work
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from country import Country, describe_pack, make_country, say

from s4g.core.engine import describe, load_engine
from s4g.core.spec import check_same_encoder
from s4g.runtime.frames import Frame, open_frames
from s4g.runtime.intrinsics import Lens, read_intrinsics
from s4g.runtime.pipeline import Finding, Fixer, FixMaker, Localiser, run_frames
from s4g.runtime.telemetry import Sample, open_telemetry
from s4g.runtime.tracker import Tracker
from s4g.tilepacks.reader import open_pack

_STAGES = ("plan", "decode", "normalise", "embed", "search", "locate", "filter")
_KINDS = ("JPEG", "video")
_RSS_AFTER = 50  # frames: what comes on top until the end has grown


class Timed:
    """A maker of fixes that notes how long each took."""

    def __init__(self, maker: FixMaker | Tracker) -> None:
        """Take the maker."""
        self._maker = maker
        self.ms = 0.0

    def fix(self, frame: Frame, sample: Sample, finding: Finding) -> Any:
        """Return the maker's fix."""
        start = time.monotonic()
        fix = self._maker.fix(frame, sample, finding)
        self.ms = (time.monotonic() - start) * 1e3
        return fix

    def __getattr__(self, name: str) -> Any:
        """Return what else the maker has."""
        return getattr(self._maker, name)


def one(country: Country, kind: str, single: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Localise a flight in this process; return its times and the memory it took."""
    threads, frames = options.threads[0], options.frames
    if options.clock == "cpu":  # the loop's own clock, for this process
        time.monotonic = time.process_time
    cv2.setNumThreads(threads)
    with open_pack(country.pack) as pack:
        pack.make_ready()
        engine = load_engine(None, "cpu", threads)
        check_same_encoder(str(country.pack), pack.spec, engine.name, engine.spec)
        lens = Lens(None, read_intrinsics(country.camera))
        localiser = Localiser(pack, engine, lens)
        maker = Timed(FixMaker(pack) if single else Tracker(pack))
        jpeg = kind == "JPEG"
        source = open_frames(str(country.frames if jpeg else country.video))
        telemetry = open_telemetry(str(country.telemetry if jpeg else country.video_telemetry))
        rows, states, early_mb = [], [], 0.0
        for fix, stages in run_frames(source, telemetry, localiser, _fixer(maker), False, frames):
            rows.append({**stages, "filter": maker.ms})
            states.append(fix.state.value)
            if len(rows) == _RSS_AFTER:
                early_mb = resident_mb()
        return {
            "encoder": describe(engine),
            "rows": rows,
            "states": {state: states.count(state) for state in sorted(set(states))},
            "early_mb": early_mb,
            "late_mb": resident_mb(),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        }


def _fixer(maker: Any) -> Fixer:
    fixer: Fixer = maker
    return fixer


def resident_mb() -> float:
    """Return the memory this process holds now, MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cold_start_s(country: Country, threads: int) -> tuple[float, float]:
    """Return the seconds from exec of a fresh `s4g-run` to its first fix, and of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = Path(sys.executable).with_name("s4g-run")
    command = [
        program, "--camera", country.frames, "--pack", country.pack, "--telemetry",
        country.telemetry, "--intrinsics", country.camera, "--threads", threads,
        "--max-frames", 1,
    ]  # fmt: skip
    start = time.monotonic()
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.monotonic() - start
    if not line or process.returncode:
        sys.exit("s4g-run failed; run it by hand to see why")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, used


def in_own_process(options: argparse.Namespace, kind: str, threads: int, single: bool) -> Any:
    """Run `one` in a fresh process, for its memory."""
    command = [
        sys.executable, __file__, "--work", options.work, "--side", options.side, "--frames",
        options.frames, "--one", kind, "--threads", threads, "--clock", options.clock,
        *(["--single"] if single else []),
    ]  # fmt: skip
    run = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE)
    return json.loads(run.stdout)


def columns(rows: list[dict[str, float]]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each column of the table and its milliseconds, frame by frame."""
    total = np.array([row["total"] for row in rows])
    embed = np.array([row["embed"] for row in rows])
    yield "frame to fix", total
    yield "all but the encoder", total - embed
    for name in _STAGES:
        yield name, np.array([row.get(name, 0.0) for row in rows])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the country")
    parser.add_argument("--side", type=int, default=4, help="landscapes in a row; 4: 100 km²")
    parser.add_argument("--frames", type=int, default=300, help="frames to localise")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--starts", type=int, default=7, help="cold starts for each")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--one", choices=_KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--single", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    country = make_country(options.work, options.side)
    if options.one:
        found = one(country, options.one, options.single, options)
        print(json.dumps(found))
        return
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"{describe_pack(country.pack)}; 1280x720 px, {options.frames} frames; {machine}\n")
    heads: list[str] = []
    for threads in options.threads:
        for kind in _KINDS:
            for single in (True, False):
                found = in_own_process(options, kind, threads, single)
                table = list(columns(found["rows"]))
                if not heads:
                    heads = [name for name, _ in table]
                    print(f"{found['encoder']}; milliseconds of {options.clock} time, p50 / p95\n")
                    names = ["frames", "fixes", "threads", *heads]
                    print(f"| {' | '.join(names)} | MB after {_RSS_AFTER} | at the end | peak |")
                    print("|---" * (len(names) + 3) + "|")
                cells = [kind, "each by itself" if single else "over time", str(threads)]
                cells += [
                    "{:.1f} / {:.1f}".format(*np.percentile(values, [50, 95]))
                    for _, values in table
                ]
                cells += [f"{found[key]:.0f}" for key in ("early_mb", "late_mb", "peak_mb")]
                print(f"| {' | '.join(cells)} |", flush=True)
                say(f"{kind}, {threads} threads: {found['states']}")
    print("\n| threads | cold start s, median | least | most | processor s, median |")
    print("|---" * 5 + "|")
    for threads in options.threads:
        starts = [cold_start_s(country, threads) for _ in range(options.starts)]
        took, used = zip(*starts, strict=True)
        print(f"| {threads} | {statistics.median(took):.2f} | {min(took):.2f} | {max(took):.2f} | "
              f"{statistics.median(used):.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
