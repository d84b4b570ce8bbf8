"""North-up views of simulated flights, as the frame loop cuts them, and where they truly lie."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from brighton import command
from calibration_flights import Flight

from s4g.core.camera import (
    Attitude,
    Camera,
    apply_homography,
    ground_from_pixel,
    pixel_from_ground,
)
from s4g.core.geo import LocalFrame
from s4g.core.images import decode_rgb
from s4g.runtime.normalise import PatchPlan, cut_patches, plan_patches, plan_warps

Floats = npt.NDArray[np.float64]
RGB = npt.NDArray[np.uint8]

SIDE_PX = 128
LEVELS_M = (40.0, 80.0)


@dataclass(frozen=True)
class View:
    """A frame's centre patch and the truth of it; positions in the frame of the first photo.

    Attributes:
        t: seconds.
        picture: (128, 128, 3) uint8.
        footprint_m: its side on the ground as reported.
        center_m: (2,) east, north of its middle from the drone as reported.
        agl_m: reported height.
        drone_m: (2,) true east, north of the drone.
        middle_m: (2,) true east, north of the view's middle.
        lat_deg: true latitude of that middle.
        lon_deg: true longitude.
    """

    t: float
    picture: RGB
    footprint_m: float
    center_m: Floats
    agl_m: float
    drone_m: Floats
    middle_m: Floats
    lat_deg: float
    lon_deg: float


def render(flight: Flight, folder: Path, fps: float, pattern: list[str], exact: bool) -> Path:
    """Fly over a calibration country at another rate, with exact sensors or ordinary ones."""
    if not folder.exists():
        errors = ["--tilt", "0", "--heading-error", "0", "--agl-error", "0"] if exact else []
        command(
            "s4g-sim", "--source", flight.flown, "--agl", str(flight.agl_m), "--sway", "3",
            "--speed", "20", "--fps", f"{fps:g}", "--seed", "1", *pattern, *errors,
            "--out", str(folder),
        )  # fmt: skip
    return folder


def read_views(folder: Path) -> list[View]:
    """Return the views of a flight's frames that show a tile."""
    values = json.loads((folder / "camera.json").read_text(encoding="utf-8"))
    camera = Camera(**values | {"distortion": tuple(values["distortion"])})
    tables = []
    for name in ("telemetry.csv", "truth.csv"):
        with (folder / name).open(encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    first = tables[1][0]
    frame = LocalFrame(float(first["lat"]), float(first["lon"]))
    views = []
    for told, true in zip(*tables, strict=True):
        attitude = _attitude(told)
        plan = plan_patches(camera, attitude, LEVELS_M, SIDE_PX, 1)
        if not isinstance(plan, PatchPlan):
            continue
        path = folder / "frames" / told["file"]
        rgb = decode_rgb(path.read_bytes(), path.name)
        picture = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8)
        cut_patches(rgb, plan_warps(camera, attitude, plan, SIDE_PX, 0, 1), picture)
        pixel = apply_homography(pixel_from_ground(camera, attitude), plan.centers_m[:1])
        east, north = frame.to_local(float(true["lat"]), float(true["lon"]))
        drone_m = np.array([float(east), float(north)])
        middle_m = drone_m + apply_homography(ground_from_pixel(camera, _attitude(true)), pixel)[0]
        lat, lon = frame.to_wgs84(*middle_m)
        views.append(
            View(
                float(told["t"]),
                picture[0],
                plan.footprint_m,
                plan.centers_m[0],
                attitude.agl_m,
                drone_m,
                middle_m,
                float(lat),
                float(lon),
            )
        )
    return views


def _attitude(row: dict[str, str]) -> Attitude:
    return Attitude(*(float(row[k]) for k in ("yaw_deg", "pitch_deg", "roll_deg", "agl_m")))
