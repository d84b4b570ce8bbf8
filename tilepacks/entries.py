"""Values of a manifest, fetched one by one and checked: files come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_METRES = 1e8  # farther than any two places on Earth


class Entries:
    """A JSON object whose entries are fetched with their type and range checked.

    Every method raises ValueError where an entry is missing, of another type or out of range; the
    message names it.
    """

    def __init__(self, values: Any, prefix: str) -> None:
        """Take a value and what to put before the names of its entries."""
        if not isinstance(values, Mapping):
            raise ValueError(f"its manifest entry {prefix.rstrip('.')} is no object")
        self._values, self._prefix = values, prefix

    @property
    def keys(self) -> list[str]:
        """Its entries' names, printable."""
        if not all(key.isprintable() for key in self._values):
            raise ValueError(
                f"its manifest entry {self._prefix.rstrip('.')} holds unprintable characters"
            )
        return list(self._values)

    def value(self, key: str, *types: type) -> Any:
        """Return an entry of one of some types; true and false are none of them."""
        value = self._values.get(key, _MISSING)
        if not isinstance(value, types) or isinstance(value, bool):
            raise ValueError(
                f"its manifest entry {self._prefix}{key} is missing or of a wrong type"
            )
        return value

    def text(self, key: str) -> str:
        """Return a string that can be shown: no half characters, nothing that moves a cursor."""
        value: str = self.value(key, str)
        if not "".join(value.split()).isprintable():
            raise ValueError(f"its manifest entry {self._prefix}{key} holds unprintable characters")
        return value

    def object(self, key: str) -> Entries:
        """Return an entry that is an object."""
        return Entries(self.value(key, dict), f"{self._prefix}{key}.")

    def number(self, key: str, least: float, most: float) -> float:
        """Return a number within bounds."""
        value = self.value(key, int, float)
        if not least <= value <= most:  # before `float`, which does not take any whole number
            told = str(value)[:20]
            raise ValueError(f"its manifest entry {self._prefix}{key} is {told}, out of range")
        return float(value)

    def integer(self, key: str, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value: int = self.value(key, int)
        if not least <= value <= most:
            raise ValueError(f"its manifest entry {self._prefix}{key} is out of range")
        return value


_MISSING = object()
