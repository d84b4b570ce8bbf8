"""A pack's content onto the disk, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from ..core.files import atomic_file
from .build import PackContent
from .format import encode_container
from .reader import open_pack


def write_pack(path: Path, content: PackContent, overwrite: bool = False) -> None:
    """Write a pack and read it back before it gets its name.

    Raises:
        InputError: the file exists and `overwrite` is false, or its folder is missing.
        S4GError: the disk is full, or what was read back is not what was written.
    """
    with atomic_file(path, overwrite) as temporary:
        with temporary.open("wb") as file:
            for part in encode_container(content.manifest.to_values(), content.sections):
                file.write(part)
        open_pack(temporary).close()
