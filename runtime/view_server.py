"""The thread that serves the map: one event loop, away from the one that matches frames."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable

from aiohttp import web

from ..core.console import say
from ..core.errors import S4GError

# Connections at once; more are closed as they come, for each takes a file descriptor that a camera
# or a log may need.
_MOST_CONNECTIONS = 256
_IDLE_S = 15.0
# A request is a line and some headers.
_MOST_LINE_BYTES, _MOST_FIELD_BYTES = 2048, 8190
_LEAVE_S = 1.0  # viewers may take to leave
_START_S, _STOP_S = 10.0, 5.0


class ViewServer:
    """Serves an application on a socket until it is closed."""

    def __init__(self, make_app: Callable[[], web.Application], listening: socket.socket) -> None:
        """Start the thread, and wait until it answers.

        Args:
            make_app: called in the thread.
            listening: closed in the end.

        Raises:
            S4GError: it did not start.
        """
        self._make_app, self._socket = make_app, listening
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="s4g-view", daemon=True)
        self._thread.start()
        if not self._started.wait(_START_S) or self._error is not None:
            raise S4GError(f"the live map did not start: {self._error or 'no answer'}")

    def close(self) -> None:
        """Tell viewers that it ends, and end; returns within seconds."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._error = error
        finally:
            self._socket.close()
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(
            self._make_app(),
            access_log=None,
            logger=_logger(),
            keepalive_timeout=_IDLE_S,
            shutdown_timeout=_LEAVE_S,
            max_line_size=_MOST_LINE_BYTES,
            max_field_size=_MOST_FIELD_BYTES,
        )
        await runner.setup()
        server = runner.server
        assert server is not None

        def accept() -> asyncio.BaseProtocol:
            if len(server.connections) >= _MOST_CONNECTIONS:
                return _Closed()
            protocol: asyncio.BaseProtocol = server()
            return protocol

        listener = await self._loop.create_server(accept, sock=self._socket)
        self._started.set()
        try:
            await self._stop.wait()
        finally:
            listener.close()
            await runner.cleanup()


class _Closed(asyncio.Protocol):
    """Takes a connection and closes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()


class _TellOnce(logging.Handler):
    """Tells the user of the first failure, not of every request that meets it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            cause = record.exc_info[1] if record.exc_info else None
            say(f"note: live map: {record.getMessage().splitlines()[0]} ({cause!r})")


def _logger() -> logging.Logger:
    """Return a logger of its own: what clients send wrong is not the user's business."""
    logger = logging.Logger("s4g.view", logging.ERROR)
    logger.addHandler(_TellOnce())
    return logger
