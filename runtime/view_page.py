"""Starting the map's server: for a run, and for a finished log."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from aiohttp import web

from .view_address import Address, is_loopback, listen, new_token, url_of
from .view_feed import PERIOD_S, Feed
from .view_http import Guard, add_get, describe, make_app
from .view_server import ViewServer
from .view_tiles import MapTiles

if TYPE_CHECKING:
    from ..tilepacks.reader import Pack
    from .view_live import LiveView
    from .view_replay import Log

_GZIP_LEVEL = 5


def serve_live(
    stack: ExitStack,
    address: Address,
    token: str | None,
    pack: Pack,
    view: LiveView,
    period_s: float = PERIOD_S,
) -> str:
    """Serve the map of a run until the stack is closed; return the URL to open.

    Args:
        stack: closes it.
        address: where to listen.
        token: that viewers have to show; None for one that is made up where others than this
            machine may ask.
        pack: that is flown with.
        view: what is told.
        period_s: between messages.

    Raises:
        InputError: the port is in use, or the address is none of this machine's.
    """

    def add(app: web.Application) -> None:
        Feed(view, period_s).add_to(app)

    return _serve(stack, address, token, pack, "live", add)


def serve_log(stack: ExitStack, address: Address, token: str | None, pack: Pack, log: Log) -> str:
    """Serve the map of a finished log until the stack is closed; return the URL to open.

    Raises:
        InputError: as `serve_live`.
    """
    about = json.dumps(log.describe(), allow_nan=False).encode()
    columns = gzip.compress(log.packed(), _GZIP_LEVEL)

    async def tell(request: web.Request) -> web.StreamResponse:
        return web.Response(body=about, content_type="application/json")

    async def give(request: web.Request) -> web.StreamResponse:
        kind, packed = "application/octet-stream", {"Content-Encoding": "gzip"}
        return web.Response(body=columns, content_type=kind, headers=packed)

    async def candidates(request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["number"])
        if number >= len(log.top):
            raise web.HTTPNotFound
        return web.json_response(log.top[number])

    def add(app: web.Application) -> None:
        add_get(app, "/replay/about.json", tell)
        add_get(app, "/replay/columns", give)
        add_get(app, r"/replay/top/{number:\d{1,9}}.json", candidates)

    return _serve(stack, address, token, pack, "replay", add)


def _serve(
    stack: ExitStack,
    address: Address,
    token: str | None,
    pack: Pack,
    mode: str,
    add: Callable[[web.Application], None],
) -> str:
    listening = stack.enter_context(listen(address))
    if token is None and not is_loopback(listening):
        token = new_token()
    tiles = MapTiles(pack)
    stack.callback(tiles.close)
    guard = Guard(listening.getsockname()[1], token, frozenset({address.host.lower()}))

    def make() -> web.Application:
        app = make_app(guard, tiles, describe(pack, tiles, mode))
        add(app)
        return app

    stack.callback(ViewServer(make, listening).close)
    return url_of(listening, token)
