"""The last step of whatever makes a pack: write it, read it back, then give it its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.files import atomic_file
from .format import Buffer, encode_container
from .manifest import Manifest
from .reader import open_pack


def write_pack(
    out: Path, manifest: Manifest, sections: Mapping[str, Buffer], overwrite: bool
) -> None:
    """Write a pack whole or not at all.

    Args:
        out: the file.
        manifest: everything it says about itself.
        sections: its content by name, in file order.
        overwrite: replace an existing pack.

    Raises:
        InputError: `out` exists.
        IntegrityError: what was written is no pack: a bug, or a disk that returns other bytes.
        S4GError: the disk is full.
    """
    with atomic_file(out, overwrite) as temporary:
        with temporary.open("wb") as file:
            for part in encode_container(manifest.to_values(), sections):
                file.write(part)
        with open_pack(temporary) as pack:
            pack.verify()
