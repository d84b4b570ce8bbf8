"""`s4g-run view`: a finished log on the map, with a time slider."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from ..core.console import debug_option
from .cli_view import check_installed, say_where

_PATH = click.Path(path_type=Path)


@click.command("view")
@click.argument("fixes", type=_PATH)
@click.option("--pack", "pack_path", required=True, type=_PATH, help="Pack it was flown with.")
@click.option(
    "--truth", type=_PATH, help="CSV of true positions, shown beside the fixes with their error."
)
@click.option(
    "--port",
    default="8765",
    show_default=True,
    metavar="[HOST:]PORT",
    help="Where to serve; on this machine alone unless HOST is given; port 0: any that is free.",
)
@click.option(
    "--view-token",
    type=_PATH,
    metavar="FILE",
    help="The token viewers show; without, other machines need a random one.",
)
@debug_option
def view(
    fixes: Path, pack_path: Path, truth: Path | None, port: str, view_token: Path | None
) -> None:
    """Show a fixes file on a map in the browser, with a time slider.

    Serves until it is interrupted (Ctrl-C).

    \b
    Example:
      s4g-run view fixes.jsonl --pack region.s4gpack --truth truth.csv
    """
    from .view_address import parse_address, read_token

    address = parse_address(port, "--port")
    check_installed(f"view {fixes}")
    token = None if view_token is None else read_token(view_token)
    from ..tilepacks.reader import open_pack
    from .score_truth import read_truth
    from .termination import ended_by_sigterm
    from .view_page import serve_log
    from .view_replay import read_log

    known = None if truth is None else read_truth(truth)
    log = read_log(fixes, known)
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        stack.enter_context(ended_by_sigterm())
        pack = stack.enter_context(open_pack(pack_path))
        url = serve_log(stack, address, token, pack, log)
        say_where(f"replay of {fixes}", url, view_token)
        threading.Event().wait()
