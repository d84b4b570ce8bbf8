"""What is said about timings: rows, JSON, verdicts."""

from __future__ import annotations

import json

from s4g.core.devices import BUNDLE_CPU_INT8, BUNDLE_FP16_PLAN, BUNDLE_FP32, BUNDLE_TRT_INT8_PLAN
from s4g.export.bench import Bench, Latency, Timing
from s4g.export.bench_report import as_json, as_table, verdicts
from s4g.export.machine import machine
from s4g.export.roofline import Roofline

INT8 = Timing(
    BUNDLE_CPU_INT8, "cpu", 0, 2, "onnxruntime cpu", "int8", Latency(5, 6, 7), "", 50, 200
)
FP32 = Timing(BUNDLE_FP32, "cpu", 0, 2, "onnxruntime cpu", "fp32", Latency(15, 16, 17))
BROKEN = Timing(BUNDLE_FP32, "cuda", 0, 2, error="device cuda: does not work here")
BENCH = Bench(
    rows=(INT8, FP32, BROKEN),
    absent={"openvino": "OpenVINO is not installed"},
    limits=(Roofline(0, 200, 50.4, 9.6),),
)


def test_the_table_holds_machine_limits_rows_verdicts_and_what_is_absent() -> None:
    assert as_table(BENCH).splitlines()[1:] == [
        "limits, all threads: 200 GMAC/s INT8 and 50 FP32 (fastest product of ONNX Runtime), "
        "10 GB/s memory",
        "",
        "file                    back end               threads batch   p50 ms   p95 ms   p99 ms  "
        "images/s  GMAC/s of limit",
        "encoder.cpu.int8.onnx   onnxruntime cpu           auto     2     5.00     6.00     7.00  "
        "     400      50     25 %",
        "encoder.fp32.onnx       onnxruntime cpu           auto     2    15.00    16.00    17.00  "
        "     133       -        -",
        "encoder.fp32.onnx       cuda                      auto     2  device cuda: does not work "
        "here",
        "",
        "all threads, batch 2, onnxruntime cpu: INT8 is 3.0 times as fast as FP32 on this machine",
        "all threads, batch 2: fastest is encoder.cpu.int8.onnx on onnxruntime cpu, 5.00 ms",
        "not timed: openvino: OpenVINO is not installed",
    ]
    assert machine()["processor"] in as_table(BENCH).splitlines()[0]


def test_the_json_holds_everything() -> None:
    made = json.loads(json.dumps(as_json(BENCH)))
    assert made["timings"][0] == {
        "file": BUNDLE_CPU_INT8,
        "device": "cpu",
        "threads": 0,
        "batch": 2,
        "backend": "onnxruntime cpu",
        "precision": "int8",
        "error": "",
        "gmacs_per_s": 50,
        "limit_gmacs_per_s": 200,
        "p50_ms": 5,
        "p95_ms": 6,
        "p99_ms": 7,
        "images_per_s": 400,
        "share_of_limit": 0.25,
    }
    assert made["timings"][2]["p50_ms"] is None
    assert made["timings"][2]["error"] == "device cuda: does not work here"
    assert made["limits"][0]["int8_gmacs_per_s"] == 200
    assert made["absent"] == {"openvino": "OpenVINO is not installed"}
    assert made["verdicts"] == list(verdicts(BENCH.rows))
    assert made["machine"]["cores"] >= 1


def plan(name: str, precision: str, ms: float) -> Timing:
    return Timing(name, "tensorrt", 1, 1, "tensorrt", precision, Latency(ms, ms, ms))


def test_int8_is_compared_with_the_fastest_float_of_its_own_back_end() -> None:
    rows = (
        plan(BUNDLE_TRT_INT8_PLAN, "int8", 4.0),
        plan(BUNDLE_FP16_PLAN, "fp16", 2.0),
        Timing(BUNDLE_FP32, "cpu", 1, 1, "onnxruntime cpu", "fp32", Latency(9, 9, 9)),
    )
    assert list(verdicts(rows)) == [
        "1 thread, batch 1, tensorrt: INT8 is slower than FP16 on this machine (0.50 times its "
        "speed): use FP16",
        "1 thread, batch 1: fastest is encoder.fp16.plan on tensorrt, 2.00 ms",
    ]


def test_a_single_engine_is_compared_with_nothing() -> None:
    assert list(verdicts((INT8, BROKEN))) == []


def test_a_busy_machine_is_called_so() -> None:
    noisy = Timing(BUNDLE_FP32, "cpu", 1, 1, "onnxruntime cpu", "fp32", Latency(5, 11, 12))
    assert list(verdicts((noisy,))) == [
        "p95 is more than twice the median in 1 of 1 rows: this machine is busy or changes its "
        "clocks; measure again"
    ]
