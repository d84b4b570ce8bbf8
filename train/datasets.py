"""The data sets by name: from a recipe's `[data]` table and a folder to pairs and tasks."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from ..core.errors import InputError
from .data_cvact import Cvact
from .data_cvusa import Cvusa
from .data_denseuav import DenseUav
from .data_gtauav import GtaUav
from .data_own import Own
from .data_sues import HEIGHTS_M, Sues
from .data_university import University
from .data_vigor import Vigor
from .dataset import DataConfig, Dataset

AREAS = ("same", "cross")

KIND: dict[str, Callable[[DataConfig, Path], Dataset]] = {
    "cvusa": lambda config, root: Cvusa(root),
    "cvact": lambda config, root: Cvact(root),
    "vigor": lambda config, root: Vigor(root, config.area),
    "university1652": lambda config, root: University(root),
    "sues200": lambda config, root: Sues(root, config.height_m),
    "denseuav": lambda config, root: DenseUav(root),
    "gtauav": lambda config, root: GtaUav(root, config.area),
    "own": Own,
}


def open_dataset(config: DataConfig, root: Path) -> Dataset:
    """Return a data set on disk; its pictures are not looked at yet.

    Args:
        config: which set and which part of it.
        root: the folder of the set.

    Raises:
        InputError: a value of the table is not legal, or there is no such folder.
    """
    check_data_config(config, "[data]")
    if not root.is_dir():
        raise InputError(f"--data {root}: no such folder; give the folder of the data set")
    return KIND[config.kind](config, root)


def check_data_config(config: DataConfig, origin: str) -> None:
    """Refuse a table that names no data set, or a part that it does not have.

    Args:
        config: the table.
        origin: where it stands, for errors.

    Raises:
        InputError: the message names key, value and what is legal.
    """
    if config.kind not in KIND:
        near = difflib.get_close_matches(config.kind, KIND, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(KIND)}"
        raise InputError(f"{origin}: kind = {config.kind!r} is no data set; {hint}")
    if not 0 <= config.val_share < 1:
        raise InputError(
            f"{origin}: val_share = {config.val_share:g} must be 0 or more and less than 1"
        )
    if not 0 <= config.gsd_min_m <= config.gsd_max_m or (
        config.gsd_max_m > 0 and config.gsd_min_m == 0
    ):
        raise InputError(
            f"{origin}: gsd_min_m = {config.gsd_min_m:g} and gsd_max_m = {config.gsd_max_m:g} must "
            "be two sizes of a pixel on the ground in metres, in this order, or both 0"
        )
    if config.kind in ("vigor", "gtauav") and config.area not in AREAS:
        raise InputError(f"{origin}: area = {config.area!r} must be one of {', '.join(AREAS)}")
    if config.kind == "sues200" and config.height_m not in HEIGHTS_M:
        heights = ", ".join(map(str, HEIGHTS_M))
        raise InputError(f"{origin}: height_m = {config.height_m} must be one of {heights}")
    if config.kind == "own":
        _check_own(config, origin)


def _check_own(config: DataConfig, origin: str) -> None:
    for key in ("photos", "source"):
        if not getattr(config, key):
            raise InputError(
                f"{origin}: kind = 'own' needs {key}: photos is a CSV or a folder, source the "
                "imagery as for s4g-pack --source"
            )
    if not config.footprint_m > 0:
        raise InputError(
            f"{origin}: footprint_m = {config.footprint_m:g} must be above 0: the side of a tile "
            "on the ground, metres"
        )
    if not 0 < config.stride <= 1:
        raise InputError(
            f"{origin}: stride = {config.stride:g} must be above 0 and up to 1: the step between "
            "tiles as a share of their side"
        )
