"""Where the photos of a flight lie, headed and how high: a least-squares block of their matches.

Each photo's telemetry makes it a flat piece of ground in metres; the block moves, turns and scales
each piece so that ground seen twice meets itself, and stays near the positions by GPS.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from condition import Floats, Images
from registration import features, matches

from s4g.core.camera import Attitude, Camera, apply_homography, ground_from_pixel
from s4g.core.geo import LocalFrame
from s4g.core.images import read_rgb

_NEIGHBOURS = 8  # by GPS, with which a photo is matched
_LEAST = 20  # inliers of a match: plausibility is judged below
_POINTS = 30  # of a match that count
# A match that asks for more than this off telemetry and GPS is false: fields look alike.
_MAX_TURN_DEG, _MAX_SCALE, _MAX_SHIFT_M = 45.0, 1.33, 60.0
# One sigma: matched points against each other (flat ground is a model), GPS, height, heading.
_POINT_M, _GPS_M, _HEIGHT, _HEADING_RAD = 5.0, 5.0, 0.05, 0.15
# The mean height is held: matches alone could always agree better by shrinking everything.
_MEAN_HEIGHT = 0.003
_WORST = 3.0  # median residuals, and a metre, beyond which a match is dropped
_ROUNDS = 3

Row = dict[str, str]


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo in its place.

    Attributes:
        name: of the file.
        image: (H, W, 3) uint8.
        camera: its intrinsics.
        reported: attitude by telemetry.
        true: attitude by the block.
        foot_m: east, north of the camera.
        gps_m: the same by GPS.
        tied: whether any match holds it.
    """

    name: str
    image: Images
    camera: Camera
    reported: Attitude
    true: Attitude
    foot_m: Floats
    gps_m: Floats
    tied: bool = True


@dataclass(frozen=True)
class Flight:
    """Photos of one flight: folder, pattern, focal length in pixels per column, telemetry."""

    folder: str
    pattern: str
    focal: float
    attitude: Callable[[Row], Attitude]


def _fixed_wing(row: Row) -> Attitude:
    yaw, pitch, roll = (float(row[f"flight_{axis}"]) for axis in ("yaw", "pitch", "roll"))
    return Attitude(yaw, pitch, roll, float(row["rel_alt_m"]))


def _sequoia(row: Row) -> Attitude:
    # The height above ground is not in the file: the block finds 107 m by GPS.
    yaw, pitch, roll = (float(row[f"gimbal_{axis}"]) for axis in ("yaw", "pitch", "roll"))
    return Attitude(yaw, pitch, roll, 107.0)


SENECA = Flight("seneca", "photos/*.jpg", 4.3 / 6.17, _fixed_wing)
GARFIELD = Flight("garfield_multispectral", "photos/*.JPG", 28 / 36, _sequoia)


@functools.lru_cache(maxsize=4)
def placed(data: Path, flight: Flight) -> tuple[Photo, ...]:
    """Return the photos of a flight in the order of their names, in place."""
    photos = _read(data, flight)
    ties = _ties(photos)
    for _ in range(_ROUNDS):
        shift = _solved(photos, ties)
        apart = [
            np.sqrt(((_moved(shift[i], p) - _moved(shift[j], q)) ** 2).sum(axis=1).mean())
            for i, j, p, q in ties
        ]
        limit = _WORST * float(np.median(apart)) + 1.0
        ties = [tie for tie, off in zip(ties, apart, strict=True) if off <= limit]
    shift = _solved(photos, ties)
    main = _largest_block(len(photos), ties)
    return tuple(
        dataclasses.replace(
            photo,
            true=dataclasses.replace(
                photo.reported,
                yaw_deg=photo.reported.yaw_deg - float(np.degrees(np.arctan2(b, a))),
                agl_m=photo.reported.agl_m * float(np.hypot(a, b)),
            ),
            foot_m=np.array([east, north]),
            tied=number in main,
        )
        for number, (photo, (a, b, east, north)) in enumerate(zip(photos, shift, strict=True))
    )


def rows_of(data: Path, flight: Flight) -> tuple[list[Path], list[Row], LocalFrame]:
    """Return the photos of a flight by name, what its table says of each, and its local frame."""
    files = sorted((data / flight.folder).glob(flight.pattern))
    with (data / flight.folder / "photos.csv").open(newline="", encoding="utf-8") as table:
        rows = {row["file"]: row for row in csv.DictReader(table)}
    mine = [rows[file.name] for file in files]
    lat, lon = (float(np.mean([float(row[name]) for row in mine])) for name in ("lat", "lon"))
    return files, mine, LocalFrame(lat, lon)


def _read(data: Path, flight: Flight) -> list[Photo]:
    files, mine, frame = rows_of(data, flight)
    lat, lon = (np.array([float(row[name]) for row in mine]) for name in ("lat", "lon"))
    east, north = frame.to_local(lat, lon)
    photos = []
    for number, file in enumerate(files):
        image = read_rgb(file)
        height, width = image.shape[:2]
        focal_px = flight.focal * width
        camera = Camera(width, height, focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)
        reported = flight.attitude(mine[number])
        place = np.array([east[number], north[number]], np.float64)
        photos.append(Photo(file.name, image, camera, reported, reported, place, place))
    return photos


Tie = tuple[int, int, Floats, Floats]  # two photos, points (k, 2) in metres below each


def _ties(photos: list[Photo]) -> list[Tie]:
    found = [features(photo.image) for photo in photos]
    place = np.array([photo.gps_m for photo in photos])
    pairs = {
        (min(i, int(j)), max(i, int(j)))
        for i in range(len(photos))
        for j in np.argsort(np.hypot(*(place - place[i]).T), kind="stable")[1 : 1 + _NEIGHBOURS]
    }
    ties = []
    for i, j in sorted(pairs):
        match = matches(found[i], found[j], _LEAST)
        if match is None:
            continue
        p, q = (
            apply_homography(ground_from_pixel(photos[k].camera, photos[k].reported), points)
            for k, points in ((i, match[1]), (j, match[2]))
        )
        if _plausible(p, q, place[i] - place[j]):
            rows = np.random.default_rng(0).permutation(len(p))[:_POINTS]
            ties.append((i, j, p[rows], q[rows]))
    return ties


def _plausible(p: Floats, q: Floats, apart_m: Floats) -> bool:
    first, second = ((v - v.mean(axis=0)) @ [1, 1j] for v in (p, q))
    ratio = np.vdot(first, second) / np.vdot(first, first).real
    shift_m = float(np.hypot(*(apart_m + p.mean(axis=0) - q.mean(axis=0))))
    turn_deg = abs(float(np.degrees(np.angle(ratio))))
    scaled = max(abs(ratio), 1 / abs(ratio)) < _MAX_SCALE
    return turn_deg < _MAX_TURN_DEG and bool(scaled) and shift_m < _MAX_SHIFT_M


def _solved(photos: list[Photo], ties: list[Tie]) -> Floats:
    """Return a, b, east, north (N, 4): metres below a photo to metres of the region."""
    count = len(photos)
    normal, right = np.zeros((4 * count, 4 * count)), np.zeros(4 * count)

    def add(rows: Floats, columns: list[int], values: Floats) -> None:
        normal[np.ix_(columns, columns)] += rows.T @ rows
        right[columns] += rows.T @ values

    for i, j, p, q in ties:
        rows = np.hstack([_rows(p), -_rows(q)]) / _POINT_M
        columns = [*range(4 * i, 4 * i + 4), *range(4 * j, 4 * j + 4)]
        add(rows, columns, np.zeros(len(rows)))
    for i, photo in enumerate(photos):
        sigma = np.array([_HEIGHT, _HEADING_RAD, _GPS_M, _GPS_M])
        prior = np.array([1.0, 0.0, *photo.gps_m])
        add(np.diag(1 / sigma), list(range(4 * i, 4 * i + 4)), prior / sigma)
    mean = np.full((1, count), 1 / count / _MEAN_HEIGHT)
    add(mean, list(range(0, 4 * count, 4)), np.array([1 / _MEAN_HEIGHT]))
    return np.asarray(np.linalg.solve(normal, right).reshape(count, 4), np.float64)


def _rows(points: Floats) -> Floats:
    """Return the factors (2k, 4) of a, b, east, north in the place of points (k, 2)."""
    x, y = points.T
    one, zero = np.ones(len(points)), np.zeros(len(points))
    return np.vstack([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])


def _moved(shift: Floats, points: Floats) -> Floats:
    return np.asarray((_rows(points) @ shift).reshape(2, -1).T, np.float64)


def _largest_block(count: int, ties: list[Tie]) -> set[int]:
    blocks = [{number} for number in range(count)]
    for i, j, _, _ in ties:
        if blocks[i] is not blocks[j]:
            blocks[i] |= blocks[j]
            for number in blocks[j]:
                blocks[number] = blocks[i]
    return max(blocks, key=len)
