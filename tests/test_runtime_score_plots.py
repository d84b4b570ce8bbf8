import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from s4g.runtime.score_flight import Flight, match_flight
from s4g.runtime.score_plots import dots, error_plot, stanford_plot
from s4g.runtime.score_truth import read_truth

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))


@pytest.fixture
def flight(tmp_path: Path) -> Any:
    def flight(
        fixes: list[Any], limit_m: float | None = None, events: dict[int, str] | None = None
    ) -> Flight:
        truth = read_truth(toy.truth_csv(tmp_path, len(fixes), events))
        return match_flight(fixes, truth, limit_m)

    return flight


class Picture:
    """An SVG read back: its parts by class, and the scale of its axes from their labels."""

    def __init__(self, svg: str) -> None:
        self.root = ElementTree.fromstring(svg)

    def of(self, kind: str) -> list[ElementTree.Element]:
        return [part for part in self.root.iter() if part.get("class") == kind]

    def marks(self, state: str) -> list[tuple[float, float]]:
        """Places of a state's marks in the units of the axes."""
        (part,) = self.of(f"dot {state}")
        return [self.value(x, y) for x, y in places(part)]

    def lines(self, kind: str) -> list[list[tuple[float, float]]]:
        """Corners of each piece of a line in the units of the axes."""
        (part,) = self.of(f"line {kind}")
        pieces = re.findall(r"M[^M]*", part.get("d") or "")
        return [[self.value(x, y) for x, y in pairs(piece)] for piece in pieces]

    def value(self, x_px: float, y_px: float) -> tuple[float, float]:
        return self._axis("x", x_px), self._axis("y", y_px)

    def texts(self) -> list[str]:
        return [part.text or "" for part in self.root.iter("text")]

    def _axis(self, side: str, px: float) -> float:
        """Undo an axis by its labels: linear where the steps are alike, else logarithmic."""
        labels = []
        for part in self.root.iter("text"):
            across = part.get("text-anchor") == "end" and float(part.get("x") or 99) < 58
            if (
                part.get("x")
                and re.fullmatch(r"[\d.]+k?", part.text or "")
                and (across == (side == "y"))
            ):
                value = float((part.text or "").replace("k", "e3"))
                at = float(part.get(side) or 0) - (4 if side == "y" else 0)
                labels.append((at, value))
        at, values = np.array(sorted(labels)).T
        steps = np.diff(values)
        if np.allclose(steps, steps[0]):
            return float(np.interp(px, at, values))
        return float(10 ** np.interp(px, at, np.log10(values)))


def pairs(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path)]


def places(part: ElementTree.Element) -> Iterator[tuple[float, float]]:
    assert part.get("stroke-width")
    yield from pairs(part.get("d") or "")


def test_each_error_lies_at_its_time(flight: Any) -> None:
    fixes = toy.flown(1, 10, None, 40, 5)
    fixes[3] = toy.fix(3, 40, state="DEGRADED")
    picture = Picture(error_plot(flight(fixes)))
    assert picture.marks("TRACK") == [
        pytest.approx(pair, rel=0.02, abs=0.02) for pair in [(0, 1), (1, 10), (4, 5)]
    ]
    assert picture.marks("DEGRADED") == [pytest.approx((3, 40), rel=0.02)]
    assert {"time, s", "error, m"} <= set(picture.texts())


def test_lines_are_the_bound_and_the_radius_and_stop_where_there_is_no_fix(flight: Any) -> None:
    fixes = toy.flown(1, 1, None, 1, 1)
    fixes[4] = toy.fix(4, 1, sigma_m=20.0, hpl_m=74.4)
    picture = Picture(error_plot(flight(fixes)))
    first, second = picture.lines("hpl")
    assert first == [pytest.approx(pair, rel=0.02, abs=0.02) for pair in [(0, 7.44), (1, 7.44)]]
    assert second == [pytest.approx(pair, rel=0.02) for pair in [(3, 7.44), (4, 74.4)]]
    assert picture.lines("r95")[1][1] == pytest.approx((4, 2.448 * 20), rel=0.02)


def test_frames_without_a_position_are_a_grey_ground(flight: Any) -> None:
    picture = Picture(error_plot(flight(toy.flown(None, 1, None, None, 1, None))))
    (ground,) = picture.of("none")
    boxes = re.findall(r"M([\d.]+) \d+h([\d.]+)V", ground.get("d") or "")
    spans = [(float(left), float(left) + float(width)) for left, width in boxes]
    times = [(picture.value(a, 100)[0], picture.value(b, 100)[0]) for a, b in spans]
    assert times == [pytest.approx(pair, abs=0.02) for pair in [(0, 1), (2, 4), (5, 6)]]


def test_many_fixes_on_a_pixel_show_their_largest_bound(flight: Any) -> None:
    fixes = [toy.fix(i, 1, hpl_m=500.0 if i == 4321 else 8.0) for i in range(6000)]
    picture = Picture(error_plot(flight(fixes)))
    (line,) = picture.lines("hpl")
    assert len(line) < 600
    assert max(bound for _, bound in line) == pytest.approx(500, rel=0.02)


def test_events_and_the_alert_limit_are_drawn_and_named(flight: Any) -> None:
    found = flight(toy.flown(*[1] * 60), 30.0, {20: "kidnap", 21: "again", 50: "a <b> & c"})
    picture = Picture(error_plot(found))
    assert [part.find("title").text for part in picture.of("event")] == [  # type: ignore[union-attr]
        "kidnap", "again", "a <b> & c",
    ]  # fmt: skip
    # The second has no room beside the first.
    assert [text for text in picture.texts() if text in ("kidnap", "again", "a <b> & c")] == [
        "kidnap", "a <b> & c",
    ]  # fmt: skip
    (limit,) = picture.of("line limit")
    level = re.search(r"M58 ([\d.]+)H", limit.get("d") or "")
    assert level is not None
    assert picture.value(100, float(level[1]))[1] == pytest.approx(30, rel=0.02)


def test_photos_without_times_go_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("file,lat,lon\n" + "".join(f"{i}.jpg,47,8\n" for i in range(4)))
    fixes = [toy.fix(i, 2.0, t=None, file=f"{i}.jpg") for i in range(4)]
    picture = Picture(error_plot(match_flight(fixes, read_truth(path))))
    assert "frame" in picture.texts() and "time, s" not in picture.texts()
    assert [round(x) for x, _ in picture.marks("TRACK")] == [0, 1, 2, 3]


def test_frames_whose_time_goes_back_are_left_out(tmp_path: Path) -> None:
    fixes = [toy.fix(i, 2.0, t=t) for i, t in enumerate((0.0, 1.0, 2.0, 0.5, 3.0))]
    found = match_flight(fixes, read_truth(toy.truth_csv(tmp_path, 4)))
    marks = Picture(error_plot(found)).marks("TRACK")
    assert [x for x, _ in marks] == pytest.approx([0, 1, 2, 3], abs=0.02)


def test_an_error_below_the_axis_lies_on_its_edge(flight: Any) -> None:
    picture = Picture(error_plot(flight(toy.flown(0, 1e-3))))
    assert [error for _, error in picture.marks("TRACK")] == pytest.approx([0.1, 0.1], rel=0.02)


@pytest.mark.parametrize("offs_m", [(None,), (None, None, None), (3,), (0,), (2e7,)])
def test_a_flight_of_next_to_nothing_is_drawn(flight: Any, offs_m: tuple[float | None]) -> None:
    found = flight(toy.flown(*offs_m), 50.0)
    Picture(error_plot(found)), Picture(stanford_plot(found))


def test_stanfords_plot_sets_error_against_bound(flight: Any) -> None:
    fixes = [toy.fix(0, 1, hpl_m=10.0), toy.fix(1, 60, hpl_m=20.0), toy.fix(2, 9, hpl_m=None)]
    fixes += [toy.fix(3, 3, hpl_m=50.0, state="DEGRADED"), toy.fix(4, None)]
    picture = Picture(stanford_plot(flight(fixes, 30.0)))
    assert picture.marks("TRACK") == [pytest.approx(pair, rel=0.02) for pair in [(1, 10), (60, 20)]]
    assert picture.marks("DEGRADED") == [pytest.approx((3, 50), rel=0.02)]
    (diagonal,) = picture.lines("diagonal")
    assert diagonal == [pytest.approx(pair, rel=0.02) for pair in [(0.1, 0.1), (100, 100)]]
    (corner,) = picture.of("hazard")
    left, top = float(corner.get("x") or 0), float(corner.get("y") or 0)
    assert picture.value(left, top) == pytest.approx((30, 30), rel=0.02)
    width, height = float(corner.get("width") or 0), float(corner.get("height") or 0)
    assert picture.value(left + width, top + height) == pytest.approx((100, 0.1), rel=0.02)


def test_without_an_alert_limit_no_corner_is_dangerous(flight: Any) -> None:
    picture = Picture(stanford_plot(flight(toy.flown(1, 2))))
    assert picture.of("hazard") == picture.of("line limit") == []


def test_marks_that_share_a_place_are_drawn_once() -> None:
    svg = dots("dot TRACK", np.array([[1.0, 2.0], [1.1, 2.1], [5.0, 2.0]]), 3.0)
    assert svg == '<path class="dot TRACK" stroke-width="3" d="M1 2h0M5 2h0"/>'
    assert dots("dot", np.zeros((0, 2)), 3.0) == ""
