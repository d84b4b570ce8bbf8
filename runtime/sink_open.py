"""Opens the outputs that `--to` names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module

from ..core.errors import InputError
from .cli_part import Running
from .sink import Sink, SinkUrl, parse_sink_url

# What is written; `runtime/sink_KIND.py` holds `open_sink(url, running)`.
KINDS = ("jsonl", "nmea", "mavlink", "gpx", "geojson", "mcap", "rosbag", "cot")
_RATES_HZ = (0.01, 200.0)


def check_urls(texts: Sequence[str]) -> list[SinkUrl]:
    """Return the URLs taken apart.

    Raises:
        InputError: one is none, of no kind there is, with no rate, or given twice.
    """
    urls = [parse_sink_url(text) for text in texts]
    for index, url in enumerate(urls):
        if url.kind not in KINDS:
            raise InputError(
                f"--to {url.url}: no output {url.kind!r}; there are {', '.join(KINDS)}"
            )
        if any((u.kind, u.via, u.rest) == (url.kind, url.via, url.rest) for u in urls[:index]):
            raise InputError(f"--to {url.url}: given twice; leave one out")
        rate_hz(url)
    return urls


def rate_hz(url: SinkUrl) -> float | None:
    """Return the rate that a URL asks for, None where it does not.

    Raises:
        InputError: it is none.
    """
    low, high = _RATES_HZ
    return url.number("rate", low, low, high) if "rate" in url.settings else None


def open_sink(url: SinkUrl, running: Running) -> Sink:
    """Open an output of a kind there is.

    Raises:
        InputError: it cannot be opened, or a setting is wrong.
    """
    sink: Sink = import_module(f".sink_{url.kind}", __package__).open_sink(url, running)
    return sink


def open_sinks(urls: Sequence[SinkUrl], running: Running) -> list[tuple[Sink, float | None]]:
    """Open outputs, each with the rate that its URL asks for.

    Raises:
        InputError: one cannot be opened; the others are closed again.
    """
    with ExitStack() as opened:
        sinks = []
        for url in urls:
            sink = open_sink(url, running)
            opened.callback(sink.close)
            sinks.append((sink, rate_hz(url)))
        opened.pop_all()
    return sinks
