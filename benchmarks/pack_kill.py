"""Kill a build at random moments and let it go on: is the pack the same, byte for byte?

Each kill is a SIGKILL to the whole process, at a moment drawn by lot from the time an undisturbed
build takes. The build is begun again until it has been killed so often, then left to finish.

Example:
    python benchmarks/pack_kill.py --kills 50
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_SOURCE = "landscape:seed=5,size_m=900"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--source", default=_SOURCE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        subprocess.run(_command(options.source, folder / "whole.s4gpack", 1), check=True)
        took = time.perf_counter() - start
        wanted = _sha256(folder / "whole.s4gpack")
        print(f"undisturbed: {took:.1f} s, {wanted[:16]}")
        same = rounds = kills = finished = 0
        while kills < options.kills:
            out = folder / f"{rounds}.s4gpack"
            rounds += 1
            while kills < options.kills:
                workers = int(rng.integers(1, 4))
                build = subprocess.Popen(
                    _command(options.source, out, workers), stderr=subprocess.PIPE
                )
                with contextlib.suppress(subprocess.TimeoutExpired):
                    build.wait(rng.uniform(0.2, took))
                if build.poll() is not None:
                    break
                build.kill()
                build.communicate()
                kills += 1
                if out.exists():
                    break  # killed after the pack had its name
            if not out.exists():
                subprocess.run(_command(options.source, out, 2), check=True)
            finished += 1
            same += _sha256(out) == wanted
            print(f"{kills} kills, {finished} packs finished, {same} the same", flush=True)
        left = [path.name for path in folder.iterdir() if not path.name.endswith(".s4gpack")]
    print(f"left behind: {len(left)} work folders of builds killed after the rename")
    if same != finished:
        raise SystemExit("a pack differs")


def _command(source: str, out: Path, workers: int) -> list[str]:
    program = str(Path(sys.executable).with_name("s4g-pack"))
    options = ["--levels", "80,160", "--threads", "1", "--workers", str(workers)]
    return [program, "--source", source, "--out", str(out), *options]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
