"""The names of files that `s4g-pack` writes, looked at as they were given.

Pathlib would take `packs/` for `packs` and an empty name for the folder that one works in, and with
`--overwrite` anything of a name that is not a pack's could be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..core.errors import InputError

_SET = ".s4gpacks"  # the one output that is a folder


def out_file(*suffixes: str) -> Callable[[str], Path]:
    """Return the type of an option `--out`, for click: a file with one of some endings.

    What it returns raises `InputError` for a name that is empty, a folder, or has another ending.
    """

    def path(text: str) -> Path:  # its name is what help shows: PATH
        return _checked(text, suffixes)

    return path


def _checked(text: str, suffixes: tuple[str, ...]) -> Path:
    path, example = Path(text), f"region{suffixes[0]}"
    # Capitals count as small ones, but not in a pack's name: others look for it as it is written.
    suffix = path.suffix if path.suffix.lower().startswith(".s4g") else path.suffix.lower()
    if not text:
        raise InputError(f"--out: the name is empty; give one, for example {example}")
    if path.name in suffixes:
        raise InputError(f"--out {text}: is an ending only; give a name, for example {example}")
    if suffix == _SET and suffix in suffixes:
        return path
    if text.endswith("/") and suffix in suffixes:
        raise InputError(f"--out {text}: names a folder; leave out the / at its end")
    if text.endswith("/") or path.is_dir():
        raise InputError(
            f"--out {text}: is a folder; give a file in it, for example {path / example}"
        )
    if suffix not in suffixes:
        raise InputError(f"--out {text}: expected a name that ends in {' or '.join(suffixes)}")
    return path


def key_name(text: str) -> Path:
    """Return the name of a pair of keys, without the endings that are added to it.

    Raises:
        InputError: it is empty, a folder, or has an ending of a key.
    """
    path = Path(text)
    if not text:
        raise InputError("keygen: the name of the keys is empty; give one, for example ops")
    if text.endswith("/") or path.is_dir():
        raise InputError(
            f"keygen {text}: is a folder; give a name in it, for example {path / 'ops'}"
        )
    if path.suffix in (".key", ".pub"):
        raise InputError(
            f"keygen {text}: .key and .pub are added to the name; give {path.with_suffix('')}"
        )
    return path
