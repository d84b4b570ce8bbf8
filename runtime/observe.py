"""What of each frame is handed to those who look on: outputs, the live map, logs, the watchdog.

Whoever looks on is called by the thread that matches frames, and must return at once: it keeps a
reference, or puts one where a thread of its own finds it. Fixes never wait for a viewer or a disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .fix import Fix
from .frames import Frame

if TYPE_CHECKING:
    from .localise import Finding, Stages
    from .telemetry import Sample
    from .track import Track


@dataclass(frozen=True)
class Observation:
    """A frame and what came of it, or a time without one.

    Attributes:
        fix: what is said of it.
        stages: milliseconds of each stage; empty where nothing was matched.
        frame: None where the camera delivers none. Its pixels, and those in `finding.view`, are
            written over soon after: who needs them later copies them before returning.
        sample: its telemetry, None where there is none.
        finding: what the pack says of it, None where it was not looked at.
        track: what is known after it and until the next; None with `--single`.
    """

    fix: Fix
    stages: Stages
    frame: Frame | None = None
    sample: Sample | None = None
    finding: Finding | None = None
    track: Track | None = None


class Observer(Protocol):
    """Looks on."""

    def observe(self, seen: Observation) -> None:
        """Take note of a frame; returns at once, and raises nothing."""
        ...


def tell(observers: Iterable[Observer], seen: Observation) -> None:
    """Hand an observation to everyone who looks on."""
    for observer in observers:
        observer.observe(seen)
