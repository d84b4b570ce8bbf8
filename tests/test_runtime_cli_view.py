"""`s4g-run --view` and `s4g-run view` as a user starts them."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s4g.core.console import run_command
from s4g.core.errors import InputError
from s4g.runtime.cli import cli
from s4g.runtime.cli_part import Running
from s4g.runtime.cli_view import PART, check_installed
from s4g.runtime.cli_view_log import view as view_command
from s4g.runtime.fix import State
from s4g.tilepacks.reader import open_pack

pytest.importorskip("aiohttp", reason="the map needs aiohttp (the view extra)")
toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_view.py"))))

PROGRAM = (
    "import sys\n"
    "from s4g.core.console import run_command\n"
    "from s4g.runtime.cli_view_log import view\n"
    "run_command(view, sys.argv[1:])\n"
)


def options(**changes: Any) -> dict[str, Any]:
    return {"view": None, "view_token": None} | changes


def refusal(command: Any, words: Sequence[object], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        run_command(command, [str(word) for word in words])
    assert end.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    return err


def flight_words(flight: Any, pack: Path, encoder: Path) -> list[object]:
    return [
        "--camera", flight.photos, "--telemetry", flight.telemetry, "--hfov", flight.hfov_deg,
        "--pack", pack, "--encoder", encoder, "--device", "cpu", "--level", 48, "--threads", 1,
    ]  # fmt: skip


def test_nothing_is_served_unless_it_is_asked_for() -> None:
    assert not PART.is_asked_for(options())
    PART.check(options())
    with ExitStack() as stack:
        running: Any = SimpleNamespace(options=options())
        assert PART.open(stack, running) == ()
    assert PART.is_asked_for(options(view="8765"))


def test_an_address_that_is_none_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(InputError, match=r"^--view here: expected \[HOST:\]PORT, such as"):
        PART.check(options(view="here"))


def test_a_token_without_a_map_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(InputError) as error:
        PART.check(options(view_token=path))
    assert str(error.value) == (f"--view-token {path}: there is no map to guard; add --view PORT")


def test_a_token_that_is_none_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("short")
    with pytest.raises(InputError, match=r"^--view-token .*: expected 16 to 256 letters"):
        PART.check(options(view="0", view_token=path))


def test_without_the_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "s4g.runtime.cli_view.find_spec", lambda name: None if name == "aiohttp" else find(name)
    )
    with pytest.raises(InputError) as error:
        check_installed("--view 8765")
    assert str(error.value) == "--view 8765: the map needs aiohttp; pip install 's4g[view]'"


def test_a_port_in_use_ends_the_run_in_one_line(
    toy_flight: Any, toy_pack: Path, toy_encoder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = [*flight_words(toy_flight, toy_pack, toy_encoder), "--view", port]
        err = refusal(cli, words, capfd)
    assert err == (
        f"error: --view {port}: the port is in use; choose another, or 0 for any that is free\n"
    )


def test_a_run_is_watched_from_its_first_frame_to_its_end(
    toy_flight: Any, toy_pack: Path, toy_encoder: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The command as it is, with a viewer that comes while it runs."""
    from s4g.runtime import view_page

    heard: list[Any] = []
    serve = view_page.serve_live

    def watched(*arguments: Any, **more: Any) -> str:
        url = serve(*arguments, **more)
        viewer = toy.Client(url).events()

        def listen() -> None:
            try:
                while True:
                    heard.append(viewer.next())
            except EOFError:
                viewer.close()

        thread = threading.Thread(target=listen)
        thread.start()
        monkeypatch.setattr(view_page, "listener", thread, raising=False)
        return url

    monkeypatch.setattr(view_page, "serve_live", watched)
    words = [*flight_words(toy_flight, toy_pack, toy_encoder), "--view", "0"]
    with pytest.raises(SystemExit) as end:
        run_command(cli, [str(word) for word in words])
    view_page.listener.join(toy.PATIENCE_S)  # type: ignore[attr-defined]
    assert end.value.code == 0
    out, err = capfd.readouterr()
    assert re.match(r"live map: http://127\.0\.0\.1:\d+/\n", err)
    fixes = [json.loads(line) for line in out.splitlines()]
    told = [event.data["fix"] for event in heard if event.name == "state"]
    assert heard[-1].name == "end"
    assert told[-1] == fixes[-1]
    places = [point for event in heard for point in event.data.get("points", [])]
    assert [p[:2] for p in places] == [[f["lat"], f["lon"]] for f in fixes if f["lat"] is not None]


def test_a_token_of_a_file_is_not_printed(
    toy_pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef")
    with open_pack(toy_pack) as pack, ExitStack() as stack:
        source, nothing = SimpleNamespace(dropped=3), SimpleNamespace()
        running = Running(
            options(view="0", view_token=path), pack, *[nothing] * 1, source, nothing, nothing,
            None, True, False,
        )  # type: ignore[arg-type]  # fmt: skip
        (observer,) = PART.open(stack, running)
        err = capfd.readouterr().err
        assert "0123456789abcdef" not in err
        found = re.fullmatch(r"live map: http://127\.0\.0\.1:(\d+)/\?token=… \(of (.*)\)\n", err)
        assert found is not None and found[2] == str(path)
        client = toy.Client(f"http://127.0.0.1:{found[1]}/")
        assert client.get("/info.json").status == 403
        assert client.get("/info.json?token=0123456789abcdef").status == 200
        observer.observe(toy.seen(toy.fix(pack, 0)))
        with client.events(Cookie=f"s4g-view-{found[1]}=0123456789abcdef") as events:
            stats = events.until(lambda event: event.name == "state").data["stats"]
    assert (stats["dropped"], stats["resets"], stats["outputs"]) == (3, 0, [])


@pytest.fixture
def log(toy_pack: Path, tmp_path: Path) -> Path:
    with open_pack(toy_pack) as pack:
        fixes = [toy.fix(pack, number) for number in range(3)]
        written: Path = toy.write_log(
            tmp_path / "fixes.jsonl", [*fixes, toy.fix(pack, 3, State.NO_FIX)]
        )
    return written


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_log_is_served_until_it_is_interrupted(
    log: Path, toy_pack: Path, number: signal.Signals
) -> None:
    words = [log, "--pack", toy_pack, "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(
            rf"replay of {re.escape(str(log))}: (http://127\.0\.0\.1:\d+/)\n", line
        )
        assert found is not None, line
        assert toy.Client(found[1]).get("/replay/about.json").json["count"] == 4
        process.send_signal(number)
        assert process.wait(toy.PATIENCE_S) == 0
        assert process.stderr.read() == ""


def test_the_port_of_a_log_in_use_is_refused(
    log: Path, toy_pack: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        err = refusal(view_command, [log, "--pack", toy_pack, "--port", port], capfd)
    assert err == (
        f"error: --port {port}: the port is in use; choose another, or 0 for any that is free\n"
    )


def test_a_file_that_is_no_log_is_refused(
    toy_pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fixes.jsonl"
    path.write_text('{"v":1}\n')
    assert refusal(view_command, [path, "--pack", toy_pack], capfd) == (
        f"error: {path}: line 1: not a fix of s4g-run; expected a line of fixes.jsonl\n"
    )


def test_a_log_that_is_not_there_is_refused(
    toy_pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.jsonl"
    assert refusal(view_command, [path, "--pack", toy_pack], capfd) == (
        f"error: {path}: cannot be read (No such file or directory)\n"
    )
