"""Pinhole camera with OpenCV distortion, its attitude, and the flat ground below it.

Frames are spelt in names: `ned_from_camera` maps camera axes (x right, y down in the image,
z along the optical axis) to north-east-down; products read as chains. Attitude is the camera's:
yaw clockwise from true north, pitch nose up, roll right side down, applied in the aerospace
order yaw, pitch, roll; 0/0/0 looks straight down with north at the top of the image.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError

Matrix = npt.NDArray[np.float64]

# Beyond this tilt off nadir the ground in view is a thin far strip, and flat ground a bad model.
MAX_TILT_DEG = 60.0

# Coverage is counted on this many cells per side of a patch: 3 % steps along an edge.
_COVERAGE_CELLS = 32

# Homographies that are kept: of a frame at full size and reduced, in a few threads.
_KEPT = 16

# Tangent off the optical axis of the corner of the widest frame, 170 degrees, with some room.
_MAX_SLOPE = 20.0
# Where pixels go that no part of the frame shows; far from any frame, within OpenCV's range.
OUTSIDE_PX = -1e5

# Axes of a camera that looks straight down, in body forward-right-down: image right is right,
# image down is backward, the optical axis is down.
_BODY_FROM_CAMERA: Matrix = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Camera:
    """Intrinsics of a pinhole camera (OpenCV model; pixel centres at integers).

    Attributes:
        width_px: columns of the frame.
        height_px: rows of the frame.
        fx_px: focal length along x, pixels.
        fy_px: focal length along y, pixels.
        cx_px: column of the principal point.
        cy_px: row of the principal point.
        distortion: k1, k2, p1, p2[, k3[, k4, k5, k6]] (OpenCV order), empty for none.
    """

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: tuple[float, ...] = ()

    @classmethod
    def from_hfov(cls, width_px: int, height_px: int, hfov_deg: float) -> Camera:
        """Return a distortion-free camera of square pixels with the given field of view.

        Raises:
            InputError: the field of view is not between 1 and 170 degrees.
        """
        if not 1.0 <= hfov_deg <= 170.0:
            raise InputError(f"--hfov {hfov_deg:g}: expected degrees between 1 and 170")
        focal_px = width_px / 2 / math.tan(math.radians(hfov_deg) / 2)
        return cls(width_px, height_px, focal_px, focal_px, (width_px - 1) / 2, (height_px - 1) / 2)

    @property
    def matrix(self) -> Matrix:
        """The 3x3 camera matrix."""
        return np.array(
            [[self.fx_px, 0, self.cx_px], [0, self.fy_px, self.cy_px], [0, 0, 1]], np.float64
        )

    @property
    def hfov_deg(self) -> float:
        """Horizontal field of view in degrees, distortion ignored."""
        return math.degrees(2 * math.atan(self.width_px / 2 / self.fx_px))

    def resized(self, width_px: int, height_px: int) -> Camera:
        """Return the intrinsics of the same camera delivering frames of another size.

        Raises:
            InputError: the aspect ratio differs by more than 1 %: a crop, not a resize.
        """
        sx, sy = width_px / self.width_px, height_px / self.height_px
        if abs(sx / sy - 1) > 0.01:
            raise InputError(
                f"frame of {width_px}x{height_px} px, camera calibrated at "
                f"{self.width_px}x{self.height_px}: the aspect ratio differs; calibrate at the "
                "frame's own size"
            )
        return Camera(
            width_px,
            height_px,
            self.fx_px * sx,
            self.fy_px * sy,
            (self.cx_px + 0.5) * sx - 0.5,
            (self.cy_px + 0.5) * sy - 0.5,
            self.distortion,
        )

    def reduced(self, factor: int) -> Camera:
        """Return the intrinsics of frames decoded at 1/`factor`, blocks of pixels averaged.

        A JPEG decoder rounds the reduced size up, so a last column or row may be partial:
        the scale is exactly 1/`factor` all the same.
        """
        return Camera(
            -(-self.width_px // factor),
            -(-self.height_px // factor),
            self.fx_px / factor,
            self.fy_px / factor,
            (self.cx_px + 0.5) / factor - 0.5,
            (self.cy_px + 0.5) / factor - 0.5,
            self.distortion,
        )


@dataclass(frozen=True)
class Attitude:
    """Attitude of the camera and its height above flat ground.

    Attributes:
        yaw_deg: heading of the image's top edge, clockwise from true north.
        pitch_deg: nose up; the optical axis leans towards the heading.
        roll_deg: right side down; the optical axis leans to the left of the heading.
        agl_m: height above the ground, metres.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    agl_m: float

    @property
    def ned_from_camera(self) -> Matrix:
        """Rotation from camera axes to north-east-down."""
        yaw, pitch, roll = (math.radians(v) for v in (self.yaw_deg, self.pitch_deg, self.roll_deg))
        cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
        cr, sr = math.cos(roll), math.sin(roll)
        about_down = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        about_right = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        about_forward = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        ned_from_body = about_down @ about_right @ about_forward
        rotation: Matrix = ned_from_body @ _BODY_FROM_CAMERA
        return rotation

    @property
    def tilt_deg(self) -> float:
        """Angle between the optical axis and straight down, degrees."""
        return math.degrees(math.acos(np.clip(self.ned_from_camera[2, 2], -1.0, 1.0)))


@functools.lru_cache(maxsize=_KEPT)
def ground_from_pixel(camera: Camera, attitude: Attitude) -> Matrix:
    """Return the homography from undistorted pixels to east, north metres below the camera.

    It is kept for the next call, and read-only: a frame's patches all ask for the same one.

    A pixel's ray meets flat ground at `agl_m` times its north and east slope (Hartley and
    Zisserman, Multiple View Geometry, 2nd ed., section 8.1).

    Raises:
        InputError: the height is not positive, or the camera tilts more than 60 degrees.
    """
    if not attitude.agl_m > 0:
        raise InputError(f"agl_m {attitude.agl_m:g}: the height above ground must be positive")
    if attitude.tilt_deg > MAX_TILT_DEG:
        raise InputError(
            f"camera tilt {attitude.tilt_deg:.0f} deg: frames beyond {MAX_TILT_DEG:.0f} deg off "
            "straight down are not used"
        )
    ray_ned = attitude.ned_from_camera @ np.linalg.inv(camera.matrix)
    result = np.stack([ray_ned[1], ray_ned[0], ray_ned[2] / attitude.agl_m])
    result.flags.writeable = False
    return result


@functools.lru_cache(maxsize=_KEPT)
def pixel_from_ground(camera: Camera, attitude: Attitude) -> Matrix:
    """Return the homography from east, north metres below the camera to undistorted pixels.

    It is kept for the next call, and read-only.

    Raises:
        InputError: as `ground_from_pixel`.
    """
    result = np.asarray(np.linalg.inv(ground_from_pixel(camera, attitude)), np.float64)
    result.flags.writeable = False
    return result


def apply_homography(homography: Matrix, points: npt.ArrayLike) -> Matrix:
    """Map points (N, 2) through a 3x3 homography."""
    mapped = np.asarray(points, np.float64) @ homography[:, :2].T + homography[:, 2]
    return np.asarray(mapped[:, :2] / mapped[:, 2:], np.float64)


def frame_points(
    camera: Camera, frame_from_square: Matrix, x: Matrix, y: Matrix
) -> tuple[Matrix, Matrix]:
    """Return where points lie in the real frame, columns and rows; outside where it cannot see.

    The third homogeneous coordinate is the depth along the optical axis: ground behind the
    camera, as a tilted camera has it, would show up mirrored.

    Args:
        camera: intrinsics of the frame.
        frame_from_square: homography to undistorted pixels.
        x: of the points, any shape.
        y: of the points, a shape that broadcasts with it: of a grid, a row and a column will do.
    """
    column, row, depth = (h[0] * x + (h[1] * y + h[2]) for h in frame_from_square)
    behind = depth <= 0
    hidden = bool(behind.any())
    if hidden:
        depth[behind] = np.inf
    column /= depth
    row /= depth
    if camera.distortion:
        column, row = _distorted(camera, column, row)
    if hidden:
        column[behind] = row[behind] = OUTSIDE_PX
    return column, row


def look_point_m(camera: Camera, attitude: Attitude) -> tuple[float, float]:
    """Return east, north metres from the camera's foot to where the image's centre meets ground."""
    middle = [[(camera.width_px - 1) / 2, (camera.height_px - 1) / 2]]
    east, north = apply_homography(ground_from_pixel(camera, attitude), middle)[0]
    return float(east), float(north)


def distort(camera: Camera, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return where undistorted pixels (N, 2) lie in the camera's real, distorted frame.

    Pixels so far out that the distortion polynomial turns back come out at -1e5, -1e5: it would
    place them inside the frame, where the camera shows something else.
    """
    if not camera.distortion:
        return pixels
    column, row = pixels.astype(np.float64).T
    return np.stack(_distorted(camera, column, row), axis=1).astype(np.float32)


def _distorted(camera: Camera, column: Matrix, row: Matrix) -> tuple[Matrix, Matrix]:
    """Do what `distort` does, for columns and rows by themselves.

    It is OpenCV's `projectPoints` written out, which takes ten times as long.
    """
    x = (column - camera.cx_px) / camera.fx_px
    y = (row - camera.cy_px) / camera.fy_px
    _, _, p1, p2, *_ = camera.distortion
    square = x * x + y * y
    beyond = square > reach(camera.distortion) ** 2
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the reach, overwritten next
        radial = _radial(camera.distortion, square)
        twice_xy = 2.0 * x * y
        across = x * radial + (p1 * twice_xy + p2 * (square + 2.0 * x * x))
        down = y * radial + (p2 * twice_xy + p1 * (square + 2.0 * y * y))
    across = across * camera.fx_px + camera.cx_px
    down = down * camera.fy_px + camera.cy_px
    across[beyond] = down[beyond] = OUTSIDE_PX
    return across, down


def _radial(distortion: tuple[float, ...], square: Matrix) -> Matrix:
    """Return by how much a ray's slope grows, given the square of it (OpenCV's rational model)."""
    k1, k2, _, _, k3, k4, k5, k6 = (*distortion, *(0.0,) * 8)[:8]
    factor: Matrix = 1 + square * (k1 + square * (k2 + square * k3))
    if k4 or k5 or k6:
        factor /= 1 + square * (k4 + square * (k5 + square * k6))
    return factor


@functools.lru_cache(maxsize=16)
def reach(distortion: tuple[float, ...]) -> float:
    """Return the slope (tangent off the axis) up to which the radial polynomial increases."""
    slope = np.linspace(0, _MAX_SLOPE, 2001)
    falling = np.flatnonzero(np.diff(slope * _radial(distortion, slope**2)) <= 0)
    return float(slope[falling[0]]) if falling.size else _MAX_SLOPE


def ground_from_patch(east_m: float, north_m: float, footprint_m: float, size_px: int) -> Matrix:
    """Return the affine map (3x3) from pixels of a north-up patch to east, north metres."""
    gsd = footprint_m / size_px
    half = footprint_m / 2
    return np.array(
        [[gsd, 0, east_m - half + gsd / 2], [0, -gsd, north_m + half - gsd / 2], [0, 0, 1]]
    )


def sees(
    camera: Camera, attitude: Attitude, east_m: Matrix, north_m: Matrix
) -> npt.NDArray[np.bool_]:
    """Tell which places on the ground the frame shows.

    Args:
        camera: intrinsics of the frame.
        attitude: attitude and height.
        east_m: metres from the camera's foot, any shape.
        north_m: the same, a shape that broadcasts with it.

    Raises:
        InputError: as `ground_from_pixel`.
    """
    column, row = frame_points(camera, pixel_from_ground(camera, attitude), east_m, north_m)
    inside: npt.NDArray[np.bool_] = (column >= 0) & (column <= camera.width_px - 1)
    inside &= (row >= 0) & (row <= camera.height_px - 1)
    return inside


def patch_coverage(
    camera: Camera, attitude: Attitude, center_m: tuple[float, float], footprint_m: float
) -> float:
    """Return the share of one north-up ground square that the frame sees, 0 to 1.

    Args:
        camera: intrinsics of the frame.
        attitude: attitude and height.
        center_m: east, north metres of the square's centre from the camera's foot.
        footprint_m: side of the square, metres.

    Raises:
        InputError: as `ground_from_pixel`.
    """
    return float(patch_coverages(camera, attitude, [[*center_m, footprint_m]])[0])


def patch_coverages(
    camera: Camera, attitude: Attitude, squares_m: npt.ArrayLike, cells: int = _COVERAGE_CELLS
) -> Matrix:
    """Return the share of each north-up ground square that the frame sees (N,), 0 to 1.

    Args:
        camera: intrinsics of the frame.
        attitude: attitude and height.
        squares_m: (N, 3) east and north metres of the centre from the camera's foot, and side.
        cells: points looked at per side of a square.

    Raises:
        InputError: as `ground_from_pixel`.
    """
    squares = np.asarray(squares_m, np.float64).reshape(-1, 3)
    steps = squares[:, 2:] * ((np.arange(cells) + 0.5) / cells - 0.5)
    east, north = (squares[:, :1] + steps)[:, None, :], (squares[:, 1:2] - steps)[:, :, None]
    inside = sees(camera, attitude, east, north)
    seen = np.count_nonzero(inside.reshape(len(squares), -1), axis=1)
    share: Matrix = seen / cells**2
    return share
