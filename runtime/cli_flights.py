"""`s4g-run log`: what flights were recorded, and what one of them holds."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from ..core.console import debug_option, say
from ..core.errors import InputError, S4GError
from ..core.files import atomic_file, atomic_folder, check_output

if TYPE_CHECKING:
    from .log_read import LoggedStep, LogReader

_PATH = click.Path(path_type=Path)
_ROW = "{:<14} {:<20} {:>8} {:>7} {:>7} {:>6} {:>9}  {}"


@dataclass(frozen=True)
class _Figures:
    """What a log holds."""

    seconds: float
    frames: int
    fixes: int
    states: Counter[str]
    lost: int
    pictures: int


@click.command("log")
@click.argument("log", type=_PATH)
@click.option("--fixes", type=_PATH, help="Write the fixes of the flight, one JSON per line.")
@click.option("--frames", type=_PATH, metavar="DIR", help="Write its pictures to a new folder.")
@click.option("--said", is_flag=True, help="Print what was said in flight.")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
@debug_option
def log(log: Path, fixes: Path | None, frames: Path | None, said: bool, overwrite: bool) -> None:
    """List recorded flights; take fixes and pictures out of one.

    LOG is a folder that s4g-run --log-dir wrote, or that of one flight in it.

    \b
    Example:
      s4g-run log logs
      s4g-run log logs/flight-0007 --fixes fixes.jsonl --frames pictures/
    """
    for output in (fixes, frames):
        if output is not None:
            check_output(output, overwrite)
    from .log_folder import flights_of
    from .log_read import open_log

    try:
        flights = list(flights_of(log).values()) if log.is_dir() else []
    except OSError as error:
        raise InputError(f"{log}: cannot be read ({error.strerror})") from None
    if len(flights) > 1 and (fixes or frames or said):
        raise InputError(f"{log}: holds {len(flights)} flights; name one, such as {flights[-1]}")
    _print_head()
    for path in flights or [log]:
        try:
            reader = open_log(path)
        except InputError as error:
            if len(flights) <= 1:
                raise
            say(f"note: {error}")
            continue
        with ExitStack() as stack:
            taker = _Taker(stack, fixes, frames, overwrite)
            figures = _read(reader, taker)
        _print_row(reader, path, figures)
        for fault in reader.faults:
            say(f"note: {fault}; read up to there")
        if said:
            _print_said(reader)


class _Taker:
    """Writes fixes and pictures while a log is read."""

    def __init__(
        self, stack: ExitStack, fixes: Path | None, frames: Path | None, overwrite: bool
    ) -> None:
        self._file: IO[str] | None = None
        self._folder: Path | None = None
        if fixes is not None:
            temporary = stack.enter_context(atomic_file(fixes, overwrite))
            self._file = stack.enter_context(temporary.open("w", encoding="utf-8"))
        if frames is not None:
            self._folder = stack.enter_context(atomic_folder(frames, overwrite))

    def take(self, one: LoggedStep) -> None:
        """Write a step's fix and picture."""
        if self._file is not None:
            self._file.write(json.dumps(one.step.fix, separators=(",", ":")) + "\n")
        note = one.step.frame
        if self._folder is None or note is None or one.jpeg is None:
            return
        from ..core.images import encode_rgb
        from .log_pixels import check_jpeg, unpack_pixels

        # Named by number: a name out of a log is not to be trusted.
        origin, name = f"frame {note.index}", self._folder / f"{one.step.number:06d}"
        size = note.width_px, note.height_px
        if one.residual is None:
            check_jpeg(one.jpeg, *size, origin)
            name.with_suffix(".jpg").write_bytes(one.jpeg)
        else:
            rgb, _ = unpack_pixels(one.jpeg, one.residual, *size, origin)
            name.with_suffix(".png").write_bytes(encode_rgb(rgb, ".png"))


def _read(reader: LogReader, taker: _Taker) -> _Figures:
    frames = fixes = lost = pictures = 0
    states: Counter[str] = Counter()
    first_ns = last_ns = None
    expected = 0
    for one in reader.steps():
        taker.take(one)
        lost += one.step.number - expected
        expected = one.step.number + 1
        first_ns = one.log_time_ns if first_ns is None else first_ns
        last_ns = one.log_time_ns
        frames += one.step.frame is not None
        pictures += one.jpeg is not None
        fixes += one.step.fix.get("lat") is not None
        states[str(one.step.fix.get("state"))] += 1
    seconds = 0.0 if first_ns is None or last_ns is None else (last_ns - first_ns) / 1e9
    return _Figures(seconds, frames, fixes, states, lost, pictures)


def _print_head() -> None:
    click.echo(
        _ROW.format(
            "flight", "began (its clock)", "seconds", "frames", "fixes", "lost", "MB", "states"
        )
    )


def _print_row(reader: LogReader, path: Path, figures: _Figures) -> None:
    megabytes = sum(one.size for one in reader.segments) / 1e6
    states = ", ".join(f"{count} {state}" for state, count in figures.states.most_common())
    click.echo(
        _ROW.format(
            path.name,
            _when(reader.flight.started_utc_s),
            f"{figures.seconds:.1f}",
            figures.frames,
            figures.fixes,
            figures.lost,
            f"{megabytes:.1f}",
            states or "-",
        )
    )
    if figures.pictures < figures.frames:
        click.echo(f"  {figures.frames - figures.pictures} frames without a picture")


def _when(utc_s: float) -> str:
    try:
        return datetime.fromtimestamp(utc_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "-"


def _print_said(reader: LogReader) -> None:
    from .log_format import printable

    for time_ns, data in reader.notes:
        try:
            value = json.loads(data)
            text = f"{value['name']}: {value['message']}"
        except (ValueError, KeyError, TypeError, RecursionError):
            raise S4GError(f"{reader.path}: a line that was said is damaged") from None
        seconds = time_ns / 1e9 - reader.flight.started_utc_s
        click.echo(f"  {seconds:9.3f} s  {printable(' '.join(text.split()))}")
