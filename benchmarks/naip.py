"""Fly over NAIP imagery of one year and localise on that of another.

Packs one GeoTIFF, simulates a camera flight over another of the same place at a height from
which a frame covers about a kilometre, localises and scores it, all with the real commands.

Example:
    python benchmarks/naip.py ../shared/data/naip_nd_multidate --out /tmp/naip
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path

HFOV_DEG = 60.0
FRAME_WIDTH_M = 1000.0
LEVELS_M = "320,640"


def file_of_year(folder: Path, year: int) -> Path:
    """Return the one image of a year."""
    found = sorted(folder.glob(f"*_{year}*.tif"))
    if len(found) != 1:
        sys.exit(f"error: {folder}: {len(found)} images of {year}, expected one")
    return found[0]


def command(name: str, *arguments: str) -> None:
    """Run one of the package's commands; stop with its exit code if it fails."""
    result = subprocess.run([str(Path(sys.executable).with_name(name)), *arguments], check=False)
    if result.returncode:
        sys.exit(result.returncode)


def main() -> None:
    """Pack, fly, localise, score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with GeoTIFFs of several years")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything written")
    parser.add_argument("--encoder", help="bundle or ONNX file; default: the embedded encoder")
    parser.add_argument("--map-year", type=int, default=2020)
    parser.add_argument("--flight-year", type=int, default=2012)
    parser.add_argument("--levels", default=LEVELS_M, help="tile footprints, metres")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    agl_m = FRAME_WIDTH_M / 2 / math.tan(math.radians(HFOV_DEG) / 2)
    encoder = ["--encoder", options.encoder] if options.encoder else []
    pack, flight = str(out / "map.s4gpack"), out / "flight"
    command(
        "s4g-pack", "--source", str(file_of_year(options.data, options.map_year)),
        "--levels", options.levels, "--out", pack, "--overwrite", *encoder,
    )  # fmt: skip
    command(
        "s4g-sim", "--source", str(file_of_year(options.data, options.flight_year)),
        "--agl", f"{agl_m:.0f}", "--hfov", f"{HFOV_DEG:g}", "--speed", "30", "--fps", "0.2",
        "--inset", "600", "--out", str(flight), "--overwrite",
    )  # fmt: skip
    command(
        "s4g-run", "--camera", str(flight / "frames"), "--pack", pack,
        "--telemetry", str(flight / "telemetry.csv"), "--intrinsics", str(flight / "camera.json"),
        "--truth", str(flight / "truth.csv"), "--out", str(out / "fixes.jsonl"), "--quiet",
        "--plot", str(out / "track.png"), "--diagnostics", "--overwrite", *encoder,
    )  # fmt: skip


if __name__ == "__main__":
    main()
