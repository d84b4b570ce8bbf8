"""The part of a pack, or of a set of packs, for one flight; neither imagery nor encoder is needed.

Vectors are taken over bit for bit (combine.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.files import check_output
from ..core.geo import BBox, LocalFrame
from .area import Area
from .combine import (
    DEFAULTS,
    CombineOptions,
    check_out,
    join_packs,
    link_level,
    scratch_folder,
    write_combined,
)
from .held import HeldLevel, join_levels, level_numbers, part_of, read_level
from .options import silent
from .overview_parts import cut_overview
from .pack_set import PackSet
from .reader import Pack, open_pack
from .tiling import EDGE_TOLERANCE
from .variants import MAX_VARIANTS

_AREA_MARGIN = 0.51  # of a tile around an area, as builds leave it


class NoTileError(InputError):
    """A pack has no tile in the region that was asked for."""


def extract_pack(
    pack: Pack,
    region: BBox | Area,
    out: Path,
    levels_m: Sequence[float] | None = None,
    options: CombineOptions = DEFAULTS,
) -> list[str]:
    """Write the part of a pack that lies in a region.

    Of a box the tiles that a build would pack there: those wholly inside, but for a hundredth of
    their side. Of an area those whose centres lie in it.

    Args:
        pack: the pack, open.
        region: the box, or the area.
        out: the file to write.
        levels_m: footprints of the levels to take; None: all that have a tile there.
        options: how it is made.

    Returns:
        What the user should know.

    Raises:
        InputError: the region holds no tile, a level is not there, or `out` is the pack.
        IntegrityError: the pack is damaged.
        S4GError: the disk is full or hnswlib failed.
    """
    check_out(out, [pack], options.overwrite)
    return _extract(pack, region, out, levels_m, options, whole=levels_m is not None)


def _extract(
    pack: Pack,
    region: BBox | Area,
    out: Path,
    levels_m: Sequence[float] | None,
    options: CombineOptions,
    whole: bool,
) -> list[str]:
    """See `extract_pack`; `whole`: refuse a region in which a level has no tile."""
    numbers = level_numbers(pack, levels_m)
    bounds, notes = _clip(pack, region, max(numbers))
    parts: dict[float, HeldLevel] = {}
    for footprint_m, number in numbers.items():
        held = read_level(pack, number)
        kept = np.flatnonzero(_inside(held, pack.frame, region))
        if len(kept):
            parts[footprint_m] = part_of(held, kept)
        else:
            notes.append(_left_out(region, footprint_m))
    missing = [footprint_m for footprint_m in numbers if footprint_m not in parts]
    if missing and (whole or not parts):
        raise _no_tile(region, f"level {missing[0]:g} of {pack.path}", pack.bounds)
    levels = []
    with scratch_folder(out) as folder:
        for footprint_m, part in parts.items():
            tiles, _ = join_levels([part], part.lattice, [range(MAX_VARIANTS)])
            sources = [pack.manifest.levels[numbers[footprint_m]]]
            levels.append(link_level(tiles, sources, len(pack.manifest.variants), folder, options))
        manifest = dataclasses.replace(pack.manifest, bounds=bounds)
        picture = cut_overview(pack, bounds)
        return notes + write_combined(out, [pack], manifest, levels, picture, folder, options)


def extract_from_set(
    packs: PackSet,
    region: BBox | Area,
    out: Path,
    levels_m: Sequence[float] | None = None,
    options: CombineOptions = DEFAULTS,
) -> list[str]:
    """Write the part of a set that lies in a region as one pack; see `extract_pack`.

    Raises:
        InputError: no pack of the set has a tile there, or `out` exists.
        IntegrityError: a pack is damaged, or not the one that the index names.
        S4GError: the disk is full or hnswlib failed.
    """
    check_output(out, options.overwrite)
    # Parts are linked when they are joined, not before.
    unlinked = dataclasses.replace(options, graph_min_vectors=sys.maxsize, progress=silent)
    box = region.bounds if isinstance(region, Area) else region
    parts: list[Path] = []
    known = [level.footprint_m for level in packs.levels]
    for wanted in sorted(set(levels_m or ()) - set(known)):
        held = ", ".join(f"{footprint_m:g}" for footprint_m in known)
        raise InputError(f"{packs.path}: has no level of {wanted:g} m; choose of {held}")
    _, notes = _clip(packs, region, max(known))
    with scratch_folder(out) as folder, contextlib.ExitStack() as stack:
        for number, place in enumerate(packs.meeting(box)):
            part = folder / f"{number:05d}.s4gpack"
            # A pack of the set that only touches the region may have no tile in it.
            with packs.open(place) as pack, contextlib.suppress(NoTileError):
                own = [level.footprint_m for level in pack.levels]
                if chosen := [m for m in own if levels_m is None or m in levels_m]:
                    _extract(pack, region, part, chosen, unlinked, whole=False)
                    parts.append(part)
        if not parts:
            raise _no_tile(region, str(packs.path), packs.bounds)
        opened = [stack.enter_context(open_pack(part)) for part in parts]
        found = {level.footprint_m for pack in opened for level in pack.levels}
        for footprint_m in [m for m in known if m not in found]:
            if levels_m is None:
                notes.append(_left_out(region, footprint_m))
            elif footprint_m in levels_m:
                raise _no_tile(region, f"level {footprint_m:g} of {packs.path}", packs.bounds)
        notes += join_packs(opened, out, options)[1]
    if packs.container.seal is not None:
        notes.append(f"{out} is not signed, {packs.path} was; sign it with s4g-pack sign")
    return notes


def _name(region: BBox | Area) -> str:
    return region.name if isinstance(region, Area) else f"--bbox {region}"


def _no_tile(region: BBox | Area, what: str, bounds: BBox) -> NoTileError:
    return NoTileError(
        f"{_name(region)}: holds no tile of {what}, which covers {bounds}; choose a larger region"
    )


def _left_out(region: BBox | Area, footprint_m: float) -> str:
    return f"level {footprint_m:g}: left out, it has no tile in {_name(region)}"


def _clip(pack: Pack | PackSet, region: BBox | Area, footprint_m: float) -> tuple[BBox, list[str]]:
    """Return the box around a region's tiles within the pack, and a note where that is less."""
    inner = wanted = region.bounds if isinstance(region, Area) else region
    if isinstance(region, Area):
        west, south, east, north = region.frame.local_bounds(inner)
        margin = _AREA_MARGIN * footprint_m
        wanted = region.frame.wgs84_bounds(
            west - margin, south - margin, east + margin, north + margin
        )
    common = wanted.intersection(pack.bounds)
    if common is None:
        raise InputError(
            f"{_name(region)}: has nothing in common with {pack.path}, which covers "
            f"{pack.bounds}; choose a region inside it"
        )
    # What the six decimals of a box do not show is not worth a word.
    if str(inner.intersection(pack.bounds)) == str(inner):
        return common, []
    return common, [f"{_name(region)} reaches beyond {pack.path}: clipped to {common}"]


def _inside(held: HeldLevel, frame: LocalFrame, region: BBox | Area) -> npt.NDArray[np.bool_]:
    """Return which tiles (N,) lie in the region: of an area their centres, else their corners."""
    east, north = held.lattice.centers_m(held.cells)
    if isinstance(region, Area):
        return region.holds(frame, east, north)
    inner = held.lattice.footprint_m * (0.5 - EDGE_TOLERANCE)
    inside = np.ones(len(east), np.bool_)
    for right, up in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        lat, lon = frame.to_wgs84(east + right * inner, north + up * inner)
        inside &= (lon >= region.west) & (lon <= region.east)
        inside &= (lat >= region.south) & (lat <= region.north)
    return inside
