"""A TensorRT plan and its sidecar are written: both, or neither."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from .errors import S4GError
from .files import check_output
from .plan import PlanInfo, sidecar_path


def write_plan(path: Path, data: bytes, info: PlanInfo, overwrite: bool = False) -> None:
    """Write a plan and its sidecar; both appear whole or neither does.

    Both are on disk before either takes its name. A crash between the renames leaves a plan
    without sidecar or beside that of another, which `read_plan` refuses.

    Raises:
        InputError: one of them exists and `overwrite` is false.
        S4GError: the disk is full or the folder cannot be written; both are as they were.
    """
    sidecar = sidecar_path(path)
    check_output(path, overwrite)
    check_output(sidecar, overwrite)
    text = json.dumps(info.as_json(), indent=2) + "\n"
    new_plan, new_sidecar = _temporary(path), _temporary(sidecar)
    former = new_sidecar.with_name(f"{new_sidecar.name}.former")
    try:
        _write_through(new_plan, data)
        _write_through(new_sidecar, text.encode())
        try:
            if sidecar.exists():
                sidecar.replace(former)
            new_sidecar.replace(sidecar)
            new_plan.replace(path)
        finally:
            if new_plan.exists():  # it did not take its place: the former plan keeps its sidecar
                if former.exists():
                    former.replace(sidecar)
                elif not new_sidecar.exists():
                    sidecar.unlink()
        _flush(path.parent)
    except OSError as error:
        raise S4GError(
            f"{path}: cannot write ({error.strerror or error}); free some space or choose another "
            "place; nothing was left behind"
        ) from error
    finally:
        for file in (new_plan, new_sidecar, former):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _write_through(path: Path, content: bytes) -> None:
    """Write a file to the disk itself: a full one is noticed here."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
