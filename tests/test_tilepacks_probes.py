from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from s4g.core.errors import S4GError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.probes import Probes, make_probes, share_found
from s4g.tilepacks.tiling import Lattice

FRAME = LocalFrame(47.0, 8.0)
LATTICE = Lattice(16.0, 16, 4, -100.0, 100.0, 47, 47)
ALL = np.arange(LATTICE.count, dtype=np.uint32)


class Seeing:
    """An engine that keeps what it is shown; a vector is mean red, mean green and a constant."""

    name = "seeing"
    spec = EncoderSpec(
        "00" * 32, "seeing", 16, (0.5,) * 3, (0.25,) * 3, 3, (3,), 0.1, 10.0, True, 0.1
    )  # fmt: skip

    def __init__(self) -> None:
        self.batches: list[int] = []

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        means = images.reshape(len(images), -1, 3).mean(axis=1)
        return np.column_stack([means[:, :2], np.full(len(images), 9.0)]).astype(np.float32)


def _ground(valid: np.ndarray | None = None) -> ArrayGround:
    """Return 200 x 200 m whose red rises to the east and whose green rises to the north."""
    rgb = np.zeros((200, 200, 3), np.uint8)
    rgb[..., 0] = np.arange(200)[None, :]
    rgb[..., 1] = np.arange(200)[::-1, None]
    valid = np.ones((200, 200), bool) if valid is None else valid
    return ArrayGround(rgb, valid, FRAME, -100.0, 100.0, 1.0, "ramp")


def _probes(engine: Any, *layers: ArrayGround, count: int = 60) -> Probes:
    return make_probes(layers or (_ground(),), FRAME, LATTICE, ALL, engine, count)


def test_views_are_of_the_places_they_are_said_to_be_of() -> None:
    found = _probes(Seeing())
    assert len(found.east_m) == len(found.north_m) == len(found.embeddings) > 40
    # Light changes by some parts in ten, so that what is seen is not exact.
    east, north = found.embeddings[:, 0] - 100, found.embeddings[:, 1] - 100
    assert np.corrcoef(east, found.east_m)[0, 1] > 0.95
    assert np.corrcoef(north, found.north_m)[0, 1] > 0.95


def test_places_lie_between_centres_of_tiles() -> None:
    found = _probes(Seeing(), count=500)
    east, north = LATTICE.centers_m(ALL)
    away = np.hypot(found.east_m[:, None] - east, found.north_m[:, None] - north).min(axis=1)
    assert 0.5 < away.max() <= 4 / 2 * np.sqrt(2)


def test_places_with_holes_are_left_out() -> None:
    valid = np.ones((200, 200), bool)
    valid[:, :100] = False
    found = _probes(Seeing(), _ground(valid))
    assert 0 < len(found.east_m) < 60
    assert found.east_m.min() > 0
    nothing = _probes(Seeing(), _ground(np.zeros((200, 200), bool)))
    assert nothing.embeddings.shape == (0, 3) and len(nothing.east_m) == 0


def test_dates_are_looked_at_in_turn() -> None:
    seen: list[str] = []

    class Told(ArrayGround):
        def read(self, *arguments: Any) -> Any:
            seen.append(self.name)
            return super().read(*arguments)

    def layer(name: str) -> Told:
        ground = _ground()
        return Told(ground.rgb, ground.valid, FRAME, -100.0, 100.0, 1.0, name)

    _probes(Seeing(), layer("a"), layer("b"), count=4)
    assert seen == ["a", "b", "a", "b"]


def test_same_imagery_gives_the_same_views() -> None:
    first, second = _probes(Seeing()), _probes(Seeing())
    assert (first.embeddings == second.embeddings).all()
    assert (first.east_m == second.east_m).all()


def test_views_are_embedded_in_batches() -> None:
    engine = Seeing()
    count = len(_probes(engine).east_m)
    assert engine.batches == [32, count - 32]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_encoder_that_returns_nonsense_is_an_error(value: float) -> None:
    class Broken(Seeing):
        def embed(self, images: np.ndarray) -> np.ndarray:
            return np.full((len(images), 3), value, np.float32)

    with pytest.raises(S4GError) as error:
        _probes(Broken())
    assert str(error.value) == (
        "seeing: an embedding is zero or not finite; export the encoder again"
    )


def test_a_view_is_found_within_a_footprint() -> None:
    here = Probes(np.zeros((3, 2), np.float32), np.array([0.0, 0, 0]), np.array([0.0, 0, 0]))
    east, north = np.array([80.0, 56.0, 57.0]), np.array([0.0, 56.0, 57.0])
    assert share_found(here, east, north, 80.0) == pytest.approx(2 / 3)


def test_no_views_are_no_loss() -> None:
    none = Probes(np.zeros((0, 2), np.float32), np.zeros(0), np.zeros(0))
    assert share_found(none, np.zeros(0), np.zeros(0), 80.0) == 1.0
