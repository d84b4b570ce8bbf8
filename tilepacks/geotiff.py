"""A level of a pack as a GeoTIFF for GIS programs: one pixel for each place of its lattice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.files import atomic_file
from ..core.raster_files import load_rasterio
from .ambiguity import Ambiguity
from .reader import Pack
from .search import Ids

_BLOCK_PX = 256
_DETAIL_STEPS = 16
_MAX_COLUMNS = 200_000  # a strip of three bands then takes 600 MB


def write_ambiguity(
    path: Path, pack: Pack, level: int, found: Ambiguity, overwrite: bool = False
) -> None:
    """Write what a level's tiles are mistaken for: three bands of float32, NaN where unknown.

    The bands are the rival's cosine, its distance in metres, and what a frame may score more than
    the rival (`Ambiguity.margin`; 0 and less is hard). Of several tiles in a place, dates or
    headings, the hardest counts.

    Raises:
        InputError: the file exists, or the level is too wide.
        IntegrityError: a section is damaged or altered.
        S4GError: it cannot be written, or rasterio is missing.
    """
    order = np.argsort(found.hardness, kind="stable")
    some = found.rival[order] >= 0
    bands = {
        "rival_cosine": np.where(some, found.cosine[order], np.nan),
        "rival_away_m": np.where(some, found.away_m[order], np.nan),
        "margin": np.where(some, found.margin[order], np.nan),
    }
    _write(path, pack, level, found.tiles[order], bands, overwrite)


def write_detail(path: Path, pack: Pack, level: int, overwrite: bool = False) -> None:
    """Write how much there is to see: one band of float32, grey levels per pixel, NaN elsewhere.

    Raises:
        InputError: the file exists, or the level is too wide.
        IntegrityError: a section is damaged or altered.
        S4GError: it cannot be written, or rasterio is missing.
    """
    record = pack.levels[level]
    detail = pack.detail(level) / _DETAIL_STEPS
    tiles = np.arange(record.first, record.first + record.count)
    _write(path, pack, level, tiles, {"detail_grey": detail}, overwrite)


def _write(
    path: Path,
    pack: Pack,
    level: int,
    tiles: Ids,
    bands: Mapping[str, npt.NDArray[np.floating]],
    overwrite: bool,
) -> None:
    """Write values of tiles (T,); of several in a place the last counts.

    A strip of rows is held at a time: the lattice of a long, oblique corridor may have a thousand
    times more places than tiles. Blocks without tiles take no space in the file, which
    is compressed and held until it is written.
    """
    rasterio = load_rasterio()
    lattice = pack.manifest.levels[level].lattice
    if lattice.columns > _MAX_COLUMNS:
        raise InputError(
            f"{pack.path}: level {lattice.footprint_m:g} m is {lattice.columns:,} tiles wide, too "
            "many for a GeoTIFF; export a GeoPackage instead"
        )
    cells = pack.cells(level).astype(np.int64)[tiles - pack.levels[level].first]
    rows, columns = np.divmod(cells, lattice.columns)
    step = lattice.stride_m
    edge = (lattice.footprint_m - step) / 2  # a pixel's middle is its tile's middle
    transform = rasterio.Affine(step, 0, lattice.west_m + edge, 0, -step, lattice.north_m - edge)
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": len(bands), "nodata": np.nan,
        "crs": pack.frame.crs, "transform": transform,
        "width": lattice.columns, "height": lattice.rows,
        "tiled": True, "blockxsize": _BLOCK_PX, "blockysize": _BLOCK_PX,
        "compress": "deflate", "predictor": 3, "sparse_ok": True, "bigtiff": "if_safer",
    }  # fmt: skip
    # In memory first: what GDAL says of a full disk is many lines, and names the temporary file.
    with atomic_file(path, overwrite) as temporary, rasterio.MemoryFile(ext=".tif") as memory:
        with memory.open(**profile) as file:
            file.update_tags(pack=pack.path.name, level_m=f"{lattice.footprint_m:g}")
            file.descriptions = tuple(bands)
            strips = rows // _BLOCK_PX
            for strip in np.unique(strips).tolist():
                own = np.flatnonzero(strips == strip)
                top = strip * _BLOCK_PX
                height = min(_BLOCK_PX, lattice.rows - top)
                image = np.full((len(bands), height, lattice.columns), np.nan, np.float32)
                for band, values in enumerate(bands.values()):
                    image[band, rows[own] - top, columns[own]] = values[own]
                window = rasterio.windows.Window(0, top, lattice.columns, height)
                file.write(image, window=window)
        with rasterio.open(memory.name, "r+") as file:
            factors = [2**n for n in range(1, 16) if max(file.shape) > _BLOCK_PX << (n - 1)]
            if factors:
                file.build_overviews(factors, rasterio.enums.Resampling.average)
        temporary.write_bytes(memory.getbuffer())
