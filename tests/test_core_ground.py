"""Ground sources in memory, and what `--source` may say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround, GroundWindow
from s4g.core.sources import open_ground

FRAME = LocalFrame(47.0, 8.0)


def ramp(east: npt.NDArray[np.float64], north: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Ground whose colours say where it is: red grows by 1 per 2 m east, green per 2 m north."""
    blue = np.full_like(east, 50)
    return np.stack([100 + east / 2, 100 + north / 2, blue], axis=-1).round().astype(np.uint8)


def ramp_ground(size_px: int = 400, gsd_m: float = 0.5) -> ArrayGround:
    """A square of ground, 200 m on a side, around the frame's origin."""
    half = size_px * gsd_m / 2
    offset = (np.arange(size_px) + 0.5) * gsd_m - half
    east, north = np.meshgrid(offset, -offset)
    valid = np.ones((size_px, size_px), np.bool_)
    return ArrayGround(ramp(east, north), valid, FRAME, -half, half, gsd_m)


def centres(window: GroundWindow) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    east = window.west_m + (np.arange(window.width_px) + 0.5) * window.gsd_m
    north = window.north_m - (np.arange(window.height_px) + 0.5) * window.gsd_m
    east, north = np.meshgrid(east, north)
    return east, north


@given(
    st.floats(-60, 30),
    st.floats(-30, 60),
    st.floats(0.2, 4),
    st.integers(2, 12),
    st.integers(2, 12),
)
def test_a_window_shows_the_ground_where_it_lies(
    west: float, north: float, gsd_m: float, width: int, height: int
) -> None:
    window = GroundWindow(west, north, min(gsd_m, 30 / max(width, height)), width, height)
    image = ramp_ground().read(FRAME, window)
    assert image.valid.all()
    difference = np.abs(image.rgb.astype(int) - ramp(*centres(window)))
    assert difference.max() <= 1


def test_a_window_in_another_frame_shows_the_same_ground() -> None:
    other = LocalFrame(*(float(v) for v in FRAME.to_wgs84(30.0, -20.0)))
    window = GroundWindow(-15, 15, 0.5, 60, 60)
    image = ramp_ground().read(other, window)
    east, north = centres(window)
    assert image.valid.all()
    assert np.abs(image.rgb.astype(int) - ramp(east + 30, north - 20)).max() <= 1


def test_a_coarser_window_is_averaged_and_not_sampled() -> None:
    ground = ramp_ground()
    ground.rgb = (
        (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    )
    image = ground.read(FRAME, GroundWindow(-50, 50, 4.0, 25, 25))
    assert np.abs(image.rgb.astype(int) - 127).max() <= 1


def test_what_lies_outside_is_black_and_invalid() -> None:
    window = GroundWindow(80, 20, 1.0, 40, 40)  # the ground ends at 100 m east
    image = ramp_ground().read(FRAME, window)
    assert image.valid[:, :20].all()
    assert not image.valid[:, 20:].any()
    assert (image.rgb[:, 20:] == 0).all()


@pytest.mark.parametrize("gsd_m", [0.5, 5.0])
@pytest.mark.parametrize(("west", "north"), [(5000, 0), (-5000, 0), (0, 1e6), (0, -1e6)])
def test_a_window_far_outside_is_all_invalid(west: float, north: float, gsd_m: float) -> None:
    image = ramp_ground().read(FRAME, GroundWindow(west, north, gsd_m, 16, 8))
    assert image.rgb.shape == (8, 16, 3) and image.valid.shape == (8, 16)
    assert not image.valid.any() and not image.rgb.any()


@pytest.mark.parametrize("gsd_m", [0.5, 2.0])
def test_invalid_pixels_are_black_and_do_not_darken_their_neighbours(gsd_m: float) -> None:
    ground = ramp_ground()
    ground.rgb[:, 200:] = 0
    ground.valid[:, 200:] = False  # east of 0 m
    image = ground.read(FRAME, GroundWindow(-10, 10, gsd_m, int(20 / gsd_m), int(20 / gsd_m)))
    middle = int(10 / gsd_m)
    assert image.valid[:, : middle - 1].all()
    assert not image.valid[:, middle + 1 :].any()
    assert (image.rgb[~image.valid] == 0).all()
    assert (image.rgb[:, : middle - 1, 0] >= 90).all()


def test_an_array_beyond_what_opencv_warps_in_one_piece_is_read() -> None:
    width = 40_000
    rgb = np.zeros((4, width, 3), np.uint8)
    rgb[:, 39_000:] = 200
    ground = ArrayGround(rgb, np.ones((4, width), np.bool_), FRAME, 0, 1, 0.5)
    image = ground.read(FRAME, GroundWindow(19_600, 1, 0.5, 16, 2))
    assert image.valid.all()
    assert (image.rgb == 200).all()


def test_bounds_are_the_corners_in_degrees() -> None:
    bounds = ramp_ground().bounds
    east, north = FRAME.to_local([bounds.south, bounds.north], [bounds.west, bounds.east])
    assert np.allclose(east, [-100, 100], atol=0.01) and np.allclose(north, [-100, 100], atol=0.01)


def test_a_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ortho.tif"
    with pytest.raises(InputError) as caught:
        open_ground(str(path))
    assert str(caught.value) == (
        f"{path}: no such file or folder; give a raster, a folder of them, tiles, or 'landscape'"
    )


def test_a_geotiff_opens_as_a_source(toy_source: Path) -> None:
    source = open_ground(str(toy_source))
    assert source.name == str(toy_source)
    assert source.attribution == "toy imagery, public domain"
    source.close()
