"""Prints and writes the fixes of `s4g-run` as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from ..core.console import progress, say
from ..core.files import atomic_file

if TYPE_CHECKING:
    from .fix import Fix
    from .frames import FrameSource
    from .pipeline import Stages
    from .score import ScoredFix

_LATEST_STAGES = 10_000  # frames whose stage times are kept: a long flight must not fill memory


def stream_fixes(
    results: Generator[tuple[Fix, Stages], None, None],
    source: FrameSource,
    total: int,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    keep: bool,
    single: bool,
    is_live: bool,
) -> list[ScoredFix]:
    """Print and write fixes as they come; return them where `keep` asks for it."""
    from .score import parse_fix, stage_table

    fixes: list[ScoredFix] = []
    stages: deque[Stages] = deque(maxlen=_LATEST_STAGES)
    frames = issued = timeless = 0
    with ExitStack() as stack:
        file: IO[str] | None = None
        if out is not None:
            temporary = stack.enter_context(atomic_file(out, overwrite))
            # Line by line, so that after a power cut the temporary file still tells the flight.
            file = stack.enter_context(temporary.open("w", encoding="utf-8", buffering=1))
        advance = stack.enter_context(progress("localising", total, "frames"))
        stack.enter_context(closing(results))
        try:
            for fix, times in results:
                line = fix.to_json()
                if not quiet:
                    click.echo(line)
                if file is not None:
                    file.write(line + "\n")
                if keep:
                    fixes.append(parse_fix(line, "fix"))
                if times:
                    stages.append(times)
                if fix.latency_ms is None:
                    continue  # no frame led to it
                frames += 1
                issued += fix.lat is not None
                timeless += fix.t is None and bool(times)
                advance(1)
        except KeyboardInterrupt:
            if not is_live:
                raise
            say("interrupted")  # a live run ends this way: keep what it found
    drops = f", {source.dropped} frames dropped" if source.dropped else ""
    say(f"{issued} fixes from {frames} frames{drops}")
    if timeless and not single:
        say(
            f"note: {timeless} frames have no time: each was localised by itself; a 't' column in "
            "the telemetry gives them one"
        )
    if stages:
        say(stage_table(stages))
    return fixes
