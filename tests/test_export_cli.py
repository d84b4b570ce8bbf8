"""`s4g-export`: options, output channels, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from s4g.core.console import run_command
from s4g.core.devices import BUNDLE_CPU_INT8
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
    options += ["--max-recall-drop", 0.2]
    code = run(toy_checkpoint, "--int8", *options, "--out", tmp_path / "b", "--method", "minmax")
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert (tmp_path / "b" / BUNDLE_CPU_INT8).is_file()
    assert "encoder.cpu.int8.onnx" in shown.out
    assert shown.err.startswith("writing encoder.fp32.onnx")


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
        "error: Invalid value for '--method': 'guess' is not one of 'auto', 'minmax', "
        "'percentile', 'entropy', 'mse' (see s4g-export --help)\n"
    )


def test_the_methods_offered_are_those_that_exist() -> None:
    pytest.importorskip("torch", reason="export needs torch (the export extra)")
    from s4g.export.ranges import METHODS

    assert ("auto", *METHODS) == _METHODS


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
    assert "Example: s4g-export run/encoder.safetensors --int8" in shown
    assert "Subcommands:" in shown
    assert shown.splitlines()[-1] == "[]"
