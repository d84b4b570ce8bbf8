"""Localise the 18 photos of Brighton Beach on an orthophoto of the same flight.

The photos' CSV becomes `telemetry.csv` (gimbal attitude, height) and `truth.csv` (positions); the
orthophoto is packed with `s4g-pack`, the photos localised and scored with `s4g-run`.

Example:
    python benchmarks/brighton.py ../shared/data/brighton_beach --out /tmp/brighton
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from encoder.photo_poses import read_poses

from s4g.core.files import atomic_file

ORTHO = "ortho_from_laz_0.12m.tif"
# The frames cover 65 x 37 m and six of eighteen look past the orthophoto's edge: only tiles much
# smaller than a frame fit into the corner that sees it.
LEVELS_M = "16"


def write_tables(photos_csv: Path, telemetry_csv: Path, truth_csv: Path) -> float:
    """Split `photos.csv` into telemetry and truth; return the field of view in degrees."""
    poses, hfov_deg = read_poses(photos_csv)
    with atomic_file(telemetry_csv, True) as path, path.open("w", encoding="utf-8") as file:
        file.write("file,yaw_deg,pitch_deg,roll_deg,agl_m\n")
        for pose in poses:
            at = pose.attitude
            angles = f"{at.yaw_deg:.3f},{at.pitch_deg:.3f},{at.roll_deg:.3f}"
            file.write(f"{pose.file},{angles},{at.agl_m:.2f}\n")
    with atomic_file(truth_csv, True) as path, path.open("w", encoding="utf-8") as file:
        file.write("file,lat,lon\n")
        file.writelines(f"{pose.file},{pose.lat},{pose.lon}\n" for pose in poses)
    return hfov_deg


def command(name: str, *arguments: str) -> None:
    """Run one of the package's commands; stop with its exit code if it fails."""
    program = Path(sys.executable).with_name(name)
    result = subprocess.run([str(program), *arguments], check=False)
    if result.returncode:
        sys.exit(result.returncode)


def main() -> None:
    """Pack, localise, score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with photos/, photos.csv and the ortho")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything written")
    parser.add_argument("--encoder", help="bundle or ONNX file; default: the embedded encoder")
    parser.add_argument("--levels", default=LEVELS_M, help="tile footprints, metres")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    hfov_deg = write_tables(options.data / "photos.csv", out / "telemetry.csv", out / "truth.csv")
    encoder = ["--encoder", options.encoder] if options.encoder else []
    pack = str(out / "brighton.s4gpack")
    command(
        "s4g-pack", "--source", str(options.data / ORTHO), "--levels", options.levels,
        "--out", pack, "--overwrite", *encoder,
    )  # fmt: skip
    command(
        "s4g-run", "--single", "--camera", str(options.data / "photos"), "--pack", pack,
        "--telemetry", str(out / "telemetry.csv"), "--hfov", f"{hfov_deg:.2f}",
        "--truth", str(out / "truth.csv"), "--out", str(out / "fixes.jsonl"), "--quiet",
        "--plot", str(out / "track.png"), "--diagnostics", "--overwrite", *encoder,
    )  # fmt: skip


if __name__ == "__main__":
    main()
