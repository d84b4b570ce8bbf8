from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from s4g.core.engine import load_engine
from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.sources import open_ground
from s4g.tilepacks.build import PackContent, build_pack
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.writer import write_pack


def _build(source: Path, encoder: Path, **options: object) -> PackContent:
    engine, ground = load_engine(encoder, threads=1), open_ground(str(source))
    try:
        plan = plan_pack(ground, engine.spec, None, (40.0, 80.0))
        return build_pack(ground, engine, plan, **options)  # type: ignore[arg-type]
    finally:
        ground.close()


def test_same_inputs_give_the_same_bytes(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    for name in ("a", "b"):
        write_pack(tmp_path / name, _build(toy_source, toy_encoder, graph_min_vectors=100))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_manifest_tells_source_and_credit_but_no_folder(
    toy_source: Path, toy_encoder: Path
) -> None:
    manifest = _build(toy_source, toy_encoder).manifest
    assert manifest.source == "toy.tif"
    assert manifest.attribution == "toy imagery, public domain"
    assert manifest.source_gsd_m == pytest.approx(0.5, rel=1e-3)
    assert manifest.spec == load_engine(toy_encoder).spec


def test_small_levels_are_scanned_and_large_ones_linked(
    toy_source: Path, toy_encoder: Path
) -> None:
    content = _build(toy_source, toy_encoder, graph_min_vectors=200)
    fine, coarse = content.manifest.levels
    assert fine.vectors >= 200 > coarse.vectors
    assert (fine.search.method, coarse.search.method) == ("graph", "exact")
    assert fine.search.recall_at_1 >= 0.99
    assert "level0.graph" in content.sections and "level1.graph" not in content.sections


def test_picture_is_left_out_on_request(toy_source: Path, toy_encoder: Path) -> None:
    content = _build(toy_source, toy_encoder, imagery=False)
    assert content.manifest.overview is None
    assert "overview" not in content.sections


def test_level_without_imagery_is_refused(toy_encoder: Path) -> None:
    rgb, valid = np.zeros((200, 200, 3), np.uint8), np.zeros((200, 200), bool)
    ground = ArrayGround(rgb, valid, LocalFrame(47.0, 8.0), -100.0, 100.0, 1.0, "empty.tif")
    engine = load_engine(toy_encoder)
    plan = plan_pack(ground, engine.spec, None, (80.0,), 0.5)
    with pytest.raises(InputError) as error:
        build_pack(ground, engine, plan)
    assert str(error.value) == (
        "empty.tif: level 80: none of 16 tiles has 60% imagery; lower --min-valid or choose "
        "another --bbox"
    )


def test_progress_of_tiles_and_links_runs_to_its_total(toy_source: Path, toy_encoder: Path) -> None:
    bars: list[list[object]] = []

    @contextmanager
    def progress(description: str, total: int) -> Iterator[object]:
        bar: list[object] = [description, total, 0]
        bars.append(bar)

        def advance(steps: int) -> None:
            bar[2] = int(str(bar[2])) + steps

        yield advance

    _build(toy_source, toy_encoder, graph_min_vectors=200, progress=progress)
    assert [bar[0] for bar in bars] == [
        "level 40 m: tiles",
        "level 40 m: links",
        "level 80 m: tiles",
    ]
    assert all(bar[1] == bar[2] for bar in bars)


@pytest.mark.parametrize(
    ("name", "level_m", "least", "lat", "lon"),
    [
        ("brighton_beach/ortho_from_laz_0.12m.tif", 40.0, 20, 46.84259, -91.99388),
        ("small_orthos/nl_rd_0.25m_test_tiled.tif", 80.0, 60, 51.84103, 4.98816),
        ("small_orthos/oam_manila_0.1m.tif", 80.0, 10, 14.59595, 120.98182),
    ],
    ids=["UTM with holes", "Dutch grid", "Manila with nodata"],
)
def test_real_imagery_is_packed_where_it_lies(
    tmp_path: Path,
    data_dir: Path,
    toy_encoder: Path,
    name: str,
    level_m: float,
    least: int,
    lat: float,
    lon: float,
) -> None:
    engine, ground = load_engine(toy_encoder, threads=1), open_ground(str(data_dir / name))
    plan = plan_pack(ground, engine.spec, None, (level_m,))
    write_pack(tmp_path / "p", build_pack(ground, engine, plan))
    with open_pack(tmp_path / "p") as pack:
        assert plan.lattices[0].count >= len(pack.east_m) >= least
        east, north = pack.frame.to_local(lat, lon)
        assert np.hypot(pack.east_m - east, pack.north_m - north).min() < level_m / 2
        overview = pack.overview()
        assert overview is not None and overview[0].mean() > 20
    ground.close()
