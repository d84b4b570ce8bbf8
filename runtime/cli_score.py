"""`s4g-run score`: fixes and true positions in, figures out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from ..core.console import debug_option
from ..core.errors import InputError

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
@click.option("--json", "as_json", is_flag=True, help="Print the score as JSON.")
@debug_option
def score(fixes: Path, truth: Path, alert_limit_m: float | None, as_json: bool) -> None:
    """Compare a fixes file with true positions.

    \b
    Example:
      s4g-run score fixes.jsonl truth.csv --json
    """
    if alert_limit_m is not None and not 0 < alert_limit_m < math.inf:
        raise InputError(f"--alert-limit {alert_limit_m:g}: expected metres above 0, such as 50")
    from .score import read_fixes, read_truth, score_fixes, score_table

    result = score_fixes(read_fixes(fixes), read_truth(truth), alert_limit_m)
    click.echo(json.dumps(result.to_dict()) if as_json else score_table(result))
