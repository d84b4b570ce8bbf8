"""Several vectors for one place: other dates of the imagery, other headings of the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import InputError

MAX_VARIANTS = 64


@dataclass(frozen=True)
class Variant:
    """One way in which every tile is embedded.

    Attributes:
        layer: number of the imagery, from 0.
        heading_deg: direction the tile's top points to, degrees clockwise from north.
    """

    layer: int
    heading_deg: float


def make_variants(layers: int, headings: int) -> tuple[Variant, ...]:
    """Return every layer at every heading, north first.

    Args:
        layers: how many there are.
        headings: evenly spaced headings; 1 for north-up tiles alone.

    Raises:
        InputError: they are too many.
    """
    if layers * headings > MAX_VARIANTS:
        raise InputError(
            f"--headings {headings}: with {layers} layers of imagery {layers * headings} vectors "
            f"a place, at most {MAX_VARIANTS}; use fewer"
        )
    return tuple(
        Variant(layer, 360.0 * number / headings)
        for layer in range(layers)
        for number in range(headings)
    )


def margin_px(input_px: int, variants: Sequence[Variant]) -> int:
    """Return how far a turned tile may reach beyond its upright square, pixels."""
    if all(variant.heading_deg % 90 == 0 for variant in variants):
        return 0 if all(variant.heading_deg == 0 for variant in variants) else 1
    return math.ceil(input_px * (math.sqrt(2) - 1) / 2) + 1
