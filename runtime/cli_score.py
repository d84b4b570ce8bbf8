"""`s4g-run score`: fixes and true positions in, figures out."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..core.console import debug_option

_PATH = click.Path(path_type=Path)


@click.command("score")
@click.argument("fixes", type=_PATH)
@click.argument("truth", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the score as JSON.")
@debug_option
def score(fixes: Path, truth: Path, as_json: bool) -> None:
    """Compare a fixes file with true positions.

    \b
    Example:
      s4g-run score fixes.jsonl truth.csv --json
    """
    from .score import read_fixes, read_truth, score_fixes, score_table

    result = score_fixes(read_fixes(fixes), read_truth(truth))
    click.echo(json.dumps(result.to_dict()) if as_json else score_table(result))
