"""DenseUAV: drone views and satellite tiles every 20 m over fourteen campuses, with coordinates."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .dataset import Count, PairSet, Positions, RetrievalTask
from .layout import (
    Places,
    cmc_percent,
    parse_number,
    read_places,
    read_rows,
    require_found,
    same_place,
)

TREE = (
    "DenseUAV looks like train/{drone,satellite}/ID/*, test/{query_drone,gallery_satellite}/ID/* "
    "(H80.JPG; H80.tif, H80_old.tif) and Dense_GPS_ALL.txt or Dense_GPS_{train,test}.txt"
)
_OFFICIAL = {
    "train/drone": 6_768,
    "train/satellite": 13_536,
    "test/query_drone": 2_331,
    "test/gallery_satellite": 18_198,
}


class DenseUav:
    """The set on disk: a place has three drone views and six tiles, of three heights, two dates."""

    name = "DenseUAV"

    def __init__(self, root: Path) -> None:
        """Take the folder that holds `train` and `test`."""
        self._root = root

    def training(self) -> PairSet:
        """Return drone views with both tiles of their height; all six tiles are positives.

        Raises:
            InputError: a folder or the coordinates are missing.
        """
        drones, tiles = self._places("train/drone"), self._places("train/satellite")
        relations = same_place(drones, tiles)
        drone_height, tile_height = _heights(drones), _heights(tiles)
        rows = relations.rows
        same = drone_height[rows] == tile_height[relations.references]
        if not same.any():
            raise InputError(
                f"{self._root / 'train'}: no drone view has a tile of its place and height; {TREE}"
            )
        return PairSet(
            name=self.name,
            queries=drones.images,
            references=tiles.images,
            pair_query=rows[same],
            pair_reference=relations.references[same],
            pair_weight=relations.weights[same],
            relations=relations,
            reference_positions=self._positions(tiles),
        )

    def tasks(self) -> list[RetrievalTask]:
        """Return the one task of the test split: tiles of all places compete.

        Raises:
            InputError: a folder or the coordinates are missing.
        """
        queries = self._places("test/query_drone")
        gallery = self._places("test/gallery_satellite")
        relations = same_place(queries, gallery)
        return [
            RetrievalTask(
                name="drone→satellite",
                protocol=f"DenseUAV test: all {len(gallery):,} satellite tiles",
                queries=queries.images,
                gallery=gallery.images,
                positives=require_found(relations, queries.images, "gallery_satellite"),
                one_percent_k=cmc_percent(len(gallery)),
                metrics=("recall", "ap", "sdm"),
                query_positions=self._positions(queries),
                gallery_positions=self._positions(gallery),
            )
        ]

    def counts(self) -> list[Count]:
        """Return the counts of all folders; one that is not on disk counts 0."""
        return [
            Count(
                f"{folder} images",
                len(self._places(folder)) if (self._root / folder).is_dir() else 0,
                official,
            )
            for folder, official in _OFFICIAL.items()
        ]

    def _places(self, folder: str) -> Places:
        return read_places(self._root, folder, TREE)

    def _positions(self, places: Places) -> Positions:
        missing = [name for name in places.ids if name not in self._coordinates]
        if missing:
            raise InputError(
                f"{self._root}: Dense_GPS_*.txt has no line for place {missing[0]} "
                f"({len(missing)} missing); {TREE}"
            )
        table = np.array([self._coordinates[name] for name in places.ids], np.float64)
        return Positions(table[places.place], "wgs84")

    @cached_property
    def _coordinates(self) -> dict[str, tuple[float, float]]:
        """Latitude and longitude of every place."""
        whole = self._root / "Dense_GPS_ALL.txt"
        parts = [self._root / f"Dense_GPS_{split}.txt" for split in ("train", "test")]
        files = [whole] if whole.is_file() else [part for part in parts if part.is_file()]
        found = {}
        for file in files or [whole]:
            for number, row in enumerate(read_rows(file, TREE, 4, _fields), 1):
                folders = PurePosixPath(row[0].replace("\\", "/")).parts
                if len(folders) < 2:
                    raise InputError(
                        f"{file}: row {number}: {row[0]!r} names no place; "
                        "expected a path like train/drone/000001/H80.JPG"
                    )
                found[folders[-2]] = _lat_lon(row[1], row[2], f"{file}: row {number}")
        return found


def _fields(line: str) -> list[str]:
    return line.rsplit(maxsplit=3)  # paths may hold spaces


def _lat_lon(first: str, second: str, where: str) -> tuple[float, float]:
    """Return latitude and longitude; a letter (`E120.38 N30.32`) says which is which."""
    if first[:1] in "EW":
        first, second = second, first
    lat = parse_number(first.lstrip("NS"), f"{where}, latitude", -90, 90)
    lon = parse_number(second.lstrip("EW"), f"{where}, longitude", -180, 180)
    return -lat if first[:1] == "S" else lat, -lon if second[:1] == "W" else lon


def _heights(places: Places) -> npt.NDArray[np.str_]:
    """Return the height in the name of each picture: `H80` of `H80_old.tif`."""
    names = [PurePosixPath(places.images.name(i)).stem for i in range(len(places))]
    return np.array([name.split("_")[0].upper() for name in names])
