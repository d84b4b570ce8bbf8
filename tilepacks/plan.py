"""What will be packed: the region within the source, and levels that suit encoder and source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import BBox, LocalFrame
from ..core.ground import GroundSource
from ..core.spec import EncoderSpec
from .area import Area
from .grid import over
from .manifest import MAX_LEVELS, Manifest
from .tiling import MAX_CELLS, Block, Lattice, cells_inside, lattice_over

PREFERRED_LEVELS_M = (80.0, 160.0)
# Footprints tried when none of the preferred ones suits: 10 m, doubled up to 20 km.
_LADDER_M = tuple(10.0 * 2**i for i in range(12))
# Metres of a pack are those of a plane that touches the Earth in one place. So far from it they are
# 0.04 % off, and a tile's north is up to 3 degrees from true north (at 50 degrees latitude).
MAX_REACH_M = 300_000.0
# A tile drawn from pixels this much coarser than its own carries no detail the encoder knows.
_COARSEST_SOURCE = 1.5


@dataclass(frozen=True)
class Plan:
    """A region and its lattices, before any imagery is read.

    Attributes:
        region: WGS84 box that is packed.
        frame: local frame around its centre.
        extent_m: west, south, east, north of the region in `frame`.
        lattices: one per level, finest first.
        notes: what the user should know about choices made for them.
        area: where within the region tiles must have their centres; None: anywhere.
        part: the box that the pack covers, where it is one of several that share the region.
    """

    region: BBox
    frame: LocalFrame
    extent_m: tuple[float, float, float, float]
    lattices: tuple[Lattice, ...]
    notes: tuple[str, ...]
    area: Area | None = None
    part: BBox | None = None

    @property
    def covers(self) -> BBox:
        """The box that the pack says it covers."""
        return self.region if self.part is None else self.part

    @property
    def count(self) -> int:
        """How many tiles it has at most."""
        return sum(lattice.count for lattice in self.lattices)

    def wanted(self, lattice: Lattice, block: Block) -> npt.NDArray[np.bool_]:
        """Return (rows, columns) of a block: which of its tiles lie in the region."""
        inside = cells_inside(lattice, self.frame, self.region, block.rows, block.columns)
        if self.area is not None and inside.any():
            cells = np.array(block.rows)[:, None] * lattice.columns + np.array(block.columns)
            inside &= self.area.holds(self.frame, *lattice.centers_m(cells.astype(np.uint32)))
        return inside


def plan_pack(
    source: GroundSource,
    spec: EncoderSpec,
    bbox: BBox | None = None,
    levels_m: tuple[float, ...] | None = None,
    stride: float = 0.25,
    area: Area | None = None,
    like: Manifest | None = None,
) -> Plan:
    """Choose region and levels, or check those given.

    Args:
        source: the imagery.
        spec: the encoder's contract (input size, metres per pixel).
        bbox: the wanted region; None for the source's own bounds.
        levels_m: footprints in metres; None to choose.
        stride: distance of neighbouring tiles as a share of the footprint.
        area: pack only tiles whose centres lie in it; then the region is the box around it and a
            tile's half, and `bbox` must be None.
        like: a pack's manifest: tiles shall lie on its grid, in its frame, so that both can be
            merged; `stride` is then its own, and so are the levels unless some are chosen.

    Raises:
        InputError: bbox and source have nothing in common, a level suits neither the encoder nor
            the region, the region is too large for one frame, or `like` is of another encoder.
    """
    if like is not None:
        _check_like(spec, like)
        if levels_m is None:
            levels_m = tuple(record.lattice.footprint_m for record in like.levels)
    if area is not None:
        bbox = _around(area, source, spec, levels_m)
    region, notes = _region(source, bbox, "--bbox" if area is None else f"{area.name}:")
    frame = LocalFrame(*region.center) if like is None else like.frame
    extent = frame.local_bounds(region)
    _check_reach(source.name, extent, frame, like)
    if levels_m is None:
        levels_m = _choose_levels(source, spec, extent)
        notes.append(f"levels chosen: {_metres(levels_m)}")
    lattices = [_lattice(spec, extent, level, stride, like) for level in sorted(levels_m)]
    for lattice in lattices:
        if lattice.gsd_m * _COARSEST_SOURCE < source.gsd_m:
            notes.append(
                f"level {lattice.footprint_m:g}: tiles of {lattice.gsd_m:.3g} m/px are enlarged "
                f"from imagery of {source.gsd_m:.3g} m/px; a coarser level would match better"
            )
    return Plan(region, frame, extent, tuple(lattices), tuple(notes), area)


def _check_like(spec: EncoderSpec, like: Manifest) -> None:
    if like.spec.model_id != spec.model_id:
        raise InputError(
            f"--like: that pack was built with encoder {like.spec.model_id[:12]}, this one is "
            f"{spec.model_id[:12]}; give the same --encoder"
        )


def _check_reach(
    name: str,
    extent_m: tuple[float, float, float, float],
    frame: LocalFrame,
    like: Manifest | None,
) -> None:
    reach = max(abs(edge) for edge in extent_m)
    if reach > MAX_REACH_M:
        told = "give a smaller --bbox" if like is None else "build it without --like"
        raise InputError(
            f"{name}: the region reaches {reach / 1000:.0f} km from {frame.lat_deg:.4f}, "
            f"{frame.lon_deg:.4f}, the origin of the pack's metres, which are flat for "
            f"{MAX_REACH_M / 1000:.0f} km; {told}"
        )


def check_levels(levels_m: tuple[float, ...], option: str) -> tuple[float, ...]:
    """Return footprints given by a user, sorted.

    Raises:
        InputError: there are none or too many, one is not positive, or one is given twice.
    """
    seen = ",".join(f"{level:g}" for level in levels_m)
    if not 1 <= len(levels_m) <= MAX_LEVELS:
        raise InputError(f"{option} {seen}: expected 1 to {MAX_LEVELS} footprints in metres")
    if min(levels_m) <= 0:
        raise InputError(f"{option} {seen}: footprints are metres and must be positive")
    if len(set(levels_m)) != len(levels_m):
        raise InputError(f"{option} {seen}: a footprint is given twice")
    return tuple(sorted(levels_m))


def _region(source: GroundSource, bbox: BBox | None, name: str) -> tuple[BBox, list[str]]:
    if bbox is None:
        return source.bounds, [f"no --bbox: packing all of {source.name}, {source.bounds}"]
    common = bbox.intersection(source.bounds)
    if common is None:
        raise InputError(
            f"{name} {bbox}: has nothing in common with {source.name}, which covers "
            f"{source.bounds}; give a box inside it"
        )
    if common == bbox:
        return bbox, []
    return common, [f"{name} {bbox} reaches beyond {source.name}: clipped to {common}"]


def _around(
    area: Area, source: GroundSource, spec: EncoderSpec, levels_m: tuple[float, ...] | None
) -> BBox:
    """Return the box around an area in which tiles with centres on its edge have room."""
    west, south, east, north = area.frame.local_bounds(area.bounds)
    if levels_m is None:
        levels_m = _choose_levels(source, spec, (west, south, east, north))
    margin = 0.51 * max(levels_m)
    return area.frame.wgs84_bounds(west - margin, south - margin, east + margin, north + margin)


def _choose_levels(
    source: GroundSource, spec: EncoderSpec, extent: tuple[float, float, float, float]
) -> tuple[float, ...]:
    west, south, east, north = extent
    coarsest = min(spec.gsd_max_m * spec.input_px, east - west, north - south)
    finest = max(spec.gsd_min_m, source.gsd_m / _COARSEST_SOURCE) * spec.input_px
    if preferred := tuple(v for v in PREFERRED_LEVELS_M if finest <= v <= coarsest):
        return preferred
    if suitable := tuple(v for v in _LADDER_M if finest <= v <= coarsest)[:2]:
        return suitable
    if finest <= coarsest:
        return (round((finest + coarsest) / 2, 1),)
    raise InputError(
        f"{source.name}: no level suits it: a region of {east - west:.0f} x {north - south:.0f} m "
        f"at {source.gsd_m:.3g} m/px, an encoder for {spec.gsd_min_m:g} to {spec.gsd_max_m:g} m/px "
        f"at {spec.input_px} px; choose a larger --bbox, finer imagery, or force --levels"
    )


def _lattice(
    spec: EncoderSpec,
    extent: tuple[float, float, float, float],
    level_m: float,
    stride: float,
    like: Manifest | None,
) -> Lattice:
    gsd = level_m / spec.input_px
    if not spec.gsd_min_m * (1 - 1e-9) <= gsd <= spec.gsd_max_m * (1 + 1e-9):
        raise InputError(
            f"--levels {level_m:g}: {gsd:.3g} m/px at the encoder's {spec.input_px} px, which was "
            f"trained for {spec.gsd_min_m:g} to {spec.gsd_max_m:g} m/px; choose footprints of "
            f"{spec.gsd_min_m * spec.input_px:g} to {spec.gsd_max_m * spec.input_px:g} m"
        )
    if like is None:
        lattice = lattice_over(extent, level_m, spec.input_px, stride)
    else:
        lattice = over(_grid_of(like, level_m), extent)
    west, south, east, north = extent
    if lattice is None:
        raise InputError(
            f"--levels {level_m:g}: the region is only {east - west:.0f} x {north - south:.0f} m; "
            "choose a smaller footprint or a larger --bbox"
        )
    if lattice.count > MAX_CELLS:
        raise InputError(
            f"--levels {level_m:g}: {lattice.count} tiles, a pack holds at most {MAX_CELLS} per "
            "level; choose a larger --stride or split the region"
        )
    return lattice


def _grid_of(like: Manifest, level_m: float) -> Lattice:
    for record in like.levels:
        if record.lattice.footprint_m == level_m:
            return record.lattice
    has = ", ".join(f"{record.lattice.footprint_m:g}" for record in like.levels)
    raise InputError(f"--levels {level_m:g}: the pack of --like has levels {has} only")


def _metres(levels_m: tuple[float, ...]) -> str:
    return ", ".join(f"{level:g} m" for level in levels_m)
