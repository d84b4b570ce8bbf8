from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("requests", reason="tile servers need requests (the pack extra)")

from s4g.core.console import run_command
from s4g.core.geo import BBox
from s4g.tilepacks.cli import cli
from s4g.tilepacks.reader import open_pack

ZOOM, X, Y = 17, 68600, 46000  # the middle of a few tiles of made-up ground


class Tiles(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        z, x, y = (int(part) for part in self.path.split(".")[0].strip("/").split("/"))
        rng = np.random.default_rng([z, x, y])
        small = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(".png", image)[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Tiles) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def box() -> BBox:
    """Return a box of about three tiles a side."""
    from s4g.core.geo import wgs84_from_mercator

    tile_m = 2 * np.pi * 6378137.0 / 2**ZOOM
    half = np.pi * 6378137.0
    lat, lon = wgs84_from_mercator(
        np.array([X, X + 3]) * tile_m - half, half - np.array([Y + 3, Y]) * tile_m
    )
    return BBox(float(lon[0]), float(lat[0]), float(lon[1]), float(lat[1]))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(cli, [str(argument) for argument in arguments])
    return int(end.value.code or 0)


def test_a_tile_server_is_packed(server: str, tmp_path: Path, toy_encoder: Path) -> None:
    out = tmp_path / "p.s4gpack"
    code = run(
        "--source", server + "/{z}/{x}/{y}.png", "--zoom", ZOOM, "--bbox", box(), "--levels", 80,
        "--stride", 0.5,
        "--attribution", "made up", "--cache", tmp_path / "cache", "--rate", 1000, "--encoder",
        toy_encoder, "--out", out,
    )  # fmt: skip
    assert code == 0
    with open_pack(out) as pack:
        assert pack.levels[0].count > 20
        assert pack.attribution == "made up"
        pack.verify()


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("--zoom", "error: --zoom is missing: which zooms to take from the tile server\n"),
        (
            "--bbox",
            "error: --bbox, --area or --route is missing: a tile server has no end\n",
        ),
    ],
)
def test_what_a_tile_server_needs_is_asked_for(
    server: str,
    tmp_path: Path,
    toy_encoder: Path,
    capfd: pytest.CaptureFixture[str],
    left_out: str,
    message: str,
) -> None:
    options = {
        "--source": server + "/{z}/{x}/{y}.png",
        "--zoom": ZOOM,
        "--bbox": box(),
        "--attribution": "made up",
        "--encoder": toy_encoder,
        "--out": tmp_path / "p.s4gpack",
    }
    del options[left_out]
    assert run(*[word for pair in options.items() for word in pair]) == 2
    assert capfd.readouterr().err == message


def test_a_zoom_that_is_none_is_refused(
    server: str, tmp_path: Path, toy_encoder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(
        "--source", server + "/{z}/{x}/{y}.png", "--zoom", "x", "--bbox", box(), "--attribution",
        "a", "--encoder", toy_encoder, "--out", tmp_path / "p.s4gpack",
    )  # fmt: skip
    assert code == 2
    assert capfd.readouterr().err == (
        "error: --zoom x: expected a number or two, for example 19 or 16-19\n"
    )


def test_imagery_without_a_credit_takes_the_one_that_is_given(
    tmp_path: Path, toy_encoder: Path
) -> None:
    from s4g.core.sources import open_ground

    assert open_ground("landscape").attribution
    folder = tmp_path / "tiles" / str(ZOOM) / str(X)
    folder.mkdir(parents=True)
    for y in range(Y, Y + 3):
        small = np.random.default_rng(y).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{y}.png"), cv2.resize(small, (256, 256)))
    out = tmp_path / "p.s4gpack"
    code = run(
        "--source", tmp_path / "tiles", "--levels", 80, "--stride", 1, "--attribution", "us",
        "--encoder", toy_encoder, "--out", out,
    )  # fmt: skip
    assert code == 0
    with open_pack(out) as pack:
        assert pack.attribution == "us"
