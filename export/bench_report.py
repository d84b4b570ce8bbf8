"""What `s4g-export bench` says about its measurements: a table, JSON, and plain verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .bench import Bench, Timing, verdict
from .machine import describe, machine

_HEADINGS = ("file", "back end", "threads", "batch", "p50 ms", "p95 ms", "p99 ms")
_RATES = ("images/s", "GMAC/s", "of limit")
_NOISY = 2  # times the median
_WIDTHS = (23, 22, 7, 5, 8, 8, 8, 9, 7, 8)


def as_json(bench: Bench) -> dict[str, Any]:
    """Return everything measured, and the machine it holds for."""
    return {
        "machine": machine(),
        "limits": [asdict(limit) for limit in bench.limits],
        "timings": [_row_json(row) for row in bench.rows],
        "absent": dict(bench.absent),
        "verdicts": list(verdicts(bench.rows)),
    }


def _row_json(row: Timing) -> dict[str, Any]:
    values = asdict(row)
    latency = values.pop("latency") or {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    rates = {"images_per_s": row.images_per_s, "share_of_limit": row.share_of_limit}
    return {**values, **latency, **rates}


def as_table(bench: Bench) -> str:
    """Return everything measured as text, one line for each row, then the verdicts."""
    lines = [describe(machine())]
    for limit in bench.limits:
        lines.append(
            f"limits, {_threads(limit.threads)}: {limit.int8_gmacs_per_s:.0f} GMAC/s INT8 and "
            f"{limit.fp32_gmacs_per_s:.0f} FP32 (fastest product of ONNX Runtime), "
            f"{limit.memory_gbytes_per_s:.0f} GB/s memory"
        )
    lines += ["", _line(*_HEADINGS, *_RATES)]
    lines += [_row(row) for row in bench.rows]
    lines += ["", *verdicts(bench.rows)]
    lines += [f"not timed: {device}: {reason}" for device, reason in bench.absent.items()]
    return "\n".join(lines)


def _row(row: Timing) -> str:
    setting = (row.file, row.backend or row.device, str(row.threads or "auto"), str(row.batch))
    if row.latency is None:
        return f"{_line(*setting)}  {row.error}"
    times = [f"{v:.2f}" for v in (row.latency.p50_ms, row.latency.p95_ms, row.latency.p99_ms)]
    rate = "-" if row.gmacs_per_s is None else f"{row.gmacs_per_s:.0f}"
    share = "-" if row.share_of_limit is None else f"{100 * row.share_of_limit:.0f} %"
    return _line(*setting, *times, f"{row.images_per_s:.0f}", rate, share)


def _line(*cells: str) -> str:
    left = [f"{cell:<{width}}" for cell, width in zip(cells[:2], _WIDTHS, strict=False)]
    right = [f"{cell:>{width}}" for cell, width in zip(cells[2:], _WIDTHS[2:], strict=False)]
    return " ".join([*left, *right]).rstrip()


def verdicts(rows: tuple[Timing, ...]) -> Iterator[str]:
    """Yield sentences for each setting: whether INT8 pays on each back end, and what is fastest."""
    for threads, batch in dict.fromkeys((row.threads, row.batch) for row in rows):
        ran = [r for r in rows if r.latency and (r.threads, r.batch) == (threads, batch)]
        setting = f"{_threads(threads)}, batch {batch}"
        for backend in dict.fromkeys(row.backend for row in ran):
            if said := _int8_verdict([row for row in ran if row.backend == backend]):
                yield f"{setting}, {backend}: {said}"
        if len(ran) > 1:
            best = min(ran, key=_median)
            yield f"{setting}: fastest is {best.file} on {best.backend}, {_median(best):.2f} ms"
    timed = [row.latency for row in rows if row.latency]
    noisy = sum(latency.p95_ms > _NOISY * latency.p50_ms for latency in timed)
    if noisy:
        yield (
            f"p95 is more than twice the median in {noisy} of {len(timed)} rows: this machine is "
            "busy or changes its clocks; measure again"
        )


def _int8_verdict(rows: list[Timing]) -> str:
    """Compare INT8 with the faster of the float files on one back end; empty without both."""
    int8 = min((r for r in rows if r.precision == "int8"), key=_median, default=None)
    plain = min((r for r in rows if r.precision != "int8"), key=_median, default=None)
    if int8 is None or plain is None or int8.latency is None or plain.latency is None:
        return ""
    return verdict(plain.latency, int8.latency, plain.precision.upper())


def _median(row: Timing) -> float:
    return row.latency.p50_ms if row.latency else float("inf")


def _threads(count: int) -> str:
    return "all threads" if count == 0 else f"{count} thread{'s' if count > 1 else ''}"
