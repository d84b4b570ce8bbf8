"""Folders of tiles: what is in them is found where it lies, whatever else lies there."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import LocalFrame, mercator_from_wgs84, mercator_gsd_m
from s4g.core.ground import GroundWindow
from s4g.core.images import read_rgb
from s4g.core.source_xyz_folder import XyzFolderReader, is_xyz_folder
from s4g.core.sources import open_ground
from s4g.core.tile_pyramid import tiles_bounds

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_tiles.py"))))


def folder_of(path: Path, *names: str) -> Path:
    """Write a tile under each name."""
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(toy.png())
    return path


def message_of(folder: Path, kind: type[InputError] = InputError) -> str:
    with pytest.raises(kind) as error:
        XyzFolderReader(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_agrees_with_the_orthophoto(tmp_path: Path) -> None:
    toy.write_orthophoto(tmp_path / "o.tif")
    toy.write_mbtiles(tmp_path / "o.tif", tmp_path / "o.mbtiles")
    toy.write_folder(toy.tiles_of(tmp_path / "o.mbtiles"), tmp_path / "tiles", ".png")
    source = open_ground(str(tmp_path / "tiles"))
    assert source.gsd_m == mercator_gsd_m(source.bounds.center[0], 18)
    toy.check_against_orthophoto(source, tmp_path / "o.tif")
    source.close()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp"])
def test_every_kind_of_picture_is_found(tmp_path: Path, suffix: str) -> None:
    image = np.full((512, 512, 3), 90, np.uint8)
    path = tmp_path / "5" / "17" / f"9{suffix}"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), image)
    reader = XyzFolderReader(tmp_path)
    assert reader.tile(5, 17, 9) == path.read_bytes()
    assert reader.tile_px == 512
    assert reader.bounds == tiles_bounds(5, 17, 9, 18, 10)


def test_what_is_not_there_is_a_hole(tmp_path: Path) -> None:
    reader = XyzFolderReader(folder_of(tmp_path, "4/3/5.png", "4/6/2.png"))
    assert reader.tile(4, 3, 2) is None and reader.tile(4, 5, 5) is None
    assert reader.tile(9, 1, 1) is None
    assert reader.bounds == tiles_bounds(4, 3, 2, 7, 6)


def test_zooms_are_found_by_listing_and_end_at_a_gap(tmp_path: Path) -> None:
    names = ("2/1/1.png", "5/9/9.png", "6/18/18.png", "7/36/37.png")
    reader = XyzFolderReader(folder_of(tmp_path, *names))
    assert (reader.min_zoom, reader.max_zoom) == (5, 7)
    assert reader.bounds == tiles_bounds(7, 36, 37, 37, 38)


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    names = ("4/3/5.png", "4/3/5@2x.png", "4/3/007.png", "4/3/6.txt", "4/x/5.png", "a/1/1.png",
             "4/²/1.png", "index.html", "4/9999999999999999999999/1.png")  # fmt: skip
    reader = XyzFolderReader(folder_of(tmp_path, *names))
    assert reader.bounds == tiles_bounds(4, 3, 5, 4, 6)


def test_a_folder_of_tiles_is_told_from_others(tmp_path: Path) -> None:
    assert is_xyz_folder(folder_of(tmp_path / "a", "4/3/5.png"))
    assert not is_xyz_folder(folder_of(tmp_path / "b", "4/a.tif", "2024/x/1.png"))
    assert not is_xyz_folder(folder_of(tmp_path / "c", "1.png", "2.png"))


def test_rows_from_the_south_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "4/3/5.png", "tilemapresource.xml")
    assert message_of(folder) == (
        f"{folder}: holds tilemapresource.xml, so its rows count from the south; "
        "make it again with gdal2tiles --xyz"
    )


@pytest.mark.parametrize("name", ["a/1/1.png", "31/1/1.png"])
def test_a_folder_without_zooms_is_refused(tmp_path: Path, name: str) -> None:
    assert message_of(folder_of(tmp_path, name)) == (
        f"{tmp_path}: holds no folders of zooms 0 to 30, expected z/x/y.png"
    )


def test_a_folder_without_tiles_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "4/3/a.png", "3/1/1.png")
    assert message_of(folder) == f"{folder}: holds no tiles 4/x/y.png"


def test_a_number_outside_its_zoom_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "4/3/5.png", "4/16/5.png")
    assert message_of(folder, IntegrityError) == (
        f"{folder}: column 16 or row 5 is outside zoom 4; expected z/x/y.png"
    )


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>"])
def test_a_first_tile_that_is_no_picture_is_named(tmp_path: Path, data: bytes) -> None:
    folder = folder_of(tmp_path, "4/3/5.png")
    (folder / "4/3/5.png").write_bytes(data)
    shown = repr(data[:16])[1:]
    assert message_of(folder, IntegrityError) == (
        f"{folder}: tile 4/3/5 is no PNG, JPEG or WebP (begins {shown}); "
        "remove it or fetch it again"
    )


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    reader = XyzFolderReader(folder_of(tmp_path, "4/3/5.png", "4/3/6.png"))
    path = tmp_path / "4/3/6.png"
    path.write_bytes(bytes((4 << 20) + 1))
    with pytest.raises(IntegrityError) as error:
        reader.tile(4, 3, 6)
    assert str(error.value) == f"{path}: has more than 4194304 bytes, too large for a tile"


def test_a_tile_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    reader = XyzFolderReader(folder_of(tmp_path, "4/3/5.png", "4/3/6.png/a"))
    with pytest.raises(InputError) as error:
        reader.tile(4, 3, 6)
    assert str(error.value) == f"{tmp_path / '4/3/6.png'}: cannot be read (Is a directory)"


def alpha_of(path: Path) -> npt.NDArray[np.uint8]:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    opaque = np.full(picture.shape[:2], 255)
    return np.asarray(picture[..., 3] if picture.shape[2] == 4 else opaque, np.uint8)


PLACES = ("kampala", "nairobi", "nepal_banepa", "philippines_catanduanes", "zanzibar")


@pytest.mark.parametrize("place", PLACES)
def test_real_tiles_show_their_own_pixels_where_they_lie(data_dir: Path, place: str) -> None:
    folder = data_dir / "oam_xyz_tiles" / place
    if not folder.is_dir():
        pytest.skip(f"no tiles of OpenAerialMap at {folder}")
    source = open_ground(str(folder))
    zoom = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    paths = sorted((folder / str(zoom)).glob("*/*.png"))
    covered = 0.0
    for path in paths[:: max(1, len(paths) // 5)]:
        x, y = int(path.parent.name), int(path.stem)
        box = tiles_bounds(zoom, x, y, x + 1, y + 1)
        gsd_m = mercator_gsd_m(box.center[0], zoom)
        frame = LocalFrame(*box.center)
        image = source.read(frame, GroundWindow(-90 * gsd_m, 90 * gsd_m, gsd_m, 180, 180))
        # Where each pixel lies in the tile, straight from the projection.
        rows, columns = np.indices((180, 180))
        lat, lon = frame.to_wgs84((columns - 89.5) * gsd_m, (89.5 - rows) * gsd_m)
        east, north = mercator_from_wgs84(lat, lon)
        world_m = 2 * 20037508.342789244
        column = (((east / world_m + 0.5) * (1 << zoom) - x) * 256 - 0.5).astype(np.float32)
        row = (((0.5 - north / world_m) * (1 << zoom) - y) * 256 - 0.5).astype(np.float32)
        wanted = cv2.remap(read_rgb(path), column, row, cv2.INTER_LINEAR)
        seen = cv2.remap(alpha_of(path), column, row, cv2.INTER_LINEAR)
        assert image.valid[seen == 255].all() and not image.valid[seen == 0].any()
        assert np.abs(image.rgb.astype(float) - wanted)[seen == 255].mean() < 0.5
        covered += (seen == 255).mean()
    assert covered > 1, "most of the tiles show something"
    source.close()


def test_real_tiles_of_two_zooms_show_the_same_ground(data_dir: Path) -> None:
    folder = data_dir / "oam_xyz_tiles" / "nairobi"
    if not folder.is_dir():
        pytest.skip(f"no tiles of OpenAerialMap at {folder}")
    source = open_ground(str(folder))
    paths = sorted((folder / "19").glob("*/*.png"))
    path = paths[len(paths) // 2]
    box = tiles_bounds(19, int(path.parent.name), int(path.stem),
                       int(path.parent.name) + 1, int(path.stem) + 1)  # fmt: skip
    frame = LocalFrame(*box.center)
    gsd_m = mercator_gsd_m(box.center[0], 19)
    coarse = source.read(frame, GroundWindow(-80 * gsd_m, 80 * gsd_m, gsd_m, 160, 160))
    fine = source.read(frame, GroundWindow(-80 * gsd_m, 80 * gsd_m, gsd_m / 2, 320, 320))
    assert coarse.valid.all() and fine.valid.all()
    shrunk = cv2.resize(fine.rgb, (160, 160), interpolation=cv2.INTER_AREA)
    greys = [
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float) for image in (coarse.rgb, shrunk)
    ]
    window = cv2.createHanningWindow((160, 160), cv2.CV_64F)
    (x, y), response = cv2.phaseCorrelate(*greys, window)
    assert np.hypot(x, y) < 0.25 and response > 0.5
    source.close()
