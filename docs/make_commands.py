"""Write commands.md: the `--help` of every command (`make docs`; a test keeps it current)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "commands.md"
_WIDTH = 100
_MAIN_JOB = "main-job"
_HEAD = """# Commands

What `--help` says, for reading and searching. This page is made by `make docs`: change the help
texts in the code, not here.
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield the name, as typed, and the click command of every command and subcommand."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for script, target in tomllib.loads(text)["project"]["scripts"].items():
        root = importlib.import_module(target.split(":")[0]).cli
        if not isinstance(root, click.Group):
            yield script, root
            continue
        yield script, root.commands[_MAIN_JOB]
        yield from _subcommands(script, root)


def _subcommands(script: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _subcommands(f"{script} {name}", command)
        elif name != _MAIN_JOB:
            yield f"{script} {name}", command


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for name, command in commands():
        context = click.Context(
            command, info_name=name, terminal_width=_WIDTH, max_content_width=_WIDTH
        )
        lines = [line.rstrip() for line in command.get_help(context).splitlines()]
        parts.append("\n".join([f"## `{name}`", "", "```text", *lines, "```", ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
