"""The part of the map's server that live and replay share: who may ask, page, map tiles.

It answers GET alone. Names in URLs never reach the file system: the page's files are read at the
start and looked up by name, tiles go by three numbers.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from aiohttp import web

from .. import __version__
from ..core.geo import BBox
from ..tilepacks.reader import Pack
from .view_tiles import MapTiles

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_PAGE = "index.html"
# Nothing comes from elsewhere, and nobody frames the page; data: is Leaflet's empty tile.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Server": "s4g",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the first URL holds the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_COOKIE_S = 12 * 3600
_TILES_KEPT_S = 3600  # by the browser
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_HOST = re.compile(r"(\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^:\[\]]+))(:\d{1,5})?")


@dataclass(frozen=True)
class Guard:
    """Who may ask.

    Attributes:
        port: names the cookie, for browsers keep those of all ports together.
        token: that has to be shown; None on this machine alone, where instead the Host has to be
            its own, so that no page of another site gets at it under a name it made up.
        hosts: names and addresses that are this machine's, besides the usual.
    """

    port: int
    token: str | None = None
    hosts: frozenset[str] = frozenset()

    @property
    def cookie(self) -> str:
        """Name of the cookie that keeps the token."""
        return f"s4g-view-{self.port}"

    def admits(self, request: web.Request) -> bool:
        """Tell whether a request may be answered."""
        if self.token is None:
            return self._is_own(request.headers.get("Host", ""))
        shown = request.query.get("token", request.cookies.get(self.cookie, ""))
        return hmac.compare_digest(shown.encode("utf-8", "replace"), self.token.encode())

    def _is_own(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match["v6"] or match["name"]).lower()
        return name in _LOCAL_HOSTS or name in self.hosts

    @property
    def refusal(self) -> str:
        """What is said to others."""
        if self.token is None:
            return "403: open the map as http://127.0.0.1:PORT/"
        return "403: open the map with the URL that s4g-run printed, ?token=… included"


def make_app(guard: Guard, tiles: MapTiles, info: Mapping[str, Any]) -> web.Application:
    """Return an application with the page, the tiles and `info.json`.

    Args:
        guard: who may ask.
        tiles: of the pack.
        info: what the page has to know first, of `describe`.
    """
    app = web.Application(middlewares=[_guarded(guard)], client_max_size=0)
    app.on_response_prepare.append(_add_headers)
    page = _page_files()
    about = json.dumps(info, allow_nan=False).encode()
    worker = ThreadPoolExecutor(1, "s4g-view-tiles")

    async def index(request: web.Request) -> web.StreamResponse:
        response = _file(_PAGE, page[_PAGE])
        if guard.token is not None:
            response.set_cookie(
                guard.cookie, guard.token, max_age=_COOKIE_S, httponly=True, samesite="Strict"
            )
        return response

    async def file(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in page:
            raise web.HTTPNotFound
        return _file(name, page[name])

    async def tell(request: web.Request) -> web.StreamResponse:
        return web.Response(body=about, content_type="application/json")

    async def tile(request: web.Request) -> web.StreamResponse:
        zoom, x, y = (int(request.match_info[key]) for key in ("z", "x", "y"))
        data = await asyncio.get_running_loop().run_in_executor(worker, tiles.tile, zoom, x, y)
        if data is None:
            raise web.HTTPNotFound
        kept = {"Cache-Control": f"private, max-age={_TILES_KEPT_S}"}
        return web.Response(body=data, content_type="image/webp", headers=kept)

    async def end(app: web.Application) -> None:
        worker.shutdown(wait=True, cancel_futures=True)

    add_get(app, "/", index)
    add_get(app, "/info.json", tell)
    add_get(app, r"/page/{name:[a-z0-9.-]{1,40}}", file)
    add_get(app, r"/tiles/{z:\d{1,2}}/{x:\d{1,9}}/{y:\d{1,9}}.webp", tile)
    app.on_cleanup.append(end)
    return app


def add_get(app: web.Application, path: str, handler: Handler) -> None:
    """Answer GET of a path, and HEAD not."""
    app.router.add_get(path, handler, allow_head=False)


def describe(pack: Pack, tiles: MapTiles, mode: str) -> dict[str, Any]:
    """Return what the page has to know first.

    Args:
        pack: that is flown with.
        tiles: of it.
        mode: `live` or `replay`.
    """
    return {
        "mode": mode,
        "version": __version__,
        "pack": {
            "name": pack.path.name,
            "bounds": _sides(pack.bounds),
            "attribution": pack.attribution,
            "levels_m": [level.footprint_m for level in pack.levels],
            "tiles": sum(level.count for level in pack.levels),
            "zooms": None if tiles.zooms is None else asdict(tiles.zooms),
        },
    }


def _sides(bounds: BBox) -> dict[str, float]:
    return {side: round(value, 7) for side, value in asdict(bounds).items()}


def _page_files() -> dict[str, bytes]:
    folder = files("s4g.runtime").joinpath("view")
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name[file.name.rfind(".") :] in _TYPES
    }


def _file(name: str, content: bytes) -> web.Response:
    kind = _TYPES[name[name.rfind(".") :]]
    return web.Response(body=content, content_type=kind, charset="utf-8")


def _guarded(guard: Guard) -> Any:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not guard.admits(request):
            raise web.HTTPForbidden(text=guard.refusal)
        if request.method != "GET":
            raise web.HTTPMethodNotAllowed(request.method, ["GET"])
        if request.body_exists:
            raise web.HTTPRequestEntityTooLarge(0, 0, text="413: nothing is taken here")
        return await handler(request)

    return check


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
