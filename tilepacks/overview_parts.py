"""Pictures of regions made of pictures: the part that shows a box, several as one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from ..core.geo import BBox
from ..core.ground import RGB
from ..core.images import encode_rgb
from .manifest import OverviewRecord
from .overview import overview_record
from .reader import Pack

_QUALITY = 80  # of the WebP picture, as builds make it
# Holes are black, up to what lossy WebP makes of it.
_BLACK = 12

Overview = tuple[OverviewRecord, bytes]


def cut_overview(pack: Pack, bounds: BBox) -> Overview | None:
    """Return the part of a pack's picture that shows a box; its pixels stay where they are."""
    record, found = pack.manifest.overview, pack.overview()
    if record is None or found is None:
        return None
    west, south, east, north = pack.frame.local_bounds(bounds)
    rows, columns = (
        range(
            max(0, math.floor(low / record.gsd_m + 1e-6)),
            min(size, math.ceil(high / record.gsd_m - 1e-6)),
        )
        for low, high, size in (
            (record.north_m - north, record.north_m - south, record.height_px),
            (west - record.west_m, east - record.west_m, record.width_px),
        )
    )
    if not (rows and columns):
        return None
    if (len(rows), len(columns)) == (record.height_px, record.width_px):
        return record, bytes(pack.container.section("overview"))
    place = dataclasses.replace(
        record,
        west_m=record.west_m + columns.start * record.gsd_m,
        north_m=record.north_m - rows.start * record.gsd_m,
        width_px=len(columns),
        height_px=len(rows),
    )
    part = found[0][rows.start : rows.stop, columns.start : columns.stop]
    return place, encode_rgb(part, ".webp", _QUALITY)


def join_overviews(packs: Sequence[Pack]) -> tuple[Overview | None, list[str]]:
    """Return one picture of all, the first pack's on top, and notes on those that have none."""
    records = [pack.manifest.overview for pack in packs]
    having = [record for record in records if record is not None]
    if not having:
        return None, ["no pack has an overview: neither has the merged one"]
    notes = [
        f"{pack.path} has no overview: its part of the merged one stays black"
        for pack, record in zip(packs, records, strict=True)
        if record is None
    ]
    extent = (
        min(r.west_m for r in having),
        min(r.north_m - r.height_px * r.gsd_m for r in having),
        max(r.west_m + r.width_px * r.gsd_m for r in having),
        max(r.north_m for r in having),
    )
    whole = overview_record(extent, max(r.gsd_m for r in having))
    canvas: RGB = np.zeros((whole.height_px, whole.width_px, 3), np.uint8)
    for pack in reversed(packs):
        if (found := pack.overview()) is not None:
            _draw(canvas, whole, *found)
    return (whole, encode_rgb(canvas, ".webp", _QUALITY)), notes


def _draw(
    canvas: RGB, place: OverviewRecord, image: RGB, west_m: float, north_m: float, gsd_m: float
) -> None:
    """Draw a picture into one that is at least as coarse, but for its holes."""
    scale = gsd_m / place.gsd_m
    height, width = image.shape[0] * scale, image.shape[1] * scale
    # The area average first, so that the warp has little but a shift left to do.
    size = max(1, round(width)), max(1, round(height))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    left, top = (west_m - place.west_m) / place.gsd_m, (place.north_m - north_m) / place.gsd_m
    across, down = width / size[0], height / size[1]
    turn = np.array([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
    drawn = cv2.warpAffine(
        small, turn, canvas.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    # Pixels whose centres lie in the picture.
    rows = slice(max(0, math.ceil(top - 0.5)), max(0, math.ceil(top + height - 0.5)))
    columns = slice(max(0, math.ceil(left - 0.5)), max(0, math.ceil(left + width - 0.5)))
    seen = drawn[rows, columns].max(axis=2) > _BLACK
    canvas[rows, columns][seen] = drawn[rows, columns][seen]
