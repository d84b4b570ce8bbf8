"""The doctor runs what it reports on, and says why something does not run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from s4g.core import devices, engine_onnx
from s4g.core.devices import BUNDLE_CPU_INT8, BUNDLE_FP16_PLAN, BUNDLE_TRT_INT8_PLAN
from s4g.core.engine import load_engine
from s4g.core.errors import InputError, S4GError
from s4g.export import doctor
from s4g.export.diagnosis import ABSENT, FAILS, WORKS, Check
from s4g.export.remedies import Platform

ORIN = Platform((6, 2), "aarch64", True)
PC = Platform(None, "x86_64", True)


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


class StandIn:
    """Stands for an engine of a back end that is not here; it embeds as the CPU does."""

    def __init__(self, encoder: Path, sign: float = 1.0) -> None:
        self.real, self.sign, self.closed = load_engine(encoder, "cpu", 1), sign, False
        self.spec = self.real.spec

    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.sign * self.real.embed(images)

    def close(self) -> None:
        self.closed = True


def have(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    """Have every library present, and `load_engine` return this or raise it."""

    def load(file: Path, device: str, threads: int) -> Any:
        if isinstance(engine, Exception):
            raise engine
        return engine

    monkeypatch.setattr(doctor, "load_engine", load)
    monkeypatch.setattr(doctor, "why_absent", lambda device: "")


def test_the_cpu_embeds_as_the_file_says(toy_encoder: Path) -> None:
    check = doctor.check_device("cpu", toy_encoder, PC)
    assert (check.name, check.state, check.remedy) == ("onnxruntime cpu", WORKS, "")
    assert check.p50_ms is not None and check.p50_ms > 0
    assert check.cosine == pytest.approx(1, abs=1e-5)
    assert check.detail == f"{check.p50_ms:.2f} ms, cosine 1.0000"


def test_a_back_end_with_wrong_embeddings_does_not_pass(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = StandIn(toy_encoder, sign=-1)
    have(monkeypatch, engine)
    check = doctor.check_device("cuda", toy_encoder, PC)
    assert (check.name, check.state) == ("onnxruntime cuda", FAILS)
    assert check.detail == (
        "its embeddings are wrong, held against its graph (cosine -1.0000, at least 0.99 is asked "
        "for)"
    )
    assert engine.closed


def test_embeddings_of_another_length_do_not_pass(
    tmp_path: Path, toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, StandIn(toy_encoder, sign=1.2))
    wrong = "its embeddings are wrong, held against its graph (length 1.2000, expected 1)"
    assert doctor.check_device("cuda", toy_encoder, PC).detail == wrong
    assert doctor.check_device("tensorrt", tmp_path / "alone.plan", PC).detail == wrong


def test_what_comes_back_from_the_third_run_on_is_judged_too(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT replays a recording from then on."""
    engine, sizes = StandIn(toy_encoder), list[int]()
    embed = engine.embed

    def worse(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return embed(images) * (-1 if sizes.count(len(images)) == 3 else 1)

    monkeypatch.setattr(engine, "embed", worse)
    have(monkeypatch, engine)
    assert doctor.check_device("cuda", toy_encoder, PC).state == FAILS
    assert sizes[:6] == [4, 4, 4, 1, 1, 1]


@pytest.mark.parametrize("content", [b"junk", b""])
def test_a_damaged_file_stops_no_other_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(engine_onnx, "has_provider", lambda device: True)
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    checks = by_name(doctor.diagnose(path).checks)
    check = checks["onnxruntime tensorrt"]
    assert (check.state, check.remedy) == (FAILS, "")
    assert check.detail.startswith(f"{path}: ONNX Runtime cannot load it (")
    assert "pycuda" in checks


def test_embeddings_that_are_no_numbers_do_not_pass(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, StandIn(toy_encoder, sign=float("nan")))
    assert doctor.check_device("cuda", toy_encoder, PC).state == FAILS


def test_a_back_end_that_is_not_here_comes_with_its_remedy(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert doctor.check_device("openvino", toy_encoder, PC) == Check(
        "openvino cpu", ABSENT, "OpenVINO is not installed", "pip install 's4g[openvino]'"
    )
    monkeypatch.setattr(engine_onnx, "has_provider", lambda device: False)
    check = doctor.check_device("ort-tensorrt", toy_encoder, ORIN)
    assert (check.name, check.state) == ("onnxruntime tensorrt", ABSENT)
    assert check.detail == "this ONNX Runtime has no TensorRT provider"
    assert "a wheel that was built for JetPack 6 (CUDA 12.6, cp310)" in check.remedy


def test_a_back_end_that_fails_comes_with_its_reason_and_the_remedy(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, devices.unusable("cuda", "no kernel image"))
    check = doctor.check_device("cuda", toy_encoder, PC)
    assert (check.state, check.detail) == (
        FAILS,
        "device cuda: does not work here (no kernel image)",
    )
    assert check.remedy.startswith("pip uninstall onnxruntime; pip install onnxruntime-gpu")


def test_a_plan_is_run_and_compared_with_its_graph(
    tmp_path: Path, toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / BUNDLE_FP16_PLAN
    plan.write_bytes(b"plan")
    have(monkeypatch, StandIn(toy_encoder))
    alone = doctor.check_device("tensorrt", plan, ORIN)
    assert (alone.name, alone.state, alone.cosine) == (BUNDLE_FP16_PLAN, WORKS, None)
    assert alone.embeds
    shutil.copy(toy_encoder, tmp_path / "encoder.fp16.onnx")
    assert doctor.check_device("tensorrt", plan, ORIN).cosine == pytest.approx(1, abs=1e-5)


def test_a_plan_of_another_machine_names_its_own_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, InputError("x.plan: built for Orin; build it again with s4g-export build x"))
    assert doctor.check_device("tensorrt", tmp_path / "x.plan", ORIN) == Check(
        "x.plan", FAILS, "x.plan: built for Orin; build it again with s4g-export build x"
    )


def test_a_plan_without_tensorrt_says_which_library_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "installed", lambda module: module != "pycuda")
    check = doctor.check_device("tensorrt", tmp_path / "x.plan", ORIN)
    assert (check.state, check.detail) == (ABSENT, "pycuda is not installed")
    assert "pip install pycuda" in check.remedy


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_is_not_there_is_no_silent_cpu(toy_encoder: Path) -> None:
    check = doctor.check_provider("DnnlExecutionProvider", toy_encoder)
    assert check == Check(
        "DnnlExecutionProvider", FAILS, "ONNX Runtime fell back to another provider"
    )


def test_a_provider_of_no_device_of_ours_is_run(toy_encoder: Path) -> None:
    check = doctor.check_provider("CPUExecutionProvider", toy_encoder)
    assert check.state == WORKS
    assert check.cosine == pytest.approx(1, abs=1e-5)


def test_a_provider_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    check = doctor.check_provider("CPUExecutionProvider", tmp_path / "junk.onnx")
    assert check.state == FAILS
    assert "protobuf parsing failed" in check.detail


def test_a_diagnosis_covers_every_back_end_and_the_gpu(toy_encoder: Path) -> None:
    names = list(by_name(doctor.diagnose(toy_encoder).checks))
    assert names[:4] == [
        "onnxruntime cpu",
        "openvino cpu",
        "onnxruntime cuda",
        "onnxruntime tensorrt",
    ]
    assert "tensorrt builder" in names and "pycuda" in names


def test_other_providers_are_tried_and_remote_ones_are_not(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = ["XExecutionProvider", "AzureExecutionProvider", *ort.get_available_providers()]
    monkeypatch.setattr(ort, "get_available_providers", lambda: listed)
    monkeypatch.setattr(doctor, "check_provider", lambda name, file: Check(name, FAILS, "no"))
    names = list(by_name(doctor.diagnose(toy_encoder).checks))
    assert "XExecutionProvider" in names
    assert not {"AzureExecutionProvider", "CPUExecutionProvider"} & set(names)


def test_a_bundle_is_diagnosed_with_its_plans(
    tmp_path: Path, toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (BUNDLE_CPU_INT8, BUNDLE_FP16_PLAN, BUNDLE_TRT_INT8_PLAN):
        shutil.copy(toy_encoder, tmp_path / name)
    monkeypatch.setattr(devices, "installed", lambda module: False)
    checks = by_name(doctor.diagnose(tmp_path).checks)
    assert checks["onnxruntime cpu"].state == WORKS
    assert checks[BUNDLE_FP16_PLAN].detail == "tensorrt is not installed"
    assert checks[BUNDLE_TRT_INT8_PLAN].state == ABSENT
    assert checks["onnxruntime cuda"] == Check(
        "onnxruntime cuda",
        ABSENT,
        f"{tmp_path}: holds neither encoder.fp16.onnx nor encoder.fp32.onnx; export again",
    )


def test_a_plan_alone_is_diagnosed_on_tensorrt_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "x.plan"
    plan.write_bytes(b"plan")
    monkeypatch.setattr(devices, "installed", lambda module: False)
    names = [check.name for check in doctor.diagnose(plan).checks]
    assert names[0] == "x.plan"
    assert not {"onnxruntime cpu", "onnxruntime cuda"} & set(names)


def test_tensorrt_is_not_judged_by_a_file_quantised_for_cpus(
    toy_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx", reason="changing an encoder needs onnx")
    model = onnx.load(toy_encoder)
    text = model.metadata_props[0].value.replace('"precision":"fp32"', '"precision":"int8"')
    model.metadata_props[0].value = text
    onnx.save(model, tmp_path / "int8.onnx")
    have(monkeypatch, StandIn(toy_encoder))
    checks = by_name(doctor.diagnose(tmp_path / "int8.onnx").checks)
    assert checks["onnxruntime tensorrt"] == Check(
        "onnxruntime tensorrt",
        ABSENT,
        "not tried: TensorRT refuses a file that is quantised for CPUs; give a bundle",
    )
    assert checks["onnxruntime cuda"].state == WORKS


def test_an_onnx_runtime_that_cannot_be_imported_is_told(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    first = doctor.diagnose(toy_encoder).checks[0]
    assert (first.name, first.state) == ("onnxruntime", FAILS)
    assert first.remedy == "pip install --force-reinstall onnxruntime"


def test_a_missing_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        doctor.diagnose(tmp_path / "none")
    assert str(error.value) == (
        f"{tmp_path / 'none'}: no such encoder; give an ONNX file or a bundle of s4g-export"
    )


def test_the_embedded_encoder_is_diagnosed_without_a_name() -> None:
    try:
        found = doctor.diagnose(None)
    except S4GError as error:
        pytest.skip(str(error))
    assert by_name(found.checks)["onnxruntime cpu"].state == WORKS
