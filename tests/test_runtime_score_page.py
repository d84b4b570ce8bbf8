import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s4g.runtime.score_flight import Flight, match_flight
from s4g.runtime.score_page import render_page, worst_fixes
from s4g.runtime.score_truth import read_truth
from s4g.tilepacks.reader import open_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))

ALONE = {"meta", "path", "rect", "line", "image", "br"}  # tags without an end


class Page(HTMLParser):
    """A page read back: its tables by the heading above them, its text, what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self._heading = ""
        self.feed(text)
        self.close()
        assert self._open == [], "tags left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ALONE or (tag == "path" and not self.get_starttag_text().endswith("/>")):  # type: ignore[union-attr]
            self._open.append(tag)
        if tag == "h2":
            self._heading = ""
        if tag == "tr":
            self.tables.setdefault(self._heading, []).append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closed out of turn"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2":
            self._heading += data
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[self._heading][-1].append(data)
        if "style" not in self._open and data.strip():
            self.words.append(data.strip())


@pytest.fixture
def flight(tmp_path: Path) -> Any:
    def flight(
        fixes: list[Any], limit_m: float | None = None, events: dict[int, str] | None = None
    ) -> Flight:
        truth = read_truth(toy.truth_csv(tmp_path, len(fixes), events))
        return match_flight(fixes, truth, limit_m)

    return flight


def page(flight: Flight, fixes: str = "fixes.jsonl") -> Page:
    return Page(render_page(flight, fixes, "truth.csv", None))


def test_the_page_tells_the_figures(flight: Any) -> None:
    fixes = toy.flown(None, 1, 2, 3, None, 61)
    fixes[3] = toy.fix(3, 3, state="DEGRADED", anchor_age_s=1.0)
    fixes[4] = toy.fix(4, None, reason="too_low")
    found = page(flight(fixes, 50.0, {1: "kidnap", 4: "blackout"}))
    assert found.tables["By state"] == [
        ["state", "fixes", "CEP50 m", "R95 m", "max m", "false", "> hpl", "NEES"],
        ["TRACK", "3", "2.0", "55.1", "61.0", "1", "1", "310.50"],
        ["DEGRADED", "1", "3.0", "3.0", "3.0", "0", "0", "2.25"],
    ]
    assert [row[0] for row in found.tables["By time since the last match"]] == [
        "age", "0 s", "0–1 s",
    ]  # fmt: skip
    assert found.tables["Frames without a position"] == [
        ["reason", "frames", "share"],
        ["ambiguous", "1", "16.7 %"],
        ["too low", "1", "16.7 %"],
        ["all", "2", "33.3 %"],
    ]
    assert found.tables["After events"] == [
        ["event", "at, s", "found after, s"], ["kidnap", "1.0", "0.0"], ["blackout", "4.0", "–"],
    ]  # fmt: skip
    for words in ("6 frames, 6.0 s, against", "66.7 %", "52.3 m", "alert limit 50 m"):
        assert words in found.words


def test_the_worst_fixes_are_listed_with_what_they_claimed(flight: Any) -> None:
    fixes = [toy.fix(i, 1.0 if i % 9 else 10.0 + i) for i in range(20)]
    fixes[18] = toy.fix(18, 28.0, sigma_m=None, hpl_m=None, anchor_age_s=None, score=0.8125)
    rows = page(flight(fixes)).tables["Worst fixes"]
    assert rows[0][:9] == [
        "frame", "t, s", "state", "error, m", "sigma, m", "error / sigma", "HPL, m", "age, s",
        "score",
    ]  # fmt: skip
    assert rows[1][:9] == ["18", "18.00", "TRACK", "28.0", "–", "–", "–", "–", "0.812"]
    assert rows[2][:9] == ["9", "9.00", "TRACK", "19.0", "2.0", "9.5", "7.4", "0.0", "–"]
    assert rows[3][0] == "0"


def test_of_a_bad_stretch_the_worst_fix_stands_for_all(flight: Any) -> None:
    offs_m = [90.0, 95.0, 99.0, 98.0, 97.0, 1.0, 1.0, 96.0, None, 50.0]
    assert worst_fixes(flight(toy.flown(*offs_m))) == [2, 7]


def test_no_more_than_ten_are_listed(flight: Any) -> None:
    assert len(worst_fixes(flight(toy.flown(*[float(i % 7) for i in range(200)])))) == 10


def test_photos_without_times_are_told_apart_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("file,lat,lon\n" + "".join(f"{i}.jpg,47,8\n" for i in range(12)))
    fixes = [toy.fix(i, 10.0 + i, t=None, file=f"{i}.jpg") for i in range(12)]
    found = match_flight(fixes, read_truth(path))
    assert worst_fixes(found) == [11, 6, 1]
    assert page(found).tables["Worst fixes"][1][:2] == ["11.jpg", "–"]


def test_a_flight_without_any_fix_has_a_page(flight: Any) -> None:
    found = page(flight(toy.flown(None, None, None), 50.0))
    assert "Worst fixes" not in found.tables and "By state" not in found.tables
    assert found.tables["Frames without a position"][-1] == ["all", "3", "100 %"]
    assert "No fix bears a protection level." in found.words


def test_notes_stand_at_the_top(tmp_path: Path, flight: Any) -> None:
    truth = read_truth(toy.truth_csv(tmp_path, 2))
    found = page(match_flight(toy.flown(1, 1, 1), truth))
    assert found.words.index("the truth covers 2 of 3 frames; the others are not scored") < 6


def test_names_cannot_break_out_of_the_page(flight: Any) -> None:
    evil = '<script>alert("1")</script>'
    fixes = [toy.fix(0, 1, file=evil, reason=evil), toy.fix(1, None, reason=evil)]
    text = render_page(flight(fixes, None, {0: evil, 1: evil}), evil, evil, None)
    assert "<script" not in text
    assert evil in Page(text).words


def test_the_page_loads_nothing_and_runs_nothing(
    toy_pack: Path, tmp_path: Path, flight: Any
) -> None:
    with open_pack(toy_pack) as pack:
        lat, lon = pack.bounds.center
        path = tmp_path / "truth.csv"
        path.write_text(f"t,lat,lon\n0,{lat},{lon}\n1,{lat},{lon}\n")
        found = match_flight([toy.fix(i, 0, lat=lat, lon=lon) for i in (0, 1)], read_truth(path))
        text = render_page(found, "fixes.jsonl", "truth.csv", pack)
        assert text == render_page(found, "fixes.jsonl", "truth.csv", pack)
        assert f"Imagery: {pack.attribution}." in text
    for name in ("http", "//", "url(", "@import", "<script", "<link", "<iframe", "javascript:"):
        assert name not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text), name
    pointers = [a for a in Page(text).attributes if a[1] in ("src", "href", "xlink:href", "srcset")]
    assert [(tag, name, value[:23]) for tag, name, value in pointers] == [
        ("image", "href", "data:image/jpeg;base64,")
    ]
    assert not [a for a in Page(text).attributes if a[1].startswith("on")]


def test_the_page_of_half_an_hour_at_10_hz_stays_below_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("t,lat,lon\n" + "".join(f"{i / 10},47,8\n" for i in range(18_000)))
    rng = np.random.default_rng(1)
    errors_m = np.hypot(*rng.standard_normal((2, 18_000))) * 5
    fixes = [toy.fix(i, None, t=i / 10) for i in range(18_000)]
    for i in rng.permutation(18_000)[:17_000].tolist():
        fixes[i] = toy.fix(i, 0, t=i / 10, lat=47 + errors_m[i] / 111_000, lon=8.0)
    text = render_page(match_flight(fixes, read_truth(path)), "f", "t", None)
    assert len(text) < 1_000_000
