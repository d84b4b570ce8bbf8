"""Real photos of drones on maps of the same flight: same sensor, false colour, near infrared."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from condition import (
    STRIDE,
    VALID_SHARE,
    Condition,
    Floats,
    Gallery,
    Group,
    Images,
    Region,
    Setting,
    Shot,
)
from flight_block import GARFIELD, SENECA, Flight, Photo, placed
from infrared import infrared
from photo_cut import cut, draw_pixels, map_of, metres, middle_m
from photo_poses import read_poses
from registration import features, matches, project
from scene import Scene, read_scene, scene_of
from telemetry import usual_errors

from s4g.core.camera import Attitude, Camera, Matrix, pixel_from_ground
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.images import read_rgb
from s4g.train.photo_split import read_positions, split_apart

BRIGHTON = "brighton beach"
BRIGHTON_FOLDER = "brighton_beach"
BRIGHTON_FOOTPRINT_M = 15.0
CALITERRA = "same flight: caliterra"
CALITERRA_FOLDER = "caliterra"
CALITERRA_FOOTPRINT_M = 32.0
CALITERRA_MAP_GSD_M = 0.255
CALITERRA_FOCAL = 4.5 / 6.17  # of the columns
GARFIELD_SAME = "same flight: garfield"
GARFIELD_OWN = "same flight: garfield, its telemetry"
GARFIELD_NIR = "other sensor: garfield NIR"
GARFIELD_FOOTPRINT_M = 40.0
SENECA_SAME = "false colour: seneca"
SENECA_OWN = "false colour: seneca, its telemetry"
SENECA_FOOTPRINT_M = 36.0
# Of Seneca's photos, which train; what the split takes a pixel for.
SENECA_TRAINS, SENECA_GSD_M = 0.5, 0.078
# Photos are asked in turns, each on a map of all that are not asked with it.
FOLDS = 2
_SEED = 67_000

Report = Callable[[Photo, np.random.Generator], Attitude]


def _estimated(photo: Photo, rng: np.random.Generator) -> Attitude:
    return usual_errors(photo.true, rng)


def _reported(photo: Photo, rng: np.random.Generator) -> Attitude:
    return photo.reported


def _region(
    gallery: Gallery,
    photos: list[Photo],
    report: Report,
    setting: Setting,
    seed: int,
    of_scene: Scene | None = None,
) -> Region:
    """Cut patches from photos as the runtime does with what telemetry reports."""
    footprint_m = gallery.footprint_m
    queries, truths, cluster = [], [], []
    for number, photo in enumerate(photos):
        rng = np.random.default_rng((_SEED, seed, number))
        count = math.ceil(setting.queries / len(photos))
        pixels = draw_pixels(photo, footprint_m, count if of_scene is None else 4 * count, rng)
        taken = 0
        for pixel in pixels:
            truth = photo.foot_m + metres(photo, photo.true, pixel)
            if not _is_mapped(gallery, of_scene, truth) or taken == count:
                continue
            taken += 1
            told = report(photo, rng)
            matrix = pixel_from_ground(photo.camera, told)
            center_m = metres(photo, told, pixel)
            queries.append(
                cut(photo.image, photo.camera, matrix, center_m, footprint_m, setting.size_px)
            )
            truths.append(truth)
            cluster.append(number)
    shots = _shots(gallery, photos, report, seed, of_scene)
    return Region(gallery, np.stack(queries)[:, None], np.array(truths), np.array(cluster), shots)


def _shots(
    gallery: Gallery, photos: list[Photo], report: Report, seed: int, of_scene: Scene | None
) -> tuple[Shot, ...]:
    """Return the photos, whole, whose middle the map holds."""
    shots = []
    for number, photo in enumerate(photos):
        told = report(photo, np.random.default_rng((_SEED, seed, number, 1)))
        truth = middle_m(photo)
        if _is_mapped(gallery, of_scene, truth):
            shots.append(Shot(photo.image, photo.camera, told, gallery.footprint_m, truth, number))
    return tuple(shots)


def _is_mapped(gallery: Gallery, scene: Scene | None, truth: Floats) -> bool:
    """Tell whether the map holds the ground around a place."""
    if scene is not None:
        share = scene.valid_share(float(truth[0]), float(truth[1]), gallery.footprint_m)
        if share < VALID_SHARE:
            return False
    nearest = np.abs(gallery.center_m - truth).max(axis=1).min()
    return bool(nearest <= STRIDE * gallery.footprint_m)


def _brighton(setting: Setting, names: tuple[str, ...]) -> Iterator[Condition]:
    if BRIGHTON not in names:
        return
    folder = setting.data / BRIGHTON_FOLDER
    scene = read_scene(folder / "ortho_from_laz_0.12m.tif", BRIGHTON_FOLDER)
    poses, hfov_deg = read_poses(folder / "photos.csv")
    photos = []
    for pose in poses:
        image = read_rgb(folder / "photos" / pose.file)
        camera = Camera.from_hfov(image.shape[1], image.shape[0], hfov_deg)
        east, north = scene.ground.frame.to_local(float(pose.lat), float(pose.lon))
        place = np.array([float(east), float(north)])
        photos.append(Photo(pose.file, image, camera, pose.attitude, pose.attitude, place, place))
    gallery = scene.gallery(BRIGHTON_FOOTPRINT_M, setting.size_px)
    region = _region(gallery, photos, _reported, setting, 0, scene)
    about = f"{len(photos)} photos with their telemetry on the flight's orthophoto"
    yield Condition(BRIGHTON, about, (region,))


def _caliterra(setting: Setting, names: tuple[str, ...]) -> Iterator[Condition]:
    if CALITERRA not in names:
        return
    scene, photos = on_mosaic(setting.data / CALITERRA_FOLDER)
    gallery = scene.gallery(CALITERRA_FOOTPRINT_M, setting.size_px)
    region = _region(gallery, photos, _estimated, setting, 1, scene)
    about = f"{len(photos)} photos on the flight's mosaic"
    yield Condition(CALITERRA, about, (region,), seen=True)


@functools.lru_cache(maxsize=1)
def on_mosaic(folder: Path) -> tuple[Scene, list[Photo]]:
    """Return Caliterra's mosaic and the photos that register on it, as cameras straight above."""
    mosaic = read_rgb(folder / "caliterra.png")
    valid = mosaic.any(axis=2) & (mosaic.min(axis=2) < 255)
    height, width = valid.shape
    west_m, north_m = (side * CALITERRA_MAP_GSD_M / 2 for side in (-width, height))
    frame = LocalFrame(30.1713, -98.0898)
    ground = ArrayGround(mosaic, valid, frame, west_m, north_m, CALITERRA_MAP_GSD_M)
    of_map = features(mosaic, width)
    metres_from_map = np.array(
        [
            [CALITERRA_MAP_GSD_M, 0, west_m + CALITERRA_MAP_GSD_M / 2],
            [0, -CALITERRA_MAP_GSD_M, north_m - CALITERRA_MAP_GSD_M / 2],
            [0, 0, 1],
        ]
    )
    photos = []
    for file in sorted((folder / "photos").glob("*.jpg")):
        image = read_rgb(file)
        match = matches(features(image, 400), of_map, 20, 3.0)
        if match is not None:
            photos.append(_straight_above(file.name, image, metres_from_map @ match[0]))
    return scene_of("caliterra", CALITERRA_FOLDER, ground), photos


def _straight_above(name: str, image: Images, metres_from_pixel: Matrix) -> Photo:
    """Return a photo as one taken straight down, from how its middle lies on the map."""
    height, width = image.shape[:2]
    focal_px = CALITERRA_FOCAL * width
    camera = Camera(width, height, focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)
    step = width / 4
    middle = np.array([camera.cx_px, camera.cy_px])
    ends = project(
        metres_from_pixel, middle + [[0, 0], [step, 0], [-step, 0], [0, -step], [0, step]]
    )
    right, up = (ends[1] - ends[2]) / (2 * step), (ends[3] - ends[4]) / (2 * step)
    gsd_m = float(np.sqrt(abs(right[0] * up[1] - right[1] * up[0])))
    yaw_deg = float(np.degrees(np.arctan2(up[0] - right[1], up[1] + right[0])))
    attitude = Attitude(yaw_deg, 0.0, 0.0, gsd_m * focal_px)
    return Photo(name, image, camera, attitude, attitude, ends[0], ends[0])


def _flights(setting: Setting, names: tuple[str, ...], flight: Flight) -> Iterator[Condition]:
    """Yield the conditions of photos on maps of the flight's others, in two folds."""
    garfield = flight is GARFIELD
    same, own = (GARFIELD_SAME, GARFIELD_OWN) if garfield else (SENECA_SAME, SENECA_OWN)
    if not {same, own, *((GARFIELD_NIR,) if garfield else ())} & set(names):
        return
    photos = [photo for photo in placed(setting.data, flight) if photo.tied]
    held = photos if garfield else held_out(setting.data, photos)
    footprint_m = GARFIELD_FOOTPRINT_M if garfield else SENECA_FOOTPRINT_M
    folds = [held[fold::FOLDS] for fold in range(FOLDS)]
    galleries = [
        map_of(
            [photo for photo in photos if photo not in asked],
            f"{flight.folder} {fold}",
            flight.folder,
            footprint_m,
            setting.size_px,
        )
        for fold, asked in enumerate(folds)
    ]
    few = dataclasses.replace(setting, queries=setting.queries // FOLDS)

    def condition(name: str, about: str, asked: list[list[Photo]], report: Report) -> Condition:
        regions = tuple(
            _region(gallery, of_fold, report, few, _SEED + 100 * fold)
            for fold, (gallery, of_fold) in enumerate(zip(galleries, asked, strict=True))
        )
        return Condition(name, about, regions)

    about = f"{len(held)} photos on maps of the others"
    if same in names:
        yield condition(same, f"{about}, usual errors of telemetry", folds, _estimated)
    if own in names:
        yield condition(own, f"{about}, telemetry as reported", folds, _reported)
    if garfield and GARFIELD_NIR in names:
        bands = infrared(setting.data / flight.folder / "bands", photos)
        asked = [[bands[p.name] for p in fold if p.name in bands] for fold in folds]
        told = f"{len(bands)} near-infrared photos on maps in colour"
        yield condition(GARFIELD_NIR, told, asked, _estimated)


def held_out(data: Path, photos: list[Photo]) -> list[Photo]:
    """Return the photos of Seneca that share no ground with those that train."""
    folder = data / SENECA.folder
    files = sorted((folder / "photos").glob("*.jpg"))
    places_m = read_positions(folder / "photos.csv", files)
    camera = photos[0].camera
    diagonal_m = SENECA_GSD_M * math.hypot(camera.height_px, camera.width_px)
    held = split_apart(places_m, SENECA_TRAINS, diagonal_m)
    apart = {file.name for file, validates in zip(files, held, strict=True) if validates}
    return [photo for photo in photos if photo.name in apart]


GROUPS = (
    Group((BRIGHTON,), (BRIGHTON_FOLDER,), _brighton),
    Group((CALITERRA,), (CALITERRA_FOLDER,), _caliterra, slow=True),
    Group(
        (GARFIELD_SAME, GARFIELD_OWN, GARFIELD_NIR),
        (GARFIELD.folder,),
        functools.partial(_flights, flight=GARFIELD),
        slow=True,
    ),
    Group(
        (SENECA_SAME, SENECA_OWN),
        (SENECA.folder,),
        functools.partial(_flights, flight=SENECA),
        slow=True,
    ),
)
