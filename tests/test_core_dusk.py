import numpy as np
import pytest

from s4g.core.dusk import brighten


@pytest.mark.parametrize("side_px", [64, 1000])
def test_a_dark_picture_is_brightened_to_daylight_in_place(side_px: int) -> None:
    picture = np.random.default_rng(2).integers(5, 55, (1, side_px, side_px, 3)).astype(np.uint8)
    before = picture.copy()
    brighten(picture)
    assert picture.mean() == pytest.approx(90, abs=2)
    gain = picture.astype(float) / before
    assert gain.std() < 0.04


def test_the_darkest_picture_is_made_six_times_as_bright_at_most() -> None:
    picture = np.full((1, 64, 64, 3), 4, np.uint8)
    picture[0, 0, 0] = 255
    brighten(picture)
    assert picture[0, 1, 1].tolist() == [24] * 3
    assert picture[0, 0, 0].tolist() == [255] * 3


def test_a_picture_in_daylight_is_left_as_it_is() -> None:
    pictures = np.full((2, 64, 64, 3), 61, np.uint8)
    pictures[1] = 30
    brighten(pictures)
    assert (pictures[0] == 61).all()
    assert (pictures[1] == 90).all()
