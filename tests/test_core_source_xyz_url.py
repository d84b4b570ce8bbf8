"""Tiles from a server: a real one on the loopback, which fails in every way that servers do."""

from __future__ import annotations

import dataclasses
import os
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import s4g
from s4g.core import tile_fetch
from s4g.core.errors import InputError, IntegrityError, S4GError
from s4g.core.files import sha256_bytes
from s4g.core.geo import BBox
from s4g.core.source_xyz_url import UrlOptions, UrlReader
from s4g.core.sources import open_url
from s4g.core.tile_fetch import Pace, TileFetcher
from s4g.core.tile_pyramid import tiles_bounds

pytest.importorskip("requests", reason="tiles from a URL need requests (the pack extra)")

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_tiles.py"))))

KEY = "k3yk3yk3yk3yk3yk3yk3yk3yk3yk3y"
ZOOM, X, Y = 5, 16, 10
BOUNDS = tiles_bounds(ZOOM, X, Y, X + 2, Y + 2)  # tile 17/11 is in the middle
MIDDLE, OTHER = f"/{ZOOM}/17/11.png", f"/{ZOOM}/16/10.png"
HTML = b"<!DOCTYPE html><title>Sign in</title>"


@dataclasses.dataclass
class Answer:
    """What the server says once: `length` is what it claims, where that is not the truth."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    length: int | None = None
    waits: bool = False
    chunked: bool = False


class Server:
    """Answers each path from a list, of which the last answer is for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {MIDDLE: [Answer(body=toy.png())]}
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self.end = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:  # clients that hang up are no news
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        self.asked.append(path)
        self.agents.add(handler.headers["User-Agent"])
        queue = self.answers.get(path, [Answer(404)])
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if answer.waits:
            self.end.wait(10)
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(answer.body) if answer.length is None else answer.length
            if length >= 0:
                handler.send_header("Content-Length", str(length))
        handler.end_headers()
        try:
            if answer.chunked:
                for at in range(0, len(answer.body), 100):
                    part = answer.body[at : at + 100]
                    handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                handler.wfile.write(b"0\r\n\r\n")
            else:
                handler.wfile.write(answer.body)
        except OSError:  # the client had enough
            pass
        handler.close_connection = answer.length is not None

    def close(self) -> None:
        self.end.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the code under test would have slept; it does not."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


Open = Callable[..., UrlReader]


@pytest.fixture
def opened(server: Server, tmp_path: Path) -> Iterator[Open]:
    """Open the server's tiles; the reader is closed afterwards."""
    readers: list[UrlReader] = []

    def open_reader(template: str = "", **changes: Any) -> UrlReader:
        template = template or f"{server.url}/{{z}}/{{x}}/{{y}}.png?key={KEY}"
        readers.append(UrlReader(template, options(tmp_path, **changes)))
        return readers[-1]

    yield open_reader
    for reader in readers:
        reader.close()


def options(tmp_path: Path, **changes: Any) -> UrlOptions:
    given = {"attribution": "© me", "min_zoom": ZOOM, "max_zoom": ZOOM, "bounds": BOUNDS}
    fast = {"rate_per_s": 1000.0, "cache": tmp_path / "cache", "retries": 2}
    return UrlOptions(**{**given, **fast, **changes})


def shown(server: Server) -> str:
    return f"{server.url}/{{z}}/{{x}}/{{y}}.png?key=***: tile {ZOOM}/17/11"


def message_of(opened: Open, kind: type[S4GError] = S4GError, **changes: Any) -> str:
    with pytest.raises(kind) as error:
        opened(**changes)
    assert type(error.value) is kind
    assert "\n" not in str(error.value) and KEY not in str(error.value)
    # Whoever prints the whole chain must not print the key either.
    assert (
        error.value.__cause__ is None
        and error.value.__suppress_context__ is True
        or (error.value.__context__ is None)
    )
    return str(error.value)


def test_a_server_agrees_with_the_orthophoto(server: Server, tmp_path: Path) -> None:
    toy.write_orthophoto(tmp_path / "o.tif")
    toy.write_mbtiles(tmp_path / "o.tif", tmp_path / "o.mbtiles")
    tiles = toy.tiles_of(tmp_path / "o.mbtiles")
    server.answers = {f"/{z}/{x}/{y}.png": [Answer(body=data)] for (z, x, y), data in tiles.items()}
    bounds = toy.RasterGround(tmp_path / "o.tif").bounds
    source = open_url(
        f"{server.url}/{{z}}/{{x}}/{{y}}.png",
        options(tmp_path, min_zoom=16, max_zoom=18, bounds=bounds),
    )
    toy.check_against_orthophoto(source, tmp_path / "o.tif")
    source.close()
    assert len(server.asked) == len(set(server.asked)), "no tile is asked for twice"
    (mine,) = server.agents
    assert mine == f"s4g/{s4g.__version__}"


def test_the_interface_is_that_of_the_options(server: Server, opened: Open) -> None:
    reader = opened(user_agent_contact="ops@example.org")
    assert reader.name == f"{server.url}/{{z}}/{{x}}/{{y}}.png?key=***"
    assert (reader.attribution, reader.bounds, reader.tile_px) == ("© me", BOUNDS, 256)
    assert (reader.min_zoom, reader.max_zoom) == (ZOOM, ZOOM)
    assert server.agents == {f"s4g/{s4g.__version__} (+ops@example.org)"}


def test_rows_from_the_south_are_asked_for_where_the_template_says_so(
    server: Server, opened: Open
) -> None:
    server.answers[f"/{ZOOM}/17/20.png"] = [Answer(body=toy.png((1, 2, 3)))]
    assert opened(f"{server.url}/{{z}}/{{x}}/{{-y}}.png").tile(ZOOM, 17, 11) == toy.png((1, 2, 3))


def test_tiles_of_512_px_are_recognised(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(body=toy.png(side_px=512))]
    assert opened().tile_px == 512


def test_where_the_middle_is_a_hole_the_size_is_that_of_most_servers(
    server: Server, opened: Open
) -> None:
    server.answers = {}
    assert opened().tile_px == 256
    assert opened(f"{server.url}/{{z}}/{{x}}/{{y}}@2x.png").tile_px == 512


@pytest.mark.parametrize("status", [204, 404])
def test_a_tile_that_the_server_has_not_is_a_hole(
    server: Server, opened: Open, status: int
) -> None:
    server.answers[OTHER] = [Answer(status)]
    assert opened().tile(ZOOM, 16, 10) is None


def test_nothing_outside_the_region_and_the_zooms_is_asked_for(
    server: Server, opened: Open
) -> None:
    reader = opened()
    server.asked.clear()
    outside = [
        (ZOOM, 15, 10),
        (ZOOM, 18, 10),
        (ZOOM, 16, 9),
        (ZOOM, 16, 12),
        (4, 8, 5),
        (6, 33, 21),
    ]
    assert [reader.tile(*place) for place in outside] == [None] * 6
    assert server.asked == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_what_may_be_missing(server: Server, opened: Open, status: int) -> None:
    server.answers[MIDDLE] = [Answer(status, b"no")]
    assert message_of(opened) == (
        f"{shown(server)}: refused by the server ({status}): a key is missing or wrong, the user "
        "agent is unknown (--contact), or you lack the permission"
    )
    assert len(server.asked) == 1, "a refusal is not retried"


@pytest.mark.parametrize("status", [400, 410, 418, 501])
def test_other_answers_are_named(server: Server, opened: Open, status: int) -> None:
    server.answers[MIDDLE] = [Answer(status, HTML)]
    assert message_of(opened) == (
        f"{shown(server)}: the server answers {status}; check the template and the zoom"
    )


def test_html_instead_of_a_picture_is_named(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(200, HTML, {"Content-Type": "text/html; charset=utf-8"})]
    assert message_of(opened) == (
        f"{shown(server)}: the server sends 'text/html' instead of a PNG, JPEG or WebP (begins "
        "'<!DOCTYPE html><'); check the template, the key and the zoom"
    )


def test_a_picture_is_one_whatever_its_content_type(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(200, toy.png(), {"Content-Type": "text/plain"})]
    assert opened().tile(ZOOM, 17, 11) == toy.png()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_failure_that_passes_is_survived(
    server: Server, opened: Open, sleeps: list[float], status: int
) -> None:
    server.answers[MIDDLE] = [Answer(status), Answer(status), Answer(body=toy.png())]
    assert opened().tile(ZOOM, 17, 11) == toy.png()
    assert len(server.asked) == 3
    assert any(1 <= seconds <= 1.5 for seconds in sleeps), "the second try waits, with jitter"


def test_waits_grow_with_each_failure(server: Server, opened: Open, sleeps: list[float]) -> None:
    server.answers[MIDDLE] = [Answer(500)]
    message_of(opened, retries=6)
    waits = [seconds for seconds in sleeps if seconds > 0.1]
    assert len(waits) == 5 and all(2**i <= seconds <= 2**i + 0.5 for i, seconds in enumerate(waits))


def test_the_server_says_how_long_to_wait(
    server: Server, opened: Open, sleeps: list[float]
) -> None:
    server.answers[MIDDLE] = [Answer(429, b"", {"Retry-After": "7"}), Answer(body=toy.png())]
    opened()
    assert 7 in sleeps


def test_a_wait_that_cannot_be_read_is_ours_to_choose(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(503, b"", {"Retry-After": "soon"}), Answer(body=toy.png())]
    assert opened().tile(ZOOM, 17, 11) == toy.png()


def test_a_server_that_wants_a_long_rest_gets_it(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(429, b"", {"Retry-After": "3600"})]
    assert message_of(opened) == (
        f"{shown(server)}: the server asks to wait 3600 s (the server failed (429)); run the same "
        "command again after that, what was fetched is kept"
    )
    assert len(server.asked) == 1


def test_too_many_requests_say_what_to_lower(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(429)]
    assert message_of(opened) == (
        f"{shown(server)}: the server asks for fewer requests (429, 3 tries); lower --rate (now "
        "1000) and run the same command again, what was fetched is kept"
    )


def test_a_server_that_stays_broken_is_given_up(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(500)]
    assert message_of(opened) == (
        f"{shown(server)}: the server failed (500), 3 tries; try again later with the same "
        "command, what was fetched is kept"
    )
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(body=toy.png()[:100], length=900), "the connection broke off"),
        (Answer(body=toy.png()[:100], length=-1), "the picture ends early (100 bytes)"),
    ],
)
def test_a_body_that_breaks_off_is_fetched_again_and_never_kept(
    server: Server, opened: Open, tmp_path: Path, answer: Answer, reason: str
) -> None:
    server.answers[MIDDLE] = [answer, Answer(body=toy.png())]
    assert opened().tile(ZOOM, 17, 11) == toy.png()
    server.answers[MIDDLE] = [answer]
    assert message_of(opened, cache=tmp_path / "other") == (
        f"{shown(server)}: {reason}, 3 tries; try again later with the same command, "
        "what was fetched is kept"
    )
    assert not (tmp_path / "other").exists()


def test_a_body_in_chunks_is_read(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(body=toy.png(), chunked=True)]
    assert opened().tile(ZOOM, 17, 11) == toy.png()


@pytest.mark.parametrize("chunked", [False, True])
def test_no_more_than_four_megabytes_are_read(server: Server, opened: Open, chunked: bool) -> None:
    server.answers[MIDDLE] = [Answer(body=toy.png() + bytes(5 << 20), chunked=chunked)]
    assert message_of(opened) == (
        f"{shown(server)}: the server sends more than 4 MB, too much for a tile; check the template"
    )


def test_a_silent_server_is_given_up(
    server: Server, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_fetch, "_READ_S", 0.05)
    server.answers[MIDDLE] = [Answer(body=toy.png(), waits=True)]
    assert message_of(opened) == (
        f"{shown(server)}: the server did not answer in time, 3 tries; try again later with the "
        "same command, what was fetched is kept"
    )


def test_a_body_that_drips_is_given_up(
    server: Server, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_fetch, "_WHOLE_S", -1.0)
    server.answers[MIDDLE] = [Answer(body=toy.png())]
    assert ": the server did not answer in time, 3 tries;" in message_of(opened)


def test_a_host_that_is_not_reached_is_given_up(server: Server, opened: Open) -> None:
    server.close()
    assert message_of(opened) == (
        f"{shown(server)}: the connection failed, 3 tries; try again later with the same "
        "command, what was fetched is kept"
    )


def test_a_redirect_is_followed(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(302, b"x" * 100, {"Location": "/elsewhere"})]
    server.answers["/elsewhere"] = [Answer(body=toy.png())]
    assert opened().tile(ZOOM, 17, 11) == toy.png()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:image/png,a"])
def test_a_redirect_to_another_scheme_is_refused(server: Server, opened: Open, target: str) -> None:
    server.answers[MIDDLE] = [Answer(301, b"", {"Location": target})]
    scheme = target.partition(":")[0]
    assert message_of(opened) == (
        f"{shown(server)}: the server redirects to {scheme}:, which is not followed from http:"
    )


def test_a_redirect_that_gives_up_encryption_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TileFetcher, "_asked", lambda *_: "http://h/a")
    with pytest.raises(S4GError) as error:
        TileFetcher("me", 1000.0, 0).fetch("https://h/a", "tile")
    assert str(error.value) == (
        "tile: the server redirects to http:, which is not followed from https:"
    )


def test_connections_are_closed_where_the_first_tile_fails(
    server: Server, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[TileFetcher] = []
    close = TileFetcher.close
    monkeypatch.setattr(TileFetcher, "close", lambda self: (closed.append(self), close(self)))
    server.answers[MIDDLE] = [Answer(403)]
    message_of(opened)
    assert len(closed) == 1


def test_redirects_in_a_circle_end(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(302, b"", {"Location": MIDDLE})]
    assert message_of(opened) == f"{shown(server)}: more than 5 redirects; check the template"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://[", "the server redirects to what is no URL"),
        ("http://a b/", "the URL cannot be asked; check the template"),
        ("http://" + "a" * 300, "the URL cannot be asked; check the template"),
    ],
)
def test_a_redirect_to_no_address_is_refused(
    server: Server, opened: Open, target: str, reason: str
) -> None:
    server.answers[MIDDLE] = [Answer(302, b"", {"Location": target})]
    assert message_of(opened) == f"{shown(server)}: {reason}"


def test_the_body_of_a_redirect_is_not_read(server: Server, opened: Open) -> None:
    server.answers[MIDDLE] = [Answer(302, b"", {"Location": "/a"}, length=1 << 40)]
    server.answers["/a"] = [Answer(body=toy.png())]
    assert opened().tile(ZOOM, 17, 11) == toy.png()


def test_a_tile_of_another_size_is_refused_when_it_is_drawn(server: Server, tmp_path: Path) -> None:
    from s4g.core.geo import LocalFrame
    from s4g.core.ground import GroundWindow

    for x in (16, 17):
        for y in (10, 11):
            server.answers[f"/{ZOOM}/{x}/{y}.png"] = [Answer(body=toy.png())]
    server.answers[OTHER] = [Answer(body=toy.png(side_px=300))]
    template = f"{server.url}/{{z}}/{{x}}/{{y}}.png"
    source = open_url(template, options(tmp_path))
    with pytest.raises(IntegrityError) as error:
        source.read(LocalFrame(*BOUNDS.center), GroundWindow(-2e5, 2e5, 4e3, 100, 100))
    assert str(error.value) == (
        f"{template}: tile {ZOOM}/16/10 is 300x300 px, expected 256x256 px like the others; "
        "remove it or fetch it again"
    )
    source.close()


def test_a_tile_is_fetched_once_and_then_read_from_disk(server: Server, opened: Open) -> None:
    opened().tile(ZOOM, 17, 11)
    server.close()
    assert opened().tile(ZOOM, 17, 11) == toy.png()
    assert server.asked == [MIDDLE]


def test_the_cache_is_apart_for_each_template_and_shows_no_key(
    server: Server, opened: Open, tmp_path: Path
) -> None:
    opened()
    template = f"{server.url}/{{z}}/{{x}}/{{y}}.png?key={KEY}"
    folder = tmp_path / "cache" / sha256_bytes(template.encode())
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert files == [folder / str(ZOOM) / "17" / "11.tile"]
    assert files[0].read_bytes() == toy.png()
    opened(template + "&v=2")
    assert server.asked == [MIDDLE, MIDDLE]


def test_the_cache_is_by_default_that_of_the_user(
    server: Server, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    opened(cache=None)
    assert len(list((tmp_path / "home" / "s4g" / "tiles").rglob("*.tile"))) == 1


@pytest.mark.parametrize("damage", [toy.png()[:50], b"<html>", bytes(5 << 20)])
def test_a_damaged_file_of_the_cache_is_fetched_again(
    server: Server, opened: Open, tmp_path: Path, damage: bytes
) -> None:
    opened()
    (path,) = (tmp_path / "cache").rglob("*.tile")
    path.write_bytes(damage)
    assert opened().tile(ZOOM, 17, 11) == toy.png()
    assert path.read_bytes() == toy.png()


def test_a_hole_is_remembered_for_a_week(server: Server, opened: Open, tmp_path: Path) -> None:
    opened().tile(ZOOM, 16, 10)
    assert opened().tile(ZOOM, 16, 10) is None
    assert server.asked.count(OTHER) == 1
    (hole,) = (path for path in (tmp_path / "cache").rglob("*.tile") if not path.stat().st_size)
    week_s = 7 * 24 * 3600
    os.utime(hole, (time.time() - week_s + 60,) * 2)
    assert opened().tile(ZOOM, 16, 10) is None
    assert server.asked.count(OTHER) == 1
    os.utime(hole, (time.time() - week_s - 60,) * 2)
    server.answers[OTHER] = [Answer(body=toy.png())]
    assert opened().tile(ZOOM, 16, 10) == toy.png()


def test_a_cache_that_cannot_be_written_is_named(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(S4GError) as error:
        opened(cache=tmp_path / "file")
    assert str(error.value).endswith(
        ": the cache of tiles cannot be written (Not a directory); choose another with --cache"
    )


def test_several_threads_fetch_at_once(server: Server, opened: Open) -> None:
    places = [(ZOOM, x, y) for x in (16, 17) for y in (10, 11)] * 8
    for zoom, x, y in places:
        server.answers[f"/{zoom}/{x}/{y}.png"] = [Answer(body=toy.png((x, y, 0)))]
    reader = opened()
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda place: reader.tile(*place), places))
    assert seen == [toy.png((x, y, 0)) for _, x, y in places]


def test_requests_keep_their_distance(monkeypatch: pytest.MonkeyPatch, sleeps: list[float]) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    pace = Pace(5.0)
    for _ in range(4):
        pace.wait()
    assert sleeps == pytest.approx([0.2, 0.4, 0.6])
    monkeypatch.setattr(time, "monotonic", lambda: 200.0)
    pace.wait()
    assert len(sleeps) == 3, "no debt is left after a pause"


def test_every_request_is_paced_retries_too(
    server: Server, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[None] = []
    monkeypatch.setattr(Pace, "wait", lambda self: waits.append(None))
    server.answers[MIDDLE] = [Answer(500), Answer(302, b"", {"Location": "/a"})]
    server.answers["/a"] = [Answer(body=toy.png())]
    opened()
    assert len(waits) == len(server.asked) == 3


@pytest.mark.parametrize("text", ["", "  ", "<a></a>"])
def test_an_attribution_is_required(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as error:
        options(tmp_path, attribution=text)
    assert str(error.value) == (
        'tiles from a URL need a credit that a pack can show; pass --attribution "…" with the '
        "text that the imagery's terms ask for"
    )


@pytest.mark.parametrize(("low", "high"), [(-1, 4), (5, 4), (3, 31)])
def test_zooms_out_of_range_are_refused(tmp_path: Path, low: int, high: int) -> None:
    with pytest.raises(InputError) as error:
        options(tmp_path, min_zoom=low, max_zoom=high)
    assert str(error.value) == (
        f"--zoom {low}-{high}: expected two zooms from 0 to 30, the coarser first"
    )


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1001.0])
def test_a_rate_out_of_range_is_refused(tmp_path: Path, rate: float) -> None:
    with pytest.raises(InputError) as error:
        options(tmp_path, rate_per_s=rate)
    assert str(error.value) == (
        f"--rate {rate:g}: expected requests per second, more than 0 and at most 1000"
    )


@pytest.mark.parametrize("retries", [-1, 21])
def test_retries_out_of_range_are_refused(tmp_path: Path, retries: int) -> None:
    with pytest.raises(InputError) as error:
        options(tmp_path, retries=retries)
    assert str(error.value) == f"--retries {retries}: expected 0 to 20"


@pytest.mark.parametrize("contact", ["a\r\nCookie: b", "a\nb", "é"])
def test_a_contact_that_is_no_header_is_refused(tmp_path: Path, contact: str) -> None:
    with pytest.raises(InputError) as error:
        options(tmp_path, user_agent_contact=contact)
    assert str(error.value) == f"--contact {contact!r}: expected printable ASCII on one line"


def test_a_host_that_forbids_bulk_download_needs_permission(tmp_path: Path) -> None:
    template = f"https://api.mapbox.com/v4/{{z}}/{{x}}/{{y}}.jpg?access_token={KEY}"
    with pytest.raises(InputError) as error:
        UrlReader(template, options(tmp_path))
    assert str(error.value) == (
        "api.mapbox.com: its terms forbid bulk download of tiles without an agreement; pass "
        "--i-have-permission if you have one, or take imagery that may be copied"
    )


def test_permission_opens_such_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(self: object, url: str, origin: str) -> bytes:
        asked.append(url)
        png: bytes = toy.png()
        return png

    monkeypatch.setattr(TileFetcher, "fetch", fetch)
    reader = UrlReader("https://{s}.tile.openstreetmap.org/{z}/{x}/{y}.png",
                       options(tmp_path, permission=True))  # fmt: skip
    reader.close()
    assert asked == [f"https://b.tile.openstreetmap.org/{ZOOM}/17/11.png"]


def test_a_wrong_template_is_refused_before_anything_is_asked(server: Server, opened: Open) -> None:
    assert message_of(opened, InputError, template=f"{server.url}/{{z}}/{{x}}.png").startswith(
        f"{server.url}/{{z}}/{{x}}.png: must hold "
    )
    assert server.asked == []


def test_bounds_beyond_web_mercator_are_refused(opened: Open) -> None:
    assert "Web Mercator ends at 85.05" in message_of(opened, InputError, bounds=BBox(1, 80, 2, 89))


def test_without_requests_the_error_names_what_to_install(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(S4GError) as error:
        opened()
    assert str(error.value) == ("reading tiles from a URL needs requests: pip install 's4g[pack]'")
