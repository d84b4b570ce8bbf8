"""Pixels of imagery tiles: ground warped to Web Mercator, WebP, and a tile from the four below.

A tile of a lower zoom is made from the encoded four below and nothing else. What is cut or merged
later is therefore the same as if it had been built at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import S4GError
from ..core.geo import (
    TILE_SIZE_PX,
    Floats,
    LocalFrame,
    mercator_from_wgs84,
    mercator_gsd_m,
    wgs84_from_mercator,
)
from ..core.ground import RGB, GroundImage, GroundSource, GroundWindow, Mask
from ..core.tile_image import decode_tile

_HALF_WORLD_M = float(mercator_from_wgs84(0.0, 180.0)[0])
# The projection is exact at every so many pixels and bilinear between: wrong by 0.3 mm at 0.5 m.
_GRID_PX = 64
_MARGIN_PX = 3  # around what is needed: a cubic look-up takes two pixels on each side
_FILL_PX = 7  # holes near imagery take its colours this wide, so that no look-up sees their black


def read_tiles(
    source: GroundSource, frame: LocalFrame, zoom: int, x: range, y: range
) -> GroundImage:
    """Return the ground as tiles of a zoom show it, side by side: columns `x`, rows `y`.

    Args:
        source: the imagery.
        frame: the local frame to read it in.
        zoom: of the tiles.
        x: their columns.
        y: their rows, counted from the north.

    Returns:
        (256 rows, 256 columns) pixels.

    Raises:
        S4GError: the source is damaged.
    """
    east, north = _pixels_m(frame, zoom, x, y)
    middle = TILE_SIZE_PX * len(y) // 2
    lat = float(frame.to_wgs84(east[middle, 0], north[middle, 0])[0])
    gsd = mercator_gsd_m(lat, zoom)
    west, top = float(east.min()) - _MARGIN_PX * gsd, float(north.max()) + _MARGIN_PX * gsd
    columns = ((east - west) / gsd - 0.5).astype(np.float32)
    rows = ((top - north) / gsd - 0.5).astype(np.float32)
    size = (int(side.max()) + 1 + _MARGIN_PX for side in (columns, rows))
    image = source.read(frame, GroundWindow(west, top, gsd, *size))
    if not image.valid.any():
        shape = columns.shape
        return GroundImage(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.bool_))
    rgb = cv2.remap(_filled(image), columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    valid = cv2.remap(image.valid.astype(np.uint8), columns, rows, cv2.INTER_NEAREST)
    return GroundImage(np.asarray(rgb, np.uint8), np.asarray(valid, np.bool_))


def encode_tile(rgb: RGB, valid: Mask, quality: int) -> bytes | None:
    """Return a tile (256, 256, 3) as WebP, transparent where not valid; None where nothing is.

    Raises:
        S4GError: the encoder refuses it.
    """
    if not valid.any():
        return None
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if not valid.all():
        bgr = np.dstack([bgr, valid * np.uint8(255)])
    done, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise S4GError(f"cannot encode a tile of shape {bgr.shape} as WebP")
    return data.tobytes()


def merged_tile(tiles: Sequence[bytes], origin: str, quality: int) -> bytes | None:
    """Return several tiles of one place as one: each fills the holes of those before it.

    One without holes is taken as it is, and so is the first where the others add nothing.

    Raises:
        IntegrityError: one is damaged; `origin` names it.
    """
    decoded = [decode_tile(data, origin, TILE_SIZE_PX) for data in tiles]
    for data, tile in zip(tiles, decoded, strict=True):
        if tile[..., 3].all():
            return data
    out = decoded[0]
    for tile in decoded[1:]:
        out = np.where(out[..., 3:] > 0, out, tile)
    if (out == decoded[0]).all():
        return tiles[0]
    return encode_tile(np.ascontiguousarray(out[..., :3]), out[..., 3] > 0, quality)


def parent_tile(children: Sequence[bytes | None], origin: str, quality: int) -> bytes | None:
    """Return the tile above four: north-west, north-east, south-west, south-east.

    A pixel is the mean of what is seen of the four below it, and transparent where fewer than two
    of them are.

    Raises:
        IntegrityError: one is damaged; `origin` names it.
    """
    sheet = np.zeros((2 * TILE_SIZE_PX, 2 * TILE_SIZE_PX, 4), np.uint16)
    for number, data in enumerate(children):
        if data is not None:
            top, left = (TILE_SIZE_PX * part for part in divmod(number, 2))
            tile = decode_tile(data, origin, TILE_SIZE_PX)
            sheet[top : top + TILE_SIZE_PX, left : left + TILE_SIZE_PX] = tile
    total = sheet[0::2, 0::2] + sheet[0::2, 1::2] + sheet[1::2, 0::2] + sheet[1::2, 1::2]
    seen = total[..., 3] // 255  # holes are black: they add nothing to the sums
    divisor = np.maximum(seen, 1)[..., None]
    rgb = ((total[..., :3] + divisor // 2) // divisor).astype(np.uint8)
    return encode_tile(rgb, seen >= 2, quality)


def _pixels_m(frame: LocalFrame, zoom: int, x: range, y: range) -> tuple[Floats, Floats]:
    """Return east and north (rows, columns) of the centres of tiles' pixels, in metres."""
    across, down = (_hats(TILE_SIZE_PX * len(side)) for side in (x, y))
    world_px = TILE_SIZE_PX << zoom
    nodes = (
        (TILE_SIZE_PX * side.start + 0.5 + _GRID_PX * np.arange(weights.shape[1])) / world_px
        for side, weights in ((x, across), (y, down))
    )
    columns, rows = np.meshgrid(*nodes)
    lat, lon = wgs84_from_mercator(
        (2 * columns - 1) * _HALF_WORLD_M, (1 - 2 * rows) * _HALF_WORLD_M
    )
    east, north = (down @ side @ across.T for side in frame.to_local(lat, lon))
    return np.asarray(east, np.float64), np.asarray(north, np.float64)


def _hats(count: int) -> npt.NDArray[np.float64]:
    """Return the (count, nodes) weights that interpolate linearly between nodes."""
    at = np.arange(count) / _GRID_PX
    nodes = np.arange(int(at[-1]) + 2)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - nodes))


def _filled(image: GroundImage) -> RGB:
    """Return the colours, those of holes taken from imagery close by."""
    if image.valid.all():
        return image.rgb
    size = (_FILL_PX, _FILL_PX)
    weight = cv2.blur(image.valid.astype(np.float32), size)[..., None]
    colours = cv2.blur(image.rgb.astype(np.float32), size) / np.maximum(weight, 1e-3)
    filled = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    return np.where(image.valid[..., None], image.rgb, filled)
