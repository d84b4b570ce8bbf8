"""Which ground calibrates and which is held out: the two never overlap.

Rasters that overlap, as dates of one place do, count as one piece of ground, and every piece is
cut across its longer side. Pieces too small for that go whole to one of the two.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..core.errors import InputError
from ..core.geo import BBox, distance_m
from ..core.ground import GroundSource
from ..core.sources import open_ground
from ..core.spec import EncoderSpec
from ..core.views import PLACE_FACTOR

HELD_OUT_SHARE = 0.3
# Imagery may be enlarged so much to reach the encoder's finest scale; more would only be blur.
MAX_ENLARGEMENT = 1.5


@dataclass(frozen=True)
class Ground:
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
class Region:
    """A part of a ground from which tiles may be cut."""

    ground: Ground
    box: BBox

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height through the middle, metres."""
        lat, lon = self.box.center
        width = distance_m(lat, self.box.west, lat, self.box.east)
        return float(width), float(distance_m(self.box.south, lon, self.box.north, lon))

    def gsd_range_m(self, spec: EncoderSpec, factor: float) -> tuple[float, float] | None:
        """Return the scales at which a window of `factor` tiles fits, or None."""
        finest = max(spec.gsd_min_m, self.ground.gsd_m / MAX_ENLARGEMENT)
        fits = 0.98 * min(self.size_m) / (factor * spec.input_px)
        coarsest = min(spec.gsd_max_m, fits)
        return (finest, coarsest) if finest <= coarsest else None


def split_by_place(
    source: str, grounds: Sequence[Ground], spec: EncoderSpec
) -> tuple[list[Region], list[Region]]:
    """Return the regions for calibration and the held-out ones; they share no ground.

    Raises:
        InputError: the imagery is too coarse for the encoder, or too small to be split.
    """
    calibration: list[Region] = []
    held_out: list[Region] = []
    whole: list[list[Ground]] = []
    for piece in _pieces(grounds):
        first, last = _cut_box(_union(piece))
        inner, outer = (
            _usable(piece, first, spec, PLACE_FACTOR),
            _usable(piece, last, spec, PLACE_FACTOR),
        )
        if inner and outer:
            calibration += inner
            held_out += outer
        else:
            whole.append(piece)
    if calibration:
        # Pieces too small to be cut serve calibration alone.
        for piece in whole:
            calibration += _usable(piece, _union(piece), spec, PLACE_FACTOR)
        return calibration, held_out
    every = max(2, round(1 / HELD_OUT_SHARE))
    usable = [p for p in whole if _usable(p, _union(p), spec, PLACE_FACTOR)]
    for number, piece in enumerate(usable):
        if number % every == 1:
            held_out += _usable(piece, _union(piece), spec, PLACE_FACTOR)
        else:
            calibration += _usable(piece, _union(piece), spec, PLACE_FACTOR)
    if not held_out:
        raise _unusable(source, grounds, spec)
    return calibration, held_out


def split_again(regions: Sequence[Region], spec: EncoderSpec) -> tuple[list[Region], list[Region]]:
    """Return two parts of regions that share no ground; twice all where they are too small."""
    grounds = [replace(region.ground, bounds=region.box) for region in regions]
    try:
        return split_by_place("", grounds, spec)
    except InputError:
        return list(regions), list(regions)


def _unusable(source: str, grounds: Sequence[Ground], spec: EncoderSpec) -> InputError:
    finest = min(ground.gsd_m for ground in grounds)
    sizes = [Region(ground, ground.bounds).size_m for ground in grounds]
    width, height = max(sizes, key=min)
    wanted = f"this encoder takes {spec.gsd_min_m:g} to {spec.gsd_max_m:g} m/px"
    if finest / MAX_ENLARGEMENT > spec.gsd_max_m:
        return InputError(
            f"--calib {source}: {finest:.2g} m/px at best, {wanted}; use finer imagery"
        )
    needed = PLACE_FACTOR * spec.input_px * max(spec.gsd_min_m, finest) / HELD_OUT_SHARE
    return InputError(
        f"--calib {source}: {width:.0f} x {height:.0f} m at most, too small to keep calibration "
        f"and held-out places apart ({wanted}); use imagery of at least {needed:.0f} m a side"
    )


def _pieces(grounds: Sequence[Ground]) -> list[list[Ground]]:
    """Group grounds that overlap, directly or through others."""
    pieces: list[list[Ground]] = []
    for ground in grounds:
        touching = [
            p for p in pieces if any(ground.bounds.intersection(g.bounds) is not None for g in p)
        ]
        pieces = [p for p in pieces if p not in touching]
        pieces.append([*(g for piece in touching for g in piece), ground])
    return sorted(pieces, key=lambda p: (_union(p).west, _union(p).south))


def _union(piece: Sequence[Ground]) -> BBox:
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
        line = box.east - HELD_OUT_SHARE * (box.east - box.west)
        return (
            BBox(box.west, box.south, line, box.north),
            BBox(line, box.south, box.east, box.north),
        )
    line = box.north - HELD_OUT_SHARE * (box.north - box.south)
    return BBox(box.west, box.south, box.east, line), BBox(box.west, line, box.east, box.north)


def _usable(piece: Sequence[Ground], box: BBox, spec: EncoderSpec, factor: float) -> list[Region]:
    found = []
    for ground in piece:
        common = ground.bounds.intersection(box)
        if common is not None and Region(ground, common).gsd_range_m(spec, factor):
            found.append(Region(ground, common))
    return found
