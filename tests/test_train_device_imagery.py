"""What is cut on the device is what OpenCV cuts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s4g.core.errors import InputError
from s4g.train import device_imagery as module
from s4g.train.device_imagery import DeviceImagery
from s4g.train.drone_views import local_from_drone
from s4g.train.grounds import Ground
from s4g.train.recipe import ViewConfig
from s4g.train.views import Place, cut_patch

CPU = torch.device("cpu")


def ground(height: int, width: int, levels: int, dates: int, seed: int) -> Ground:
    rng = np.random.default_rng(seed)
    sizes = [(height >> level, width >> level) for level in range(levels)]
    pyramids = tuple(
        tuple(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes)
        for _ in range(dates)
    )
    return Ground("toy", 0.5, pyramids, np.zeros((height + 1, width + 1), np.int32), 1, False, 0)


GROUNDS = [ground(200, 160, 2, 2, 0), ground(90, 300, 1, 1, 1), ground(128, 128, 3, 2, 2)]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("footprint_m", [16.0, 40.0, 70.0])
def test_patches_are_those_of_opencv(number: int, footprint_m: float) -> None:
    here, size = GROUNDS[number], 32
    date = len(here.dates) - 1
    place = Place(here, 35.0, 20.0, footprint_m, 33.0, True)
    geometry, _ = local_from_drone([footprint_m], size, ViewConfig(), np.random.default_rng(0))
    imagery = DeviceImagery(GROUNDS, CPU)
    images, to_level = imagery.rows(
        np.array([number]), np.array([date]), np.array([footprint_m / size / here.gsd_m])
    )
    patch = imagery.cut(images, to_level @ place.pixel_from_local @ geometry, size)
    # OpenCV rounds places to 1/32 px, and noise is as steep as pixels can be.
    expected = cut_patch(place, date, geometry[0], size).astype(np.float32)
    assert np.abs(patch[0].numpy() - expected).mean() < 2.0


def test_a_pixel_centre_gives_the_pixel() -> None:
    imagery = DeviceImagery(GROUNDS, CPU)
    images, to_level = imagery.rows(np.array([1]), np.array([0]), np.array([1.0]))
    shift = np.array([[[1.0, 0, 40], [0, 1, 7], [0, 0, 1]]])
    patch = imagery.cut(images, to_level @ shift, 16)
    assert np.array_equal(patch[0].numpy(), GROUNDS[1].dates[0][0][7:23, 40:56])


def test_beyond_its_edge_an_image_is_mirrored() -> None:
    imagery = DeviceImagery(GROUNDS, CPU)
    shift = np.array([[[1.0, 0, -4], [0, 1, 0], [0, 0, 1]]])
    images, to_level = imagery.rows(np.array([1]), np.array([0]), np.array([1.0]))
    patch = imagery.cut(images, to_level @ shift, 9)[0].numpy()
    assert np.array_equal(patch[:, :4], patch[:, :4:-1])


def test_the_last_pixel_can_be_had() -> None:
    imagery = DeviceImagery(GROUNDS, CPU)
    shift = np.array([[[1.0, 0, 300 - 8], [0, 1, 90 - 8], [0, 0, 1]]])
    images, to_level = imagery.rows(np.array([1]), np.array([0]), np.array([1.0]))
    patch = imagery.cut(images, to_level @ shift, 8)
    assert np.array_equal(patch[0].numpy(), GROUNDS[1].dates[0][0][-8:, -8:])


def test_more_pixels_than_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PIXELS", 1000)
    with pytest.raises(InputError) as error:
        DeviceImagery(GROUNDS, CPU)
    assert str(error.value) == (
        "the grounds have 0.0 billion pixels, at most 0.0 fit; leave some out or read them no "
        "finer with gsd_m"
    )
