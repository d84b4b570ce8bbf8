"""A pack as a GeoPackage for QGIS: its tiles as squares with what is known about each.

GDAL writes it (pyogrio the tables, rasterio the picture). Colours come with it, in the table that
QGIS itself keeps the styles of layers in.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import S4GError
from ..core.files import atomic_file
from ..core.raster_files import gdal_errors, gdal_reason, load_rasterio
from .ambiguity import Ambiguity
from .geopackage_style import Style, ambiguity_style, detail_style, style_rows
from .options import Progress, silent
from .reader import Pack
from .tiling import Cells

_FULL_BYTES = 1 << 20  # a disk with less is taken for full when a write fails
_BATCH = 50_000  # squares written at once: 5 MB of polygons
_DETAIL_STEPS = 16
_GEOMETRY = "geom"
# A polygon of one ring of five corners, as OGC's well-known binary has it, and where those lie.
_SQUARE = np.dtype(
    [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))]
)
_POLYGON = 3
_UTC = 100  # as GDAL has it; without, a time lacks the Z that a GeoPackage asks for
_RIGHT, _UP = np.array([-0.5, 0.5, 0.5, -0.5, -0.5]), np.array([-0.5, -0.5, 0.5, 0.5, -0.5])
Columns = dict[str, npt.NDArray[Any]]


def export_geopackage(
    pack: Pack,
    path: Path,
    levels: Sequence[int],
    ambiguity: Mapping[int, Ambiguity],
    overwrite: bool = False,
    progress: Progress = silent,
) -> None:
    """Write a pack's levels, region and picture.

    Args:
        pack: an open pack.
        path: the file, `.gpkg`.
        levels: numbers of the levels to write.
        ambiguity: by level, what its tiles are mistaken for.
        overwrite: replace an existing file.
        progress: how to show progress.

    Raises:
        InputError: the file exists.
        IntegrityError: a section is damaged or altered.
        S4GError: it cannot be written, or pyogrio or rasterio is missing.
    """
    errors = pyogrio_errors()
    with atomic_file(path, overwrite) as temporary:
        temporary.touch()  # or the system says why not, which SQLite does not
        temporary.unlink()
        try:
            _write_picture(temporary, pack)
            _write(temporary, "region", _region_square(pack), _region(pack))
            styles = []
            for level in levels:
                name = f"level_{pack.levels[level].footprint_m:g}m"
                _write_level(temporary, name, pack, level, ambiguity.get(level), progress)
                stride_m = pack.levels[level].stride_m
                if level in ambiguity:
                    styles.append(ambiguity_style(name, stride_m))
                styles.append(detail_style(name, stride_m))
            _write_styles(temporary, styles)
        except errors as error:
            reason = gdal_reason(error, str(temporary))
            if shutil.disk_usage(path.parent).free < _FULL_BYTES:
                reason = os.strerror(errno.ENOSPC)  # GDAL has many other words for it
            raise S4GError(
                f"{path}: cannot write ({reason}); free some space or choose another place; "
                "nothing was left behind"
            ) from None


def pyogrio_errors() -> tuple[type[Exception], ...]:
    """Return what GDAL raises here.

    Raises:
        S4GError: pyogrio or rasterio is missing.
    """
    try:
        from pyogrio import errors
    except ImportError:
        raise S4GError("writing a GeoPackage needs pyogrio: pip install 's4g[pack]'") from None
    # TypeError: what rasterio 1.4 makes of a full disk where it writes a transform.
    return *gdal_errors(), errors.DataSourceError, errors.DataLayerError, TypeError


def _write_level(
    path: Path, name: str, pack: Pack, level: int, found: Ambiguity | None, progress: Progress
) -> None:
    cells, columns = _places(pack, level, found)
    with progress(f"writing {name}", len(cells)) as advance:
        for start in range(0, len(cells), _BATCH):
            part = slice(start, start + _BATCH)
            some = {key: values[part] for key, values in columns.items()}
            _write(path, name, _squares(pack, level, cells[part]), some)
            advance(len(cells[part]))


def _places(pack: Pack, level: int, found: Ambiguity | None) -> tuple[Cells, Columns]:
    """Return the places of a level, by row, and what is told of each; of its first tile mostly."""
    record, search = pack.levels[level], pack.vectors(level)
    # By place and, within it, variant: its first tile is of the first date and heading it has.
    order = np.lexsort((pack.variants(level), pack.cells(level)))
    cells, first, count = np.unique(pack.cells(level)[order], return_index=True, return_counts=True)
    tiles = order[first]
    shared = search.vector_of_tile
    rows, columns = np.divmod(cells, pack.manifest.levels[level].lattice.columns)
    told: Columns = {
        "tile": tiles + record.first,
        "row": rows.astype(np.int64),
        "column": columns.astype(np.int64),
        "detail_grey": (pack.detail(level)[tiles] / _DETAIL_STEPS).astype(np.float32),
        "variants": count.astype(np.int32),
        "vector": (tiles if shared is None else shared[tiles]).astype(np.int64),
    }
    if found is not None:
        told |= _ambiguity(cells, pack.cells(level)[found.tiles - record.first], found)
    return cells, told


def _ambiguity(cells: Cells, of_tile: Cells, found: Ambiguity) -> Columns:
    """Return what each place is mistaken for, by its hardest tile; unknown where none was asked."""
    cosine, away, margin = (np.full(len(cells), np.nan, np.float32) for _ in range(3))
    order = np.argsort(found.hardness, kind="stable")
    order = order[found.rival[order] >= 0]
    place = np.searchsorted(cells, of_tile[order])
    cosine[place] = found.cosine[order]
    away[place] = found.away_m[order]
    margin[place] = found.margin[order]
    hard = np.ma.masked_array(margin <= 0, np.isnan(margin))
    return {"rival_cosine": cosine, "rival_away_m": away, "margin": margin, "hard": hard}


def _squares(pack: Pack, level: int, cells: Cells) -> npt.NDArray[np.void]:
    lattice = pack.manifest.levels[level].lattice
    east, north = lattice.centers_m(cells)
    side = lattice.footprint_m
    lat, lon = pack.frame.to_wgs84(east[:, None] + _RIGHT * side, north[:, None] + _UP * side)
    squares = np.zeros(len(cells), _SQUARE)
    squares["order"], squares["type"], squares["rings"], squares["points"] = 1, _POLYGON, 1, 5
    squares["xy"] = np.stack([lon, lat], axis=2)
    return squares


def _region_square(pack: Pack) -> npt.NDArray[np.void]:
    box = pack.bounds
    squares = np.zeros(1, _SQUARE)
    squares["order"], squares["type"], squares["rings"], squares["points"] = 1, _POLYGON, 1, 5
    squares["xy"][0, :, 0] = np.where(_RIGHT > 0, box.east, box.west)
    squares["xy"][0, :, 1] = np.where(_UP > 0, box.north, box.south)
    return squares


def _region(pack: Pack) -> Columns:
    manifest, spec = pack.manifest, pack.spec
    layers = "; ".join(f"{layer.name} {layer.date}".strip() for layer in manifest.layers)
    told = {
        "pack": pack.path.name,
        "encoder": spec.backbone,
        "model": spec.model_id,
        "imagery": layers,
        "attribution": pack.attribution,
        "tool": manifest.tool,
    }
    columns: Columns = {key: np.array([value], object) for key, value in told.items()}
    columns["dims"] = np.array([manifest.projection.dims])
    columns["tiles"] = np.array([sum(level.count for level in pack.levels)])
    return columns


def _write(path: Path, layer: str, squares: npt.NDArray[np.void] | None, columns: Columns) -> None:
    """Add rows to a layer, which is made where it is not there yet."""
    import pyogrio.raw

    geometry = None
    if squares is not None:
        data, size = squares.tobytes(), squares.dtype.itemsize
        geometry = np.array([data[i : i + size] for i in range(0, len(data), size)], object)
    pyogrio.raw.write(
        path,
        geometry,
        [np.ma.getdata(values) for values in columns.values()],
        list(columns),
        [np.ma.getmaskarray(values) for values in columns.values()],
        layer=layer,
        driver="GPKG",
        geometry_type=None if squares is None else "Polygon",
        crs=None if squares is None else "EPSG:4326",
        append=path.exists(),
        layer_options={"GEOMETRY_NAME": _GEOMETRY},
        gdal_tz_offsets={
            name: np.full(len(values), _UTC, np.int32)
            for name, values in columns.items()
            if values.dtype.kind == "M"
        },
    )


def _write_styles(path: Path, styles: Sequence[Style]) -> None:
    rows = style_rows(styles, _GEOMETRY)
    columns: Columns = {
        key: np.array(values, bool if key == "useAsDefault" else object)
        for key, values in rows.items()
    }
    columns["update_time"] = np.full(len(styles), np.datetime64("now", "ms"))
    _write(path, "layer_styles", None, columns)


def _write_picture(path: Path, pack: Pack) -> None:
    """Write the region's picture in the pack's frame: first, since rasterio makes a new file."""
    overview = pack.overview()
    if overview is None:
        return
    rasterio = load_rasterio()
    image, west, north, gsd = overview
    with rasterio.open(
        path,
        "w",
        driver="GPKG",
        dtype="uint8",
        count=3,
        width=image.shape[1],
        height=image.shape[0],
        crs=pack.frame.crs,
        transform=rasterio.Affine(gsd, 0, west, 0, -gsd, north),
        RASTER_TABLE="overview",
    ) as file:
        file.write(np.moveaxis(image, -1, 0))
