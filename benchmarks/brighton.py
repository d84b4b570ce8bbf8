"""Localise the 18 photos of Brighton Beach on an orthophoto of the same flight.

The photos' CSV becomes `telemetry.csv` (gimbal attitude, height) and `truth.csv` (positions); the
orthophoto is packed with `s4g-pack`, the photos localised and scored with `s4g-run`.

Example:
    python benchmarks/brighton.py ../shared/data/brighton_beach --out /tmp/brighton
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

from s4g.core.camera import Attitude
from s4g.core.files import atomic_file
from s4g.runtime.exif import attitude_from_gimbal, hfov_from_35mm_deg

ORTHO = "ortho_from_laz_0.12m.tif"
# The frames cover 65 x 37 m and six of eighteen look past the orthophoto's edge: only tiles much
# smaller than a frame fit into the corner that sees it.
LEVELS_M = "16"


def _turned(pose: Attitude) -> Attitude:
    """Return the attitude of a photo stored upside down.

    The six photos of the leg flown south-west show north-east at the top: a camera looking
    straight down cannot tell up, wrote orientation 180 into the EXIF, and the copies had that
    applied. Matched by hand on the orthophoto, they lie 177 to 180 degrees from their gimbal yaw,
    the other twelve -4.5 to 1.5.
    """
    return Attitude((pose.yaw_deg + 180.0) % 360.0, -pose.pitch_deg, -pose.roll_deg, pose.agl_m)


def write_tables(photos_csv: Path, telemetry_csv: Path, truth_csv: Path) -> float:
    """Split `photos.csv` into telemetry and truth; return the field of view in degrees."""
    with photos_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with atomic_file(telemetry_csv, True) as path, path.open("w", encoding="utf-8") as file:
        file.write("file,yaw_deg,pitch_deg,roll_deg,agl_m\n")
        for row in rows:
            pose = attitude_from_gimbal(
                *(float(row[n]) for n in ("gimbal_yaw", "gimbal_pitch", "gimbal_roll", "rel_alt_m"))
            )
            if abs((pose.yaw_deg + 180.0) % 360.0 - 180.0) > 90.0:
                pose = _turned(pose)
            angles = f"{pose.yaw_deg:.3f},{pose.pitch_deg:.3f},{pose.roll_deg:.3f}"
            file.write(f"{row['file']},{angles},{pose.agl_m:.2f}\n")
    with atomic_file(truth_csv, True) as path, path.open("w", encoding="utf-8") as file:
        file.write("file,lat,lon\n")
        file.writelines(f"{row['file']},{row['lat']},{row['lon']}\n" for row in rows)
    first = rows[0]
    return hfov_from_35mm_deg(float(first["f35_mm"]), int(first["orig_w"]), int(first["orig_h"]))


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
        "s4g-run", "--camera", str(options.data / "photos"), "--pack", pack,
        "--telemetry", str(out / "telemetry.csv"), "--hfov", f"{hfov_deg:.2f}",
        "--truth", str(out / "truth.csv"), "--out", str(out / "fixes.jsonl"), "--quiet",
        "--plot", str(out / "track.png"), "--diagnostics", "--overwrite", *encoder,
    )  # fmt: skip


if __name__ == "__main__":
    main()
