"""`s4g-run --to` as a user starts it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s4g.core.console import run_command
from s4g.core.errors import InputError
from s4g.runtime.cli import cli
from s4g.runtime.cli_outputs import PART
from s4g.runtime.transport_server import TcpServer

pynmea2 = pytest.importorskip("pynmea2", reason="an independent reader of NMEA (pip install)")


class Tool:
    def __init__(self, capfd: Any, flight: Any, pack: Path, encoder: Path) -> None:
        self._capfd = capfd
        self._words = [
            "--camera", flight.photos, "--pack", pack, "--encoder", encoder, "--device", "cpu",
            "--telemetry", flight.telemetry, "--hfov", flight.hfov_deg, "--level", 48,
            "--threads", 1,
        ]  # fmt: skip

    def run(self, *words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            run_command(cli, [str(word) for word in [*self._words, *words]])
        said = self._capfd.readouterr()
        return int(stop.value.code or 0), said.out, said.err


@pytest.fixture
def tool(
    capfd: pytest.CaptureFixture[str], toy_flight: Any, toy_pack: Path, toy_encoder: Path
) -> Tool:
    return Tool(capfd, toy_flight, toy_pack, toy_encoder)


def without_latency(line: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(line)
    return {key: value[key] for key in value if key not in ("latency_ms", "utc")}


def test_outputs_get_what_is_printed(tool: Tool, tmp_path: Path) -> None:
    code, out, _ = tool.run(
        "--to", f"jsonl:{tmp_path}/fixes.jsonl", "--to", f"nmea:{tmp_path}/track.nmea",
        "--epoch", "2026-05-04T09:30:00Z",
    )  # fmt: skip
    assert code == 0
    written = (tmp_path / "fixes.jsonl").read_text().splitlines()
    printed = out.splitlines()
    assert [without_latency(line) for line in written] == [without_latency(x) for x in printed]
    positions = [json.loads(line) for line in printed]
    assert any(fix["lat"] is not None for fix in positions)
    sentences = [
        pynmea2.parse(line, check=True)
        for line in (tmp_path / "track.nmea").read_text().splitlines()
    ]
    read = [sentence for sentence in sentences if sentence.sentence_type == "GGA"]
    assert len(read) == len(printed)
    for fix, gga in zip(positions, read, strict=True):
        if fix["lat"] is None:
            assert gga.gps_qual == 0
            continue
        assert gga.latitude == pytest.approx(fix["lat"], abs=1e-7)
        assert gga.longitude == pytest.approx(fix["lon"], abs=1e-7)
    for line in written:
        value = json.loads(line)
        if value["t"] is not None:
            assert value["utc"].startswith("2026-05-04T09:30:")


def test_a_rate_is_on_the_clock_of_the_frames_and_the_same_run_gives_the_same_lines(
    tool: Tool, tmp_path: Path
) -> None:
    texts = []
    for name in ("one", "two"):
        code, _, _ = tool.run("--to", f"jsonl:{tmp_path}/{name}?rate=4")
        assert code == 0
        lines = (tmp_path / name).read_text().splitlines()
        texts.append([without_latency(line) for line in lines])
    assert texts[0] == texts[1]
    stamps = [line["t"] for line in texts[0]]
    assert len(stamps) > 2
    assert all(t * 4 == pytest.approx(round(t * 4), abs=1e-4) for t in stamps)


def test_quiet_is_enough_with_an_output(tool: Tool, tmp_path: Path) -> None:
    code, out, _ = tool.run("--quiet", "--to", "jsonl:-")
    assert code == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(6))


def test_a_full_device_costs_no_fix(tool: Tool) -> None:
    code, out, err = tool.run("--to", "jsonl:/dev/full")
    assert code == 0
    assert len(out.splitlines()) == 6
    said = [line for line in err.splitlines() if line.startswith("output ")]
    assert said == [
        "output jsonl:/dev/full: No space left on device; fixes go on, it is tried again",
        "output jsonl:/dev/full: 0 fixes written, 6 left out",
    ]


def test_a_port_in_use_ends_the_run_before_it_begins(tool: Tool) -> None:
    server = TcpServer("127.0.0.1", 0, "first")
    url = f"nmea+tcp://127.0.0.1:{server.port}"
    code, out, err = tool.run("--to", url)
    server.close()
    assert (code, out) == (2, "")
    assert err == (
        f"error: --to {url}: cannot be opened (Address already in use); another program may "
        "listen there; give another port, or stop it\n"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--to", "nmea:/dev/ttyUSB0?rate=x"],
         "--to nmea:/dev/ttyUSB0?rate=x: rate=x is no number from 0.01 to 200"),
        (["--to", "jsonl:no/such/folder/f"],
         "--to jsonl:no/such/folder/f: no folder no/such/folder; make it first"),
        (["--to", "jsonl:x", "--epoch", "soon"],
         "--epoch soon: no time; expected ISO 8601, such as 2026-05-04T09:30:00Z, or Unix seconds"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line(tool: Tool, words: list[str], line: str) -> None:
    assert tool.run(*words) == (2, "", f"error: {line}\n")


def test_an_epoch_is_for_recordings() -> None:
    running: Any = SimpleNamespace(options={"to": (), "epoch": "0"}, is_live=True)
    with ExitStack() as stack, pytest.raises(InputError) as refused:
        PART.open(stack, running)
    assert str(refused.value) == (
        "--epoch 0: a live camera's frames have the machine's time; leave it out"
    )


def test_help_names_the_outputs(tool: Tool) -> None:
    code, out, _ = tool.run("--help")
    assert code == 0
    assert "--to URL" in out
    assert "--epoch TIME" in out
