"""`s4g-export doctor` as a user starts it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from s4g.core.console import run_command
from s4g.export.cli import cli


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(cli, ["doctor", *(str(a) for a in arguments)])
    return int(ended.value.code or 0)


def test_an_encoder_is_run_and_the_checks_are_printed(
    toy_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(toy_encoder) == 0
    assert "onnxruntime cpu         works   " in capsys.readouterr().out
    assert run(toy_encoder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["checks"][0]["state"] == "works"


def test_a_machine_on_which_nothing_runs_fails_after_the_remedies(
    toy_encoder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run(toy_encoder) == 1
    shown = capsys.readouterr()
    assert "remedy: pip install --force-reinstall onnxruntime" in shown.out
    assert shown.err == (
        f"error: {toy_encoder}: no back end runs it here; the remedies are listed above\n"
    )


def test_an_encoder_that_is_missing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "none") == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'none'}: no such encoder; give an ONNX file or a bundle of "
        "s4g-export\n"
    )
