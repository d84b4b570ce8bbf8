"""Training imagery in memory: the same ground at one or several dates, split by place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .ground_imagery import Image, Imagery, missing_files, read_imagery
from .ground_worlds import rendered, world_jobs
from .grounds_file import read_grounds_file
from .recipe import GroundConfig

# Each level of a pyramid halves the one before; below this side no patch is cut from it.
_MIN_LEVEL_PX = 64


@dataclass(frozen=True)
class Ground:
    """One piece of ground, north-up, at one or several dates.

    Attributes:
        name: for messages and the model card.
        gsd_m: ground size of a pixel of the finest level.
        dates: one image pyramid a date; `dates[d][l]` is (H >> l, W >> l, 3) uint8.
        invalid_area: (H + 1, W + 1) summed-area table of pixels that any date lacks.
        weight: relative share of the pairs.
        validates: whether the ground is held out for validation.
        source: index of the recipe's [[ground]] entry.
    """

    name: str
    gsd_m: float
    dates: tuple[tuple[Image, ...], ...]
    invalid_area: npt.NDArray[np.int32]
    weight: float
    validates: bool
    source: int

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height in metres."""
        height, width = self.dates[0][0].shape[:2]
        return width * self.gsd_m, height * self.gsd_m

    @functools.cached_property
    def all_valid(self) -> bool:
        """Whether no date lacks a pixel."""
        return int(self.invalid_area[-1, -1]) == 0

    def valid_share(self, x_m: float, y_m: float, side_m: float) -> float:
        """Return the share of valid pixels in a square around a place (metres from the NW corner).

        Ground beyond the image counts as invalid.
        """
        height, width = self.dates[0][0].shape[:2]
        half = side_m / 2
        x0, x1 = (round((x_m + s * half) / self.gsd_m) for s in (-1, 1))
        y0, y1 = (round((y_m + s * half) / self.gsd_m) for s in (-1, 1))
        total = max(1, (x1 - x0) * (y1 - y0))
        x0, x1, y0, y1 = max(x0, 0), min(x1, width), max(y0, 0), min(y1, height)
        if x0 >= x1 or y0 >= y1:
            return 0.0
        table = self.invalid_area
        invalid = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
        return float(((x1 - x0) * (y1 - y0) - invalid) / total)


def load_grounds(
    configs: tuple[GroundConfig, ...],
    data: Path | None,
    tick: Callable[[str], None],
    prepared: Path | None = None,
) -> list[Ground]:
    """Load every source of a recipe.

    Procedural worlds are rendered by processes of their own while files are read.

    Args:
        configs: the sources.
        data: the folder of their files.
        tick: is told the name of each ground as it is ready.
        prepared: a grounds file, in place of the folder.

    Raises:
        InputError: a source lacks files, files do not fit together, or cannot be read; the grounds
            file does not fit the recipe.
        IntegrityError: the grounds file is damaged.
        S4GError: a process that rendered worlds was killed.
    """
    if prepared is None:  # before worlds are made, which takes minutes
        check_sources(configs, data, "leave these entries out with --skip-missing")
    grounds: list[Ground] = []
    jobs = [job for c in configs if c.kind == "landscape" for job in world_jobs(c)]
    with rendered(jobs) as worlds:
        stored = None if prepared is None else read_grounds_file(prepared, configs)
        for index, config in enumerate(configs):
            pieces: Iterable[Imagery]
            if config.kind == "landscape":
                pieces = _landscapes(config, worlds)
            elif stored is not None:
                pieces = stored[index]
            else:
                pieces = read_imagery(config, data)
            for piece in pieces:
                grounds.append(_ground(piece, config.weight, index))
                tick(piece.name)
    return grounds


def missing_sources(configs: Sequence[GroundConfig], data: Path | None) -> dict[int, str]:
    """Return the sources that lack files: their index, and what they lack, for messages.

    Raises:
        InputError: there is no such folder, or a pattern does not start at it.
    """
    if data is not None and not data.is_dir():
        raise InputError(
            f"--data {data}: no such folder{_needed(configs)}; name the folder that holds the files"
        )
    found = {}
    for index, config in enumerate(configs):
        if gone := missing_files(config, data):
            found[index] = _described(config.kind, gone)
    return found


def check_sources(configs: Sequence[GroundConfig], data: Path | None, or_else: str) -> None:
    """Refuse sources that lack files, all of them in one line.

    Args:
        configs: the sources.
        data: the folder of their files.
        or_else: what can be done instead of fetching them.

    Raises:
        InputError: a source lacks files, or there is no such folder.
    """
    if not (missing := missing_sources(configs, data)):
        return
    if data is None:
        raise InputError(
            f"--data is missing{_needed(configs)}; name their folder, name prepared imagery with "
            f"--grounds, or {or_else}"
        )
    raise InputError(
        f"--data {data}: holds no files for {len(missing)} of {len(configs)} [[ground]] entries: "
        f"{'; '.join(missing.values())}; fetch them, or {or_else}"
    )


def _needed(configs: Sequence[GroundConfig]) -> str:
    needed = [_described(c.kind, list(c.files)) for c in configs if c.files]
    if not needed:
        return ""
    count = f"{len(needed)} of {len(configs)}"
    return f"; {count} [[ground]] entries need it: {'; '.join(needed)}"


def _described(kind: str, files: Sequence[str]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{kind} of {files[0]}{more}"


def holds_out(config: GroundConfig) -> bool:
    """Return whether any of the source's ground is kept from training."""
    return config.val_worlds > 0 if config.kind == "landscape" else config.split != "train"


def held_out_only(config: GroundConfig) -> GroundConfig:
    """Return the source without the procedural worlds that only train; they take time to make."""
    return dataclasses.replace(config, first_seed=config.first_seed + config.worlds, worlds=0)


def _landscapes(config: GroundConfig, worlds: Iterator[list[Image]]) -> Iterator[Imagery]:
    for number, job in enumerate(world_jobs(config)):
        images = next(worlds)
        valid = np.ones(images[0].shape[:2], bool)
        validates = number >= config.worlds
        yield Imagery(f"landscape {job.seed}", job.gsd_m, tuple(images), valid, validates)


def _ground(piece: Imagery, weight: float, source: int) -> Ground:
    height, width = piece.valid.shape
    area = np.zeros((height + 1, width + 1), np.int32)
    area[1:, 1:] = np.cumsum(
        np.cumsum(~piece.valid, axis=0, dtype=np.int32), axis=1, dtype=np.int32
    )
    dates = tuple(_pyramid(image) for image in piece.images)
    return Ground(piece.name, piece.gsd_m, dates, area, weight, piece.validates, source)


def _pyramid(image: Image) -> tuple[Image, ...]:
    levels = [np.ascontiguousarray(image)]
    while min(levels[-1].shape[:2]) >= 2 * _MIN_LEVEL_PX:
        height, width = levels[-1].shape[:2]
        half = cv2.resize(
            levels[-1][: height // 2 * 2, : width // 2 * 2],
            (width // 2, height // 2),
            interpolation=cv2.INTER_AREA,
        )
        levels.append(np.asarray(half, np.uint8))
    return tuple(levels)
