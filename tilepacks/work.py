"""The folder in which a build keeps what is done, so that it goes on after a kill.

Every entry is a container of its own (format.py) that appears whole or not at all and is verified
when it is read: what a full disk or a power cut left behind is simply made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import InputError, IntegrityError, S4GError
from ..core.files import NO_SPACE, atomic_file, write_failure
from .format import Buffer, Container, encode_container, open_container

_PLAN = "build.json"
_LOCK = "lock"


class _WriteError(S4GError):
    """Something in the folder could not be written: the `OSError` that it was raised from."""

    def __init__(self, path: Path, cause: OSError) -> None:
        """Tell how to go on."""
        first = "free some space and " if cause.errno in NO_SPACE else ""
        super().__init__(
            f"{path}: cannot write ({cause.strerror}); {first}run the same command to go on: what "
            "is done is kept there"
        )
        self.cause = cause


class WorkFolder:
    """Entries of one build; made by `work_folder`.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        """See `work_folder`."""
        self.path = path

    def sub(self, name: str) -> WorkFolder:
        """Return a part of the folder, made if need be, for a build within this one.

        Raises:
            S4GError: the disk is full; what is done stays.
        """
        try:
            (self.path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise _WriteError(self.path, error) from error
        return WorkFolder(self.path / name)

    def has(self, name: str) -> bool:
        """Return whether an entry is there; whether it is whole is found when it is read."""
        return (self.path / name).is_file()

    def write(self, name: str, values: Mapping[str, Any], sections: Mapping[str, Buffer]) -> None:
        """Keep an entry.

        Raises:
            S4GError: the disk is full; what is done stays.
        """
        try:
            with (
                atomic_file(self.path / name, overwrite=True) as temporary,
                temporary.open("wb") as file,
            ):
                for part in encode_container(values, sections):
                    file.write(part)
        except S4GError as error:
            if isinstance(error.__cause__, OSError):
                raise _WriteError(self.path, error.__cause__) from error
            raise

    def read(self, name: str) -> Container | None:
        """Return an entry, verified whole, or None where it is missing or damaged."""
        if not self.has(name):
            return None
        try:
            container = open_container(self.path / name)
            container.verify()
        except (InputError, IntegrityError):
            return None
        return container

    def remove(self) -> None:
        """Remove the folder: the build is finished."""
        shutil.rmtree(self.path, ignore_errors=True)


def work_path(out: Path) -> Path:
    """Return where the build of a pack keeps what is done."""
    return out.with_name(f".{out.name}.work")


@contextlib.contextmanager
def work_folder(out: Path, plan: Mapping[str, Any], restart: bool = False) -> Iterator[WorkFolder]:
    """Open the folder of a build, new or from where it stopped; nobody else can while it is open.

    Args:
        out: the pack to be.
        plan: what decides the result: imagery, encoder, options. What was done for another plan
            is not used.
        restart: throw away what was done.

    Raises:
        InputError: another build into the same pack runs, or the plan has changed since.
        S4GError: the folder cannot be written.
    """
    path = work_path(out)
    try:
        path.mkdir(exist_ok=True)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()
        raise (_WriteError(path, error) if path.exists() else write_failure(out, error)) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{out}: another s4g-pack is building it; wait for it, or choose another --out"
            ) from None
        try:
            if restart:
                _empty(path)
            _remove_torn(out)
            _check_plan(out, path, plan)
            yield WorkFolder(path)
        except BaseException as error:
            if _remove_if_nothing_is_done(path) and isinstance(error, _WriteError):
                raise write_failure(out, error.cause) from error
            raise
    finally:
        os.close(lock)


def _remove_if_nothing_is_done(path: Path) -> bool:
    """Return whether there is nothing to go on from, and no folder any more."""
    done = [file for file in path.rglob("*") if file.is_file() and file.name not in (_PLAN, _LOCK)]
    if not done:
        shutil.rmtree(path, ignore_errors=True)
    return not done


def _remove_torn(out: Path) -> None:
    """Remove what a build that was killed while it wrote the pack has left beside it."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.tmp{glob.escape(out.suffix)}"):
        number = left.name[len(out.name) + 2 :].partition(".")[0]
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            left.unlink(missing_ok=True)


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name != _LOCK:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _check_plan(out: Path, path: Path, plan: Mapping[str, Any]) -> None:
    file = path / _PLAN
    wanted = json.loads(json.dumps(plan))
    if not file.exists():
        _empty(path)  # what is there without a plan is of another build, half removed
        try:
            with atomic_file(file, overwrite=True) as temporary:
                temporary.write_text(json.dumps(plan, indent=2, sort_keys=True), encoding="utf-8")
        except S4GError as error:
            assert isinstance(error.__cause__, OSError)
            raise _WriteError(path, error.__cause__) from error
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if found != wanted:
        keys = sorted(set(wanted) | set(found)) if isinstance(found, dict) else ["it"]
        changed = [k for k in keys if not isinstance(found, dict) or found.get(k) != wanted.get(k)]
        raise InputError(
            f"{out}: was begun with another {', '.join(changed)}; repeat the former command to go "
            "on, or pass --restart to throw away what is done"
        )
