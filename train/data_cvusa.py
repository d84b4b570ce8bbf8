"""CVUSA: street panoramas of the United States and the satellite image around each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .dataset import Count, PairSet, Positions, RetrievalTask
from .layout import FileImages, parse_number, read_rows, top_percent
from .relations import Relations

TREE = (
    "CVUSA looks like splits/{train,val}-19zl.csv, bingmap/19/ID.jpg, streetview/panos/ID.jpg "
    "and, for coordinates, split_locations/all.csv"
)
_SPLITS = {"train": "splits/train-19zl.csv", "test": "splits/val-19zl.csv"}
_LOCATIONS = "split_locations/all.csv"


@dataclass(frozen=True)
class _Split:
    satellites: FileImages
    panoramas: FileImages
    ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


class Cvusa:
    """The set on disk: one panorama a satellite image."""

    name = "CVUSA"

    def __init__(self, root: Path) -> None:
        """Take the folder that holds `splits`."""
        self._root = root

    def training(self) -> PairSet:
        """Return the pairs of the training split.

        Raises:
            InputError: the split is missing or damaged.
        """
        split = self._split("train")
        rows = np.arange(len(split), dtype=np.int32)
        located = self._positions(split)
        return PairSet(
            name=self.name,
            queries=split.panoramas,
            references=split.satellites,
            pair_query=rows,
            pair_reference=rows,
            pair_weight=np.ones(len(split), np.float32),
            relations=Relations.from_edges(rows, rows, len(split)),
            geometry="panorama",
            reference_positions=located[0] if located else None,
        )

    def tasks(self) -> list[RetrievalTask]:
        """Return the one task of the test split, which the archive calls `val`.

        Raises:
            InputError: the split is missing or damaged.
        """
        split = self._split("test")
        rows = np.arange(len(split), dtype=np.int32)
        located = self._positions(split)
        return [
            RetrievalTask(
                name="panorama→satellite",
                protocol=f"CVUSA test: all {len(split):,} satellite images",
                queries=split.panoramas,
                gallery=split.satellites,
                positives=Relations.from_edges(rows, rows, len(split)),
                one_percent_k=top_percent(len(split)),
                query_positions=located[1] if located else None,
                gallery_positions=located[0] if located else None,
            )
        ]

    def counts(self) -> list[Count]:
        """Return the counts of both splits; a split that is not on disk counts 0."""
        official = {"train": 35_532, "test": 8_884}
        return [
            Count(f"{split} pairs", len(self._split(split)) if self._has(split) else 0, number)
            for split, number in official.items()
        ]

    def _has(self, split: str) -> bool:
        return (self._root / _SPLITS[split]).is_file()

    def _split(self, split: str) -> _Split:
        file = self._root / _SPLITS[split]
        rows = read_rows(file, TREE, 2, lambda line: line.split(","))
        ids = []
        for number, row in enumerate(rows, 1):
            stem = PurePosixPath(row[0].strip()).stem
            if not (stem.isascii() and stem.isdigit()):
                raise InputError(
                    f"{file}: row {number}: {row[0]!r} is no satellite image of a number; "
                    "expected bingmap/19/0000001.jpg"
                )
            ids.append(int(stem))
        return _Split(
            FileImages(self._root, [row[0].strip() for row in rows]),
            FileImages(self._root, [row[1].strip() for row in rows]),
            np.array(ids, np.int64),
        )

    def _positions(self, split: _Split) -> tuple[Positions, Positions] | None:
        """Return where satellite images and panoramas lie, or None without the file.

        Row `id - 1` of the file belongs to an id.
        """
        file = self._root / _LOCATIONS
        if not file.is_file():
            return None
        rows = read_rows(file, TREE, 4, lambda line: line.split(","))
        outside = split.ids[(split.ids < 1) | (split.ids > len(rows))]
        if len(outside):
            raise InputError(
                f"{file}: has {len(rows)} rows, none for id {outside[0]} (row = id - 1); "
                "fetch it again, or remove it to go without coordinates"
            )
        table = np.array(
            [
                [
                    parse_number(rows[i - 1][column], f"{file}: row {i}, column {column + 1}")
                    for column in range(4)
                ]
                for i in split.ids
            ],
            np.float64,
        )
        return Positions(table[:, :2], "wgs84"), Positions(table[:, 2:], "wgs84")
