"""Cut a data set of University-1652's shape from real imagery: places, tiles, drone views.

A place's tile and its drone views come from other dates or other photos, never from one picture.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from encoder.registration import Homography, features, project, register

from s4g.core.console import say
from s4g.core.files import atomic_folder
from s4g.core.geo import LocalFrame, distance_m
from s4g.core.images import encode_rgb
from s4g.core.sources import open_ground
from s4g.train.grounds import Ground, load_grounds
from s4g.train.photometric import photometric
from s4g.train.recipe import GroundConfig, ViewConfig
from s4g.train.views import Image, Place, cut_patch, drone_geometry, tile_geometry

SIDE_PX = 192
JPEG_QUALITY = 95
VIEWS = 6  # of each place
# How far a drone view is off its tile after telemetry has turned it north-up.
OFF = ViewConfig(
    center_offset=0.1, yaw_error_deg=10.0, tilt_deg=6.0, tilt_error_deg=3.0, height_error=0.1
)
# Ground within so many footprints must be imagery: what such a view reaches.
REACH = 1.5
# Centres of places to train on and to ask lie so many footprints apart, or more.
GAP = 2.0

NAIP_YEARS = (2020, 2009, 2012, 2015, 2017, 2019)  # the first is the map
NAIP_FOOTPRINT_M = 240.0
NEON_FOOTPRINT_M = 14.5  # three by three places in a plot of 40 m
NEON_TEST_EVERY = 3  # plots
DISTRACTORS = {"xyz": 120, "rasters": 40}
# Of a photo's short side: small enough for its neighbours to see the place whole.
PHOTO_SHARE = 0.35
TRAIN_SHARE = 0.6  # of a flight's photos, along its longer axis

NEAREST_PHOTOS = 10


@dataclass(frozen=True)
class Shot:
    """A picture of a place: where it lies in an image, which date, how strongly it is altered."""

    place: Place
    date: int = 0
    strength: float = 0.0


@dataclass(frozen=True)
class Site:
    """A place of the data set.

    Attributes:
        source: folder of the imagery.
        split: `train`, `test` or `gallery` (a distractor: no query shows it).
        lat_deg: WGS84, NaN for distractors.
        lon_deg: likewise.
        tile: what the satellite tile is cut from.
        shots: what drone views are drawn from, in turn.
    """

    source: str
    split: str
    lat_deg: float
    lon_deg: float
    tile: Shot
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Flight:
    """Photos that overlap: folder, pattern, nominal ground size of a pixel, column of heading."""

    folder: str
    pattern: str
    gsd_m: float
    heading: str = ""


FLIGHTS = (
    Flight("caliterra", "photos/*.jpg", 0.047),
    Flight("seneca", "photos/*.jpg", 0.078, "flight_yaw"),
    Flight("garfield_multispectral", "photos/*.JPG", 0.1, "gimbal_yaw"),
)


def cut_set(data: Path, out: Path, seed: int) -> dict[str, dict[str, int]]:
    """Write the data set; return how many places each source gives to each split.

    Args:
        data: folder of the imagery.
        out: new folder: `train`, `test`, `coordinates.csv` (id, lat, lon), `places.csv` (id,
            source, split).
        seed: of all that is random.

    Raises:
        InputError: imagery is missing, or `out` exists.
    """
    counts: dict[str, dict[str, int]] = {}
    places: list[str] = ["id,source,split"]
    coordinates: list[str] = ["id,lat,lon"]
    with atomic_folder(out) as folder:
        for number, site in enumerate(_sites(data, seed), 1):
            name = f"{number:04d}"
            _write_site(folder, name, site, np.random.default_rng((seed, number)))
            places.append(f"{name},{site.source},{site.split}")
            if site.split != "gallery":
                coordinates.append(f"{name},{site.lat_deg:.8f},{site.lon_deg:.8f}")
            of_source = counts.setdefault(site.source, {"train": 0, "test": 0, "gallery": 0})
            of_source[site.split] += 1
        (folder / "places.csv").write_text("\n".join(places) + "\n")
        (folder / "coordinates.csv").write_text("\n".join(coordinates) + "\n")
    return counts


def _sites(data: Path, seed: int) -> Iterator[Site]:
    yield from _naip(data)
    yield from _neon(data)
    for flight in FLIGHTS:
        yield from _flight_sites(data, flight)
    yield from _distractors(data, np.random.default_rng((seed, 0)))


def _write_site(folder: Path, name: str, site: Site, rng: np.random.Generator) -> None:
    """Write one place's tile and drone views into the folders that its split has."""
    place = site.tile.place
    tile = cut_patch(place, site.tile.date, tile_geometry(place, SIDE_PX), SIDE_PX)
    pictures = {"satellite": [tile], "drone": []}
    for i in range(VIEWS):
        shot = site.shots[i % len(site.shots)]
        geometry, _ = drone_geometry(shot.place, SIDE_PX, OFF, rng)
        view = cut_patch(shot.place, shot.date, geometry, SIDE_PX)
        pictures["drone"].append(_altered(view, shot.strength, rng))
    roles = {
        "train": ("train/{}",),
        "test": ("test/gallery_{}", "test/query_{}"),
        "gallery": ("test/gallery_{}",),
    }[site.split]
    for kind, images in pictures.items():
        first, *others = (folder / role.format(kind) / name for role in roles)
        first.mkdir(parents=True)
        for i, image in enumerate(images, 1):
            (first / f"{i}.jpg").write_bytes(encode_rgb(image, ".jpg", JPEG_QUALITY))
        for other in others:  # the official set has copies, too
            other.mkdir(parents=True)
            for file in sorted(first.iterdir()):
                os.link(file, other / file.name)


def _altered(view: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return a view (S, S, 3) as another light or season might show it."""
    batch = torch.from_numpy(view[None]).float()
    changed = photometric(batch, torch.tensor([strength]), int(rng.integers(1 << 62)))
    return np.asarray(changed[0].round().to(torch.uint8).numpy(), np.uint8)


def _lattice(ground: Ground, footprint_m: float, stride: float) -> Iterator[tuple[float, float]]:
    """Yield centres, metres from the north-west corner, with imagery all around."""
    step_m, reach_m = footprint_m * stride, footprint_m * REACH
    xs, ys = (_middle_steps(side_m, reach_m, step_m) for side_m in ground.size_m)
    for y_m in ys:
        for x_m in xs:
            if ground.valid_share(x_m, y_m, reach_m) >= 0.999:
                yield x_m, y_m


def _middle_steps(side_m: float, reach_m: float, step_m: float) -> list[float]:
    """Return centres whose reach stays inside, in steps around the middle."""
    count = int((side_m - reach_m) // step_m) + 1
    return [side_m / 2 + (i - (count - 1) / 2) * step_m for i in range(count)]


def _frame(file: Path) -> tuple[LocalFrame, float, float]:
    """Return the local frame that `load_grounds` reads a file in, and its north-west corner."""
    ground = open_ground(str(file))
    frame = LocalFrame(*ground.bounds.center)
    west_m, _, _, north_m = frame.local_bounds(ground.bounds)
    ground.close()
    return frame, west_m, north_m


def _stack_site(
    source: str,
    split: str,
    ground: Ground,
    corner: tuple[LocalFrame, float, float],
    center_m: tuple[float, float],
    footprint_m: float,
    strength: float,
) -> Site:
    place = Place(ground, *center_m, footprint_m, 0.0, False)
    frame, west_m, north_m = corner
    lat, lon = frame.to_wgs84(west_m + center_m[0], north_m - center_m[1])
    views = tuple(Shot(place, date, strength) for date in range(1, len(ground.dates)))
    return Site(source, split, float(lat), float(lon), Shot(place), views)


def _naip(data: Path) -> Iterator[Site]:
    """The west trains, the east is asked; a footprint of ground between is left out."""
    source = "naip_nd_multidate"
    files = tuple(f"{source}/*_{year}*.tif" for year in NAIP_YEARS)
    (ground,) = load_grounds((GroundConfig("stack", files=files),), data, lambda name: None)
    corner = _frame(next(iter(sorted(data.glob(files[0])))))
    middle_m = ground.size_m[0] / 2
    for center in _lattice(ground, NAIP_FOOTPRINT_M, 0.5):
        if abs(center[0] - middle_m) >= GAP / 2 * NAIP_FOOTPRINT_M:
            split = "train" if center[0] < middle_m else "test"
            yield _stack_site(source, split, ground, corner, center, NAIP_FOOTPRINT_M, 0.3)


def _neon(data: Path) -> Iterator[Site]:
    """Each third plot is asked; plots lie hundreds of metres apart."""
    source = "neon_sjer_two_years"
    files = tuple(f"{source}/{year}/*.tif" for year in (2018, 2017))
    grounds = load_grounds((GroundConfig("stack", files=files),), data, lambda name: None)
    for number, ground in enumerate(grounds):
        corner = _frame(data / source / "2018" / ground.name)
        split = "test" if number % NEON_TEST_EVERY == NEON_TEST_EVERY - 1 else "train"
        for center in _lattice(ground, NEON_FOOTPRINT_M, 0.5):
            yield _stack_site(source, split, ground, corner, center, NEON_FOOTPRINT_M, 0.3)


def _distractors(data: Path, rng: np.random.Generator) -> Iterator[Site]:
    """Places of one date only; nobody asks for them."""
    sources = {
        "xyz": ("oam_xyz_tiles", GroundConfig("xyz", files=("oam_xyz_tiles/*",), zoom=19)),
        "rasters": ("small_orthos", GroundConfig("rasters", files=("small_orthos/[on]*.tif",))),
    }
    for kind, (source, config) in sources.items():
        found = []
        for ground in load_grounds((config,), data, lambda name: None):
            footprint_m = 40.0 if ground.gsd_m < 0.5 else 150.0
            found += [(ground, xy, footprint_m) for xy in _lattice(ground, footprint_m, 1.0)]
        count = min(DISTRACTORS[kind], len(found))
        for row in sorted(rng.choice(len(found), count, replace=False)):
            ground, center, footprint_m = found[row]
            place = Place(ground, center[0], center[1], footprint_m, 0.0, False)
            views = (Shot(place, 0, 0.8),)
            yield Site(source, "gallery", math.nan, math.nan, Shot(place), views)


class _Photos:
    """One flight's photos, where they were taken, and how they overlap."""

    def __init__(self, data: Path, flight: Flight) -> None:
        config = GroundConfig(
            "pictures", files=(f"{flight.folder}/{flight.pattern}",), gsd_m=flight.gsd_m
        )
        self.grounds = load_grounds((config,), data, lambda name: None)
        with (data / flight.folder / "photos.csv").open(newline="", encoding="utf-8") as file:
            rows = {row["file"]: row for row in csv.DictReader(file)}
        mine = [rows[ground.name] for ground in self.grounds]
        self.lat = np.array([float(row["lat"]) for row in mine])
        self.lon = np.array([float(row["lon"]) for row in mine])
        self.turn_deg = [float(row[flight.heading]) if flight.heading else 0.0 for row in mine]
        self.footprint_m = PHOTO_SHARE * min(self.grounds[0].size_m)
        frame = LocalFrame(float(self.lat.mean()), float(self.lon.mean()))
        self.position_m = np.column_stack(frame.to_local(self.lat, self.lon))
        self._features = [features(ground.dates[0][0]) for ground in self.grounds]
        self._found: dict[tuple[int, int], Homography | None] = {}

    def place(self, photo: int) -> Place:
        """Return the ground in the middle of a photo, north-up where its heading is known."""
        ground = self.grounds[photo]
        width_m, height_m = ground.size_m
        turn_deg = self.turn_deg[photo]
        return Place(ground, width_m / 2, height_m / 2, self.footprint_m, turn_deg, False)

    def seen_in(self, photo: int, other: int) -> Place | None:
        """Return the place of one photo as another shows it; None where they do not register."""
        matrix = self.homography(photo, other)
        if matrix is None:
            return None
        place = self.place(other)
        place.pixel_from_local = matrix @ self.place(photo).pixel_from_local
        return place

    def homography(self, photo: int, other: int) -> Homography | None:
        """Return the map from pixels of one photo to pixels of another."""
        key = (min(photo, other), max(photo, other))
        if key not in self._found:
            self._found[key] = register(self._features[key[0]], self._features[key[1]])
        matrix = self._found[key]
        if matrix is None or photo < other:
            return matrix
        return np.asarray(np.linalg.inv(matrix), np.float64)

    def nearest(self, photo: int) -> list[int]:
        """Return the photos taken nearest, by GPS."""
        away = np.hypot(*(self.position_m - self.position_m[photo]).T)
        return [int(i) for i in np.argsort(away, kind="stable") if i != photo][:NEAREST_PHOTOS]

    def shift(self, photo: int, other: int) -> float:
        """Return how far apart the middles of two photos lie, in footprints; inf: not known."""
        place = self.seen_in(photo, other)
        if place is None:
            return math.inf
        seen = project(place.pixel_from_local, np.zeros((1, 2)))[0]
        middle = project(self.place(other).pixel_from_local, np.zeros((1, 2)))[0]
        pixels = float(np.hypot(*(seen - middle)))
        return pixels * self.grounds[other].gsd_m / self.footprint_m

    def holds(self, other: int, place: Place, reach: float) -> bool:
        """Tell whether a photo shows a square of `reach` footprints, undistorted enough."""
        half_m = reach * self.footprint_m / 2
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_m
        corners = project(place.pixel_from_local, square)
        height, width = self.grounds[other].dates[0][0].shape[:2]
        inside = (corners >= 0).all() and (corners <= [width - 1, height - 1]).all()
        sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
        expected = 2 * half_m / self.grounds[other].gsd_m
        return bool(inside and sides.min() > 0.6 * expected and sides.max() < 1.6 * expected)


def _flight_sites(data: Path, flight: Flight) -> Iterator[Site]:
    photos = _Photos(data, flight)
    count = len(photos.grounds)
    axis = int(np.argmax(np.ptp(photos.position_m, axis=0)))
    along_m = photos.position_m[:, axis]
    cut_m = float(np.quantile(along_m, TRAIN_SHARE))
    split = ["train" if along < cut_m else "test" for along in along_m]
    # GPS is rough: `_too_close` looks at the ground itself as well.
    for row in np.flatnonzero(np.abs(along_m - cut_m) < photos.footprint_m / 2):
        split[row] = "dropped"
    chosen: list[int] = []
    unregistered = 0
    for photo in range(count):
        near = [other for other in photos.nearest(photo) if split[other] != "dropped"]
        if split[photo] == "dropped" or any(_too_close(photos, split, photo, i) for i in chosen):
            continue
        mine = [other for other in near if split[other] == split[photo]]
        seen = [(other, photos.seen_in(photo, other)) for other in mine]
        whole = [(i, p) for i, p in seen if p is not None and photos.holds(i, p, 1.0)]
        if not whole:
            unregistered += 1
            continue
        others = [p for i, p in whole[1:] if photos.holds(i, p, REACH)]
        shots = tuple(Shot(place, 0, 0.5) for place in (photos.place(photo), *others))
        chosen.append(photo)
        lat, lon = float(photos.lat[photo]), float(photos.lon[photo])
        yield Site(flight.folder, split[photo], lat, lon, Shot(whole[0][1]), shots[:VIEWS])
    say(
        f"{flight.folder}: {count} photos, {split.count('dropped')} at the cut, "
        f"{unregistered} that no other photo shows whole, {len(chosen)} places"
    )


def _too_close(photos: _Photos, split: list[str], photo: int, other: int) -> bool:
    """Tell whether two places share more than half their ground, or any across the splits."""
    limit = 0.5 if split[photo] == split[other] else GAP
    away_m = distance_m(photos.lat[photo], photos.lon[photo], photos.lat[other], photos.lon[other])
    # GPS is off by tens of metres: only photos that may overlap are registered at all.
    if float(away_m) > 4 * photos.footprint_m:
        return False
    return photos.shift(photo, other) < limit
