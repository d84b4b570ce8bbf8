"""The live map's news, as server-sent events: one message for all, the newest for who is slow."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from ..core.console import say
from .view_http import add_get
from .view_live import LiveView, Message
from .view_picture import Kept, frame_jpeg, view_jpeg

PERIOD_S = 0.2  # between messages
_IDLE_S = 0.5  # between looks at what was noted, while nobody watches
_MOST_VIEWERS = 32
_STUCK_S = 20.0  # that a viewer takes nothing
_POLL_S = 0.05
# What the system holds of what a slow viewer has not taken yet: some seconds of old news.
_SEND_BYTES = 32 << 10
_RETRY_MS = 2000  # before a browser comes back
# What a viewer saw last: the run, and how many places and changes of state it was told.
_ID = re.compile(r"(?P<run>[0-9a-f]{8})-(?P<points>\d{1,12})-(?P<events>\d{1,12})")


class Feed:
    """Sends what a `LiveView` has to say; of the server's thread."""

    def __init__(self, view: LiveView, period_s: float = PERIOD_S) -> None:
        """Send nothing yet."""
        self._view, self._period_s = view, period_s
        self._newest: Message | None = None
        self._data = b""
        self._changed = asyncio.Event()
        self._ended = self._failed = False
        self._worker = ThreadPoolExecutor(1, "s4g-view-pictures")
        self._pictures: dict[str, tuple[Kept, asyncio.Future[bytes | None]]] = {}

    def add_to(self, app: web.Application) -> None:
        """Answer `/live/…` in an application, while it runs."""
        add_get(app, "/live/events", self._events)
        add_get(app, r"/live/{what:frame|view}.jpg", self._picture)
        app.cleanup_ctx.append(self._running)
        app.on_shutdown.append(self._end)

    async def _running(self, app: web.Application) -> AsyncIterator[None]:
        telling = asyncio.create_task(self._tell())
        yield
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
        self._worker.shutdown(wait=True, cancel_futures=True)

    async def _end(self, app: web.Application) -> None:
        self._ended = True
        self._publish()

    async def _tell(self) -> None:
        while True:
            if not self._view.viewers:
                self._view.catch_up()
                await asyncio.sleep(min(_IDLE_S, self._period_s))
                continue
            self._publish()
            await asyncio.sleep(self._period_s)

    def _publish(self) -> None:
        """Make one message, and wake everyone who waits for it."""
        try:
            self._newest = message = self._view.message()
            self._data = _event(self._view.run, "state", message)
        except Exception as error:  # the page then says that there is nothing new
            if not self._failed:
                say(f"note: live map: {type(error).__name__}: {error}; viewers see no news")
            self._failed = True
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._view.viewers >= _MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"503: {_MOST_VIEWERS} others watch already")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self._view.viewers += 1
        self._view.ask_picture()
        try:
            _limit_buffer(request)
            await response.prepare(request)
            await self._send_all(request, response, self._told_before(request))
        except (TimeoutError, asyncio.TimeoutError):
            if request.transport is not None:
                request.transport.abort()  # it holds what it does not take
        except ConnectionError:
            pass
        finally:
            self._view.viewers -= 1
        return response

    async def _send_all(
        self, request: web.Request, response: web.StreamResponse, told: tuple[int, int]
    ) -> None:
        """Send what a viewer has missed, then each message that is the newest when it is ready."""

        async def send(data: bytes) -> None:
            await asyncio.wait_for(response.write(data), _STUCK_S)
            await asyncio.wait_for(self._taken(request), _STUCK_S)

        run = self._view.run
        await send(b"retry: %d\n\n" % _RETRY_MS)
        past = self._view.catching_up(*told)
        await send(_event(run, "past", past))
        told = past.points[1], past.events[1]
        sent = self._newest
        while True:
            if self._newest is sent:
                if self._ended:
                    break
                await self._changed.wait()
            if self._newest is sent or self._newest is None:
                continue
            sent = self._newest
            if (sent.points[0], sent.events[0]) != told:
                # It was slow: what it has missed comes apart from what everyone gets.
                await send(_event(run, "past", self._view.catching_up(*told)))
            await send(self._data if sent is self._newest else _event(run, "state", sent))
            told = sent.points[1], sent.events[1]
        await send(b"event: end\ndata: {}\n\n")

    async def _taken(self, request: web.Request) -> None:
        """Wait until the system has taken what was sent; till then newer news may come."""
        while (transport := request.transport) is not None and transport.get_write_buffer_size():
            await asyncio.sleep(min(_POLL_S, self._period_s))
        if request.transport is None:
            raise ConnectionResetError

    def _told_before(self, request: web.Request) -> tuple[int, int]:
        """Return what a viewer who comes back was told of this run; nothing, of another."""
        match = _ID.fullmatch(request.headers.get("Last-Event-ID", ""))
        if match is None or match["run"] != self._view.run:
            return 0, 0
        told = int(match["points"]), int(match["events"])
        history = self._view.history
        known = told[0] <= history.points and told[1] <= history.events
        return told if known else (0, 0)

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        """Answer with the newest picture, encoded once for all, and ask for the next."""
        kept = self._view.picture
        self._view.ask_picture()
        if kept is None:
            raise web.HTTPNotFound
        what = request.match_info["what"]
        encode: Callable[[Kept], bytes | None] = frame_jpeg if what == "frame" else view_jpeg
        if what not in self._pictures or self._pictures[what][0] is not kept:
            loop = asyncio.get_running_loop()
            made = loop.run_in_executor(self._worker, encode, kept)
            self._pictures[what] = kept, made
        data = await asyncio.shield(self._pictures[what][1])
        if data is None:
            raise web.HTTPNotFound
        return web.Response(body=data, content_type="image/jpeg")


def _limit_buffer(request: web.Request) -> None:
    """Keep the system from storing minutes of old news for a slow viewer."""
    transport = request.transport
    wire = None if transport is None else transport.get_extra_info("socket")
    if wire is not None:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)


def _event(run: str, name: str, message: Message) -> bytes:
    number = f"{run}-{message.points[1]}-{message.events[1]}"
    return f"id: {number}\nevent: {name}\ndata: {message.text}\n\n".encode()
