"""What all commands share: the main job, one-line errors, progress on stderr."""

from __future__ import annotations

import os
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
_HELP_COLUMNS = 100

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take click's arguments; help is up to 100 columns wide."""
        super().__init__(*args, **kwargs)
        self.context_settings.setdefault("max_content_width", _HELP_COLUMNS)

    def main_job(self, command: click.Command) -> click.Command:
        """Register `command`, a `MainCommand`, as the main job (use as a decorator)."""
        self.add_command(command, self._MAIN)
        if isinstance(command, MainCommand):
            command.group = self
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Send everything that does not start with a subcommand's name to the main job.

        Raises:
            click.UsageError: a first word names no subcommand and the main job takes no words.
        """
        names = self.list_commands(ctx)
        if args[:1] not in ([name] for name in names):
            if args and not args[0].startswith("-") and not self._main_takes_words():
                raise click.UsageError(
                    f"no subcommand {args[0]!r}; expected an option or one of: {', '.join(names)}",
                    ctx,
                )
            args = [self._MAIN, *(args or ["--help"])]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the subcommands' names; the main job has none."""
        return [name for name in super().list_commands(ctx) if name != self._MAIN]

    def _main_takes_words(self) -> bool:
        return any(isinstance(p, click.Argument) for p in self.commands[self._MAIN].params)


class MainCommand(click.Command):
    """The command class of a main job: it speaks under its group's name."""

    group: CommandGroup | None = None

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Drop the registered name, so that usage reads `s4g-pack [OPTIONS]`."""
        name = parent.info_name if parent is not None else info_name
        extra.setdefault("max_content_width", _HELP_COLUMNS)
        return super().make_context(name, args, parent=None, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands, then the epilog."""
        if self.group is not None:
            names = self.group.list_commands(ctx)
            rows = [(name, self.group.commands[name].get_short_help_str(80)) for name in names]
            if rows:
                with formatter.section("Subcommands"):
                    formatter.write_dl(rows)
        super().format_epilog(ctx, formatter)


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit: 0 done, 1 failed, 2 wrong usage or input.

    Errors are one line on stderr; with `--debug` among the arguments the traceback comes first.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = command.main(args=arguments, standalone_mode=False)
        sys.stdout.flush()  # here, where a full disk is still one line
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", EXIT_INTERRUPTED)
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see {error.ctx.command_path} --help)"
        _fail(error.format_message().removesuffix(".") + hint, EXIT_USAGE)
    except S4GError as error:
        _show_traceback(arguments)
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`s4g-run … | head`): not an error of ours.
        _drop_stdout()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        _drop_stdout()
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


def _drop_stdout() -> None:
    """Point a stdout that cannot be written to nowhere, or Python complains once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_traceback(arguments: Sequence[str]) -> None:
    if "--debug" in arguments:
        traceback.print_exc()


def _fail(message: str, code: int) -> NoReturn:
    one_line = " ".join(message.split())
    print(f"error: {one_line}", file=sys.stderr)
    sys.exit(code)


_listeners: list[Callable[[str], None]] = []


def say(message: str) -> None:
    """Print a status line for the user on stderr; stdout is for results."""
    print(message, file=sys.stderr, flush=True)
    for listener in tuple(_listeners):
        listener(message)


@contextmanager
def overheard(listener: Callable[[str], None]) -> Iterator[None]:
    """Have every line that is said meanwhile, by whatever thread, told to `listener` too."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


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


_MOST_METRES = 1e6


def parse_metres(text: str, option: str) -> float:
    """Return a length with its unit, `800m` or `2km`, in metres.

    Raises:
        InputError: it is none, not positive, or above 1,000 km.
    """
    for suffix, factor in (("km", 1000.0), ("m", 1.0)):
        if text.endswith(suffix):
            try:
                length = factor * float(text[: -len(suffix)])
            except ValueError:
                break
            if 0 < length <= _MOST_METRES:
                return length
            break
    raise InputError(f"{option} {text}: expected a length with its unit, for example 800m or 2km")


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
