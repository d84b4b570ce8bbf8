"""The parity report: what was made, from what, and how far it departs from the checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from ..core.errors import S4GError
from ..core.spec import EncoderSpec
from .bench import Latency, machine, verdict
from .calibration import TileSet
from .graph import OPSET
from .parity import Agreement, Recall

REPORT_VERSION = 1
MAX_R1_DROP = 0.02
_ROUNDING = 1e-9  # a drop of exactly the bar passes
_TOOLS = ("s4g", "torch", "timm", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Artefact:
    """One engine file and how it compares with the checkpoint.

    Attributes:
        file: name inside the bundle.
        precision: `fp32` or `int8`.
        size_bytes: of the file.
        sha256: of the file.
        served: cosine to the checkpoint as ONNX Runtime runs the file by default.
        literal: the same with every optimisation off.
        recall: views and tiles embedded by this engine.
        recall_on_fp32_tiles: views embedded by this engine, tiles by the checkpoint.
        latency: of one image.
        quantised: how many operators of each type run in INT8.
        kept_float: nodes kept in float on request.
    """

    file: str
    precision: str
    size_bytes: int
    sha256: str
    served: Agreement
    literal: Agreement
    recall: Recall
    recall_on_fp32_tiles: Recall
    latency: Latency
    quantised: dict[str, int]
    kept_float: tuple[str, ...]


@dataclass(frozen=True)
class Bars:
    """What an artefact must reach."""

    min_cosine: float
    max_r1_drop: float = MAX_R1_DROP

    def missed(self, artefact: Artefact, checkpoint: Recall) -> list[str]:
        """Return the bars the artefact misses, each with its figures."""
        found = []
        cosine = min(artefact.served.p1, artefact.literal.p1)
        if not cosine >= self.min_cosine:
            found.append(
                f"cosine to the checkpoint {cosine:.4f} at the 1st percentile, "
                f"--min-cosine {self.min_cosine:g}"
            )
        drop = checkpoint.r1 - artefact.recall.r1
        if drop > self.max_r1_drop + _ROUNDING:
            found.append(
                f"R@1 {checkpoint.r1:.3f} to {artefact.recall.r1:.3f}, "
                f"a drop of at most {self.max_r1_drop:g} is allowed"
            )
        return found


@dataclass(frozen=True)
class Report:
    """Everything `report.json` holds."""

    spec: EncoderSpec
    tiles: TileSet
    method: str
    seed: int
    threads: int
    checkpoint: Recall
    max_fp32_difference: float
    mean_cosine_between_places: float
    artefacts: tuple[Artefact, ...]
    bars: Bars

    @property
    def missed(self) -> list[str]:
        """The bars that quantised artefacts miss; FP32 has a stricter gate of its own."""
        return [
            f"{artefact.file}: {line}"
            for artefact in self.artefacts
            if artefact.precision != "fp32"
            for line in self.bars.missed(artefact, self.checkpoint)
        ]

    @property
    def verdict(self) -> str:
        """Whether INT8 pays here; empty where there is no INT8 engine."""
        latency = {a.precision: a.latency for a in self.artefacts}
        return verdict(latency["fp32"], latency["int8"]) if "int8" in latency else ""


def check_bars(report: Report, accept_loss: bool) -> None:
    """Refuse a bundle that misses a bar.

    Raises:
        S4GError: a bar is missed and the loss was not accepted.
    """
    if report.missed and not accept_loss:
        raise S4GError(
            f"{'; '.join(report.missed)}; nothing was written: calibrate on more imagery "
            "(--images), try --method percentile, keep layers in float (--keep-float), or pass "
            "--accept-loss"
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
        "tools": {name: metadata.version(name) for name in _TOOLS},
        "calibration": {
            "source": report.tiles.source,
            "georeferenced": report.tiles.georeferenced,
            "files": report.tiles.files,
            "images": len(report.tiles.tiles),
            "sha256": report.tiles.sha256,
            "method": report.method,
            "seed": report.seed,
        },
        "held_out_places": len(report.tiles.places),
        "checkpoint": asdict(report.checkpoint),
        "fp32_max_difference": report.max_fp32_difference,
        "mean_cosine_between_places": report.mean_cosine_between_places,
        "artefacts": [asdict(artefact) for artefact in report.artefacts],
        "machine": machine(),
        "threads": report.threads,
        "verdict": report.verdict,
        "bars": {**asdict(report.bars), "missed": report.missed},
    }


def as_table(report: Report) -> str:
    """Return the report as text for people."""
    spec, tiles = report.spec, report.tiles
    trained = report.checkpoint
    lines = [
        f"encoder   {spec.backbone}, {spec.input_px} px, {spec.embedding_dim}-d, "
        f"model {spec.model_id[:12]}",
        f"imagery   {tiles.source}: {len(tiles.tiles)} tiles to calibrate on, "
        f"{len(tiles.places)} other places to judge by",
        "",
        f"{'':<24}{'':>7}{'cosine to checkpoint':>24}{'R@1':>8}{'R@5':>7}{'p50':>8}{'p95':>8}",
        f"{'':<24}{'MB':>7}{'mean':>8}{'p1':>8}{'min':>8}{'':>8}{'':>7}{'ms':>8}{'ms':>8}",
        f"{'checkpoint (torch)':<24}{'':>31}{trained.r1:>8.3f}{trained.r5:>7.3f}",
    ]
    for a in report.artefacts:
        lines.append(
            f"{a.file:<24}{a.size_bytes / 1e6:>7.1f}{a.served.mean:>8.4f}{a.served.p1:>8.4f}"
            f"{a.served.min:>8.4f}{a.recall.r1:>8.3f}{a.recall.r5:>7.3f}"
            f"{a.latency.p50_ms:>8.2f}{a.latency.p95_ms:>8.2f}"
        )
    if report.verdict:
        lines += ["", f"{report.verdict} ({machine()['processor']})."]
    lines += [f"bar missed: {line}" for line in report.missed]
    return "\n".join(lines)
