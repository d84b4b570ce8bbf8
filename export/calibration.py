"""Places to calibrate on, and others to judge by, cut from imagery the user names.

A source is a georeferenced raster, a folder of them, `landscape:…`, or a folder of plain
pictures. Places to calibrate on and held-out places never share ground (regions.py). A flight's
own frames may come along.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import BBox, LocalFrame
from ..core.ground import GroundImage, GroundWindow
from ..core.images import IMAGE_SUFFIXES, read_rgb
from ..core.sources import open_ground
from ..core.spec import EncoderSpec
from ..core.views import PLACE_FACTOR
from .regions import (
    HELD_OUT_SHARE,
    MAX_ENLARGEMENT,
    Ground,
    Region,
    split_again,
    split_by_place,
)

Images = npt.NDArray[np.uint8]

_MIN_VALID_SHARE = 0.9
_TRIES_PER_TILE = 10
_ROUNDS = 8
# Fewer held-out places than this say nothing about recall.
MIN_PLACES = 10
# Tiles of the same ground whose scales differ by this factor are different pictures.
_OTHER_SCALE = 1.5
_METRES_PER_DEG = 111_320.0  # of latitude; good enough to tell near from far
_MIN_CONTRAST = 2.0  # standard deviation of a tile, grey levels
# Plain pictures have no scale: their tiles span between this share of the short side and all.
_MIN_PICTURE_SHARE = 0.25
_RASTER_SUFFIXES = frozenset({".tif", ".tiff"})


@dataclass(frozen=True)
class TileSet:
    """What an encoder is calibrated on and judged by.

    Attributes:
        source: what the user named.
        calibration: (N, q, q, 3) uint8, places to calibrate on; q = 1.5 px, the tile is the middle.
        tuning: (T, q, q, 3) uint8, places to choose by, of other ground where there is enough.
        places: (M, q, q, 3) uint8, held out, of the same form.
        files: how many rasters or pictures they come from.
        georeferenced: whether scale and north are known.
        frames: (F, px, px, 3) uint8, squares of a flight's frames to calibrate on.
        held_out_frames: (G, px, px, 3) uint8, squares of its later frames.
    """

    source: str
    calibration: Images
    tuning: Images
    places: Images
    files: int
    georeferenced: bool
    frames: Images
    held_out_frames: Images

    @property
    def tiles(self) -> Images:
        """The tiles of the calibration places, (N, px, px, 3)."""
        return middle(self.calibration, self.frames.shape[1])

    @property
    def sha256(self) -> str:
        """SHA-256 of shape and pixels: of calibration places, tuning places and frames."""
        digest = hashlib.sha256()
        for images in (self.calibration, self.tuning, self.frames):
            digest.update(repr(images.shape).encode())
            digest.update(images.tobytes())
        return digest.hexdigest()


def middle(places: Images, input_px: int) -> Images:
    """Return the middle (N, px, px, 3) of places (N, q, q, 3): their tiles."""
    start = (places.shape[1] - input_px) // 2
    return np.ascontiguousarray(places[:, start : start + input_px, start : start + input_px])


def cut_tiles(
    source: str,
    spec: EncoderSpec,
    tiles: int,
    places: int,
    seed: int,
    frames: str = "",
    tuning: int = 0,
) -> TileSet:
    """Cut places for calibration and for judgement at the encoder's size and scales.

    Args:
        source: raster, folder of rasters or pictures, or `landscape[:…]`.
        spec: the encoder's input size and range of ground sample distance.
        tiles: how many places to calibrate on.
        places: how many held-out places; fewer where so many do not lie apart.
        seed: of the choice of places and scales.
        frames: folder of a flight's frames; as many squares of the first 70 % of them are cut as
            there are tiles, and as many of the rest as there are places; empty: none.
        tuning: how many places to choose by: neither calibrated on nor held out.

    Raises:
        InputError: nothing usable at the source, a file is damaged, the imagery is too coarse
            for the encoder, or too small to keep calibration and judgement apart.
    """
    rng = np.random.default_rng(seed)
    with contextlib.ExitStack() as stack:
        grounds, pictures = _open_source(source, stack)
        if grounds:
            regions, held_out = split_by_place(source, grounds, spec)
            regions, choosing = split_again(regions, spec) if tuning else (regions, [])
            cut = [
                _cut(source, regions, spec, tiles, rng, None),
                _cut(source, choosing, spec, tuning, rng, None),
                _cut(source, held_out, spec, places, rng, _Apart(spec.input_px)),
            ]
    if not grounds:
        split = _picture_split(f"--calib {source}", len(pictures))
        again = _picture_split("", split) if tuning and split > 1 else split
        parts = pictures[:again], pictures[again:split] or pictures[:again], pictures[split:]
        cut = [
            _crop(part, spec.input_px, count, PLACE_FACTOR, rng)
            for part, count in zip(parts, (tiles, tuning, places), strict=True)
        ]
    first, last = _cut_frames(frames, spec, tiles, places, rng)
    return TileSet(
        source,
        calibration=cut[0],
        tuning=cut[1],
        places=cut[2],
        files=len(grounds) or len(pictures),
        georeferenced=bool(grounds),
        frames=first,
        held_out_frames=last,
    )


def _cut_frames(
    folder: str, spec: EncoderSpec, count: int, held_out: int, rng: np.random.Generator
) -> tuple[Images, Images]:
    """Cut squares of frames, at any heading, as the camera took them."""
    none = np.zeros((0, spec.input_px, spec.input_px, 3), np.uint8)
    if not folder:
        return none, none
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"--frames {folder}: no such folder; give a folder of a flight's frames")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    split = _picture_split(f"--frames {folder}", len(files))
    return (
        _crop(files[:split], spec.input_px, count, 1.0, rng),
        _crop(files[split:], spec.input_px, held_out, 1.0, rng),
    )


def check_texture(tiles: TileSet) -> None:
    """Refuse imagery to calibrate on that shows nothing: night, a lens cap, an empty raster.

    Raises:
        InputError: most of the tiles are of one colour.
    """
    contrast = tiles.tiles.std(axis=(1, 2)).mean(axis=1)
    flat = int((contrast < _MIN_CONTRAST).sum())
    if 2 * flat > len(contrast):
        raise InputError(
            f"--calib {tiles.source}: {flat} of {len(contrast)} tiles are of one colour; use "
            "imagery of the ground as the drone will see it"
        )


def _open_source(source: str, stack: contextlib.ExitStack) -> tuple[list[Ground], list[Path]]:
    path = Path(source)
    landscape = source == "landscape" or source.startswith("landscape:")
    if not landscape and not path.exists():
        raise InputError(
            f"--calib {source}: no such file or folder; give a georeferenced raster, a folder of "
            "imagery, or landscape"
        )
    if not path.is_dir():
        ground = stack.enter_context(contextlib.closing(open_ground(source)))
        return [Ground(ground.name, ground.bounds, ground.gsd_m, ground)], []
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"--calib {source}: holds no imagery; expected files ending in {kinds}")
    grounds = []
    for file in files:
        if file.suffix.lower() in _RASTER_SUFFIXES and _is_georeferenced(file):
            with contextlib.closing(open_ground(str(file))) as ground:
                grounds.append(Ground(str(file), ground.bounds, ground.gsd_m))
    return grounds, files


def _is_georeferenced(path: Path) -> bool:
    """Tell a raster with a place from a TIFF that is only a picture."""
    try:
        open_ground(str(path)).close()
    except InputError as error:
        if "has no georeference" not in str(error):
            raise
        return False
    return True


def _cut(
    source: str,
    regions: Sequence[Region],
    spec: EncoderSpec,
    count: int,
    rng: np.random.Generator,
    apart: _Apart | None,
) -> Images:
    """Cut `count` places, spread over the regions by area; with `apart` as many as fit."""
    if not count:
        return np.zeros((0, *[round(PLACE_FACTOR * spec.input_px)] * 2, 3), np.uint8)
    area = np.array([math.prod(region.size_m) for region in regions])
    found: list[Images] = []
    for _ in range(_ROUNDS):
        shares = rng.multinomial(count - len(found), area / area.sum())
        for index, share in enumerate(shares):
            if share:
                cut = _cut_region(regions[index], spec, int(share), rng, apart)
                found += cut
                if apart is not None and len(cut) < share:
                    area[index] = 0.0  # full: the others get the rest
        if len(found) == count or not area.any():
            break
    if len(found) == count or (apart is not None and len(found) >= MIN_PLACES):
        # Shuffled, because the calibrator takes tiles in turn.
        return np.stack([found[i] for i in rng.permutation(len(found))])
    if apart is not None:
        raise InputError(
            f"--calib {source}: only {len(found)} held-out places could be cut that lie apart from "
            f"each other, at least {MIN_PLACES} are needed; use imagery of more ground"
        )
    raise InputError(
        f"--calib {source}: only {len(found)} of {count} tiles could be cut, the rest has no "
        "data; use imagery with fewer gaps or pass a smaller --images"
    )


def _cut_region(
    region: Region,
    spec: EncoderSpec,
    count: int,
    rng: np.random.Generator,
    apart: _Apart | None,
) -> list[Images]:
    scales = region.gsd_range_m(spec, PLACE_FACTOR)
    assert scales is not None  # `_usable` keeps no other region
    side_px = round(PLACE_FACTOR * spec.input_px)
    frame = LocalFrame(*region.box.center)
    west, south, east, north = frame.local_bounds(region.box)
    found: list[Images] = []
    with region.ground.opened() as ground:
        for _ in range(_TRIES_PER_TILE * count):
            gsd_m = float(np.exp(rng.uniform(*np.log(scales))))
            side_m = side_px * gsd_m
            left, top = rng.uniform(west, east - side_m), rng.uniform(south + side_m, north)
            # The local box is the smallest that holds the region: its corners may lie outside.
            box = frame.wgs84_bounds(left, top - side_m, left + side_m, top)
            if not _holds(region.box, box):
                continue
            if apart is not None and not apart.is_free(box, gsd_m):
                continue
            image = ground.read(frame, GroundWindow(left, top, gsd_m, side_px, side_px))
            if _shows_ground(image).mean() >= _MIN_VALID_SHARE:
                found.append(image.rgb)
                if apart is not None:
                    apart.take(box, gsd_m)
            if len(found) == count:
                break
    return found


def _shows_ground(image: GroundImage) -> npt.NDArray[np.bool_]:
    """Return which pixels (H, W) are data: not pure black or white, which fill gaps undeclared."""
    low, high = image.rgb.min(axis=2), image.rgb.max(axis=2)
    shown: npt.NDArray[np.bool_] = image.valid & (high > 0) & (low < 255)
    return shown


class _Apart:
    """Keeps held-out places from showing the same ground, which no encoder could tell apart.

    Two tiles of like scale may overlap by half. Their dates or sensors do not matter: a place
    seen twice counts once.
    """

    def __init__(self, input_px: int) -> None:
        self._input_px = input_px
        self._taken: list[tuple[float, float, float]] = []  # lat, lon, ground sample distance

    def is_free(self, box: BBox, gsd_m: float) -> bool:
        """Return whether a tile in the middle of a box shows ground that none taken shows."""
        if not self._taken:
            return True
        lat, lon, taken_gsd_m = np.array(self._taken).T
        own_lat, own_lon = box.center
        north_m = _METRES_PER_DEG * (lat - own_lat)
        east_m = _METRES_PER_DEG * math.cos(math.radians(own_lat)) * (lon - own_lon)
        half_m = 0.5 * self._input_px * np.minimum(taken_gsd_m, gsd_m)
        near = np.maximum(np.abs(north_m), np.abs(east_m)) < half_m
        alike = np.abs(np.log(taken_gsd_m / gsd_m)) < math.log(_OTHER_SCALE)
        return not bool((near & alike).any())

    def take(self, box: BBox, gsd_m: float) -> None:
        """Remember a tile."""
        self._taken.append((*box.center, gsd_m))


def _holds(outer: BBox, inner: BBox) -> bool:
    return (
        outer.west <= inner.west
        and outer.south <= inner.south
        and inner.east <= outer.east
        and inner.north <= outer.north
    )


def _picture_split(option: str, count: int) -> int:
    """Return how many pictures, in order of name, calibrate; neighbours in a flight overlap."""
    if count < 2:
        found = "1 picture" if count else "no pictures"
        raise InputError(
            f"{option}: {found}; at least 2 are needed, so that calibration and judgement use "
            "different places"
        )
    return min(count - 1, round(count * (1 - HELD_OUT_SHARE)))


def _crop(
    pictures: Sequence[Path], input_px: int, count: int, factor: float, rng: np.random.Generator
) -> Images:
    """Cut squares from plain pictures and shrink them to `factor` tiles a side."""
    side_px = round(factor * input_px)
    if not count:
        return np.zeros((0, side_px, side_px, 3), np.uint8)
    # In turns over all of them, in an order drawn by lot: the first ones may all be the take-off.
    turns = rng.permutation(len(pictures))[np.arange(count) % len(pictures)]
    shares = np.bincount(turns, minlength=len(pictures))
    found: list[Images] = []
    for path, share in zip(pictures, shares, strict=True):
        if not share:
            continue
        image = read_rgb(path)
        short = min(image.shape[:2])
        if short < side_px / MAX_ENLARGEMENT:
            raise InputError(
                f"{path}: {image.shape[1]}x{image.shape[0]} px, too small for an encoder of "
                f"{input_px} px; use pictures of at least {side_px} px"
            )
        finest = min(short, max(side_px, _MIN_PICTURE_SHARE * short))
        for _ in range(share):
            side = int(np.exp(rng.uniform(np.log(finest), np.log(short + 0.5))))
            y = int(rng.integers(image.shape[0] - side + 1))
            x = int(rng.integers(image.shape[1] - side + 1))
            square = image[y : y + side, x : x + side]
            crop = cv2.resize(square, (side_px, side_px), interpolation=cv2.INTER_AREA)
            found.append(np.asarray(crop, np.uint8))
    return np.stack([found[i] for i in rng.permutation(count)])
