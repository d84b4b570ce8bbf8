"""The whole job: checkpoint and imagery in; a bundle, or one line of why not."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.engine import load_engine  # noqa: E402
from s4g.core.errors import InputError, IntegrityError, S4GError  # noqa: E402
from s4g.core.images import encode_rgb  # noqa: E402
from s4g.core.onnx_file import EXPORT_KEY  # noqa: E402
from s4g.core.spec import EncoderSpec  # noqa: E402
from s4g.export import bundle  # noqa: E402
from s4g.export.bundle import ExportJob, export_bundle  # noqa: E402
from s4g.export.parity import embed_graph  # noqa: E402
from s4g.export.report import Report  # noqa: E402
from s4g.export.tune import Bars  # noqa: E402
from s4g.train.checkpoint import load_checkpoint, model_id, save_checkpoint  # noqa: E402


def job(checkpoint: Path, source: Path, out: Path, **changes: object) -> ExportJob:
    made = ExportJob(
        checkpoint=checkpoint,
        out=out,
        int8=True,
        tensorrt=False,
        source=str(source),
        frames="",
        images=24,
        places=30,
        method="minmax",
        keep_float="",
        depthwise="float",
        sensitivity=False,
        seed=0,
        threads=1,
        bars=Bars(0.9, 0.2),
        accept_loss=False,
        overwrite=False,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module", autouse=True)
def few_timed_runs() -> None:
    bundle._TIMED_RUNS = 2


@pytest.fixture(scope="module")
def made(
    toy_checkpoint: Path, toy_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Report, list[str]]:
    out = tmp_path_factory.mktemp("bundle") / "toy"
    told: list[str] = []
    report = export_bundle(job(toy_checkpoint, toy_source, out, tensorrt=True), told.append)
    return out, report, told


def test_a_bundle_holds_engines_report_and_spec(made, toy_checkpoint) -> None:
    out, _, _ = made
    assert sorted(p.name for p in out.iterdir()) == [
        "encoder.cpu.int8.onnx",
        "encoder.fp16.onnx",
        "encoder.fp32.onnx",
        "encoder.trt.int8.onnx",
        "report.html",
        "report.json",
        "spec.json",
    ]
    text = (out / "spec.json").read_text()
    assert EncoderSpec.from_json(text, "spec.json") == load_checkpoint(toy_checkpoint)[1]
    assert [p for p in out.parent.iterdir() if p != out] == []


def test_engines_agree_with_the_checkpoint(made) -> None:
    _, report, _ = made
    fp32, cpu, trt, half = report.artefacts
    assert report.max_fp32_difference < 1e-5
    assert fp32.served.min > 0.99999
    assert 0.95 < cpu.served.p1 < 0.999999
    assert cpu.literal.p1 > 0.95
    assert cpu.size_bytes < fp32.size_bytes / 3
    assert fp32.recall == report.checkpoint
    assert fp32.top1_agreement == 1
    assert trt.served is half.served is None
    assert 0.95 < trt.literal.p1 < half.literal.p1 < 1 - 1e-7
    assert half.literal.p1 > 0.9999
    assert trt.latency is half.latency is None


def test_the_graphs_for_cpu_and_tensorrt_embed_alike(made) -> None:
    out, report, _ = made
    cpu, trt = (
        embed_graph((out / name).read_bytes(), report.tiles.tiles)
        for name in ("encoder.cpu.int8.onnx", "encoder.trt.int8.onnx")
    )
    assert np.einsum("nd,nd->n", cpu, trt).min() > 0.98


def test_views_find_their_tiles_far_more_often_than_by_chance(made) -> None:
    _, report, _ = made
    assert report.checkpoint.r1 > 5 / 30
    assert report.mean_cosine_between_places < 0.99


def test_engines_keep_the_model_id_and_name_their_precision(made, toy_checkpoint) -> None:
    out, report, _ = made
    _, spec = load_checkpoint(toy_checkpoint)
    assert [a.precision for a in report.artefacts] == ["fp32", "int8", "int8", "fp16"]
    for name, precision in ((a.file, a.precision) for a in report.artefacts):
        found = load_engine(out / name, "cpu").spec
        assert found == dataclasses.replace(spec, precision=precision)


def test_the_report_describes_the_files_that_lie_beside_it(made) -> None:
    out, report, _ = made
    saved = json.loads((out / "report.json").read_text())
    for entry in saved["artefacts"]:
        data = (out / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["size_bytes"] == len(data)
    assert saved["calibration"]["sha256"] == report.tiles.sha256
    assert saved["bars"] == {"min_cosine": 0.9, "max_r1_drop": 0.2, "missed": []}


def test_the_int8_file_says_how_it_was_made(made) -> None:
    out, report, _ = made
    proto = onnx.load(str(out / "encoder.cpu.int8.onnx"))
    facts = json.loads({p.key: p.value for p in proto.metadata_props}[EXPORT_KEY])
    assert facts["quantisation"] == {
        "target": "cpu",
        "activations": "uint8 per tensor",
        "weights": "int8 per output channel",
        "method": "minmax",
        "equalised": report.artefacts[1].trial.equalised,
        "corrected": report.artefacts[1].trial.corrected,
        "images": 48,
        "calibration_sha256": report.tiles.sha256,
        "kept_float": [],
    }
    assert facts["parity"]["r1"] == report.artefacts[1].recall.r1
    assert facts["macs"] == report.macs > 1e6
    assert facts["weight_bytes"] < report.artefacts[1].size_bytes


def test_the_same_job_gives_the_same_engines(made, toy_checkpoint, toy_source, tmp_path) -> None:
    out, _, _ = made
    wanted = job(toy_checkpoint, toy_source, tmp_path / "again", tensorrt=True)
    report = export_bundle(wanted, lambda _: None)
    for name in (*(a.file for a in report.artefacts), "spec.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_each_step_is_told(made, toy_source) -> None:
    _, _, told = made
    assert told == [
        "writing encoder.fp32.onnx",
        f"cutting tiles from {toy_source}",
        "note: 24 calibration images; fewer than 300 rarely cover the ground",
        "calibrating on 24 images, choosing by 24 others",
        "quantising encoder.cpu.int8.onnx",
        "quantising encoder.trt.int8.onnx",
        "writing encoder.fp16.onnx",
        "comparing with the checkpoint on 30 held-out places",
    ]


def test_without_int8_the_bundle_holds_fp32_alone(toy_checkpoint, toy_source, tmp_path) -> None:
    wanted = job(toy_checkpoint, toy_source, tmp_path / "fp32", int8=False)
    report = export_bundle(wanted, lambda _: None)
    assert [a.file for a in report.artefacts] == ["encoder.fp32.onnx"]
    assert not (tmp_path / "fp32" / "encoder.cpu.int8.onnx").exists()
    assert report.trials == ()


def failure(wanted: ExportJob, kind: type[S4GError]) -> str:
    with pytest.raises(kind) as error:
        export_bundle(wanted, lambda _: None)
    return str(error.value)


def test_a_missed_bar_writes_nothing(toy_checkpoint, toy_source, tmp_path) -> None:
    wanted = job(toy_checkpoint, toy_source, tmp_path / "out", bars=Bars(1.0, 0.2))
    message = failure(wanted, S4GError)
    assert message.startswith("encoder.cpu.int8.onnx: cosine to the checkpoint 0.9")
    assert " at the 1st percentile, --min-cosine 1; " in message
    assert "; nothing was written: calibrate on more imagery (--images)" in message
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(
    toy_checkpoint, toy_source, tmp_path, monkeypatch
) -> None:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bundle.os, "fsync", no_space)
    wanted = job(toy_checkpoint, toy_source, tmp_path / "out", int8=False)
    assert failure(wanted, S4GError) == (
        f"{tmp_path / 'out'}: cannot write (No space left on device); free some space or choose "
        "another place; nothing was left behind"
    )
    assert list(tmp_path.iterdir()) == []


BARS = Bars(0.99999, 0.2)


def test_an_accepted_loss_is_written_and_reported(toy_checkpoint, toy_source, tmp_path) -> None:
    wanted = job(toy_checkpoint, toy_source, tmp_path / "out", bars=BARS, accept_loss=True)
    report = export_bundle(wanted, lambda _: None)
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["bars"]["missed"] == report.missed != []


def test_an_existing_bundle_is_left_alone(toy_checkpoint, toy_source, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert failure(job(toy_checkpoint, toy_source, out), InputError) == (
        f"{out}: already exists; pass --overwrite to replace it"
    )
    assert (out / "mine.txt").read_text() == "mine"


def test_a_missing_checkpoint_is_refused(toy_source, tmp_path) -> None:
    wanted = job(tmp_path / "none.safetensors", toy_source, tmp_path / "out")
    assert failure(wanted, InputError) == f"{tmp_path / 'none.safetensors'}: no such checkpoint"


def test_a_file_that_is_no_checkpoint_is_refused(toy_source, tmp_path) -> None:
    path = tmp_path / "garbage.safetensors"
    path.write_bytes(b"garbage" * 100)
    message = failure(job(path, toy_source, tmp_path / "out"), IntegrityError)
    assert message.startswith(f"{path}: not a safetensors checkpoint (")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_spec_is_refused(toy_source, tmp_path) -> None:
    from safetensors.torch import save

    path = tmp_path / "foreign.safetensors"
    path.write_bytes(save({"weight": torch.zeros(3)}))
    assert failure(job(path, toy_source, tmp_path / "out"), InputError) == (
        f"{path}: a safetensors file without an encoder spec; train with s4g-train"
    )


def test_a_collapsed_checkpoint_is_refused(toy_checkpoint, toy_source, tmp_path) -> None:
    encoder, spec = load_checkpoint(toy_checkpoint)
    torch.nn.init.zeros_(encoder.project.weight)
    path = tmp_path / "collapsed.safetensors"
    save_checkpoint(path, encoder, dataclasses.replace(spec, model_id=model_id(encoder)))
    wanted = job(path, toy_source, tmp_path / "out", int8=False)
    assert failure(wanted, S4GError) == (
        f"{path}: embeds different places alike (mean cosine 1.00000); the weights have "
        "collapsed or were never trained, train again"
    )


def test_int8_without_imagery_is_refused(toy_checkpoint, tmp_path) -> None:
    wanted = job(toy_checkpoint, Path(), tmp_path / "out")
    wanted = dataclasses.replace(wanted, source="")
    assert failure(wanted, InputError) == (
        "--calib is missing: --int8 needs imagery to calibrate on"
    )


def test_keep_float_without_int8_is_refused(toy_checkpoint, toy_source, tmp_path) -> None:
    wanted = job(toy_checkpoint, toy_source, tmp_path / "out", int8=False, keep_float="Gemm")
    assert failure(wanted, InputError) == ("--keep-float: has no effect without --int8; add --int8")


def test_a_mistranslated_graph_writes_nothing(
    toy_checkpoint, toy_source, tmp_path, monkeypatch
) -> None:
    encoder, spec = load_checkpoint(toy_checkpoint)
    torch.nn.init.normal_(encoder.reduce.weight)
    wrong = bundle.export_graph(encoder, spec)
    monkeypatch.setattr(bundle, "export_graph", lambda encoder, spec: wrong)
    wanted = job(toy_checkpoint, toy_source, tmp_path / "out", int8=False)
    assert failure(wanted, S4GError).startswith(
        "encoder.fp32.onnx: differs from the checkpoint by "
    )
    assert list(tmp_path.iterdir()) == []


def test_embeddings_of_different_images_differ(made) -> None:
    out, _, _ = made
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for name in ("encoder.fp32.onnx", "encoder.cpu.int8.onnx"):
        first, second = load_engine(out / name, "cpu").embed(images)
        assert np.abs(first - second).max() > 0.01


def test_a_handful_of_images_is_too_few(toy_checkpoint, toy_source, tmp_path) -> None:
    wanted = job(toy_checkpoint, toy_source, tmp_path / "out", images=15)
    assert failure(wanted, InputError) == (
        "--images 15: too few to see the range of any activation; give at least 16, better 300"
    )


def test_pictures_of_one_colour_cannot_calibrate(toy_checkpoint, tmp_path) -> None:
    source = tmp_path / "night"
    source.mkdir()
    for index in range(4):
        black = encode_rgb(np.full((128, 128, 3), index, np.uint8), ".png")
        (source / f"{index}.png").write_bytes(black)
    assert failure(job(toy_checkpoint, source, tmp_path / "out"), InputError) == (
        f"--calib {source}: 12 of 12 tiles are of one colour; use imagery of the ground as the "
        "drone will see it"
    )


def test_frames_of_a_flight_calibrate_and_judge(toy_checkpoint, toy_source, tmp_path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = coarse.repeat(10, axis=0).repeat(10, axis=1)
        (frames / f"{index}.png").write_bytes(encode_rgb(picture, ".png"))
    wanted = job(toy_checkpoint, toy_source, tmp_path / "out", frames=str(frames))
    report = export_bundle(wanted, lambda _: None)
    assert report.calibration_images == 48 + 12
    assert len(report.tiles.held_out_frames) == 30
    assert report.artefacts[0].frames.min > 0.99999
    assert 0.9 < report.artefacts[1].frames.min < 0.99999
