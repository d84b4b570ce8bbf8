from __future__ import annotations

import errno
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")

import rasterio
import rasterio.errors
import rasterio.warp
from pyproj import CRS

from s4g.core.errors import InputError, S4GError
from s4g.tilepacks.ambiguity import Ambiguity, find_ambiguity
from s4g.tilepacks.geotiff import write_ambiguity, write_detail
from s4g.tilepacks.reader import Pack
from s4g.tilepacks.variants import Variant

_HERE = Path(__file__)
toy = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_vectors.py"))))
land = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_map.py"))))

Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Two levels; the second, on an oblong lattice, has holes and tiles of two dates."""
    rng = np.random.default_rng(2)
    first = land.tiles_of(land.lattice_of(12, 14), toy.unit(168, 8))
    lattice = land.lattice_of(9, 13, stride_px=24, footprint_m=96.0)
    places = np.sort(rng.permutation(lattice.count * 2)[:150])
    cells, variants = np.divmod(places, 2)
    detail = rng.integers(0, 256, 150)
    second = land.tiles_of(lattice, toy.unit(150, 8, 1), cells, variants, detail)
    path = tmp_path_factory.mktemp("pack") / "p.s4gpack"
    opened: Pack = land.write_map(path, [first, second], (Variant(0, 0.0), Variant(0, 180.0)))
    return opened


def at_places(path: Path, pack: Pack, tiles: npt.NDArray[np.int64]) -> Floats:
    """What a GIS finds (T, bands) where tiles lie, by latitude and longitude."""
    lat, lon = pack.frame.to_wgs84(pack.east_m[tiles], pack.north_m[tiles])
    with rasterio.open(path) as file:
        xs, ys = rasterio.warp.transform("EPSG:4326", file.crs, lon.tolist(), lat.tolist())
        return np.array(list(file.sample(zip(xs, ys, strict=True))), np.float64)


def tiles_by_place(pack: Pack, level: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for number, cell in enumerate(pack.cells(level).tolist()):
        found.setdefault(cell, []).append(number)
    return found


def test_every_place_has_the_values_of_its_tile(pack: Pack, tmp_path: Path) -> None:
    path, found = tmp_path / "a.tif", find_ambiguity(pack, 1)
    write_ambiguity(path, pack, 1, found)
    values = at_places(path, pack, found.tiles)
    for numbers in tiles_by_place(pack, 1).values():
        hardest = max(numbers, key=lambda number: float(found.hardness[number]))
        expected = [found.cosine[hardest], found.away_m[hardest], found.margin[hardest]]
        for number in numbers:
            np.testing.assert_allclose(values[number], expected, rtol=1e-6)
    assert np.isfinite(values).all()


def test_what_there_is_to_see_is_told_in_grey_levels(pack: Pack, tmp_path: Path) -> None:
    path, tiles = tmp_path / "d.tif", np.arange(pack.levels[0].count)
    write_detail(path, pack, 0)
    assert at_places(path, pack, tiles)[:, 0].tolist() == [6.0] * len(tiles)
    write_detail(path, pack, 1, overwrite=True)
    record = pack.levels[1]
    values = at_places(path, pack, np.arange(record.first, record.first + record.count))[:, 0]
    detail = pack.detail(1) / 16
    for numbers in tiles_by_place(pack, 1).values():
        assert set(values[numbers].tolist()) <= set(detail[numbers].tolist())
        assert len(set(values[numbers].tolist())) == 1


@pytest.mark.parametrize(
    ("hard", "margins"), [(0, (-0.1, 0.2)), (1, (0.2, -0.1))], ids=["first", "second"]
)
def test_of_two_dates_in_a_place_the_hardest_counts(
    tmp_path: Path, hard: int, margins: tuple[float, float]
) -> None:
    tiles = land.tiles_of(land.lattice_of(1, 1), toy.unit(2, 8), [0, 0], [0, 1])
    names = Variant(0, 0.0), Variant(0, 180.0)
    with land.write_map(tmp_path / "p.s4gpack", [tiles], names) as pack:
        left, cosine = np.array(margins, np.float32), np.array([0.7, 0.7], np.float32)
        cosine[1 - hard] = 0.75  # more like its rival, but its own ground changes less
        found = Ambiguity(
            np.arange(2), pack.east_m, pack.north_m, cosine,
            np.arange(2), np.array([100.0, 200.0]), left + cosine,
        )  # fmt: skip
        write_ambiguity(tmp_path / "a.tif", pack, 0, found)
        values = at_places(tmp_path / "a.tif", pack, np.array([0]))[0]
    np.testing.assert_allclose(values, [0.7, (100.0, 200.0)[hard], -0.1], atol=1e-6)


def test_places_without_a_tile_have_no_value(pack: Pack, tmp_path: Path) -> None:
    path, lattice = tmp_path / "a.tif", pack.manifest.levels[1].lattice
    write_ambiguity(path, pack, 1, find_ambiguity(pack, 1))
    with rasterio.open(path) as file:
        image, nodata = file.read(), file.nodata
    filled = np.zeros((lattice.rows, lattice.columns), np.bool_)
    filled.flat[pack.cells(1)] = True
    assert np.isnan(nodata)
    assert not filled.all()
    for band in image:
        assert (np.isfinite(band) == filled).all()


def test_tiles_that_were_not_compared_have_no_value(pack: Pack, tmp_path: Path) -> None:
    write_ambiguity(tmp_path / "a.tif", pack, 0, find_ambiguity(pack, 0, 7))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert [int(np.isfinite(band).sum()) for band in file.read()] == [7, 7, 7]


def test_without_a_rival_nothing_is_told(tmp_path: Path) -> None:
    tiles = land.tiles_of(land.lattice_of(2, 2), toy.unit(4, 8))
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        write_ambiguity(tmp_path / "a.tif", pack, 0, find_ambiguity(pack, 0))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert np.isnan(file.read()).all()


def test_of_tiles_that_do_not_overlap_the_margin_is_unknown(tmp_path: Path) -> None:
    tiles = land.tiles_of(land.lattice_of(3, 3, stride_px=64), toy.unit(9, 8))
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        write_ambiguity(tmp_path / "a.tif", pack, 0, find_ambiguity(pack, 0))
    with rasterio.open(tmp_path / "a.tif") as file:
        cosine, away, margin = file.read()
    assert np.isfinite(cosine).all() and (away >= 64).all() and np.isnan(margin).all()


def test_the_file_says_what_it_holds(pack: Pack, tmp_path: Path) -> None:
    write_ambiguity(tmp_path / "a.tif", pack, 1, find_ambiguity(pack, 1))
    write_detail(tmp_path / "d.tif", pack, 1)
    lattice = pack.manifest.levels[1].lattice
    with rasterio.open(tmp_path / "a.tif") as file, rasterio.open(tmp_path / "d.tif") as other:
        assert file.descriptions == ("rival_cosine", "rival_away_m", "margin")
        assert other.descriptions == ("detail_grey",)
        for one in (file, other):
            assert set(one.dtypes) == {"float32"}
            assert one.shape == (9, 13)
            assert one.res == (36.0, 36.0)
            assert (one.tags()["pack"], one.tags()["level_m"]) == ("p.s4gpack", "96")
            assert CRS.from_wkt(one.crs.to_wkt()).equals(CRS.from_user_input(pack.frame.crs))
            middle = one.xy(0, 0)
            assert middle == pytest.approx((lattice.west_m + 48, lattice.north_m - 48))
            assert one.overviews(1) == []


@pytest.mark.parametrize(
    ("rows", "columns", "factors"),
    [(1, 256, []), (1, 257, [2]), (513, 8, [2, 4]), (600, 300, [2, 4])],
)
def test_a_large_level_has_overviews(
    tmp_path: Path, rows: int, columns: int, factors: list[int]
) -> None:
    lattice = land.lattice_of(rows, columns, stride_px=1)
    cells = np.unique([0, columns - 1, (rows // 2) * columns, rows * columns - 1])
    detail = 16 * (1 + np.arange(len(cells)))
    tiles = land.tiles_of(lattice, toy.unit(len(cells), 8), cells, detail=detail)
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        write_detail(tmp_path / "d.tif", pack, 0)
        values = at_places(tmp_path / "d.tif", pack, np.arange(len(cells)))[:, 0]
        assert values.tolist() == (pack.detail(0) / 16).tolist()
    with rasterio.open(tmp_path / "d.tif") as file:
        assert file.overviews(1) == factors
        image = file.read(1)
    assert np.flatnonzero(np.isfinite(image)).tolist() == cells.tolist()
    if factors:
        # What has no value takes no part in the average.
        with rasterio.open(tmp_path / "d.tif", overview_level=0) as file:
            assert file.read(1)[0, 0] == 1.0
            assert np.isfinite(file.read(1)).sum() == len(cells)


def test_a_lattice_with_few_tiles_makes_a_small_file(tmp_path: Path) -> None:
    lattice = land.lattice_of(3000, 3000, stride_px=1)
    tiles = land.tiles_of(lattice, toy.unit(2, 8), [0, lattice.count - 1])
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        write_detail(tmp_path / "d.tif", pack, 0)
        values = at_places(tmp_path / "d.tif", pack, np.arange(2))
    assert values[:, 0].tolist() == [6.0, 6.0]
    assert (tmp_path / "d.tif").stat().st_size < 200_000


def test_a_level_too_wide_is_refused(tmp_path: Path) -> None:
    lattice = land.lattice_of(1, 200_001, stride_px=1, footprint_m=6.4)
    tiles = land.tiles_of(lattice, toy.unit(2, 8), [0, 200_000])
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        with pytest.raises(InputError) as error:
            write_detail(tmp_path / "d.tif", pack, 0)
        assert str(error.value) == (
            f"{pack.path}: level 6.4 m is 200,001 tiles wide, too many for a GeoTIFF; export a "
            "GeoPackage instead"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["p.s4gpack"]


def test_an_existing_file_is_kept(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "d.tif"
    path.write_text("mine")
    with pytest.raises(InputError) as error:
        write_detail(path, pack, 0)
    assert str(error.value) == f"{path}: already exists; pass --overwrite to replace it"
    assert path.read_text() == "mine"
    write_detail(path, pack, 0, overwrite=True)
    assert [found.name for found in tmp_path.iterdir()] == ["d.tif"]
    with rasterio.open(path) as file:
        assert file.count == 1


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "(No space left on device); free some space or choose another place"),
        (errno.EROFS, "(Read-only file system); choose another place"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    def full(file: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number), str(file))

    path = tmp_path / "d.tif"
    path.write_text("mine")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(S4GError) as error:
        write_detail(path, pack, 0, overwrite=True)
    assert str(error.value) == f"{path}: cannot write {told}; nothing was left behind"
    assert error.value.exit_code == 1
    assert [found.name for found in tmp_path.iterdir()] == ["d.tif"]
    assert path.read_text() == "mine"


def test_a_disk_that_is_full_is_one_line_with_no_word_of_gdal(pack: Pack, tmp_path: Path) -> None:
    # A limit on the size of files stands in for a full disk: GDAL itself would meet it too.
    code = (
        "import resource, sys; from s4g.tilepacks.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)); main()"
    )
    path = tmp_path / "d.tif"
    words = ["preview", str(pack.path), "--out", str(path)]
    run = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        f"error: {path}: cannot write (File too large); free some space or choose another place; "
        "nothing was left behind\n"
    )


def test_rasterio_missing_is_said(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(S4GError, match="needs rasterio: pip install 's4g\\[pack\\]'"):
        write_detail(tmp_path / "d.tif", pack, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_same_pack_makes_the_same_file(pack: Pack, tmp_path: Path) -> None:
    found = find_ambiguity(pack, 0)
    for name in ("a.tif", "b.tif"):
        write_ambiguity(tmp_path / name, pack, 0, found)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
