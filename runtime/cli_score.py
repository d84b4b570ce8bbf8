"""`s4g-run score`: fixes and true positions in, figures out."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.console import debug_option, say
from ..core.errors import InputError
from ..core.files import check_output, write_bytes

if TYPE_CHECKING:
    from .score import Flight

_PATH = click.Path(path_type=Path)


@click.command("score")
@click.argument("fixes", type=_PATH)
@click.argument("truth", type=_PATH)
@click.option(
    "--alert-limit",
    "alert_limit_m",
    type=float,
    metavar="M",
    help="Metres beyond which a fix is false and the drone in danger; without: a tile's side.",
)
@click.option("--html", "page", type=_PATH, metavar="PAGE", help="Write a page with plots and map.")
@click.option("--pack", "pack_path", type=_PATH, help="Pack whose imagery the page's map shows.")
@click.option("--overwrite", is_flag=True, help="Replace a page that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the score as JSON.")
@debug_option
def score(
    fixes: Path,
    truth: Path,
    alert_limit_m: float | None,
    page: Path | None,
    pack_path: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare a fixes file with true positions.

    Prints accuracy, availability and integrity; docs/scoring.md defines every figure.

    \b
    Example:
      s4g-run score fixes.jsonl truth.csv --alert-limit 50 \\
              --pack region.s4gpack --html page.html
    """
    if alert_limit_m is not None and not 0 < alert_limit_m < math.inf:
        raise InputError(f"--alert-limit {alert_limit_m:g}: expected metres above 0, such as 50")
    if pack_path is not None and page is None:
        raise InputError(f"--pack {pack_path}: only the page shows it; add --html PAGE")
    if page is not None:
        check_output(page, overwrite)
    from .score import match_flight, read_fixes, read_truth, score_flight, score_table

    flight = match_flight(read_fixes(fixes), read_truth(truth), alert_limit_m)
    text = None if page is None else _page(flight, fixes, truth, pack_path)
    result = score_flight(flight)
    click.echo(json.dumps(result.to_dict()) if as_json else score_table(result))
    if page is not None and text is not None:
        write_bytes(page, text.encode(), overwrite)
        say(f"page: {page}")


def _page(flight: Flight, fixes: Path, truth: Path, pack_path: Path | None) -> str:
    from ..tilepacks.reader import open_pack
    from .score_page import render_page

    with ExitStack() as stack:
        pack = None if pack_path is None else stack.enter_context(open_pack(pack_path))
        return render_page(flight, fixes.name, truth.name, pack)
