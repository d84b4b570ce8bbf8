"""VIGOR: street panoramas of four cities, each inside one satellite tile and at the edge of three.

The three tiles at whose edge a panorama lies are semi-positives: they show the place, so they are
never negatives, yet they are not the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .dataset import Count, PairSet, Positions, RetrievalTask
from .layout import FileImages, read_rows, require_folder, require_found, top_percent
from .relations import Relations

TREE = (
    "VIGOR looks like CITY/{panorama,satellite}/* or {ground,satellite}/CITY/*, and splits/CITY/"
    "{satellite_list,same_area_balanced_train,same_area_balanced_test,pano_label_balanced}.txt"
)
CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")
_TRAIN, _TEST = "same_area_balanced_train.txt", "same_area_balanced_test.txt"
_ALL = "pano_label_balanced.txt"
# Cities and file of each split.
_SPLITS = {
    ("same", "train"): (CITIES, _TRAIN),
    ("same", "test"): (CITIES, _TEST),
    ("cross", "train"): (CITIES[:2], _ALL),
    ("cross", "test"): (CITIES[2:], _ALL),
}
_OFFICIAL = {
    ("same", "train"): 52_609,
    ("same", "test"): 52_605,
    ("cross", "train"): 51_520,
    ("cross", "test"): 53_694,
}
_OFFICIAL_SATELLITES = 90_618
# A line: panorama, then four times satellite image, dx, dy. The first is the positive.
_SATELLITE_COLUMNS = (1, 4, 7, 10)
_PLACE = re.compile(r"satellite_(-?\d+(?:\.\d+)?)_(-?\d+(?:\.\d+)?)\.\w+")


@dataclass(frozen=True)
class _Labels:
    panoramas: list[str]  # paths below the root
    tiles: list[tuple[str, ...]]  # of each panorama: the positive, then the semi-positives


class Vigor:
    """The set on disk, in one of its two areas and one of its two layouts."""

    def __init__(self, root: Path, area: str) -> None:
        """Take the folder that holds `splits`, and `same` or `cross`."""
        self._root = root
        self._area = area
        self.name = f"VIGOR {area}-area"

    def training(self) -> PairSet:
        """Return a pair a panorama; the tiles are those that are some panorama's positive.

        Raises:
            InputError: a folder or list is missing or damaged.
        """
        labels = self._labels("train")
        tiles = list(dict.fromkeys(row[0] for row in labels.tiles))
        relations = _relate(labels, {tile: i for i, tile in enumerate(tiles)})
        number = {tile: i for i, tile in enumerate(tiles)}
        return PairSet(
            name=self.name,
            queries=FileImages(self._root, labels.panoramas),
            references=FileImages(self._root, tiles),
            pair_query=np.arange(len(labels.panoramas), dtype=np.int32),
            pair_reference=np.array([number[row[0]] for row in labels.tiles], np.int32),
            pair_weight=np.ones(len(labels.panoramas), np.float32),
            relations=relations,
            geometry="panorama",
            reference_positions=_positions(tiles),
        )

    def tasks(self) -> list[RetrievalTask]:
        """Return the one task of the test split: all tiles of its cities compete.

        Raises:
            InputError: a folder or list is missing or damaged.
        """
        labels = self._labels("test")
        tiles = [tile for city in _SPLITS[self._area, "test"][0] for tile in self._tiles(city)]
        relations = _relate(labels, {tile: i for i, tile in enumerate(tiles)})
        queries = FileImages(self._root, labels.panoramas)
        semi = relations.weights == 0
        semi_positives = Relations.from_edges(
            relations.rows[semi], relations.references[semi], len(relations), 0.0
        )
        return [
            RetrievalTask(
                name="panorama→satellite",
                protocol=f"VIGOR {self._area}-area test: all {len(tiles):,} tiles of its cities",
                queries=queries,
                gallery=FileImages(self._root, tiles),
                positives=require_found(relations.positives(), queries, "satellite_list.txt"),
                one_percent_k=top_percent(len(tiles)),
                semi_positives=semi_positives,
                metrics=("recall", "hit_rate"),
                gallery_positions=_positions(tiles),
            )
        ]

    def counts(self) -> list[Count]:
        """Return the counts of the lists; one that is not on disk counts 0."""
        found = [
            Count(f"{split} panoramas", self._count(split), _OFFICIAL[self._area, split])
            for split in ("train", "test")
        ]
        lists = [city for city in CITIES if self._list(city, "satellite_list.txt").is_file()]
        tiles = sum(len(self._names(city)) for city in lists)
        return [*found, Count("satellite tiles of the four cities", tiles, _OFFICIAL_SATELLITES)]

    def _count(self, split: str) -> int:
        cities, file = _SPLITS[self._area, split]
        lists = [self._list(city, file) for city in cities]
        return sum(len(read_rows(path, TREE, 11, str.split)) for path in lists if path.is_file())

    def _labels(self, split: str) -> _Labels:
        cities, file = _SPLITS[self._area, split]
        panoramas, tiles = [], []
        for city in cities:
            ground, satellite = self._folders(city)
            for row in read_rows(self._list(city, file), TREE, 11, str.split):
                panoramas.append(f"{ground}/{row[0]}")
                tiles.append(tuple(f"{satellite}/{row[c]}" for c in _SATELLITE_COLUMNS))
        return _Labels(panoramas, tiles)

    def _tiles(self, city: str) -> list[str]:
        _, satellite = self._folders(city)
        return [f"{satellite}/{name}" for name in self._names(city)]

    def _names(self, city: str) -> list[str]:
        return [
            row[0] for row in read_rows(self._list(city, "satellite_list.txt"), TREE, 1, _whole)
        ]

    def _list(self, city: str, file: str) -> Path:
        return self._root / "splits" / city / file

    def _folders(self, city: str) -> tuple[str, str]:
        """Return the folders of panoramas and tiles: the archive's own, or the other layout's."""
        if (self._root / "satellite" / city).is_dir():
            layout = (f"ground/{city}", f"satellite/{city}")
        else:
            layout = (f"{city}/panorama", f"{city}/satellite")
        for folder in layout:
            require_folder(self._root / folder, TREE)
        return layout


def _whole(line: str) -> list[str]:
    return [line.strip()]


def _relate(labels: _Labels, number: dict[str, int]) -> Relations:
    """Return weight 1 for the positive and 0 for semi-positives; tiles without number are left out.

    Semi-positives that are nobody's positive never are in a batch, so training needs none of them.
    """
    edges: list[tuple[int, int, float]] = []
    for query, tiles in enumerate(labels.tiles):
        for i, tile in enumerate(tiles):
            if tile in number:
                edges.append((query, number[tile], 1.0 if i == 0 else 0.0))
    table = np.array(edges, np.float64).reshape(-1, 3)
    queries, references = (table[:, c].astype(np.int64) for c in (0, 1))
    return Relations.from_edges(queries, references, len(labels.tiles), table[:, 2])


def _positions(tiles: list[str]) -> Positions:
    """Return latitude and longitude that the names of tiles carry.

    Raises:
        InputError: a name carries none.
    """
    coordinates = np.empty((len(tiles), 2))
    for i, tile in enumerate(tiles):
        match = _PLACE.fullmatch(tile.rsplit("/", 1)[-1])
        if match is None:
            raise InputError(f"{tile}: expected a name like satellite_40.7128_-74.0060.png")
        coordinates[i] = float(match[1]), float(match[2])
    return Positions(coordinates, "wgs84")
