from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from s4g.core.errors import InputError, IntegrityError
from s4g.core.open_file import FilePart, OpenFile

DATA = bytes(range(256)) * 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not new: a change within the file system's tick would not show."""
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def whole(file: OpenFile) -> FilePart:
    return FilePart(file, 0, file.size)


def test_parts_of_parts_are_read_as_slices_of_the_whole(path: Path) -> None:
    part = whole(OpenFile(path))
    assert len(part) == len(DATA)
    assert bytes(part) == DATA
    assert bytes(part[100:700][50:60]) == DATA[150:160]
    assert bytes(part[2000:9000]) == DATA[2000:]
    assert bytes(part[700:100]) == b""
    with pytest.raises(ValueError, match="only runs of bytes are read"):
        part[::2]


def test_a_file_that_was_replaced_or_removed_is_read_as_it_was(path: Path) -> None:
    file = OpenFile(path)
    assert file.fate() is None
    other = path.with_name("other")
    other.write_bytes(DATA[::-1])
    other.replace(path)
    assert file.fate() == "was replaced"
    assert bytes(whole(file)) == DATA
    path.unlink()
    assert file.fate() == "is gone"
    assert bytes(whole(file)) == DATA


@pytest.mark.parametrize(
    ("data", "fate"),
    [
        (DATA[:100], "was cut short while it was open"),
        (DATA[::-1], "was written over while it was open"),
        (DATA + b"more", "was written over while it was open"),
    ],
    ids=["shorter", "other bytes", "longer"],
)
def test_a_file_that_was_changed_is_read_no_more(path: Path, data: bytes, fate: str) -> None:
    file = OpenFile(path)
    path.write_bytes(data)
    assert file.fate() == fate
    for part in (whole(file), whole(file)[:10]):
        with pytest.raises(IntegrityError) as error:
            bytes(part)
        assert str(error.value) == f"{path}: {fate}; a file in use is replaced by rename (mv)"


def test_what_lies_beyond_the_end_is_not_there(path: Path) -> None:
    with pytest.raises(IntegrityError, match="ends too early"):
        bytes(FilePart(OpenFile(path), 2000, 100))


@pytest.mark.parametrize(("name", "why"), [("none", "No such file"), (".", "Is a directory")])
def test_what_cannot_be_opened_is_named(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(InputError, match=f"cannot be read \\({why}"):
        OpenFile(tmp_path / name)


def test_a_file_is_open_for_as_long_as_a_part_of_it_is_held(path: Path) -> None:
    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    part = whole(OpenFile(path))[5:10]
    assert descriptors() == before + 1
    assert bytes(part) == DATA[5:10]
    part.release()
    assert descriptors() == before
    with pytest.raises(ValueError, match="after it was released"):
        bytes(part)
