"""Files that appear whole or not at all, and their SHA-256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError, S4GError

_HASH_BLOCK_BYTES = 1 << 20
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ELSEWHERE = "choose another place"
_REMEDIES = {
    **dict.fromkeys(NO_SPACE, f"free some space or {_ELSEWHERE}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), f"change the permissions or {_ELSEWHERE}"),
    errno.ENAMETOOLONG: "choose a shorter name",
}


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 lower-case hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def cache_folder(name: str) -> Path:
    """Return where a cache of ours lies: `$XDG_CACHE_HOME`, else `~/.cache`, then `s4g/NAME`.

    It need not exist. Source: the XDG Base Directory specification, which has a relative
    `$XDG_CACHE_HOME` ignored.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "s4g" / name


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse early, before long work, an output that exists or whose folder does not.

    Raises:
        InputError: `path` exists and `overwrite` is false, or its folder is missing or is none.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path}: already exists; pass --overwrite to replace it")
    if not path.parent.is_dir():
        if path.parent.exists():
            raise InputError(f"{path}: {path.parent} is a file, not a folder; choose another place")
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write to; on success it becomes `path`.

    The content is flushed to disk before the rename, so that a crash leaves either the old file
    or the new one. On any error the temporary file is removed and `path` is untouched.

    Raises:
        InputError: the output exists (see `check_output`).
        S4GError: the disk is full or the folder cannot be written.
    """
    check_output(path, overwrite)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        if _is_about_another_file(error, path, temporary):
            raise
        raise write_failure(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it becomes `path`, else it vanishes.

    Raises:
        InputError: the output exists (see `check_output`), or replacing it would remove the
            working folder or the user's home.
        S4GError: the disk is full or the folder cannot be written.
    """
    check_output(path, overwrite)
    _check_replaceable(path)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise write_failure(path, error) from error
    retired = temporary.with_name(temporary.name + ".old")
    try:
        temporary.chmod(0o755)
        yield temporary
        if path.exists():
            path.replace(retired)
        temporary.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        if _is_about_another_file(error, path, temporary):
            raise
        raise write_failure(path, error) from error
    finally:
        if retired.exists() and not path.exists():
            retired.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def replace_folder(made: Path, path: Path, overwrite: bool = False) -> None:
    """Give a finished folder its name; a folder that had it is removed afterwards.

    Killed at any moment, the old folder or the new one has the name, or the new one is where it
    was and the same call can be repeated.

    Args:
        made: the folder, on the same file system.
        path: its name to be.
        overwrite: replace a folder of that name.

    Raises:
        InputError: `path` exists (see `check_output`), or replacing it would remove the working
            folder or the user's home.
        S4GError: the folder cannot be written.
    """
    check_output(path, overwrite)
    _check_replaceable(path)
    retired = path.with_name(f".{path.name}.old")
    try:
        if path.exists():
            shutil.rmtree(retired, ignore_errors=True)
            path.replace(retired)
        try:
            made.replace(path)
        except OSError:
            if retired.exists():
                retired.replace(path)
            raise
        _fsync_folder(path.parent)
    except OSError as error:
        raise S4GError(
            f"{path}: cannot write ({error.strerror or error}); what was made lies in {made}"
        ) from error
    shutil.rmtree(retired, ignore_errors=True)


def _check_replaceable(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, expected a folder; choose another place")
    whole = path.resolve()
    if any(place.resolve().is_relative_to(whole) for place in (Path.cwd(), Path.home())):
        raise InputError(
            f"{path}: replacing it would remove the folder you work in; choose another place"
        )


def _is_about_another_file(error: OSError, path: Path, temporary: Path) -> bool:
    """Return whether the error comes from a file that was read while `path` was being written."""
    if not isinstance(error.filename, (str, bytes)):
        return False
    other = Path(os.fsdecode(error.filename))
    return other not in (path, path.parent) and not other.is_relative_to(temporary)


def why_not_written(error: OSError) -> str:
    """Return what kept a file from being written, and what helps: `(reason); remedy`."""
    return f"({error.strerror or error}); {_REMEDIES.get(error.errno or 0, _ELSEWHERE)}"


def write_failure(path: Path, error: OSError) -> S4GError:
    """Return the error of an output of which nothing was left."""
    return S4GError(f"{path}: cannot write {why_not_written(error)}; nothing was left behind")


def write_bytes(path: Path, data: bytes, overwrite: bool = False) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path, overwrite) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any, overwrite: bool = False) -> None:
    """Write `value` as indented JSON to `path` atomically."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode(), overwrite)
