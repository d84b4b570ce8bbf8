"""A pack whose file is replaced, cut short or written over while a run lasts: told once, no more.

What a search needs was read and verified at the start and lies in memory, so fixes go on as if
nothing had happened. Of the imagery only what is not read yet can be lost (`Pack.imagery`).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from ..core.console import say
from ..tilepacks.reader import Pack

_T = TypeVar("_T")


def watched(results: Generator[_T, None, None], pack: Pack) -> Generator[_T, None, None]:
    """Yield results; where the pack's file is not as it was opened any more, say so once."""
    told: str | None = None
    try:
        for result in results:
            fate = pack.fate()
            if fate is not None and fate != told:
                say(f"note: {pack.path} {fate}; {_consequence(fate)}")
            told = fate
            yield result
    finally:
        results.close()


def _consequence(fate: str) -> str:
    if "while it was open" in fate:
        return (
            "this run goes on with the tiles that it verified at its start, without imagery; "
            "a pack in use is replaced by rename (mv)"
        )
    return "this run goes on with the pack that it opened; start it again for another"
