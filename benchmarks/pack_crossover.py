"""Where a level's graph overtakes the scan of its vectors, and how far the scan is from memory.

Vectors are the made-up ground of pack_table.py, projected as a pack does it; both ways are the
pack's own search code, for the ten best of one query at a time on one thread. All ways take turns
within a row, so that a busy machine slows them alike; every table is measured twice.

Example:
    taskset -c 0 python benchmarks/pack_crossover.py
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pack_table import Fields

from s4g.tilepacks.graph import Graph, assemble, build_graph
from s4g.tilepacks.projection import Projection, add_moments, principal
from s4g.tilepacks.quantise import Codes, dequantise, inverse_lengths, quantise
from s4g.tilepacks.search import LevelSearch
from s4g.tilepacks.tiling import Lattice, hilbert_order

Floats = npt.NDArray[np.float32]
_DIMS, _WIDTHS, _GRAPH_DIMS = (64, 128, 256), (48, 96, 192, 384), 64
_K, _QUERIES, _NOISE, _STEP_PX = 10, 64, 0.75, 4
_LEAST, _PART = 256, 16384
_SMALL = 2048  # vectors of a level whose overhead is looked at

# Microseconds by vectors and dimensions: of the scan (0) and of the graph by its width.
Times = dict[tuple[int, int], dict[int, float]]


def make_vectors(fields: Fields, count: int) -> tuple[Floats, Floats]:
    """Return embeddings (N, D) of a square of tiles along a Hilbert curve, and of queries."""
    side = math.isqrt(count - 1) + 1
    lattice = Lattice(16.0, 16, _STEP_PX, 0.0, 0.0, side, side)
    cells = np.arange(count, dtype=np.uint32)
    rows, columns = np.divmod(cells[hilbert_order(lattice, cells)].astype(np.float64), side)
    places = _STEP_PX * np.stack([columns, rows], axis=1)
    parts = [fields.at(places[start : start + _PART]) for start in range(0, count, _PART)]
    rng = np.random.default_rng(5)
    return np.concatenate(parts), fields.at(rng.uniform(0, side * _STEP_PX, (_QUERIES, 2)), _NOISE)


def medians(ways: dict[int, Callable[[int], object]], rounds: int) -> dict[int, float]:
    """Return the median microseconds of each way for one query; they take turns in every round."""
    taken: dict[int, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            way(0)
            for number in range(_QUERIES):
                start = time.perf_counter()
                way(number)
                taken[name].append(time.perf_counter() - start)
    return {name: 1e6 * float(np.median(values)) for name, values in taken.items()}


def search_ways(level: LevelSearch, queries: Floats) -> dict[int, Callable[[int], object]]:
    """Return the scan (0), and the graph by its width."""

    def way(search: LevelSearch) -> Callable[[int], object]:
        return lambda number: search.search(queries[number : number + 1], _K)

    ways = {0: way(dataclasses.replace(level, graph=None))}
    return ways | {ef: way(dataclasses.replace(level, ef=ef)) for ef in _WIDTHS}


def kernel_ways(level: LevelSearch, queries: Floats) -> dict[int, Callable[[int], object]]:
    """Return what the scan (0) and the graph cannot do without: NumKong's and hnswlib's part."""
    import numkong

    packed, rows = numkong.dots_pack(level.codes), quantise(np.repeat(queries, 2, axis=0))
    ways: dict[int, Callable[[int], object]] = {
        0: lambda number: numkong.dots_packed(rows[2 * number : 2 * number + 2], packed)
    }

    def way(ef: int) -> Callable[[int], object]:
        def ask(number: int) -> object:
            level.graph.set_ef(ef)
            query = queries[number : number + 1, :_GRAPH_DIMS]
            return level.graph.knn_query(query, k=max(4 * _K, 48), num_threads=1)

        return ask

    return ways | {ef: way(ef) for ef in _WIDTHS}


def memory_us(data: Codes) -> tuple[float, float]:
    """Return the median microseconds to add up and to copy as many bytes as vectors take."""
    words, copied = data.reshape(-1).view(np.int64), np.empty_like(data)
    ways: dict[int, Callable[[int], object]] = {
        0: lambda number: words.sum(),
        1: lambda number: np.copyto(copied, data),
    }
    found = medians(ways, 1)
    return found[0], found[1]


def recall(level: LevelSearch, queries: Floats) -> list[float]:
    """Return the share of best vectors that the graph finds, by its width."""
    best = level.scan(queries, 1)[0]
    found = [dataclasses.replace(level, ef=ef).search_vectors(queries, _K)[0] for ef in _WIDTHS]
    return [float((ids[:, :1] == best).mean()) for ids in found]


def crossover(times: Times, dims: int, ef: int) -> float | None:
    """Return how many vectors the scan and the graph take as long for, if that was seen."""
    counts = sorted(count for count, of in times if of == dims)
    ratios = [math.log(times[n, dims][0] / times[n, dims][ef]) for n in counts]
    for place in range(len(counts) - 1, 0, -1):
        low, high = ratios[place - 1], ratios[place]
        if low < 0 <= high:
            share = -low / (high - low)
            return math.exp((1 - share) * math.log(counts[place - 1])
                            + share * math.log(counts[place]))  # fmt: skip
    return None


def print_tables(times: Times) -> None:
    """Print times, crossovers, and formulas for them with their errors."""
    print(f"{'dims':>5}{'vectors':>9}{'scan us':>9}" + "".join(f"{f'ef {v}':>9}" for v in _WIDTHS))
    for (count, dims), row in sorted(times.items(), key=lambda item: item[0][::-1]):
        print(f"{dims:>5}{count:>9}" + "".join(f"{row[ef]:>9.0f}" for ef in (0, *_WIDTHS)))
    print("vectors from which on the graph is faster:")
    seen: dict[tuple[int, int], float] = {}
    for dims in _DIMS:
        found = {ef: crossover(times, dims, ef) for ef in _WIDTHS}
        seen |= {(dims, ef): value for ef, value in found.items() if value is not None}
        texts = [f"{v:>9.0f}" if v is not None else f"{'not seen':>9}" for v in found.values()]
        print(f"{dims:>5}{'':>18}" + "".join(texts))
    if len(seen) > 3:
        print_fits(seen)


def print_fits(seen: dict[tuple[int, int], float]) -> None:
    """Print formulas of dims and ef, from the simplest on, and how far off they are."""
    dims, ef = np.array(list(seen), float).T
    counts = np.array(list(seen.values()))
    size = counts * dims
    both = np.linalg.lstsq(np.stack([1 / size, ef / size], axis=1), np.ones(len(size)), rcond=None)
    fixed, slope = both[0]
    columns = np.stack([np.ones(len(ef)), np.log(dims), np.log(ef)], axis=1)
    power = np.linalg.lstsq(columns, np.log(counts), rcond=None)[0]
    mean = math.exp(np.log(size).mean())
    fits = {
        f"{mean:.0f} / dims": mean / dims,
        f"({fixed:.0f} + {slope:.0f} * ef) / dims": (fixed + slope * ef) / dims,
        f"{math.exp(power[0]):.3g} * dims^{power[1]:.2f} * ef^{power[2]:.2f}": np.exp(
            columns @ power
        ),
    }
    for text, values in fits.items():
        off = np.abs(np.log(values / counts))
        print(f"crossover = {text}: off by {100 * math.expm1(np.sqrt((off**2).mean())):.0f} % "
              f"(rms), {100 * math.expm1(off.max()):.0f} % at most")  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=int, default=131_072, help="vectors of the largest level")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    sizes = [_LEAST << step for step in range(10) if _LEAST << step <= options.most]
    fields = Fields()
    moments = np.zeros((max(_DIMS), max(_DIMS)))
    add_moments(moments, make_vectors(fields, min(_PART, sizes[-1]))[0])
    matrix = principal(moments, (64, 64, 128))
    tables: list[Times] = [{}, {}]
    for count in sizes:
        embeddings, views = make_vectors(fields, count)
        links: Graph | None = None
        for dims in _DIMS:
            projection = Projection(dims, np.ascontiguousarray(matrix[:, :dims]))
            codes, queries = quantise(projection.apply(embeddings)), projection.apply(views)
            if links is None:  # the leading dimensions are alike in all
                vectors = dequantise(codes, _GRAPH_DIMS)
                with tempfile.TemporaryDirectory() as name:
                    links = build_graph(lambda a, b, v=vectors: v[a:b], count, Path(name))
            index = assemble(links, codes, _GRAPH_DIMS)
            level = LevelSearch(codes, inverse_lengths(codes), graph=index)
            ways = search_ways(level, queries)
            for table in tables:
                table[count, dims] = medians(ways, options.rounds)
            found = ", ".join(f"{share:.2f}" for share in recall(level, queries))
            print(f"{count} vectors of {dims} dimensions: recall@1 of the graph {found}")
            if count == _SMALL:
                kernels = medians(kernel_ways(level, queries), options.rounds)
                whole = tables[0][count, dims]
                shares = [f"{'scan' if ef == 0 else f'ef {ef}'} {kernels[ef]:.0f} of {us:.0f} us"
                          for ef, us in whole.items()]  # fmt: skip
                print(f"  of which NumKong or hnswlib: {', '.join(shares)}")
            if count == sizes[-1]:
                kernel = medians({0: kernel_ways(level, queries)[0]}, options.rounds)[0]
                took, (added, copied) = tables[0][count, dims][0], memory_us(codes)
                rates = [codes.size / 1e3 / us for us in (took, kernel, added, copied)]
                print(
                    f"  scan {1e3 * took / count:.1f} ns a vector, {rates[0]:.1f} GB/s; NumKong "
                    f"alone {rates[1]:.1f}, numpy's sum {rates[2]:.1f}, copy {rates[3]:.1f}"
                )
    for table in tables:
        print_tables(table)


if __name__ == "__main__":
    main()
