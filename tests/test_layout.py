"""The map of the repository: what is packed, and which floor may look at which."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
# What a folder may import from, besides itself. Arrows only point down.
FLOORS = {
    "core": set[str](),
    "train": {"core"},
    "export": {"core", "train"},
    "tilepacks": {"core"},
    "runtime": {"core", "tilepacks"},
}
# A drone installs none of these.
HEAVY = {"torch", "torchvision", "timm", "onnx", "safetensors"}
LIGHT_FOLDERS = ("core", "tilepacks", "runtime")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packed_folders() -> set[str]:
    packages: list[str] = pyproject()["tool"]["setuptools"]["packages"]
    return {name.removeprefix("s4g.") for name in packages if name != "s4g"}


def sources() -> list[Path]:
    return [path for folder in sorted(FLOORS) for path in sorted((ROOT / folder).glob("*.py"))]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (level, name) of every import, at any depth of the code: level 0 is absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):  # from .. import core
            yield from ((node.level, alias.name) for alias in node.names)


def upward_imports(path: Path) -> list[str]:
    """Return what a file imports from floors that it may not look at, as the code spells it."""
    folder = path.parent.name
    allowed = FLOORS[folder] | {"__version__"}
    wrong = []
    for level, name in imports(path):
        first = name.split(".")[0]
        if (level == 0 and first == "s4g") or level > 2 or (level == 2 and first not in allowed):
            wrong.append("." * level + name)
    return wrong


def test_every_folder_with_code_is_packed_and_has_a_floor() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == packed_folders() == set(FLOORS)


def test_the_type_checker_sees_every_packed_folder() -> None:
    checked = {name.removeprefix("s4g.") for name in pyproject()["tool"]["mypy"]["packages"]}
    assert checked == packed_folders()


@pytest.mark.parametrize("folder", sorted(FLOORS))
def test_folders_are_one_level_deep(folder: str) -> None:
    deeper = [str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*/*.py")]
    assert deeper == []


def test_the_only_python_file_at_the_root_is_the_packages_own() -> None:
    # Any other would be shipped as s4g/x.py.
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_data_files_that_lie_beside_the_code_are_packed() -> None:
    patterns: dict[str, list[str]] = pyproject()["tool"]["setuptools"]["package-data"]
    for folder in FLOORS:
        packed = {
            path
            for pattern in patterns.get(f"s4g.{folder}", [])
            for path in ROOT.glob(f"{folder}/{pattern}")
        }
        lying = {
            path
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix not in {".py", ".pyc"}
        }
        assert lying == packed, f"{folder}: not in package-data of pyproject.toml"


def test_every_command_points_at_a_main_function() -> None:
    scripts: dict[str, str] = pyproject()["project"]["scripts"]
    for name, target in scripts.items():
        module, function = target.split(":")
        path = ROOT.joinpath(*module.removeprefix("s4g.").split(".")).with_suffix(".py")
        assert path.is_file(), f"{name}: no {path.relative_to(ROOT)}"
        defined = {
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        assert function in defined, f"{name}: no {function}() in {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_are_relative_and_point_down(path: Path) -> None:
    assert upward_imports(path) == []


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("import s4g.train.model", ["s4g.train.model"]),
        ("from s4g.core import geo", ["s4g.core"]),
        ("from ..train.model import Encoder", ["..train.model"]),
        ("from .. import train", ["..train"]),
        ("def f():\n    from ..runtime import cli", ["..runtime"]),
        ("from ...s4g import core", ["...s4g"]),
        ("from ..core.geo import BBox\nfrom .reader import open_pack\nimport numpy", []),
        ("from .. import __version__", []),
    ],
)
def test_the_check_itself_sees_every_spelling(tmp_path: Path, code: str, wrong: list[str]) -> None:
    path = tmp_path / "tilepacks" / "x.py"
    path.parent.mkdir()
    path.write_text(code)
    assert upward_imports(path) == wrong


@pytest.mark.parametrize("folder", LIGHT_FOLDERS)
def test_what_a_drone_installs_never_asks_for_training_libraries(folder: str) -> None:
    asked = {
        (path.name, name)
        for path in (ROOT / folder).glob("*.py")
        for level, name in imports(path)
        if level == 0 and name.split(".")[0] in HEAVY
    }
    assert asked == set()


def test_every_module_opens_with_a_line_that_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []
