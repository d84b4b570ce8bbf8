"""What was made before is kept under the hash of all it was made from, code included."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_DIGITS = 20


def key_of(*parts: Any) -> str:
    """Return a name for what comes of these values: of dataclasses, numbers, texts, lists."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


@functools.cache
def code_of(*files: str, follow: bool = True) -> str:
    """Return a hash of modules, given as paths within the project, and of all of ours they import.

    A change of the filter thus asks for new fixes, and not for new flights. Without `follow` it is
    the hash of the named files alone.
    """
    todo, seen = [ROOT / file for file in files], set[Path]()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo += _imports(path) if follow else ()
    digest = hashlib.sha256()
    for path in sorted(seen):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Return the project's modules that a module imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [_file(path, 0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.append(_file(path, node.level, module))
            found += [
                _file(path, node.level, f"{module}.{alias.name}".strip(".")) for alias in node.names
            ]
    return tuple(file for file in found if file is not None)


def _file(path: Path, level: int, module: str) -> Path | None:
    """Return the file of a module; None where it is not of this project."""
    parts = module.split(".") if module else []
    if level:
        base = path.parents[level - 1]
    elif parts[:1] == ["s4g"]:
        base, parts = ROOT, parts[1:]
    else:
        base = HERE  # the modules of this benchmark import each other by their bare names
    file = base.joinpath(*parts).with_suffix(".py") if parts else base
    return file if file.is_file() else None
