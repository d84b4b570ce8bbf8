"""What TensorRT says while it builds: errors to tell the user, and how far it is.

Its callbacks run inside its own frames, partly in other threads: no exception may leave them.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import Any

from ..core.console import Advance

PERCENT = 100
# How TensorRT 10 and 11 log it, in errors and in warnings about tactics it skips.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|insufficient memory|GPU memory .*could not be allocated"
)


class BuildLog:
    """What TensorRT said during a build.

    Attributes:
        out_of_memory: whether it spoke of memory it did not get.
        interrupted: whether the user pressed Ctrl-C while TensorRT was calling us: an exception
            must not pass through its frames, so the wish is noted here.
    """

    def __init__(self) -> None:
        """Start with nothing said."""
        self.out_of_memory = False
        self.interrupted = False
        self._errors: deque[str] = deque(maxlen=20)

    def hear(self, is_error: bool, message: str) -> None:
        """Take one message; `is_error` is false for warnings."""
        self.out_of_memory |= _OUT_OF_MEMORY.search(message) is not None
        if is_error:
            self._errors.append(one_line(message))

    @property
    def last(self) -> str:
        """The last error, on one line; empty where there was none."""
        return self._errors[-1] if self._errors else ""


def make_logger(trt: Any, log: BuildLog) -> Any:
    """Return a logger that tells `log` errors and warnings; it must outlive what it is given to."""
    errors = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)
    heard = (*errors, trt.ILogger.Severity.WARNING)

    class Logger(trt.ILogger):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            try:
                if severity in heard:
                    log.hear(severity in errors, msg)
            except KeyboardInterrupt:
                log.interrupted = True

    return Logger()


def make_monitor(trt: Any, log: BuildLog, advance: Advance) -> Any:
    """Return a progress monitor that moves a bar of 100, and stops a build that is unwanted."""
    share = BuildShare()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            share.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                advance(share.reach(phase_name, step + 1))
            except KeyboardInterrupt:
                log.interrupted = True
            return not log.interrupted

        def phase_finish(self, phase_name: str) -> None:
            try:
                advance(share.reach(phase_name, None))
            except KeyboardInterrupt:
                log.interrupted = True

    return Monitor()


class BuildShare:
    """How much of a build is done, from phases that lie inside steps of other phases.

    TensorRT calls from several threads. A phase gets the share of the step it lies in; where
    several lie in one step, the later ones only catch up. The share never falls or passes 100.
    """

    def __init__(self) -> None:
        """Start with nothing done."""
        self._lock = threading.Lock()
        self._phases: dict[str, tuple[float, float, int]] = {}  # start, share, steps
        self._done = 0.0
        self._told = 0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """Take note of a phase of `steps` steps."""
        with self._lock:
            _, share, count = self._phases.get(parent or "", (0.0, float(PERCENT), 1))
            self._phases[phase] = (self._done, share / count, max(1, steps))

    def reach(self, phase: str, step: int | None) -> int:
        """Return by how many hundredths the build advanced; `step` None ends the phase."""
        with self._lock:
            start, share, steps = self._phases.get(phase, (self._done, 0.0, 1))
            reached = start + share * (1.0 if step is None else step / steps)
            self._done = min(max(self._done, reached), float(PERCENT))
            advanced = int(self._done) - self._told
            self._told += advanced
            return advanced


def one_line(text: str) -> str:
    """Return a message of TensorRT on one line."""
    return " ".join(text.split())
