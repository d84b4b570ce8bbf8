"""Flights of real photos: what is packed, what their files tell, and where they were taken."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from flight_block import SENECA, Photo, placed, rows_of
from photo_conditions import (
    BRIGHTON_FOLDER,
    CALITERRA_FOLDER,
    held_out,
    on_mosaic,
)
from photo_mosaic import mosaic_of
from photo_poses import read_poses

from s4g.core.camera import Camera
from s4g.core.files import write_json
from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundSource
from s4g.core.images import read_rgb
from s4g.core.sources import open_ground

ORTHO = "ortho_from_laz_0.12m.tif"
_MAP_GSD_M = 0.1
# Frames cover 65 x 37 m, six of eighteen look past the orthophoto's edge: small tiles fit into the
# corner that sees it.
_BRIGHTON_LEVELS_M = (16.0,)
_CALITERRA_LEVELS_M = (16.0, 32.0)
_SENECA_LEVELS_M = (36.0,)


@dataclass(frozen=True)
class Shot:
    """A photo that is looked for.

    Attributes:
        file: the picture.
        t: seconds by the camera's clock.
        told: columns of the telemetry and what they say; what is missing is unknown.
        lat: where it was taken, degrees.
        lon: the same.
    """

    file: Path
    t: float
    told: dict[str, float]
    lat: float
    lon: float


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """A flight and its map.

    Attributes:
        name: for files.
        title: for tables.
        about: what the reader must know of it.
        alert_limit_m: fixes farther off are false: the side of the widest tile.
        levels_m: footprints of the tiles.
        ground: what is packed.
        camera: of the photos.
        shots: in the order in which they were taken.
    """

    name: str
    title: str
    about: str
    alert_limit_m: float
    levels_m: tuple[float, ...]
    ground: GroundSource
    camera: Camera
    shots: tuple[Shot, ...]


def brighton(data: Path, name: str) -> PhotoSet:
    """Return the nadir photos of Brighton Beach on an orthophoto of the same flight."""
    folder = data / BRIGHTON_FOLDER
    poses, hfov_deg = read_poses(folder / "photos.csv")
    clock = _clock(_rows(folder))
    shots = []
    for pose in poses:
        at, file = pose.attitude, folder / "photos" / pose.file
        told = _told(at.yaw_deg, at.pitch_deg, at.roll_deg) | {"agl_m": at.agl_m}
        shots.append(Shot(file, clock[pose.file], told, float(pose.lat), float(pose.lon)))
    height, width = read_rgb(shots[0].file).shape[:2]
    return PhotoSet(
        name,
        "Brighton Beach",
        "nadir, gimbal attitude, a photo every 7 s or more; map: an orthophoto of the same flight; "
        "truth: GPS, 1 to 2 m off; never shown to the encoder",
        *_limit(_BRIGHTON_LEVELS_M),
        open_ground(str(folder / ORTHO)),
        Camera.from_hfov(width, height, hfov_deg),
        tuple(shots),
    )


def caliterra(data: Path, name: str) -> PhotoSet:
    """Return Caliterra's odd photos on a mosaic of the even ones."""
    folder = data / CALITERRA_FOLDER
    scene, photos = on_mosaic(folder)
    mapped, asked = photos[::2], photos[1::2]
    # The GPS altitudes drift by 100 m in three minutes: what a pilot knows is the planned height.
    planned_m = float(np.median([photo.true.agl_m for photo in mapped]))
    shots = _shots(folder, asked, scene.ground.frame, lambda photo: {"agl_m": planned_m})
    return PhotoSet(
        name,
        "Caliterra",
        f"near nadir, no attitude; a photo every 4 s; height taken as {planned_m:.0f} m, true for "
        "all but the climb; map: the even photos, asked: the odd ones; truth: registered on the "
        "flight's mosaic; all of its photos trained the encoder",
        *_limit(_CALITERRA_LEVELS_M),
        mosaic_of(mapped, scene.ground.frame, _MAP_GSD_M, name),
        asked[0].camera,
        shots,
    )


def seneca(data: Path, name: str) -> PhotoSet:
    """Return Seneca's odd photos on a mosaic of the even ones."""
    _, _, frame = rows_of(data, SENECA)
    photos = [photo for photo in placed(data, SENECA) if photo.tied]
    mapped, asked = photos[::2], photos[1::2]
    apart = {photo.name for photo in held_out(data, photos)}
    unseen = sum(photo.name in apart for photo in asked)

    def told(photo: Photo) -> dict[str, float]:
        at = photo.reported
        return _told(at.yaw_deg, at.pitch_deg, at.roll_deg) | {"agl_m": at.agl_m}

    return PhotoSet(
        name,
        "Seneca",
        "fixed wing, bare fields in false colour (near infrared), tilt up to 18°, a photo every "
        "18 s or so; map: the even photos, asked: the odd ones; truth: where the block of matches "
        "that placed the map puts them, which GPS holds to 5 m; all but the ground of "
        f"{unseen} of them trained the encoder",
        *_limit(_SENECA_LEVELS_M),
        mosaic_of(mapped, frame, _MAP_GSD_M, name),
        asked[0].camera,
        _shots(data / SENECA.folder, asked, frame, told),
    )


# Each set, the folder it needs, and what makes it.
SETS: dict[str, tuple[str, Callable[[Path, str], PhotoSet]]] = {
    "brighton": (BRIGHTON_FOLDER, brighton),
    "caliterra": (CALITERRA_FOLDER, caliterra),
    "seneca": (SENECA.folder, seneca),
}


def write_seen(chosen: PhotoSet, folder: Path) -> None:
    """Write what a method gets: frames, clock, telemetry and lens; no true position."""
    (folder / "frames").mkdir(parents=True)
    for shot in chosen.shots:
        shutil.copyfile(shot.file, folder / "frames" / shot.file.name)
    clock = [{"file": shot.file.name, "t": f"{shot.t:.3f}"} for shot in chosen.shots]
    _write_csv(folder / "frames.csv", clock)
    _write_csv(
        folder / "telemetry.csv",
        [
            row | {name: f"{value:.3f}" for name, value in shot.told.items()}
            for row, shot in zip(clock, chosen.shots, strict=True)
        ],
    )
    lens = dataclasses.asdict(chosen.camera)
    write_json(folder / "camera.json", lens | {"distortion": list(chosen.camera.distortion)})


def write_truth(chosen: PhotoSet, path: Path) -> None:
    """Write where the photos were taken."""
    rows = [
        {"file": shot.file.name, "lat": f"{shot.lat:.8f}", "lon": f"{shot.lon:.8f}"}
        for shot in chosen.shots
    ]
    _write_csv(path, rows)


def _limit(levels_m: tuple[float, ...]) -> tuple[float, tuple[float, ...]]:
    return max(levels_m), levels_m


def _told(yaw_deg: float, pitch_deg: float, roll_deg: float) -> dict[str, float]:
    return {"yaw_deg": yaw_deg, "pitch_deg": pitch_deg, "roll_deg": roll_deg}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "photos.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _clock(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """Return the seconds of each photo since the first, by its EXIF, whole seconds."""
    times = {row["file"]: datetime.strptime(row["datetime"], "%Y:%m:%d %H:%M:%S") for row in rows}
    first = min(times.values())
    return {file: (time - first).total_seconds() for file, time in times.items()}


def _shots(
    folder: Path,
    photos: Sequence[Photo],
    frame: LocalFrame,
    told: Callable[[Photo], dict[str, float]],
) -> tuple[Shot, ...]:
    clock = _clock(_rows(folder))
    places = [frame.to_wgs84(*photo.foot_m) for photo in photos]
    shots = [
        Shot(folder / "photos" / p.name, clock[p.name], told(p), float(lat), float(lon))
        for p, (lat, lon) in zip(photos, places, strict=True)
    ]
    return tuple(sorted(shots, key=lambda shot: (shot.t, shot.file.name)))


def _write_csv(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
