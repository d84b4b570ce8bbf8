"""Worlds are rendered by several processes, in order, and no process outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError, S4GError
from s4g.core.landscape import HELD_OUT, STYLES
from s4g.train.ground_worlds import WorldJob, render_job, rendered, world_jobs
from s4g.train.recipe import GroundConfig

JOBS = [WorldJob(seed, 40.0, 1.0, 2, "oaks") for seed in range(5)]

# Prints the id of one rendering process, then waits for worlds that take minutes.
WAITING = """
import multiprocessing
from s4g.train.ground_worlds import WorldJob, rendered
if __name__ == "__main__":
    with rendered([WorldJob(seed, 40.0, 1.0, 1, "oaks") for seed in range(10**5)], 2) as worlds:
        next(worlds)
        print(multiprocessing.active_children()[0].pid, flush=True)
        for pictures in worlds:
            pass
"""


def test_processes_give_the_same_worlds_in_the_same_order() -> None:
    with rendered(JOBS, 2) as worlds:
        made = list(worlds)
    alone = [render_job(job) for job in JOBS]
    assert all(np.array_equal(a, b) for a, b in zip(made, alone, strict=True))


def test_little_work_starts_no_process() -> None:
    with rendered(JOBS) as worlds:
        next(worlds)
        assert not multiprocessing.active_children()


def test_worlds_that_only_validate_come_last() -> None:
    jobs = world_jobs(GroundConfig("landscape", worlds=2, val_worlds=1, first_seed=7))
    assert [job.seed for job in jobs] == [7, 8, 9]


def test_every_style_but_those_held_out_is_seen_in_training() -> None:
    jobs = world_jobs(GroundConfig("landscape", worlds=40))
    assert {job.style for job in jobs} == set(STYLES) - {"groves", "terraces"}
    assert set(HELD_OUT) == {"groves", "terraces"}


def test_named_styles_are_seen_in_turn_and_no_other() -> None:
    config = GroundConfig("landscape", worlds=3, first_seed=4, styles=("oaks", "groves"))
    assert [job.style for job in world_jobs(config)] == ["oaks", "groves", "oaks"]


def test_an_error_in_a_process_is_the_error_of_the_caller_and_ends_the_others() -> None:
    message = "expected 0.05 to 20 metres per pixel"
    with (
        pytest.raises(InputError, match=message),
        rendered([WorldJob(1, 99.0, 99.0, 1, "oaks")] * 9, 2) as worlds,
    ):
        list(worlds)
    assert not multiprocessing.active_children()


def test_a_killed_process_is_said_in_one_line() -> None:
    with pytest.raises(S4GError) as error, rendered(JOBS * 99, 2) as worlds:
        next(worlds)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        list(worlds)
    assert str(error.value) == (
        "a process that renders procedural worlds was killed, one of 2; free some memory"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_their_parent(tmp_path: Path, number: int) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # a terminal sends it to all
    else:
        parent.send_signal(number)
    _, errors = parent.communicate(timeout=60)
    assert "ForkProcess" not in errors
    assert "SpawnProcess" not in errors  # no traceback of a child
    assert _gone(child)


def _gone(pid: int) -> bool:
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
