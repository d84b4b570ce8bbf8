"""What TensorRT says: errors, warnings, and the Ctrl-C that came while it spoke.

Its callbacks run inside its own frames, partly in other threads: no exception may leave them.
"""

from __future__ import annotations

from collections import deque
from typing import Any

_KEPT = 20


class TensorRtLog:
    """What TensorRT said.

    Attributes:
        errors: the last ones, each on one line.
        warnings: the last ones, each on one line.
        interrupted: whether the user pressed Ctrl-C while TensorRT was calling us.
    """

    def __init__(self) -> None:
        """Start with nothing said."""
        self.errors: deque[str] = deque(maxlen=_KEPT)
        self.warnings: deque[str] = deque(maxlen=_KEPT)
        self.interrupted = False

    def hear(self, is_error: bool, message: str) -> None:
        """Take one message; `is_error` is false for warnings."""
        (self.errors if is_error else self.warnings).append(" ".join(message.split()))

    def clear(self) -> None:
        """Forget what was said."""
        self.errors.clear()
        self.warnings.clear()

    @property
    def last(self) -> str:
        """The last error; empty where there was none."""
        return self.errors[-1] if self.errors else ""

    def check(self) -> None:
        """Let the user's Ctrl-C through, now that no frame of TensorRT is in its way.

        Raises:
            KeyboardInterrupt: it was pressed while TensorRT was calling us.
        """
        if self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt


def make_logger(trt: Any, log: TensorRtLog) -> Any:
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
