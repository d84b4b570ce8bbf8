"""Is a data set whole? Counts against the official ones, and files that are missing or damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..core.console import progress
from ..core.errors import InputError
from .data_sues import HEIGHTS_M
from .data_vigor import CITIES
from .dataset import Count, DataConfig, Dataset, Images, UnreadableImageError
from .datasets import KIND
from .layout import picture_size

_THREADS = 8  # opening files waits for the disk


@dataclass(frozen=True)
class FileCheck:
    """What was found of the files that a data set names.

    Attributes:
        files: how many were looked at.
        missing: those that are not there.
        unreadable: those whose header is no picture's.
    """

    files: int
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]


def check_dataset(dataset: Dataset) -> list[Count]:
    """Return what a data set's lists and folders hold, beside the official counts.

    Raises:
        InputError: a list is there and damaged.
    """
    return dataset.counts()


def check_files(dataset: Dataset) -> FileCheck:
    """Look at the header of every picture of the splits that are on disk.

    Raises:
        InputError: neither split can be opened.
    """
    files = sorted(_files(dataset))
    missing: list[str] = []
    unreadable: list[str] = []
    with ThreadPoolExecutor(_THREADS) as pool, progress("files", len(files)) as advance:
        for file, fault in zip(files, pool.map(_fault, files), strict=True):
            advance(1)
            if fault:
                (missing if fault == "missing" else unreadable).append(str(file))
    return FileCheck(len(files), tuple(missing), tuple(unreadable))


def is_complete(counts: Sequence[Count], files: FileCheck | None = None) -> bool:
    """Return whether every official count is met and, where looked at, every file is good."""
    counted = all(c.official is None or c.found == c.official for c in counts)
    return counted and (files is None or not (files.missing or files.unreadable))


def format_counts(counts: Sequence[Count]) -> str:
    """Return a table: what, found, official, and a tick or the difference."""
    rows = [("", "found", "official", "")]
    for count in counts:
        official, verdict = "-", ""
        if count.official is not None:
            official = f"{count.official:,}"
            differ = count.found - count.official
            verdict = f"{abs(differ):,} {'more' if differ > 0 else 'missing'}" if differ else "✓"
        rows.append((count.what, f"{count.found:,}", official, verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows
    )


def format_files(files: FileCheck, named: int = 3) -> str:
    """Return one line on the files: how many, and the first few that are missing or damaged."""
    parts = [f"{files.files:,} files"]
    for what, names in (("missing", files.missing), ("unreadable", files.unreadable)):
        if names:
            more = f", … {len(names) - named:,} more" if len(names) > named else ""
            parts.append(f"{len(names):,} {what}: {', '.join(names[:named])}{more}")
    return "; ".join(parts if len(parts) > 1 else [*parts, "all there, all readable"])


def detect_kind(root: Path) -> DataConfig:
    """Tell which data set a folder holds, from the names in it.

    Raises:
        InputError: there is no such folder, or it looks like none of them.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    for config in _guesses(root):
        return config
    raise InputError(
        f"{root}: looks like none of {', '.join(KIND)}; pass --kind to see what is missing"
    )


def _guesses(root: Path) -> Iterator[DataConfig]:
    if (root / "splits" / "train-19zl.csv").is_file():
        yield DataConfig("cvusa")
    if (root / "ACT_data.mat").is_file():
        yield DataConfig("cvact")
    if any((root / "splits" / city).is_dir() for city in CITIES):
        yield DataConfig("vigor")
    for area in ("same", "cross"):
        if any(root.glob(f"{area}-area-drone2sate-*.json")):
            yield DataConfig("gtauav", area=area)
    if any(root.glob("Dense_GPS_*.txt")):
        yield DataConfig("denseuav")
    for height in HEIGHTS_M:
        split = any((root / part / str(height)).is_dir() for part in ("Training", "Testing"))
        if split or any(root.glob(f"drone[_-]view*/*/{height}")):
            yield DataConfig("sues200", height_m=height)
    if any((root / p).is_dir() for p in ("train/drone", "test/query_drone")):
        yield DataConfig("university1652")
    if (root / "photos.csv").is_file():
        raise InputError(
            f"{root}: holds photos.csv, a set of your own; its source and footprint_m stand in a "
            "recipe: pass --recipe"
        )


def _files(dataset: Dataset) -> set[Path]:
    """Return the files behind all pictures; a split that is not on disk has none."""
    sides: list[Images] = []
    refusals = []
    try:
        pairs = dataset.training()
        sides += [pairs.queries, pairs.references]
    except InputError as error:
        refusals.append(error)
    try:
        for task in dataset.tasks():
            sides += [task.queries, task.gallery]
    except InputError as error:
        refusals.append(error)
    if len(refusals) == 2:
        raise refusals[0]
    return {
        path for images in {id(side): side for side in sides}.values() for path in _paths(images)
    }


def _paths(images: Images) -> Iterator[Path]:
    path = getattr(images, "path", None)  # tiles that are cut when read have no file of their own
    if path is not None:
        yield from (path(row) for row in range(len(images)))


def _fault(file: Path) -> str:
    if not file.is_file():
        return "missing"
    try:
        picture_size(file)
    except UnreadableImageError:
        return "unreadable"
    return ""
