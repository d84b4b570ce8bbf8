"""One export job: a checkpoint becomes a bundle of engines with a parity report, or nothing."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.engine import BUNDLE_CPU_INT8, BUNDLE_FP32, Embeddings, load_engine
from ..core.errors import InputError
from ..core.files import atomic_folder, check_output, sha256_bytes
from ..core.spec import EncoderSpec
from ..train.checkpoint import load_checkpoint
from ..train.model import Encoder
from .bench import Latency, side_by_side
from .calibration import TileSet, cut_tiles
from .graph import OPSET, export_graph, with_metadata
from .parity import (
    Agreement,
    HeldOut,
    Recall,
    check_distinct,
    check_fp32,
    embed_engine,
    embed_literal,
    embed_torch,
    held_out_pairs,
)
from .quantise import Quantised, quantise_cpu
from .report import Artefact, Bars, Report, as_json, check_bars

REPORT_FILE = "report.json"
SPEC_FILE = "spec.json"
_TIMED_RUNS = 50

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ExportJob:
    """What to make of a checkpoint.

    Attributes:
        checkpoint: safetensors file of `s4g-train`.
        out: folder to make.
        int8: whether to quantise.
        source: imagery to calibrate on and to judge by.
        images: calibration tiles.
        places: held-out places.
        method: calibration method (`quantise.METHODS`).
        keep_float: regular expression over node names.
        seed: of tiles, places and views.
        threads: for latency; 0 leaves the choice to ONNX Runtime.
        min_cosine: lowest acceptable 1st-percentile cosine to the checkpoint.
        accept_loss: write the bundle although a bar is missed.
        overwrite: replace an existing bundle.
    """

    checkpoint: Path
    out: Path
    int8: bool
    source: str
    images: int
    places: int
    method: str
    keep_float: str
    seed: int
    threads: int
    min_cosine: float
    accept_loss: bool
    overwrite: bool


def export_bundle(job: ExportJob, tell: Tell) -> Report:
    """Make the bundle; `tell` hears what is being done.

    Raises:
        InputError: checkpoint, imagery or options are wrong, or the bundle exists.
        S4GError: a bar is missed; then nothing is written.
    """
    _check_options(job)
    check_output(job.out, job.overwrite)
    encoder, spec = load_checkpoint(job.checkpoint)
    tell(f"cutting tiles from {job.source}")
    tiles = cut_tiles(job.source, spec, job.images if job.int8 else 0, job.places, job.seed)
    with atomic_folder(job.out, job.overwrite) as folder:
        report = _fill(job, folder, encoder, spec, tiles, tell)
        check_bars(report, job.accept_loss)
        _write(folder / SPEC_FILE, (spec.to_json() + "\n").encode())
        _write(folder / REPORT_FILE, (json.dumps(as_json(report), indent=2) + "\n").encode())
    return report


def _check_options(job: ExportJob) -> None:
    if job.int8 and not job.source:
        raise InputError("--calib is missing: --int8 needs imagery to calibrate on")
    if job.keep_float and not job.int8:
        raise InputError("--keep-float: has no effect without --int8; add --int8")


def _fill(
    job: ExportJob, folder: Path, encoder: Encoder, spec: EncoderSpec, tiles: TileSet, tell: Tell
) -> Report:
    tell(f"writing {BUNDLE_FP32}")
    models = {BUNDLE_FP32: Quantised(export_graph(encoder, spec), (), {})}
    if job.int8:
        tell(f"quantising with {len(tiles.tiles)} tiles ({job.method})")
        models[BUNDLE_CPU_INT8] = _int8(models[BUNDLE_FP32].model, job, spec, tiles)
    for name, made in models.items():
        _write(folder / name, made.model)
    tell(f"comparing with the checkpoint on {len(tiles.places)} held-out places")
    pairs = held_out_pairs(tiles.places, spec.input_px, job.seed)
    trained = embed_torch(encoder, spec, pairs.images)
    between = check_distinct(str(job.checkpoint), trained[: len(pairs.tiles)])
    engines = {name: load_engine(folder / name, "cpu", job.threads) for name in models}
    latency = side_by_side(engines, 1, _TIMED_RUNS)
    served = {name: embed_engine(engine, pairs.images) for name, engine in engines.items()}
    difference = check_fp32(BUNDLE_FP32, trained, served[BUNDLE_FP32])
    judge = _Judge(job, spec, tiles, pairs, trained)
    artefacts = tuple(
        judge.artefact(folder / name, made, served[name], latency[name])
        for name, made in models.items()
    )
    return Report(
        spec=spec,
        tiles=tiles,
        method=job.method if job.int8 else "",
        seed=job.seed,
        threads=job.threads,
        checkpoint=_recall(trained, trained),
        max_fp32_difference=difference,
        mean_cosine_between_places=between,
        artefacts=artefacts,
        bars=Bars(job.min_cosine),
    )


def _write(path: Path, data: bytes) -> None:
    """Write a file of a folder that is not there yet; its errors speak of the folder to be."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _int8(fp32: bytes, job: ExportJob, spec: EncoderSpec, tiles: TileSet) -> Quantised:
    made = quantise_cpu(fp32, tiles.tiles, job.method, job.keep_float)
    model = with_metadata(made.model, dataclasses.replace(spec, precision="int8"), {})
    return dataclasses.replace(made, model=model)


def _recall(views: Embeddings, tiles: Embeddings) -> Recall:
    """Match the views of one set of embeddings (tiles, then views) to the tiles of another."""
    half = len(views) // 2
    return Recall.of(views[half:], tiles[:half])


@dataclass(frozen=True)
class _Judge:
    """Compares engine files with the checkpoint on held-out pairs."""

    job: ExportJob
    spec: EncoderSpec
    tiles: TileSet
    pairs: HeldOut
    trained: Embeddings

    def artefact(
        self, path: Path, made: Quantised, served: Embeddings, latency: Latency
    ) -> Artefact:
        """Judge one file, and write what was found into its metadata."""
        precision = "int8" if made.quantised else "fp32"
        literal = Agreement.between(self.trained, embed_literal(made.model, self.pairs.images))
        agreement, recall = Agreement.between(self.trained, served), _recall(served, served)
        facts: dict[str, Any] = {
            "opset": OPSET,
            "parity": {**dataclasses.asdict(agreement), **dataclasses.asdict(recall)},
            "held_out_places": len(self.pairs.tiles),
        }
        if made.quantised:
            facts["quantisation"] = self._quantisation(made)
        spec = dataclasses.replace(self.spec, precision=precision)
        data = with_metadata(made.model, spec, facts)
        _write(path, data)
        return Artefact(
            file=path.name,
            precision=precision,
            size_bytes=len(data),
            sha256=sha256_bytes(data),
            served=agreement,
            literal=literal,
            recall=recall,
            recall_on_fp32_tiles=_recall(served, self.trained),
            latency=latency,
            quantised=made.quantised,
            kept_float=made.kept_float,
        )

    def _quantisation(self, made: Quantised) -> dict[str, Any]:
        return {
            "activations": "uint8 per tensor",
            "weights": "int8 per output channel",
            "method": self.job.method,
            "images": len(self.tiles.tiles),
            "calibration_sha256": self.tiles.sha256,
            "kept_float": list(made.kept_float),
        }
