"""`s4g-run --view`: a live map in the browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.console import say
from ..core.errors import InputError
from .cli_part import Options, Part, Running

if TYPE_CHECKING:
    from .observe import Observer

_F = TypeVar("_F", bound=Callable[..., Any])


class _View:
    def add_options(self, command: _F) -> _F:
        at = click.option(
            "--view",
            metavar="[HOST:]PORT",
            help="Show a live map in the browser; on this machine alone unless HOST is given.",
        )
        token = click.option(
            "--view-token",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="With --view: the token viewers show; without, other machines need a random one.",
        )
        return at(token(command))

    def is_asked_for(self, options: Options) -> bool:
        return options["view"] is not None

    def check(self, options: Options) -> None:
        if options["view"] is None:
            if options["view_token"] is not None:
                path = options["view_token"]
                raise InputError(f"--view-token {path}: there is no map to guard; add --view PORT")
            return
        from .view_address import parse_address, read_token

        parse_address(options["view"], "--view")
        check_installed(f"--view {options['view']}")
        if options["view_token"] is not None:
            read_token(options["view_token"])

    def open(self, stack: ExitStack, running: Running) -> Sequence[Observer]:
        options = running.options
        if options["view"] is None:
            return ()
        from .view_address import parse_address, read_token
        from .view_live import LiveView, Pace
        from .view_page import serve_live

        path = options["view_token"]
        pace = Pace.NONE
        if running.is_live or running.is_paced:
            pace = Pace.LIVE if running.is_live else Pace.REAL_TIME
        view = LiveView(running.pack, pace, _counters(running))
        address = parse_address(options["view"], "--view")
        token = None if path is None else read_token(path)
        url = serve_live(stack, address, token, running.pack, view)
        say_where("live map", url, path)
        return (view,)


def check_installed(told: str) -> None:
    """Refuse to serve a map without the library for it.

    Raises:
        InputError: it is not installed; `told` names option and value.
    """
    if find_spec("aiohttp") is None:
        raise InputError(f"{told}: the map needs aiohttp; pip install 's4g[view]'")


def say_where(what: str, url: str, token_file: Path | None) -> None:
    """Tell the URL; a token that came from a file is not shown."""
    if token_file is not None:
        url = f"{url.split('?')[0]}?token=… (of {token_file})"
    say(f"{what}: {url}")


def _counters(running: Running) -> Callable[[], Mapping[str, Any]]:
    def count() -> Mapping[str, Any]:
        from .board import Board
        from .sink_hub import Outputs
        from .view_live import board_values, outputs_values

        tracker = running.tracker
        hubs = [one for one in running.observers if isinstance(one, Outputs)]
        return {
            "dropped": running.source.dropped,
            "resets": 0 if tracker is None else tracker.resets,
            "outputs": outputs_values([status for hub in hubs for status in hub.status()]),
            "machine": board_values(Board.latest),
        }

    return count


PART: Part = _View()
