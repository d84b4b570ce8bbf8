"""`s4g-export bench` as a user starts it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from s4g.core.console import run_command
from s4g.core.devices import BUNDLE_CPU_INT8, BUNDLE_FP32
from s4g.export.cli import cli


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(cli, ["bench", *(str(a) for a in arguments)])
    return int(ended.value.code or 0)


@pytest.fixture
def bundle(toy_encoder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (BUNDLE_FP32, BUNDLE_CPU_INT8):
        shutil.copy(toy_encoder, folder / name)
    return folder


def test_a_row_is_printed_for_each_file_and_setting(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--runs", 1]
    assert run(bundle, *options, "--threads", "1,2", "--batch", "1,2", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["timings"]) == 8
    assert run(bundle, *options) == 0
    assert "encoder.cpu.int8.onnx   onnxruntime cpu" in capsys.readouterr().out


def test_every_back_end_is_tried_unless_told_otherwise(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--runs", 1, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    tried = {row["device"] for row in made["timings"]} | set(made["absent"])
    assert tried == {"cpu", "openvino", "cuda", "ort-tensorrt", "tensorrt"}


def test_a_back_end_may_be_named_more_than_once(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--device", "cpu", "--device", "cpu", "--runs", 1, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["timings"]) == 2


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("--threads", "two", 0), ("--threads", "-1", 0), ("--batch", "0", 1)],
)
def test_counts_that_are_none_are_refused(
    bundle: Path, option: str, value: str, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, option, value) == 2
    assert capsys.readouterr().err == (
        f"error: {option} {value}: expected whole numbers of at least {least}, separated by "
        "commas\n"
    )


def test_a_missing_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none") == 2
    assert capsys.readouterr() == (
        "",
        f"error: {tmp_path / 'none'}: no such encoder; give a bundle or a file of s4g-export\n",
    )
