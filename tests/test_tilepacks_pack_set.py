from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.engine import Engine, load_engine
from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import BBox
from s4g.core.ground import GroundImage, GroundSource, GroundWindow
from s4g.core.sources import open_ground
from s4g.tilepacks import build_set as build_set_module
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.build_set import build_set
from s4g.tilepacks.extract import extract_from_set, extract_pack
from s4g.tilepacks.format import encode_container, open_container
from s4g.tilepacks.grid import moved_cells, offset
from s4g.tilepacks.info import set_info, set_text
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.pack_set import INDEX, PackSet, open_set
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.signature import make_keys, sign_pack
from s4g.tilepacks.work import work_path

OPTIONS = BuildOptions(dims=16, overview=False)
LEVELS = (48.0, 96.0)


class Killed(Exception):
    """Stands for the end of the process."""


class Stopping:
    """An engine that dies at its n-th call."""

    def __init__(self, engine: Engine, calls: int) -> None:
        self._engine, self._left = engine, calls
        self.name, self.spec, self.backend = engine.name, engine.spec, engine.backend

    def embed(self, images: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Killed
        return self._engine.embed(images)


def build(source: Path, encoder: Path, out: Path, calls: int | None = None, **given: Any) -> None:
    with (
        closing(load_engine(encoder, threads=1)) as engine,
        closing(open_ground(str(source))) as ground,
    ):
        plan = plan_pack(ground, engine.spec, None, LEVELS)
        used: Any = engine if calls is None else Stopping(engine, calls)
        build_set([ground], used, plan, 130.0, out, OPTIONS, **given)


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def folder(toy_source: Path, toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("set") / "toy.s4gpacks"
    build(toy_source, toy_encoder, path)
    return path


@pytest.fixture(scope="module")
def whole(toy_source: Path, toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same region as one pack."""
    path = tmp_path_factory.mktemp("whole") / "toy.s4gpack"
    with (
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
    ):
        plan = plan_pack(ground, engine.spec, None, LEVELS)
        build_pack([ground], engine, plan, path, OPTIONS)
    return path


def copy_of(folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / "copy.s4gpacks"
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return out


def test_a_set_is_a_folder_of_packs_and_an_index_and_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.s4gset",
        *(f"r{row:03d}c{column:03d}.s4gpack" for row in range(2) for column in range(2)),
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["toy.s4gpacks"]


def test_packs_of_a_set_share_frame_grid_and_projection_and_no_tile(
    folder: Path, whole: Path
) -> None:
    with open_pack(whole) as one, open_set(folder) as packs:
        places: list[set[int]] = []
        matrices = set()
        for place in packs.packs:
            with packs.open(place) as pack:
                assert pack.frame == one.frame == packs.frame
                matrices.add(pack.projection.matrix.tobytes())  # type: ignore[union-attr]
                fine = pack.manifest.levels[0].lattice
                grid = one.manifest.levels[0].lattice
                assert offset(grid, fine) is not None
                places.append(set(moved_cells(pack.cells(0), fine, grid).tolist()))
        assert len(matrices) == 1
        assert sum(len(own) for own in places) == len(set().union(*places))
        assert set().union(*places) == set(one.cells(0).tolist())
        assert packs.tiles == sum(level.count for level in one.levels)
        assert [level.tiles for level in packs.levels] == [level.count for level in one.levels]


@pytest.mark.parametrize("stops", [(0,), (3, 4), (9, 9, 9)])
def test_an_interrupted_set_goes_on_to_the_same_bytes(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, folder: Path, stops: tuple[int, ...]
) -> None:
    out = tmp_path / "toy.s4gpacks"
    for calls in stops:
        with pytest.raises(Killed):
            build(toy_source, toy_encoder, out, calls)
        assert not out.exists()
    build(toy_source, toy_encoder, out)
    assert hashes(out) == hashes(folder)
    assert not work_path(out).exists()


def test_a_set_is_not_replaced_unless_told(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, folder: Path
) -> None:
    out = copy_of(folder, tmp_path)
    (out / "r000c000.s4gpack").write_bytes(b"old")
    with pytest.raises(InputError) as error:
        build(toy_source, toy_encoder, out)
    assert str(error.value) == f"{out}: already exists; pass --overwrite to replace it"
    build(toy_source, toy_encoder, out, overwrite=True)
    assert hashes(out) == hashes(folder)


def test_a_set_of_another_name_is_refused(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    with pytest.raises(InputError) as error:
        build(toy_source, toy_encoder, tmp_path / "toy.s4gpack")
    assert str(error.value) == (
        f"{tmp_path / 'toy.s4gpack'}: a set of packs is a folder; name it toy.s4gpacks"
    )


def test_what_a_killed_build_has_torn_is_no_part_of_the_set(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, folder: Path
) -> None:
    out = tmp_path / "toy.s4gpacks"
    with pytest.raises(Killed):
        build(toy_source, toy_encoder, out, 9)
    packs = work_path(out) / "packs"
    (packs / ".r000c001.s4gpack.999.tmp.s4gpack").write_bytes(b"torn")
    (packs / "r000c001.s4gpack").write_bytes(b"of which nobody knows that it is done")
    build(toy_source, toy_encoder, out)
    assert hashes(out) == hashes(folder)


def test_packs_that_vanished_are_made_again(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, folder: Path, monkeypatch: Any
) -> None:
    out = tmp_path / "toy.s4gpacks"

    def died(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(build_set_module, "replace_folder", died)
        with pytest.raises(Killed):
            build(toy_source, toy_encoder, out)
    (work_path(out) / "packs" / "r001c000.s4gpack").unlink()
    build(toy_source, toy_encoder, out)
    assert hashes(out) == hashes(folder)


def test_a_folder_that_is_no_set_is_never_replaced(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    out = tmp_path / "toy.s4gpacks"
    out.mkdir()
    (out / "photos").write_bytes(b"dear")
    with pytest.raises(InputError) as error:
        build(toy_source, toy_encoder, out, overwrite=True)
    assert str(error.value) == (
        f"{out}: is no set of packs and is not replaced by one; choose another --out"
    )
    assert (out / "photos").read_bytes() == b"dear"


def test_a_level_without_a_tile_anywhere_is_told(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    out = tmp_path / "s.s4gpacks"
    with (
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
    ):
        strip = Half(ground, -100.0)  # 60 m wide: room for tiles of 48 m, not of 96 m
        plan = plan_pack(strip, engine.spec, None, LEVELS)
        options = BuildOptions(dims=16, overview=False, min_valid=0.9)
        notes = build_set([strip], engine, plan, 130.0, out, options)
    assert notes == ["level 96: left out, no tile has 90% imagery"]
    with open_set(out) as packs:
        assert [level.footprint_m for level in packs.levels] == [48.0]


class Half:
    """The western half of a source; the rest of it is a hole."""

    def __init__(self, ground: GroundSource, east_m: float) -> None:
        self._ground, self._east = ground, east_m
        self.name, self.bounds = ground.name, ground.bounds
        self.attribution, self.gsd_m = ground.attribution, ground.gsd_m

    def read(self, frame: Any, window: GroundWindow) -> GroundImage:
        image = self._ground.read(frame, window)
        east = window.west_m + window.gsd_m * np.arange(window.width_px)
        return GroundImage(image.rgb, image.valid & (east < self._east))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("east_m", [0.0, -1e4], ids=["half", "none"])
def test_places_without_imagery_have_no_pack(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, east_m: float
) -> None:
    out = tmp_path / "h.s4gpacks"
    with (
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
    ):
        half = Half(ground, east_m)
        plan = plan_pack(half, engine.spec, None, (48.0,))
        if east_m == 0.0:
            build_set([half], engine, plan, 130.0, out, OPTIONS)
            assert sorted(p.name for p in out.iterdir())[1:] == [
                "r000c000.s4gpack",
                "r001c000.s4gpack",
            ]
            return
        with pytest.raises(InputError) as error:
            build_set([half], engine, plan, 130.0, out, OPTIONS)
    assert str(error.value) == (
        f"{half.name}: none of 4 packs has a tile with 60% imagery; lower --min-valid or choose "
        "another region"
    )
    assert not list(tmp_path.iterdir())


def test_a_part_of_a_set_is_the_same_part_of_one_pack(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, folder: Path
) -> None:
    joined, part = tmp_path / "all.s4gpack", tmp_path / "part.s4gpack"
    with open_set(folder) as packs:
        box = packs.bounds
        extract_from_set(packs, box, joined)
        lat, lon = box.center
        quarter = (box.east - box.west) / 4
        middle = BBox(lon - quarter, box.south, lon + quarter, box.north)
        extract_from_set(packs, middle, part)
    with open_pack(joined) as one, open_pack(part) as flight:
        extract_pack(one, middle, tmp_path / "again.s4gpack")
        assert flight.levels[0].count < one.levels[0].count == packs.levels[0].tiles
    assert part.read_bytes() == (tmp_path / "again.s4gpack").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.s4gpack",
        "all.s4gpack",
        "part.s4gpack",
    ]


def test_a_part_without_a_tile_is_refused(tmp_path: Path, folder: Path) -> None:
    with open_set(folder) as packs, pytest.raises(InputError) as error:
        lat, lon = packs.bounds.center
        extract_from_set(packs, BBox(lon, lat, lon + 1e-5, lat + 1e-5), tmp_path / "p.s4gpack")
    assert str(error.value).endswith(
        f": holds no tile of {folder}, which covers {packs.bounds}; choose a larger region"
    )
    assert not list(tmp_path.iterdir())


def test_packs_that_have_a_part_of_a_box_are_told(folder: Path) -> None:
    with open_set(folder) as packs:
        lat, lon = packs.bounds.center
        west = BBox(packs.bounds.west, packs.bounds.south, lon - 1e-4, packs.bounds.north)
        assert [p.file for p in packs.meeting(west)] == ["r000c000.s4gpack", "r001c000.s4gpack"]
        assert packs.meeting(BBox(50.0, 50.0, 51.0, 51.0)) == ()


def test_a_set_says_what_it_holds(folder: Path) -> None:
    with open_set(folder) as packs:
        told = set_info(packs)
        assert told["tiles"] == sum(pack["tiles"] for pack in told["packs"])
        assert told["bytes"] == sum((folder / p["file"]).stat().st_size for p in told["packs"])
        assert json.loads(json.dumps(told)) == told
        lines = set_text(told).splitlines()
    assert lines[0].startswith(f"{folder}: 4 packs, ")
    assert lines[3] == "signed      no"
    assert lines[-1].startswith("r001c001.s4gpack  ")


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", [INDEX, "r001c000.s4gpack"])
def test_a_set_altered_anywhere_is_refused(tmp_path: Path, folder: Path, name: str) -> None:
    out = copy_of(folder, tmp_path)
    _flip(out / name, (out / name).stat().st_size - 1)
    with pytest.raises(IntegrityError, match=f"{name}: damaged or altered: "):
        open_set(out).verify()


def test_an_index_that_tells_what_is_not_so_is_refused(tmp_path: Path, folder: Path) -> None:
    out = copy_of(folder, tmp_path)
    container = open_container(out / INDEX)
    rows = json.loads(bytes(container.section("packs")))
    rows[1]["bounds"]["west"] -= 0.5
    section = json.dumps(rows).encode()
    (out / INDEX).write_bytes(b"".join(encode_container(container.manifest, {"packs": section})))
    with open_set(out) as packs, pytest.raises(IntegrityError) as error:
        packs.verify()
    assert "damaged or altered: it tells of r000c001.s4gpack what is not so" in str(error.value)


def test_packs_that_changed_places_are_refused(tmp_path: Path, folder: Path) -> None:
    out = copy_of(folder, tmp_path)
    a, b = out / "r000c000.s4gpack", out / "r000c001.s4gpack"
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)
    with open_set(out) as packs, pytest.raises(IntegrityError) as error:
        packs.open(packs.packs[0])
    assert str(error.value).startswith(
        f"{a}: damaged or altered: it is not the pack that index.s4gset of its set names; "
    )


def test_sizes_are_those_of_the_files_not_of_the_index(tmp_path: Path, folder: Path) -> None:
    out = copy_of(folder, tmp_path)
    key, _ = make_keys(tmp_path / "ops")
    sign_pack(out / "r000c000.s4gpack", key)
    (out / "r001c001.s4gpack").unlink()
    with open_set(out) as packs:
        told = set_info(packs)
    sizes = {file.name: file.stat().st_size for file in out.glob("*.s4gpack")}
    assert told["bytes"] == sum(sizes.values())
    for pack in told["packs"]:
        assert pack["bytes"] == sizes.get(pack["file"])
    assert set_text(told).endswith(" tiles, its file is missing")


def test_what_is_no_part_of_a_set_is_told(
    tmp_path: Path, folder: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    out = copy_of(folder, tmp_path)
    (out / "older.s4gpack").write_bytes((out / "r000c000.s4gpack").read_bytes())
    note = f"note: {out / 'older.s4gpack'}: is no part of the set and was not verified\n"
    code, told, err = run("verify", out)
    assert (code, err) == (0, note)
    assert told.startswith(f"{out}: whole, ")
    code, told, err = run("verify", out, "--json")
    assert (code, err) == (0, note)
    assert json.loads(told)["not_verified"] == ["older.s4gpack"]
    assert json.loads(run("verify", folder, "--json")[1])["not_verified"] == []


def test_a_missing_pack_is_told(tmp_path: Path, folder: Path) -> None:
    out = copy_of(folder, tmp_path)
    (out / "r001c001.s4gpack").unlink()
    with open_set(out) as packs, pytest.raises(InputError) as error:
        packs.verify()
    assert str(error.value) == (
        f"{out / 'r001c001.s4gpack'}: is missing, index.s4gset of its set names it; copy the set "
        "again, or rebuild it with s4g-pack --shard"
    )


def test_a_folder_without_an_index_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_set(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: no pack set (a folder with index.s4gset); build one with s4g-pack --shard"
    )


Change = Callable[[dict[str, Any], list[dict[str, Any]]], object]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m, p: m.update(kind="cake"), "its manifest is not that of a pack set"),
        (lambda m, p: p.clear(), "section packs lists no packs, or too many"),
        (lambda m, p: p.append(p[0]), "section packs names a file twice"),
        (
            lambda m, p: p[0].update(file="../../etc/passwd.s4gpack"),
            "its entry '../../etc/passwd.s4gpack' is not the name of a pack",
        ),
        (
            lambda m, p: p[0].update(file=".hidden.s4gpack"),
            "its entry '.hidden.s4gpack' is not the name of a pack",
        ),
        (lambda m, p: p[1].update(tiles=-1), "its manifest entry packs.1.tiles is out of range"),
        (
            lambda m, p: p[1].pop("bounds"),
            "its manifest entry packs.1.bounds is missing or of a wrong type",
        ),
        (
            lambda m, p: m["levels"][0].update(stride_m=0),
            "its manifest entry levels.0.stride_m is 0, out of range",
        ),
    ],
)
def test_a_hostile_index_is_refused(
    tmp_path: Path, folder: Path, change: Change, reason: str
) -> None:
    out = copy_of(folder, tmp_path)
    container = open_container(out / INDEX)
    manifest, rows = container.manifest, json.loads(bytes(container.section("packs")))
    change(manifest, rows)
    section = json.dumps(rows).encode()
    (out / INDEX).write_bytes(b"".join(encode_container(manifest, {"packs": section})))
    with pytest.raises(IntegrityError) as error:
        open_set(out)
    assert str(error.value).startswith(f"{out / INDEX}: damaged or altered: {reason}; ")


def test_a_section_that_is_no_json_is_refused(tmp_path: Path, folder: Path) -> None:
    out = copy_of(folder, tmp_path)
    manifest = open_container(out / INDEX).manifest
    for section in (b"{", b"\xff", b"[" * 100_000):
        (out / INDEX).write_bytes(b"".join(encode_container(manifest, {"packs": section})))
        with pytest.raises(IntegrityError, match="section packs is not JSON"):
            open_set(out)


def test_a_set_is_closed_with_its_index(folder: Path) -> None:
    with open_set(folder) as packs:
        assert isinstance(packs, PackSet)
    with pytest.raises(ValueError):
        bytes(packs.container._view)
