from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from s4g.core.console import run_command
from s4g.tilepacks.cli import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            run_command(cli, [str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        code = end.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call


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


def test_a_picture_is_drawn_and_not_overwritten(run: Run, pack: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    assert run("preview", pack, "--out", picture) == (0, f"{picture}\n", "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = run("preview", pack, "--out", picture)
    assert code == 2
    assert err == f"error: {picture}: already exists; pass --overwrite to replace it\n"
    assert run("preview", pack, "--out", picture, "--level", 64, "--overwrite")[0] == 0


def test_ambiguity_tells_the_hardest_places(run: Run, pack: Path, tmp_path: Path) -> None:
    code, out, _ = run("ambiguity", pack, "--json", "--out", tmp_path / "a.png")
    told = json.loads(out)
    assert code == 0 and (tmp_path / "a.png").is_file()
    assert told["cosine"]["p5"] <= told["cosine"]["p50"] <= told["cosine"]["max"]
    assert len(told["hardest"]) == 5
    assert told["hardest"][0]["cosine"] == told["cosine"]["max"]
    assert all(place["rival_away_m"] >= told["level_m"] for place in told["hardest"])
    code, out, _ = run("ambiguity", pack, "--tiles", 5)
    assert code == 0
    assert out.startswith("level 48 m, 5 tiles: the most similar place elsewhere has a cosine of ")


def test_a_level_that_a_pack_lacks_is_refused(run: Run, pack: Path, tmp_path: Path) -> None:
    code, _, err = run("preview", pack, "--out", tmp_path / "a.png", "--level", 7)
    assert (code, err) == (2, f"error: --level 7: {pack} has 48, 64\n")


@pytest.mark.parametrize("command", ["keygen", "sign", "verify", "preview", "ambiguity"])
def test_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert f"s4g-pack {command} " in result.output
    assert "Example" in result.output
