"""Half an hour at 10 Hz: memory, deadlines and latency, minute by minute.

The frames of a closed circle (country.py) come again and again at the pace of a live camera: a
frame that is not taken before the next one is there is dropped and counted, and so is every fix
that was later than the period. Fixes are carried on from frame to frame, as `s4g-run` does.

Example:
    python benchmarks/soak.py --work /tmp/work --minutes 30
"""

from __future__ import annotations

import argparse
import collections
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from country import FPS, Country, describe_pack, make_country
from frame_loop import resident_mb

from s4g.core.engine import load_engine
from s4g.core.jpeg import jpeg_size
from s4g.core.spec import check_same_encoder
from s4g.runtime.frames import Frame
from s4g.runtime.intrinsics import Lens, read_intrinsics
from s4g.runtime.pipeline import Localiser, run_frames
from s4g.runtime.telemetry import open_telemetry
from s4g.runtime.tracker import Tracker
from s4g.tilepacks.reader import open_pack

_MINUTE_S = 60.0
_PERIOD_MS = 1e3 / FPS


class Circling:
    """Frames of a folder, over and over, each at its time; the newest is given, as of a camera."""

    count = None

    def __init__(self, folder: Path, seconds: float) -> None:
        """List the frames of a flight that ends where it began."""
        self.name, self.dropped = str(folder), 0
        self._files, self._seconds = sorted(folder.iterdir()), seconds

    def frames(self) -> Iterator[Frame]:
        """Yield the frames until the time is over."""
        start_s, number = time.monotonic(), 0
        while number / FPS < self._seconds:
            time.sleep(max(0.0, start_s + number / FPS - time.monotonic()))
            newest = int((time.monotonic() - start_s) * FPS)
            if newest / FPS >= self._seconds:
                return
            self.dropped += newest - number
            number = newest
            file = self._files[number % len(self._files)]
            data = file.read_bytes()
            size = jpeg_size(data)
            assert size is not None
            arrived_s = start_s + number / FPS
            yield Frame(number, number / FPS, file.name, str(file), *size, arrived_s, encoded=data)
            number += 1

    def close(self) -> None:
        """Nothing to release."""


def soak(country: Country, minutes: float, threads: int) -> None:
    """Fly; print a row for each minute, and what memory did."""
    cv2.setNumThreads(threads)
    with open_pack(country.pack) as pack:
        pack.make_ready()
        engine = load_engine(None, "cpu", threads)
        check_same_encoder(str(country.pack), pack.spec, engine.name, engine.spec)
        localiser = Localiser(pack, engine, Lens(None, read_intrinsics(country.camera)))
        source = Circling(country.frames, minutes * _MINUTE_S)
        results = run_frames(
            source, open_telemetry(str(country.telemetry)), localiser, Tracker(pack)
        )
        print(f"{describe_pack(country.pack)}; 1280x720 px at {FPS:g} Hz, {threads} threads, "
              f"{os.cpu_count()} cores\n")  # fmt: skip
        print("| minute | frames | dropped | over 100 ms | p50 ms | p95 ms | most ms | CPU | MB | "
              "states |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
        held_mb, totals, dropped, cpu_s = [], [0, 0, 0], 0, time.process_time()
        latencies: list[float] = []
        states: collections.Counter[str] = collections.Counter()
        minute = 1

        def row() -> None:
            nonlocal dropped, cpu_s
            late = int(np.sum(np.array(latencies) > _PERIOD_MS))
            p50, p95 = np.percentile(latencies, [50, 95])
            lost, used_s = source.dropped - dropped, time.process_time() - cpu_s
            held_mb.append(resident_mb())
            seen = ", ".join(f"{name} {count}" for name, count in sorted(states.items()))
            print(f"| {minute} | {len(latencies)} | {lost} | {late} | {p50:.1f} | {p95:.1f} | "
                  f"{max(latencies):.0f} | {used_s / _MINUTE_S:.0%} | {held_mb[-1]:.1f} | {seen} |",
                  flush=True)  # fmt: skip
            for place, value in enumerate((len(latencies), lost, late)):
                totals[place] += value
            dropped, cpu_s = source.dropped, time.process_time()

        for fix, stages in results:
            assert fix.t is not None
            if fix.t >= minute * _MINUTE_S:
                row()
                latencies.clear()
                states.clear()
                minute = int(fix.t // _MINUTE_S) + 1
            latencies.append(stages["total"])
            states[fix.state.value] += 1
        row()
    frames, lost, late = totals
    grown_mb = held_mb[-1] - held_mb[0]
    print(f"\n{frames} frames, {lost} dropped, {late} fixes later than {_PERIOD_MS:g} ms")
    print(f"{grown_mb:+.1f} MB from the end of the first minute to that of the last")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the country")
    parser.add_argument("--side", type=int, default=4, help="landscapes in a row; 4: 100 km²")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    soak(make_country(options.work, options.side), options.minutes, options.threads)


if __name__ == "__main__":
    main()
