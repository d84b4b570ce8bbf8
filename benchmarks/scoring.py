"""Measure memory and time of scoring N x N: `python benchmarks/scoring.py --count 10000`.

Embeddings are synthetic: 16 latent dimensions and noise, one positive a query, mapped to files.
Each size is scored in a process of its own, whose peak memory counts everything, torch included.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from s4g.core.console import run_command, say
from s4g.core.errors import S4GError

_LATENT = 16
_NOISE = 0.5  # of the latent place, per view
_OWN = 0.6  # share of what lies in no latent dimension
_ROWS = 4096  # made at a time


def _write(folder: Path, count: int, dim: int) -> None:
    """Write `queries.npy` and `gallery.npy`, (count, dim) float32, L2-normalised."""
    basis = np.random.default_rng(0).standard_normal((_LATENT, dim)).astype(np.float32)
    for side in ("queries", "gallery"):
        out = np.lib.format.open_memmap(folder / f"{side}.npy", "w+", np.float32, (count, dim))
        for start in range(0, count, _ROWS):
            rows = min(_ROWS, count - start)
            # Both sides draw the same places, then their own view of each.
            place = np.random.default_rng((1, start)).standard_normal((rows, _LATENT))
            rng = np.random.default_rng((2 if side == "queries" else 3, start))
            seen = place + _NOISE * rng.standard_normal(place.shape)
            part = seen.astype(np.float32) @ basis
            part += _OWN * np.sqrt(_LATENT) * rng.standard_normal((rows, dim), np.float32)
            out[start : start + rows] = part / np.linalg.norm(part, axis=1, keepdims=True)
        del out


@dataclass(frozen=True)
class _Unseen:
    """Pictures that only have a number."""

    count: int

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int, height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
        raise S4GError(f"image {index}: a benchmark of scoring reads no pictures")


def _score(folder: Path) -> dict[str, float]:
    """Score what `_write` left; return what it took."""
    from s4g.train.dataset import RetrievalTask
    from s4g.train.relations import Relations
    from s4g.train.retrieval import score

    queries, gallery = (
        np.load(folder / f"{side}.npy", mmap_mode="r") for side in ("queries", "gallery")
    )
    rows = np.arange(len(queries), dtype=np.int32)
    task = RetrievalTask(
        name="synthetic",
        protocol="all",
        queries=_Unseen(len(queries)),
        gallery=_Unseen(len(gallery)),
        positives=Relations.from_edges(rows, rows, len(rows)),
        one_percent_k=max(1, len(gallery) // 100),
        metrics=("recall", "ap"),
    )
    start_s = time.perf_counter()
    result = score(task, queries, gallery)
    return {
        "N": len(queries),
        "dim": queries.shape[1],
        "seconds": time.perf_counter() - start_s,
        # Linux counts in KiB.
        "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "R@1": result.metrics["recall_at_1"],
        "AP": result.metrics["ap"],
    }


@click.command()
@click.option("--count", multiple=True, type=int, default=(10_000, 90_000), help="N of N x N.")
@click.option("--dim", type=int, default=1024, show_default=True, help="Embedding length.")
@click.option("--score", "scored", type=click.Path(path_type=Path), hidden=True)
def cli(count: tuple[int, ...], dim: int, scored: Path | None) -> None:
    """Print a table of seconds and peak memory of scoring N queries in a gallery of N."""
    if scored is not None:
        click.echo(json.dumps(_score(scored)))
        return
    rows = []
    for number in count:
        with tempfile.TemporaryDirectory() as folder:
            say(f"making {number} x {dim}")
            _write(Path(folder), number, dim)
            say("scoring")
            done = subprocess.run(
                [sys.executable, __file__, "--score", folder],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
        rows.append(json.loads(done.stdout))
    click.echo(" ".join(f"{name:>9}" for name in rows[0]))
    for row in rows:
        click.echo(" ".join(f"{value:>9.4g}" for value in row.values()))


if __name__ == "__main__":
    run_command(cli)
