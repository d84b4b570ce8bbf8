"""The report of an evaluation: one document for JSON, the table on the screen and the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import __version__
from ..core.files import atomic_folder, write_json
from ..core.spec import EncoderSpec
from .dataset import DataConfig, RetrievalTask
from .figures import SDM_AT, WITHIN_M, distances_m
from .relations import Indices
from .retrieval import RECALL_AT, RetrievalResult

REPORT_VERSION = 1
JSON_NAME = "eval.json"
PAGE_NAME = "eval.html"
_WORST = 8  # queries shown of each task
_TOP = 5  # results shown of each
# What belongs to the kind of a data set in `DataConfig`.
_PARTS = {
    "vigor": ("area",),
    "gtauav": ("area",),
    "sues200": ("height_m",),
    "own": ("photos", "source", "footprint_m", "stride"),
}


class Column(NamedTuple):
    """A figure in a table.

    Attributes:
        key: its name in `RetrievalResult.metrics`.
        heading: what the table calls it.
        unit: `%` (the figure is a share) or `m`.
        brief: also on the screen, where there is less room.
    """

    key: str
    heading: str
    unit: Literal["%", "m"]
    brief: bool

    def text(self, row: dict[str, Any]) -> str:
        """Return the figure of one row of the document; `–` where it has none."""
        value = row["metrics"].get(self.key)
        if value is None:
            return "–"
        return f"{100 * value:.2f}" if self.unit == "%" else f"{value:,.1f}"

    def interval(self, row: dict[str, Any]) -> str:
        """Return the figure's 95 % interval; empty where it has none."""
        low, high = row["intervals"].get(self.key, (None, None))
        return "" if low is None else f"{100 * low:.1f}…{100 * high:.1f}"


COLUMNS = (
    *(Column(f"recall_at_{k}", f"R@{k}", "%", True) for k in RECALL_AT),
    Column("recall_at_1_percent", "R@1%", "%", True),
    Column("ap", "AP", "%", True),
    Column("hit_rate", "hit rate", "%", True),
    *(Column(f"sdm_at_{k}", f"SDM@{k}", "%", k == 3) for k in SDM_AT),
    *(Column(f"mean_m_at_{k}", f"Dis@{k}", "m", k == 1) for k in SDM_AT),
    Column("median_m", "median", "m", True),
    *(Column(f"within_{m}_m", f"≤ {m} m", "%", False) for m in WITHIN_M),
)


@dataclass(frozen=True)
class Scored:
    """A task and what it gave.

    Attributes:
        task: what was asked.
        result: the figures at one length of the embedding.
        embedding_s: seconds spent on embedding pictures that no earlier task had.
        scoring_s: seconds spent on scoring.
    """

    task: RetrievalTask
    result: RetrievalResult
    embedding_s: float
    scoring_s: float


@dataclass(frozen=True)
class Neighbour:
    """One of the best results of a query.

    Attributes:
        row: picture of the gallery.
        name: of the picture.
        verdict: `right`, `semi-positive` or `wrong`.
        score: cosine.
        distance_m: from the query; None: not known.
    """

    row: int
    name: str
    verdict: str
    score: float
    distance_m: float | None


@dataclass(frozen=True)
class Miss:
    """A query whose best positive came late.

    Attributes:
        row: picture of the queries.
        query: its name.
        rank: place of its best positive, 1 is first.
        positive_row: its heaviest positive among the gallery's pictures.
        positive: name of that.
        top: its best results.
    """

    row: int
    query: str
    rank: int
    positive_row: int
    positive: str
    top: tuple[Neighbour, ...]


def worst_queries(scored: Scored, count: int = _WORST, top: int = _TOP) -> list[Miss]:
    """Return the queries whose best positive came last, worst first, one of each place.

    Queries that were answered right are never among them.
    """
    task, result = scored.task, scored.result
    misses: list[Miss] = []
    places: set[int] = set()
    for at in np.argsort(-result.ranks, kind="stable"):
        place = int(result.place[at])
        if result.ranks[at] == 0 or len(misses) == count:
            break
        if place in places:
            continue
        places.add(place)
        query = int(result.query_rows[at])
        found = result.top_rows[at, :top]
        found = found[found >= 0]
        misses.append(
            Miss(
                query,
                task.queries.name(query),
                int(result.ranks[at]) + 1,
                place,
                task.gallery.name(place),
                _neighbours(task, query, found, result.top_scores[at, : len(found)].tolist()),
            )
        )
    return misses


def _neighbours(
    task: RetrievalTask, query: int, found: Indices, scores: list[float]
) -> tuple[Neighbour, ...]:
    related, weights = task.positives.of(query)
    right = set(related[weights > 0].tolist())
    semi = set() if task.semi_positives is None else set(task.semi_positives.of(query)[0].tolist())
    apart = distances_m(task, np.array([query], np.int32), found[None])
    metres = [None] * len(found) if apart is None else apart[0].tolist()
    return tuple(
        Neighbour(
            row,
            task.gallery.name(row),
            "right" if row in right else "semi-positive" if row in semi else "wrong",
            score,
            distance,
        )
        for row, score, distance in zip(found.tolist(), scores, metres, strict=True)
    )


def document(
    file: str,
    file_format: str,
    spec: EncoderSpec,
    data: DataConfig,
    folder: Path,
    device: str,
    scored: Sequence[Scored],
) -> dict[str, Any]:
    """Return the content of `eval.json` (docs/evaluation.md).

    Args:
        file: the encoder's file.
        file_format: `checkpoint` or `engine`.
        spec: the encoder's.
        data: which data set.
        folder: where it lies.
        device: where was computed.
        scored: the results, one a row.
    """
    return {
        "report_version": REPORT_VERSION,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "s4g": __version__,
        "device": device,
        "encoder": {
            "file": file,
            "format": file_format,
            "model_id": spec.model_id,
            "backbone": spec.backbone,
            "precision": spec.precision,
            "input_px": spec.input_px,
            "query_px": list(spec.query_px) if spec.query_px else None,
            "embedding_dim": spec.embedding_dim,
        },
        "data": {
            "kind": data.kind,
            "folder": str(folder),
            **{name: getattr(data, name) for name in _PARTS.get(data.kind, ())},
        },
        "tasks": [_row(item, spec.embedding_dim) for item in scored],
    }


def _row(scored: Scored, whole_dim: int) -> dict[str, Any]:
    result = scored.result
    # Prefixes answer the same questions: their misses are not listed again.
    misses = worst_queries(scored) if result.dim == whole_dim else []
    return {
        "task": result.task,
        "protocol": result.protocol,
        "dim": result.dim,
        "queries": result.query_count,
        "places": result.places,
        "gallery": result.gallery_size,
        "one_percent_k": result.one_percent_k,
        "metrics": result.metrics,
        "intervals": {name: list(ends) for name, ends in result.intervals.items()},
        "curve": [round(float(value), 6) for value in result.curve],
        "embedding_s": round(scored.embedding_s, 3),
        "scoring_s": round(scored.scoring_s, 3),
        "worst": [dataclasses.asdict(miss) for miss in misses],
    }


def used_columns(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Return the columns that at least one row has a figure for."""
    return [column for column in COLUMNS if any(column.key in row["metrics"] for row in rows)]


def as_table(content: dict[str, Any]) -> str:
    """Return a document's rows as a table for the screen, shares in percent, protocol last."""
    rows = content["tasks"]
    columns = [column for column in used_columns(rows) if column.brief]
    lines = [["task", "dim", "queries", "gallery"]]
    for column in columns:
        lines[0] += [column.heading + (" m" if column.unit == "m" else "")]
        lines[0] += ["95 % interval"] if column.key == "recall_at_1" else []
    lines[0].append("protocol")
    for row in rows:
        line = [row["task"], f"{row['dim']}", f"{row['queries']:,}", f"{row['gallery']:,}"]
        for column in columns:
            line.append(column.text(row))
            line += [column.interval(row) or "–"] if column.key == "recall_at_1" else []
        lines.append([*line, row["protocol"]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, len(line) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_report(folder: Path, content: dict[str, Any], page: str, overwrite: bool = False) -> None:
    """Write `eval.json` and `eval.html` into a new folder, both or neither.

    Raises:
        InputError: the folder exists and `overwrite` is false.
        S4GError: the disk is full.
    """
    with atomic_folder(folder, overwrite) as temporary:
        write_json(temporary / JSON_NAME, content)
        (temporary / PAGE_NAME).write_text(page, encoding="utf-8")
