"""Packs made of packs: several as one, and what cutting one (extract.py) has in common with it.

Vectors are taken over bit for bit, and with them the frame, the grid and the projection. Links and
the width of the search are made anew; no imagery is at hand to measure what they find.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..core.errors import InputError
from ..core.files import check_output, write_failure
from ..core.geo import BBox
from .diff import differing, fitting_facts
from .format import Buffer
from .graph import M
from .grid import offset, union
from .held import join_levels, level_numbers, number_items, read_level
from .imagery_merge import Imagery, cut_imagery, merge_imagery
from .level import PackedTiles, level_record, pack_level
from .manifest import MAX_LEVELS, LayerRecord, LevelRecord, Manifest
from .options import Progress, silent
from .overview_parts import Overview, join_overviews
from .reader import Pack
from .search import least_linked
from .tiling import Lattice
from .variants import MAX_VARIANTS, Variant
from .write import write_pack

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
    check_out(out, packs, options.overwrite)
    if len(packs) < 2:
        raise InputError(f"{out}: is to be made of one pack; name two or more")
    return join_packs(packs, out, options)


def join_packs(packs: Sequence[Pack], out: Path, options: CombineOptions) -> tuple[int, list[str]]:
    """Write packs, one or more, as one; see `merge_packs`."""
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
    with scratch_folder(out) as folder:
        for footprint_m, lattice in lattices.items():
            having = [i for i, own in enumerate(numbers) if footprint_m in own]
            held = [read_level(packs[i], numbers[i][footprint_m]) for i in having]
            tiles, dropped = join_levels(held, lattice, [renumbered[i] for i in having])
            sources = [packs[i].manifest.levels[numbers[i][footprint_m]] for i in having]
            levels.append(link_level(tiles, sources, len(variants), folder, options))
            shared += dropped
        manifest = dataclasses.replace(
            packs[0].manifest,
            layers=tuple(layer for layer, _ in layers),
            variants=tuple(variant for variant, _ in variants),
            bounds=_around([pack.bounds for pack in packs]),
            min_valid=min(pack.manifest.min_valid for pack in packs),
        )
        picture, notes = join_overviews(packs)
        return shared, notes + write_combined(
            out, packs, manifest, levels, picture, folder, options
        )


def check_out(out: Path, packs: Sequence[Pack], overwrite: bool) -> None:
    """Refuse an output that is one of the packs it is made of, or that exists.

    Raises:
        InputError: it is, it does, or a pack is closed.
    """
    for pack in packs:
        _ = pack.container  # or it is closed
        if out.exists() and pack.path.exists() and out.samefile(pack.path):
            raise InputError(f"{out}: is read and written at once; choose another --out")
    check_output(out, overwrite)


@contextlib.contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Yield a folder for large temporary files beside the pack to be, where there is room."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise write_failure(out, error) from None
    with folder as path:
        yield Path(path)


def link_level(
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


def _around(boxes: Sequence[BBox]) -> BBox:
    return BBox(
        min(box.west for box in boxes),
        min(box.south for box in boxes),
        max(box.east for box in boxes),
        max(box.north for box in boxes),
    )


def write_combined(
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
        # What share of trial views was found is known of the packs it is made of, not of it.
        projection=dataclasses.replace(manifest.projection, shares={}),
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
