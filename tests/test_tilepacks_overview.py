from __future__ import annotations

import numpy as np
import pytest

from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.tilepacks.overview import decode_overview, make_overview, overview_record

FRAME = LocalFrame(47.0, 8.0)


def test_picture_keeps_the_source_scale_where_it_fits() -> None:
    record = overview_record((-100.0, -50.0, 100.0, 50.0), 0.5)
    assert (record.gsd_m, record.width_px, record.height_px) == (0.5, 400, 200)
    assert (record.west_m, record.north_m) == (-100.0, 50.0)


def test_picture_has_at_most_2048_pixels_a_side() -> None:
    record = overview_record((0.0, 0.0, 30_000.0, 10_000.0), 0.5)
    assert (record.width_px, record.height_px) == (2048, 683)


def test_picture_shows_the_ground_where_it_says() -> None:
    rgb = np.full((100, 200, 3), 60, np.uint8)
    rgb[20:40, 150:180] = (220, 30, 30)
    ground = ArrayGround(rgb, np.ones((100, 200), bool), FRAME, -100.0, 50.0, 1.0)
    record = overview_record((-100.0, -50.0, 100.0, 50.0), 1.0)
    image = decode_overview(make_overview(ground, FRAME, record), record)
    assert image.shape == (100, 200, 3)
    column = int((65.0 - record.west_m) / record.gsd_m)
    row = int((record.north_m - 20.0) / record.gsd_m)
    assert image[row, column, 0] > 180 and image[row, column, 1] < 80
    assert abs(int(image[80, 20, 0]) - 60) < 10


def test_bytes_that_are_no_picture_are_refused() -> None:
    record = overview_record((0.0, 0.0, 10.0, 10.0), 1.0)
    for data in (b"", b"RIFF nonsense"):
        with pytest.raises(ValueError, match="^its overview is no picture of the size that"):
            decode_overview(data, record)


def test_picture_of_another_size_is_refused() -> None:
    ground = ArrayGround(
        np.zeros((10, 10, 3), np.uint8), np.ones((10, 10), bool), FRAME, 0.0, 10.0, 1.0
    )
    small = overview_record((0.0, 0.0, 10.0, 10.0), 1.0)
    large = overview_record((0.0, 0.0, 20.0, 10.0), 1.0)
    with pytest.raises(ValueError, match="^its overview is no picture of the size that"):
        decode_overview(make_overview(ground, FRAME, small), large)
