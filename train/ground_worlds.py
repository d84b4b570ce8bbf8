"""Procedural worlds for training, rendered by as many processes as there are cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import S4GError
from ..core.landscape import FIRST_YEAR, HELD_OUT, LAST_YEAR, STYLES, make_world, render_world

if TYPE_CHECKING:  # the recipe brings torch along, which a process that renders does without
    from .recipe import GroundConfig

Image = npt.NDArray[np.uint8]

WORLD_GSD_M = 0.5  # where a recipe says nothing
_SEASONS = ("spring", "summer", "autumn", "winter")
_SENSORS = ("a", "b", "c", "d")
_MAX_PROCESSES = 32  # each takes about 0.3 GiB
# A process starts in about a second, in which one core renders this many pixels.
_PIXELS_WORTH_A_PROCESS = 4_000_000


@dataclass(frozen=True)
class WorldJob:
    """One world to render.

    Attributes:
        seed: of the world; draws light and sensor as well.
        size_m: its side.
        gsd_m: ground size of a pixel.
        renders: pictures of it: other season, year, light, sensor.
        style: the country it shows.
    """

    seed: int
    size_m: float
    gsd_m: float
    renders: int
    style: str

    @property
    def pixels(self) -> float:
        """Pixels to make: each layer of the world costs about as much as a picture."""
        return (1 + self.renders) * (self.size_m / self.gsd_m) ** 2


def world_jobs(config: GroundConfig) -> list[WorldJob]:
    """Return the worlds of a `landscape` source in order, those that validate last.

    Consecutive seeds visit all styles in turn.
    """
    gsd_m = config.gsd_m or WORLD_GSD_M
    styles = config.styles or tuple(name for name in STYLES if name not in HELD_OUT)
    seeds = range(config.first_seed, config.first_seed + config.worlds + config.val_worlds)
    return [
        WorldJob(seed, config.size_m, gsd_m, config.renders, styles[seed % len(styles)])
        for seed in seeds
    ]


def render_job(job: WorldJob) -> list[Image]:
    """Return the pictures of a world, each (H, W, 3) uint8; the same job gives the same bytes.

    Raises:
        InputError: size or pixel size is out of range.
    """
    world = make_world(job.seed, job.size_m, job.gsd_m, job.style)
    rng = np.random.default_rng(job.seed)
    # Years apart, so that houses and woods come and go between two pictures, not crops alone.
    years = FIRST_YEAR + rng.permutation(LAST_YEAR - FIRST_YEAR + 1)
    return [
        render_world(
            world,
            season=_SEASONS[(job.seed + i) % len(_SEASONS)],
            year=int(years[i % len(years)]),
            light_seed=int(rng.integers(1 << 30)),
            sensor=_SENSORS[int(rng.integers(len(_SENSORS)))],
        )
        for i in range(job.renders)
    ]


@contextlib.contextmanager
def rendered(
    jobs: Sequence[WorldJob], processes: int | None = None
) -> Iterator[Iterator[list[Image]]]:
    """Yield an iterator over the pictures of each job, in order; work starts at once.

    However the block is left, the processes end: at the latest when the worlds in the making
    are done, or when this process is gone.

    Args:
        jobs: the worlds.
        processes: that render; none for this process alone; default: as the cores and the work
            allow.

    Raises:
        InputError: size or pixel size is out of range.
        S4GError: a process was killed.
    """
    count = _processes(jobs) if processes is None else processes
    if count < 2:
        yield map(render_job, jobs)
        return
    # Spawned: a fork copies locks that OpenCV's threads may hold and wait for them for ever.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_process)
    try:
        yield pool.map(render_job, jobs)
    except BrokenProcessPool:
        raise S4GError(
            f"a process that renders procedural worlds was killed, one of {count}; free some memory"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _processes(jobs: Sequence[WorldJob]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Under torchrun every process of this machine renders its own.
    share = (cores or 1) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    worth = sum(job.pixels for job in jobs) / _PIXELS_WORTH_A_PROCESS
    return min(share, len(jobs), _MAX_PROCESSES, int(worth))


def _start_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends all
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
