"""What commands load: a drone has no torch, and `--help` loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["scripts"]
DRONE_COMMANDS = ["s4g-run", "s4g-pack", "s4g-sim"]
TRAINING = {"torch", "torchvision", "timm", "onnx"}
# Loading any of these takes longer than a help text may.
SLOW = TRAINING | {"onnxruntime", "rasterio", "hnswlib"}

PROGRAM = """
import json, sys
sys.argv = ["command", *json.loads(sys.argv[1])[1:]]
import {module} as command
try:
    if len(sys.argv) > 1:
        command.{function}()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded_by(command: str, *arguments: str) -> set[str]:
    """Return the modules loaded after importing a command and, with arguments, running it."""
    module, function = SCRIPTS[command].split(":")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM.format(module=module, function=function),
            json.dumps(["command", *arguments]),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    modules: list[Any] = json.loads(done.stderr.splitlines()[-1])
    return set(modules)


@pytest.mark.parametrize("command", DRONE_COMMANDS)
def test_importing_a_command_of_the_drone_leaves_torch_unloaded(command: str) -> None:
    assert loaded_by(command) & TRAINING == set()


@pytest.mark.parametrize("command", sorted(SCRIPTS))
def test_help_loads_nothing_slow(command: str) -> None:
    assert loaded_by(command, "--help") & SLOW == set()


def test_the_pack_reader_needs_no_imagery_reader() -> None:
    program = "import s4g.tilepacks.reader, sys; sys.exit('rasterio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
