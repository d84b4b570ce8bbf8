"""GTA-UAV, and UAV-VisLoc converted to its format: drone views over tiles of several zooms.

The JSON keys are those of the GTA-UAV repository (Game4Loc). A drone view has positive tiles with
their IoU (above 0.39), and a second list that adds semi-positives (above 0.14).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..core.console import say
from ..core.errors import InputError
from .dataset import Count, PairSet, Positions, RetrievalTask
from .layout import FileImages, cmc_percent, list_pictures, read_text, require_folder
from .relations import Relations

TREE = (
    "GTA-UAV looks like drone/images/*, satellite/ZOOM_OFFSET_X_Y.png and "
    "{same,cross}-area-drone2sate-{train,test}.json"
)
_POSITIVE, _SEMI = "pair_pos_sate", "pair_pos_semipos_sate"
_OFFICIAL_DRONE, _OFFICIAL_TILES = 33_763, 14_640
# Tiles lie on a lattice: listed centres may depart from it by this share of the step.
_LATTICE_TOLERANCE = 0.01


@dataclass(frozen=True)
class _View:
    """One drone view: its file, where it looks, and its tiles (file, weight, place)."""

    kind: Literal["wgs84", "metres"]
    file: str
    place: tuple[float, float]
    tiles: list[tuple[str, float, tuple[float, float]]]


class GtaUav:
    """The set on disk in one of its two areas."""

    def __init__(self, root: Path, area: str) -> None:
        """Take the folder that holds the JSON files, and `same` or `cross`."""
        self._root = root
        self._area = area
        self.name = f"GTA-UAV {area}-area"

    def training(self) -> PairSet:
        """Return every drone view with each of its positive tiles, weighted by IoU.

        Tiles that a list names but the folder lacks are left out: UAV-VisLoc's converter lists
        tiles beyond the edge of its maps.

        Raises:
            InputError: a list or the tiles' folder is missing or damaged.
        """
        views = self._views("train")
        tiles = list(dict.fromkeys(tile for v in views for tile, weight, _ in v.tiles if weight))
        relations = _relate(views, tiles)
        positive = relations.weights > 0
        return PairSet(
            name=self.name,
            queries=FileImages(self._root, [view.file for view in views]),
            references=FileImages(self._root, tiles),
            pair_query=relations.rows[positive],
            pair_reference=relations.references[positive],
            pair_weight=relations.weights[positive],
            relations=relations,
            reference_positions=self._tile_positions(tiles),
        )

    def tasks(self) -> list[RetrievalTask]:
        """Return the one task of the test split: all tiles on disk compete.

        Raises:
            InputError: a list or the tiles' folder is missing or damaged.
        """
        views = self._views("test")
        tiles = sorted(self._tiles("test"))
        positions = self._tile_positions(tiles)
        if positions is None:
            say(f"{self._root}: some tiles have no coordinates; SDM is left out")
        return [
            RetrievalTask(
                name="drone→satellite",
                protocol=f"{self.name} test: all {len(tiles):,} tiles",
                queries=FileImages(self._root, [view.file for view in views]),
                gallery=FileImages(self._root, tiles),
                positives=_relate(views, tiles).positives(),
                one_percent_k=cmc_percent(len(tiles)),
                metrics=("recall",) if positions is None else ("recall", "sdm"),
                query_positions=Positions(np.array([v.place for v in views]), self._kind),
                gallery_positions=positions,
            )
        ]

    def counts(self) -> list[Count]:
        """Return the counts of images and lists; what is not on disk counts 0."""
        # Coordinates in degrees tell UAV-VisLoc, which has no official counts in this format.
        official = not self._lists or self._kind == "metres"
        counts = [
            Count(f"{split} drone views listed", len(self._lists.get(split, [])))
            for split in ("train", "test")
        ]
        for folder, what, number in (
            ("drone/images", "drone images", _OFFICIAL_DRONE),
            ("satellite", "satellite tiles", _OFFICIAL_TILES),
        ):
            there = (self._root / folder).is_dir()
            found = len(list_pictures(self._root / folder)) if there else 0
            counts.append(Count(what, found, number if official else None))
        if self._lists and (self._root / "satellite").is_dir():
            lacking = set(self._listed) - {tile for s in self._lists for tile in self._tiles(s)}
            counts.append(Count("tiles listed, not there", len(lacking), 0 if official else None))
        return counts

    def _list(self, split: str) -> Path:
        return self._root / f"{self._area}-area-drone2sate-{split}.json"

    @cached_property
    def _lists(self) -> dict[str, list[_View]]:
        """The lists that are on disk, by split."""
        splits = [s for s in ("train", "test") if self._list(s).is_file()]
        return {split: _read_list(self._list(split)) for split in splits}

    def _split(self, split: str) -> list[_View]:
        if split not in self._lists:
            raise InputError(f"{self._list(split)}: no such file; {TREE}")
        return self._lists[split]

    @property
    def _kind(self) -> Literal["wgs84", "metres"]:
        return next(iter(self._lists.values()))[0].kind

    def _tiles(self, split: str) -> set[str]:
        """Return the tiles on disk, of the folders that a list names."""
        folders = {tile.rpartition("/")[0] for v in self._split(split) for tile, *_ in v.tiles}
        for folder in folders:
            require_folder(self._root / folder, TREE)
        return {f"{d}/{name}" for d in folders for name in list_pictures(self._root / d)}

    @cached_property
    def _listed(self) -> dict[str, tuple[float, float]]:
        """Where the lists say that a tile's centre is."""
        return {
            tile: place
            for views in self._lists.values()
            for view in views
            for tile, _, place in view.tiles
        }

    def _views(self, split: str) -> list[_View]:
        """Return the drone views that have a positive tile on disk; official lists have others."""
        there = self._tiles(split)
        views = []
        for view in self._split(split):
            tiles = [tile for tile in view.tiles if tile[0] in there]
            if any(weight > 0 for _, weight, _ in tiles):
                views.append(replace(view, tiles=tiles))
        if not views:
            raise InputError(f"{self._list(split)}: no drone view has a positive tile; {TREE}")
        return views

    def _tile_positions(self, tiles: list[str]) -> Positions | None:
        """Return where tiles lie, from the lattices that the listed ones span; None if unknown."""
        coordinates = _on_lattices(self._listed, tiles, swap=self._kind == "wgs84")
        return Positions(coordinates, self._kind) if np.isfinite(coordinates).all() else None


def _read_list(file: Path) -> list[_View]:
    """Return the drone views of a list.

    Raises:
        InputError: it is no JSON, or an entry lacks a key or holds lists of unequal length.
    """
    try:
        entries = json.loads(read_text(file, TREE))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}); fetch it again") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file}: expected a list of drone views")
    views = []
    for number, entry in enumerate(entries, 1):
        _check_entry(entry, f"{file}: entry {number}")
        views.append(_view(entry))
        if views[-1].kind != views[0].kind:
            raise InputError(f"{file}: entry {number} mixes degrees with metres")
    return views


def _check_entry(entry: Any, where: str) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, found {str(entry)[:40]!r}")
    loc = "x_y" if "drone_loc_x_y" in entry else "lat_lon"
    texts = ("drone_img_dir", "drone_img_name", "sate_img_dir")
    lists = [
        f"{pair}_{what}_list"
        for pair in (_POSITIVE, _SEMI)
        for what in ("img", "weight", f"loc_{loc}")
    ]
    for key in (*texts, f"drone_loc_{loc}", *lists):
        if key not in entry:
            raise InputError(f"{where} lacks {key!r}")
        if not isinstance(entry[key], str if key in texts else list):
            raise InputError(f"{where}: {key} is {str(entry[key])[:40]!r}, expected a list or text")
    for i in (0, 3):
        lengths = {len(entry[key]) for key in lists[i : i + 3]}
        if len(lengths) != 1:
            raise InputError(f"{where}: {', '.join(lists[i : i + 3])} differ in length")
    try:
        numbers = [entry[f"drone_loc_{loc}"], *entry[lists[2]], *entry[lists[5]]]
        table = np.array(numbers, np.float64)
        weights = np.array([*entry[lists[1]], *entry[lists[4]]], np.float64)
    except (ValueError, TypeError):
        raise InputError(f"{where}: a place is not two numbers, or a weight no number") from None
    if table.shape[1:] != (2,) or not np.isfinite(table).all():
        raise InputError(f"{where}: a place is not two finite numbers")
    if len(weights) and not (weights.min() > 0 and weights.max() <= 1):
        raise InputError(f"{where}: a weight is no IoU above 0 and up to 1")


def _view(entry: dict[str, Any]) -> _View:
    loc = "x_y" if "drone_loc_x_y" in entry else "lat_lon"
    folder = entry["sate_img_dir"]
    tiles = []
    for pair in (_POSITIVE, _SEMI):
        for name, weight, place in zip(
            entry[f"{pair}_img_list"],
            entry[f"{pair}_weight_list"],
            entry[f"{pair}_loc_{loc}_list"],
            strict=True,
        ):
            weight = float(weight) if pair == _POSITIVE else 0.0
            tiles.append((f"{folder}/{name}", weight, (float(place[0]), float(place[1]))))
    place = entry[f"drone_loc_{loc}"]
    file = f"{entry['drone_img_dir']}/{entry['drone_img_name']}"
    kind: Literal["wgs84", "metres"] = "metres" if loc == "x_y" else "wgs84"
    return _View(kind, file, (float(place[0]), float(place[1])), tiles)


def _relate(views: list[_View], tiles: list[str]) -> Relations:
    """Return IoU for positives and 0 for semi-positives over `tiles`; others are left out."""
    number = {tile: i for i, tile in enumerate(tiles)}
    edges = [
        (query, number[tile], weight)
        for query, view in enumerate(views)
        for tile, weight, _ in view.tiles
        if tile in number
    ]
    table = np.array(edges, np.float64).reshape(-1, 3)
    queries, references = (table[:, c].astype(np.int64) for c in (0, 1))
    return Relations.from_edges(queries, references, len(views), table[:, 2])


def _on_lattices(
    listed: dict[str, tuple[float, float]], tiles: list[str], swap: bool
) -> npt.NDArray[np.float64]:
    """Return the centres (T, 2) of tiles; NaN where nothing tells.

    A name ends in the column and row of its tile (`…_X_Y.png`); what comes before (zoom, offset,
    region) names a lattice. Two listed tiles that differ in a column or row give its step.

    Args:
        listed: centres that lists give.
        tiles: files to place.
        swap: whether the first coordinate goes with the row (latitude), not with the column.
    """
    lattices: dict[str, list[tuple[list[int], tuple[float, float]]]] = {}
    for tile, place in listed.items():
        if (cell := _cell(tile)) is not None:
            lattices.setdefault(cell[0], []).append((cell[1], place))
    lines = {
        name: [_line(known, axis, 1 - axis if swap else axis) for axis in (0, 1)]
        for name, known in lattices.items()
    }
    out = np.full((len(tiles), 2), np.nan)
    for i, tile in enumerate(tiles):
        cell = _cell(tile)
        if tile in listed:
            out[i] = listed[tile]
        elif cell is not None and cell[0] in lines:
            for axis, line in enumerate(lines[cell[0]]):
                if line is not None:
                    out[i, 1 - axis if swap else axis] = line[0] * cell[1][axis] + line[1]
    return out


def _cell(tile: str) -> tuple[str, list[int]] | None:
    """Return the lattice's name and column, row of a tile; None where its name has none."""
    parts = tile.rsplit(".", 1)[0].rsplit("_", 2)
    if len(parts) != 3 or not all(part.isdigit() for part in parts[1:]):
        return None
    return parts[0], [int(parts[1]), int(parts[2])]


def _line(
    known: list[tuple[list[int], tuple[float, float]]], axis: int, coordinate: int
) -> tuple[float, float] | None:
    """Return step and origin of a lattice along one axis, or None where they are not known."""
    cells = np.array([cell[axis] for cell, _ in known], np.float64)
    values = np.array([place[coordinate] for _, place in known], np.float64)
    if len(np.unique(cells)) < 2:
        return None
    step, origin = np.polyfit(cells, values, 1)
    if np.abs(step * cells + origin - values).max() > _LATTICE_TOLERANCE * abs(step):
        return None
    return float(step), float(origin)
