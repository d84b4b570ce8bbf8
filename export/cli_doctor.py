"""`s4g-export doctor`: what this machine can run, and the remedy for what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..core.console import debug_option


@click.command()
@click.argument("encoder", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@debug_option
def doctor(encoder: Path | None, as_json: bool) -> None:
    """Show what this machine can run, by running ENCODER (default: the embedded one).

    Example: s4g-export doctor bundle
    """
    from .diagnosis import check_usable
    from .doctor import diagnose

    found = diagnose(encoder)
    click.echo(json.dumps(found.as_json()) if as_json else found.as_table())
    check_usable(found)
