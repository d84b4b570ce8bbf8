from __future__ import annotations

import pytest

from s4g.core.errors import InputError
from s4g.tilepacks.variants import Variant, make_variants, margin_px


def test_one_layer_north_up_is_one_variant() -> None:
    assert make_variants(1, 1) == (Variant(0, 0.0),)


def test_every_layer_is_seen_at_every_heading() -> None:
    assert make_variants(2, 4) == tuple(
        Variant(layer, heading) for layer in (0, 1) for heading in (0.0, 90.0, 180.0, 270.0)
    )


def test_too_many_are_refused() -> None:
    assert len(make_variants(2, 32)) == 64
    with pytest.raises(InputError) as error:
        make_variants(2, 33)
    assert str(error.value) == (
        "--headings 33: with 2 layers of imagery 66 vectors a place, at most 64; use fewer"
    )


@pytest.mark.parametrize(("headings", "margin"), [(1, 0), (2, 1), (4, 1), (8, 15), (12, 15)])
def test_a_turned_tile_reaches_as_far_as_its_corners(headings: int, margin: int) -> None:
    # 64 * (sqrt(2) - 1) / 2 = 13.3 pixels at 45 degrees.
    assert margin_px(64, make_variants(1, headings)) == margin
