"""Drone photos of your own: where each was taken, and how it becomes a picture to train on.

Where heading, height and field of view are known a photo is brought north-up and to the tile's
scale, as the drone does before it searches. Otherwise its middle is used as it is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.camera import (
    Attitude,
    Camera,
    apply_homography,
    look_point_m,
    patch_coverage,
    pixel_from_ground,
)
from ..core.errors import InputError
from ..core.files import read_bytes
from ..core.images import decode_rgb, list_images
from ..core.jpeg import is_complete, is_jpeg
from ..core.warp import north_up_patch
from .dataset import Image, UnreadableImageError
from .layout import parse_number, picture_size, read_table
from .reading import resize

# What the drone refuses as well: beyond this tilt an attitude error of 1 degree moves the look
# point by over 2 % of the height; a patch covered less shows too little.
MAX_TILT_DEG = 25.0
MIN_COVERAGE = 0.75
_REDUCTIONS = (8, 4, 2)  # what JPEG decoders offer
_ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")
_GPS_IFD = 0x8825  # EXIF 2.32, section 4.6.6: 1 and 3 are the hemispheres, 2 and 4 the degrees


@dataclass(frozen=True)
class Photo:
    """One photo and what is known of it.

    Attributes:
        file: the picture.
        lat_deg: where the camera was.
        lon_deg: likewise.
        yaw_deg: heading of the top edge, clockwise from true north.
        pitch_deg: nose up from looking straight down.
        roll_deg: right side down from looking straight down.
        agl_m: height above ground.
        hfov_deg: horizontal field of view.
        width_m: what the photo's width shows on the ground.
        test: whether it is kept from training, to be judged by.
    """

    file: Path
    lat_deg: float
    lon_deg: float
    yaw_deg: float | None = None
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    agl_m: float | None = None
    hfov_deg: float | None = None
    width_m: float | None = None
    test: bool = False

    @property
    def ground_width_m(self) -> float | None:
        """What the photo's width shows on the ground, seen straight down; None if not known."""
        if self.width_m is None and self.agl_m is not None and self.hfov_deg is not None:
            return 2 * self.agl_m * math.tan(math.radians(self.hfov_deg) / 2)
        return self.width_m

    def camera(self, width_px: int, height_px: int) -> tuple[Camera, Attitude] | None:
        """Return lens and attitude, or None where heading or scale are not known."""
        if self.yaw_deg is None:
            return None
        if self.agl_m is not None and self.hfov_deg is not None:
            attitude = Attitude(self.yaw_deg, self.pitch_deg, self.roll_deg, self.agl_m)
            return Camera.from_hfov(width_px, height_px, self.hfov_deg), attitude
        if self.width_m is None:
            return None
        # Straight down only the scale counts: any lens will do, at the height that goes with it.
        camera = Camera.from_hfov(width_px, height_px, 60.0)
        agl_m = self.width_m * camera.fx_px / width_px
        return camera, Attitude(self.yaw_deg, 0.0, 0.0, agl_m)


def read_photos(path: Path) -> list[Photo]:
    """Read a CSV of photos, or the GPS positions in the EXIF of a folder's photos.

    A CSV has the columns `file` (beside it), `lat`, `lon`, and may have `yaw_deg`, `pitch_deg`,
    `roll_deg`, `agl_m`, `hfov_deg`, `footprint_m` (width of the photo on the ground) and `split`
    (`train` or `test`); an empty value is not known.

    Raises:
        InputError: there is no such file or folder, a column or value is wrong, or a photo has
            no position.
    """
    if path.is_dir():
        return [_from_exif(file) for file in list_images(path)]
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; expected a CSV with the columns file, lat, lon, or "
            "a folder of photos with GPS in their EXIF"
        )
    rows = read_table(path, ("file", "lat", "lon"))
    return [_from_row(path, line, row) for line, row in enumerate(rows, 2)]


def _from_row(path: Path, line: int, row: dict[str, str]) -> Photo:
    where = f"{path}: line {line}, column"

    def number(column: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        text = row.get(column, "")
        return parse_number(text, f"{where} {column}", low, high) if text else None

    if not row["file"]:
        raise InputError(f"{where} file: is empty; name a photo")
    split = row.get("split") or "train"
    if split not in ("train", "test"):
        raise InputError(f"{where} split: {split!r} must be train or test")
    yaw, pitch, roll = (number(name) for name in _ANGLES)
    return Photo(
        file=path.parent / row["file"],
        lat_deg=parse_number(row["lat"], f"{where} lat", -90, 90),
        lon_deg=parse_number(row["lon"], f"{where} lon", -180, 180),
        yaw_deg=yaw,
        pitch_deg=pitch or 0.0,
        roll_deg=roll or 0.0,
        agl_m=number("agl_m", 0.1, 1e5),
        hfov_deg=number("hfov_deg", 1, 170),
        width_m=number("footprint_m", 0.1, 1e6),
        test=split == "test",
    )


def _from_exif(file: Path) -> Photo:
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged EXIF the position below is the judge
            with Pillow.open(file) as picture:
                gps = picture.getexif().get_ifd(_GPS_IFD)
        lat, lon = (
            (-1 if gps.get(side, "") in ("S", "W") else 1)
            * sum(float(part) / 60**i for i, part in enumerate(gps[degrees]))
            for side, degrees in ((1, 2), (3, 4))
        )
    except (OSError, KeyError, TypeError, ValueError, ZeroDivisionError, SyntaxError):
        lat = lon = math.nan
    if not (abs(lat) <= 90 and abs(lon) <= 180):
        raise InputError(
            f"{file}: has no GPS position in its EXIF; give a CSV with the columns file, lat, lon"
        )
    return Photo(file, lat, lon)


@dataclass(frozen=True)
class View:
    """How one photo becomes a square picture.

    Attributes:
        photo: the photo.
        width_px: columns of the file.
        height_px: rows of the file.
        offset_m: east, north metres from where the camera was to the picture's centre.
    """

    photo: Photo
    width_px: int
    height_px: int
    offset_m: tuple[float, float]


def plan_view(photo: Photo, footprint_m: float) -> View | str:
    """Return how a photo becomes a picture of `footprint_m`, or why it cannot.

    Only the file's header is read.

    Raises:
        UnreadableImageError: the file is missing or no picture.
    """
    width_px, height_px = picture_size(photo.file)
    pose = photo.camera(width_px, height_px)
    if pose is None:
        return View(photo, width_px, height_px, (0.0, 0.0))
    if pose[1].tilt_deg > MAX_TILT_DEG:
        return f"tilt more than {MAX_TILT_DEG:g} degrees"
    offset_m = look_point_m(*pose)
    if patch_coverage(*pose, offset_m, footprint_m) < MIN_COVERAGE:
        return f"cover less than {MIN_COVERAGE:.0%} of a tile"
    return View(photo, width_px, height_px, offset_m)


class PhotoImages:
    """Photos as square pictures of one footprint; decoded when read."""

    def __init__(self, views: Sequence[View], footprint_m: float) -> None:
        """Take the plans of `plan_view` and the side of a picture on the ground."""
        self._views = tuple(views)
        self._footprint_m = footprint_m

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._views)

    def name(self, index: int) -> str:
        """Return the photo's path."""
        return str(self.path(index))

    def path(self, index: int) -> Path:
        """Return the photo's path."""
        return self._views[index].photo.file

    def read(self, index: int, height_px: int, width_px: int) -> Image:
        """Return the picture resized to (height_px, width_px, 3) uint8 RGB.

        It is north-up and `footprint_m` wide where heading, height and field of view are known,
        black where the photo ends. Otherwise it is the photo's middle square: `footprint_m` of
        it where the scale is known, all of it where not.

        Raises:
            UnreadableImageError: the file is missing, damaged, or no longer of its size.
        """
        view = self._views[index]
        photo = view.photo
        side = max(height_px, width_px)
        pose = photo.camera(view.width_px, view.height_px)
        if pose is None:
            cut_px = self._cut_px(view)
            image, reduction = _decode(view, cut_px, side)
            top, left = ((edge - cut_px // reduction) // 2 for edge in image.shape[:2])
            cut = cut_px // reduction
            return resize(image[top : top + cut, left : left + cut], height_px, width_px)
        camera, attitude = pose
        across = _across_px(camera, attitude, view.offset_m, self._footprint_m)
        image, reduction = _decode(view, across, side)
        patch, _ = north_up_patch(
            image, camera.reduced(reduction), attitude, view.offset_m, self._footprint_m, side
        )
        return resize(patch, height_px, width_px)

    def _cut_px(self, view: View) -> int:
        short_px = min(view.width_px, view.height_px)
        width_m = view.photo.ground_width_m
        if width_m is None:
            return short_px
        return max(1, min(short_px, round(self._footprint_m * view.width_px / width_m)))


def _across_px(
    camera: Camera, attitude: Attitude, center_m: tuple[float, float], footprint_m: float
) -> float:
    """Return how many frame pixels a patch spans at least, along its two axes."""
    east, north = center_m
    half = footprint_m / 2
    ends = [[east - half, north], [east + half, north], [east, north - half], [east, north + half]]
    pixels = apply_homography(pixel_from_ground(camera, attitude), ends)
    return float(min(np.linalg.norm(pixels[1] - pixels[0]), np.linalg.norm(pixels[3] - pixels[2])))


def _decode(view: View, across_px: float, wanted_px: int) -> tuple[Image, int]:
    """Decode a photo as small as leaves `wanted_px` across; return it and its reduction."""
    file = view.photo.file
    try:
        data = read_bytes(file)
        reduction = 1
        if is_jpeg(data):
            if not is_complete(data):
                raise InputError(
                    f"{file}: a truncated JPEG ({len(data)} bytes); replace or remove the file"
                )
            reduction = next((r for r in _REDUCTIONS if across_px / r >= wanted_px), 1)
        image = decode_rgb(data, str(file), reduction)
    except InputError as error:
        raise UnreadableImageError(str(error)) from None
    expected = (-(-view.height_px // reduction), -(-view.width_px // reduction))
    if image.shape[:2] != expected:
        raise UnreadableImageError(
            f"{file}: no longer {view.width_px}x{view.height_px} px; restore the file"
        )
    return image, reduction
