"""What Prometheus is told, read back by its own parser, over real connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g import __version__
from s4g.core.errors import InputError
from s4g.runtime.board import Board, Reading
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.metrics_server import MetricsServer, parse_listen
from s4g.runtime.observe import Observation
from s4g.runtime.sink_hub import SinkStatus

parser = pytest.importorskip("prometheus_client.parser", reason="needs the metrics extra")
from s4g.runtime.metrics import LATENCY_BOUNDS_S, Counts, Metrics, exposition  # noqa: E402

FRAME: Any = SimpleNamespace()
SOURCE = SimpleNamespace(dropped=3)
MATCHED = Fix(
    0, 1.0, State.TRACK, lat=46.9512345, lon=9.0012345, sigma_m=3.5, hpl_m=13.0, anchor_age_s=0.25,
    latency_ms=24.0,
)  # fmt: skip
LOST = Fix(1, 2.0, State.NO_FIX, reason=Reason.AMBIGUOUS, latency_ms=26.0)
NO_TELEMETRY = Fix(2, 3.0, State.NO_FIX, reason=Reason.NO_TELEMETRY)
SILENT = Fix(2, 4.0, State.NO_FIX, reason=Reason.NO_FRAMES, latency_ms=None)
STAGES = {"decode": 2.0, "embed": 20.0, "total": 24.0}


def samples(text: str) -> dict[tuple[str, str], float]:
    """Return values by name and labels, the way Prometheus reads them."""
    return {
        (one.name, ",".join(one.labels.values())): one.value
        for family in parser.text_string_to_metric_families(text)
        for one in family.samples
    }


def told(metrics: Metrics) -> dict[tuple[str, str], float]:
    kind, body = exposition(metrics)("")
    assert kind.startswith("text/plain; version=")
    return samples(body.decode())


def counted(*observations: Observation) -> Counts:
    counts = Counts()
    for seen in observations:
        counts.observe(seen)
    return counts


def test_frames_fixes_reasons_and_stages_are_counted() -> None:
    counts = counted(
        Observation(MATCHED, STAGES, FRAME),
        Observation(LOST, STAGES, FRAME),
        Observation(NO_TELEMETRY, {}, FRAME),
        Observation(SILENT, {}),
    )
    values = told(Metrics(counts, SOURCE))
    assert values["s4g_frames_total", ""] == 3
    assert values["s4g_outages_total", ""] == 1
    assert values["s4g_frames_dropped_total", ""] == 3
    fixes = {k[1]: v for k, v in values.items() if k[0] == "s4g_fixes_total"}
    assert fixes == dict.fromkeys([s.value for s in State], 0) | {"TRACK": 1, "NO_FIX": 2}
    reasons = {k[1]: v for k, v in values.items() if k[0] == "s4g_reasons_total"}
    assert reasons == {"ambiguous": 1, "no_telemetry": 1, "no_frames": 1}
    stages = {k[1]: v for k, v in values.items() if k[0] == "s4g_stage_seconds_total"}
    assert stages == {"decode": pytest.approx(0.004), "embed": pytest.approx(0.04)}


@given(st.lists(st.sampled_from([*LATENCY_BOUNDS_S, 0.0, 0.0231, 0.7, 3.0])))
def test_a_latency_counts_in_every_bucket_that_is_wide_enough(latencies_s: list[float]) -> None:
    counts = counted(
        *(Observation(Fix(0, 1.0, State.TRACK, latency_ms=s * 1e3), STAGES, FRAME)
          for s in latencies_s)
    )  # fmt: skip
    values = told(Metrics(counts, SOURCE))
    for bound in LATENCY_BOUNDS_S:
        expected = sum(s * 1e3 / 1e3 <= bound for s in latencies_s)
        assert values["s4g_latency_seconds_bucket", str(bound)] == expected
    assert values["s4g_latency_seconds_bucket", "+Inf"] == len(latencies_s)
    assert values["s4g_latency_seconds_count", ""] == len(latencies_s)
    assert values["s4g_latency_seconds_sum", ""] == pytest.approx(sum(latencies_s))


def test_the_latest_fix_is_told_without_its_position() -> None:
    counts = counted(Observation(MATCHED, STAGES, FRAME))
    _, body = exposition(Metrics(counts, SOURCE))("")
    assert b"46.95" not in body and b"9.001" not in body
    values = samples(body.decode())
    assert values["s4g_sigma_metres", ""] == 3.5
    assert values["s4g_hpl_metres", ""] == 13.0
    assert values["s4g_anchor_age_seconds", ""] == 0.25
    assert {k[1]: v for k, v in values.items() if k[0] == "s4g_state" and v} == {"TRACK": 1}


def test_what_is_not_known_is_left_out_and_not_zero() -> None:
    values = told(Metrics(counted(Observation(LOST, STAGES, FRAME)), SOURCE))
    unknown = {"s4g_sigma_metres", "s4g_hpl_metres", "s4g_anchor_age_seconds", "s4g_throttled"}
    assert unknown.isdisjoint(name for name, _ in values)
    assert values["s4g_state", "NO_FIX"] == 1


def test_before_the_first_frame_no_state_is_claimed() -> None:
    values = told(Metrics(Counts(), SOURCE))
    assert values["s4g_frames_total", ""] == 0
    assert "s4g_state" not in {name for name, _ in values}


@dataclass
class Carried:
    """A track that is lost after a second."""

    t: float

    def at(self, t: float) -> Fix:
        state = State.DEGRADED if t - self.t < 1 else State.NO_FIX
        return Fix(0, t, state, sigma_m=9.0 if state is State.DEGRADED else None, latency_ms=None)


def test_a_live_run_that_hangs_does_not_go_on_claiming_its_last_fix() -> None:
    gone: Any = Carried(t=-10.0)
    metrics = Metrics(
        counted(Observation(MATCHED, STAGES, FRAME, track=gone)), SOURCE, is_live=True
    )
    values = told(metrics)
    assert (values["s4g_state", "TRACK"], values["s4g_state", "NO_FIX"]) == (0, 1)
    assert ("s4g_sigma_metres", "") not in values


def test_outputs_are_told_apart() -> None:
    statuses = [
        SinkStatus("nmea+tcp://127.0.0.1:1", "open", 10, 1, 0, 2, None),
        SinkStatus("nmea+tcp://127.0.0.1:1", "lost", 4, 0, 6, 0, "gone"),
        SinkStatus('jsonl:/data/"odd"\\name', "closed", 7, 0, 0, 0, None),
    ]
    values = told(Metrics(Counts(), SOURCE, outputs=lambda: statuses))
    first, second = "nmea+tcp://127.0.0.1:1", "nmea+tcp://127.0.0.1:1 (2)"
    odd = 'jsonl:/data/"odd"\\name'
    assert [values["s4g_output_sent_total", name] for name in (first, second, odd)] == [10, 4, 7]
    assert values["s4g_output_dropped_total", first] == 1
    assert values["s4g_output_errors_total", second] == 6
    assert values["s4g_output_let_go_total", first] == 2
    assert [values["s4g_output_up", name] for name in (first, second, odd)] == [1, 0, 0]


def test_the_board_is_told_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = Reading(0.0, "Orin", {"tj-thermal": 99.5}, ("tj-thermal",), 52, 0.437, "25W")
    monkeypatch.setattr(Board, "latest", hot)
    values = told(Metrics(Counts(), SOURCE))
    assert values["s4g_temperature_celsius", "tj-thermal"] == 99.5
    assert values["s4g_throttled", ""] == 1
    assert values["s4g_gpu_load_ratio", ""] == 0.437
    assert values["s4g_over_current_events_total", ""] == 52
    assert values["s4g_power_mode_info", "25W"] == 1


def test_memory_and_resets_are_told() -> None:
    tracker: Any = SimpleNamespace(resets=2)
    values = told(Metrics(Counts(), SOURCE, tracker, about={"encoder": "0123"}))
    assert values["s4g_resets_total", ""] == 2
    assert values["process_resident_memory_bytes", ""] > 1e6
    assert [k for k in values if k[0] == "s4g_info"] == [("s4g_info", f"0123,{__version__}")]


def test_counting_goes_on_while_somebody_asks() -> None:
    """New reasons and stages appear in the middle of answers; every answer can be read."""
    counts, stop = Counts(), threading.Event()
    expose = exposition(Metrics(counts, SOURCE))

    def fly() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            counts.observe(Observation(LOST, {f"stage {number % 97}": 1.0}, FRAME))

    thread = threading.Thread(target=fly)
    thread.start()
    try:
        for _ in range(20):
            assert ("s4g_frames_total", "") in samples(expose("")[1].decode())
    finally:
        stop.set()
        thread.join()


# ---- the server ----------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    expose = exposition(Metrics(counted(Observation(MATCHED, STAGES, FRAME)), SOURCE))
    server = MetricsServer("127.0.0.1", 0, expose, "--metrics")
    yield server
    server.close()


def url(server: MetricsServer, path: str = "/metrics") -> str:
    return f"http://127.0.0.1:{server.address[1]}{path}"


def get(server: MetricsServer, path: str = "/metrics", accept: str = "*/*") -> tuple[str, str]:
    request = urllib.request.Request(url(server, path), headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_a_scrape_is_read_by_prometheus_own_parser(server: MetricsServer) -> None:
    kind, text = get(server)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert samples(text)["s4g_frames_total", ""] == 1


def test_openmetrics_is_spoken_to_who_asks_for_it(server: MetricsServer) -> None:
    openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")
    kind, text = get(server, accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in openmetrics.text_string_to_metric_families(text)}
    assert {"s4g_frames", "s4g_latency_seconds", "s4g_state"} <= names


@pytest.mark.parametrize("path", ["/", "/metrics/../etc/passwd", "/metricsx", "/%2e%2e/"])
def test_nothing_else_is_served(server: MetricsServer, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(server, path)
    assert refused.value.code == 404
    refused.value.close()


def test_what_would_change_something_is_refused(server: MetricsServer) -> None:
    request = urllib.request.Request(url(server), data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 501
    refused.value.close()


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.0\r\n\r\n", b"414"),
        (b"GET /metrics HTTP/1.0\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n", b"400"),
    ],
)
def test_a_huge_or_foreign_request_is_refused_and_the_next_served(
    server: MetricsServer, request_bytes: bytes, code: bytes
) -> None:
    with socket.create_connection(server.address, timeout=10) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(request_bytes)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = client.recv(4096)
    assert answer == b"" or code in answer
    assert samples(get(server)[1])["s4g_frames_total", ""] == 1


def test_clients_that_say_nothing_do_not_pile_up(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four may wait; the fifth is let go at once; when they have gone there is room again."""
    idle = [socket.create_connection(server.address, timeout=10) for _ in range(4)]
    fifth = socket.create_connection(server.address, timeout=10)
    with contextlib.suppress(ConnectionError):
        assert fifth.recv(1) == b""
    for client in [*idle, fifth]:
        client.close()
    for _ in range(1000):
        with contextlib.suppress(OSError):
            if get(server)[1]:
                return
        time.sleep(0.01)
    pytest.fail("there is no room again")


def test_the_end_frees_the_port(server: MetricsServer) -> None:
    host, port = server.address
    server.close()
    again = MetricsServer(host, port, lambda accept: ("text/plain", b""), "--metrics")
    again.close()


def test_a_port_in_use_is_one_line(server: MetricsServer) -> None:
    port = server.address[1]
    with pytest.raises(InputError) as refused:
        MetricsServer("127.0.0.1", port, lambda accept: ("text/plain", b""), "--metrics")
    assert str(refused.value) == (
        f"--metrics 127.0.0.1:{port}: cannot listen there (Address already in use); choose "
        "another port, or an address of this machine"
    )


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError) as refused:
        MetricsServer("192.0.2.1", 0, lambda accept: ("text/plain", b""), "--metrics")
    assert str(refused.value) == (
        "--metrics 192.0.2.1:0: cannot listen there (Cannot assign requested address); choose "
        "another port, or an address of this machine"
    )


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::1]:80", ("::1", 80)),
        ("drone.local:0", ("drone.local", 0)),
    ],
)
def test_a_host_is_loopback_unless_named(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text, "--metrics") == address


@pytest.mark.parametrize("text", ["", ":9464", "port", "65536", "-1", "1:2:3", "::1:80", "h:", "٣"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_listen(text, "--metrics")
    assert str(refused.value) == (f"--metrics {text}: expected PORT or HOST:PORT, such as 9464")
