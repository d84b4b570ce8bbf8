"""`s4g-run --to URL`: fixes for autopilots, ground stations and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.errors import InputError
from .cli_part import Options, Part, Running

if TYPE_CHECKING:
    from .observe import Observer

_F = TypeVar("_F", bound=Callable[..., Any])


class _Outputs:
    def add_options(self, command: _F) -> _F:
        command = click.option(
            "--epoch",
            metavar="TIME",
            help="UTC at which the clock of a recorded flight shows 0, for outputs that tell the "
            "time: 2026-05-04T09:30:00Z, or Unix seconds.",
        )(command)
        return click.option(
            "--to",
            "to",
            multiple=True,
            metavar="URL",
            help="Hand the fixes to an autopilot, a ground station or a file (docs/outputs.md): "
            "nmea:/dev/ttyUSB0, mavlink+udp://127.0.0.1:14550, gpx:track.gpx …; may be given "
            "several times.",
        )(command)

    def is_asked_for(self, options: Options) -> bool:
        return bool(options["to"])

    def check(self, options: Options) -> None:
        from .sink_open import check_urls
        from .utc import parse_epoch

        check_urls(options["to"])
        if options["epoch"] is not None:
            parse_epoch(options["epoch"])

    def open(self, stack: ExitStack, running: Running) -> Sequence[Observer]:
        from .sink_hub import Outputs
        from .sink_open import check_urls, open_sinks
        from .utc import Utc, parse_epoch

        epoch: str | None = running.options["epoch"]
        if epoch is not None and running.is_live:
            raise InputError(
                f"--epoch {epoch}: a live camera's frames have the machine's time; leave it out"
            )
        if not running.options["to"]:
            return ()
        sinks = open_sinks(check_urls(running.options["to"]), running)
        utc = Utc(running.is_live, None if epoch is None else parse_epoch(epoch))
        outputs = Outputs(sinks, utc, running.is_live, running.is_paced, running.tracker)
        stack.callback(outputs.close)
        return (outputs,)


PART: Part = _Outputs()
