"""The parity report: what was made, from what, and how far it departs from the checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..core.errors import S4GError
from ..core.spec import EncoderSpec
from .bench import Latency, verdict
from .calibration import TileSet
from .graph import OPSET
from .machine import machine
from .parity import Agreement, Changes, Recall
from .sensitivity import LayerLoss
from .tune import Bars, Trial

REPORT_VERSION = 2
_ROUNDING = 1e-9  # a drop of exactly the bar passes
# Asked of the modules: onnxruntime is also installed as onnxruntime-gpu.
_TOOLS = ("s4g", "torch", "timm", "onnx", "onnxruntime")
_LAYERS_SHOWN = 8


@dataclass(frozen=True)
class Artefact:
    """One engine file and how it compares with the checkpoint.

    Attributes:
        file: name inside the bundle.
        target: `any`, `cpu` or `tensorrt`: what its arithmetic is laid out for.
        precision: `fp32`, `fp16` or `int8`.
        size_bytes: of the file.
        sha256: of the file.
        served: how alike it embeds tiles, views and frames, as ONNX Runtime runs it by default;
            None for a TensorRT graph, which ONNX Runtime does not serve.
        literal: the same with every optimisation off: the arithmetic the file spells out.
        frames: the same on held-out frames of a flight alone; None where none were given.
        recall: views and tiles embedded by this engine.
        recall_on_fp32_tiles: views embedded by this engine, tiles by the checkpoint.
        top1_agreement: share of views for which engine and checkpoint rank the same tile first.
        changes: views whose own tile the checkpoint found and this engine did not, and the reverse.
        latency: of one image; None where it was not timed (TensorRT graphs).
        images_per_s: in batches of 8; None where it was not timed.
        quantised: how many operators of each type run in INT8.
        kept_float: nodes kept in float, on request or because they lose most.
        trial: how it was quantised, as judged when that was chosen; None for float.
    """

    file: str
    target: str
    precision: str
    size_bytes: int
    sha256: str
    served: Agreement | None
    literal: Agreement
    frames: Agreement | None
    recall: Recall
    recall_on_fp32_tiles: Recall
    top1_agreement: float
    changes: Changes
    latency: Latency | None
    images_per_s: float | None
    quantised: dict[str, int]
    kept_float: tuple[str, ...]
    trial: Trial | None

    @property
    def agreement(self) -> Agreement:
        """As it will be run: served, or literal where ONNX Runtime does not serve it."""
        return self.served or self.literal


@dataclass(frozen=True)
class Report:
    """Everything `report.json` holds.

    Attributes:
        spec: of the checkpoint.
        tiles: what it was calibrated on and judged by.
        views: camera-like views of held-out places, matched to their tiles.
        calibration_images: how many images activations were measured on.
        seed: of places, views and frames.
        threads: of the latencies; 0: ONNX Runtime's choice.
        macs: multiply-adds of one image.
        checkpoint: recall of the trained network in torch.
        max_fp32_difference: largest difference of a coordinate, FP32 engine against checkpoint.
        mean_cosine_between_places: how alike the checkpoint finds different places.
        artefacts: one for each engine file.
        bars: what quantised artefacts must reach.
        trials: every way to quantise that was tried.
        layers: the sensitivity scan, the worst first; empty where none was needed.
    """

    spec: EncoderSpec
    tiles: TileSet
    calibration_images: int
    views: int
    seed: int
    threads: int
    macs: int
    checkpoint: Recall
    max_fp32_difference: float
    mean_cosine_between_places: float
    artefacts: tuple[Artefact, ...]
    bars: Bars
    trials: tuple[Trial, ...] = ()
    layers: tuple[LayerLoss, ...] = ()

    @property
    def missed(self) -> list[str]:
        """The bars that artefacts miss; FP32 has a stricter gate of its own."""
        return [
            f"{artefact.file}: {line}"
            for artefact in self.artefacts
            if artefact.precision != "fp32"
            for line in _missed(artefact, self.checkpoint, self.bars, self.views)
        ]

    @property
    def verdict(self) -> str:
        """Whether INT8 pays on this CPU; empty where there is no INT8 engine for it."""
        latency = {a.precision: a.latency for a in self.artefacts if a.target != "tensorrt"}
        fp32, int8 = latency["fp32"], latency.get("int8")
        return verdict(fp32, int8) if fp32 is not None and int8 is not None else ""


def _missed(artefact: Artefact, checkpoint: Recall, bars: Bars, views: int) -> list[str]:
    found = []
    # Unlike min(), this lets no NaN pass.
    cosine = float(np.min([a.p1 for a in (artefact.served, artefact.literal) if a is not None]))
    if not cosine >= bars.min_cosine:
        found.append(
            f"cosine to the checkpoint {cosine:.4f} at the 1st percentile, "
            f"--min-cosine {bars.min_cosine:g}"
        )
    drop = checkpoint.r1 - artefact.recall.r1
    # One view is the finest step that so many can measure.
    if drop > max(bars.max_r1_drop, 1 / views) + _ROUNDING:
        found.append(
            f"R@1 {checkpoint.r1:.3f} to {artefact.recall.r1:.3f} ({artefact.changes.lost} views "
            f"lost, {artefact.changes.gained} gained), --max-recall-drop {bars.max_r1_drop:g}"
        )
    return found


def check_bars(report: Report, accept_loss: bool) -> None:
    """Refuse a bundle that misses a bar.

    Raises:
        S4GError: a bar is missed and the loss was not accepted.
    """
    if report.missed and not accept_loss:
        raise S4GError(
            f"{'; '.join(report.missed)}; nothing was written: calibrate on more imagery "
            "(--images), keep more layers in float (--keep-float), fine-tune the checkpoint with "
            "s4g-train --qat, or pass --accept-loss"
        )


def as_json(report: Report) -> dict[str, Any]:
    """Return the content of `report.json` (docs/encoder-files.md)."""
    spec = report.spec
    return {
        "report_version": REPORT_VERSION,
        "model_id": spec.model_id,
        "backbone": spec.backbone,
        "input_px": spec.input_px,
        "embedding_dim": spec.embedding_dim,
        "opset": OPSET,
        "macs": report.macs,
        "tools": {name: str(importlib.import_module(name).__version__) for name in _TOOLS},
        "calibration": {
            "source": report.tiles.source,
            "georeferenced": report.tiles.georeferenced,
            "files": report.tiles.files,
            "images": report.calibration_images,
            "frames": len(report.tiles.frames),
            "sha256": report.tiles.sha256,
            "seed": report.seed,
        },
        "held_out_places": len(report.tiles.places),
        "held_out_views": report.views,
        "held_out_frames": len(report.tiles.held_out_frames),
        "checkpoint": asdict(report.checkpoint),
        "fp32_max_difference": report.max_fp32_difference,
        "mean_cosine_between_places": report.mean_cosine_between_places,
        "artefacts": [asdict(artefact) for artefact in report.artefacts],
        "trials": [asdict(trial) for trial in report.trials],
        "sensitivity": [asdict(layer) for layer in report.layers],
        "machine": machine(),
        "threads": report.threads,
        "verdict": report.verdict,
        "bars": {**asdict(report.bars), "missed": report.missed},
    }


def as_table(report: Report) -> str:
    """Return the report as text for people."""
    spec, tiles, trained = report.spec, report.tiles, report.checkpoint
    frames = f" and {len(tiles.held_out_frames)} frames" if len(tiles.held_out_frames) else ""
    lines = [
        f"encoder   {spec.backbone}, {spec.input_px} px, {spec.embedding_dim}-d, "
        f"{report.macs / 1e6:.0f} million multiply-adds, model {spec.model_id[:12]}",
        f"imagery   {tiles.source}: {report.calibration_images} images to calibrate on, "
        f"{len(tiles.places)} other places in {report.views} views{frames} to judge by",
        "",
        f"{'':<24}{'':>7}{'cosine to checkpoint':>24}{'same':>8}{'R@1':>8}{'R@5':>7}"
        f"{'p50':>8}{'p95':>8}{'images':>8}",
        f"{'':<24}{'MB':>7}{'mean':>8}{'p1':>8}{'min':>8}{'top 1':>8}{'':>8}{'':>7}"
        f"{'ms':>8}{'ms':>8}{'/s':>8}",
        f"{'checkpoint (torch)':<24}{'':>39}{trained.r1:>8.3f}{trained.r5:>7.3f}",
        *(_artefact_line(artefact) for artefact in report.artefacts),
    ]
    for artefact in report.artefacts:
        if artefact.trial is not None:
            lines.append(f"{artefact.file}: {_how(artefact)}")
    if report.verdict:
        lines += ["", f"{report.verdict} ({machine()['processor']})."]
    if report.layers:
        lines += ["", "layers that lose most when INT8 alone:", *_layer_lines(report.layers)]
    lines += [f"bar missed: {line}" for line in report.missed]
    return "\n".join(lines)


def _artefact_line(a: Artefact) -> str:
    text = (
        f"{a.file:<24}{a.size_bytes / 1e6:>7.1f}{a.agreement.mean:>8.4f}{a.agreement.p1:>8.4f}"
        f"{a.agreement.min:>8.4f}{a.top1_agreement:>8.3f}{a.recall.r1:>8.3f}{a.recall.r5:>7.3f}"
    )
    if a.latency is None or a.images_per_s is None:
        return text + f"{'-':>8}{'-':>8}{'-':>8}"
    return text + f"{a.latency.p50_ms:>8.2f}{a.latency.p95_ms:>8.2f}{a.images_per_s:>8.0f}"


def _how(artefact: Artefact) -> str:
    trial = artefact.trial
    assert trial is not None
    parts = [f"ranges by {trial.method}"]
    parts += ["channels equalised"] if trial.equalised else []
    parts += ["biases corrected"] if trial.corrected else []
    count = len(artefact.kept_float)
    parts += [f"{count} node{'s' if count > 1 else ''} in float"] if count else []
    return ", ".join(parts)


def _layer_lines(layers: Sequence[LayerLoss]) -> list[str]:
    shown = layers[:_LAYERS_SHOWN]
    return [f"{layer.loss:>10.2e}  {layer.operator:<8}{layer.node}" for layer in shown]
