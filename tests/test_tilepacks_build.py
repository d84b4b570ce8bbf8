from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.engine import Engine, load_engine
from s4g.core.errors import InputError, S4GError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.sources import open_ground
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.options import BuildOptions, silent
from s4g.tilepacks.plan import Plan, plan_pack
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.work import work_folder, work_path

GO_ON = "repeat the former command to go on, or pass --restart to throw away what is done"


class Killed(Exception):
    """Stands for the end of the process."""


class Stopping:
    """An engine that dies at its n-th call."""

    def __init__(self, engine: Engine, calls: int) -> None:
        self._engine, self._left = engine, calls
        self.name, self.spec, self.backend = engine.name, engine.spec, engine.backend

    def embed(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self._left -= 1
        if self._left < 0:
            raise Killed
        return self._engine.embed(images)


def build(source: Path, encoder: Path, out: Path, calls: int | None = None, **given: Any) -> None:
    """Build a pack of two levels; with `calls` the encoder dies after so many."""
    chosen = {k: given.pop(k) for k in ("progress", "restart", "overwrite") if k in given}
    levels_m = given.pop("levels_m", (40.0, 80.0))
    options = BuildOptions(**{"graph_min_vectors": 200, **given})
    with (
        closing(load_engine(encoder, threads=1)) as engine,
        closing(open_ground(str(source))) as ground,
    ):
        plan = plan_pack(ground, engine.spec, None, levels_m)
        used: Any = engine if calls is None else Stopping(engine, calls)
        build_pack([ground], used, plan, out, options, **chosen)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


TILE_CALLS = (20, 4)  # what the two levels take; then come those of the trial views


@pytest.fixture(scope="module")
def whole(toy_source: Path, toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("build") / "whole.s4gpack"
    build(toy_source, toy_encoder, path)
    return path


@pytest.mark.parametrize("workers", [1, 3])
def test_same_inputs_give_the_same_bytes_however_many_read(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, whole: Path, workers: int
) -> None:
    build(toy_source, toy_encoder, tmp_path / "p", workers=workers)
    assert sha256(tmp_path / "p") == sha256(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_the_number_of_readers_may_change_meanwhile(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, whole: Path
) -> None:
    with pytest.raises(Killed):
        build(toy_source, toy_encoder, tmp_path / "p", sum(TILE_CALLS), workers=1)
    build(toy_source, toy_encoder, tmp_path / "p", workers=3)
    assert sha256(tmp_path / "p") == sha256(whole)


@pytest.mark.parametrize("stops", [(0,), (1, 2), (21, 5), (30, 3)])
def test_an_interrupted_build_goes_on_to_the_same_bytes(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, whole: Path, stops: tuple[int, ...]
) -> None:
    for calls in stops:
        with pytest.raises(Killed):
            build(toy_source, toy_encoder, tmp_path / "p", calls)
        assert not (tmp_path / "p").exists()
    build(toy_source, toy_encoder, tmp_path / "p")
    assert sha256(tmp_path / "p") == sha256(whole)
    assert not work_path(tmp_path / "p").exists()


def test_what_is_done_is_not_embedded_again(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, whole: Path
) -> None:
    with pytest.raises(Killed):  # in the probes, when all tiles are done
        build(toy_source, toy_encoder, tmp_path / "p", sum(TILE_CALLS) + 1)
    build(toy_source, toy_encoder, tmp_path / "p", TILE_CALLS[0] - 1)
    assert sha256(tmp_path / "p") == sha256(whole)


def test_a_damaged_block_is_embedded_again(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, whole: Path
) -> None:
    with pytest.raises(Killed):
        build(toy_source, toy_encoder, tmp_path / "p", sum(TILE_CALLS) + 1)
    block = work_path(tmp_path / "p") / "level0" / "000000"
    data = bytearray(block.read_bytes())
    data[-1] ^= 1
    block.write_bytes(data)
    build(toy_source, toy_encoder, tmp_path / "p")
    assert sha256(tmp_path / "p") == sha256(whole)


def test_another_plan_is_refused_until_it_is_to_start_again(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    out = tmp_path / "p"
    with pytest.raises(Killed):
        build(toy_source, toy_encoder, out, TILE_CALLS[0] + 1)
    with pytest.raises(InputError) as error:
        build(toy_source, toy_encoder, out, dims=8)
    assert str(error.value) == f"{out}: was begun with another options; {GO_ON}"
    with pytest.raises(InputError) as error:
        build(toy_source, toy_encoder, out, levels_m=(80.0,))
    assert str(error.value) == f"{out}: was begun with another levels and stride; {GO_ON}"
    build(toy_source, toy_encoder, out, dims=8, restart=True)
    with open_pack(out) as pack:
        assert pack.manifest.projection.dims == 8


def test_imagery_that_changed_meanwhile_is_refused(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    source = tmp_path / "toy.tif"
    source.write_bytes(toy_source.read_bytes())
    with pytest.raises(Killed):
        build(source, toy_encoder, tmp_path / "p", TILE_CALLS[0] + 1)
    os.utime(source, (1, 1))
    with pytest.raises(InputError) as error:
        build(source, toy_encoder, tmp_path / "p")
    assert str(error.value) == f"{tmp_path / 'p'}: was begun with another imagery; {GO_ON}"


def test_an_encoder_that_was_exported_again_meanwhile_is_refused(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    encoder = tmp_path / "toy.onnx"
    encoder.write_bytes(toy_encoder.read_bytes())
    with pytest.raises(Killed):
        build(toy_source, encoder, tmp_path / "p", TILE_CALLS[0] + 1)
    os.utime(encoder, (1, 1))
    with pytest.raises(InputError) as error:
        build(toy_source, encoder, tmp_path / "p")
    assert str(error.value) == f"{tmp_path / 'p'}: was begun with another encoder; {GO_ON}"


def test_two_builds_into_one_pack_are_refused(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    out = tmp_path / "p"
    with work_folder(out, {}), pytest.raises(InputError) as error:
        build(toy_source, toy_encoder, out)
    assert str(error.value) == (
        f"{out}: another s4g-pack is building it; wait for it, or choose another --out"
    )


def test_a_full_disk_keeps_what_is_done(
    tmp_path: Path,
    toy_source: Path,
    toy_encoder: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, replace, calls = tmp_path / "p", Path.replace, iter(range(100))

    def full(self: Path, target: Path) -> Path:
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(S4GError) as error:
        build(toy_source, toy_encoder, out)
    assert str(error.value) == (
        f"{work_path(out)}: cannot write (No space left on device); free some space and run the "
        "same command to go on: what is done is kept there"
    )
    build(toy_source, toy_encoder, out)
    assert sha256(out) == sha256(whole)


def test_a_disk_that_is_full_at_the_end_costs_no_work(
    tmp_path: Path,
    toy_source: Path,
    toy_encoder: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, replace = tmp_path / "p", Path.replace

    def full(self: Path, target: Path) -> Path:
        if target == out:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(S4GError) as error:
            build(toy_source, toy_encoder, out)
    assert str(error.value) == (
        f"{out}: cannot write (No space left on device); free some space or choose another place; "
        "nothing was left behind"
    )
    assert [path.name for path in tmp_path.iterdir()] == [".p.work"]
    build(toy_source, toy_encoder, out, calls=0)
    assert sha256(out) == sha256(whole)


def test_text_that_a_pack_cannot_hold_is_replaced(tmp_path: Path, toy_encoder: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    ground = ArrayGround(
        rgb, np.ones((200, 200), bool), LocalFrame(47.0, 8.0), -100.0, 100.0, 1.0, "a\udcff.tif"
    )
    ground.attribution = "(c) somebody\n  2020\x1b[2J"
    engine = load_engine(toy_encoder, threads=1)
    plan = plan_pack(ground, engine.spec, None, (80.0,), 0.5)
    build_pack([ground], engine, plan, tmp_path / "p", BuildOptions())
    with open_pack(tmp_path / "p") as pack:
        (layer,) = pack.manifest.layers
    assert (layer.name, layer.attribution) == ("a?.tif", "(c) somebody 2020?[2J")


def test_manifest_tells_source_and_credit_but_no_folder(whole: Path, toy_encoder: Path) -> None:
    with open_pack(whole) as pack:
        (layer,) = pack.manifest.layers
        assert (layer.name, layer.attribution) == ("toy.tif", "toy imagery, public domain")
        assert layer.gsd_m == pytest.approx(0.5, rel=1e-3)
        assert pack.spec == load_engine(toy_encoder).spec
    assert str(Path.cwd()).encode() not in whole.read_bytes()


def test_small_levels_are_scanned_whole_and_large_ones_by_a_sample(whole: Path) -> None:
    with open_pack(whole) as pack:
        fine, coarse = pack.manifest.levels
        assert fine.vectors >= 200 > coarse.vectors
        assert (fine.search.method, coarse.search.method) == ("sample", "exact")
        assert fine.search.recall_at_1 >= 0.99
        assert "level0.sample" in pack.section_bytes
        assert "level1.sample" not in pack.section_bytes


def test_picture_is_left_out_on_request(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    build(toy_source, toy_encoder, tmp_path / "p", overview=False)
    with open_pack(tmp_path / "p") as pack:
        assert pack.overview() is None
        assert "overview" not in pack.section_bytes


def test_a_second_date_and_headings_give_more_vectors_of_each_place(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    with closing(open_ground(str(toy_source))) as ground:
        engine = load_engine(toy_encoder, threads=1)
        plan: Plan = plan_pack(ground, engine.spec, None, (80.0,))
        options = BuildOptions(headings=4)
        build_pack([ground, ground], engine, plan, tmp_path / "p", options)
    with open_pack(tmp_path / "p") as pack:
        cells, variants = pack.cells(0), pack.variants(0)
        places = len(np.unique(cells))
        assert len(cells) == 8 * places
        assert (np.bincount(variants) == places).all()
        # Both layers are the same picture: their tiles share vectors.
        assert pack.manifest.levels[0].vectors == 4 * places
        assert [v.heading_deg for v in pack.manifest.variants] == [0, 90, 180, 270] * 2
        pack.verify()


def test_level_without_imagery_is_refused(tmp_path: Path, toy_encoder: Path) -> None:
    rgb, valid = np.zeros((200, 200, 3), np.uint8), np.zeros((200, 200), bool)
    ground = ArrayGround(rgb, valid, LocalFrame(47.0, 8.0), -100.0, 100.0, 1.0, "empty.tif")
    engine = load_engine(toy_encoder)
    plan = plan_pack(ground, engine.spec, None, (80.0,), 0.5)
    with pytest.raises(InputError) as error:
        build_pack([ground], engine, plan, tmp_path / "p", BuildOptions())
    assert str(error.value) == (
        "empty.tif: level 80: none of 16 tiles has 60% imagery; lower --min-valid or choose "
        "another --bbox"
    )


def test_progress_runs_to_its_total(tmp_path: Path, toy_source: Path, toy_encoder: Path) -> None:
    bars: list[list[Any]] = []

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Any]:
        bar = [description, total, 0]
        bars.append(bar)

        def advance(steps: int) -> None:
            bar[2] += steps

        yield advance

    build(toy_source, toy_encoder, tmp_path / "p", progress=progress)
    assert [bar[0] for bar in bars] == [
        "tiles",
        "trial views",
        "level 40 m: links",
        "level 80 m: links",
    ]
    assert all(bar[1] == bar[2] for bar in bars)


def test_shares_of_found_views_are_told(whole: Path) -> None:
    with open_pack(whole) as pack:
        shares = pack.manifest.projection.shares
        assert set(shares) >= {"full", str(pack.manifest.projection.dims)}
        assert all(0 <= level.found <= 1 for level in pack.manifest.levels)


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
    build_pack([ground], engine, plan, tmp_path / "p", BuildOptions(), silent)
    with open_pack(tmp_path / "p") as pack:
        assert plan.lattices[0].count >= len(pack.east_m) >= least
        east, north = pack.frame.to_local(lat, lon)
        assert np.hypot(pack.east_m - east, pack.north_m - north).min() < level_m / 2
        overview = pack.overview()
        assert overview is not None and overview[0].mean() > 20
    ground.close()


def test_a_build_that_did_nothing_leaves_nothing(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    with pytest.raises(Killed):
        build(toy_source, toy_encoder, tmp_path / "p", 3)
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_a_build_is_readable(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    with pytest.raises(Killed):
        build(toy_source, toy_encoder, tmp_path / "p", TILE_CALLS[0] + 1)
    plan = json.loads((work_path(tmp_path / "p") / "build.json").read_text())
    assert plan["imagery"][0][0] == str(toy_source)


def test_what_lies_in_a_work_folder_without_its_plan_is_not_used(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    with pytest.raises(Killed):
        build(toy_source, toy_encoder, tmp_path / "p", TILE_CALLS[0])
    (work_path(tmp_path / "p") / "build.json").unlink()
    for name in ("p", "fresh"):
        build(toy_source, toy_encoder, tmp_path / name, levels_m=(48.0, 80.0))
    assert sha256(tmp_path / "p") == sha256(tmp_path / "fresh")


def test_what_a_killed_build_has_torn_beside_the_pack_is_removed(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    torn = tmp_path / ".p.s4gpack.4194305.tmp.s4gpack"  # of a process that cannot be
    torn.write_bytes(b"torn")
    build(toy_source, toy_encoder, tmp_path / "p.s4gpack")
    assert [path.name for path in tmp_path.iterdir()] == ["p.s4gpack"]


def test_a_folder_in_place_of_the_pack_is_refused_before_any_work(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    with pytest.raises(InputError) as error:
        build(toy_source, toy_encoder, tmp_path, overwrite=True)
    assert str(error.value) == f"{tmp_path}: is a folder; name a file for the pack"


def test_imagery_that_changed_behind_a_vrt_is_refused(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    shutil = pytest.importorskip("rasterio.shutil")
    raster, vrt = tmp_path / "behind.tif", tmp_path / "front.vrt"
    raster.write_bytes(toy_source.read_bytes())
    shutil.copy(raster, vrt, driver="VRT")
    with pytest.raises(Killed):
        build(vrt, toy_encoder, tmp_path / "p", TILE_CALLS[0])
    os.utime(raster, (1, 1))
    with pytest.raises(InputError, match=r"p: was begun with another imagery; repeat the former "):
        build(vrt, toy_encoder, tmp_path / "p")
