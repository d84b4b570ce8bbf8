"""Numbers as people read them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return `1 pack`, `2 packs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size_of(count: int) -> str:
    """Return bytes with the unit that suits them, `15.76 kB`."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.4g} {unit}"
        value /= 1000
    return f"{value:.4g} GB"
