"""JSON lines: what is printed and the time, to files, datagrams and clients."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from s4g.core.errors import InputError
from s4g.runtime.fix import Candidate, Fix, Reason, State
from s4g.runtime.sink import Moment
from s4g.runtime.sink_jsonl import JsonLines, format_line
from s4g.runtime.sink_open import check_urls, open_sinks

FIX = Fix(
    7, 12.5, State.TRACK, file="a.jpg", lat=46.8425012, lon=-91.9941313, sigma_m=2.31, hpl_m=8.59,
    source="visual", top=(Candidate(46.8, -91.9, 48.0, 0.8),),
)  # fmt: skip
NO_FIX = Fix(8, None, State.NO_FIX, reason=Reason.DARK)


def opened(url: str) -> JsonLines:
    sink: Any = open_sinks(check_urls([url]), None)[0][0]  # type: ignore[arg-type]
    return sink


def test_a_line_is_what_is_printed_and_the_time() -> None:
    line = format_line(Moment(FIX, 1777887000.1254))
    assert line == FIX.to_json()[:-1] + ',"utc":"2026-05-04T09:30:00.125Z"}'
    assert json.loads(line) == json.loads(FIX.to_json()) | {"utc": "2026-05-04T09:30:00.125Z"}


def test_a_time_that_nobody_knows_is_null_and_no_fix_has_no_position() -> None:
    value = json.loads(format_line(Moment(NO_FIX, None)))
    assert (value["utc"], value["lat"], value["lon"]) == (None, None, None)
    assert (value["state"], value["reason"]) == ("NO_FIX", "dark")


def test_a_file_gets_every_fix_and_is_cut_into_parts(tmp_path: Path) -> None:
    sink = opened(f"jsonl:{tmp_path}/fixes.jsonl?rotate_mb=0.001&keep=2")
    assert sink.wants_all
    for _ in range(20):
        sink.send(Moment(FIX, None))
        sink.idle()
    sink.close()
    parts = sorted(path.name for path in tmp_path.iterdir())
    assert parts == ["fixes.jsonl", "fixes.jsonl.1", "fixes.jsonl.2"]
    for name in parts:
        text = (tmp_path / name).read_text()
        assert 0 < len(text) <= 1000
        assert all(json.loads(line)["frame"] == 7 for line in text.splitlines())


def test_a_datagram_is_a_line() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20)
        with closing(opened(f"jsonl+udp://127.0.0.1:{receiver.getsockname()[1]}")) as sink:
            assert not sink.wants_all
            for moment in (Moment(FIX, 1.0), Moment(NO_FIX, None)):
                sink.send(moment)
                assert receiver.recv(65535).decode() == format_line(moment) + "\n"


def test_clients_get_lines_from_when_they_came(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(opened("jsonl+tcp://127.0.0.1:0")) as sink:
        port = int(capsys.readouterr().err.split()[-1])
        sink.send(Moment(FIX, 1.0))
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            sink.idle()
            sink.send(Moment(NO_FIX, None))
            with client.makefile() as lines:
                assert json.loads(lines.readline())["frame"] == 8
        assert sink.let_go == 0


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(opened("jsonl+tcp://127.0.0.1:0")):
        port = int(capsys.readouterr().err.split()[-1])
        with pytest.raises(InputError) as refused:
            opened(f"jsonl+tcp://127.0.0.1:{port}")
    assert str(refused.value) == (
        f"--to jsonl+tcp://127.0.0.1:{port}: cannot be opened (Address already in use); another "
        "program may listen there; give another port, or stop it"
    )
