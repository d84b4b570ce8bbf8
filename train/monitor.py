"""What a training leaves to look at: `metrics.jsonl`, TensorBoard events, `history.png`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"
HISTORY_NAME = "history.png"

# Panels of the history: title, scalars on the left axis, shares from 0 to 1 on the right one.
_PANELS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("loss", ("loss",), ()),
    ("temperature", ("temperature",), ()),
    ("scale of the logits", ("scale",), ()),
    ("learning rate", ("learning_rate",), ()),
    ("hardness of the batches", ("hardness",), ()),
    ("speed and waiting", ("images_per_s", "pairs_per_s"), ("data_wait_share",)),
)
_SCHEDULED = ("learning_rate", "temperature", "scale")  # smooth by themselves
_FROM_ZERO = ("images_per_s", "pairs_per_s")
_RECALLS = ("recall_at_1", "recall_at_5", "recall_at_10")
_COLOURS = ("#1f5fa8", "#d1761f", "#3a8f4d")
_DASHES = ("-", "--", ":", "-.")
_GREY = "#555555"
_COLUMNS = 2
_PANEL_INCHES = (6.0, 2.8)
_DPI = 110
# A curve of more points is drawn faintly, with its running mean over a fiftieth of it on top.
_SMOOTHED_FROM = 100
_SMOOTHED_SHARE = 50

# Label, steps, values.
_Curve = tuple[str, list[int], list[float]]


class Monitor:
    """Writes the curves of one run. One process of a training has one."""

    def __init__(self, run: Path, step: int = 0) -> None:
        """Open the run's files; what they hold beyond `step` is dropped.

        A training that is resumed from a save makes the steps after it again: without this the
        curves would fold back. A line cut off by a crash is dropped as well.

        Args:
            run: the run folder, which exists.
            step: the step that was saved; 0 for a new training.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._run = run
        self._lines = [line for line in _read(run / METRICS_NAME) if line["step"] <= step]
        with atomic_file(run / METRICS_NAME, overwrite=True) as temporary:
            text = "".join(json.dumps(line) + "\n" for line in self._lines)
            temporary.write_text(text, encoding="utf-8")
        self._file = (run / METRICS_NAME).open("a", encoding="utf-8")
        # Viewers hide the events from purge_step on that an earlier file holds.
        self._board = SummaryWriter(str(run / TENSORBOARD_NAME), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record figures of a training step, such as `loss`.

        `history.png` shows `loss`, `temperature` or `scale`, `learning_rate`, `hardness`,
        `images_per_s`, `pairs_per_s` and `data_wait_share`; TensorBoard shows all.
        """
        self._add({"step": step, **values})
        self._events(step, "train", values)

    def validation(self, step: int, values: Mapping[str, Any]) -> None:
        """Record a validation; figures may be grouped by task: `{"task": {"recall_at_1": …}}`.

        `history.png` shows recall at 1, 5 and 10; TensorBoard shows all numbers.
        """
        self._add({"step": step, "validation": dict(values)})
        self._events(step, "validation", _flat(values))

    def event(self, step: int, values: Mapping[str, Any]) -> None:
        """Record what happened, such as a refresh of the hard negatives; `metrics.jsonl` alone."""
        self._add({"step": step, "event": dict(values)})

    def draw(self) -> None:
        """Write `history.png` anew; nothing is drawn before there are curves.

        Raises:
            S4GError: the disk is full.
        """
        panels = self._panels()
        if not panels:
            return
        # No pyplot: it keeps every figure and picks a back end for the whole process.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows = math.ceil(len(panels) / _COLUMNS)
        columns = min(_COLUMNS, len(panels))
        size = (_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows)
        figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        last = max(line["step"] for line in self._lines)
        for axis, (title, left, right) in zip(axes, panels, strict=False):
            _draw_panel(axis, title, left, right)
            axis.set_xlim(0, max(1, last))
        for axis in axes[len(panels) :]:
            axis.remove()
        with atomic_file(self._run / HISTORY_NAME, overwrite=True) as temporary:
            figure.savefig(temporary, format="png")

    def close(self) -> None:
        """Close the files; `draw` first."""
        self._file.close()
        self._board.close()

    def _add(self, line: dict[str, Any]) -> None:
        line = _finite(line)
        self._lines.append(line)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _events(self, step: int, group: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{group}/{name}", value, step)
        self._board.flush()

    def _panels(self) -> list[tuple[str, list[_Curve], list[_Curve]]]:
        """Return what there is to draw: title, curves on the left axis, curves on the right."""
        train = [line for line in self._lines if not {"validation", "event"} & line.keys()]
        panels = []
        for title, left, right in _PANELS:
            curves = [_curve(train, name) for name in left]
            shares = [_curve(train, name) for name in right]
            panels.append((title, [c for c in curves if c[1]], [c for c in shares if c[1]]))
        validations = [
            {"step": line["step"], **_flat(line["validation"])}
            for line in self._lines
            if "validation" in line
        ]
        names = dict.fromkeys(name for line in validations for name in line)
        recalls = [_curve(validations, n) for n in names if n.rpartition("/")[2] in _RECALLS]
        panels.insert(1, ("validation recall", [c for c in recalls if c[1]], []))
        return [panel for panel in panels if panel[1] or panel[2]]


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of an earlier `metrics.jsonl`."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:  # cut off by a crash
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def _finite(value: Any) -> Any:
    """Replace infinities and NaN, which JSON has no spelling for, by None."""
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Spell grouped values as `group/name`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _curve(lines: list[dict[str, Any]], name: str) -> _Curve:
    points = [(x["step"], x[name]) for x in lines if isinstance(x.get(name), (int, float))]
    return name, [int(step) for step, _ in points], [float(value) for _, value in points]


def _running_mean(values: list[float]) -> list[float]:
    """Average each value with its predecessors, over a fiftieth of the curve."""
    window = max(2, len(values) // _SMOOTHED_SHARE)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [
        (sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window)
        for i in range(len(values))
    ]


def _draw_panel(axis: Axes, title: str, left: list[_Curve], right: list[_Curve]) -> None:
    handles = []
    for number, (name, steps, values) in enumerate(left):
        # Of several tasks R@1, R@5 and R@10 keep their colours, a task its dashes.
        colour = _COLOURS[number % len(_COLOURS)]
        dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        dense = len(steps) > _SMOOTHED_FROM
        if dense and name not in _SCHEDULED:
            axis.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3)
            values = _running_mean(values)
        marker = "" if dense else "."
        label = f"{name} {values[-1]:.4g}"
        handles += axis.plot(
            steps, values, color=colour, ls=dashes, linewidth=1.5, marker=marker, label=label
        )
        if name in _FROM_ZERO:
            axis.set_ylim(bottom=0)
    if right:
        shares = axis.twinx()
        shares.set_ylim(0, 1)
        shares.tick_params(labelsize=8)
        shares.spines["top"].set_visible(False)
        for name, steps, values in right:
            label = f"{name} {values[-1]:.2g} (right)"
            handles += shares.plot(steps, values, color=_GREY, linewidth=0.8, label=label)
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    legend = axis.legend(handles=handles, fontsize=7, framealpha=0.8, edgecolor="none")
    if right:  # "best" does not see the curves of the other axis; the middle is free as a rule
        legend.set_loc("center")
