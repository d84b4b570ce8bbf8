"""URLs of outputs, and what is wrong with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from s4g.core.errors import InputError
from s4g.runtime import sink_jsonl
from s4g.runtime.sink import parse_sink_url
from s4g.runtime.sink_open import check_urls, open_sinks

RUNNING: Any = SimpleNamespace()


def test_a_url_says_what_is_written_how_and_with_which_settings() -> None:
    url = parse_sink_url("nmea+tcp://127.0.0.1:10110?rate=5&x=a%20b")
    assert (url.kind, url.via, url.rest) == ("nmea", "tcp", "127.0.0.1:10110")
    assert url.settings == {"rate": "5", "x": "a b"}
    assert url.host_port() == ("127.0.0.1", 10110)
    assert parse_sink_url("gpx:my%20track.gpx").rest == "my track.gpx"


def test_the_name_of_an_output_shows_no_settings() -> None:
    assert parse_sink_url("mavlink:/dev/ttyTHS1?key=secret").name == "mavlink:/dev/ttyTHS1"


@pytest.mark.parametrize(
    ("rest", "place"),
    [
        (":10110", ("127.0.0.1", 10110)),
        ("[::1]:7", ("::1", 7)),
        ("gcs.local:65535", ("gcs.local", 65535)),
    ],
)
def test_without_a_host_it_is_this_machine_alone(rest: str, place: tuple[str, int]) -> None:
    assert parse_sink_url(f"nmea+tcp://{rest}").host_port() == place


@pytest.mark.parametrize("rest", ["", "here", "a:b", "h:65536", "h:1/x", "::1:5"])
def test_a_place_without_host_and_port_is_refused(rest: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_sink_url(f"nmea+udp://{rest}").host_port()
    assert str(refused.value) == f"--to nmea+udp://{rest}: expected HOST:PORT after nmea+udp://"


@pytest.mark.parametrize(
    ("urls", "line"),
    [
        (
            ["nothing"],
            "--to nothing: no output; expected KIND:FILE or KIND+tcp://HOST:PORT, such as "
            "nmea+udp://127.0.0.1:10110",
        ),
        (
            ["ubx:/dev/ttyUSB0"],
            "--to ubx:/dev/ttyUSB0: no output 'ubx'; there are jsonl, nmea, mavlink, gpx, geojson, "
            "mcap, rosbag, cot",
        ),
        (["jsonl:a", "jsonl:a?rate=2"], "--to jsonl:a?rate=2: given twice; leave one out"),
        (["jsonl:a?rate=2&rate=3"],
         "--to jsonl:a?rate=2&rate=3: a setting is given twice; leave one out"),
        (["jsonl:a?rate=0"], "--to jsonl:a?rate=0: rate=0 is no number from 0.01 to 200"),
        (["jsonl:a?rate="], "--to jsonl:a?rate=: rate= is no number from 0.01 to 200"),
        (["jsonl:a?rate=nan"], "--to jsonl:a?rate=nan: rate=nan is no number from 0.01 to 200"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_opened(urls: list[str], line: str) -> None:
    with pytest.raises(InputError) as refused:
        check_urls(urls)
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("jsonl:a?colour=red", "no setting 'colour' here; there are keep, rate, rotate_mb"),
        ("jsonl+udp://:9?keep=2", "no setting 'keep' here; there are rate, ttl"),
        ("nmea:pty?baud=5", "no setting 'baud' here; there are link, rate"),
        ("jsonl:a?keep=x", "keep=x is no number from 0 to 10000"),
        ("jsonl+smoke://:9", "no way 'smoke'; there are tcp, tcpout, udp"),
        ("jsonl:pty", "a pseudo terminal is for nmea; give a file"),
        ("nmea:/dev/ttyUSB0?rate=5",
         "4800 baud carry at most 1.5 fixes a second; lower rate or raise baud on both sides"),
        ("jsonl:", "no file; give its name after jsonl:"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_in_one_line(url: str, line: str) -> None:
    with pytest.raises(InputError) as refused:
        open_sinks(check_urls([url]), RUNNING)
    assert str(refused.value) == f"--to {url}: {line}"


def test_where_one_cannot_be_opened_the_others_are_closed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(sink_jsonl.JsonLines, "close", lambda sink: closed.append(sink.name))
    with pytest.raises(InputError):
        open_sinks(check_urls([f"jsonl:{tmp_path}/a", f"jsonl:{tmp_path}/no/b"]), RUNNING)
    assert closed == [f"jsonl:{tmp_path}/a"]
