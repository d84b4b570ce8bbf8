"""A pack that changes under a running `s4g-run`, a process of its own: it might die of SIGBUS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RUN = "from s4g.runtime.cli import main; main()"
GOES_ON = "this run goes on with the pack that it opened; start it again for another"
LOST = (
    "this run goes on with the tiles that it verified at its start, without imagery; a pack in use "
    "is replaced by rename (mv)"
)


def cut_short(pack: Path) -> None:
    os.truncate(pack, 4096)


def emptied(pack: Path) -> None:
    os.truncate(pack, 0)


def written_over(pack: Path) -> None:
    size = pack.stat().st_size
    with pack.open("r+b") as file:
        file.write(np.random.default_rng(0).bytes(size))


def replaced(pack: Path) -> None:
    other = pack.with_name("other")
    other.write_bytes(b"another")
    other.replace(pack)


def removed(pack: Path) -> None:
    pack.unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (cut_short, f"was cut short while it was open; {LOST}"),
        (emptied, f"was cut short while it was open; {LOST}"),
        (written_over, f"was written over while it was open; {LOST}"),
        (replaced, f"was replaced; {GOES_ON}"),
        (removed, f"is gone; {GOES_ON}"),
    ],
)
def test_fixes_go_on_and_what_happened_is_told_once(
    toy_flight: Any,
    toy_pack: Path,
    toy_encoder: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    told: str,
) -> None:
    pack, photos = tmp_path / "region.s4gpack", tmp_path / "photos"
    shutil.copy(toy_pack, pack)
    os.utime(pack, (1_000_000_000, 1_000_000_000))
    shutil.copytree(toy_flight.photos, photos)
    *_, waited_for, _, _ = sorted(photos.iterdir())
    photo = waited_for.read_bytes()
    arguments = [
        "--camera", photos, "--pack", pack, "--encoder", toy_encoder, "--device", "cpu",
        "--telemetry", toy_flight.telemetry, "--hfov", toy_flight.hfov_deg, "--threads", 1,
        "--single",
    ]  # fmt: skip
    command = [sys.executable, "-c", RUN, *(str(argument) for argument in arguments)]
    untouched = subprocess.run(command, capture_output=True, text=True, check=True)
    # The run waits for the fourth photo, which is a pipe, while its pack is changed.
    waited_for.unlink()
    os.mkfifo(waited_for)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        change(pack)
        waited_for.write_bytes(photo)
        out, err = process.communicate()
    assert process.returncode == 0
    fixes = [json.loads(line) for line in [*lines, *out.splitlines()]]
    expected = [json.loads(line) for line in untouched.stdout.splitlines()]
    for fix in (*fixes, *expected):
        del fix["latency_ms"]
    assert fixes == expected and len(fixes) == 6
    assert [line for line in err.splitlines() if str(pack) in line] == [f"note: {pack} {told}"]
    assert str(pack) not in untouched.stderr
