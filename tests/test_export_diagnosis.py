"""How a diagnosis reads, and when a machine is of no use."""

from __future__ import annotations

import json

import pytest

from s4g.core.errors import S4GError
from s4g.export import diagnosis
from s4g.export.diagnosis import ABSENT, FAILS, WORKS, Check, Diagnosis, check_usable

WORKING = Check("onnxruntime cpu", WORKS, "2.60 ms, cosine 1.0000", p50_ms=2.6, cosine=1.0)
MISSING = Check("openvino cpu", ABSENT, "OpenVINO is not installed", "pip install 's4g[openvino]'")
PYCUDA = Check("pycuda", WORKS, "Orin, compute capability 8.7")


def test_the_table_names_machine_versions_checks_and_remedies() -> None:
    lines = Diagnosis("encoder.onnx", "JetPack 6.2", (WORKING, MISSING)).as_table().splitlines()
    assert lines[1] == "platform              JetPack 6.2"
    assert lines[2].startswith("python                3.")
    assert lines[-5:] == [
        "",
        "encoder encoder.onnx",
        "onnxruntime cpu         works   2.60 ms, cosine 1.0000",
        "openvino cpu            absent  OpenVINO is not installed",
        "                        remedy: pip install 's4g[openvino]'",
    ]


def test_the_json_holds_everything() -> None:
    made = json.loads(json.dumps(Diagnosis("encoder.onnx", "JetPack 6.2", (WORKING,)).as_json()))
    assert made["checks"] == [
        {
            "name": "onnxruntime cpu",
            "state": "works",
            "detail": "2.60 ms, cosine 1.0000",
            "remedy": "",
            "p50_ms": 2.6,
            "cosine": 1.0,
        }
    ]
    assert (made["encoder"], made["platform"]) == ("encoder.onnx", "JetPack 6.2")
    assert made["machine"]["cores"] >= 1
    assert made["versions"]["onnxruntime"]


def test_a_machine_on_which_something_embeds_is_of_use() -> None:
    check_usable(Diagnosis("encoder.onnx", "x86_64", (MISSING, WORKING)))


@pytest.mark.parametrize(
    "check", [MISSING, PYCUDA, Check("onnxruntime cpu", FAILS, "wrong", p50_ms=2.6, cosine=0.1)]
)
def test_a_machine_on_which_nothing_embeds_is_refused(check: Check) -> None:
    with pytest.raises(S4GError) as error:
        check_usable(Diagnosis("encoder.onnx", "x86_64", (check,)))
    assert str(error.value) == (
        "encoder.onnx: no back end runs it here; the remedies are listed above"
    )
    assert error.value.exit_code == 1


def test_versions_are_none_where_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(distribution: str) -> str:
        raise diagnosis.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(diagnosis.metadata, "version", missing)
    found = diagnosis.versions()
    assert found.pop("python")
    assert set(found.values()) == {None}
