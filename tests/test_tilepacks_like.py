"""Packs built on the grid of another one."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from s4g.core.engine import load_engine
from s4g.core.errors import InputError
from s4g.core.geo import BBox
from s4g.core.sources import open_ground
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.combine import merge_packs
from s4g.tilepacks.grid import offset
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import Pack, open_pack

OPTIONS = BuildOptions(dims=16, overview=False)


@pytest.fixture(scope="module")
def base(toy_source: Path, toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The western half of the source, at two levels."""
    out = tmp_path_factory.mktemp("base") / "west.s4gpack"
    _build(toy_source, toy_encoder, out, _half(toy_source, 0.0, 0.55), None)
    return out


def _half(source: Path, first: float, last: float) -> BBox:
    with closing(open_ground(str(source))) as ground:
        box = ground.bounds
    width = box.east - box.west
    return BBox(box.west + first * width, box.south, box.west + last * width, box.north)


def _build(source: Path, encoder: Path, out: Path, box: BBox, like: Pack | None) -> None:
    with (
        closing(load_engine(encoder, threads=1)) as engine,
        closing(open_ground(str(source))) as ground,
    ):
        manifest = None if like is None else like.manifest
        levels = (48.0, 64.0) if like is None else None
        plan = plan_pack(ground, engine.spec, box, levels, 0.25, None, manifest)
        given = None if like is None else like.projection
        build_pack([ground], engine, plan, out, OPTIONS, projection=given)


def test_a_pack_like_another_lies_on_its_grid_and_merges_with_it(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, base: Path
) -> None:
    east = tmp_path / "east.s4gpack"
    with open_pack(base) as one:
        _build(toy_source, toy_encoder, east, _half(toy_source, 0.2, 1.0), one)
        with open_pack(east) as other:
            assert other.frame == one.frame
            assert (other.projection.matrix == one.projection.matrix).all()
            for a, b in zip(one.manifest.levels, other.manifest.levels, strict=True):
                assert offset(a.lattice, b.lattice) is not None
            merge_packs([one, other], tmp_path / "all.s4gpack")
            with open_pack(tmp_path / "all.s4gpack") as both:
                # Tiles of the overlap are in both, and in the whole once.
                for level in range(2):
                    count = one.levels[level].count + other.levels[level].count
                    shared = count - both.levels[level].count
                    assert shared > 10
                found, scores = both.search_within(
                    np.ones((1, 32), np.float32), 0, 0.0, 0.0, 1000.0
                )
                assert len(found) == both.levels[0].count


def test_tiles_of_the_overlap_have_the_vectors_they_had(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, base: Path
) -> None:
    again = tmp_path / "again.s4gpack"
    with open_pack(base) as one:
        _build(toy_source, toy_encoder, again, _half(toy_source, 0.0, 0.55), one)
        with open_pack(again) as other:
            for level in range(2):
                assert (one.cells(level) == other.cells(level)).all()
                cosine = (
                    one.vectors(level).vectors_of(np.arange(20))
                    * other.vectors(level).vectors_of(np.arange(20))
                ).sum(axis=1)
                assert (cosine > 0.9999).all()


def test_another_encoder_is_refused(toy_source: Path, toy_encoder: Path, base: Path) -> None:
    with (
        open_pack(base) as one,
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
    ):
        other = dataclasses.replace(engine.spec, model_id="ab" * 32)
        with pytest.raises(InputError) as error:
            plan_pack(ground, other, like=one.manifest)
    assert str(error.value) == (
        f"--like: that pack was built with encoder {engine.spec.model_id[:12]}, this one is "
        "abababababab; give the same --encoder"
    )


def test_a_level_that_the_other_pack_lacks_is_refused(
    toy_source: Path, toy_encoder: Path, base: Path
) -> None:
    with (
        open_pack(base) as one,
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
        pytest.raises(InputError) as error,
    ):
        plan_pack(ground, engine.spec, None, (32.0,), like=one.manifest)
    assert str(error.value) == "--levels 32: the pack of --like has levels 48, 64 only"


def test_a_region_far_from_the_other_pack_is_refused(
    toy_source: Path, toy_encoder: Path, base: Path
) -> None:
    with (
        open_pack(base) as one,
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
    ):
        far = dataclasses.replace(one.frame, lon_deg=one.frame.lon_deg + 5)
        manifest = dataclasses.replace(one.manifest, frame=far)
        with pytest.raises(InputError) as error:
            plan_pack(ground, engine.spec, like=manifest)
    assert str(error.value) == (
        f"{toy_source}: the region reaches 380 km from {far.lat_deg:.4f}, {far.lon_deg:.4f}, "
        "the origin of the pack's metres, which are flat for 300 km; build it without --like"
    )
