"""`s4g-run --log-dir`: a record of the flight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from .cli_part import Options, Part, Running

if TYPE_CHECKING:
    from .observe import Observer

_F = TypeVar("_F", bound=Callable[..., Any])


class _Log:
    def add_options(self, command: _F) -> _F:
        return command

    def is_asked_for(self, options: Options) -> bool:
        return False

    def check(self, options: Options) -> None:
        pass

    def open(self, stack: ExitStack, running: Running) -> Sequence[Observer]:
        return ()


PART: Part = _Log()
