"""The page of an export: one HTML file with figures, what was tried, and the worst views."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import cv2
import numpy as np

from ..core.engine import Embeddings, Images
from ..core.images import encode_rgb
from ..core.page import STYLE
from .parity import MAX_FP32_DIFFERENCE, Pairs, own_tiles

_WORST_VIEWS = 6
_THUMBNAIL_PX = 96
_JPEG_QUALITY = 82
_LAYERS_SHOWN = 20
_MAX_DECADES = 5  # of a bar's axis: labels of more do not fit on a phone
_SHORTEST_BAR = 1.0  # percent of the axis, so that the smallest loss is still seen
_OPTION = re.compile(r"(--[a-z0-9-]+)")


@dataclass(frozen=True)
class Worst:
    """A held-out view that a file embeds or matches otherwise than the checkpoint does.

    Attributes:
        file: name of the artefact.
        view: row of the view in `Pairs`.
        tile: row of its own tile.
        cosine: between the file's and the checkpoint's embedding of the view.
        checkpoint_first: row of the tile that the checkpoint ranks first.
        file_first: row of the tile that the file ranks first.
    """

    file: str
    view: int
    tile: int
    cosine: float
    checkpoint_first: int
    file_first: int

    @property
    def outcome(self) -> str:
        """What became of the match, in words."""
        before, after = self.checkpoint_first == self.tile, self.file_first == self.tile
        if before:
            return "still found" if after else "match lost"
        return "match gained" if after else "found by neither"


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis over whole decades, 10^low to 10^high."""

    low: int
    high: int

    @classmethod
    def over(cls, losses: Iterable[float]) -> _Axis:
        """Cover the losses (1 - cosine) above zero, at most `_MAX_DECADES` below the largest."""
        shown = [loss for loss in losses if 0 < loss < math.inf]
        if not shown:
            return cls(-1, 0)
        high = math.ceil(math.log10(max(shown)))
        low = max(math.floor(math.log10(min(shown))), high - _MAX_DECADES)
        return cls(min(low, high - 1), high)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Place, percent of the axis, and label of every decade."""
        span = self.high - self.low
        return [(round(100 * i / span, 2), f"1e{self.low + i}") for i in range(span + 1)]

    def percent(self, loss: float) -> float:
        """Return the length of a bar; 0 where there is nothing to show."""
        if not 0 < loss < math.inf:
            return 0.0
        share = (math.log10(loss) - self.low) / (self.high - self.low)
        return round(max(100 * share, _SHORTEST_BAR), 2)


@dataclass(frozen=True)
class _Case:
    worst: Worst
    view: str
    tile: str
    checkpoint_first: str
    file_first: str


def worst_cases(
    file: str, trained: Embeddings, found: Embeddings, pairs: Pairs, count: int = _WORST_VIEWS
) -> list[Worst]:
    """Return the views that suffer most: first those whose match is lost, then by cosine.

    Args:
        file: name of the artefact.
        trained: (N + V + F, D) float32, the checkpoint's embeddings of `pairs.images`.
        found: the same of the artefact.
        pairs: N held-out tiles and V views.
        count: return at most so many.
    """
    before, after = pairs.paired(trained), pairs.paired(found)
    cosine = np.einsum("nd,nd->n", before.views.astype(np.float64), after.views.astype(np.float64))
    first_before = (before.views @ before.tiles.T).argmax(axis=1)
    first_after = (after.views @ after.tiles.T).argmax(axis=1)
    own = own_tiles(len(before.views), len(before.tiles))
    kept = ~((first_before == own) & (first_after != own))
    return [
        Worst(
            file, int(i), int(own[i]), float(cosine[i]), int(first_before[i]), int(first_after[i])
        )
        for i in np.lexsort((cosine, kept))[:count]
    ]


def render_page(content: dict[str, Any], pairs: Pairs, worst: Sequence[Worst] = ()) -> str:
    """Return the page as HTML that loads nothing from elsewhere; the same for the same input.

    Args:
        content: of `report.as_json`.
        pairs: the held-out tiles and views.
        worst: of `worst_cases`, for every file that should have pictures.
    """
    from jinja2 import Environment, StrictUndefined

    template = (resources.files("s4g.export") / "templates" / "report.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    layers = content["sensitivity"][:_LAYERS_SHOWN]
    return environment.from_string(template).render(
        content=content,
        style=STYLE,
        # Options apart from the text around them: browsers break lines at their hyphens.
        missed=[_OPTION.split(line) for line in content["bars"]["missed"]],
        points=_points,
        loss=_loss,
        fp32_bar=MAX_FP32_DIFFERENCE,
        trials=_by_target(content["trials"]),
        trial_axis=_Axis.over(_loss(trial) for trial in content["trials"]),
        chosen=[a["trial"] for a in content["artefacts"] if a["trial"] is not None],
        layers=layers,
        layer_axis=_Axis.over(layer["loss"] for layer in layers),
        floats=_float_layers(content["artefacts"]),
        cases=_cases(pairs, worst),
    )


def _points(before: float, after: float) -> str:
    """Return a change of recall in points: "+0.25", "−1.00", "0.00"."""
    change = round(100 * (after - before), 2)
    return f"{change:+.2f}".replace("-", "−") if change else "0.00"


def _loss(trial: dict[str, Any]) -> float:
    return 1 - float(trial["mean_cosine"])


def _by_target(trials: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        found.setdefault(trial["target"], []).append(trial)
    return found


def _float_layers(artefacts: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the files that keep a layer in float, by the layer's name."""
    found: dict[str, list[str]] = {}
    for artefact in artefacts:
        for node in artefact["kept_float"]:
            found.setdefault(node, []).append(artefact["file"])
    return found


def _cases(pairs: Pairs, worst: Iterable[Worst]) -> dict[str, list[_Case]]:
    """Return pictures of the worst views, by file."""
    found: dict[str, list[_Case]] = {}
    for case in worst:
        tiles = (case.tile, case.checkpoint_first, case.file_first)
        pictures = [_picture(pairs.tiles[row]) for row in tiles]
        found.setdefault(case.file, []).append(
            _Case(case, _picture(pairs.views[case.view]), *pictures)
        )
    return found


def _picture(image: Images) -> str:
    """Return a thumbnail of (px, px, 3) uint8 RGB as a data URI; the page enlarges small ones."""
    if image.shape[0] > _THUMBNAIL_PX:
        small = cv2.resize(image, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        image = np.asarray(small, np.uint8)
    data = encode_rgb(image, ".jpg", _JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
