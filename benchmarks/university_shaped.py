"""Random, geographic and mined hard negatives, compared on a set of University-1652's shape.

`cut` makes the set from real imagery: a place's satellite tile and its drone views come from other
dates or other photos, and no ground is shared by training and test. `train` trains each method
with the same pairs, seeds and recipe, through `s4g-train`, and evaluates the last weights on the
test places; nothing is chosen by them. What is done already is not done again.

Example:
    python benchmarks/university_shaped.py cut ../shared/data --out /tmp/set
    python benchmarks/university_shaped.py train /tmp/set --out /tmp/runs
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from s4g.core.console import say
from s4g.core.files import write_json

RECIPE = Path(__file__).with_suffix(".toml")
RESULT = "result.json"
METHODS = ("random", "geographic", "mined", "both")
# Epochs: mining costs an embedding of the whole set, so it is done in every second one. Without
# geographic lists the first epoch is random, as an untrained encoder has nothing to say.
MINED_EVERY = 2
GEOGRAPHIC_SHARE = 0.25  # of the epochs, of "both"
DIRECTION = "drone→satellite"


def sampling(method: str, epochs: int) -> dict[str, int]:
    """Return what a method changes in the recipe's `[sampling]`."""
    geographic = {"geographic": epochs, "both": max(1, round(GEOGRAPHIC_SHARE * epochs))}
    mined = method in ("mined", "both")
    return {
        "geographic_epochs": geographic.get(method, 0),
        "mined_every": MINED_EVERY if mined else 0,
    }


def command(arguments: list[str], log: Path) -> str:
    """Run `s4g-train` on one thread, its messages into a file; return its output."""
    program = str(Path(sys.executable).with_name("s4g-train"))
    # Several trainings of one thread each waste less than one of several threads.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8") as messages:
        done = subprocess.run(
            [program, *arguments],
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=environment,
            check=False,
        )
    if done.returncode:
        last = log.read_text(encoding="utf-8").splitlines()[-1:]
        raise RuntimeError(f"s4g-train {' '.join(arguments)}: {' '.join(last)}")
    return done.stdout


def run(data: Path, out: Path, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train and evaluate one method with one seed, unless that is done; return its result."""
    folder = out / f"{method}-{seed}"
    if (folder / RESULT).is_file():
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        if result["epochs"] != epochs:
            sys.exit(f"error: {folder}: holds {result['epochs']} epochs, not {epochs}")
        return result
    folder.mkdir(parents=True, exist_ok=True)
    log, training = folder / "log.txt", folder / "run"
    changes = [
        part
        for key, value in sampling(method, epochs).items()
        for part in ("--set", f"sampling.{key}={value}")
    ]
    resume = ["--resume"] if (training / "state.safetensors").is_file() else []
    started = time.monotonic()
    if not (training / "encoder.safetensors").is_file():
        command(
            ["--recipe", str(RECIPE), "--data", str(data), "--out", str(training),
             "--epochs", str(epochs), "--seed", str(seed), "--workers", "0", "--threads", "1",
             "--device", "cpu", *changes, *resume],
            log,
        )  # fmt: skip
    seconds = time.monotonic() - started
    document = json.loads(
        command(
            ["eval", str(training / "encoder.safetensors"), "--kind", "university1652",
             "--data", str(data), "--json", "--device", "cpu"],
            log,
        )
    )  # fmt: skip
    result = {
        "method": method,
        "seed": seed,
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "hardness": hardness(training / "metrics.jsonl"),
        "evaluation": document,
    }
    write_json(folder / RESULT, result, overwrite=True)
    say(f"{method}, seed {seed}: R@1 {100 * metrics(result, 'official')['recall_at_1']:.1f}")
    return result


def hardness(metrics_file: Path) -> float | None:
    """Return the mean over the epochs that had lists: listed rivals in a pair's own batch."""
    lines = metrics_file.read_text(encoding="utf-8").splitlines()
    events = [json.loads(line).get("event") or {} for line in lines]
    found = [event["hardness"] for event in events if "hardness" in event]
    return statistics.fmean(found) if found else None


def metrics(result: dict[str, Any], protocol: str) -> dict[str, float]:
    """Return the figures of drone to satellite under a protocol."""
    for row in result["evaluation"]["tasks"]:
        if row["task"] == DIRECTION and row["protocol"].startswith(protocol):
            return dict(row["metrics"])
    raise KeyError(protocol)


def table(results: list[dict[str, Any]]) -> str:
    """Return the comparison as Markdown; figures in percent, ± is the deviation over seeds.

    Runs of one seed start from the same weights: their difference says more than two means do.
    """
    lines = [
        "| negatives | R@1 per seed | R@1 | over random, same seed | R@5 | AP | R@1 reduced "
        "| hardness | training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    base = {r["seed"]: metrics(r, "official") for r in results if r["method"] == METHODS[0]}
    for method in METHODS:
        mine = [r for r in results if r["method"] == method]
        if not mine:
            continue
        official = [metrics(r, "official") for r in mine]
        reduced = [100 * metrics(r, "reduced")["recall_at_1"] for r in mine]
        first = [100 * m["recall_at_1"] for m in official]
        gain = [
            value - 100 * base[r["seed"]]["recall_at_1"]
            for r, value in zip(mine, first, strict=True)
        ]
        hard = [r["hardness"] for r in mine if r["hardness"] is not None]
        cells = [
            method,
            " ".join(f"{value:.1f}" for value in first),
            spread(first),
            spread(gain, "+.1f") if method != METHODS[0] else "–",
            f"{100 * statistics.fmean(m['recall_at_5'] for m in official):.1f}",
            f"{100 * statistics.fmean(m['ap'] for m in official):.1f}",
            f"{statistics.fmean(reduced):.1f}",
            f"{statistics.fmean(hard):.1f}" if hard else "–",
            f"{statistics.fmean(r['seconds'] for r in mine):.0f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float], form: str = ".1f") -> str:
    """Return mean ± standard deviation; the mean alone of one value."""
    off = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{off}"


def train(options: argparse.Namespace) -> None:
    """Run what is missing, seed by seed, and print the table."""
    options.out.mkdir(parents=True, exist_ok=True)
    cells = [(method, seed) for seed in range(1, options.seeds + 1) for method in METHODS]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(
            lambda cell: run(options.set, options.out, cell[0], cell[1], options.epochs), cells
        )
        print(table(list(found)))


def cut(options: argparse.Namespace) -> None:
    """Cut the set and print how many places each source gives."""
    from cut_university import cut_set

    counts = cut_set(options.data, options.out, options.seed)
    print("| imagery | train | test | distractors |\n|---|---|---|---|")
    for source, of in counts.items():
        print(f"| {source} | {of['train']} | {of['test']} | {of['gallery']} |")
    total = [sum(of[split] for of in counts.values()) for split in ("train", "test", "gallery")]
    print("| all | " + " | ".join(map(str, total)) + " |")


def main() -> None:
    """Cut or train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    cutting = commands.add_parser("cut", help="make the set")
    cutting.add_argument("data", type=Path, help="folder of the imagery's folders")
    cutting.add_argument("--out", type=Path, required=True, help="new folder for the set")
    cutting.add_argument("--seed", type=int, default=1)
    cutting.set_defaults(job=cut)
    training = commands.add_parser("train", help="compare the methods")
    training.add_argument("set", type=Path, help="folder of the set")
    training.add_argument("--out", type=Path, required=True, help="folder of the runs")
    training.add_argument("--seeds", type=int, default=3)
    training.add_argument("--epochs", type=int, default=8)
    training.add_argument("--jobs", type=int, default=2, help="trainings at a time, a thread each")
    training.set_defaults(job=train)
    options = parser.parse_args()
    options.job(options)


if __name__ == "__main__":
    main()
