"""How far a build of TensorRT is.

The callbacks run inside TensorRT's frames, partly in other threads: no exception may leave them.
"""

from __future__ import annotations

import threading
from typing import Any

from ..core.console import Advance
from ..core.tensorrt_log import TensorRtLog

PERCENT = 100


def make_monitor(trt: Any, log: TensorRtLog, advance: Advance) -> Any:
    """Return a progress monitor that moves a bar of 100, and stops a build that is unwanted."""
    share = BuildShare()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                share.start(phase_name, parent_phase, num_steps)
            except KeyboardInterrupt:
                log.interrupted = True

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
