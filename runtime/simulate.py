"""Rendering of a simulated camera flight: errors of the sensors, and frames of the ground.

A frame is rendered as a camera takes it: the ground is read, averaged over areas, at the size of
a frame pixel on the ground, and one warp through the lens and the tilted pinhole brings it to the
frame. The ground is flat, as the homography of `core.camera` has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..core.camera import Attitude, Camera, apply_homography, distort, ground_from_pixel
from ..core.errors import InputError
from ..core.geo import LocalFrame
from ..core.ground import GroundImage, GroundSource, GroundWindow
from .route import Track

RGB = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_SWAY_S = 2.0  # correlation time of the aircraft's sway
_DRIFT_S = 30.0  # of compass, altimeter and velocity errors
_EXPOSURE_S = 5.0  # of auto-exposure
_DISPLAY_GAMMA = 2.2
_MAX_BLUR_STEPS = 24
_MAX_WINDOW_PX = 64_000_000
# Rays this far off straight down see ground that flat earth and one scale describe badly.
_MAX_RAY_DEG = 80.0
_MARGIN_PX = 3
_PROBES = 17  # points per side at which the size of a frame pixel on the ground is measured


@dataclass(frozen=True)
class SensorErrors:
    """How wrong the sensors are; standard deviations.

    Attributes:
        tilt_deg: pitch and roll of the camera that nothing reports.
        sway_deg: pitch and roll of the camera that the telemetry reports.
        heading_deg: error of the reported yaw.
        agl: relative error of the reported height.
        velocity_mps: error of the reported speeds.
    """

    tilt_deg: float = 1.0
    sway_deg: float = 0.0
    heading_deg: float = 2.0
    agl: float = 0.02
    velocity_mps: float = 0.3


@dataclass(frozen=True)
class Optics:
    """What a real camera does to a picture besides its geometry.

    Attributes:
        exposure_ms: time the shutter is open; the picture moves meanwhile.
        exposure_ev: standard deviation of the exposure's wander, f-stops.
        vignetting: loss of brightness in the corners, 0 to 1.
        noise: standard deviation of pixel noise, 8-bit steps.
    """

    exposure_ms: float = 2.0
    exposure_ev: float = 0.15
    vignetting: float = 0.15
    noise: float = 2.0


@dataclass(frozen=True)
class Moment:
    """One frame's true pose and what the sensors report of it.

    Attributes:
        index: number of the frame.
        t: seconds.
        lat_deg: true latitude.
        lon_deg: true longitude.
        true: true attitude and height.
        vel_n_mps: true speed north.
        vel_e_mps: true speed east.
        reported: attitude and height with the sensors' errors.
        reported_vel_n_mps: speed north with its error.
        reported_vel_e_mps: speed east with its error.
        exposure_ev: departure from the right exposure, f-stops.
    """

    index: int
    t: float
    lat_deg: float
    lon_deg: float
    true: Attitude
    vel_n_mps: float
    vel_e_mps: float
    reported: Attitude
    reported_vel_n_mps: float
    reported_vel_e_mps: float
    exposure_ev: float


def moments(track: Track, errors: SensorErrors, exposure_ev: float, seed: int) -> list[Moment]:
    """Draw the errors of a flight, as wandering as real ones, and return its moments."""
    count = len(track.t)
    step_s = float(track.t[1] - track.t[0]) if count > 1 else 1.0

    def wander(tag: int, std: float, time_s: float) -> Floats:
        return std * _wander(np.random.default_rng([seed, tag]), count, step_s / time_s)

    tilt = [wander(k, errors.tilt_deg, _SWAY_S) for k in (0, 1)]
    sway = [wander(k, errors.sway_deg, _SWAY_S) for k in (2, 3)]
    yaw = (track.yaw_deg + wander(4, errors.heading_deg, _DRIFT_S)) % 360.0 % 360.0
    agl = track.agl_m * np.exp(wander(5, errors.agl, _DRIFT_S))
    north = track.vel_n_mps + wander(6, errors.velocity_mps, _DRIFT_S)
    east = track.vel_e_mps + wander(7, errors.velocity_mps, _DRIFT_S)
    exposure = wander(8, exposure_ev, _EXPOSURE_S)
    return [
        Moment(
            index=i,
            t=float(track.t[i]),
            lat_deg=float(track.lat_deg[i]),
            lon_deg=float(track.lon_deg[i]),
            true=Attitude(
                float(track.yaw_deg[i]),
                float(tilt[0][i] + sway[0][i]),
                float(tilt[1][i] + sway[1][i]),
                float(track.agl_m[i]),
            ),
            vel_n_mps=float(track.vel_n_mps[i]),
            vel_e_mps=float(track.vel_e_mps[i]),
            reported=Attitude(float(yaw[i]), float(sway[0][i]), float(sway[1][i]), float(agl[i])),
            reported_vel_n_mps=float(north[i]),
            reported_vel_e_mps=float(east[i]),
            exposure_ev=float(exposure[i]),
        )
        for i in range(count)
    ]


def _wander(rng: np.random.Generator, count: int, step: float) -> Floats:
    """Return a stationary Gauss-Markov process of unit variance, (count,).

    `step` is the time between samples over the correlation time.
    """
    keep = math.exp(-step)
    push = math.sqrt(1 - keep**2)
    draws = rng.standard_normal(count)
    value = np.empty(count)
    value[0] = draws[0]
    for i in range(1, count):
        value[i] = keep * value[i - 1] + push * draws[i]
    return value


class FrameRenderer:
    """Takes the pictures of a flight over a source with one camera."""

    def __init__(self, source: GroundSource, camera: Camera, optics: Optics, seed: int) -> None:
        """Prepare what all frames share.

        Raises:
            InputError: the lens distortion folds the frame over itself.
        """
        self.source, self.camera, self.optics, self.seed = source, camera, optics, seed
        self._undistorted = undistorted_pixels(camera)
        self._shading = _shading(camera, optics.vignetting)

    def frame(self, moment: Moment) -> tuple[RGB, float]:
        """Return a frame (H, W, 3) uint8 and the share of it that shows the source, 0 to 1.

        What lies outside the source is black.

        Raises:
            InputError: the frame looks towards the horizon.
        """
        east, north = self._ground_m(moment)
        drift = np.array([moment.vel_e_mps, moment.vel_n_mps]) * self.optics.exposure_ms / 1e3
        window = self._window(east, north, drift)
        ground = self.source.read(LocalFrame(moment.lat_deg, moment.lon_deg), window)
        columns = (east - window.west_m) / window.gsd_m - 0.5
        rows = (window.north_m - north) / window.gsd_m - 0.5
        picture, valid = _expose(ground, columns, rows, drift / window.gsd_m)
        picture *= np.float32(2 ** (moment.exposure_ev / _DISPLAY_GAMMA))
        picture *= self._shading
        if self.optics.noise > 0:
            rng = np.random.default_rng([self.seed, 9, moment.index])
            grain = rng.standard_normal(picture.shape, np.float32)
            picture += grain * np.float32(self.optics.noise)
        frame = np.clip(np.round(picture), 0, 255).astype(np.uint8)
        frame[~valid] = 0
        return frame, float(valid.mean())

    def gsd_m(self, agl_m: float) -> float:
        """Return the ground size of a frame pixel straight below, metres."""
        return agl_m / self.camera.fx_px

    def _ground_m(self, moment: Moment) -> tuple[Floats, Floats]:
        """Return where each pixel's ray meets the ground: east, north (H, W) from the camera."""
        homography = ground_from_pixel(self.camera, moment.true)
        flat = self._undistorted.reshape(-1, 2)
        x, y = flat[:, 0], flat[:, 1]
        east, north, down = (row[0] * x + row[1] * y + row[2] for row in homography)
        shape = self._undistorted.shape[:2]
        # The third coordinate is the ray's drop over the height; the first two its way aside.
        steep = math.cos(math.radians(_MAX_RAY_DEG))
        length = np.sqrt(east**2 + north**2 + (down * moment.true.agl_m) ** 2)
        if (down * moment.true.agl_m < steep * length).any():
            raise InputError(
                f"frame {moment.index}: a lens of {self.camera.hfov_deg:.0f} degrees tilted "
                f"{moment.true.tilt_deg:.0f} degrees sees towards the horizon; reduce --hfov, "
                "--tilt or --sway"
            )
        return (east / down).reshape(shape), (north / down).reshape(shape)

    def _window(self, east: Floats, north: Floats, drift_m: Floats) -> GroundWindow:
        """Return the ground to read: all the frame sees, at the size of its finest pixels."""
        rows = np.linspace(0, east.shape[0] - 2, _PROBES).astype(int)
        columns = np.linspace(0, east.shape[1] - 2, _PROBES).astype(int)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        across = np.hypot(east[y, x + 1] - east[y, x], north[y, x + 1] - north[y, x])
        along = np.hypot(east[y + 1, x] - east[y, x], north[y + 1, x] - north[y, x])
        gsd = float(min(across.min(), along.min()))
        margin = _MARGIN_PX * gsd + float(np.abs(drift_m).max())
        west, top = float(east.min()) - margin, float(north.max()) + margin
        width = math.ceil((float(east.max()) + margin - west) / gsd)
        height = math.ceil((top - float(north.min()) + margin) / gsd)
        if width * height > _MAX_WINDOW_PX:
            raise InputError(
                f"--size {self.camera.width_px}x{self.camera.height_px}: a frame needs "
                f"{width}x{height} pixels of ground; reduce --size, --hfov or --tilt"
            )
        return GroundWindow(west, top, gsd, width, height)


def undistorted_pixels(camera: Camera) -> Floats:
    """Return for each frame pixel where it would lie without lens distortion, (H, W, 2).

    Raises:
        InputError: the distortion cannot be undone over the whole frame.
    """
    axis_x = np.arange(camera.width_px, dtype=np.float64)
    axis_y = np.arange(camera.height_px, dtype=np.float64)
    grid = np.stack(np.meshgrid(axis_x, axis_y), axis=-1)
    if not camera.distortion:
        return grid
    flat = grid.reshape(-1, 1, 2)
    straight = cv2.undistortPoints(
        flat, camera.matrix, np.array(camera.distortion), P=camera.matrix
    ).reshape(-1, 2)
    back = distort(camera, straight.astype(np.float32))
    if not np.abs(back - flat.reshape(-1, 2)).max() < 0.5:
        numbers = ",".join(f"{v:g}" for v in camera.distortion[:2])
        raise InputError(
            f"--distortion {numbers}: folds a frame of {camera.hfov_deg:.0f} degrees over itself; "
            "choose smaller coefficients or a narrower --hfov"
        )
    return np.asarray(straight.reshape(grid.shape), np.float64)


def _expose(
    ground: GroundImage, columns: Floats, rows: Floats, drift_px: Floats
) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """Return the picture averaged over the camera's way during exposure, and where it is valid."""
    steps = min(_MAX_BLUR_STEPS, 1 + math.ceil(float(np.hypot(*drift_px))))
    total = np.zeros((*columns.shape, 3), np.float32)
    for share in (np.arange(steps) + 0.5) / steps - 0.5:
        x = (columns + share * drift_px[0]).astype(np.float32)
        y = (rows - share * drift_px[1]).astype(np.float32)
        total += cv2.remap(ground.rgb, x, y, cv2.INTER_LINEAR)
    total /= steps
    mask = cv2.remap(
        ground.valid.astype(np.uint8),
        columns.astype(np.float32),
        rows.astype(np.float32),
        cv2.INTER_NEAREST,
    )
    return total, mask.astype(np.bool_)


def _shading(camera: Camera, loss: float) -> Float32:
    """Return the brightness (H, W, 1) of a lens that loses `loss` in the corners."""
    x = (np.arange(camera.width_px) - camera.cx_px) / (camera.width_px / 2)
    y = (np.arange(camera.height_px) - camera.cy_px) / (camera.height_px / 2)
    square = (x[None, :] ** 2 + y[:, None] ** 2) / 2
    return (1 - loss * square).astype(np.float32)[..., None]


def footprint_m(camera: Camera, agl_m: float) -> tuple[float, float]:
    """Return width and height of the ground a level camera sees, metres."""
    corners = [[-0.5, -0.5], [camera.width_px - 0.5, camera.height_px - 0.5]]
    homography = ground_from_pixel(camera, Attitude(0.0, 0.0, 0.0, agl_m))
    first, last = apply_homography(homography, corners)
    return float(abs(last[0] - first[0])), float(abs(last[1] - first[1]))
