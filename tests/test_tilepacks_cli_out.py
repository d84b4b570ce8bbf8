"""Names of outputs: told what is wrong with them before any work, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a folder in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").mkdir()
    (tmp_path / "d.s4gpack").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "--out: the name is empty; give one, for example region.s4gpack"),
        (".", "--out .: is a folder; give a file in it, for example region.s4gpack"),
        ("..", "--out ..: is a folder; give a file in it, for example ../region.s4gpack"),
        ("keys", "--out keys: is a folder; give a file in it, for example keys/region.s4gpack"),
        ("new/", "--out new/: is a folder; give a file in it, for example new/region.s4gpack"),
        ("p.s4gpack/", "--out p.s4gpack/: names a folder; leave out the / at its end"),
        (
            "d.s4gpack",
            "--out d.s4gpack: is a folder; give a file in it, for example d.s4gpack/region.s4gpack",
        ),
        (".s4gpack", "--out .s4gpack: is an ending only; give a name, for example region.s4gpack"),
        ("p.S4GPACK", "--out p.S4GPACK: expected a name that ends in .s4gpack"),
        ("p.tif", "--out p.tif: expected a name that ends in .s4gpack"),
        ("no/p.s4gpack", "no/p.s4gpack: the folder no does not exist; create it first"),
    ],
)
def test_a_name_that_is_no_packs_is_refused(
    run: Run, here: Path, toy_pack: Path, name: str, told: str
) -> None:
    words = [toy_pack, "--bbox", "9.001,46.9517,9.003,46.9532", "--overwrite", "--out", name]
    assert run("extract", *words) == (2, "", f"error: {told}\n")
    assert sorted(path.name for path in here.iterdir()) == ["d.s4gpack", "keys"]


def test_the_folder_of_a_set_may_end_in_a_slash(run: Run, here: Path) -> None:
    (here / "a.s4gpacks").mkdir()
    code, _, err = run("--source", "landscape", "--shard", "1km", "--out", "a.s4gpacks/")
    assert (code, err) == (
        2,
        "error: a.s4gpacks: already exists; pass --overwrite to replace it\n",
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "keygen: the name of the keys is empty; give one, for example ops"),
        (".", "keygen .: is a folder; give a name in it, for example ops"),
        ("keys", "keygen keys: is a folder; give a name in it, for example keys/ops"),
        ("new/", "keygen new/: is a folder; give a name in it, for example new/ops"),
        ("no/ops", "no/ops.key: the folder no does not exist; create it first"),
        ("ops.key", "keygen ops.key: .key and .pub are added to the name; give ops"),
    ],
)
def test_a_name_that_is_no_keys_is_refused(run: Run, here: Path, name: str, told: str) -> None:
    assert run("keygen", name) == (2, "", f"error: {told}\n")
    assert sorted(path.name for path in here.iterdir()) == ["d.s4gpack", "keys"]


def test_keys_are_made_in_a_folder(run: Run, here: Path) -> None:
    assert run("keygen", "keys/ops.2026")[0] == 0
    assert sorted(path.name for path in (here / "keys").iterdir()) == [
        "ops.2026.key",
        "ops.2026.pub",
    ]
