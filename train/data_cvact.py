"""CVACT: street panoramas of Canberra and the satellite image around each, with UTM positions."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.console import say
from ..core.errors import InputError
from .dataset import Count, PairSet, Positions, RetrievalTask
from .layout import FileImages, list_pictures, require_folder, top_percent
from .relations import Relations

TREE = (
    "CVACT looks like ACT_data.mat, "
    "ANU_data_{small,test}/{streetview/ID_grdView.jpg,satview_polish/ID_satView_polish.jpg}"
)
_SMALL, _TEST = "ANU_data_small", "ANU_data_test"
_PANORAMA = ("streetview", "_grdView.jpg")
_SATELLITE = ("satview_polish", "_satView_polish.jpg")
_OFFICIAL = {"train": 35_532, "val": 8_884, "test": 92_802}


class Cvact:
    """The set on disk: one panorama a satellite image.

    `val` is the split to choose a checkpoint by; `test` is ten times larger and apart.
    """

    name = "CVACT"

    def __init__(self, root: Path) -> None:
        """Take the folder that holds `ACT_data.mat`."""
        self._root = root

    def training(self) -> PairSet:
        """Return the pairs of the training split; ids whose files are missing are left out.

        Raises:
            InputError: a folder is missing, or `ACT_data.mat` is missing or damaged.
        """
        ids = self._needed_ids("train")
        rows = np.arange(len(ids), dtype=np.int32)
        return PairSet(
            name=self.name,
            queries=self._images(_SMALL, _PANORAMA, ids),
            references=self._images(_SMALL, _SATELLITE, ids),
            pair_query=rows,
            pair_reference=rows,
            pair_weight=np.ones(len(ids), np.float32),
            relations=Relations.from_edges(rows, rows, len(ids)),
            geometry="panorama",
            reference_positions=self._positions(ids),
        )

    def tasks(self) -> list[RetrievalTask]:
        """Return the tasks of `val` and, where it is on disk, of `test`.

        Raises:
            InputError: a folder is missing, or `ACT_data.mat` is missing or damaged.
        """
        tasks = [self._task("val", _SMALL)]
        if (self._root / _TEST).is_dir():
            return [*tasks, self._task("test", _TEST)]
        say(f"{self._root / _TEST}: no such folder; CVACT test is left out")
        return tasks

    def counts(self) -> list[Count]:
        """Return the counts of the three splits; a split that is not on disk counts 0."""
        return [
            Count(f"{split} pairs", len(self._ids(split)) if self._has(split) else 0, number)
            for split, number in _OFFICIAL.items()
        ]

    def _has(self, split: str) -> bool:
        if split != "test" and not (self._root / "ACT_data.mat").is_file():
            return False
        folder = self._root / (_TEST if split == "test" else _SMALL)
        return all((folder / view[0]).is_dir() for view in (_PANORAMA, _SATELLITE))

    def _task(self, split: str, folder: str) -> RetrievalTask:
        ids = self._needed_ids(split)
        rows = np.arange(len(ids), dtype=np.int32)
        positions = self._positions(ids)
        return RetrievalTask(
            name="panorama→satellite",
            protocol=f"CVACT {split}: all {len(ids):,} satellite images",
            queries=self._images(folder, _PANORAMA, ids),
            gallery=self._images(folder, _SATELLITE, ids),
            positives=Relations.from_edges(rows, rows, len(ids)),
            one_percent_k=top_percent(len(ids)),
            query_positions=positions,
            gallery_positions=positions,
        )

    def _images(self, folder: str, view: tuple[str, str], ids: list[str]) -> FileImages:
        return FileImages(self._root, [f"{folder}/{view[0]}/{i}{view[1]}" for i in ids])

    def _ids(self, split: str) -> list[str]:
        """Return the ids of a split that have both pictures; of `test` in sorted order."""
        folder = _TEST if split == "test" else _SMALL
        both = self._listed(folder, _PANORAMA) & self._listed(folder, _SATELLITE)
        if split == "test":
            return sorted(both)
        panoramas, chosen = self._index["panoIds"], self._index[f"{split}Set"]
        return [name for name in (str(panoramas[i]) for i in chosen) if name in both]

    def _needed_ids(self, split: str) -> list[str]:
        if ids := self._ids(split):
            return ids
        folder = self._root / (_TEST if split == "test" else _SMALL)
        raise InputError(f"{folder}: no id of {split} has both pictures; {TREE}")

    def _listed(self, folder: str, view: tuple[str, str]) -> set[str]:
        pictures = list_pictures(require_folder(self._root / folder / view[0], TREE))
        return {name[: -len(view[1])] for name in pictures if name.endswith(view[1])}

    def _positions(self, ids: list[str]) -> Positions | None:
        """Return UTM metres, or None where `ACT_data.mat` does not list an id (test alone)."""
        if not (self._root / "ACT_data.mat").is_file():
            return None
        row_of = {str(name): row for row, name in enumerate(self._index["panoIds"])}
        if not all(name in row_of for name in ids):
            return None
        return Positions(self._index["utm"][[row_of[name] for name in ids]], "metres")

    @cached_property
    def _index(self) -> dict[str, npt.NDArray[Any]]:
        return _read_mat(self._root / "ACT_data.mat")


def _read_mat(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Return `panoIds` (N,) str, `utm` (N, 2) float64, `trainSet` and `valSet` (n,) from 0.

    Raises:
        InputError: the file is missing, of MATLAB 7.3 (HDF5), damaged, or lacks a variable.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; {TREE}")
    with file.open("rb") as stream:
        head = stream.read(16)
    if head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise InputError(
            f"{file}: is of MATLAB 7.3 (HDF5); fetch the original, or save it again with -v7"
        )
    if not head.startswith(b"MATLAB 5.0"):
        raise InputError(f"{file}: not a MATLAB 5 file; fetch it again")
    from scipy.io import loadmat

    try:
        table = loadmat(file, variable_names=["panoIds", "utm", "trainSet", "valSet"])
    except Exception as error:  # scipy lets any error of its parser through
        raise InputError(f"{file}: damaged ({error}); fetch it again") from None
    for name in ("panoIds", "utm", "trainSet", "valSet"):
        if name not in table:
            raise InputError(f"{file}: lacks the variable {name}; fetch it again")
    names = np.asarray(table["panoIds"])
    utm = np.asarray(table["utm"])
    if names.dtype.kind != "U" or utm.dtype.kind != "f" or utm.shape != (names.size, 2):
        raise InputError(
            f"{file}: expected panoIds as N rows of text and utm as N x 2 numbers, found "
            f"{names.dtype} {names.shape} and {utm.dtype} {utm.shape}"
        )
    if not np.isfinite(utm).all():
        raise InputError(f"{file}: utm holds values that are not finite; fetch it again")
    index = {"panoIds": np.char.strip(names.ravel()), "utm": utm.astype(np.float64)}
    for name in ("trainSet", "valSet"):
        index[name] = _indices(file, name, table[name], names.size)
    return index


def _indices(file: Path, name: str, variable: Any, count: int) -> npt.NDArray[np.int64]:
    """Return the numbers in a struct's second field, counted from 0."""
    fields: tuple[str, ...] = variable.dtype.names or ()
    if len(fields) < 2 or variable.size != 1:
        raise InputError(f"{file}: {name} is no struct of two fields; fetch the file again")
    numbers = np.asarray(variable.ravel()[0][1])
    if numbers.dtype.kind not in "iuf":
        raise InputError(f"{file}: {name}.{fields[1]} holds no numbers; fetch the file again")
    rows = numbers.ravel().astype(np.int64) - 1
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < count:
        raise InputError(
            f"{file}: {name}.{fields[1]} points outside the {count} panoIds; fetch the file again"
        )
    return rows
