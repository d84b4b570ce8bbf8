"""Tables from which the constants of runtime/locate.py are chosen: when to trust, how far.

Reads the fixes of one or more flights, made with `s4g-run --diagnostics`, and their truths.
Only flights the encoder was not trained on tell anything.

Example:
    python benchmarks/calibrate_fix.py a/fixes.jsonl a/truth.csv b/fixes.jsonl b/truth.csv
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s4g.core.geo import distance_m
from s4g.runtime import locate
from s4g.runtime.score import read_fixes, read_truth

Floats = npt.NDArray[np.float64]

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SPREAD_SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
FLOOR_SHARES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16)


@dataclass(frozen=True)
class Matches:
    """Matched frames of all flights, one entry each: metres, and the mass of the mode."""

    error_m: Floats
    mass: Floats
    spread_m: Floats
    footprint_m: Floats
    agl_m: Floats

    def where(self, chosen: npt.NDArray[np.bool_]) -> Matches:
        """Return some of the matches."""
        return Matches(*(values[chosen] for values in vars(self).values()))


def read_matches(pairs: list[tuple[Path, Path]]) -> Matches:
    """Return the matches of all flights, accepted or not."""
    rows = []
    for fixes, truth_csv in pairs:
        truth = read_truth(truth_csv)
        for fix in read_fixes(fixes):
            place = truth.at(fix.file, fix.t)
            if place is not None and (seen := fix.diagnostics) is not None:
                error = float(distance_m(seen["lat"], seen["lon"], *place))
                rows.append((error, seen["mass"], seen["spread_m"], seen["level"], fix.agl_m))
    if not rows:
        raise SystemExit("error: no fix carries diagnostics; run s4g-run with --diagnostics")
    return Matches(*np.array(rows, np.float64).T)


def threshold_table(matches: Matches) -> str:
    """Return what each threshold on the mass would issue."""
    lines = ["least mass   issued   false   median m   R95 m   max m"]
    for threshold in THRESHOLDS:
        kept = matches.where(matches.mass >= threshold)
        if not len(kept.mass):
            lines.append(f"{threshold:10.2f}   none")
            continue
        false = int((kept.error_m > kept.footprint_m).sum())
        r95 = np.percentile(kept.error_m, 95)
        lines.append(
            f"{threshold:10.2f} {len(kept.mass) / len(matches.mass):7.0%} {false:7d} "
            f"{np.median(kept.error_m):10.1f} {r95:7.1f} {kept.error_m.max():7.1f}"
        )
    return "\n".join(lines)


def sigma_table(matches: Matches) -> str:
    """Return the likelihood of sigma models over the right matches, best first."""
    right = matches.where(
        (matches.mass >= locate.MIN_MASS) & (matches.error_m <= matches.footprint_m)
    )
    if not len(right.mass):
        return "no right match to fit sigma to"
    rows = []
    for scale in SPREAD_SCALES:
        for share in FLOOR_SHARES:
            parts = [scale * right.spread_m, share * right.footprint_m]
            parts.append(locate.TILT_SIGMA_RAD * right.agl_m)
            sigma = np.linalg.norm(parts, axis=0) / right.mass
            ratio = right.error_m / sigma
            # Rayleigh density of the distance, the logarithm averaged.
            likelihood = float(np.mean(np.log(right.error_m / sigma**2) - ratio**2 / 2))
            rows.append((likelihood, scale, share, float(np.sqrt(np.mean(ratio**2))), ratio.max()))
    rows.sort(reverse=True)
    lines = ["log-likelihood  SPREAD_SCALE  FLOOR_SHARE  error/sigma rms (1.41)  largest"]
    lines += [f"{a:14.3f} {b:13.2f} {c:12.2f} {d:23.2f} {e:8.2f}" for a, b, c, d, e in rows[:8]]
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="fixes.jsonl truth.csv, repeated")
    files: list[Path] = parser.parse_args().files
    if len(files) % 2:
        parser.error("give each fixes.jsonl with its truth.csv")
    matches = read_matches(list(zip(files[::2], files[1::2], strict=True)))
    print(f"{len(matches.mass)} matched frames; now MIN_MASS is {locate.MIN_MASS:g}\n")
    print(threshold_table(matches), sigma_table(matches), sep="\n\n")


if __name__ == "__main__":
    main()
