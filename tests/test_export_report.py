"""The parity report: bars, verdict, JSON and table."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")

from s4g.core.errors import S4GError
from s4g.core.spec import EncoderSpec
from s4g.export import report as reporting
from s4g.export.bench import Latency
from s4g.export.calibration import TileSet
from s4g.export.parity import Agreement, Changes, Recall
from s4g.export.report import Artefact, Report, check_bars
from s4g.export.sensitivity import LayerLoss
from s4g.export.tune import Bars, Trial

SPEC = EncoderSpec("ab" * 32, "toy", 32, (0.5,) * 3, (0.25,) * 3, 8, (8,), 0.5, 4.0, True, 0.1)
CLOSE = Agreement(mean=0.999, p1=0.995, min=0.99, max_difference=0.02)
FAR = Agreement(mean=0.99, p1=0.97, min=0.9, max_difference=0.2)
TRIAL = Trial("cpu", "mse", True, True, 0, 0.9991, 0.995, 0.9)


def artefact(precision: str = "int8", **changes: object) -> Artefact:
    made = Artefact(
        file=f"encoder.{precision}.onnx",
        target="any" if precision == "fp32" else "cpu",
        precision=precision,
        size_bytes=11_600_000,
        sha256="0" * 64,
        served=CLOSE,
        literal=CLOSE,
        frames=None,
        recall=Recall(0.90, 0.97),
        recall_on_fp32_tiles=Recall(0.91, 0.97),
        top1_agreement=0.985,
        changes=Changes(lost=4, gained=1),
        latency=Latency(5.0, 6.0, 7.0) if precision == "int8" else Latency(15.0, 16.0, 17.0),
        images_per_s=250.0 if precision == "int8" else 80.0,
        quantised={"Conv": 20} if precision == "int8" else {},
        kept_float=(),
        trial=TRIAL if precision == "int8" else None,
    )
    return dataclasses.replace(made, **changes)


def report(*artefacts: Artefact, **changes: object) -> Report:
    places = np.zeros((3, 48, 48, 3), np.uint8)
    held_out = np.zeros((400, 48, 48, 3), np.uint8)
    frames = np.zeros((0, 32, 32, 3), np.uint8)
    made = Report(
        spec=SPEC,
        tiles=TileSet("ortho.tif", places, places[:0], held_out, 1, True, frames, frames),
        calibration_images=6,
        views=len(held_out),
        seed=0,
        threads=1,
        macs=359_000_000,
        checkpoint=Recall(0.91, 0.97),
        max_fp32_difference=1e-6,
        mean_cosine_between_places=0.2,
        artefacts=artefacts or (artefact("fp32"), artefact("int8")),
        bars=Bars(min_cosine=0.98, max_r1_drop=0.02),
    )
    return dataclasses.replace(made, **changes)


def test_a_close_engine_passes() -> None:
    assert report().missed == []
    check_bars(report(), accept_loss=False)


@pytest.mark.parametrize("which", ["served", "literal"])
def test_the_worse_of_served_and_literal_cosine_counts(which: str) -> None:
    made = report(artefact("fp32"), artefact("int8", **{which: FAR}))
    assert made.missed == [
        "encoder.int8.onnx: cosine to the checkpoint 0.9700 at the 1st percentile, "
        "--min-cosine 0.98"
    ]


def test_a_cosine_that_is_no_number_is_a_miss() -> None:
    nothing = Agreement(*[float("nan")] * 4)
    assert len(report(artefact("int8", served=nothing, literal=nothing)).missed) == 1


def test_bars_are_not_for_fp32_which_has_its_own_gate() -> None:
    assert report(artefact("fp32", served=FAR), artefact("int8")).missed == []


def test_lost_recall_is_a_miss() -> None:
    made = report(artefact("fp32"), artefact("int8", recall=Recall(0.88, 0.95)))
    assert made.missed == [
        "encoder.int8.onnx: R@1 0.910 to 0.880 (4 views lost, 1 gained), --max-recall-drop 0.02"
    ]


@pytest.mark.parametrize("which", ["served", "literal"])
def test_a_cosine_that_is_no_number_misses_the_bar(which: str) -> None:
    broken = dataclasses.replace(CLOSE, p1=float("nan"))
    assert len(report(artefact("int8", **{which: broken})).missed) == 1


def test_a_drop_of_exactly_the_bar_passes() -> None:
    assert report(artefact("int8", recall=Recall(0.91 - 0.02, 0.95))).missed == []


def test_one_view_may_be_lost_where_it_is_more_than_the_bar() -> None:
    lost_one = report(artefact("int8", recall=Recall(0.91 - 1 / 40, 0.95)), views=40)
    lost_two = report(artefact("int8", recall=Recall(0.91 - 2 / 40, 0.95)), views=40)
    assert lost_one.missed == []
    assert len(lost_two.missed) == 1


def test_a_missed_bar_fails_naming_figures_and_remedies() -> None:
    made = report(artefact("int8", served=FAR, recall=Recall(0.88, 0.95)))
    with pytest.raises(S4GError) as failure:
        check_bars(made, accept_loss=False)
    assert failure.value.exit_code == 1
    assert str(failure.value) == (
        "encoder.int8.onnx: cosine to the checkpoint 0.9700 at the 1st percentile, "
        "--min-cosine 0.98; encoder.int8.onnx: R@1 0.910 to 0.880 (4 views "
        "lost, 1 gained), --max-recall-drop 0.02; "
        "nothing was written: calibrate on more imagery (--images), keep more layers in float "
        "(--keep-float), fine-tune the checkpoint with s4g-train --qat, or pass --accept-loss"
    )


def test_an_accepted_loss_passes_but_is_reported() -> None:
    made = report(artefact("fp32"), artefact("int8", served=FAR))
    check_bars(made, accept_loss=True)
    assert reporting.as_json(made)["bars"]["missed"] == made.missed
    assert "bar missed: encoder.int8.onnx: cosine" in reporting.as_table(made)


def test_the_json_tells_what_was_made_from_what() -> None:
    made = json.loads(json.dumps(reporting.as_json(report())))
    assert made["report_version"] == 2
    assert made["model_id"] == SPEC.model_id
    assert made["calibration"] == {
        "source": "ortho.tif",
        "georeferenced": True,
        "files": 1,
        "images": 6,
        "frames": 0,
        "sha256": report().tiles.sha256,
        "seed": 0,
    }
    assert made["checkpoint"] == {"r1": 0.91, "r5": 0.97}
    assert [a["precision"] for a in made["artefacts"]] == ["fp32", "int8"]
    assert made["artefacts"][1]["served"] == dataclasses.asdict(CLOSE)
    assert made["artefacts"][1]["trial"] == dataclasses.asdict(TRIAL)
    assert made["macs"] == 359_000_000
    assert made["artefacts"][1]["latency"] == {"p50_ms": 5.0, "p95_ms": 6.0, "p99_ms": 7.0}
    assert set(made["tools"]) == {"s4g", "torch", "timm", "onnx", "onnxruntime"}


def test_the_table_sets_engines_side_by_side() -> None:
    lines = reporting.as_table(report()).splitlines()
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line}
    shared = "11.6 0.9990 0.9950 0.9900 0.985 0.900 0.970"
    assert rows["encoder.fp32.onnx"] == f"{shared} 15.00 16.00 80"
    assert rows["encoder.int8.onnx"] == f"{shared} 5.00 6.00 250"
    assert rows["encoder.int8.onnx:"] == "ranges by mse, channels equalised, biases corrected"
    assert "INT8 is 3.0 times as fast as FP32 on this machine (" in lines[-1]


def test_there_is_no_verdict_without_int8() -> None:
    assert report(artefact("fp32")).verdict == ""


def test_a_graph_that_was_not_timed_shows_dashes_and_is_judged_literally() -> None:
    graph = artefact(
        "int8", file="encoder.trt.int8.onnx", target="tensorrt", served=None, literal=FAR
    )
    graph = dataclasses.replace(graph, latency=None, images_per_s=None)
    made = report(artefact("fp32"), graph)
    rows = [line for line in reporting.as_table(made).splitlines() if line.startswith(graph.file)]
    assert rows[0].split()[1:] == [
        "11.6",
        "0.9900",
        "0.9700",
        "0.9000",
        "0.985",
        "0.900",
        "0.970",
        "-",
        "-",
        "-",
    ]
    assert len(made.missed) == 1
    assert made.verdict == ""


def test_layers_in_float_and_those_that_lose_most_are_told() -> None:
    layers = tuple(LayerLoss(f"/conv{i}", "Conv", 0.1 / (i + 1)) for i in range(12))
    made = report(artefact("fp32"), artefact(kept_float=("/conv0", "/conv1")), layers=layers)
    lines = reporting.as_table(made).splitlines()
    assert (
        "encoder.int8.onnx: ranges by mse, channels equalised, biases corrected, 2 nodes in float"
    ) in lines
    start = lines.index("layers that lose most when INT8 alone:")
    assert lines[start + 1].split() == ["1.00e-01", "Conv", "/conv0"]
    assert len(lines[start + 1 :]) == 8
