"""What the readers of data sets share: pictures in files, places in folders, refusals with a tree.

Every refusal names the missing path and shows on the same line what the set looks like.
"""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.images import IMAGE_SUFFIXES
from .dataset import Image, Images, Positions, UnreadableImageError
from .reading import read_resized
from .relations import Indices, Relations


class FileImages:
    """Pictures in files below one folder; decoded when read."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        """Keep names; no file is looked at.

        Args:
            root: the folder of the data set.
            files: paths below it, `/` between folders.
        """
        self._root = root
        self._files = tuple(files)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._files)

    def name(self, index: int) -> str:
        """Return the path below the data set's folder."""
        return self._files[index]

    def path(self, index: int) -> Path:
        """Return the whole path."""
        return self._root / self._files[index]

    def read(self, index: int, height_px: int, width_px: int) -> Image:
        """Return the picture resized to (height_px, width_px, 3) uint8 RGB.

        Raises:
            UnreadableImageError: the file is missing or damaged.
        """
        return read_resized(self.path(index), height_px, width_px)


class Subset:
    """Some of the pictures of another collection, in a new order."""

    def __init__(self, images: Images, rows: npt.NDArray[np.integer]) -> None:
        """Take the collection and (n,) numbers of its pictures."""
        self.images = images
        self.rows = np.asarray(rows, np.int32)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def name(self, index: int) -> str:
        """Return the name in the whole collection."""
        return self.images.name(int(self.rows[index]))

    def read(self, index: int, height_px: int, width_px: int) -> Image:
        """Return the picture resized to (height_px, width_px, 3) uint8 RGB.

        Raises:
            UnreadableImageError: the file is missing or damaged.
        """
        return self.images.read(int(self.rows[index]), height_px, width_px)


@dataclass(frozen=True)
class Places:
    """Pictures in one folder a place.

    Attributes:
        images: N pictures.
        ids: the names of the P places, sorted.
        place: (N,) int32, which place each picture shows.
    """

    images: FileImages
    ids: tuple[str, ...]
    place: Indices

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.images)


def require_folder(folder: Path, tree: str) -> Path:
    """Return the folder.

    Raises:
        InputError: there is none; `tree` says what the set looks like.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {tree}")
    return folder


def read_text(file: Path, tree: str) -> str:
    """Return a file's UTF-8 text.

    Raises:
        InputError: it is missing (`tree` says what the set looks like), cannot be read, or is
            no text.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; {tree}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8 text; fetch the file again") from None


def read_rows(
    file: Path, tree: str, columns: int, split: Callable[[str], list[str]]
) -> list[list[str]]:
    """Return the fields of every line that is not blank.

    Args:
        file: a table without a header.
        tree: what the set looks like.
        columns: the least number of fields a line must have.
        split: takes a line apart.

    Raises:
        InputError: as `read_text`; a line has too few fields; there is no line.
    """
    rows = []
    for number, line in enumerate(read_text(file, tree).splitlines(), 1):
        if not line.strip():
            continue
        fields = split(line)
        if len(fields) < columns:
            raise InputError(
                f"{file}: line {number} has {len(fields)} columns, expected {columns} or more: "
                f"{line[:80]!r}"
            )
        rows.append(fields)
    if not rows:
        raise InputError(f"{file}: is empty; fetch the file again")
    return rows


def read_table(file: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of a CSV with a header line, values stripped.

    Raises:
        InputError: the file is missing, no CSV, lacks a column, or has no rows.
    """
    lines = read_text(file, f"expected a CSV with the columns {', '.join(needed)}").splitlines()
    reader = csv.DictReader(lines, skipinitialspace=True, restval="")
    names = [name.strip() for name in reader.fieldnames or []]
    if missing := [name for name in needed if name not in names]:
        raise InputError(
            f"{file}: lacks the column {missing[0]}; found {', '.join(names) or 'none'}"
        )
    reader.fieldnames = names
    try:
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except csv.Error as error:
        raise InputError(f"{file}: not a CSV ({error})") from None
    if not rows:
        raise InputError(f"{file}: has no rows; expected one a picture or place")
    return rows


def parse_number(text: str, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number between `low` and `high`.

    Raises:
        InputError: it is none; `where` names file, line and column.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        bounds = "" if math.isinf(low) and math.isinf(high) else f" between {low:g} and {high:g}"
        raise InputError(f"{where}: {text!r} is not a finite number{bounds}")
    return value


def list_pictures(folder: Path) -> list[str]:
    """Return the names of a folder's pictures, sorted; nothing but the listing is read."""
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries)
        return sorted(n for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES)


def picture_size(file: Path) -> tuple[int, int]:
    """Return columns and rows of a picture from its header, EXIF orientation ignored.

    Raises:
        UnreadableImageError: the file is missing or no picture.
    """
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a huge picture is no attack here
            with Pillow.open(file) as picture:
                return picture.size
    except FileNotFoundError:
        raise UnreadableImageError(f"{file}: no such file; restore it") from None
    except (OSError, ValueError, SyntaxError):
        raise UnreadableImageError(
            f"{file}: not a picture that can be read; replace or remove the file"
        ) from None


def read_places(
    root: Path,
    folder: str,
    tree: str,
    below: str = "",
    keep: Callable[[str], bool] | None = None,
) -> Places:
    """List pictures that lie in one folder a place.

    Args:
        root: the folder of the data set.
        folder: below it, the folder of the places.
        tree: what the set looks like.
        below: a folder within each place that holds the pictures; places without it are left out.
        keep: which places to take, by name; None: all.

    Raises:
        InputError: the folder is missing or holds no picture of a place.
    """
    parent = require_folder(root / folder, tree)
    ids: list[str] = []
    files: list[str] = []
    place: list[int] = []
    for name in sorted(_folders(parent)):
        if keep is not None and not keep(name):
            continue
        inner = "/".join(part for part in (folder, name, below) if part)
        pictures = list_pictures(root / inner) if (root / inner).is_dir() else []
        if pictures:
            place += [len(ids)] * len(pictures)
            ids.append(name)
            files += [f"{inner}/{picture}" for picture in pictures]
    if not files:
        shape = f"ID/{below}/*" if below else "ID/*"
        raise InputError(f"{parent}: holds no pictures as {shape}; {tree}")
    return Places(FileImages(root, files), tuple(ids), np.array(place, np.int32))


def _folders(parent: Path) -> Iterator[str]:
    with os.scandir(parent) as entries:
        yield from (entry.name for entry in entries if entry.is_dir())


def same_place(queries: Places, gallery: Places) -> Relations:
    """Relate every picture to all pictures of the other side that show its place, weight 1."""
    of_place: dict[str, list[int]] = {}
    for row, place in enumerate(gallery.place):
        of_place.setdefault(gallery.ids[place], []).append(row)
    related = [of_place.get(queries.ids[place], []) for place in queries.place]
    rows = np.repeat(np.arange(len(queries)), [len(found) for found in related])
    return Relations.from_edges(rows, [r for found in related for r in found], len(queries))


def take_relations(
    relations: Relations, queries: npt.NDArray[np.integer], references: npt.NDArray[np.integer]
) -> Relations:
    """Return the relations between some queries and some references, both numbered anew.

    Args:
        relations: Q rows.
        queries: (q,) rows to keep, in their new order.
        references: (r,) references to keep, in their new order.
    """
    row_of = np.full(len(relations), -1, np.int64)
    row_of[queries] = np.arange(len(queries))
    largest = max(relations.references.max(initial=-1), references.max(initial=-1))
    column_of = np.full(int(largest) + 1, -1, np.int64)
    column_of[references] = np.arange(len(references))
    rows, columns = row_of[relations.rows], column_of[relations.references]
    kept = (rows >= 0) & (columns >= 0)
    return Relations.from_edges(rows[kept], columns[kept], len(queries), relations.weights[kept])


def rows_at(places: Places, ids: Sequence[str]) -> Indices:
    """Return the (n,) int32 pictures of the given places."""
    wanted = set(ids)
    inside = np.array([name in wanted for name in places.ids], bool)
    return np.flatnonzero(inside[places.place]).astype(np.int32)


def require_found(relations: Relations, queries: Images, gallery: str) -> Relations:
    """Return the relations of a test split.

    Raises:
        InputError: a query has no positive, so that it could never be found.
    """
    lonely = np.flatnonzero(np.diff(relations.positives().start) == 0)
    if len(lonely):
        raise InputError(
            f"{queries.name(int(lonely[0]))}: nothing in {gallery} shows its place "
            f"({len(lonely)} of {len(relations)} queries); fetch the missing pictures"
        )
    return relations


def place_positions(file: Path, ids: Sequence[str]) -> Positions | None:
    """Return where places lie, from a CSV `id,lat,lon` in WGS84 degrees; None without the file.

    Leading zeros of an id do not matter: spreadsheets drop them.

    Raises:
        InputError: a value is no coordinate, or a place has no row.
    """
    if not file.exists():
        return None
    found = {}
    for number, row in enumerate(read_table(file, ("id", "lat", "lon")), 2):
        found[row["id"].lstrip("0")] = (
            parse_number(row["lat"], f"{file}: line {number}, column lat", -90, 90),
            parse_number(row["lon"], f"{file}: line {number}, column lon", -180, 180),
        )
    if missing := [name for name in ids if name.lstrip("0") not in found]:
        raise InputError(
            f"{file}: has no row for place {missing[0]} ({len(missing)} missing); add it, or "
            "remove the file to go without coordinates"
        )
    coordinates = np.array([found[name.lstrip("0")] for name in ids], np.float64)
    return Positions(coordinates, "wgs84")


def top_percent(references: int) -> int:
    """Return k of "R@1%" where a rank below k is a hit: floor(R / 100), at least 1.

    CVUSA, CVACT and VIGOR count so: 88 of 8,884.
    """
    return max(1, references // 100)


def cmc_percent(gallery: int) -> int:
    """Return k of "R@1%" where the figure is the CMC at 0-based index round(G / 100).

    University-1652's evaluator counts so, and those made from it.
    """
    return round(0.01 * gallery) + 1
