"""What a user writes after `--source`, opened: one module for each kind, one small interface."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from .errors import InputError
from .ground import GroundSource
from .stretch import check_stretch

if TYPE_CHECKING:
    from .source_mosaic import MosaicGround
    from .source_raster import RasterGround
    from .source_xyz_url import UrlOptions
    from .tile_pyramid import TileReader


def open_ground(source: str, stretch: tuple[float, float] | None = None) -> GroundSource:
    """Open imagery by what a user writes.

    Args:
        source: `landscape[:key=value,…]`; a georeferenced raster, `file.gpkg:table`, a folder of
            rasters, a pattern such as `ortho/*.tif`; the address of a GeoTIFF; a STAC Item or
            ItemCollection (`….json`, `….json#asset`), a file or an address; MBTiles, PMTiles or
            a z/x/y folder of tiles.
        stretch: the values of a raster's pixels that become black and white; None to take 8-bit
            pixels as they are and to choose for others.

    Raises:
        InputError: there is no such file, it is no image, it has no georeference, or the stretch
            leaves nothing to see.
        S4GError: a server does not answer.
    """
    ground = _open(source, stretch)
    if stretch is not None and takes_stretch(ground):
        try:
            check_stretch(stretch, ground.name, ground.value_ranges())
        except BaseException:
            ground.close()
            raise
    return ground


def takes_stretch(ground: GroundSource) -> TypeGuard[RasterGround | MosaicGround]:
    """Return whether a stretch has an effect on imagery: on rasters, not on tiles of 8 bits."""
    from .source_mosaic import MosaicGround
    from .source_raster import RasterGround

    return isinstance(ground, (RasterGround, MosaicGround))


def _open(source: str, stretch: tuple[float, float] | None) -> GroundSource:
    if source == "landscape" or source.startswith("landscape:"):
        from .landscape import open_landscape

        return open_landscape(source)
    from .raster_files import is_url

    if is_url(source):
        return _open_address(source, stretch)
    if not Path(source).exists() and glob.has_magic(source):
        from .source_mosaic import open_mosaic, rasters_in

        return open_mosaic(rasters_in(source), source, stretch)
    if not _file_of(source).exists():
        raise InputError(
            f"{source}: no such file or folder; give a raster, a folder of them, tiles, or "
            "'landscape'"
        )
    pyramid = _open_pyramid(Path(source))
    if pyramid is not None:
        return pyramid
    return _open_rasters(source, stretch)


def _file_of(source: str) -> Path:
    """Return the file that holds a table of a GeoPackage or an asset of a STAC item."""
    if Path(source).exists():
        return Path(source)
    file, colon, _ = source.rpartition(":")
    if colon and file.lower().endswith(".gpkg"):
        return Path(file)
    return Path(source.partition("#")[0])


def _open_address(url: str, stretch: tuple[float, float] | None) -> GroundSource:
    from .raster_files import without_query
    from .source_raster import RasterGround
    from .source_stac import is_stac, open_stac

    if is_stac(url):
        return open_stac(url, stretch)
    if not without_query(url).lower().endswith((".tif", ".tiff")):
        raise InputError(f"{without_query(url)}: expected an address ending in .tif or .json")
    return RasterGround(url, stretch)


def _open_rasters(source: str, stretch: tuple[float, float] | None) -> GroundSource:
    from .source_mosaic import open_mosaic, rasters_in
    from .source_raster import RasterGround
    from .source_stac import is_stac, open_stac

    if is_stac(source):
        return open_stac(source, stretch)
    if Path(source).is_dir():
        return open_mosaic(rasters_in(source), source, stretch)
    return RasterGround(source, stretch)


def _open_pyramid(path: Path) -> GroundSource | None:
    """Open an MBTiles or PMTiles file or a folder of tiles; None where it is none of them."""
    reader: TileReader
    if path.is_dir():
        from .source_xyz_folder import XyzFolderReader, is_xyz_folder

        if not is_xyz_folder(path):
            return None
        reader = XyzFolderReader(path)
    elif path.suffix.lower() == ".mbtiles":
        from .source_mbtiles import MbtilesReader

        reader = MbtilesReader(path)
    elif path.suffix.lower() == ".pmtiles":
        from .source_pmtiles import open_pmtiles

        reader = open_pmtiles(path)
    else:
        return None
    from .tile_pyramid import PyramidGround

    return PyramidGround(reader)


def open_url(template: str, options: UrlOptions) -> GroundSource:
    """Open the tiles of a server by a URL template such as `https://host/{z}/{x}/{y}.png`.

    Raises:
        InputError: the template is wrong, or permission for bulk download is missing.
        S4GError: the server refuses or cannot be reached.
    """
    from .source_xyz_url import UrlReader
    from .tile_pyramid import PyramidGround

    return PyramidGround(UrlReader(template, options))
