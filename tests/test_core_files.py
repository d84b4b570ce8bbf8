"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from s4g.core.errors import InputError, S4GError
from s4g.core.files import (
    atomic_file,
    atomic_folder,
    cache_folder,
    check_output,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
)


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_digest_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "data").write_bytes(data)
    assert sha256_file(tmp_path / "data") == hashlib.sha256(data).hexdigest() == sha256_bytes(data)


def test_the_digest_of_nothing_is_the_known_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_file(tmp_path / "empty") == empty


def test_an_output_that_exists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    path.write_text("old")
    with pytest.raises(InputError) as caught:
        check_output(path, overwrite=False)
    assert str(caught.value) == f"{path}: already exists; pass --overwrite to replace it"
    check_output(path, overwrite=True)


def test_an_output_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "fixes.jsonl"
    with pytest.raises(InputError) as caught:
        check_output(path, overwrite=True)
    assert str(caught.value) == (
        f"{path}: the folder {path.parent} does not exist; create it first"
    )


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ortho.tif").touch()
    path = tmp_path / "ortho.tif" / "region.s4gpack"
    with pytest.raises(InputError) as caught:
        check_output(path, overwrite=True)
    assert str(caught.value) == (
        f"{path}: {path.parent} is a file, not a folder; choose another place"
    )


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "region.s4gpack"
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
        assert temporary.suffix == ".s4gpack"  # writers choose the format by the suffix
    assert path.read_bytes() == b"half"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_inside_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "out") as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path, overwrite=True) as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_failure_that_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(S4GError) as caught, atomic_file(path) as temporary:
        temporary.write_bytes(b"half")
        no_space()
    assert str(caught.value) == (
        f"{path}: cannot write (No space left on device); "
        "free some space or choose another place; nothing was left behind"
    )
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EROFS, "(Read-only file system); choose another place"),
        (errno.EACCES, "(Permission denied); change the permissions or choose another place"),
        (errno.EDQUOT, "(Disk quota exceeded); free some space or choose another place"),
        (errno.ENAMETOOLONG, "(File name too long); choose a shorter name"),
    ],
)
def test_the_remedy_is_that_of_the_cause(tmp_path: Path, number: int, told: str) -> None:
    path = tmp_path / "out"
    with pytest.raises(S4GError) as caught, atomic_file(path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"{path}: cannot write {told}; nothing was left behind"


def test_a_disk_that_fills_up_at_the_last_flush_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(S4GError, match="No space left on device"):
        write_bytes(path, b"new", overwrite=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_input_that_vanished_meanwhile_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "out"):
        (tmp_path / "frames" / "1.png").read_bytes()
    assert caught.value.filename == str(tmp_path / "frames" / "1.png")
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_wrote_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(S4GError, match="cannot write"), atomic_file(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    with atomic_folder(path) as temporary:
        (temporary / "frames").mkdir()
        (temporary / "frames" / "1.png").write_bytes(b"x")
        assert not path.exists()
    assert (path / "frames" / "1.png").read_bytes() == b"x"
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_folder_holds_nothing_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    path.mkdir()
    (path / "old").touch()
    with atomic_folder(path, overwrite=True) as temporary:
        (temporary / "new").touch()
        assert (path / "old").exists()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bad"), OSError(errno.ENOSPC, "full")])
def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "flight"
    path.mkdir()
    (path / "old").touch()
    with (
        pytest.raises((ValueError, S4GError)),
        atomic_folder(path, overwrite=True) as temporary,
    ):
        (temporary / "new").touch()
        raise error
    assert [p.name for p in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flight"
    path.mkdir()
    (path / "old").touch()
    rename = Path.replace

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if target == path and not self.name.endswith(".old"):
            no_space()
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new)
    with pytest.raises(S4GError, match="No space left"), atomic_folder(path, overwrite=True):
        pass
    assert [p.name for p in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_working_folder_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "deep")
    with pytest.raises(InputError) as caught, atomic_folder(tmp_path / "work", overwrite=True):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'work'}: replacing it would remove the folder you work in; "
        "choose another place"
    )
    assert (tmp_path / "work" / "deep").is_dir()


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    path.write_text("precious")
    with pytest.raises(InputError) as caught, atomic_folder(path, overwrite=True):
        pass
    assert str(caught.value) == f"{path}: is a file, expected a folder; choose another place"
    assert path.read_text() == "precious"


def test_json_is_indented_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", {"median_m": 3.5})
    text = (tmp_path / "report.json").read_text()
    assert text == '{\n  "median_m": 3.5\n}\n'
    assert json.loads(text) == {"median_m": 3.5}


def test_the_cache_lies_in_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/tmp/mine")
    assert cache_folder("tensorrt") == Path("/var/tmp/mine/s4g/tensorrt")


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_a_relative_cache_home_is_ignored_as_the_standard_says(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder("tensorrt") == Path.home() / ".cache" / "s4g" / "tensorrt"
