from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from s4g.core.engine import load_engine
from s4g.core.errors import InputError, S4GError
from s4g.core.sources import open_ground
from s4g.tilepacks.build import PackContent, build_pack
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.writer import write_pack


@pytest.fixture(scope="module")
def content(toy_source: Path, toy_encoder: Path) -> PackContent:
    engine, ground = load_engine(toy_encoder, threads=1), open_ground(str(toy_source))
    plan = plan_pack(ground, engine.spec, None, (160.0,))
    built = build_pack(ground, engine, plan)
    ground.close()
    return built


def test_written_pack_opens_and_nothing_else_is_left(tmp_path: Path, content: PackContent) -> None:
    write_pack(tmp_path / "p.s4gpack", content)
    open_pack(tmp_path / "p.s4gpack").close()
    assert [path.name for path in tmp_path.iterdir()] == ["p.s4gpack"]


def test_existing_pack_is_kept_unless_told_otherwise(tmp_path: Path, content: PackContent) -> None:
    path = tmp_path / "p.s4gpack"
    path.write_bytes(b"precious")
    with pytest.raises(InputError) as error:
        write_pack(path, content)
    assert str(error.value) == f"{path}: already exists; pass --overwrite to replace it"
    assert path.read_bytes() == b"precious"
    write_pack(path, content, overwrite=True)
    open_pack(path).close()


def test_full_disk_leaves_the_old_pack_and_nothing_half_written(
    tmp_path: Path, content: PackContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "p.s4gpack"
    path.write_bytes(b"precious")
    real_open = Path.open

    def full_open(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if mode == "wb":
            return FullDisk(str(self), "w")
        return real_open(self, mode, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full_open)
    with pytest.raises(S4GError) as error:
        write_pack(path, content, overwrite=True)
    monkeypatch.undo()
    assert str(error.value).startswith(f"{path}: cannot write (No space left on device); ")
    assert path.read_bytes() == b"precious"
    assert [found.name for found in tmp_path.iterdir()] == ["p.s4gpack"]
