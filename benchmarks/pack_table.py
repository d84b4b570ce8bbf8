"""A pack beside other indexes of the same tiles: size, opening, memory, search, and what it finds.

Tiles and queries are real (`--data`: a raster, the shipped encoder, views with the errors of
telemetry) or made up (`--synthetic N`: smooth fields over the ground, so that neighbours are alike
as in real packs, and queries with noise). Each index is opened and searched in a process of its
own, one query at a time on one thread. Needs `pip install usearch faiss-cpu` for their rows.

Example:
    python benchmarks/pack_table.py --data ORTHO.tif --level 160 --stride 0.1
    python benchmarks/pack_table.py --synthetic 1000000
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s4g.core.engine import Engine, load_engine
from s4g.core.geo import BBox, LocalFrame
from s4g.core.ground import GroundImage, GroundSource, GroundWindow
from s4g.core.sources import open_ground
from s4g.core.spec import EncoderSpec
from s4g.tilepacks import job
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import Plan, plan_pack
from s4g.tilepacks.probes import Probes, make_probes
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.tiling import Cells, Lattice, blocks

Floats = npt.NDArray[np.float32]
_K, _M, _EF_CONSTRUCTION, _EF = 10, 16, 200, 64
_DIM, _WAVES, _NOISE, _PX, _STEP_PX = 256, 384, 0.75, 16, 4


class Coordinates:
    """Ground whose pixels spell where they lie: made-up imagery for `Fields`."""

    name, attribution, gsd_m = "coordinates", "", 1.0

    def __init__(self, side_px: int) -> None:
        """Lay a square of one-metre pixels around a point."""
        self.frame, self._half = LocalFrame(47.0, 8.0), side_px / 2
        self.bounds: BBox = self.frame.wgs84_bounds(*(2 * (-self._half,)), *(2 * (self._half,)))

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        """Return x and y, 12 bits each, as red, green and blue."""
        x = np.rint(window.west_m + self._half + np.arange(window.width_px)).astype(int)
        y = np.rint(self._half - window.north_m + np.arange(window.height_px)).astype(int)
        x, y = np.clip(x, 0, 4095), np.clip(y, 0, 4095)
        rgb = np.empty((len(y), len(x), 3), np.uint8)
        rgb[..., 0] = x & 255
        rgb[..., 1] = (x >> 8).astype(np.uint8) | (y >> 8 << 4).astype(np.uint8)[:, None]
        rgb[..., 2] = (y & 255)[:, None]
        return GroundImage(rgb, np.ones(rgb.shape[:2], np.bool_))

    def close(self) -> None:
        """Nothing to release."""


class Fields:
    """An encoder of `Coordinates`: waves over the ground, half a footprint to forty long."""

    name, backend = "synthetic fields", "numpy"

    def __init__(self) -> None:
        """Draw the waves."""
        rng = np.random.default_rng(0)
        self.spec = EncoderSpec(
            "00" * 32, "synthetic", _PX, (0.5,) * 3, (0.25,) * 3, _DIM, (), 0.5, 2.0, True, 0.1
        )
        per_px = np.exp(rng.uniform(math.log(1 / 40), math.log(2), _WAVES)) / _PX
        self._waves = rng.standard_normal((2, _WAVES)) * per_px
        self._phase = rng.uniform(0, 2 * math.pi, _WAVES)
        self._mix = rng.standard_normal((_WAVES, _DIM))

    def embed(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Return (B, D) float32 by the place in each image's first pixel."""
        r, g, b = images[:, 0, 0].astype(int).T
        return self.at(np.stack([r | (g & 15) << 8, b | (g >> 4) << 8], axis=1).astype(float))

    def at(self, places_px: npt.NDArray[np.float64], noise: float = 0.0) -> Floats:
        """Return embeddings (N, D) of places (N, 2), disturbed by a vector of length `noise`."""
        found = np.cos(places_px @ self._waves + self._phase) @ self._mix
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        if noise:
            added = np.random.default_rng(1).standard_normal(found.shape)
            found += noise * added / np.linalg.norm(added, axis=1, keepdims=True)
            found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found.astype(np.float32)

    def close(self) -> None:
        """Nothing to release."""

    def probes(
        self,
        layers: Sequence[GroundSource],
        frame: LocalFrame,
        lattice: Lattice,
        cells: Cells,
        engine: object,
        count: int = 256,
    ) -> Probes:
        """Stand in for `probes.make_probes`: a warped picture of coordinates spells no place."""
        rng = np.random.default_rng(7)
        east, north = lattice.centers_m(rng.choice(cells, min(count, len(cells)), replace=False))
        shift = rng.uniform(-0.5, 0.5, (2, len(east))) * lattice.stride_m
        east, north = east + shift[0], north + shift[1]
        half = lattice.footprint_m / 2
        places = np.stack([east - half - lattice.west_m, lattice.north_m - north - half], axis=1)
        return Probes(self.at(places, _NOISE), east, north)


class Recorder:
    """An engine that keeps what it returned, and returns it again when it is rewound."""

    def __init__(self, engine: Any) -> None:
        """Wrap an engine."""
        self._engine, self.name, self.spec = engine, engine.name, engine.spec
        self.backend = engine.backend
        self.kept: list[Floats] = []
        self._at = 0

    def embed(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Return (B, D) float32."""
        if self._at == len(self.kept):
            self.kept.append(self._engine.embed(images))
        self._at += 1
        return self.kept[self._at - 1]

    def rewind(self) -> None:
        """Start again."""
        self._at = 0

    def close(self) -> None:
        """Nothing of its own to release."""


def build_packs(
    ground: GroundSource, engine: Recorder, plan: Plan, folder: Path
) -> dict[str, float]:
    """Build packs of chosen and given lengths; return seconds without the encoder's first run."""
    seconds = {}
    options = {"pack": None, "pack --compact": 64, "pack --dims 128": 128}
    scratch = folder / "first.s4gpack"
    build_pack([ground], engine, plan, scratch, BuildOptions(overview=False, dims=64))
    scratch.unlink()
    for name, dims in options.items():
        engine.rewind()
        start = time.perf_counter()
        made = BuildOptions(overview=False, dims=dims)
        build_pack([ground], engine, plan, folder / name, made)
        seconds[name] = time.perf_counter() - start
    return seconds


def build_others(embeddings: Floats, folder: Path, only: str | None) -> dict[str, float]:
    """Build the other indexes; return seconds. One thread."""
    seconds = {}
    makers: dict[str, Callable[[Floats, Path], None]] = {
        "hnswlib f32": _make_hnswlib,
        **{f"usearch {kind}": _usearch_maker(kind) for kind in ("f32", "f16", "i8")},
        "faiss HNSW-SQ8": _make_faiss,
        "exact f32": lambda vectors, path: np.save(path.open("wb"), vectors),
    }
    for name, make in makers.items():
        if only and not name.startswith(tuple(only.split(","))):
            continue
        start = time.perf_counter()
        try:
            make(embeddings, folder / name)
        except ImportError as error:
            print(f"note: {name} is left out: {error}", file=sys.stderr)
            continue
        seconds[name] = time.perf_counter() - start
    return seconds


def _make_hnswlib(vectors: Floats, path: Path) -> None:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(len(vectors), M=_M, ef_construction=_EF_CONSTRUCTION)
    index.add_items(vectors, num_threads=1)
    index.save_index(str(path))


def _usearch_maker(kind: str) -> Callable[[Floats, Path], None]:
    def make(vectors: Floats, path: Path) -> None:
        from usearch.index import Index

        index = Index(
            ndim=vectors.shape[1], metric="ip" if kind != "i8" else "cos", dtype=kind,
            connectivity=_M, expansion_add=_EF_CONSTRUCTION, expansion_search=_EF,
        )  # fmt: skip
        index.add(np.arange(len(vectors)), vectors, threads=1)
        index.save(str(path))

    return make


def _make_faiss(vectors: Floats, path: Path) -> None:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWSQ(
        vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, _M, faiss.METRIC_INNER_PRODUCT
    )
    index.hnsw.efConstruction = _EF_CONSTRUCTION
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(path))


def _searcher(name: str, path: Path) -> Callable[[Floats], Any]:
    """Open an index; return what finds the ten best of one query (1, D)."""
    if name.startswith("pack"):
        pack = open_pack(path)
        pack.prepare()
        return lambda query: pack.search(query, 0, _K)[0]
    if name.startswith("hnswlib"):
        import hnswlib

        found = hnswlib.Index(space="ip", dim=_dim(path))
        found.load_index(str(path))
        found.set_ef(_EF)
        return lambda query: found.knn_query(query, k=_K, num_threads=1)[0]
    if name.startswith("usearch"):
        from usearch.index import Index

        index = Index.restore(str(path))
        return lambda query: index.search(query[0], _K, threads=1).keys[None]
    if name.startswith("faiss"):
        import faiss

        faiss.omp_set_num_threads(1)
        read = faiss.read_index(str(path))
        read.hnsw.efSearch = _EF
        return lambda query: read.search(query, _K)[1]
    vectors = np.load(path)

    def exact(query: Floats) -> Any:
        scores = vectors @ query[0]
        best = np.argpartition(-scores, _K)[:_K]
        return best[np.argsort(-scores[best])][None]

    return exact


def _dim(path: Path) -> int:
    return int(np.load(path.parent / "queries.npy").shape[1])


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def worker(name: str, folder: Path) -> None:
    """Open one index and search it; print JSON, keep what was found."""
    queries = np.load(folder / "queries.npy")
    _warm_imports(name)
    before, start = _rss_mb(), time.perf_counter()
    search = _searcher(name, folder / name)
    opened = time.perf_counter() - start
    search(queries[:1])
    times, ids = [], []
    for number in range(len(queries)):
        start = time.perf_counter()
        ids.append(search(queries[number : number + 1])[0])
        times.append(1e3 * (time.perf_counter() - start))
    np.save(folder / f"{name}.ids.npy", np.array(ids, np.int64))
    p50, p99 = np.percentile(times, [50, 99])
    print(json.dumps({"open_ms": 1e3 * opened, "rss": _rss_mb() - before, "p50": p50, "p99": p99}))


def _warm_imports(name: str) -> None:
    module = {"pack": "hnswlib", "hnswlib": "hnswlib", "usearch": "usearch.index", "faiss": "faiss"}
    __import__(module.get(name.split()[0], "numpy"))
    if name.startswith("pack"):
        __import__("numkong")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="raster to cut tiles from")
    parser.add_argument("--level", type=float, default=160.0, help="footprint, metres")
    parser.add_argument("--stride", type=float, default=0.25)
    parser.add_argument("--bbox", help="W,S,E,N")
    parser.add_argument("--synthetic", type=int, metavar="N", help="number of made-up tiles")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--only", help="rows whose names begin so, for example pack,hnswlib")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker[0], Path(options.worker[1]))
        return
    if options.synthetic:
        side = (math.isqrt(options.synthetic) - 1) * _STEP_PX + _PX
        ground: GroundSource = Coordinates(side)
        engine: Any = Fields()
        levels, stride = float(_PX), _STEP_PX / _PX
        job.make_probes = engine.probes
    else:
        ground, engine = open_ground(options.data), load_engine(None, "cpu", 1)
        levels, stride = options.level, options.stride
    recorder = Recorder(engine)
    box = BBox(*map(float, options.bbox.split(","))) if options.bbox else None
    plan = plan_pack(ground, recorder.spec, box, (levels,), stride)
    with tempfile.TemporaryDirectory() as name:
        table(ground, engine, recorder, plan, Path(name), options)


def table(
    ground: GroundSource, engine: Engine, recorder: Any, plan: Plan, folder: Path, options: Any
) -> None:
    """Build every index, open and search each in its own process, print the rows."""
    lattice = plan.lattices[0]
    seconds = build_packs(ground, recorder, plan, folder)
    cells = np.concatenate([
        ((b.rows.start + r) * lattice.columns + b.columns.start + c)
        for b in blocks(lattice)
        for r, c in [np.argwhere(plan.wanted(lattice, b)).T]
    ]).astype(np.uint32)  # fmt: skip
    embeddings = np.concatenate(recorder.kept)[: len(cells)]
    with open_pack(folder / "pack") as pack:
        if pack.levels[0].count != len(cells):
            raise SystemExit("the raster has gaps: give a --bbox without any")
        in_pack = pack.cells(0)
        info, how = pack.manifest.projection, pack.manifest.levels[0].search
    if options.synthetic:
        rng = np.random.default_rng(5)
        places = rng.uniform(0, min(lattice.columns, lattice.rows) * _STEP_PX, (options.queries, 2))
        queries = engine.at(places, _NOISE)  # type: ignore[attr-defined]  # Fields
        east = lattice.west_m + places[:, 0] + lattice.footprint_m / 2
        north = lattice.north_m - places[:, 1] - lattice.footprint_m / 2
    else:
        probes = make_probes([ground], plan.frame, lattice, cells[::-1], engine, options.queries)
        queries, east, north = probes.embeddings, probes.east_m, probes.north_m
    np.save(folder / "queries.npy", queries)
    seconds |= build_others(embeddings, folder, options.only)
    truth = (
        np.argsort(-(queries @ embeddings.T), axis=1)[:, :_K]
        if len(cells) <= 200_000
        else (np.stack([_top(embeddings, query) for query in queries]))
    )
    print(f"{len(cells)} tiles, {len(queries)} queries, {recorder.spec.embedding_dim}-d; "
          f"pack: {info.dims}-d, shares by dimensions {info.shares}, {how}")  # fmt: skip
    print(f"{'index':<16}{'B/tile':>8}{'build s':>9}{'open ms':>9}{'RSS MB':>8}{'p50 ms':>8}"
          f"{'p99 ms':>8}{'r@1':>7}{'r@10':>7}{'found':>7}")  # fmt: skip
    tile_east, tile_north = lattice.centers_m(cells)
    for index in seconds:
        if options.only and not index.startswith(tuple(options.only.split(","))):
            continue
        command = [sys.executable, __file__, "--worker", index, str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        told = json.loads(done.stdout)
        ids = np.load(folder / f"{index}.ids.npy")
        if index.startswith("pack"):
            place = np.empty(int(cells.max()) + 1, np.int64)
            place[cells] = np.arange(len(cells))
            ids = place[in_pack[ids]]
        at_1 = (ids[:, 0] == truth[:, 0]).mean()
        at_10 = (ids[:, :, None] == truth[:, None, :]).any(axis=2).mean()
        away = np.hypot(tile_east[ids[:, 0]] - east, tile_north[ids[:, 0]] - north)
        found = (away <= lattice.footprint_m).mean()
        size = (folder / index).stat().st_size / len(cells)
        print(f"{index:<16}{size:>8.0f}{seconds[index]:>9.1f}{told['open_ms']:>9.0f}"
              f"{told['rss']:>8.0f}{told['p50']:>8.3f}{told['p99']:>8.3f}{at_1:>7.3f}{at_10:>7.3f}"
              f"{found:>7.3f}", flush=True)  # fmt: skip


def _top(embeddings: Floats, query: Floats) -> npt.NDArray[np.int64]:
    scores = embeddings @ query
    best = np.argpartition(-scores, _K)[:_K]
    return best[np.argsort(-scores[best])]


if __name__ == "__main__":
    main()
