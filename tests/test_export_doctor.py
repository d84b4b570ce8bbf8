"""The doctor runs what it reports on, and says why something does not run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from s4g.core.engine import load_engine
from s4g.core.errors import S4GError
from s4g.export import doctor


def images_and_embeddings(encoder: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    return images, load_engine(encoder, "cpu").embed(images)


def test_the_cpu_embeds_and_agrees_with_itself(toy_encoder: Path) -> None:
    check = doctor.check_provider(
        "CPUExecutionProvider", toy_encoder, *images_and_embeddings(toy_encoder)
    )
    assert check.works
    assert check.detail == ""
    assert check.p50_ms is not None and check.p50_ms > 0
    assert check.cosine == pytest.approx(1, abs=1e-5)


def test_a_provider_with_wrong_embeddings_does_not_pass(toy_encoder: Path) -> None:
    images, expected = images_and_embeddings(toy_encoder)
    check = doctor.check_provider("CPUExecutionProvider", toy_encoder, images, -expected)
    assert not check.works
    assert check.detail == "but its embeddings are wrong (cosine to the CPU -1.000)"


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_is_not_there_is_no_silent_cpu(toy_encoder: Path) -> None:
    check = doctor.check_provider(
        "CUDAExecutionProvider", toy_encoder, *images_and_embeddings(toy_encoder)
    )
    if not check.works:
        assert check.p50_ms is None
        assert check.detail == "ONNX Runtime fell back to another provider"


def test_a_remote_provider_is_no_device(toy_encoder: Path) -> None:
    check = doctor.check_provider(
        "AzureExecutionProvider", toy_encoder, *images_and_embeddings(toy_encoder)
    )
    assert check == doctor.ProviderCheck(
        "AzureExecutionProvider", False, "forwards to a remote service, no local device"
    )


def test_a_diagnosis_covers_every_provider(toy_encoder: Path) -> None:
    import onnxruntime as ort

    found = doctor.diagnose(toy_encoder)
    assert [c.provider for c in found.providers] == ort.get_available_providers()
    assert [c.name for c in found.libraries] == ["tensorrt", "pycuda"]
    made = json.loads(json.dumps(found.as_json()))
    assert made["versions"]["onnxruntime"] == ort.__version__
    assert made["encoder"] == str(toy_encoder)
    assert "CPUExecutionProvider        runs, " in found.as_table()
    doctor.check_usable(found)


def test_a_machine_on_which_nothing_runs_is_refused() -> None:
    failed = doctor.ProviderCheck("CPUExecutionProvider", False, "broken")
    with pytest.raises(S4GError) as error:
        doctor.check_usable(doctor.Diagnosis("encoder.onnx", (failed,), ()))
    assert str(error.value) == (
        "encoder.onnx: no provider of ONNX Runtime can run it; reinstall onnxruntime"
    )


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def missing(distribution: str) -> str:
        raise doctor.metadata.PackageNotFoundError(distribution)

    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(doctor.metadata, "version", missing)


def test_a_missing_tensorrt_is_reported_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt")
    assert doctor.check_tensorrt() == doctor.LibraryCheck(
        "tensorrt",
        None,
        False,
        "not installed; on Jetson it comes with JetPack (python3-libnvinfer)",
    )


class FakeLogger:
    ERROR = 1

    def __init__(self, level: int) -> None:
        self.level = level


def fake_tensorrt(builder: object) -> SimpleNamespace:
    return SimpleNamespace(__version__="10.3.0", Builder=builder, Logger=FakeLogger)


def test_tensorrt_without_a_gpu_is_reported_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(refuse))
    assert doctor.check_tensorrt() == doctor.LibraryCheck(
        "tensorrt",
        "10.3.0",
        False,
        "cannot build: pybind11::init(): factory function returned nullptr",
    )


def test_a_working_tensorrt_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(lambda logger: object()))
    assert doctor.check_tensorrt() == doctor.LibraryCheck(
        "tensorrt", "10.3.0", True, "can build engines"
    )


def test_a_pycuda_without_its_driver_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "import_module", broken)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2026.1")
    assert doctor.check_pycuda() == doctor.LibraryCheck(
        "pycuda",
        "2026.1",
        False,
        "cannot be imported: libcuda.so.1: cannot open shared object file",
    )


def fake_driver(devices: list[str], failure: str = "") -> SimpleNamespace:
    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        @staticmethod
        def count() -> int:
            return len(devices)

        def name(self) -> str:
            return devices[self.index]

    def init() -> None:
        if failure:
            raise RuntimeError(failure)

    return SimpleNamespace(init=init, Device=Device)


@pytest.mark.parametrize(
    ("driver", "works", "detail"),
    [
        (fake_driver(["Orin"]), True, "Orin"),
        (fake_driver([]), False, "no device"),
        (
            fake_driver([], "cuInit failed: no CUDA-capable device is detected"),
            False,
            "no device: cuInit failed: no CUDA-capable device is detected",
        ),
    ],
)
def test_pycuda_is_asked_for_its_devices(
    monkeypatch: pytest.MonkeyPatch, driver: SimpleNamespace, works: bool, detail: str
) -> None:
    monkeypatch.setattr(doctor, "import_module", lambda name: driver)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2026.1")
    assert doctor.check_pycuda() == doctor.LibraryCheck("pycuda", "2026.1", works, detail)


def test_versions_are_none_where_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt")
    assert set(doctor.versions().values()) == {None}
