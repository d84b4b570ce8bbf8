"""`s4g-export`: options, output channels, exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from s4g.core.console import run_command
from s4g.core.engine import BUNDLE_CPU_INT8, BUNDLE_FP32
from s4g.export.cli import _METHODS, cli


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(cli, [str(a) for a in arguments])
    return int(ended.value.code or 0)


def test_a_checkpoint_becomes_a_bundle_and_a_table(
    toy_checkpoint: Path,
    toy_source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnx", reason="export needs onnx (the export extra)")
    options = ["--calib", toy_source, "--images", 24, "--places", 30, "--min-cosine", 0.9]
    code = run(toy_checkpoint, "--int8", *options, "--out", tmp_path / "b", "--method", "minmax")
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert (tmp_path / "b" / BUNDLE_CPU_INT8).is_file()
    assert "encoder.cpu.int8.onnx" in shown.out
    assert shown.err.startswith("cutting tiles from")


def test_json_on_stdout_is_the_report(
    toy_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="export needs onnx (the export extra)")
    source = "landscape:seed=3,size_m=300"
    out = tmp_path / "b"
    options = ["--calib", source, "--places", 20, "--out", out, "--json"]
    assert run(toy_checkpoint, *options) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "report.json").read_text())


def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="export needs torch (the export extra)")
    missing = tmp_path / "none.safetensors"
    assert run(missing, "--int8", "--calib", "x", "--out", tmp_path / "b") == 2
    assert capsys.readouterr() == ("", f"error: {missing}: no such checkpoint\n")


def test_an_unknown_method_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["s4g-export"])
    assert run("a.safetensors", "--out", "b", "--method", "guess") == 2
    assert capsys.readouterr().err == (
        "error: Invalid value for '--method': 'guess' is not one of 'minmax', 'percentile', "
        "'entropy' (see s4g-export --help)\n"
    )


def test_the_methods_offered_are_those_that_exist() -> None:
    pytest.importorskip("torch", reason="export needs torch (the export extra)")
    from s4g.export.quantise import METHODS

    assert _METHODS == METHODS


@pytest.fixture
def bundle(toy_encoder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (BUNDLE_FP32, BUNDLE_CPU_INT8):
        shutil.copy(toy_encoder, folder / name)
    return folder


def test_bench_prints_a_row_for_each_setting(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", bundle, "--threads", "1,2", "--batch", "1,2", "--runs", 1, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["timings"]
    assert len(rows) == 8
    assert run("bench", bundle, "--runs", 1) == 0
    assert "encoder.cpu.int8.onnx" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("--threads", "two", 0), ("--threads", "-1", 0), ("--batch", "0", 1)],
)
def test_bench_refuses_counts_that_are_none(
    bundle: Path, option: str, value: str, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", bundle, option, value) == 2
    assert capsys.readouterr().err == (
        f"error: {option} {value}: expected whole numbers of at least {least}, separated by "
        "commas\n"
    )


def test_doctor_runs_the_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", bundle) == 0
    assert "CPUExecutionProvider        runs, " in capsys.readouterr().out
    assert run("doctor", bundle, "--json") == 0
    assert json.loads(capsys.readouterr().out)["providers"]


def test_doctor_names_an_encoder_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("doctor", tmp_path / "none") == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'none'}: no such encoder; give an ONNX file or a bundle of "
        "s4g-export\n"
    )


def test_help_shows_the_main_job_with_an_example_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from s4g.export.cli import main\n"
        "sys.argv = ['s4g-export', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'timm', 'onnx', 'onnxruntime', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "Example: s4g-export run/best.safetensors --int8" in shown
    assert "Subcommands:" in shown
    assert shown.splitlines()[-1] == "[]"
