"""Views found on imagery that differs from them as another season does, or not at all."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround, GroundImage, GroundSource, GroundWindow
from s4g.runtime.registration import SIDE_PX, Registered, Registration

RGB = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
GSD_M = 0.625
FOOTPRINT_M = SIDE_PX * GSD_M
_GROUND_PX = 800
_HALF_M = _GROUND_PX * GSD_M / 2
FRAME = LocalFrame(47.0, 8.0)


def made_ground(seed: int) -> Float32:
    """Return ground with details of all sizes, as real ground has."""
    rng = np.random.default_rng(seed)
    ground = np.zeros((_GROUND_PX, _GROUND_PX), np.float32)
    for size in (1, 3, 9, 27):
        layer = cv2.GaussianBlur(rng.standard_normal(ground.shape).astype(np.float32), (0, 0), size)
        ground += layer / layer.std()
    return np.asarray(115 + 22 * ground, np.float32)


GROUND, NEW = made_ground(1), made_ground(2)


def coloured(ground: Float32) -> RGB:
    """Return ground (H, W) as (H, W, 3) uint8 without black."""
    return np.clip(ground[..., None] * np.array([0.9, 1.0, 0.8]), 1, 255).astype(np.uint8)


class Map:
    """A pack of nothing but imagery; counts how often it is read."""

    def __init__(self, ground: Float32 | None = GROUND) -> None:
        self.frame, self.reads, self._ground = FRAME, 0, ground

    def imagery(self) -> GroundSource | None:
        if self._ground is None:
            return None
        rgb = coloured(self._ground)
        valid = np.ones(rgb.shape[:2], np.bool_)
        source = ArrayGround(rgb, valid, FRAME, -_HALF_M, _HALF_M, GSD_M)
        read = source.read

        def counted(frame: LocalFrame, window: GroundWindow) -> GroundImage:
            self.reads += 1
            return read(frame, window)

        source.read = counted  # type: ignore[method-assign]
        return source


def view(
    east_m: float,
    north_m: float,
    *,
    ground: Float32 = GROUND,
    footprint_m: float = FOOTPRINT_M,
    heading_deg: float = 0.0,
    side_px: int = SIDE_PX,
    noise: float = 3.0,
) -> RGB:
    """Return what a camera sees whose top points to `heading_deg`, (S, S, 3) uint8."""
    gsd = footprint_m / side_px / GSD_M
    cos, sin = (gsd * f(math.radians(heading_deg)) for f in (math.cos, math.sin))
    to_ground = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    middle = (side_px - 1) / 2
    # Pixel centres at integers: the map's middle lies between two.
    place = _GROUND_PX / 2 - 0.5 + np.array([east_m, -north_m]) / GSD_M
    to_ground[:, 2] = place - to_ground[:, :2] @ [middle, middle]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(ground, to_ground, (side_px, side_px), flags=flags)
    rng = np.random.default_rng(7)
    picture = picture + noise * rng.standard_normal(picture.shape)
    return coloured(np.asarray(picture, np.float32))


def found(result: Registered | None) -> Registered:
    assert result is not None
    return result


NEAR = np.zeros(2)


@settings(max_examples=25)
@given(east=st.floats(-30, 30), north=st.floats(-30, 30), noise=st.floats(0, 10))
def test_a_view_is_found_to_a_fraction_of_a_pixel(east: float, north: float, noise: float) -> None:
    result = found(
        Registration(Map()).register(view(east, north, noise=noise), FOOTPRINT_M, NEAR, 40.0)
    )
    assert result.position_m == pytest.approx([east, north], abs=0.3 * GSD_M)


def test_east_is_right_and_north_is_up() -> None:
    """A crop of the map, 20 pixels right of its middle and 40 above."""
    middle = _GROUND_PX // 2
    part = GROUND[middle - 40 - 64 : middle - 40 + 64, middle + 20 - 64 : middle + 20 + 64]
    result = found(Registration(Map()).register(coloured(part), FOOTPRINT_M, NEAR, 40.0))
    assert result.position_m == pytest.approx([20 * GSD_M, 40 * GSD_M], abs=0.05)
    assert result.agreement > 0.95


@settings(max_examples=20)
@given(turn=st.floats(-5, 5), scale=st.floats(0.97, 1.03))
def test_errors_of_heading_and_height_are_found_and_told(turn: float, scale: float) -> None:
    """The drone flies higher than it says: its view shows more ground than it says."""
    seen = view(10, -15, heading_deg=turn, footprint_m=FOOTPRINT_M * scale)
    result = found(Registration(Map()).register(seen, FOOTPRINT_M, NEAR, 40.0))
    assert result.position_m == pytest.approx([10, -15], abs=GSD_M)
    assert result.turn_deg == pytest.approx(turn, abs=1.0)
    assert result.scale == pytest.approx(scale, abs=0.02)


def test_another_season_is_bridged() -> None:
    """Other contrast, a shade over half of it, other small things, and glaring new roofs."""
    other = 0.5 * (GROUND - 115) + 90 + 8 * (made_ground(9) - 115) / 22
    other[:, : _GROUND_PX // 2] *= 0.7
    for place in range(_GROUND_PX // 2 - 90, _GROUND_PX // 2 + 120, 30):
        other[place : place + 8, place : place + 12] = 255
    result = found(
        Registration(Map()).register(view(10, -15, ground=other), FOOTPRINT_M, NEAR, 40.0)
    )
    assert result.position_m == pytest.approx([10, -15], abs=GSD_M)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16), east=st.floats(-25, 25))
def test_a_fifth_of_the_ground_may_have_changed(seed: int, east: float) -> None:
    rng = np.random.default_rng(seed)
    seen = view(east, 5)
    changed = view(east, 5, ground=NEW)
    side = round(SIDE_PX * math.sqrt(0.2))
    row, column = rng.integers(0, SIDE_PX - side, 2)
    seen[row : row + side, column : column + side] = changed[
        row : row + side, column : column + side
    ]
    result = found(Registration(Map()).register(seen, FOOTPRINT_M, NEAR, 40.0))
    assert result.position_m == pytest.approx([east, 5], abs=0.5 * GSD_M)


def test_a_level_finer_than_the_imagery_is_found() -> None:
    seen = view(7, -9, footprint_m=40.0)
    result = found(Registration(Map()).register(seen, 40.0, NEAR, 20.0))
    assert result.position_m == pytest.approx([7, -9], abs=0.3)


def test_views_of_another_size_are_as_good() -> None:
    seen = view(7, -9, side_px=192)
    result = found(Registration(Map()).register(seen, FOOTPRINT_M, NEAR, 40.0))
    assert result.position_m == pytest.approx([7, -9], abs=0.3)


def test_black_corners_do_not_count() -> None:
    """A view past the frame's border; the map goes on there."""
    seen = view(12, 8)
    cv2.fillPoly(seen, [np.array([[0, 0], [80, 0], [0, 60]])], (0, 0, 0))
    result = found(Registration(Map()).register(seen, FOOTPRINT_M, NEAR, 40.0))
    assert result.position_m == pytest.approx([12, 8], abs=0.3)


def test_the_edge_of_the_imagery_does_not_count() -> None:
    """The expected place lies near the border: half of the search window is no ground."""
    near = np.array([_HALF_M - 50, 0.0])
    result = found(Registration(Map()).register(view(_HALF_M - 45, 3), FOOTPRINT_M, near, 40.0))
    assert result.position_m == pytest.approx([_HALF_M - 45, 3], abs=0.3)


@settings(max_examples=40)
@given(
    seed=st.integers(3, 2**16),
    east=st.floats(-150, 150),
    north=st.floats(-150, 150),
    reach=st.sampled_from([10.0, 40.0, 100.0]),
)
def test_other_ground_is_never_found(seed: int, east: float, north: float, reach: float) -> None:
    other = view(0, 0, ground=made_ground(seed))
    near = np.array([east, north])
    assert Registration(Map()).register(other, FOOTPRINT_M, near, reach) is None


def test_a_wrong_place_is_not_believed() -> None:
    registration = Registration(Map())
    assert registration.register(view(100, 0), FOOTPRINT_M, np.array([-60.0, 0.0]), 30.0) is None
    assert registration.register(view(100, 0), FOOTPRINT_M, np.array([90.0, 0.0]), 30.0) is not None


def test_what_looks_alike_at_many_places_is_not_believed() -> None:
    y, x = np.mgrid[:_GROUND_PX, :_GROUND_PX].astype(np.float32)
    rows = 100 + 40 * np.cos(2 * np.pi * x / 17) * np.cos(2 * np.pi * y / 21)
    orchard = np.asarray(rows + 0.1 * (GROUND - 115), np.float32)
    other = np.asarray(rows + 0.1 * (NEW - 115), np.float32)
    registration = Registration(Map(orchard))
    assert registration.register(view(0, 0, ground=other), FOOTPRINT_M, NEAR, 40.0) is None


@pytest.mark.parametrize("grey", [0, 90])
def test_nothing_to_see_is_not_found(grey: int) -> None:
    flat = np.full((SIDE_PX, SIDE_PX, 3), grey, np.uint8)
    assert Registration(Map()).register(flat, FOOTPRINT_M, NEAR, 40.0) is None


def test_far_from_the_imagery_nothing_is_found() -> None:
    far = np.array([5000.0, 0.0])
    assert Registration(Map()).register(view(0, 0), FOOTPRINT_M, far, 40.0) is None


def test_a_pack_without_imagery_says_so() -> None:
    registration = Registration(Map(None))
    assert not registration.is_possible
    assert registration.register(view(0, 0), FOOTPRINT_M, NEAR, 40.0) is None


def test_ground_is_read_again_only_when_the_drone_leaves_it_or_climbs() -> None:
    pack = Map()
    registration = Registration(pack)
    for east in (0.0, 10.0, -15.0):
        near = np.array([east, 0.0])
        result = found(registration.register(view(east, 2), FOOTPRINT_M, near, 40.0))
        assert result.position_m == pytest.approx([east, 2], abs=0.3)
    assert pack.reads == 1
    found(registration.register(view(90, 2), FOOTPRINT_M, np.array([90.0, 0.0]), 40.0))
    assert pack.reads == 2
    found(registration.register(view(90, 2, footprint_m=60), 60.0, np.array([90.0, 0.0]), 40.0))
    assert pack.reads == 3


def test_sigma_is_in_metres_of_the_view() -> None:
    fine = found(Registration(Map()).register(view(0, 0, footprint_m=40.0), 40.0, NEAR, 20.0))
    coarse = found(Registration(Map()).register(view(0, 0), FOOTPRINT_M, NEAR, 20.0))
    assert coarse.sigma_m == pytest.approx(2 * fine.sigma_m, rel=0.05)
    assert 0.1 < coarse.sigma_m < 1.0
