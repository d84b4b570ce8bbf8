"""Measure a pack's size, opening and search: `python benchmarks/pack_search.py --vectors 100000`.

Vectors are synthetic with the structure of real packs: clusters, smooth from tile to tile.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from s4g.core.console import run_command, say
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.writer import write_pack

_INPUT_PX = 16
_STEP_PX = 4
_CLUSTERS = 500
_QUERIES = 500


class SyntheticEngine:
    """An encoder that ignores its images and returns clustered unit vectors, the same each run."""

    def __init__(self, dim: int) -> None:
        """Draw the clusters."""
        self.name = "synthetic"
        self.spec = EncoderSpec(
            "00" * 32, "synthetic", _INPUT_PX, (0.5,) * 3, (0.25,) * 3, dim, (dim,), 0.5, 2.0,
            True, 0.1,
        )  # fmt: skip
        self._rng = np.random.default_rng(0)
        self._centers = self._rng.standard_normal((_CLUSTERS, dim))

    def embed(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return (B, D) float32."""
        chosen = self._centers[self._rng.integers(0, _CLUSTERS, len(images))]
        vectors = chosen + 0.7 * self._rng.standard_normal(chosen.shape)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _ground(vectors: int) -> ArrayGround:
    """Return just enough ground for about that many tiles."""
    side = (math.isqrt(vectors) - 1) * _STEP_PX + _INPUT_PX
    frame = LocalFrame(47.0, 8.0)
    rgb = np.full((side, side, 3), 128, np.uint8)
    valid = np.ones((side, side), np.bool_)
    return ArrayGround(rgb, valid, frame, -side / 2, side / 2, 1.0, "synthetic")


def _measure(vectors: int, dim: int, folder: Path) -> dict[str, float]:
    ground, engine = _ground(vectors), SyntheticEngine(dim)
    plan = plan_pack(ground, engine.spec, None, (float(_INPUT_PX),), _STEP_PX / _INPUT_PX)
    path = folder / f"{vectors}x{dim}.s4gpack"
    start = time.perf_counter()
    write_pack(path, build_pack(ground, engine, plan, imagery=False), overwrite=True)
    build_s = time.perf_counter() - start
    start = time.perf_counter()
    with open_pack(path) as pack:
        open_s = time.perf_counter() - start
        search = pack.manifest.levels[0].search
        queries = engine.embed(np.zeros((_QUERIES, 1, 1, 1), np.uint8))
        times_ms = []
        for query in queries:
            start = time.perf_counter()
            pack.search(query[None], 0, 10)
            times_ms.append(1000 * (time.perf_counter() - start))
        count = len(pack.east_m)
    return {
        "tiles": count,
        "dim": dim,
        "B/tile": path.stat().st_size / count,
        "build s": build_s,
        "open s": open_s,
        "ef": search.ef,
        "recall@1": search.recall_at_1,
        "recall@10": search.recall_at_10,
        "p50 ms": float(np.percentile(times_ms, 50)),
        "p95 ms": float(np.percentile(times_ms, 95)),
    }


@click.command()
@click.option("--vectors", multiple=True, type=int, default=(1000, 10_000, 100_000))
@click.option("--dim", type=int, default=128, show_default=True)
def cli(vectors: tuple[int, ...], dim: int) -> None:
    """Print a table of sizes and times; ef 0 is the exact scan."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in vectors:
            say(f"measuring {count} x {dim}")
            rows.append(_measure(count, dim, Path(folder)))
    click.echo(" ".join(f"{name:>9}" for name in rows[0]))
    for row in rows:
        click.echo(" ".join(f"{value:>9.4g}" for value in row.values()))


if __name__ == "__main__":
    run_command(cli)
