"""Ground in memory: tiles as a pack cuts them, frames as a camera takes them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from condition import VALID_SHARE, Floats, Gallery, Images, Shot, lattice

from s4g.core.camera import (
    Attitude,
    Camera,
    apply_homography,
    ground_from_pixel,
    look_point_m,
)
from s4g.core.dusk import brighten
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround, GroundWindow
from s4g.core.sources import open_ground
from s4g.core.warp import north_up_patch

# The camera of simulated flights; a patch covers half of the frame's short side, so that a wrong
# height or heading still leaves it inside the frame.
CAMERA = Camera.from_hfov(640, 480, 60.0)
PATCH_SHARE = 0.5
# Ground this many footprints around a query must be imagery: what a frame from too high up sees.
REACH = 1.7


@dataclass(frozen=True, eq=False)
class Scene:
    """A north-up picture of ground.

    Attributes:
        name: for messages.
        source: of the ground, see `Gallery`.
        ground: the picture, its local frame and bounds.
        valid: (H + 1, W + 1) summed-area table of valid pixels.
        offset_m: east, north of the local frame's origin in the region's coordinates.
    """

    name: str
    source: str
    ground: ArrayGround
    valid: npt.NDArray[np.int64]
    offset_m: tuple[float, float] = (0.0, 0.0)

    @property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the picture's own frame."""
        ground = self.ground
        height, width = ground.valid.shape
        return (
            ground.west_m,
            ground.north_m - height * ground.gsd_m,
            ground.west_m + width * ground.gsd_m,
            ground.north_m,
        )

    def valid_share(self, east_m: float, north_m: float, side_m: float) -> float:
        """Return the share of valid pixels in a square; beyond the picture is invalid."""
        ground = self.ground
        height, width = ground.valid.shape
        x, y = (east_m - ground.west_m) / ground.gsd_m, (ground.north_m - north_m) / ground.gsd_m
        half = side_m / 2 / ground.gsd_m
        x0, x1, y0, y1 = round(x - half), round(x + half), round(y - half), round(y + half)
        total = max(1, (x1 - x0) * (y1 - y0))
        x0, x1 = (min(max(v, 0), width) for v in (x0, x1))
        y0, y1 = (min(max(v, 0), height) for v in (y0, y1))
        table = self.valid
        inside = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
        return float(inside / total)

    def tile(self, east_m: float, north_m: float, footprint_m: float, size_px: int) -> Images:
        """Return one tile (S, S, 3) uint8."""
        half, gsd_m = footprint_m / 2, footprint_m / size_px
        window = GroundWindow(east_m - half, north_m + half, gsd_m, size_px, size_px)
        return self.ground.read(self.ground.frame, window).rgb

    def tiles(self, footprint_m: float, size_px: int) -> tuple[Images, Floats]:
        """Return all valid tiles (N, S, S, 3) and their centres (N, 2)."""
        centers = [
            place
            for place in lattice(self.bounds_m, footprint_m)
            if self.valid_share(*place, footprint_m) >= VALID_SHARE
        ]
        tiles = [self.tile(east, north, footprint_m, size_px) for east, north in centers]
        shape = (0, size_px, size_px, 3)
        stacked = np.stack(tiles) if tiles else np.zeros(shape, np.uint8)
        return stacked, np.asarray(centers, np.float64).reshape(-1, 2) + self.offset_m

    def gallery(self, footprint_m: float, size_px: int) -> Gallery:
        """Return all valid tiles of this scene alone."""
        tiles, centers = self.tiles(footprint_m, size_px)
        return Gallery(f"{self.name} @ {footprint_m:g} m", self.source, footprint_m, tiles, centers)

    def frame(self, attitude: Attitude, foot_m: tuple[float, float]) -> Images:
        """Return what `CAMERA` sees (480, 640, 3) from above a place; black beyond the picture."""
        ground_from_frame = ground_from_pixel(CAMERA, attitude)
        right, bottom = CAMERA.width_px - 1, CAMERA.height_px - 1
        edge = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float64)
        corners = apply_homography(ground_from_frame, edge) + foot_m
        gsd_m = attitude.agl_m / CAMERA.fx_px
        west_m, south_m = corners.min(axis=0) - 2 * gsd_m
        east_m, north_m = corners.max(axis=0) + 2 * gsd_m
        width, height = int((east_m - west_m) / gsd_m) + 1, int((north_m - south_m) / gsd_m) + 1
        window = GroundWindow(float(west_m), float(north_m), gsd_m, width, height)
        picture = self.ground.read(self.ground.frame, window).rgb
        window_from_ground = np.array(
            [
                [1 / gsd_m, 0, (foot_m[0] - west_m) / gsd_m - 0.5],
                [0, -1 / gsd_m, (north_m - foot_m[1]) / gsd_m - 0.5],
                [0, 0, 1],
            ]
        )
        frame = cv2.warpPerspective(
            picture,
            window_from_ground @ ground_from_frame,
            (CAMERA.width_px, CAMERA.height_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        return np.asarray(frame, np.uint8)


def agl_for(footprint_m: float) -> float:
    """Return the height from which a footprint fills `PATCH_SHARE` of the frame's short side."""
    return footprint_m / PATCH_SHARE / CAMERA.height_px * CAMERA.fx_px


def foot_below(attitude: Attitude, place_m: tuple[float, float]) -> tuple[float, float]:
    """Return where a camera must be for the middle of its frame to show a place."""
    east_m, north_m = look_point_m(CAMERA, attitude)
    return place_m[0] - east_m, place_m[1] - north_m


def normalised(frame: Images, reported: Attitude, footprint_m: float, size_px: int) -> Images:
    """Return a frame's middle (S, S, 3) north-up and to scale, by what telemetry says."""
    middle_m = look_point_m(CAMERA, reported)
    patch = north_up_patch(frame, CAMERA, reported, middle_m, footprint_m, size_px)[0]
    brighten(patch[None])  # as the runtime does
    return patch


def shots(
    frames: Sequence[Images],
    reported: Sequence[Attitude],
    footprint_m: float,
    center_m: Floats,
    cluster: npt.NDArray[np.int64],
) -> tuple[Shot, ...]:
    """Return frames of `CAMERA` with what is known of each."""
    return tuple(
        Shot(frame, CAMERA, attitude, footprint_m, place, int(number))
        for frame, attitude, place, number in zip(frames, reported, center_m, cluster, strict=True)
    )


def scene_of(
    name: str, source: str, ground: ArrayGround, offset_m: tuple[float, float] = (0.0, 0.0)
) -> Scene:
    """Return a picture as a scene."""
    height, width = ground.valid.shape
    table = np.zeros((height + 1, width + 1), np.int64)
    table[1:, 1:] = ground.valid.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    return Scene(name, source, ground, table, offset_m)


@functools.lru_cache(maxsize=64)
def read_scene(
    path: Path, source: str, origin: tuple[float, float] | None = None, gsd_m: float = 0.0
) -> Scene:
    """Read a raster whole, in metres around its middle; black pixels are no imagery.

    Args:
        path: the file.
        source: see `Gallery`.
        origin: latitude and longitude that the region's coordinates start at; the middle if None.
        gsd_m: ground size of a pixel; the file's own if 0.
    """
    opened = open_ground(str(path))
    middle = opened.bounds.center
    frame = LocalFrame(*middle)
    west_m, south_m, east_m, north_m = frame.local_bounds(opened.bounds)
    gsd_m = gsd_m or opened.gsd_m
    width, height = round((east_m - west_m) / gsd_m), round((north_m - south_m) / gsd_m)
    image = opened.read(frame, GroundWindow(west_m, north_m, gsd_m, width, height))
    opened.close()
    valid = image.valid & image.rgb.any(axis=2)
    ground = ArrayGround(image.rgb, valid, frame, west_m, north_m, gsd_m, name=path.name)
    offset_m = (0.0, 0.0)
    if origin is not None:
        east, north = LocalFrame(*origin).to_local(*middle)
        offset_m = (float(east), float(north))
    return scene_of(path.name, source, ground, offset_m)


def draw_places(
    scene: Scene,
    bounds_m: tuple[float, float, float, float],
    footprint_m: float,
    count: int,
    rng: np.random.Generator,
    reach: float = REACH,
) -> list[tuple[float, float]]:
    """Draw places whose footprint lies in the bounds and around which all is imagery.

    Returns fewer than `count` where the ground hardly has any.
    """
    west_m, south_m, east_m, north_m = bounds_m
    half = footprint_m / 2
    places: list[tuple[float, float]] = []
    for _ in range(60 * count):
        if len(places) == count:
            break
        east = float(rng.uniform(west_m + half, east_m - half))
        north = float(rng.uniform(south_m + half, north_m - half))
        if scene.valid_share(east, north, reach * footprint_m) >= 0.995:
            places.append((east, north))
    return places
