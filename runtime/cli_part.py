"""What `s4g-run` can do besides printing fixes: parts that add options to it and look on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from ..core.engine import Engine
    from ..tilepacks.reader import Pack
    from .frames import FrameSource
    from .intrinsics import Lens
    from .observe import Observer
    from .telemetry import Telemetry
    from .tracker import Tracker

_F = TypeVar("_F", bound=Callable[..., Any])
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Running:
    """A run that is about to begin.

    Attributes:
        options: of all parts, by name (`--to` is `to`).
        pack: opened and verified.
        engine: the encoder.
        source: of the frames.
        telemetry: attitude and height for each of them.
        lens: what the user said of the optics.
        tracker: knows where the drone is between frames; None with `--single`.
        is_live: whether frames come from a camera, on the machine's monotonic clock.
        is_paced: whether those of files come at the pace of their own clock.
        observers: of all parts, complete once the last has been opened.
    """

    options: Options
    pack: Pack
    engine: Engine
    source: FrameSource
    telemetry: Telemetry
    lens: Lens
    tracker: Tracker | None
    is_live: bool
    is_paced: bool
    observers: list[Observer] = field(default_factory=list)


class Part(Protocol):
    """A part of `s4g-run`. Modules that hold one import nothing heavy before `open`."""

    def add_options(self, command: _F) -> _F:
        """Add options to the command (a click decorator)."""
        ...

    def is_asked_for(self, options: Options) -> bool:
        """Tell whether its options ask for anything."""
        ...

    def check(self, options: Options) -> None:
        """Refuse what cannot work, before anything is opened.

        Raises:
            InputError: an option is wrong; the message names it, its value and the remedy.
        """
        ...

    def open(self, stack: ExitStack, running: Running) -> Sequence[Observer]:
        """Begin to look on; what has to be released in the end goes on the stack.

        Raises:
            InputError: something cannot be opened, while it may still be put right.
        """
        ...


def add_all(parts: Sequence[Part]) -> Callable[[_F], _F]:
    """Return the decorator that adds the options of all parts."""

    def decorate(command: _F) -> _F:
        for part in reversed(parts):
            command = part.add_options(command)
        return command

    return decorate
