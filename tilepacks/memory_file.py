"""A file in memory with a path, for libraries that read and write nothing but named files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_file(folder: Path | None = None) -> Iterator[Path]:
    """Yield the path of an empty file that vanishes afterwards.

    On Linux it never touches a disk (memfd); elsewhere, or where a folder is given because memory
    is scarcer than time, it is a temporary file.
    """
    if folder is None and hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("s4g")
        try:
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix=".scratch.", dir=folder) as scratch:
        yield Path(scratch) / "content"
