"""`s4g-run` as a service: configuration file, watchdog, metrics, the board's health."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.console import say
from ..core.errors import InputError
from .cli_part import Options, Part, Running

if TYPE_CHECKING:
    from .observe import Observer

_F = TypeVar("_F", bound=Callable[..., Any])


class _Service:
    def add_options(self, command: _F) -> _F:
        for option in (
            click.option(
                "--print-unit",
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_print_unit,
                help="Print a systemd unit that flies with /etc/s4g/flight.toml, and exit.",
            ),
            click.option(
                "--metrics",
                metavar="[HOST:]PORT",
                help="Serve counters and the latest fix to Prometheus, without positions; to this "
                "machine alone unless HOST is named.",
            ),
            click.option(
                "--config",
                type=click.Path(path_type=Path),
                metavar="FILE",
                is_eager=True,
                expose_value=False,
                callback=_take_config,
                help="Take options from a TOML file, under their long names: max-age = 0.5; what "
                "is given here as well wins (docs/service.md).",
            ),
        ):
            command = option(command)
        return command

    def is_asked_for(self, options: Options) -> bool:
        return options["metrics"] is not None

    def check(self, options: Options) -> None:
        text: str | None = options["metrics"]
        if text is None:
            return
        from .metrics_server import parse_listen

        parse_listen(text, "--metrics")
        try:
            import prometheus_client  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"--metrics {text}: needs prometheus-client; pip install 's4g[metrics]'"
            ) from error

    def open(self, stack: ExitStack, running: Running) -> Sequence[Observer]:
        from .notify import Watchdog, open_notifier
        from .termination import ended_by_sigterm

        stack.enter_context(ended_by_sigterm())
        text: str | None = running.options["metrics"]
        notifier = open_notifier()
        observers: list[Observer] = []
        if notifier is not None:
            watchdog = Watchdog(notifier)
            stack.callback(watchdog.close)
            observers.append(watchdog)
        if text is not None or notifier is not None or running.is_live:
            from .board import Board

            stack.callback(Board().close)
        if text is not None:
            observers.append(_serve(stack, running, text))
        return observers


def _take_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make a file's values the defaults of all options that come after this eager one."""
    if path is None or context.resilient_parsing:
        return
    from .config import read_config

    context.default_map = read_config(path, context.command)


def _print_unit(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    from .systemd_unit import is_in_home, unit

    program = str(Path(shutil.which(sys.argv[0]) or sys.argv[0]).absolute())
    click.echo(unit(program), nl=False)
    if is_in_home(program):
        say(
            f"note: {program} lies in a home folder, where the service's account may not look; "
            "install s4g in /opt/s4g"
        )
    context.exit()


def _serve(stack: ExitStack, running: Running, text: str) -> Observer:
    from .metrics import Counts, exposition, metrics_of
    from .metrics_server import MetricsServer, parse_listen

    counts = Counts()
    host, port = parse_listen(text, "--metrics")
    server = MetricsServer(host, port, exposition(metrics_of(running, counts)), "--metrics")
    stack.callback(server.close)
    host, port = server.address
    say(f"metrics: http://{f'[{host}]' if ':' in host else host}:{port}/metrics")
    return counts


PART: Part = _Service()
