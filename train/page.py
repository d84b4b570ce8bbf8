"""The page of an evaluation: one HTML file with figures, curves and the worst queries' pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from ..core.images import encode_rgb
from ..core.page import STYLE
from .dataset import Images
from .report import Column, Miss, Scored, used_columns, worst_queries

Size = Callable[[Literal["query", "reference"]], tuple[int, int]]

_THUMBNAIL_PX = 96  # height
_JPEG_QUALITY = 82
# The plot, pixels of the picture: its frame lies at these places.
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 628, 14, 250
_TICKS_K = (1, 2, 5, 10, 20, 50)
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)
_MAX_STEPS = 6
_COLOURS = 6  # of the template's palette; then dashes tell lines apart


@dataclass(frozen=True)
class _Plot:
    ticks_x: list[tuple[float, str]]
    ticks_y: list[tuple[float, str]]
    lines: list[tuple[str, int, int, str]]  # points, colour, dash, label
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM


@dataclass(frozen=True)
class _Section:
    row: dict[str, Any]
    misses: list[tuple[Miss, str, str, list[str]]]  # pictures: query, positive, results


def render_page(content: dict[str, Any], scored: Sequence[Scored], size_px: Size) -> str:
    """Return the page as HTML that loads nothing from elsewhere.

    Args:
        content: of `report.document`.
        scored: what the document's rows were made of, in the same order.
        size_px: height and width of the pictures of a side, for their shape.

    Raises:
        UnreadableImageError: a picture cannot be read any more.
    """
    from jinja2 import Environment, StrictUndefined

    template = (resources.files("s4g.train") / "templates" / "report.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    rows = content["tasks"]
    whole = [
        (row, item)
        for row, item in zip(rows, scored, strict=True)
        if row["dim"] == content["encoder"]["embedding_dim"]
    ]
    columns: list[Column] = used_columns(rows)
    return environment.from_string(template).render(
        content=content,
        style=STYLE,
        rows=rows,
        columns=columns,
        plot=_plot([row for row, _ in whole]),
        sections=[_section(row, item, size_px) for row, item in whole],
    )


def _section(row: dict[str, Any], scored: Scored, size_px: Size) -> _Section:
    task = scored.task
    query_px, gallery_px = size_px(task.query_view), size_px(task.gallery_view)
    misses = []
    for miss in worst_queries(scored):
        results = [_picture(task.gallery, found.row, gallery_px) for found in miss.top]
        query = _picture(task.queries, miss.row, query_px)
        positive = _picture(task.gallery, miss.positive_row, gallery_px)
        misses.append((miss, query, positive, results))
    return _Section(row, misses)


def _picture(images: Images, index: int, shape_px: tuple[int, int]) -> str:
    """Return a thumbnail as a data URI."""
    width = max(1, round(_THUMBNAIL_PX * shape_px[1] / shape_px[0]))
    data = encode_rgb(images.read(index, _THUMBNAIL_PX, width), ".jpg", _JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _plot(rows: list[dict[str, Any]]) -> _Plot:
    """Lay recall over k, from the lowest value up to 1, k on a logarithmic axis."""
    lowest: float = min(min(row["curve"]) for row in rows)
    step = next((s for s in _STEPS if (1 - lowest) / s <= _MAX_STEPS), _STEPS[-1])
    low = min(math.floor(lowest / step + 1e-9) * step, 1 - step)

    def x(k: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * math.log(k) / math.log(_TICKS_K[-1]), 1)

    def y(recall: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * (recall - low) / (1 - low), 1)

    ticks = [low + i * step for i in range(round((1 - low) / step) + 1)]
    return _Plot(
        [(x(k), str(k)) for k in _TICKS_K],
        [(y(value), f"{100 * value:.0f}") for value in ticks],
        [
            (
                " ".join(f"{x(k)},{y(v)}" for k, v in enumerate(row["curve"], 1)),
                i % _COLOURS,
                i // _COLOURS,
                f"{row['task']} · {row['protocol']}",
            )
            for i, row in enumerate(rows)
        ],
    )
