"""`s4g-run score` as a user starts it."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from s4g.core.console import run_command
from s4g.core.geo import LocalFrame
from s4g.runtime.cli import cli
from s4g.runtime.fix import Candidate, Fix, Reason, State
from s4g.tilepacks.reader import open_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Tool:
    """Runs the command on a flight of a frame a second."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys, self.folder = capsys, folder
        self.fixes, self.truth = folder / "fixes.jsonl", folder / "truth.csv"
        self.fly(1, 2, None, 30)

    def fly(self, *offs_m: float | None, home: LocalFrame = toy.HOME) -> None:
        lines = []
        for number, off_m in enumerate(offs_m):
            fix = Fix(number, float(number), State.NO_FIX, reason=Reason.DARK, latency_ms=3.0)
            if off_m is not None:
                lat, lon = toy.place(off_m, home)
                fix = Fix(
                    number, float(number), State.TRACK, lat=lat, lon=lon, sigma_m=2.0, hpl_m=7.44,
                    anchor_age_s=0.0, latency_ms=9.0, top=(Candidate(lat, lon, 40.0, 0.8),),
                )  # fmt: skip
            lines.append(fix.to_json() + "\n")
        self.fixes.write_text("".join(lines))
        toy.truth_csv(self.folder, len(offs_m), home=home)

    def score(self, *words: object) -> Result:
        with pytest.raises(SystemExit) as stop:
            run_command(cli, ["score", str(self.fixes), str(self.truth), *map(str, words)])
        captured = self.capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tool:
    return Tool(capsys, tmp_path)


def assert_refused(result: Result, line: str) -> None:
    assert (result.code, result.out, result.err) == (2, "", f"error: {line}\n")


def test_the_table_is_printed(tool: Tool) -> None:
    result = tool.score()
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("fixes           3 of 4 frames (75.0 %)\nwithout         1 dark\n")
    assert "false fixes     0 (0 %), farther off than a tile\n" in result.out


def test_the_alert_limit_is_the_users(tool: Tool) -> None:
    value = json.loads(tool.score("--alert-limit", 29, "--json").out)
    assert (value["alert_limit_m"], value["false_fixes"], value["hazardous"]) == (29.0, 1, 1)


def test_json_is_one_line_that_a_program_reads(tool: Tool) -> None:
    result = tool.score("--json")
    assert result.out.count("\n") == 1
    value = json.loads(result.out)
    assert (value["frames"], value["fixes"], value["hazardous"]) == (4, 3, None)


def test_a_flight_without_any_fix_has_a_table_too(tool: Tool) -> None:
    tool.fly(None, None)
    result = tool.score("--alert-limit", "10")
    assert result.code == 0
    assert "first fix       none that is right\n" in result.out


def test_a_log_that_a_power_cut_ended_is_scored_with_a_note(tool: Tool) -> None:
    tool.fixes.write_bytes(tool.fixes.read_bytes()[:-40])
    result = tool.score()
    assert result.code == 0
    assert result.err == f"note: {tool.fixes}: line 4 is cut short and left out\n"
    assert result.out.startswith("fixes           2 of 3 frames (66.7 %)\n")


def test_a_damaged_line_is_named(tool: Tool) -> None:
    lines = tool.fixes.read_text().splitlines()
    lines[1] = lines[1][:50]
    tool.fixes.write_text("\n".join(lines) + "\n")
    assert_refused(
        tool.score(), f"{tool.fixes}: line 2: not a fix of s4g-run; expected a line of fixes.jsonl"
    )


@pytest.mark.parametrize("limit", ["0", "-3", "nan", "inf"])
def test_an_alert_limit_that_is_no_length_is_refused(tool: Tool, limit: str) -> None:
    assert_refused(
        tool.score("--alert-limit", limit),
        f"--alert-limit {limit}: expected metres above 0, such as 50",
    )


def test_a_missing_file_is_refused(tool: Tool) -> None:
    tool.fixes.unlink()
    assert_refused(tool.score(), f"{tool.fixes}: cannot be read (No such file or directory)")


def test_the_page_is_written_beside_what_is_printed(tool: Tool) -> None:
    page = tool.folder / "page.html"
    result = tool.score("--html", page, "--json")
    assert (result.code, result.err) == (0, f"page: {page}\n")
    assert json.loads(result.out)["frames"] == 4
    text = page.read_text()
    assert text.startswith("<!doctype html>") and "<h1>Score of fixes.jsonl</h1>" in text


def test_a_page_is_replaced_only_when_told_so(tool: Tool) -> None:
    page = tool.folder / "page.html"
    page.write_text("mine")
    assert_refused(
        tool.score("--html", page), f"{page}: already exists; pass --overwrite to replace it"
    )
    assert page.read_text() == "mine"
    assert tool.score("--html", page, "--overwrite").code == 0
    assert page.read_text() != "mine"


@pytest.fixture
def home(toy_pack: Path) -> LocalFrame:
    """The middle of the toy pack."""
    with open_pack(toy_pack) as pack:
        return pack.frame


def test_the_map_shows_the_packs_imagery(tool: Tool, toy_pack: Path, home: LocalFrame) -> None:
    tool.fly(1, 2, None, 30, home=home)
    page = tool.folder / "page.html"
    assert tool.score("--html", page, "--pack", toy_pack).code == 0
    assert "<image" in page.read_text()


def test_a_flight_without_any_fix_has_a_page_too(
    tool: Tool, toy_pack: Path, home: LocalFrame
) -> None:
    tool.fly(None, None, home=home)
    page = tool.folder / "page.html"
    assert tool.score("--html", page, "--pack", toy_pack).code == 0
    assert "No fix bears a protection level." in page.read_text()


def test_a_pack_without_a_page_is_refused(tool: Tool, toy_pack: Path) -> None:
    assert_refused(
        tool.score("--pack", toy_pack),
        f"--pack {toy_pack}: only the page shows it; add --html PAGE",
    )


def test_a_pack_of_another_place_is_refused_and_leaves_no_page(tool: Tool, toy_pack: Path) -> None:
    page = tool.folder / "page.html"
    assert_refused(
        tool.score("--html", page, "--pack", toy_pack),
        f"{toy_pack}: holds no ground of this flight; give the pack that it was flown with",
    )
    assert not page.exists()


def test_a_pack_that_is_none_is_refused_and_leaves_no_page(tool: Tool) -> None:
    page = tool.folder / "page.html"
    result = tool.score("--html", page, "--pack", tool.truth)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"error: {tool.truth}: ")
    assert not page.exists()
