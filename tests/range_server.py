"""A web server of a folder that answers ranges, in a process of its own.

GDAL holds Python's lock while it waits for some answers, so a thread could not give them.
`/status/403/…` answers that status, `/html/…` a page, `/busy/…` 503 to the first request, and
`/stops/…` 503 to every range after the first 16 KiB. Requests are listed in `requests.log`.
"""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_HEAD_BYTES = 16384


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()
    busy_answered = False

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        with (self.folder / "requests.log").open("a") as log:
            log.write(f"{self.command} {self.path} {span}\n")
        kind, _, rest = self.path.split("?")[0].lstrip("/").partition("/")
        start = int(span[6:].split("-")[0]) if span else 0
        if kind == "status":
            return self._answer(int(rest.split("/")[0]), b"")
        if kind == "html":
            return self._answer(200, b"<html>please log in</html>" * 99)
        if kind == "busy" and not _Handler.busy_answered:
            _Handler.busy_answered = True
            return self._answer(503, b"")
        if kind == "stops" and start >= _HEAD_BYTES:
            return self._answer(503, b"")
        file = self.folder / Path(self.path.split("?")[0]).name
        if not file.is_file():
            return self._answer(404, b"")
        data = file.read_bytes()
        if not span:
            return self._answer(200, data)
        end = min(int(span.split("-")[1] or len(data) - 1), len(data) - 1)
        return self._answer(206, data[start : end + 1], f"bytes {start}-{end}/{len(data)}")

    def _answer(self, status: int, data: bytes, span: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Yield the address of a server of `folder`."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
