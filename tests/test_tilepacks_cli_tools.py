from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from s4g.tilepacks.cli import cli
from s4g.tilepacks.reader import open_pack

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pack(toy_pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(toy_pack, tmp_path / "p.s4gpack"))


def test_a_pack_is_signed_and_known_by_its_key(run: Run, pack: Path, tmp_path: Path) -> None:
    code, out, _ = run("keygen", tmp_path / "ops")
    key = out.splitlines()[1].split("key ")[1].split(",")[0]
    assert (code, len(key)) == (0, 16)
    code, out, err = run("sign", pack, "--key", tmp_path / "ops.key")
    assert (code, out, err) == (0, f"{pack}: signed by key {key}\n", "")
    code, out, _ = run("verify", pack, "--key", tmp_path / "ops.pub")
    assert code == 0 and out.endswith(f" tiles, signed by key {key}, which you trust\n")
    assert json.loads(run("verify", pack, "--json")[1])["signed_by"] == key
    assert f"signed      by key {key}\n" in run("info", pack)[1]


def test_a_pack_that_another_signed_does_not_verify(run: Run, pack: Path, tmp_path: Path) -> None:
    run("keygen", tmp_path / "ops")
    run("keygen", tmp_path / "other")
    code, out, err = run("verify", pack, "--key", tmp_path / "ops.pub")
    assert (code, out) == (2, "")
    assert err == (
        f"error: {pack}: is not signed; sign it with s4g-pack sign, or do without "
        "--require-signature\n"
    )
    run("sign", pack, "--key", tmp_path / "other.key")
    code, _, err = run("verify", pack, "--key", tmp_path / "ops.pub")
    assert code == 2 and "signed by key" in err and len(err.splitlines()) == 1


def test_a_whole_pack_is_told_to_be_whole(run: Run, pack: Path) -> None:
    with open_pack(pack) as opened:
        tiles = sum(level.count for level in opened.levels)
    assert run("verify", pack) == (0, f"{pack}: whole, {tiles} tiles, not signed\n", "")
    assert json.loads(run("verify", pack, "--json")[1]) == {
        "file": str(pack),
        "tiles": tiles,
        "signed_by": None,
    }


def test_a_damaged_pack_does_not_verify_and_is_not_signed(
    run: Run, pack: Path, tmp_path: Path
) -> None:
    data = bytearray(pack.read_bytes())
    with open_pack(pack) as opened:
        data[data.index(bytes(opened.container.section("level1.codes")))] ^= 1
    pack.write_bytes(data)
    run("keygen", tmp_path / "ops")
    for arguments in (("verify", pack), ("sign", pack, "--key", tmp_path / "ops.key")):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {pack}: ") and "level1.codes" in err
        assert len(err.splitlines()) == 1
    assert pack.read_bytes() == data


def test_keys_are_not_overwritten(run: Run, tmp_path: Path) -> None:
    run("keygen", tmp_path / "ops")
    secret = (tmp_path / "ops.key").read_bytes()
    code, _, err = run("keygen", tmp_path / "ops")
    assert code == 2 and err.endswith("already exists; pass --overwrite to replace it\n")
    assert (tmp_path / "ops.key").read_bytes() == secret
    assert run("keygen", tmp_path / "ops", "--overwrite")[0] == 0
    assert (tmp_path / "ops.key").read_bytes() != secret


@pytest.mark.parametrize("command", ["keygen", "sign", "verify"])
def test_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert f"s4g-pack {command} " in result.output
    assert "Example" in result.output
