"""What TensorRT says is kept on one line each; a Ctrl-C while it speaks arrives afterwards."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from s4g.core.tensorrt_log import TensorRtLog, make_logger


def load(name: str) -> ModuleType:
    """Import a helper that lies beside this file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


trt = load("fake_tensorrt").make()


def test_errors_and_warnings_are_kept_apart_and_the_rest_is_not() -> None:
    log = TensorRtLog()
    logger = make_logger(trt, log)
    for severity in trt.ILogger.Severity:
        logger.log(severity, f"{severity.name}\n  text")
    assert list(log.errors) == ["INTERNAL_ERROR text", "ERROR text"]
    assert list(log.warnings) == ["WARNING text"]
    assert log.last == "ERROR text"
    log.clear()
    assert (list(log.errors), list(log.warnings), log.last) == ([], [], "")


def test_only_the_last_words_are_kept() -> None:
    log = TensorRtLog()
    for number in range(100):
        log.hear(True, f"{number}")
    assert len(log.errors) == 20 and log.last == "99"


def test_a_logger_that_is_interrupted_says_so_afterwards_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = TensorRtLog()

    def interrupt(is_error: bool, message: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(log, "hear", interrupt)
    make_logger(trt, log).log(trt.Logger.ERROR, "text")
    with pytest.raises(KeyboardInterrupt):
        log.check()
    log.check()
