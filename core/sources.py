"""What a user writes after `--source`, opened: one module for each kind, one small interface."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError
from .ground import GroundSource


def open_ground(source: str) -> GroundSource:
    """Open `landscape[:key=value,…]` or the path of a georeferenced raster.

    Raises:
        InputError: there is no such file, it is no image, or it has no georeference.
    """
    if source == "landscape" or source.startswith("landscape:"):
        from .landscape import open_landscape

        return open_landscape(source)
    if not Path(source).exists():
        raise InputError(f"{source}: no such file; give a GeoTIFF or 'landscape'")
    from .source_raster import RasterGround

    return RasterGround(Path(source))
