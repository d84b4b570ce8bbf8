from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError, S4GError
from s4g.tilepacks.work import WorkFolder, work_folder, work_path

PLAN = {"imagery": ["a.tif"], "levels": [80.0], "nested": {"tuple": (1, 2)}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "p.s4gpack"


def test_an_entry_is_read_as_it_was_written(out: Path) -> None:
    with work_folder(out, PLAN) as work:
        work.write("a", {"tiles": 3}, {"x": b"abc", "empty": b""})
    with work_folder(out, PLAN) as work:
        assert work.has("a") and not work.has("b")
        found = work.read("a")
        assert found is not None
        assert found.manifest == {"tiles": 3}
        assert {name: bytes(found.section(name)) for name in found.names} == {
            "x": b"abc",
            "empty": b"",
        }
        assert work.read("b") is None


def test_the_folder_lies_hidden_beside_the_pack(out: Path) -> None:
    with work_folder(out, PLAN) as work:
        assert work.path == work_path(out) == out.parent / ".p.s4gpack.work"


@given(st.data())
def test_a_damaged_entry_is_as_good_as_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    work = WorkFolder(tmp_path_factory.mktemp("work"))
    work.write("a", {"tiles": 3}, {"x": b"abc" * 20})
    file = work.path / "a"
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    rest = b"" if cut else bytes([whole[place] ^ 255]) + whole[place + 1 :]
    file.write_bytes(whole[:place] + rest)
    assert work.read("a") is None


def test_a_finished_build_leaves_nothing(out: Path) -> None:
    with work_folder(out, PLAN) as work:
        work.write("a", {}, {"x": b"abc"})
        work.remove()
    assert list(out.parent.iterdir()) == []


def test_a_failure_before_anything_is_done_leaves_nothing(out: Path) -> None:
    with pytest.raises(RuntimeError), work_folder(out, PLAN):
        raise RuntimeError
    assert list(out.parent.iterdir()) == []


def test_a_failure_keeps_what_is_done(out: Path) -> None:
    with pytest.raises(RuntimeError), work_folder(out, PLAN) as work:
        work.write("a", {}, {"x": b"abc"})
        raise RuntimeError
    with work_folder(out, PLAN) as work:
        assert work.read("a") is not None


def _begin(out: Path) -> None:
    with work_folder(out, PLAN) as work:
        work.write("a", {}, {"x": b"abc"})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"levels": [40.0]}, "levels"),
        ({"levels": [40.0], "imagery": []}, "imagery, levels"),
        ({"added": 1}, "added"),
    ],
)
def test_another_plan_is_refused_by_name(out: Path, changes: dict[str, object], named: str) -> None:
    _begin(out)
    with pytest.raises(InputError) as error, work_folder(out, {**PLAN, **changes}):
        pass
    assert str(error.value) == (
        f"{out}: was begun with another {named}; repeat the former command to go on, or pass "
        "--restart to throw away what is done"
    )
    with work_folder(out, PLAN) as work:
        assert work.has("a")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\udcff"])
def test_a_damaged_plan_is_another_plan(out: Path, text: str) -> None:
    _begin(out)
    (work_path(out) / "build.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with (
        pytest.raises(InputError, match=": was begun with another ") as error,
        work_folder(out, PLAN),
    ):
        pass
    assert str(error.value).endswith("or pass --restart to throw away what is done")
    with work_folder(out, PLAN, restart=True) as work:
        assert not work.has("a")


def test_to_start_again_throws_away_files_and_folders(out: Path) -> None:
    with work_folder(out, PLAN) as work:
        (work.path / "level0").mkdir()
        work.write("level0/000000", {}, {"x": b"abc"})
        work.write("done0", {}, {"x": b"abc"})
    with work_folder(out, {"other": 1}, restart=True) as work:
        assert sorted(path.name for path in work.path.iterdir()) == ["build.json", "lock"]


def test_two_builds_into_one_pack_are_refused(out: Path) -> None:
    message = f"{out}: another s4g-pack is building it; wait for it, or choose another --out"
    with work_folder(out, PLAN) as work:
        work.write("a", {}, {"x": b"abc"})
        for restart in (False, True):
            with pytest.raises(InputError) as error, work_folder(out, PLAN, restart):
                pass
            assert str(error.value) == message
        assert work.has("a")
        code = (
            "import sys; from pathlib import Path; from s4g.tilepacks.work import work_folder\n"
            "with work_folder(Path(sys.argv[1]), {}): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False
        )
        assert other.stderr.splitlines()[-1].endswith(message)


def test_a_full_disk_is_one_line_and_keeps_what_is_done(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with work_folder(out, PLAN) as work:
        work.write("a", {}, {"x": b"abc"})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(S4GError) as error:
                work.write("b", {}, {"x": b"abc"})
        assert str(error.value) == (
            f"{work.path}: cannot write (No space left on device); free some space and run the "
            "same command to go on: what is done is kept there"
        )
        assert sorted(path.name for path in work.path.iterdir()) == ["a", "build.json", "lock"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "no" / "p.s4gpack"
    with pytest.raises(S4GError) as error, work_folder(out, PLAN):
        pass
    assert str(error.value) == (
        f"{out}: cannot write (No such file or directory); choose another place; nothing was left "
        "behind"
    )


@pytest.mark.parametrize("full_at", ["build.json", "a", "level0"])
def test_a_disk_that_is_full_from_the_start_leaves_no_folder_and_names_the_pack(
    out: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    replace, mkdir = Path.replace, Path.mkdir

    def full(path: Path) -> None:
        if path.name == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "replace", lambda path, to: (full(to), replace(path, to))[1])
    monkeypatch.setattr(Path, "mkdir", lambda path, **kinds: (full(path), mkdir(path, **kinds))[1])
    with pytest.raises(S4GError) as error, work_folder(out, PLAN) as work:
        work.sub("level0")
        work.write("a", {}, {"x": b"abc"})
    assert str(error.value) == (
        f"{out}: cannot write (No space left on device); free some space or choose another place; "
        "nothing was left behind"
    )
    assert list(out.parent.iterdir()) == []


def test_what_was_read_and_failed_is_not_blamed_on_the_pack(out: Path) -> None:
    with pytest.raises(FileNotFoundError), work_folder(out, PLAN):
        (out.parent / "ortho.tif").read_bytes()
    assert list(out.parent.iterdir()) == []
