"""Who may ask for the map, and for what: real sockets, requests as an attacker would write them."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("aiohttp", reason="the map needs aiohttp (the view extra)")
from s4g.runtime import view_server
from s4g.runtime.view_address import Address
from s4g.tilepacks.reader import Pack, open_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_view.py"))))

TOKEN = "0123456789abcdef-token"
PATHS = ["/", "/info.json", "/page/main.js", "/tiles/16/0/0.webp", "/live/events", "/nothing"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def pack(toy_pack: Path, stack: ExitStack) -> Pack:
    return stack.enter_context(open_pack(toy_pack))


@pytest.fixture
def open_map(stack: ExitStack, pack: Pack) -> Any:
    return toy.live(stack, pack).client


@pytest.fixture
def guarded_map(stack: ExitStack, pack: Pack) -> Any:
    return toy.live(stack, pack, TOKEN).client


def test_the_page_and_all_that_it_names_is_served(open_map: Any) -> None:
    page = open_map.get("/")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for name in ("leaflet.js", "leaflet.css", "view.css", "main.js", "icon.svg"):
        assert f"/page/{name}".encode() in page.body
        assert open_map.get(f"/page/{name}").status == 200


def test_the_page_is_told_of_the_pack(open_map: Any, pack: Pack) -> None:
    about = open_map.get("/info.json").json
    assert about["mode"] == "live"
    assert about["pack"]["name"] == pack.path.name
    assert about["pack"]["bounds"]["west"] == pytest.approx(pack.bounds.west, abs=1e-7)
    assert about["pack"]["levels_m"] == [48.0, 64.0]


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/live/events"])
def test_every_answer_forbids_what_comes_from_elsewhere(open_map: Any, path: str) -> None:
    headers = open_map.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Server"] == "s4g"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "shown", ["", "?token=", "?token=wrong", f"?token={TOKEN}x", f"?token={TOKEN[:-1]}"]
)
def test_without_the_token_nothing_is_told(guarded_map: Any, path: str, shown: str) -> None:
    answer = guarded_map.get(path + shown)
    assert answer.status == 403
    assert (
        answer.body
        == b"403: open the map with the URL that s4g-run printed, ?token=\xe2\x80\xa6 included"
    )
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("token", ["wrong", TOKEN[:-1], "", "ä"])
def test_a_wrong_cookie_is_no_token(guarded_map: Any, token: str) -> None:
    name = f"s4g-view-{guarded_map.port}"
    answer = guarded_map.get("/info.json", cookie=f"{name}={token}".encode().decode("latin-1"))
    assert answer.status == 403


def test_the_token_of_the_url_is_kept_in_a_cookie_that_scripts_cannot_read(
    guarded_map: Any,
) -> None:
    page = guarded_map.get(f"/?token={TOKEN}")
    assert page.status == 200
    cookie = page.headers["Set-Cookie"]
    name = f"s4g-view-{guarded_map.port}"
    assert cookie.startswith(f"{name}={TOKEN}; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert guarded_map.get("/info.json", cookie=f"{name}={TOKEN}").status == 200
    assert guarded_map.get("/info.json", cookie=f"s4g-view-1={TOKEN}").status == 403


def test_a_wrong_token_in_the_url_is_refused_whatever_the_cookie_says(guarded_map: Any) -> None:
    cookie = f"s4g-view-{guarded_map.port}={TOKEN}"
    assert guarded_map.get("/info.json?token=wrong", cookie=cookie).status == 403


def test_tokens_are_compared_in_constant_time(guarded_map: Any) -> None:
    from s4g.runtime import view_http

    compare = view_http.hmac.compare_digest
    with mock.patch.object(view_http.hmac, "compare_digest", side_effect=compare) as compared:
        assert guarded_map.get("/info.json?token=wrong").status == 403
    assert compared.call_args_list == [mock.call(b"wrong", TOKEN.encode())]


def test_other_addresses_than_loopback_get_a_token_unasked(stack: ExitStack, pack: Pack) -> None:
    served = toy.live(stack, pack, None, Address("--view 0.0.0.0:0", "0.0.0.0", 0))
    client = toy.Client(f"http://127.0.0.1:{served.client.port}/")
    token = served.client.query.removeprefix("token=")
    assert len(token) == 32
    assert client.get("/info.json").status == 403
    assert client.get(f"/info.json?token={token}").status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:9999", "[::1]:8765"])
def test_this_machines_own_names_are_answered(open_map: Any, host: str) -> None:
    assert open_map.get("/info.json", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "a b", "[::1", "@"]
)
@pytest.mark.parametrize("path", ["/", "/info.json", "/tiles/16/0/0.webp"])
def test_a_page_of_another_site_gets_nothing_by_a_name_of_its_own(
    open_map: Any, host: str, path: str
) -> None:
    answer = open_map.get(path, host=host)
    assert answer.status == 403
    assert answer.body == b"403: open the map as http://127.0.0.1:PORT/"


def test_a_request_without_a_host_is_refused(open_map: Any) -> None:
    assert open_map.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").split()[1] in (
        b"400", b"403",
    )  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/info.json", "/nothing"])
def test_nothing_but_get_is_answered(open_map: Any, method: str, path: str) -> None:
    answer = open_map.get(path, method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET"


def test_a_request_with_a_body_is_refused(open_map: Any) -> None:
    assert open_map.ask("GET", "/info.json", {}, b"x" * 10).status == 413


@pytest.mark.parametrize(
    "path",
    [
        "/page/../view_http.py",
        "/page/..%2Fview_http.py",
        "/page/%2e%2e/view_http.py",
        "/page//etc/passwd",
        "/page/%2Fetc%2Fpasswd",
        "/page/..%5c..%5cview_http.py",
        "/page/index.html%00.js",
        "/page/",
        "/page/unknown.js",
        "/tiles/16/../../info.json",
        "/tiles/../../../../etc/passwd",
        "/tiles/..%2f..%2f..%2fetc%2fpasswd/0/0.webp",
        "/tiles/16/0/0.webp/../../../../etc/passwd",
        "/tiles/16/0/-1.webp",
        "/tiles/16/0/1e3.webp",
        "/tiles/16/0/\u0661.webp".encode().decode("latin-1"),
        "/tiles/99/0/0.webp",
        "/tiles/16/999999999/999999999.webp",
        "/tiles/16/9999999999/0.webp",
        "/../../../../etc/passwd",
        "//etc/passwd",
    ],
)
def test_no_url_leads_to_a_file(open_map: Any, path: str) -> None:
    encoded = path.encode("latin-1")
    got = open_map.raw(
        b"GET " + encoded + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    status = int(got.split()[1])
    # A path that leads back to a page is that page; all else is not there.
    assert status in (400, 404) or (status == 200 and b"root:" not in got and b"import" not in got)
    if "etc" in path or ".py" in path or "tiles" in path:
        assert status in (400, 404) or got.endswith(open_map.get("/info.json").body)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 40,
        b"NONSENSE\r\n\r\n",
    ],
    ids=["long line", "long header", "many headers", "tls", "nonsense"],
)
def test_a_huge_or_broken_request_is_refused_and_the_next_is_answered(
    open_map: Any, data: bytes
) -> None:
    try:
        answered = open_map.raw(data)
    except ConnectionError:
        answered = b""  # closed before all of it was read
    assert answered == b"" or answered.split()[1] == b"400"
    assert open_map.get("/info.json").status == 200


def test_more_connections_than_there_may_be_are_closed(
    open_map: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_server, "_MOST_CONNECTIONS", 3)
    idle = [open_map.connect() for _ in range(3)]
    try:

        def is_refused() -> bool:
            try:
                return bool(
                    open_map.raw(b"GET /info.json HTTP/1.0\r\nHost: localhost\r\n\r\n") == b""
                )
            except ConnectionError:
                return True

        toy.wait_until(is_refused)
    finally:
        for wire in idle:
            wire.close()
    toy.wait_until(lambda: _is_answered(open_map))


def _is_answered(client: Any) -> bool:
    try:
        return bool(client.get("/info.json").status == 200)
    except (ConnectionError, OSError):
        return False


def test_after_the_end_nobody_is_answered(pack: Pack) -> None:
    with ExitStack() as stack:
        client = toy.live(stack, pack).client
        assert client.get("/info.json").status == 200
    with pytest.raises(ConnectionRefusedError):
        client.get("/info.json")
