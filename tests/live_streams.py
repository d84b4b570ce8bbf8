"""Starts and stops real streams for tests and benchmarks, and reads the time in their pictures."""

from __future__ import annotations

import functools
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

SYSTEM_PYTHON = Path("/usr/bin/python3")  # Debian's, which GStreamer's bindings are packaged for
PACKAGES = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
)
_SERVER = Path(__file__).with_name("stream_server.py")
_BITS, _SQUARE_PX = 20, 16  # as in stream_server.py
_NEEDED = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
needed = "x264enc rtph264pay mpegtsmux udpsink jpegenc matroskamux tcpserversink"
raise SystemExit(not all(Gst.ElementFactory.find(name) for name in needed.split()))
"""


@functools.cache
def why_not() -> str | None:
    """Return why no stream can be served here, None where one can."""
    if SYSTEM_PYTHON.exists():
        done = subprocess.run([str(SYSTEM_PYTHON), "-c", _NEEDED], capture_output=True)
        if done.returncode == 0:
            return None
    return f"no GStreamer to serve a stream with; apt install {PACKAGES}"


class Stream:
    """A stream of pictures that tell when they were made."""

    def __init__(
        self,
        kind: str = "rtsp",
        size_px: tuple[int, int] = (320, 180),
        fps: int = 10,
        port: int | None = None,
    ) -> None:
        """Start it; a port of one's own choice serves to bring it back."""
        self.kind = kind
        self.fps = fps
        if port is None:
            port = 0 if kind == "rtsp" else free_port()
        self._process = subprocess.Popen(
            [str(SYSTEM_PYTHON), str(_SERVER), kind, str(port), *map(str, (*size_px, fps))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def url(self) -> str:
        """What goes after `--camera`."""
        path = "/main" if self.kind == "rtsp" else ""
        return f"{self.kind}://127.0.0.1:{self.port}{path}"

    def kill(self) -> None:
        """End it as a crash or a power cut would."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def freeze(self) -> None:
        """Stop it without closing its connections."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Stream:
        """Serve within a `with` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self.kill()


def free_port() -> int:
    """Return a port of loopback that nobody uses just now, for TCP or UDP."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        return port


def true_age_s(rgb: npt.NDArray[np.uint8], now_s: float | None = None) -> float:
    """Return how long ago a picture of a stream was made, by the time that it shows."""
    now_ms = int((time.monotonic() if now_s is None else now_s) * 1e3)
    middle = _SQUARE_PX // 2
    bits = [rgb[middle, bit * _SQUARE_PX + middle].mean() > 127 for bit in range(_BITS)]
    made_ms = sum(1 << bit for bit, is_white in enumerate(bits) if is_white)
    return ((now_ms - made_ms) % (1 << _BITS)) / 1e3
