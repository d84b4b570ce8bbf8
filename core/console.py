"""What all commands share: the main job, one-line errors, progress on stderr."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from .errors import InputError, S4GError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_F = TypeVar("_F", bound=Callable[..., Any])


def debug_option(function: _F) -> _F:
    """Add `--debug` to a command; `run_command` acts on it."""
    option = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        help="Show the traceback of an error instead of one line.",
    )
    return option(function)


class CommandGroup(click.Group):
    """A command with a main job and subcommands.

    A first argument that names a subcommand runs it (`s4g-pack info region.s4gpack`); anything
    else goes to the main job (`s4g-pack --bbox …`). `--help` shows the main job's help and the
    list of subcommands.
    """

    _MAIN = "main-job"

    def main_job(self, command: click.Command) -> click.Command:
        """Register `command` as the main job (use as a decorator)."""
        self.add_command(command, self._MAIN)
        command.hidden = True
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Send everything that does not start with a subcommand's name to the main job."""
        if args[:1] not in ([name] for name in self.list_commands(ctx)):
            args = [self._MAIN, *(args or ["--help"])]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the subcommands' names; the main job has none."""
        return [name for name in super().list_commands(ctx) if name != self._MAIN]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Present the main job under the group's own name in usage lines and errors."""
        name, command, rest = super().resolve_command(ctx, args)
        if name == self._MAIN and command is not None:
            command.epilog = self._subcommand_list(ctx)
        return name, command, rest

    def _subcommand_list(self, ctx: click.Context) -> str:
        names = self.list_commands(ctx)
        if not names:
            return ""
        width = max(map(len, names))
        rows = [
            f"  {name:<{width}}  {self.commands[name].get_short_help_str(80)}" for name in names
        ]
        return "\b\nSubcommands:\n" + "\n".join(rows)


class MainCommand(click.Command):
    """The command class of a main job: it speaks under its group's name."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Drop the registered name, so that usage reads `s4g-pack [OPTIONS]`."""
        name = parent.info_name if parent is not None else info_name
        extra.setdefault("max_content_width", 100)
        return super().make_context(name, args, parent=None, **extra)


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit: 0 done, 1 failed, 2 wrong usage or input.

    Errors are one line on stderr; with `--debug` among the arguments the traceback comes first.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = command.main(args=arguments, standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", EXIT_INTERRUPTED)
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see {error.ctx.command_path} --help)"
        _fail(error.format_message() + hint, EXIT_USAGE)
    except S4GError as error:
        _show_traceback(arguments)
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`s4g-run … | head`): not an error of ours.
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        _show_traceback(arguments)
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", EXIT_FAILED)
    except Exception as error:
        _show_traceback(arguments)
        _fail(
            f"unexpected {type(error).__name__}: {error}; run again with --debug and report it",
            EXIT_FAILED,
        )
    sys.exit(result if isinstance(result, int) else 0)


def _show_traceback(arguments: Sequence[str]) -> None:
    if "--debug" in arguments:
        traceback.print_exc()


def _fail(message: str, code: int) -> NoReturn:
    one_line = " ".join(message.split())
    print(f"error: {one_line}", file=sys.stderr)
    sys.exit(code)


def say(message: str) -> None:
    """Print a status line for the user on stderr; stdout is for results."""
    print(message, file=sys.stderr, flush=True)


Advance = Callable[[int], None]


@contextmanager
def progress(description: str, total: int, unit: str = "") -> Iterator[Advance]:
    """Show a progress bar with ETA on stderr; yield a function that advances it.

    Nothing is drawn where stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(description, total=total)

        def advance(steps: int) -> None:
            bar.advance(task, steps)

        yield advance


def parse_numbers(text: str, count: int, option: str, meaning: str) -> tuple[float, ...]:
    """Parse `count` comma-separated finite numbers of an option's value.

    Raises:
        InputError: the count or a number is wrong; the message names option, value and meaning.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or any(v != v or abs(v) == float("inf") for v in values):
        raise InputError(f"{option} {text}: expected {meaning}")
    return values
