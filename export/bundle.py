"""One export job: a checkpoint becomes a bundle of engines with a parity report, or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.console import progress
from ..core.devices import BUNDLE_CPU_INT8, BUNDLE_FP16, BUNDLE_FP32, BUNDLE_TRT_INT8
from ..core.engine import Embeddings, Engine, load_engine
from ..core.errors import InputError
from ..core.files import atomic_folder, check_output, sha256_bytes
from ..core.spec import EncoderSpec
from ..train.checkpoint import load_checkpoint
from ..train.model import Encoder
from .bench import Latency, side_by_side
from .calibration import TileSet, check_texture, cut_tiles
from .graph import OPSET, export_graph, with_metadata
from .half import to_half
from .lint import check_tensorrt
from .macs import count_macs, weight_bytes
from .page import Worst, render_page, worst_cases
from .parity import (
    Agreement,
    Changes,
    Pairs,
    check_distinct,
    check_fp32,
    embed_engine,
    embed_graph,
    embed_torch,
    make_pairs,
    top1_agreement,
)
from .prepare import prepare
from .quantise import count_quantised, matching_nodes
from .report import Artefact, Report, as_json, check_bars
from .tune import Bars, Quantised, Tuner

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
SPEC_FILE = "spec.json"
_TIMED_RUNS = 50
_THROUGHPUT_BATCH = 8
_TUNING_PLACES = 128
# Calibration on fewer images than this is refused; below the second, the user is told.
MIN_IMAGES = 16
ADVISED_IMAGES = 300

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ExportJob:
    """What to make of a checkpoint.

    Attributes:
        checkpoint: safetensors file of `s4g-train`.
        out: folder to make.
        int8: whether to quantise.
        tensorrt: whether to make graphs for TensorRT as well.
        source: imagery to calibrate on and to judge by.
        frames: folder of a flight's frames to calibrate on and judge by as well; empty: none.
        images: calibration images, half tiles, half views; those to choose by come on top.
        places: held-out places; where fewer lie apart, each is viewed more than once.
        method: calibration method (`ranges.METHODS`), or `auto`.
        keep_float: regular expression over node names.
        depthwise: `float` or `int8`, for the TensorRT graph.
        sensitivity: scan the layers even where all bars hold.
        seed: of places and views.
        threads: for latency; 0 leaves the choice to ONNX Runtime.
        bars: what INT8 must reach.
        accept_loss: write the bundle although a bar is missed.
        overwrite: replace an existing bundle.
    """

    checkpoint: Path
    out: Path
    int8: bool
    tensorrt: bool
    source: str
    frames: str
    images: int
    places: int
    method: str
    keep_float: str
    depthwise: str
    sensitivity: bool
    seed: int
    threads: int
    bars: Bars
    accept_loss: bool
    overwrite: bool


@dataclass(frozen=True)
class _Made:
    """A graph before it is judged."""

    model: bytes
    target: str
    precision: str
    kept_float: tuple[str, ...] = ()
    quantised: Quantised | None = None


def export_bundle(job: ExportJob, tell: Tell) -> Report:
    """Make the bundle; `tell` hears what is being done.

    Raises:
        InputError: checkpoint, imagery or options are wrong, or the bundle exists.
        S4GError: the network cannot be exported or quantised, or a bar is missed; then nothing is
            written.
    """
    _check_options(job)
    check_output(job.out, job.overwrite)
    encoder, spec = load_checkpoint(job.checkpoint)
    tell(f"writing {BUNDLE_FP32}")
    fp32 = export_graph(encoder, spec)
    tell(f"cutting tiles from {job.source}")
    places = -(-job.images // 2) if job.int8 else 0
    tuning = min(places, _TUNING_PLACES)
    tiles = cut_tiles(job.source, spec, places, job.places, job.seed, job.frames, tuning)
    with atomic_folder(job.out, job.overwrite) as folder:
        report, pairs, worst = _fill(job, folder, encoder, spec, fp32, tiles, tell)
        check_bars(report, job.accept_loss)
        content = as_json(report)
        _write(folder / SPEC_FILE, (spec.to_json() + "\n").encode())
        _write(folder / REPORT_FILE, (json.dumps(content, indent=2) + "\n").encode())
        _write(folder / PAGE_FILE, render_page(content, pairs, worst).encode())
    return report


def _check_options(job: ExportJob) -> None:
    if job.int8 and not job.source:
        raise InputError("--calib is missing: --int8 needs imagery to calibrate on")
    for option, given in (("--keep-float", job.keep_float), ("--sensitivity", job.sensitivity)):
        if given and not job.int8:
            raise InputError(f"{option}: has no effect without --int8; add --int8")
    if job.int8 and job.images < MIN_IMAGES:
        raise InputError(
            f"--images {job.images}: too few to see the range of any activation; give at least "
            f"{MIN_IMAGES}, better {ADVISED_IMAGES}"
        )


def _fill(
    job: ExportJob,
    folder: Path,
    encoder: Encoder,
    spec: EncoderSpec,
    fp32: bytes,
    tiles: TileSet,
    tell: Tell,
) -> tuple[Report, Pairs, list[Worst]]:
    prepared = prepare(fp32)
    macs = count_macs(prepared)
    models = {BUNDLE_FP32: _Made(fp32, "any", "fp32")}
    tuner = None
    if job.int8:
        check_texture(tiles)
        if job.images < ADVISED_IMAGES:
            tell(
                f"note: {job.images} calibration images; fewer than {ADVISED_IMAGES} rarely "
                "cover the ground"
            )
        tuner = _tuner(job, prepared, tiles, tell)
        models |= _int8(job, tuner, prepared, tell)
    if job.tensorrt:
        tell(f"writing {BUNDLE_FP16}")
        models[BUNDLE_FP16] = _Made(to_half(prepared), "tensorrt", "fp16")
    for name, made in models.items():
        if made.target == "tensorrt":
            check_tensorrt(made.model, name)
        _write(folder / name, _with_facts(made, spec, macs, {}))
    frames = f" and {len(tiles.held_out_frames)} frames" if len(tiles.held_out_frames) else ""
    tell(f"comparing with the checkpoint on {len(tiles.places)} held-out places{frames}")
    pairs = make_pairs(tiles.places, tiles.held_out_frames, job.seed, job.places)
    if len(tiles.places) < job.places:
        tell(
            f"note: {len(tiles.places)} of {job.places} held-out places lie apart from each other; "
            f"each is viewed {len(pairs.views) // len(tiles.places)} times"
        )
    trained = embed_torch(encoder, spec, pairs.images)
    between = check_distinct(str(job.checkpoint), pairs.paired(trained).tiles)
    judge = _Judge(job, spec, macs, tiles, pairs, trained)
    with contextlib.ExitStack() as stack:
        engines = {
            name: stack.enter_context(
                contextlib.closing(load_engine(folder / name, "cpu", job.threads))
            )
            for name, made in models.items()
            if made.target != "tensorrt"
        }
        latency = side_by_side(engines, 1, _TIMED_RUNS)
        batched = side_by_side(engines, _THROUGHPUT_BATCH, max(1, _TIMED_RUNS // 5))
        artefacts = [
            judge.artefact(
                folder / name, made, engines.get(name), latency.get(name), batched.get(name)
            )
            for name, made in models.items()
        ]
    report = Report(
        spec=spec,
        tiles=tiles,
        calibration_images=_calibration_images(tiles),
        views=len(pairs.views),
        seed=job.seed,
        threads=job.threads,
        macs=macs,
        checkpoint=pairs.paired(trained).recall,
        max_fp32_difference=artefacts[0].agreement.max_difference,
        mean_cosine_between_places=between,
        artefacts=tuple(artefacts),
        bars=job.bars,
        trials=() if tuner is None else tuple(tuner.trials),
        layers=() if tuner is None else tuple(tuner.layers),
    )
    return report, pairs, judge.worst


def _calibration_images(tiles: TileSet) -> int:
    """Return how many images the finished INT8 graphs are calibrated on: a place gives two."""
    return 2 * (len(tiles.calibration) + len(tiles.tuning)) + len(tiles.frames)


def _write(path: Path, data: bytes) -> None:
    """Write a file of a folder that is not there yet; its errors speak of the folder to be."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _tuner(job: ExportJob, prepared: bytes, tiles: TileSet, tell: Tell) -> Tuner:
    images = make_pairs(tiles.calibration, tiles.frames, job.seed + 1).images
    pairs = make_pairs(tiles.tuning, tiles.frames[:0], job.seed + 2)
    tell(f"calibrating on {len(images)} images, choosing by {len(pairs.images)} others")
    return Tuner(prepared, images, pairs, job.method, job.depthwise, progress)


def _int8(job: ExportJob, tuner: Tuner, prepared: bytes, tell: Tell) -> dict[str, _Made]:
    keep_float = matching_nodes(prepared, job.keep_float)
    targets = {BUNDLE_CPU_INT8: "cpu"} | ({BUNDLE_TRT_INT8: "tensorrt"} if job.tensorrt else {})
    found = {}
    for name, target in targets.items():
        tell(f"quantising {name}")
        made = tuner.tune(target, job.bars, keep_float)
        model = to_half(made.model) if target == "tensorrt" else made.model
        found[name] = _Made(model, target, "int8", made.kept_float, made)
    if job.sensitivity:
        tuner.scan()
    return found


def _with_facts(made: _Made, spec: EncoderSpec, macs: int, facts: dict[str, Any]) -> bytes:
    """Return the file with its spec, its work and what is known of it in the metadata."""
    spec = dataclasses.replace(spec, precision=made.precision)
    work = {"macs": macs, "weight_bytes": weight_bytes(made.model)}
    return with_metadata(made.model, spec, {"opset": OPSET, **work, **facts})


@dataclass(frozen=True)
class _Judge:
    """Compares engine files with the checkpoint on held-out pairs and frames.

    `worst` collects the cases in which INT8 files depart most from it.
    """

    job: ExportJob
    spec: EncoderSpec
    macs: int
    tiles: TileSet
    pairs: Pairs
    trained: Embeddings
    worst: list[Worst] = field(default_factory=list)

    def artefact(
        self,
        path: Path,
        made: _Made,
        engine: Engine | None,
        latency: Latency | None,
        batched: Latency | None,
    ) -> Artefact:
        """Judge one file, and write what was found into its metadata."""
        images = self.pairs.images
        served = None if engine is None else embed_engine(engine, images)
        if made.precision == "fp32" and served is not None:
            # Far below what the optimiser changes: its literal arithmetic need not be asked.
            check_fp32(path.name, self.trained, served)
            literal = served
        else:
            literal = embed_graph(made.model, images, literal=True)
        found = literal if served is None else served
        paired, trained = self.pairs.paired(found), self.pairs.paired(self.trained)
        agreement = Agreement.between(self.trained, found)
        frames = len(self.pairs.frames)
        if made.precision == "int8":
            self.worst.extend(worst_cases(path.name, self.trained, found, self.pairs))
        facts: dict[str, Any] = {
            "parity": {**dataclasses.asdict(agreement), **dataclasses.asdict(paired.recall)},
            "held_out_places": len(self.pairs.tiles),
            "held_out_views": len(self.pairs.views),
        }
        if made.quantised is not None:
            facts["quantisation"] = self._quantisation(made, made.quantised)
        data = _with_facts(made, self.spec, self.macs, facts)
        _write(path, data)
        return Artefact(
            file=path.name,
            target=made.target,
            precision=made.precision,
            size_bytes=len(data),
            sha256=sha256_bytes(data),
            served=None if served is None else agreement,
            literal=Agreement.between(self.trained, literal),
            frames=Agreement.between(self.trained[-frames:], found[-frames:]) if frames else None,
            recall=paired.recall,
            recall_on_fp32_tiles=dataclasses.replace(paired, tiles=trained.tiles).recall,
            top1_agreement=top1_agreement(trained, paired),
            changes=Changes.between(trained, paired),
            latency=latency,
            images_per_s=None if batched is None else 1e3 * _THROUGHPUT_BATCH / batched.p50_ms,
            quantised=count_quantised(made.model),
            kept_float=made.kept_float,
            trial=None if made.quantised is None else made.quantised.trial,
        )

    def _quantisation(self, made: _Made, quantised: Quantised) -> dict[str, Any]:
        trial = quantised.trial
        signed = made.target == "tensorrt"
        return {
            "target": made.target,
            "activations": "int8 symmetric per tensor" if signed else "uint8 per tensor",
            "weights": "int8 per output channel",
            "method": trial.method,
            "equalised": trial.equalised,
            "corrected": trial.corrected,
            "images": _calibration_images(self.tiles),
            "calibration_sha256": self.tiles.sha256,
            "kept_float": list(made.kept_float),
        }
