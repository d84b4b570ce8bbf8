"""Fly over one year and localise in a pack of another: crops and water change in between.

Packs one image of the North Dakota quadrangle, flies over another with a camera whose frames cover
1,000 x 750 m, localises and scores, all with the real commands. The flight crosses the eastern
half, which the shipped encoder never saw at any date; `--half west` the half it was trained on.

Example:
    python benchmarks/naip.py ../shared/data/naip_nd_multidate --out /tmp/naip
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from brighton import command

from s4g.core.files import write_bytes
from s4g.core.geo import LocalFrame
from s4g.core.sources import open_ground

HFOV_DEG = 60.0
FRAME_WIDTH_M = 1000.0
LEVELS_M = "500"  # two thirds of the frames' short side: five patches fit
# Half a frame and a tile's slack away from the imagery's border and from the other half.
INSET_M = 520.0
LANE_M = 350.0
SPEED_MPS = 60.0
FPS = 0.6


def file_of_year(folder: Path, year: int) -> Path:
    """Return the one image of a year."""
    found = sorted(folder.glob(f"*_{year}*.tif"))
    if len(found) != 1:
        sys.exit(f"error: {folder}: {len(found)} images of {year}, expected one")
    return found[0]


def write_route(source: Path, half: str, path: Path) -> None:
    """Write lanes north and south over the eastern or western half of an image."""
    ground = open_ground(str(source))
    frame = LocalFrame(*ground.bounds.center)
    west_m, south_m, east_m, north_m = frame.local_bounds(ground.bounds)
    ground.close()
    west_m, east_m = (0.0, east_m) if half == "east" else (west_m, 0.0)
    ends = (south_m + INSET_M, north_m - INSET_M)
    lines = ["lat,lon"]
    for number, east in enumerate(np.arange(west_m + INSET_M, east_m - INSET_M + 1, LANE_M)):
        for north in ends if number % 2 == 0 else ends[::-1]:
            lat, lon = frame.to_wgs84(east, north)
            lines.append(f"{float(lat):.7f},{float(lon):.7f}")
    write_bytes(path, ("\n".join(lines) + "\n").encode(), overwrite=True)


def simulate(source: Path, half: str, folder: Path) -> None:
    """Render the flight over one half of an image into `folder/flight`."""
    write_route(source, half, folder / "route.csv")
    agl_m = FRAME_WIDTH_M / 2 / math.tan(math.radians(HFOV_DEG) / 2)
    command(
        "s4g-sim", "--source", str(source), "--route", str(folder / "route.csv"),
        "--agl", f"{agl_m:.0f}", "--hfov", f"{HFOV_DEG:g}", "--speed", str(SPEED_MPS),
        "--fps", str(FPS), "--out", str(folder / "flight"), "--overwrite",
    )  # fmt: skip


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
    parser.add_argument("--half", choices=["east", "west"], default="east", help="ground to cross")
    parser.add_argument("--levels", default=LEVELS_M, help="tile footprints, metres")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    encoder = ["--encoder", options.encoder] if options.encoder else []
    pack, flight = str(out / "map.s4gpack"), out / "flight"
    command(
        "s4g-pack", "--source", str(file_of_year(options.data, options.map_year)),
        "--levels", options.levels, "--out", pack, "--overwrite", *encoder,
    )  # fmt: skip
    simulate(file_of_year(options.data, options.flight_year), options.half, out)
    command(
        "s4g-run", "--single", "--camera", str(flight / "frames"), "--pack", pack,
        "--telemetry", str(flight / "telemetry.csv"), "--intrinsics", str(flight / "camera.json"),
        "--truth", str(flight / "truth.csv"), "--out", str(out / "fixes.jsonl"), "--quiet",
        "--plot", str(out / "track.png"), "--diagnostics", "--overwrite", *encoder,
    )  # fmt: skip


if __name__ == "__main__":
    main()
