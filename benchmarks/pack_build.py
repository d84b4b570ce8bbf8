"""How fast a pack is built, beside the encoder alone, and in how much memory, whatever its size.

`rate` builds a pack of a landscape with the shipped encoder and then embeds as many images in the
same batches with nothing around it. `memory` builds packs of made-up ground in processes of their
own and prints the most memory each held (`pack_table.Fields` stands in for the encoder).

Example:
    python benchmarks/pack_build.py rate
    python benchmarks/pack_build.py memory --tiles 1000 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from s4g.core.engine import load_engine
from s4g.core.sources import open_ground
from s4g.tilepacks import job
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.embed import BATCH
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import open_pack

sys.path.insert(0, str(Path(__file__).parent))
from pack_table import Coordinates, Fields

_SOURCE = "landscape:seed=5,size_m=2000"


def rate() -> None:
    """Build, then embed alone."""
    ground, engine = open_ground(_SOURCE), load_engine(None, "cpu", 1)
    plan = plan_pack(ground, engine.spec, None, (80.0,))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "p.s4gpack"
        marks: list[float] = []

        class Bar:
            def __enter__(self) -> object:
                marks.append(time.perf_counter())
                return lambda steps: None

            def __exit__(self, *error: object) -> None:
                marks.append(time.perf_counter())

        build_pack([ground], engine, plan, out, BuildOptions(workers=2), lambda *label: Bar())
        tiles = sum(level.count for level in open_pack(out).levels)
    built = tiles / (marks[1] - marks[0])
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, 128, 128, 3), dtype=np.uint8)
    start = time.perf_counter()
    for _ in range(tiles // BATCH):
        engine.embed(batch)
    alone = tiles // BATCH * BATCH / (time.perf_counter() - start)
    print(f"{tiles} tiles: {built:.0f}/s read, cut, embedded and kept")
    print(f"encoder alone {alone:.0f}/s, ratio {built / alone:.2f}")


def memory(tiles: list[int]) -> None:
    """Build each size in a process of its own."""
    print(f"{'tiles':>9}{'seconds':>9}{'most MB':>9}{'B/tile':>8}")
    for count in tiles:
        command = [sys.executable, __file__, "one", "--tiles", str(count)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def one(count: int) -> None:
    """Build one pack; print its row."""
    ground, engine = Coordinates((math.isqrt(count) - 1) * 4 + 16), Fields()
    job.make_probes = engine.probes
    plan = plan_pack(ground, engine.spec, None, (16.0,), 0.25)
    with tempfile.TemporaryDirectory() as folder:
        out, start = Path(folder) / "p.s4gpack", time.perf_counter()
        build_pack([ground], engine, plan, out, BuildOptions(overview=False, dims=128))
        took, size = time.perf_counter() - start, out.stat().st_size
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{count:>9}{took:>9.0f}{most:>9.0f}{size / count:>8.0f}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("rate", "memory", "one"))
    parser.add_argument("--tiles", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    if options.what == "rate":
        rate()
    elif options.what == "memory":
        memory(options.tiles)
    else:
        one(options.tiles[0])


if __name__ == "__main__":
    main()
