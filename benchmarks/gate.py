"""What a search inside a gate costs beside a search of the whole level, by the gate's radius.

On the country of 100 km² (country.py): five queries at once, as of a frame, near a place, for the
64 best tiles each; processor time, medians, both ways in turns.

Example:
    python benchmarks/gate.py --work /tmp/work
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from country import RADIUS_M, describe_pack, make_country

from s4g.runtime.locate import MAX_CANDIDATES, Gate, gather
from s4g.tilepacks.reader import Pack, open_pack

_RADII_M = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
_QUERIES, _ROUNDS, _SIDE_M = 5, 30, 60.0


def median_ms(ways: list[Callable[[], object]]) -> list[float]:
    """Return the median milliseconds of each way; they take turns in every round."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(_ROUNDS):
        for own, way in zip(taken, ways, strict=True):
            start = time.thread_time()
            way()
            own.append(time.thread_time() - start)
    return [1e3 * float(np.median(own)) for own in taken]


def table(pack: Pack, level: int) -> None:
    """Print a level's rows."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((_QUERIES, pack.spec.embedding_dim)).astype(np.float32)
    offsets_m = rng.uniform(-_SIDE_M, _SIDE_M, (_QUERIES, 2))
    for radius_m in _RADII_M:
        gate = Gate(RADIUS_M, 0.0, radius_m)
        tiles = len(pack.tiles_within(level, gate.east_m, gate.north_m, radius_m))
        inside = gather(pack, level, queries, offsets_m, gate).within is not None
        near_ms, whole_ms = median_ms(
            [
                lambda gate=gate: gather(pack, level, queries, offsets_m, gate),
                lambda: gather(pack, level, queries, offsets_m),
            ]
        )
        searched = "inside" if inside else "whole level"
        print(f"| {pack.levels[level].footprint_m:g} m | {radius_m:g} | {tiles:,} | {searched} | "
              f"{near_ms:.2f} | {whole_ms:.2f} |")  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the country")
    parser.add_argument("--side", type=int, default=4, help="landscapes in a row; 4: 100 km²")
    options = parser.parse_args()
    country = make_country(options.work, options.side)
    print(f"{describe_pack(country.pack)}; {_QUERIES} queries, {MAX_CANDIDATES} tiles of each\n")
    print("| level | radius m | tiles in it | searched | ms with the gate | ms without |")
    print("|---|---|---|---|---|---|")
    with open_pack(country.pack) as pack:
        pack.make_ready()
        for level in range(len(pack.levels)):
            table(pack, level)


if __name__ == "__main__":
    main()
