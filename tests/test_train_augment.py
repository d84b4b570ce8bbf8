"""Augmented views stay views of one place, and every draw follows from the seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.train.augment import Augment, AugmentConfig, Geometry
from s4g.train.model import normalise

# In these units a normalised image is its uint8 over 255 again.
NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OFF = AugmentConfig(flip=0, rotate="none", jpeg=0, colour=0, blur_or_sharpen=0, dropout=0)


def only(geometry: Geometry = "nadir", **settings: float | str) -> Augment:
    config = AugmentConfig(**{**vars(OFF), **settings})
    return Augment(config, geometry, NO_MEAN, NO_STD)


def noise(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def plain(count: int, height: int, width: int, value: int = 128) -> torch.Tensor:
    return torch.full((count, height, width, 3), value, dtype=torch.uint8)


def nchw(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float() / 255


def whole(geometry: Geometry = "nadir") -> Augment:
    """The original's augmentation with every noise on top."""
    if geometry == "panorama":
        return Augment(AugmentConfig(rotate="joint", heading_deg=5), geometry, MEAN, STD)
    noisy = AugmentConfig(rotate="both", heading_deg=5, scale=0.1, tilt_deg=4)
    return Augment(noisy, geometry, MEAN, STD)


@pytest.mark.parametrize("geometry", ["nadir", "panorama"])
def test_the_same_seed_gives_the_same_bits(geometry: Geometry) -> None:
    queries, references = noise(16, 32, 32), noise(16, 32, 32, seed=1)
    first, again = (whole(geometry)(queries, references, 7) for _ in range(2))
    other = whole(geometry)(queries, references, 8)
    for view in range(2):
        assert torch.equal(first[view], again[view])
        assert not torch.equal(first[view], other[view])


def test_the_models_random_numbers_and_the_inputs_are_untouched() -> None:
    queries, references = noise(16, 32, 32), noise(16, 32, 32, seed=1)
    kept = queries.clone(), references.clone()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    whole()(queries, references, 7)
    whole("panorama")(queries, references, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(queries, kept[0]) and torch.equal(references, kept[1])


def test_switched_off_it_normalises_and_no_more() -> None:
    queries, references = noise(4, 20, 60), noise(4, 24, 24, seed=1)
    results = Augment(OFF, "nadir", MEAN, STD)(queries, references, 3)
    for result, images in zip(results, (queries, references), strict=True):
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(result, normalise(images, MEAN, STD))


def test_the_whole_chain_ends_in_channels_last() -> None:
    for result in whole()(noise(8, 32, 32), noise(8, 32, 32), 3):
        assert result.is_contiguous(memory_format=torch.channels_last)


def test_both_views_are_mirrored_together() -> None:
    images = noise(64, 8, 8)
    queries, references = only(flip=0.5)(images, images, 0)
    mirrored = torch.isclose(queries, nchw(images).flip(3)).flatten(1).all(1)
    as_is = torch.isclose(queries, nchw(images)).flatten(1).all(1)
    assert torch.equal(queries, references)
    assert torch.all(mirrored ^ as_is)
    assert 20 < int(mirrored.sum()) < 44


def heading_of(tile: torch.Tensor) -> float:
    """Return under which heading the brightest spot of (3, S, S) lies, seen from the middle."""
    row, column = divmod(int(tile[0].argmax()), tile.shape[2])
    middle = (tile.shape[2] - 1) / 2
    return math.degrees(math.atan2(column - middle, middle - row)) % 360


def heading_in(panorama: torch.Tensor) -> float:
    """Return the heading of the brightest column of (3, H, W): its middle looks north."""
    width = panorama.shape[2]
    column = int(panorama[0].sum(0).argmax())
    return ((column + 0.5) / width - 0.5) * 360 % 360


def apart_deg(first: float, second: float) -> float:
    return abs((first - second + 180) % 360 - 180)


def test_a_panorama_and_its_tile_still_agree_after_joint_turns_and_mirroring() -> None:
    heading_deg, count, side, width = 30.0, 64, 101, 360
    tile, panorama = plain(1, side, side, 0), plain(1, 20, width, 0)
    east = round(50 + 40 * math.sin(math.radians(heading_deg)))
    south = round(50 - 40 * math.cos(math.radians(heading_deg)))
    tile[0, south, east] = 255
    panorama[0, :, int(width / 2 + heading_deg / 360 * width)] = 255
    queries, references = only("panorama", rotate="joint", flip=0.5)(
        panorama.repeat(count, 1, 1, 1), tile.repeat(count, 1, 1, 1), 0
    )
    headings = set()
    for query, reference in zip(queries, references, strict=True):
        assert apart_deg(heading_in(query), heading_of(reference)) < 2
        headings.add(round(heading_of(reference) / 30) * 30 % 360)
    # 30 degrees mirrored is 330; four turns each.
    assert headings == {30, 120, 210, 300, 330, 60, 150, 240}


def test_a_quarter_turn_of_the_tile_is_counter_clockwise() -> None:
    tile = plain(32, 9, 9, 0)
    tile[:, 0, 4] = 255  # north
    _, references = only("panorama", rotate="joint")(plain(32, 4, 8), tile, 0)
    turned = {heading_of(reference) for reference in references}
    assert turned == {0.0, 90.0, 180.0, 270.0}


def test_the_reference_alone_turns_by_quarters_equally_often() -> None:
    images = noise(200, 8, 8)
    queries, references = only(rotate="reference")(images, images, 0)
    assert torch.equal(queries, nchw(images))
    counts = [
        int(torch.isclose(references, torch.rot90(queries, turns, (2, 3))).flatten(1).all(1).sum())
        for turns in range(4)
    ]
    assert sum(counts) == 200
    assert min(counts) > 30


def test_two_views_that_look_down_turn_alike() -> None:
    images = noise(32, 8, 8)
    queries, references = only(rotate="both")(images, images, 0)
    assert torch.equal(queries, references)
    assert not torch.equal(queries, nchw(images))


def dropped(geometry: Geometry = "nadir") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the share of black pixels of 200 white queries and references, both 100 px wide."""
    images = plain(200, 100, 100, 255)
    results = only(geometry, dropout=1.0)(images, images, 0)
    shares = [(result[:, 0] == 0).float().mean((1, 2)) for result in results]
    return shares[0], shares[1]


@pytest.mark.parametrize(("geometry", "grid_share"), [("nadir", 0.16), ("panorama", 0.25)])
def test_dropout_is_a_grid_or_ten_to_twenty_five_holes(
    geometry: Geometry, grid_share: float
) -> None:
    queries, references = dropped(geometry)
    for shares, expected in ((queries, grid_share), (references, 0.16)):
        grid = torch.isclose(shares, torch.tensor(expected))
        assert 70 < int(grid.sum()) < 130
        holes = shares[~grid]
        # Ten holes of side 0.1 that overlap fully cover 0.01; 25 of side 0.2 at most all.
        assert holes.min() > 0.05 and holes.max() < 0.6
        assert holes.max() - holes.min() > 0.2


def test_dropout_spares_the_pictures_it_is_not_drawn_for() -> None:
    images = plain(200, 40, 40, 255)
    queries, references = only(dropout=0.3)(images, images, 0)
    hit = (queries == 0).flatten(1).any(1)
    assert 35 < int(hit.sum()) < 85
    assert not torch.equal(hit, (references == 0).flatten(1).any(1))  # drawn for each view


def test_the_holes_of_a_wide_view_follow_its_height() -> None:
    queries, _ = only("panorama", dropout=1.0)(plain(64, 50, 400, 255), plain(64, 8, 8), 0)
    # A grid has cells of 40 px: holes of 20; the others are 5 to 10 px on a side.
    blacks = (queries[:, 0] == 0).float().mean((1, 2))
    grid = blacks > 0.15
    assert 15 < int(grid.sum()) < 50
    assert blacks[~grid].max() < 25 * 0.2 * 0.2 * 50 / 400


def test_brightness_of_a_grey_picture_stays_within_the_strength() -> None:
    queries, _ = only(colour=0.15)(plain(200, 6, 6), plain(200, 6, 6), 0)
    factors = queries[:, 0, 0, 0] / (128 / 255)
    changed = ~torch.isclose(factors, torch.tensor(1.0))
    assert 70 < int(changed.sum()) < 130  # every second on average
    assert 0.85 <= factors.min() < 0.9 and 1.1 < factors.max() <= 1.1501


def test_colours_of_a_coloured_picture_change_in_hue() -> None:
    red = plain(100, 4, 4, 60)
    red[..., 0] = 200
    queries, _ = only(colour=0.15)(red, red, 0)
    green_over_blue = queries[:, 1, 0, 0] - queries[:, 2, 0, 0]
    assert green_over_blue.min() < -0.1 and green_over_blue.max() > 0.1
    assert queries.min() >= 0 and queries.max() <= 1


def test_some_pictures_are_blurred_and_some_sharpened() -> None:
    images = noise(100, 24, 24) // 2 + 64
    queries, _ = only(blur_or_sharpen=1.0)(images, images, 0)
    ratio = queries.std((1, 2, 3)) / nchw(images).std((1, 2, 3))
    assert 30 < int((ratio < 0.999).sum()) < 70
    assert 30 < int((ratio > 1.2).sum()) < 70


def test_filters_leave_an_even_picture_alone() -> None:
    images = plain(40, 12, 12)
    queries, _ = only(blur_or_sharpen=1.0)(images, images, 0)
    torch.testing.assert_close(queries, nchw(images))


def spots(count: int, side: int, east: int, south: int) -> torch.Tensor:
    images = plain(count, side, side, 0)
    images[:, south - 1 : south + 2, east - 1 : east + 2] = 255
    return images


def middles(images: torch.Tensor) -> torch.Tensor:
    """Return the centre of brightness, (B, 2) right and down of the middle."""
    side = images.shape[2]
    axis = torch.arange(side) - (side - 1) / 2
    mass = images[:, 0].sum((1, 2))
    right = (images[:, 0].sum(1) * axis).sum(1) / mass
    down = (images[:, 0].sum(2) * axis).sum(1) / mass
    return torch.stack([right, down], 1)


def test_heading_noise_turns_the_query_about_its_middle() -> None:
    count, side = 200, 81
    seen, references = only(heading_deg=10.0)(
        spots(count, side, 40, 15), spots(count, side, 40, 15), 0
    )
    right, down = middles(seen).T
    angles = torch.rad2deg(torch.atan2(right, -down))
    assert 8 < float(angles.std()) < 12
    assert abs(float(angles.mean())) < 2
    assert torch.allclose(torch.hypot(right, down), torch.tensor(25.0), atol=0.5)
    assert torch.equal(references, nchw(spots(count, side, 40, 15)))


def test_scale_noise_moves_things_from_and_to_the_middle() -> None:
    count, side = 200, 81
    seen, _ = only(scale=0.1)(spots(count, side, 40, 20), spots(count, side, 40, 20), 0)
    logarithms = torch.log(torch.linalg.norm(middles(seen), dim=1) / 20)
    assert 0.08 < float(logarithms.std()) < 0.12


def test_tilt_changes_the_perspective_but_not_the_middle() -> None:
    count, side = 50, 81
    middle = spots(count, side, 40, 40)
    seen, _ = only(tilt_deg=5.0)(middle, middle, 0)
    assert float(middles(seen).abs().max()) < 0.2
    corner = spots(count, side, 65, 15)
    seen, _ = only(tilt_deg=5.0)(corner, corner, 0)
    assert float(middles(seen).std(0).min()) > 0.5


def test_heading_noise_of_a_panorama_rolls_its_columns() -> None:
    panorama = plain(200, 4, 360, 0)
    panorama[:, :, 180] = 255
    queries, _ = only("panorama", heading_deg=10.0)(panorama, plain(200, 4, 4), 0)
    headings = torch.tensor([heading_in(query) for query in queries])
    assert 8 < float(((headings + 180) % 360 - 180).std()) < 12
    assert torch.equal(queries.sum((1, 2, 3)), torch.full((200,), 12.0))


@settings(max_examples=20)
@given(
    st.integers(0, 2**62),
    st.sampled_from([(16, 16), (20, 60), (35, 24)]),
    st.floats(0, 1),
    st.floats(0, 0.5),
    st.floats(0, 20),
)
def test_any_setting_gives_finite_pictures_in_range(
    seed: int, shape: tuple[int, int], share: float, colour: float, tilt_deg: float
) -> None:
    augment = only(
        flip=share, colour=colour, blur_or_sharpen=share, dropout=share,
        heading_deg=90.0, scale=1.0, tilt_deg=tilt_deg, rotate="reference",
    )  # fmt: skip
    queries, references = augment(noise(3, *shape), noise(3, 18, 18), seed)
    assert queries.shape == (3, 3, *shape)
    assert references.shape == (3, 3, 18, 18)
    for result in (queries, references):
        assert torch.isfinite(result).all()
        assert result.min() >= 0 and result.max() <= 1 + 1e-5


@pytest.mark.parametrize(
    ("settings", "geometry", "message"),
    [
        ({"flip": 1.5}, "nadir", "flip = 1.5 must lie in [0, 1]"),
        ({"colour": -0.1}, "nadir", "colour = -0.1 must lie in [0, 0.5]"),
        ({"tilt_deg": 45.0}, "nadir", "tilt_deg = 45.0 must lie in [0, 20]"),
        (
            {"rotate": "free"},
            "nadir",
            "rotate = 'free' must be one of none, joint, reference, both",
        ),
        (
            {"rotate": "joint"},
            "nadir",
            "rotate = 'joint' rolls a panorama, but the queries look down; use 'both', or "
            "'reference' where their heading is unknown",
        ),
        (
            {"rotate": "both"},
            "panorama",
            "rotate = 'both' needs queries that look down, these are panoramas; "
            "use rotate = 'joint' and heading_deg",
        ),
        (
            {"scale": 0.1},
            "panorama",
            "scale or tilt_deg needs queries that look down, these are panoramas; "
            "use rotate = 'joint' and heading_deg",
        ),
    ],
)
def test_a_setting_out_of_range_or_at_odds_with_the_views_is_refused(
    settings: dict[str, float | str], geometry: Geometry, message: str
) -> None:
    with pytest.raises(InputError) as error:
        AugmentConfig(**settings).check("recipe mine, [augment]", geometry)  # type: ignore[arg-type]
    assert str(error.value) == f"recipe mine, [augment]: {message}"


def test_pictures_to_be_turned_must_be_square() -> None:
    with pytest.raises(InputError) as error:
        only(rotate="reference")(plain(2, 8, 8), plain(2, 8, 12), 0)
    assert str(error.value) == (
        "[augment]: rotate turns the reference images by quarters, but they are 8 x 12 px; "
        "make them square or set rotate = 'none'"
    )
