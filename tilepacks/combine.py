"""Packs made of packs: the part of one for a flight, several as one.

Vectors are taken over bit for bit, and with them the frame, the grid and the projection. Links and
the width of the search are made anew; no imagery is at hand to measure what they find.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..core.errors import InputError
from ..core.files import check_output, write_failure
from ..core.geo import BBox, LocalFrame
from .area import Area
from .diff import differing, fitting_facts
from .format import Buffer
from .graph import M
from .grid import offset, union
from .held import HeldLevel, join_levels, level_numbers, number_items, part_of, read_level
from .imagery_merge import Imagery, cut_imagery, merge_imagery
from .level import PackedTiles, level_record, pack_level
from .manifest import MAX_LEVELS, LayerRecord, LevelRecord, Manifest, ProjectionRecord
from .options import Progress, silent
from .overview_parts import Overview, cut_overview, join_overviews
from .pack_set import PackSet
from .reader import Pack, open_pack
from .search import least_linked
from .tiling import EDGE_TOLERANCE, Lattice
from .variants import MAX_VARIANTS, Variant
from .write import write_pack

_AREA_MARGIN = 0.51  # of a tile around an area, as builds leave it
_SHOWN = 40  # characters of a value in an error


@dataclass(frozen=True)
class CombineOptions:
    """How levels are made anew.

    Attributes:
        links: wanted per node of a sample's graph; half as many where all tiles are linked.
        graph_min_vectors: levels with fewer distinct vectors are scanned, not linked; None: as
            many as a scan is fast enough for.
        progress: how to show progress.
        overwrite: replace an existing pack.
    """

    links: int = M
    graph_min_vectors: int | None = None
    progress: Progress = silent
    overwrite: bool = False


DEFAULTS = CombineOptions()


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
    _check_out(out, [pack], options.overwrite)
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
    with _scratch(out) as folder:
        for footprint_m, part in parts.items():
            tiles, _ = join_levels([part], part.lattice, [range(MAX_VARIANTS)])
            sources = [pack.manifest.levels[numbers[footprint_m]]]
            levels.append(_link(tiles, sources, len(pack.manifest.variants), folder, options))
        manifest = dataclasses.replace(pack.manifest, bounds=bounds)
        picture = cut_overview(pack, bounds)
        return notes + _write(out, [pack], manifest, levels, picture, folder, options)


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
    for wanted in set(levels_m or ()) - set(known):
        held = ", ".join(f"{footprint_m:g}" for footprint_m in known)
        raise InputError(f"{packs.path}: has no level of {wanted:g} m; choose of {held}")
    _, notes = _clip(packs, region, max(known))
    with _scratch(out) as folder, contextlib.ExitStack() as stack:
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
        notes += _join(opened, out, options)[1]
    if packs.container.seal is not None:
        notes.append(f"{out} is not signed, {packs.path} was; sign it with s4g-pack sign")
    return notes


def merge_packs(
    packs: Sequence[Pack], out: Path, options: CombineOptions = DEFAULTS
) -> tuple[int, list[str]]:
    """Write packs of one frame, grid and projection as one.

    Tiles of the same place, imagery and heading are taken from the first pack that has them; of
    other imagery they are kept side by side, as of another date.

    Args:
        packs: two or more, open.
        out: the file to write.
        options: how it is made.

    Returns:
        How many tiles were left out since another pack has them, and what the user should know.

    Raises:
        InputError: the packs do not fit, or `out` is one of them.
        IntegrityError: one is damaged.
        S4GError: the disk is full or hnswlib failed.
    """
    _check_out(out, packs, options.overwrite)
    if len(packs) < 2:
        raise InputError(f"{out}: is to be made of one pack; name two or more")
    return _join(packs, out, options)


def _join(packs: Sequence[Pack], out: Path, options: CombineOptions) -> tuple[int, list[str]]:
    for other in packs[1:]:
        _check_fit(packs[0], other)
    numbers = [level_numbers(pack) for pack in packs]
    lattices = _lattices(packs, numbers)
    layers: list[tuple[LayerRecord, int]] = []
    variants: list[tuple[Variant, int]] = []
    renumbered = [_renumber(pack.manifest, layers, variants) for pack in packs]
    if len(variants) > MAX_VARIANTS:
        raise InputError(
            f"{packs[-1].path}: does not fit {packs[0].path}: {len(variants)} imageries and "
            f"headings together, at most {MAX_VARIANTS}; build it from one folder of imagery"
        )
    levels, shared = [], 0
    with _scratch(out) as folder:
        for footprint_m, lattice in lattices.items():
            having = [i for i, own in enumerate(numbers) if footprint_m in own]
            held = [read_level(packs[i], numbers[i][footprint_m]) for i in having]
            tiles, dropped = join_levels(held, lattice, [renumbered[i] for i in having])
            sources = [packs[i].manifest.levels[numbers[i][footprint_m]] for i in having]
            levels.append(_link(tiles, sources, len(variants), folder, options))
            shared += dropped
        manifest = dataclasses.replace(
            packs[0].manifest,
            layers=tuple(layer for layer, _ in layers),
            variants=tuple(variant for variant, _ in variants),
            projection=_projection([pack.manifest.projection for pack in packs]),
            bounds=_around([pack.bounds for pack in packs]),
            min_valid=min(pack.manifest.min_valid for pack in packs),
        )
        picture, notes = join_overviews(packs)
        return shared, notes + _write(out, packs, manifest, levels, picture, folder, options)


def _check_out(out: Path, packs: Sequence[Pack], overwrite: bool) -> None:
    for pack in packs:
        _ = pack.container  # or it is closed
        if out.exists() and pack.path.exists() and out.samefile(pack.path):
            raise InputError(f"{out}: is read and written at once; choose another --out")
    check_output(out, overwrite)


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Yield a folder for large temporary files beside the pack to be, where there is room."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise write_failure(out, error) from None
    with folder as path:
        yield Path(path)


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
    inner, wanted = (region.bounds, region.bounds) if isinstance(region, Area) else (region, region)
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


def _link(
    tiles: PackedTiles,
    sources: Sequence[LevelRecord],
    variants: int,
    folder: Path,
    options: CombineOptions,
) -> tuple[LevelRecord, dict[str, Buffer]]:
    """Return a level, ready to be written; `sources` is what its tiles were before."""
    footprint_m = tiles.lattice.footprint_m
    least = options.graph_min_vectors or least_linked(tiles.codes.shape[1])
    with options.progress(f"level {footprint_m:g} m: links", len(tiles.cells)) as advance:
        made = pack_level(tiles, folder, variants, options.links, least, advance)
    record = level_record(tiles.lattice, made.values)
    if record.search.method == "graph":
        # Builds choose the width by views of the imagery, which are harder than disturbed tiles;
        # the recall, measured at the narrower width, is then a lower bound.
        ef = max(record.search.ef, *(source.search.ef for source in sources))
        record = dataclasses.replace(record, search=dataclasses.replace(record.search, ef=ef))
    return record, made.sections


def _check_fit(first: Pack, other: Pack) -> None:
    for found in differing(fitting_facts(first), fitting_facts(other)):
        values = (str(value)[:_SHOWN] for value in (found.b, found.a))
        raise _unlike(first, other, "{} is {}, not {}".format(found.what, *values))


def _unlike(first: Pack, other: Pack, reason: str) -> InputError:
    return InputError(
        f"{other.path}: does not fit {first.path}: {reason}; build it with --like {first.path}"
    )


def _lattices(packs: Sequence[Pack], numbers: Sequence[dict[float, int]]) -> dict[float, Lattice]:
    """Return the lattice over each level of all packs, finest first."""
    found: dict[float, list[tuple[Pack, Lattice]]] = {}
    for pack, own in zip(packs, numbers, strict=True):
        for footprint_m, number in own.items():
            lattice = pack.manifest.levels[number].lattice
            level = found.setdefault(footprint_m, [])
            level.append((pack, lattice))
            if offset(level[0][1], lattice) is None:
                grids = (_grid(lattice), _grid(level[0][1]))
                reason = "level {:g} has {}, not {}".format(footprint_m, *grids)
                raise _unlike(level[0][0], pack, reason)
    if len(found) > MAX_LEVELS:
        raise InputError(
            f"{packs[-1].path}: does not fit {packs[0].path}: {len(found)} levels together, at "
            f"most {MAX_LEVELS}; take fewer with s4g-pack extract --levels"
        )
    try:
        return {m: union([lattice for _, lattice in level]) for m, level in sorted(found.items())}
    except ValueError as error:
        raise InputError(
            f"{packs[-1].path}: lies too far from {packs[0].path} ({error}); keep them apart"
        ) from None


def _grid(lattice: Lattice) -> str:
    return (
        f"tiles of {lattice.input_px} px every {lattice.stride_m:g} m from "
        f"{lattice.west_m:.3f},{lattice.north_m:.3f} m"
    )


def _renumber(
    manifest: Manifest, layers: list[tuple[LayerRecord, int]], variants: list[tuple[Variant, int]]
) -> list[int]:
    """Return how a pack's variants are numbered among all; new ones and new layers are added."""
    numbers = number_items(layers, manifest.layers)
    own = [Variant(numbers[v.layer], v.heading_deg) for v in manifest.variants]
    return number_items(variants, own)


def _projection(records: Sequence[ProjectionRecord]) -> ProjectionRecord:
    """Return the one that all share; what was found is of parts, and of the whole unknown."""
    if all(record.shares == records[0].shares for record in records):
        return records[0]
    return dataclasses.replace(records[0], shares={})


def _around(boxes: Sequence[BBox]) -> BBox:
    return BBox(
        min(box.west for box in boxes),
        min(box.south for box in boxes),
        max(box.east for box in boxes),
        max(box.north for box in boxes),
    )


def _write(
    out: Path,
    packs: Sequence[Pack],
    manifest: Manifest,
    levels: Sequence[tuple[LevelRecord, dict[str, Buffer]]],
    overview: Overview | None,
    folder: Path,
    options: CombineOptions,
) -> list[str]:
    """Write the pack; return notes on what could not be taken over."""
    imagery, notes = _imagery(packs, manifest.bounds, folder)
    sections: dict[str, Buffer] = {}
    if manifest.projection.kind == "matrix":
        sections["projection"] = packs[0].container.section("projection")
    for number, (_, own) in enumerate(levels):
        sections |= {f"level{number}.{name}": data for name, data in own.items()}
    if overview is not None:
        sections["overview"] = overview[1]
    if imagery is not None:
        sections["imagery"] = imagery[1]
    manifest = dataclasses.replace(
        manifest,
        tool=f"s4g {__version__}",
        levels=tuple(record for record, _ in levels),
        overview=None if overview is None else overview[0],
        imagery=None if imagery is None else imagery[0],
    )
    write_pack(out, manifest, sections, options.overwrite)
    notes += [
        f"{out} is not signed, {pack.path} was; sign it with s4g-pack sign"
        for pack in packs
        if pack.container.seal is not None
    ]
    return notes


def _imagery(packs: Sequence[Pack], bounds: BBox, folder: Path) -> tuple[Imagery | None, list[str]]:
    """Return what is carried over of the imagery in packs: the only place that knows of it."""
    path = folder / "imagery"
    if len(packs) == 1:
        return cut_imagery(packs[0], bounds, path), []
    return merge_imagery(packs, bounds, path)
