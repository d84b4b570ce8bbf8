"""What packs hold, side by side: what they say about themselves, their tiles, their vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.files import sha256_bytes
from .grid import offset, union
from .held import ROWS, HeldLevel, level_numbers, number_items, read_level
from .manifest import LayerRecord
from .options import Progress, silent
from .quantise import Floats32, dequantise
from .reader import Pack
from .search import Ids
from .signature import key_id
from .variants import Variant

_PERCENTILES = {"min": 0, "p5": 5, "p50": 50, "p95": 95}
_MOST_CHANGED = 5
_SHOWN_DIGITS = 12  # of a hash


@dataclass(frozen=True)
class Difference:
    """Something that two packs say differently; None where one does not say it."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Place:
    """Where a tile's vector has changed, WGS84 degrees, and the cosine of the two."""

    lat: float
    lon: float
    cosine: float


@dataclass(frozen=True)
class LevelDiff:
    """The tiles of a level that two packs have on the same grid.

    Attributes:
        level_m: footprint, metres.
        only_a: tiles whose place, cell and variant, the second pack lacks.
        only_b: tiles whose place the first one lacks.
        same: places with the same vector in both.
        changed: places with another vector.
        cosine: of the changed ones, percentiles by their names; empty where there are none.
        most_changed: the places with the lowest cosines, lowest first.
    """

    level_m: float
    only_a: int
    only_b: int
    same: int
    changed: int
    cosine: dict[str, float]
    most_changed: tuple[Place, ...]


@dataclass(frozen=True)
class PackDiff:
    """How two packs differ.

    Attributes:
        identical: every byte is the same.
        differences: of what they say.
        levels: tiles of the levels that can be compared.
    """

    identical: bool
    differences: tuple[Difference, ...]
    levels: tuple[LevelDiff, ...]

    @property
    def different(self) -> bool:
        """Whether anything in them differs; bytes of a graph or a tool's name are nothing."""
        tiles = any(v.only_a or v.only_b or v.changed for v in self.levels)
        return tiles or bool(self.differences)


def compare_packs(
    a: Pack, b: Pack, level_m: float | None = None, progress: Progress = silent
) -> PackDiff:
    """Compare what two packs hold.

    Vectors are compared where encoder, frame, projection and grid are the same; else one of these
    is among the differences.

    Args:
        a: the first pack.
        b: the second pack.
        level_m: footprint of the only level to look at; None: all.
        progress: how to show progress.

    Raises:
        InputError: a pack is closed or lacks the level, or levels lie too far apart.
        IntegrityError: a pack is damaged.
    """
    for pack in (a, b):
        pack.container.verify()
    chosen = None if level_m is None else (level_m,)
    in_a, in_b = level_numbers(a, chosen), level_numbers(b, chosen)
    if (a.container.head, a.container.seal) == (b.container.head, b.container.seal):
        return PackDiff(True, (), ())
    differences = differing(pack_facts(a), pack_facts(b))
    if list(in_a) != list(in_b):
        differences.append(Difference("levels", list(in_a), list(in_b)))
    unlike = {found.what for found in differing(fitting_facts(a), fitting_facts(b))}
    comparable = unlike <= {"headings"}  # tiles at headings that both have are compared
    levels = []
    for footprint_m in in_a:
        if footprint_m not in in_b:
            continue
        numbers = in_a[footprint_m], in_b[footprint_m]
        found = _level_differences(a, b, *numbers)
        differences += found
        if comparable and not any(d.what.endswith("grid") for d in found):
            levels.append(_compare_level(a, b, *numbers, progress))
    return PackDiff(False, tuple(differences), tuple(levels))


def fitting_facts(pack: Pack) -> dict[str, Any]:
    """Return what packs must agree in for their tiles to stand side by side, by its names.

    Raises:
        InputError: the pack is closed.
        IntegrityError: a section is damaged.
    """
    manifest, container = pack.manifest, pack.container
    spec = json.loads(manifest.spec.to_json())
    del spec["provenance"]  # for the reader, of no effect
    directions = None
    if manifest.projection.kind == "matrix":
        directions = sha256_bytes(container.section("projection"))[:_SHOWN_DIGITS]
    return {
        **{f"encoder {key}": value for key, value in spec.items()},
        "headings": sorted({variant.heading_deg for variant in manifest.variants}),
        "frame": [manifest.frame.lat_deg, manifest.frame.lon_deg],
        "dims": manifest.projection.dims,
        "projection": manifest.projection.kind,
        "directions": directions,
    }


def pack_facts(pack: Pack) -> dict[str, Any]:
    """Return what a pack says about itself apart from its levels, as JSON values by their names.

    Raises:
        InputError: the pack is closed.
        IntegrityError: a section is damaged.
    """
    manifest, container, bounds = pack.manifest, pack.container, pack.bounds
    others = [n for n in container.names if n != "projection" and not n.startswith("level")]
    return {
        **fitting_facts(pack),
        "encoder provenance": manifest.spec.provenance,
        "imagery": [asdict(layer) for layer in manifest.layers],
        "bounds": [bounds.west, bounds.south, bounds.east, bounds.north],
        "min_valid": manifest.min_valid,
        "signed by": None if container.seal is None else key_id(container.seal.public_key),
        **{name: sha256_bytes(container.section(name))[:_SHOWN_DIGITS] for name in others},
    }


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[Difference]:
    """Return in what two packs' facts differ, in their order."""
    return [
        Difference(what, a.get(what), b.get(what))
        for what in dict.fromkeys([*a, *b])
        if a.get(what) != b.get(what)
    ]


def _level_differences(a: Pack, b: Pack, in_a: int, in_b: int) -> list[Difference]:
    one, other = a.manifest.levels[in_a], b.manifest.levels[in_b]
    name = f"level {one.lattice.footprint_m:g} m"
    found = []
    if a.frame == b.frame and offset(one.lattice, other.lattice) is None:
        grids = (asdict(one.lattice), asdict(other.lattice))
        found.append(Difference(f"{name} grid", *grids))
    searches = [f"{r.search.method}, step {r.search.step}, ef {r.search.ef}" for r in (one, other)]
    if searches[0] != searches[1]:
        found.append(Difference(f"{name} search", *searches))
    return found


def _compare_level(a: Pack, b: Pack, in_a: int, in_b: int, progress: Progress) -> LevelDiff:
    one, other = read_level(a, in_a), read_level(b, in_b)
    try:
        lattice = union([one.lattice, other.lattice])
    except ValueError as error:
        raise InputError(
            f"{a.path}, {b.path}: lie too far apart to be compared ({error})"
        ) from None
    layers = _same_layers(a.manifest.layers, b.manifest.layers)
    known: list[tuple[Variant, int]] = []
    numbers = [
        number_items(known, a.manifest.variants),
        number_items(known, [Variant(layers[v.layer], v.heading_deg) for v in b.manifest.variants]),
    ]
    places = one.places(lattice, numbers[0]), other.places(lattice, numbers[1])
    _, mine, theirs = np.intersect1d(*places, assume_unique=True, return_indices=True)
    with progress(f"level {lattice.footprint_m:g} m: comparing", len(mine)) as advance:
        changed, cosine = _compare_vectors(one, other, mine, theirs, advance)
    tiles, cosine = mine[changed], cosine[changed]
    return LevelDiff(
        level_m=lattice.footprint_m,
        only_a=len(one.cells) - len(mine),
        only_b=len(other.cells) - len(mine),
        same=len(mine) - len(tiles),
        changed=len(tiles),
        cosine={
            name: round(float(np.percentile(cosine, share)), 4)
            for name, share in _PERCENTILES.items()
            if len(tiles)
        },
        most_changed=_most_changed(a, one, tiles, cosine),
    )


def _same_layers(a: Sequence[LayerRecord], b: Sequence[LayerRecord]) -> list[int]:
    """Return the numbers of those of `a` that layers of `b` are compared with, or numbers above.

    Equal ones meet; what is left has another name or date: its first, second, … are compared.
    """
    known: list[tuple[LayerRecord, int]] = []
    number_items(known, a)
    found = number_items(known, b)
    left = iter(sorted(set(range(len(a) + len(b))) - {n for n in found if n < len(a)}))
    return [number if number < len(a) else next(left) for number in found]


def _compare_vectors(
    a: HeldLevel, b: HeldLevel, in_a: Ids, in_b: Ids, advance: Callable[[int], None]
) -> tuple[npt.NDArray[np.bool_], Floats32]:
    """Return whether vectors differ (P,) and their cosines (P,) float32, pair by pair."""
    changed, cosine = np.empty(len(in_a), np.bool_), np.empty(len(in_a), np.float32)
    for start in range(0, len(in_a), ROWS):
        part = np.s_[start : start + ROWS]
        one, other = a.codes_of(in_a[part]), b.codes_of(in_b[part])
        changed[part] = (one != other).any(axis=1)
        cosine[part] = np.einsum("nd,nd->n", dequantise(one), dequantise(other))
        advance(len(one))
    return changed, cosine


def _most_changed(pack: Pack, level: HeldLevel, tiles: Ids, cosine: Floats32) -> tuple[Place, ...]:
    order = np.argsort(cosine, kind="stable")
    # A place with several headings or dates is named once.
    _, first = np.unique(level.cells[tiles[order]], return_index=True)
    worst = order[np.sort(first)[:_MOST_CHANGED]]
    lat, lon = pack.frame.to_wgs84(*level.lattice.centers_m(level.cells[tiles[worst]]))
    return tuple(
        Place(round(float(lat[i]), 7), round(float(lon[i]), 7), round(float(cosine[row]), 4))
        for i, row in enumerate(worst)
    )
