"""Many rasters as one: order, holes, different projections and scales, and few files open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround, GroundImage, GroundWindow
from s4g.core.source_mosaic import MosaicGround, open_mosaic
from s4g.core.source_raster import RasterGround
from s4g.core.sources import open_ground

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")

FRAME = LocalFrame(44.97, -93.2)
WEST, NORTH = 480_000.0, 4_980_000.0


def write(
    path: Path,
    colour: int | npt.NDArray[Any],
    east_m: float = 0,
    gsd_m: float = 0.5,
    side_px: int = 100,
    crs: str = "EPSG:32615",
    **profile: Any,
) -> Path:
    """Write a square whose west edge lies `east_m` east of that of the others."""
    image = np.full((3, side_px, side_px), colour, np.uint8) if np.isscalar(colour) else colour
    x, y = Transformer.from_crs("EPSG:32615", crs, always_xy=True).transform(WEST + east_m, NORTH)
    settings: dict[str, Any] = {
        "driver": "GTiff",
        "height": image.shape[1],
        "width": image.shape[2],
        "count": image.shape[0],
        "dtype": str(image.dtype),
        "crs": crs,
        "transform": rasterio.Affine(gsd_m, 0, x, 0, -gsd_m, y),
        **profile,
    }
    with rasterio.open(path, "w", **settings) as file:
        file.write(image)
    return path


def around(lat: float, lon: float, size_m: float, gsd_m: float) -> tuple[LocalFrame, GroundWindow]:
    side = round(size_m / gsd_m)
    return LocalFrame(lat, lon), GroundWindow(-size_m / 2, size_m / 2, gsd_m, side, side)


def array(colour: int, valid: npt.NDArray[np.bool_], name: str = "array") -> ArrayGround:
    rgb = np.full((*valid.shape, 3), colour, np.uint8) * valid[..., None].astype(np.uint8)
    return ArrayGround(rgb, valid, FRAME, -10, 10, 0.5, name, f"credit {name}")


class CountingGround(ArrayGround):
    """An array that says how often it was read and closed."""

    reads: int = 0
    closes: int = 0

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        self.reads += 1
        return super().read(frame, window)

    def close(self) -> None:
        self.closes += 1


def counting(colour: int, west_m: float) -> CountingGround:
    rgb, valid = np.full((40, 40, 3), colour, np.uint8), np.ones((40, 40), np.bool_)
    return CountingGround(rgb, valid, FRAME, west_m, 10, 0.5, f"at {west_m}")


def test_a_folder_is_one_source(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 100)
    write(tmp_path / "b.TIF", 200, east_m=50)
    (tmp_path / "a.tfw").write_text("0.5\n")
    (tmp_path / "preview.png").write_bytes(b"no raster")
    source = open_ground(str(tmp_path))
    assert source.name == str(tmp_path)
    seen = source.read(*around(*source.bounds.center, 40, 0.5))
    assert seen.valid.all()
    assert (seen.rgb[:, :38] == 100).all() and (seen.rgb[:, 42:] == 200).all()
    source.close()


def test_a_pattern_is_one_source(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "a.tif", 100)
    write(tmp_path / "deep" / "b.tif", 200, east_m=50)
    whole = open_ground(f"{tmp_path}/**/*.tif")
    assert isinstance(whole, MosaicGround) and len(whole.sources) == 2
    assert whole.name == f"{tmp_path}/**/*.tif"
    one = open_ground(f"{tmp_path}/*.tif")
    assert isinstance(one, MosaicGround) and len(one.sources) == 1


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a[1].tif", 100)
    assert isinstance(open_ground(str(path)), RasterGround)


def test_the_finest_wins_then_the_first_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 50, gsd_m=1.0, side_px=50)
    write(tmp_path / "b.tif", 100)
    write(tmp_path / "c.tif", 150)
    source = open_ground(str(tmp_path))
    assert source.gsd_m == pytest.approx(0.5, rel=1e-3)
    assert (source.read(*around(*source.bounds.center, 20, 0.5)).rgb == 100).all()


def test_rasters_of_one_series_are_ordered_by_name(tmp_path: Path) -> None:
    # Scale on the ground differs in the fourth digit across a UTM zone.
    write(tmp_path / "a.tif", 50)
    write(tmp_path / "b.tif", 100, east_m=100_000)
    source = open_ground(str(tmp_path))
    assert isinstance(source, MosaicGround)
    assert [Path(s.name).name for s in source.sources] == ["a.tif", "b.tif"]
    assert source.sources[0].gsd_m > source.sources[1].gsd_m


def test_a_given_order_is_kept(tmp_path: Path) -> None:
    fine, coarse = write(tmp_path / "a.tif", 50), write(tmp_path / "b.tif", 100, gsd_m=1.0)
    source = open_mosaic([coarse, fine], "both", as_given=True)
    assert (source.read(*around(*source.sources[1].bounds.center, 20, 0.5)).rgb == 100).all()


def test_projections_may_differ(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 100)
    write(tmp_path / "b.tif", 200, east_m=48, gsd_m=0.7, crs="EPSG:3857")
    source = open_ground(str(tmp_path))
    lat, lon = source.bounds.center
    frame = LocalFrame(lat, lon)
    west, south, east, north = frame.local_bounds(source.bounds)
    window = GroundWindow(west, 10, 0.5, int((east - west) / 0.5), 40)
    seen = source.read(frame, window)
    middle = seen.valid[:, 8:-8]
    assert middle.all()
    assert {int(v) for v in np.unique(seen.rgb[:, 8:-8])} == {100, 200}


def test_holes_are_filled_pixel_by_pixel() -> None:
    checks = np.indices((40, 40)).sum(axis=0) // 4 % 2 == 0
    whole = np.ones((40, 40), np.bool_)
    mosaic = MosaicGround([array(50, checks), array(200, whole)])
    seen = mosaic.read(FRAME, GroundWindow(-10, 10, 0.5, 40, 40))
    assert seen.valid.all()
    assert ((seen.rgb[..., 0] == 50) == checks).all()
    assert (seen.rgb[~checks] == 200).all()


@given(
    masks=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=4),
    west_px=st.integers(-20, 20),
    north_px=st.integers(-20, 20),
)
def test_each_pixel_comes_from_the_first_source_that_has_it(
    masks: Sequence[int], west_px: int, north_px: int
) -> None:
    grids = [
        np.array([mask >> i & 1 for i in range(16)], np.bool_).reshape(4, 4).repeat(10, 0)
        for mask in masks
    ]
    sources = [array(10 + 10 * i, grid.repeat(10, 1)) for i, grid in enumerate(grids)]
    window = GroundWindow(-10 + west_px / 2, 10 - north_px / 2, 0.5, 40, 40)
    seen = MosaicGround(sources).read(FRAME, window)
    alone = [source.read(FRAME, window) for source in sources]
    valid = np.any([image.valid for image in alone], axis=0)
    expected = np.zeros_like(seen.rgb)
    for image in reversed(alone):
        expected[image.valid] = image.rgb[image.valid]
    assert (seen.valid == valid).all()
    assert (seen.rgb == expected).all()


def test_only_sources_in_the_window_are_read() -> None:
    sources = [counting(50, -10), counting(100, 10), counting(150, 5000)]
    mosaic = MosaicGround(sources)
    mosaic.read(FRAME, GroundWindow(-8, 8, 0.5, 8, 8))
    assert [s.reads for s in sources] == [1, 0, 0]
    mosaic.read(FRAME, GroundWindow(5, 8, 0.5, 20, 8))
    assert [s.reads for s in sources] == [2, 1, 0]
    assert not mosaic.read(FRAME, GroundWindow(2000, 0, 0.5, 8, 8)).valid.any()
    assert [s.reads for s in sources] == [2, 1, 0]


def test_a_source_that_would_be_hidden_is_not_read() -> None:
    sources = [counting(50, -10), counting(100, -10)]
    MosaicGround(sources).read(FRAME, GroundWindow(-8, 8, 0.5, 8, 8))
    assert [s.reads for s in sources] == [1, 0]


def test_another_frame_finds_the_same_ground() -> None:
    mosaic = MosaicGround([counting(50, -10), counting(100, 10)])
    other = LocalFrame(44.98, -93.25)
    east, north = other.to_local(FRAME.lat_deg, FRAME.lon_deg)
    for _ in range(2):
        seen = mosaic.read(other, GroundWindow(float(east) + 12, float(north) + 4, 0.5, 8, 8))
        assert (seen.rgb == 100).all()
        assert (mosaic.read(FRAME, GroundWindow(-4, 4, 0.5, 8, 8)).rgb == 50).all()


def test_what_is_known_of_all_is_joined() -> None:
    whole = np.ones((40, 40), np.bool_)
    sources = [array(1, whole, "b"), array(2, whole, "a"), array(3, whole, "b")]
    mosaic = MosaicGround(sources)
    assert mosaic.attribution == "credit b; credit a"
    assert mosaic.name == "b, a, b"
    assert mosaic.bounds == sources[0].bounds


def test_closing_closes_every_source() -> None:
    sources = [counting(1, 0), counting(2, 0)]
    MosaicGround(sources).close()
    assert [s.closes for s in sources] == [1, 1]


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        MosaicGround([], "ortho")
    assert str(caught.value) == "ortho: holds no imagery"


def test_imagery_on_both_sides_of_the_antimeridian_is_refused() -> None:
    whole = np.ones((4, 4), np.bool_)
    rgb = np.zeros((4, 4, 3), np.uint8)
    east, west = (
        ArrayGround(rgb, whole, LocalFrame(-17, lon), 0, 0, 1.0) for lon in (179.9, -179.9)
    )
    with pytest.raises(InputError) as caught:
        MosaicGround([east, west], "fiji")
    assert str(caught.value) == (
        "fiji: reaches over 360 degrees of longitude; imagery on both sides of the antimeridian, "
        "or so far apart, is packed by itself"
    )


def test_a_folder_without_rasters_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        open_ground(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: holds no rasters (.tif, .tiff, .jp2, .img); for folders within it give a "
        f"pattern: '{tmp_path}/**/*.tif'"
    )


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_ground(f"{tmp_path}/*.tif")
    assert str(caught.value) == f"{tmp_path}/*.tif: nothing matches"


def test_a_broken_file_in_a_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 100)
    (tmp_path / "b.tif").write_bytes(b"II*\0 broken")
    with pytest.raises(InputError) as caught:
        open_ground(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/b.tif: not an image that can be read (")


def test_a_damaged_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 100)
    noise = np.random.default_rng(0).integers(0, 256, (3, 100, 100), np.uint8)
    path = write(tmp_path / "b.tif", noise, east_m=50, compress="deflate")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    source = open_ground(str(tmp_path))
    with pytest.raises(IntegrityError) as caught:
        source.read(*around(*source.bounds.center, 40, 0.5))
    assert str(caught.value).startswith(f"{path}: cannot be read (")


def open_files(folder: Path) -> int:
    links = Path("/proc/self/fd")
    if not links.is_dir():
        pytest.skip("open files are counted in /proc, which is not here")
    names = (str(link.readlink()) for link in links.iterdir() if link.is_symlink())
    return sum(name.startswith(str(folder)) for name in names)


def test_at_most_64_files_are_open(tmp_path: Path) -> None:
    for number in range(70):
        write(tmp_path / f"{number:02}.tif", number, east_m=4 * number, side_px=8)
    source = open_ground(str(tmp_path))
    assert open_files(tmp_path) <= 64
    lat, lon = source.bounds.center
    for _ in range(2):
        seen = source.read(LocalFrame(lat, lon), GroundWindow(-138, 1, 0.5, 552, 4))
        assert seen.valid.all()
        assert len(np.unique(seen.rgb)) == 70
        assert 60 <= open_files(tmp_path) <= 64
    source.close()
    assert open_files(tmp_path) == 0


def test_16_bit_rasters_are_stretched_together(tmp_path: Path) -> None:
    # One is dark, the other bright; where they meet, the same values must look the same.
    ramp = np.linspace(1000, 3000, 100, dtype=np.uint16)
    dark = np.broadcast_to(ramp, (3, 100, 100))
    write(tmp_path / "a.tif", dark)
    write(tmp_path / "b.tif", dark + np.uint16(2000), east_m=50)
    source = open_ground(str(tmp_path))
    assert isinstance(source, MosaicGround)
    seen = source.read(*around(*source.bounds.center, 90, 0.5)).rgb[90, :, 0].astype(int)
    assert np.abs(np.diff(seen)).max() <= 3
    assert seen[10] < 30 and seen[-10] > 225
    assert source.notes == (
        f"{tmp_path}: uint16 pixels are stretched to 8 bits: 1079.22..4919.78, "
        "1079.22..4919.78, 1079.22..4919.78 (low..high of each band)",
    )


def test_a_stretch_may_leave_some_rasters_black_but_not_all(tmp_path: Path) -> None:
    for name, value in (("a.tif", 1000), ("b.tif", 5000)):
        write(tmp_path / name, np.full((3, 40, 40), value, np.uint16))
    open_ground(str(tmp_path), stretch=(4000, 6000)).close()
    with pytest.raises(InputError) as caught:
        open_ground(str(tmp_path), stretch=(6000, 7000))
    assert str(caught.value) == (
        f"--stretch 6000,7000: leaves {tmp_path} all black or all white; its values lie between "
        "1000 and 5000"
    )


def test_a_given_stretch_is_that_of_every_raster(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.full((3, 100, 100), 1000, np.uint16))
    write(tmp_path / "b.tif", np.full((3, 100, 100), 500, np.uint16), east_m=50)
    source = open_ground(str(tmp_path), stretch=(0, 2550))
    seen = source.read(*around(*source.bounds.center, 40, 0.5)).rgb
    assert (seen[:, :38] == 100).all() and (seen[:, 42:] == 50).all()


def test_8_and_16_bit_rasters_may_lie_together(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", 77)
    write(tmp_path / "b.tif", np.full((3, 100, 100), 500, np.uint16), east_m=50)
    source = open_ground(str(tmp_path))
    assert (source.read(*around(*source.bounds.center, 40, 0.5)).rgb[:, :38] == 77).all()


def test_real_dates_of_one_place_are_one_source(data_dir: Path) -> None:
    source = open_ground(str(data_dir / "naip_nd_multidate"))
    assert isinstance(source, MosaicGround)
    assert len(source.sources) == 6
    assert source.gsd_m == pytest.approx(5, rel=1e-2)
    first = source.sources[0]
    window = around(*first.bounds.center, 1000, 5.0)
    assert (source.read(*window).rgb == first.read(*window).rgb).all()
    source.close()


def test_real_places_far_apart_are_refused_together_but_not_in_one_land(data_dir: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_ground(str(data_dir / "small_orthos"))
    assert "degrees of longitude" in str(caught.value)
    source = open_ground(str(data_dir / "small_orthos" / "naip_*.tif"))
    assert isinstance(source, MosaicGround)
    for part in source.sources:
        seen = source.read(*around(*part.bounds.center, 60, 1.0))
        assert seen.valid.all()
        assert seen.rgb.std() > 5
    source.close()
