"""Flights to calibrate fixes by: none of them is a test, and no encoder was trained on them.

Simulated flights over procedural countries, packed at one date and flown at another; one flies
half its way off the map, one over another country altogether. With `--data`, the North Dakota
quadrangle of 2020 flown over in 2009, western half (ground the shipped encoder knows). Prints what
calibrate_fix.py says of each flight and of all together. With `--filtered`, what the filter makes
of the simulated ones together, perhaps with telemetry that does not tell everything.

Example:
    python benchmarks/calibration_flights.py --out /tmp/calibration
    python benchmarks/calibration_flights.py --out /tmp/calibration --filtered --unknown yaw
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from brighton import command
from calibrate_fix import read_matches, sigma_table, threshold_table
from naip import LEVELS_M, file_of_year
from naip import simulate as simulate_naip

from s4g.core.geo import BBox
from s4g.core.sources import open_ground
from s4g.runtime import score
from s4g.runtime.tables import read_csv_rows

SIZE_M = 1200
COLUMNS = {
    "yaw": ("yaw_deg",),
    "agl": ("agl_m",),
    "tilt": ("pitch_deg", "roll_deg"),
    "velocity": ("vel_n_mps", "vel_e_mps"),
}
LEVELS = "40,80"


@dataclasses.dataclass(frozen=True)
class Flight:
    """A flight to calibrate by.

    Attributes:
        name: what makes it hard.
        packed: source of the pack.
        flown: source of the frames.
        half: whether only the western half is packed.
        agl_m: height of the flight.
    """

    name: str
    packed: str
    flown: str
    half: bool = False
    agl_m: float = 110.0


def landscape(seed: int, **values: object) -> str:
    """Return a landscape's source string."""
    keys = {"seed": seed, "size_m": SIZE_M, **values}
    return "landscape:" + ",".join(f"{key}={value}" for key, value in keys.items())


FLIGHTS = (
    Flight(
        "summer map, autumn flight",
        landscape(901, season="summer"),
        landscape(901, season="autumn", year=1, light=3, sensor="b"),
    ),
    Flight(
        "autumn map, winter flight",
        landscape(902, season="autumn"),
        landscape(902, season="winter", year=1, light=4, sensor="c"),
    ),
    Flight(
        "spring map, summer two years on",
        landscape(903, season="spring", sensor="b"),
        landscape(903, season="summer", year=2, light=5, sensor="a"),
    ),
    Flight(
        "lower and closer",
        landscape(906, season="summer", sensor="c"),
        landscape(906, season="spring", year=1, light=8, sensor="d"),
        agl_m=85.0,
    ),
    Flight(
        "half the way off the map",
        landscape(904, season="summer"),
        landscape(904, season="spring", year=1, light=6, sensor="d"),
        half=True,
    ),
    Flight(
        "another country",
        landscape(905, season="summer"),
        landscape(955, season="summer", year=1, light=7, sensor="b"),
    ),
)


def simulate(flight: Flight, folder: Path) -> None:
    """Render a flight's frames, unless they are there already."""
    if not (folder / "flight").exists():
        command(
            "s4g-sim", "--source", flight.flown, "--agl", str(flight.agl_m), "--sway", "3",
            "--spacing", "220", "--speed", "20", "--fps", "0.35", "--inset", "60",
            "--out", str(folder / "flight"),
        )  # fmt: skip


def localise(
    source: str, levels: str, half: bool, folder: Path, encoder: list[str]
) -> tuple[Path, Path]:
    """Pack, run a flight, and return its fixes and its truth."""
    pack, flight, fixes = folder / "region.s4gpack", folder / "flight", folder / "fixes.jsonl"
    bbox = []
    if half:
        ground = open_ground(source)
        bounds = ground.bounds
        ground.close()
        bbox = ["--bbox", str(BBox(bounds.west, bounds.south, bounds.center[1], bounds.north))]
    command(
        "s4g-pack", "--source", source, "--levels", levels, "--out", str(pack), "--overwrite",
        "--no-imagery", *bbox, *encoder,
    )  # fmt: skip
    command(
        "s4g-run", "--single", "--camera", str(flight / "frames"), "--pack", str(pack),
        "--telemetry", str(flight / "telemetry.csv"), "--intrinsics", str(flight / "camera.json"),
        "--out", str(fixes), "--quiet", "--diagnostics", "--overwrite", *encoder,
    )  # fmt: skip
    return fixes, flight / "truth.csv"


def filtered(folder: Path, unknown: list[str], encoder: list[str]) -> score.Flight:
    """Run the product over a flight that `localise` has packed, some columns left out."""
    flight, table = folder / "flight", folder / "telemetry.csv"
    fixes = folder / "filtered.jsonl"
    left_out = {column for name in unknown for column in COLUMNS[name]}
    _, rows = read_csv_rows(flight / "telemetry.csv")
    kept = [name for name in rows[0] if name not in left_out]
    lines = [kept, *([row[name] for name in kept] for row in rows)]
    table.write_text("".join(",".join(line) + "\n" for line in lines))
    command(
        "s4g-run", "--camera", str(flight / "frames"), "--pack", str(folder / "region.s4gpack"),
        "--telemetry", str(table), "--intrinsics", str(flight / "camera.json"),
        "--out", str(fixes), "--quiet", "--overwrite", *encoder,
    )  # fmt: skip
    return score.match_flight(score.read_fixes(fixes), score.read_truth(flight / "truth.csv"))


def main() -> None:
    """Fly everything, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything written")
    parser.add_argument("--data", type=Path, help="folder with the quadrangle's dates")
    parser.add_argument("--levels", default=LEVELS, help="tile footprints, metres")
    parser.add_argument("--encoder", help="bundle or ONNX file; default: the embedded encoder")
    parser.add_argument("--filtered", action="store_true", help="score the filter's fixes instead")
    parser.add_argument(
        "--unknown",
        action="append",
        default=[],
        choices=list(COLUMNS),
        help="with --filtered: what telemetry does not tell; may be repeated",
    )
    options = parser.parse_args()
    encoder = ["--encoder", options.encoder] if options.encoder else []
    folders: list[Path] = [options.out / str(number) for number in range(len(FLIGHTS))]
    if options.filtered:
        flown = [filtered(folder, options.unknown, encoder) for folder in folders]
        print(score.score_table(score.pool_flights(flown).score))
        return
    pairs = {}
    for folder, flight in zip(folders, FLIGHTS, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        simulate(flight, folder)
        pairs[flight.name] = localise(flight.packed, options.levels, flight.half, folder, encoder)
    if options.data is not None:
        folder = options.out / "naip"
        folder.mkdir(exist_ok=True)
        if not (folder / "flight").exists():
            simulate_naip(file_of_year(options.data, 2009), "west", folder)
        packed = str(file_of_year(options.data, 2020))
        name = "North Dakota west, 2009 on 2020"
        pairs[name] = localise(packed, LEVELS_M, False, folder, encoder)
    for name, pair in pairs.items():
        print(f"== {name}\n{threshold_table(read_matches([pair]))}")
    matches = read_matches(list(pairs.values()))
    print(f"== all\n{threshold_table(matches)}\n{sigma_table(matches)}")


if __name__ == "__main__":
    main()
