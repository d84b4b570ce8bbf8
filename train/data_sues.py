"""SUES-200: drone views from four heights and a satellite tile of two hundred places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from .data_university import place_pairs, place_tasks
from .dataset import Count, PairSet, RetrievalTask
from .layout import Places, read_places

TREE = (
    "SUES-200 looks like Training/HEIGHT/{drone,satellite}/ID/*, "
    "Testing/HEIGHT/{query_drone,query_satellite,gallery_drone,gallery_satellite}/ID/*, "
    "or raw like satellite-view/ID/*, drone_view…/ID/HEIGHT/*"
)
HEIGHTS_M = (150, 200, 250, 300)
# The official training places; the other 80 of 1 to 200 are queries.
_TRAIN = (
    "1-7 9-11 13 15 16 20 21 24-34 36 37 39 43-45 51 55-58 60 64 66 67 69 70 73 74 76 77 80-82 "
    "84-91 94 96 97 100-106 113 116 118-120 123 125-127 129 132 134 137 139 141 142 145-149 151 "
    "152 155-160 163 166-169 171 174 179 180 182-187 191-193 196-200"
)


def _numbers(ranges: str) -> frozenset[int]:
    ends = [[int(end) for end in part.split("-")] for part in ranges.split()]
    return frozenset(number for end in ends for number in range(end[0], end[-1] + 1))


TRAIN_IDS = _numbers(_TRAIN)
_IMAGES_A_PLACE = 50


def _trains(name: str) -> bool:
    return name.isdigit() and int(name) in TRAIN_IDS


def _asks(name: str) -> bool:
    return name.isdigit() and int(name) not in TRAIN_IDS


@dataclass(frozen=True)
class _Part:
    folder: str  # in the split layout
    view: str
    keep: Callable[[str], bool]  # in the raw layout, by the name of the place
    official: int


_PARTS = {
    "train drone": _Part("Training/{}/drone", "drone", _trains, 120 * _IMAGES_A_PLACE),
    "train satellite": _Part("Training/{}/satellite", "satellite", _trains, 120),
    "query drone": _Part("Testing/{}/query_drone", "drone", _asks, 80 * _IMAGES_A_PLACE),
    "gallery satellite": _Part("Testing/{}/gallery_satellite", "satellite", str.isdigit, 200),
    "query satellite": _Part("Testing/{}/query_satellite", "satellite", _asks, 80),
    "gallery drone": _Part("Testing/{}/gallery_drone", "drone", str.isdigit, 200 * _IMAGES_A_PLACE),
}


class Sues:
    """The set on disk at one height, split already or raw."""

    def __init__(self, root: Path, height_m: int) -> None:
        """Take the folder that holds `Training` or `satellite-view`, and the height.

        Raises:
            InputError: there is no such height.
        """
        if height_m not in HEIGHTS_M:
            raise InputError(
                f"height_m = {height_m}: SUES-200 has {', '.join(map(str, HEIGHTS_M))}"
            )
        self._root = root
        self._height_m = height_m
        self.name = f"SUES-200 {height_m} m"

    def training(self) -> PairSet:
        """Return every drone view of the height with the tile of its place.

        Raises:
            InputError: a folder is missing, or coordinates are wrong.
        """
        return place_pairs(
            self.name,
            self._places("train drone"),
            self._places("train satellite"),
            self._root / "coordinates.csv",
        )

    def tasks(self) -> list[RetrievalTask]:
        """Return both directions, each with the official and with the reduced gallery.

        Raises:
            InputError: a folder is missing, or a query can never be found.
        """
        return [
            *place_tasks(
                "drone→satellite",
                self._places("query drone"),
                self._places("gallery satellite"),
            ),
            *place_tasks(
                "satellite→drone",
                self._places("query satellite"),
                self._places("gallery drone"),
            ),
        ]

    def counts(self) -> list[Count]:
        """Return the counts of all parts at the height; one that is not on disk counts 0."""
        return [
            Count(f"{name} images, {self._height_m} m", self._count(name), part.official)
            for name, part in _PARTS.items()
        ]

    def _count(self, part: str) -> int:
        folder, _, _ = self._where(part)
        return len(self._places(part)) if (self._root / folder).is_dir() else 0

    def _places(self, part: str) -> Places:
        folder, below, keep = self._where(part)
        return read_places(self._root, folder, TREE, below, keep)

    def _where(self, part: str) -> tuple[str, str, Callable[[str], bool] | None]:
        """Return the folder of a part's places, the folder within each, and which places."""
        place = _PARTS[part]
        if not (self._root / "satellite-view").is_dir():
            return place.folder.format(self._height_m), "", None
        if place.view == "satellite":
            return "satellite-view", "", place.keep
        found = sorted(
            path.name for path in self._root.glob("drone[_-]view*") if path.is_dir()
        ) or ["drone_view"]
        return found[0], str(self._height_m), place.keep
