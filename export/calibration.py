"""Tiles to calibrate on, and other places to judge by, cut from imagery the user names.

A source is a georeferenced raster, a folder of them, `landscape:…`, or a folder of plain
pictures. Calibration tiles and held-out places never share ground: overlapping rasters count as
one piece of ground, and of each piece the last 30 % along its longer side is held out.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import BBox, LocalFrame
from ..core.ground import GroundSource, GroundWindow, open_ground
from ..core.images import IMAGE_SUFFIXES, read_rgb
from ..core.spec import EncoderSpec

Images = npt.NDArray[np.uint8]

# A held-out place is this much wider than its tile, so that a view of it may shift and turn.
PLACE_FACTOR = 1.5
_HELD_OUT_SHARE = 0.3
# Imagery may be enlarged so much to reach the encoder's finest scale; more would only be blur.
_MAX_ENLARGEMENT = 1.5
_MIN_VALID_SHARE = 0.9
_TRIES_PER_TILE = 10
_ROUNDS = 5
# Plain pictures have no scale: their tiles span between this share of the short side and all.
_MIN_PICTURE_SHARE = 0.25
_RASTER_SUFFIXES = frozenset({".tif", ".tiff"})


@dataclass(frozen=True)
class TileSet:
    """What an encoder is calibrated on and judged by.

    Attributes:
        source: what the user named.
        tiles: (N, px, px, 3) uint8, for calibration.
        places: (M, q, q, 3) uint8, held out; q = 1.5 px, the tile is the middle.
        files: how many rasters or pictures they come from.
        georeferenced: whether scale and north are known.
    """

    source: str
    tiles: Images
    places: Images
    files: int
    georeferenced: bool

    @property
    def sha256(self) -> str:
        """SHA-256 of the calibration tiles' shape and pixels."""
        digest = hashlib.sha256(repr(self.tiles.shape).encode())
        digest.update(self.tiles.tobytes())
        return digest.hexdigest()


def cut_tiles(source: str, spec: EncoderSpec, tiles: int, places: int, seed: int) -> TileSet:
    """Cut calibration tiles and held-out places at the encoder's size and scales.

    Args:
        source: raster, folder of rasters or pictures, or `landscape[:…]`.
        spec: the encoder's input size and range of ground sample distance.
        tiles: how many calibration tiles.
        places: how many held-out places.
        seed: of the choice of places and scales.

    Raises:
        InputError: nothing usable at the source, a file is damaged, the imagery is too coarse
            for the encoder, or too small to keep calibration and judgement apart.
    """
    rng = np.random.default_rng(seed)
    with contextlib.ExitStack() as stack:
        grounds, pictures = _open_source(source, stack)
        if grounds:
            calibration, held_out = _regions(source, grounds, spec)
            return TileSet(
                source,
                _cut(source, calibration, spec, tiles, 1.0, rng),
                _cut(source, held_out, spec, places, PLACE_FACTOR, rng),
                len(grounds),
                georeferenced=True,
            )
    split = _picture_split(source, len(pictures))
    return TileSet(
        source,
        _crop(pictures[:split], spec.input_px, tiles, 1.0, rng),
        _crop(pictures[split:], spec.input_px, places, PLACE_FACTOR, rng),
        len(pictures),
        georeferenced=False,
    )


@dataclass(frozen=True)
class _Ground:
    """A source of imagery; files are opened when read, a landscape is kept."""

    name: str
    bounds: BBox
    gsd_m: float
    kept: GroundSource | None = field(default=None, compare=False)

    @contextlib.contextmanager
    def opened(self) -> Iterator[GroundSource]:
        """Yield the source, open."""
        if self.kept is not None:
            yield self.kept
            return
        with contextlib.closing(open_ground(self.name)) as ground:
            yield ground


@dataclass(frozen=True)
class _Region:
    """A part of a ground from which tiles may be cut."""

    ground: _Ground
    box: BBox

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height, metres."""
        west, south, east, north = LocalFrame(*self.box.center).local_bounds(self.box)
        return east - west, north - south

    def gsd_range_m(self, spec: EncoderSpec, factor: float) -> tuple[float, float] | None:
        """Return the scales at which a window of `factor` tiles fits, or None."""
        finest = max(spec.gsd_min_m, self.ground.gsd_m / _MAX_ENLARGEMENT)
        fits = 0.98 * min(self.size_m) / (factor * spec.input_px)
        coarsest = min(spec.gsd_max_m, fits)
        return (finest, coarsest) if finest <= coarsest else None


def _open_source(source: str, stack: contextlib.ExitStack) -> tuple[list[_Ground], list[Path]]:
    path = Path(source)
    if not path.is_dir():
        ground = stack.enter_context(contextlib.closing(open_ground(source)))
        return [_Ground(ground.name, ground.bounds, ground.gsd_m, ground)], []
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"--calib {source}: holds no imagery; expected files ending in {kinds}")
    grounds = []
    for file in files:
        if file.suffix.lower() in _RASTER_SUFFIXES and _is_georeferenced(file):
            with contextlib.closing(open_ground(str(file))) as ground:
                grounds.append(_Ground(str(file), ground.bounds, ground.gsd_m))
    return grounds, files


def _is_georeferenced(path: Path) -> bool:
    """Tell a raster with a place from a TIFF that is only a picture."""
    try:
        open_ground(str(path)).close()
    except InputError as error:
        if "georeference" not in str(error):
            raise
        return False
    return True


def _regions(
    source: str, grounds: Sequence[_Ground], spec: EncoderSpec
) -> tuple[list[_Region], list[_Region]]:
    """Return the regions for calibration and the held-out ones; they share no ground."""
    calibration: list[_Region] = []
    held_out: list[_Region] = []
    whole: list[list[_Ground]] = []
    for piece in _pieces(grounds):
        first, last = _cut_box(_union(piece))
        inner, outer = (_usable(piece, first, spec, 1.0), _usable(piece, last, spec, PLACE_FACTOR))
        if inner and outer:
            calibration += inner
            held_out += outer
        else:
            whole.append(piece)
    if calibration:
        # Pieces too small to be cut serve calibration alone.
        for piece in whole:
            calibration += _usable(piece, _union(piece), spec, 1.0)
        return calibration, held_out
    every = max(2, round(1 / _HELD_OUT_SHARE))
    usable = [p for p in whole if _usable(p, _union(p), spec, PLACE_FACTOR)]
    for number, piece in enumerate(usable):
        if number % every == 1:
            held_out += _usable(piece, _union(piece), spec, PLACE_FACTOR)
        else:
            calibration += _usable(piece, _union(piece), spec, 1.0)
    if not held_out:
        raise _unusable(source, grounds, spec)
    return calibration, held_out


def _unusable(source: str, grounds: Sequence[_Ground], spec: EncoderSpec) -> InputError:
    finest = min(ground.gsd_m for ground in grounds)
    widest = max(max(_Region(ground, ground.bounds).size_m) for ground in grounds)
    wanted = f"this encoder takes {spec.gsd_min_m:g} to {spec.gsd_max_m:g} m/px"
    if finest / _MAX_ENLARGEMENT > spec.gsd_max_m:
        return InputError(
            f"--calib {source}: {finest:.2g} m/px at best, {wanted}; use finer imagery"
        )
    needed = PLACE_FACTOR * spec.input_px * max(spec.gsd_min_m, finest) / _HELD_OUT_SHARE
    return InputError(
        f"--calib {source}: {widest:.0f} m wide at most, too small to keep calibration and "
        f"held-out places apart ({wanted}); use imagery at least {needed:.0f} m wide"
    )


def _pieces(grounds: Sequence[_Ground]) -> list[list[_Ground]]:
    """Group grounds that overlap, directly or through others."""
    pieces: list[list[_Ground]] = []
    for ground in grounds:
        touching = [
            p for p in pieces if any(ground.bounds.intersection(g.bounds) is not None for g in p)
        ]
        pieces = [p for p in pieces if p not in touching]
        pieces.append([*(g for piece in touching for g in piece), ground])
    return sorted(pieces, key=lambda p: (_union(p).west, _union(p).south))


def _union(piece: Sequence[_Ground]) -> BBox:
    return BBox(
        min(g.bounds.west for g in piece),
        min(g.bounds.south for g in piece),
        max(g.bounds.east for g in piece),
        max(g.bounds.north for g in piece),
    )


def _cut_box(box: BBox) -> tuple[BBox, BBox]:
    """Cut a box across its longer side; the second part is the held-out share."""
    lat, _ = box.center
    width = (box.east - box.west) * math.cos(math.radians(lat))
    if width >= box.north - box.south:
        line = box.east - _HELD_OUT_SHARE * (box.east - box.west)
        return (
            BBox(box.west, box.south, line, box.north),
            BBox(line, box.south, box.east, box.north),
        )
    line = box.north - _HELD_OUT_SHARE * (box.north - box.south)
    return BBox(box.west, box.south, box.east, line), BBox(box.west, line, box.east, box.north)


def _usable(piece: Sequence[_Ground], box: BBox, spec: EncoderSpec, factor: float) -> list[_Region]:
    found = []
    for ground in piece:
        common = ground.bounds.intersection(box)
        if common is not None and _Region(ground, common).gsd_range_m(spec, factor):
            found.append(_Region(ground, common))
    return found


def _cut(
    source: str,
    regions: Sequence[_Region],
    spec: EncoderSpec,
    count: int,
    factor: float,
    rng: np.random.Generator,
) -> Images:
    """Cut `count` windows of `factor` tiles a side, spread over the regions by area."""
    if not count:
        return np.zeros((0, spec.input_px, spec.input_px, 3), np.uint8)
    area = np.array([math.prod(region.size_m) for region in regions])
    found: list[Images] = []
    for _ in range(_ROUNDS):
        shares = rng.multinomial(count - len(found), area / area.sum())
        for region, share in zip(regions, shares, strict=True):
            if share:
                found += _cut_region(region, spec, int(share), factor, rng)
        if len(found) == count:
            # Shuffled, because the calibrator takes tiles in turn.
            return np.stack([found[i] for i in rng.permutation(count)])
    raise InputError(
        f"--calib {source}: only {len(found)} of {count} tiles could be cut, the rest has no "
        "data; use imagery with fewer gaps or pass a smaller --images"
    )


def _cut_region(
    region: _Region, spec: EncoderSpec, count: int, factor: float, rng: np.random.Generator
) -> list[Images]:
    scales = region.gsd_range_m(spec, factor)
    assert scales is not None  # `_usable` keeps no other region
    side_px = round(factor * spec.input_px)
    frame = LocalFrame(*region.box.center)
    west, south, east, north = frame.local_bounds(region.box)
    found: list[Images] = []
    with region.ground.opened() as ground:
        for _ in range(_TRIES_PER_TILE * count):
            gsd_m = float(np.exp(rng.uniform(*np.log(scales))))
            side_m = side_px * gsd_m
            left, top = rng.uniform(west, east - side_m), rng.uniform(south + side_m, north)
            # The local box is the smallest that holds the region: its corners may lie outside.
            if not _holds(region.box, frame.wgs84_bounds(left, top - side_m, left + side_m, top)):
                continue
            image = ground.read(frame, GroundWindow(left, top, gsd_m, side_px, side_px))
            if image.valid.mean() >= _MIN_VALID_SHARE:
                found.append(image.rgb)
            if len(found) == count:
                break
    return found


def _holds(outer: BBox, inner: BBox) -> bool:
    return (
        outer.west <= inner.west
        and outer.south <= inner.south
        and inner.east <= outer.east
        and inner.north <= outer.north
    )


def _picture_split(source: str, count: int) -> int:
    """Return how many pictures, in order of name, calibrate; neighbours in a flight overlap."""
    if count < 2:
        raise InputError(
            f"--calib {source}: one picture; at least 2 are needed, so that calibration and "
            "judgement use different places"
        )
    return min(count - 1, round(count * (1 - _HELD_OUT_SHARE)))


def _crop(
    pictures: Sequence[Path], input_px: int, count: int, factor: float, rng: np.random.Generator
) -> Images:
    """Cut squares from plain pictures and shrink them to `factor` tiles a side."""
    side_px = round(factor * input_px)
    if not count:
        return np.zeros((0, side_px, side_px, 3), np.uint8)
    shares = np.bincount(rng.permutation(np.arange(count) % len(pictures)), minlength=len(pictures))
    found: list[Images] = []
    for path, share in zip(pictures, shares, strict=True):
        image = read_rgb(path)
        short = min(image.shape[:2])
        if short < side_px / _MAX_ENLARGEMENT:
            raise InputError(
                f"{path}: {image.shape[1]}x{image.shape[0]} px, too small for an encoder of "
                f"{input_px} px; use pictures of at least {side_px} px"
            )
        finest = min(short, max(side_px, _MIN_PICTURE_SHARE * short))
        for _ in range(share):
            side = int(np.exp(rng.uniform(np.log(finest), np.log(short + 0.5))))
            y = int(rng.integers(image.shape[0] - side + 1))
            x = int(rng.integers(image.shape[1] - side + 1))
            crop = image[y : y + side, x : x + side]
            crop = cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA)
            found.append(np.asarray(crop, np.uint8))
    return np.stack([found[i] for i in rng.permutation(count)])
