"""Your own set: drone photos with coordinates, and imagery to cut a lattice of tiles from."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.console import say
from ..core.errors import InputError
from ..core.geo import LocalFrame
from ..core.ground import GroundSource, GroundWindow
from ..core.sources import open_ground
from .dataset import (
    Count,
    DataConfig,
    Image,
    PairSet,
    Positions,
    RetrievalTask,
    UnreadableImageError,
)
from .layout import cmc_percent, take_relations
from .photos import PhotoImages, View, plan_view, read_photos
from .reading import resize
from .relations import Indices, Relations

# Overlap (IoU) from which a tile is a positive, and from which it is at least no negative: those
# of GTA-UAV's converter for UAV-VisLoc.
POSITIVE_IOU, SEMI_IOU = 0.39, 0.14
# A tile needs this share of imagery.
_MIN_VALID = 0.9
# Holes are looked for at this many pixels a tile, fewer where the picture would grow too large.
_PROBE_PX, _MAX_PROBE_PX, _MIN_PROBE_PX = 16, 4096, 4
_UNREADABLE = "cannot be read"
_NO_TILE = "lie on no tile of the imagery"


class TileImages:
    """Tiles of one size, cut from imagery when read. Each process opens the imagery for itself."""

    def __init__(
        self,
        source: str,
        frame: LocalFrame,
        centers_m: npt.NDArray[np.float64],
        footprint_m: float,
    ) -> None:
        """Take what `open_ground` takes, the frame, (T, 2) east, north centres, and the side."""
        self._source = source
        self._frame = frame
        self._centers_m = centers_m
        self._footprint_m = footprint_m
        self._forget()

    def _forget(self) -> None:
        self._ground: GroundSource | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        return {k: v for k, v in vars(self).items() if k not in ("_ground", "_process", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without open files."""
        vars(self).update(state)
        self._forget()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._centers_m)

    def name(self, index: int) -> str:
        """Return the source and the tile's centre, latitude and longitude."""
        lat, lon = self._frame.to_wgs84(*self._centers_m[index])
        return f"{self._source} at {float(lat):.6f},{float(lon):.6f}"

    def read(self, index: int, height_px: int, width_px: int) -> Image:
        """Return the tile, (height_px, width_px, 3) uint8 RGB, black where there is no imagery.

        Raises:
            IntegrityError: a part of the imagery is damaged.
        """
        side_px = max(height_px, width_px)
        east, north = self._centers_m[index]
        half = self._footprint_m / 2
        gsd_m = self._footprint_m / side_px
        window = GroundWindow(east - half, north + half, gsd_m, side_px, side_px)
        if self._process != os.getpid():  # after a fork: GDAL's files must not be shared
            self._forget()
        with self._lock:  # nor be read by two threads at a time
            if self._ground is None:
                self._ground = open_ground(self._source)
            rgb = self._ground.read(self._frame, window).rgb
        return resize(rgb, height_px, width_px)


@dataclass(frozen=True)
class _Scene:
    frame: LocalFrame
    views: list[View]  # usable photos
    looks_m: npt.NDArray[np.float64]  # (V, 2) east, north of the middle of each
    tests: npt.NDArray[np.bool_]  # (V,)
    tiles: TileImages
    centers_m: npt.NDArray[np.float64]  # (T, 2)
    relations: Relations  # of views over tiles; the nearest has weight 1
    nearest: Indices  # (V,)
    refused: Counter[str]


class Own:
    """Photos and tiles; nothing is written."""

    name = "own photos"

    def __init__(self, config: DataConfig, root: Path) -> None:
        """Take the `[data]` table; its paths are relative to `root`."""
        self._config = config
        self._photos = root / config.photos
        landscape = config.source.split(":")[0] == "landscape"
        self._source = config.source if landscape else str(root / config.source)

    def training(self) -> PairSet:
        """Return every photo that is not for testing, with the tile nearest to where it looks.

        Raises:
            InputError: photos or imagery are missing or wrong, or no photo can be used.
        """
        scene = self._scene
        chosen = np.flatnonzero(~scene.tests)
        if not len(chosen):
            raise InputError(f"{self._photos}: every photo is of split test; none is left to train")
        tiles, pair_tile = np.unique(scene.nearest[chosen], return_inverse=True)
        return PairSet(
            name=self.name,
            queries=self._queries(scene, chosen),
            references=TileImages(
                self._source, scene.frame, scene.centers_m[tiles], self._config.footprint_m
            ),
            pair_query=np.arange(len(chosen), dtype=np.int32),
            pair_reference=pair_tile.astype(np.int32),
            pair_weight=np.ones(len(chosen), np.float32),
            relations=take_relations(scene.relations, chosen, tiles),
            reference_positions=Positions(scene.centers_m[tiles], "metres"),
        )

    def tasks(self) -> list[RetrievalTask]:
        """Return photos of split test, or all where none is, to be found among all tiles.

        Raises:
            InputError: photos or imagery are missing or wrong, or no photo can be used.
        """
        scene = self._scene
        apart = bool(scene.tests.any())
        chosen = np.flatnonzero(scene.tests if apart else np.ones(len(scene.views), bool))
        asked = "test photos" if apart else "all photos, those of the training included"
        return [
            RetrievalTask(
                name="drone→satellite",
                protocol=f"own: {asked}; all {len(scene.centers_m):,} tiles",
                queries=self._queries(scene, chosen),
                gallery=scene.tiles,
                positives=take_relations(
                    scene.relations.positives(), chosen, np.arange(len(scene.centers_m))
                ),
                one_percent_k=cmc_percent(len(scene.centers_m)),
                metrics=("recall", "ap", "sdm"),
                query_positions=Positions(scene.looks_m[chosen], "metres"),
                gallery_positions=Positions(scene.centers_m, "metres"),
            )
        ]

    def counts(self) -> list[Count]:
        """Return photos that can be used and why others cannot, and tiles.

        Raises:
            InputError: photos or imagery are missing or wrong, or no photo can be used.
        """
        scene = self._scene
        return [
            Count("photos for training", int((~scene.tests).sum())),
            Count("photos for testing", int(scene.tests.sum())),
            *(Count(f"photos that {why}", n) for why, n in sorted(scene.refused.items())),
            Count("tiles", len(scene.centers_m)),
        ]

    def _queries(self, scene: _Scene, chosen: npt.NDArray[np.int64]) -> PhotoImages:
        return PhotoImages([scene.views[i] for i in chosen], self._config.footprint_m)

    @cached_property
    def _scene(self) -> _Scene:
        footprint_m = self._config.footprint_m
        photos = read_photos(self._photos)
        ground = open_ground(self._source)
        try:
            frame = LocalFrame(*ground.bounds.center)
            lattice = _lattice(ground, frame, footprint_m, self._config.stride)
        finally:
            ground.close()
        refused: Counter[str] = Counter()
        view: View | str
        views: list[View] = []
        looks, rows, columns, weights, nearest = [], [], [], [], []
        for photo in photos:
            try:
                view = plan_view(photo, footprint_m)
            except UnreadableImageError as error:
                view = _UNREADABLE
                if not refused[view]:
                    say(str(error))
            if isinstance(view, str):
                refused[view] += 1
                continue
            foot = frame.to_local(photo.lat_deg, photo.lon_deg)
            look = np.array(foot, np.float64) + view.offset_m
            tiles, ious, closest = lattice.overlaps(look)
            if closest is None:
                refused[_NO_TILE] += 1
                continue
            rows += [len(views)] * len(tiles)
            columns.append(tiles)
            weights.append(ious)
            nearest.append(closest)
            views.append(view)
            looks.append(look)
        for why, number in sorted(refused.items()):
            say(f"{self._photos}: {number} of {len(photos)} photos {why} and are left out")
        if not views:
            raise InputError(
                f"{self._photos}: none of {len(photos)} photos can be used with {self._source} at "
                f"footprint_m = {footprint_m:g}: {'; '.join(sorted(refused))}"
            )
        return _Scene(
            frame=frame,
            views=views,
            looks_m=np.array(looks),
            tests=np.array([view.photo.test for view in views]),
            tiles=TileImages(self._source, frame, lattice.centers_m, footprint_m),
            centers_m=lattice.centers_m,
            relations=_graded(rows, np.concatenate(columns), np.concatenate(weights), nearest),
            nearest=np.array(nearest, np.int32),
            refused=refused,
        )


def _graded(
    rows: list[int], columns: Indices, ious: npt.NDArray[np.float64], nearest: list[int]
) -> Relations:
    """Return 1 for the nearest tile, the IoU for other positives, 0 for semi-positives."""
    weights = np.where(ious >= POSITIVE_IOU, ious, 0.0)
    weights[columns == np.array(nearest)[rows]] = 1.0
    kept = (weights > 0) | (ious >= SEMI_IOU)
    return Relations.from_edges(np.array(rows)[kept], columns[kept], len(nearest), weights[kept])


@dataclass(frozen=True)
class _Lattice:
    footprint_m: float
    west_m: float  # of the centre of column 0
    north_m: float  # of the centre of row 0
    stride_m: float
    number: npt.NDArray[np.int32]  # (rows, columns): which tile, -1 where imagery lacks
    centers_m: npt.NDArray[np.float64]  # (T, 2)

    def overlaps(
        self, look_m: npt.NDArray[np.float64]
    ) -> tuple[Indices, npt.NDArray[np.float64], int | None]:
        """Return tiles around a place, their IoU with such a square there, and the nearest.

        The nearest is None where the place lies in no tile.
        """
        if not np.isfinite(look_m).all():  # the other end of the world
            return np.empty(0, np.int32), np.empty(0), None
        rows, columns = self.number.shape
        column = round((look_m[0] - self.west_m) / self.stride_m)
        row = round((self.north_m - look_m[1]) / self.stride_m)
        reach = math.ceil(self.footprint_m / self.stride_m)
        window = self.number[
            max(0, row - reach) : max(0, min(rows, row + reach + 1)),
            max(0, column - reach) : max(0, min(columns, column + reach + 1)),
        ]
        tiles = window[window >= 0]
        apart = np.abs(self.centers_m[tiles] - look_m)
        common = np.clip(self.footprint_m - apart, 0, None).prod(axis=1)
        ious = common / (2 * self.footprint_m**2 - common)
        inside = np.flatnonzero(apart.max(axis=1, initial=0.0) <= self.footprint_m / 2)
        if not len(inside):
            return tiles, ious, None
        closest = inside[np.hypot(*apart[inside].T).argmin()]
        return tiles, ious, int(tiles[closest])


def _lattice(
    ground: GroundSource, frame: LocalFrame, footprint_m: float, stride: float
) -> _Lattice:
    """Lay tiles over imagery, margins alike on opposite sides; drop those with holes."""
    west, south, east, north = frame.local_bounds(ground.bounds)
    size_m = max(east - west, north - south)
    stride_m = stride * footprint_m
    columns, rows = (
        math.floor((extent - footprint_m) / stride_m + 1e-6) + 1
        for extent in (east - west, north - south)
    )
    if columns < 1 or rows < 1:
        raise InputError(
            f"{ground.name}: {east - west:.0f} x {north - south:.0f} m of imagery hold no tile of "
            f"footprint_m = {footprint_m:g}; choose smaller tiles"
        )
    probe_m = max(footprint_m / _PROBE_PX, size_m / _MAX_PROBE_PX)
    if probe_m > footprint_m / _MIN_PROBE_PX:
        raise InputError(
            f"{ground.name}: {size_m / 1000:.0f} km of imagery are too wide for tiles of "
            f"footprint_m = {footprint_m:g}; cut out what the photos show"
        )
    margin_x = (east - west - footprint_m - (columns - 1) * stride_m) / 2
    margin_y = (north - south - footprint_m - (rows - 1) * stride_m) / 2
    first = (west + margin_x + footprint_m / 2, north - margin_y - footprint_m / 2)
    center_x = first[0] + np.arange(columns) * stride_m
    center_y = first[1] - np.arange(rows) * stride_m
    width_px, height_px = (math.ceil(extent / probe_m) for extent in (east - west, north - south))
    window = GroundWindow(west, north, probe_m, width_px, height_px)
    holes = ~ground.read(frame, window).valid
    area = np.zeros((height_px + 1, width_px + 1), np.int64)
    area[1:, 1:] = holes.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    side_px = round(footprint_m / probe_m)
    left = np.clip(np.rint((center_x - footprint_m / 2 - west) / probe_m), 0, None).astype(int)
    top = np.clip(np.rint((north - center_y - footprint_m / 2) / probe_m), 0, None).astype(int)
    right, bottom = np.minimum(left + side_px, width_px), np.minimum(top + side_px, height_px)
    lacking = (
        area[bottom[:, None], right]
        - area[top[:, None], right]
        - area[bottom[:, None], left]
        + area[top[:, None], left]
    )
    whole = lacking <= (1 - _MIN_VALID) * side_px**2
    number = np.full((rows, columns), -1, np.int32)
    number[whole] = np.arange(int(whole.sum()))
    grid = np.stack(np.meshgrid(center_x, center_y), axis=-1)
    return _Lattice(footprint_m, *first, stride_m, number, grid[whole])
