"""The report names every protocol, shows the worst queries and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="scoring needs torch (the train extra)")
pytest.importorskip("jinja2", reason="the page needs jinja2 (the train extra)")

from s4g.core.errors import InputError
from s4g.core.spec import EncoderSpec
from s4g.train.dataset import DataConfig, Image, Positions, RetrievalTask
from s4g.train.page import render_page
from s4g.train.relations import Relations
from s4g.train.report import (
    Miss,
    Neighbour,
    Scored,
    as_table,
    document,
    worst_queries,
    write_report,
)
from s4g.train.retrieval import score

PLACES, DISTRACTORS, DIM = 6, 3, 16
GALLERY = PLACES + DISTRACTORS
VIEWS = 2  # a place
OFFICIAL = "official: all 9 tiles, distractors included"
REDUCED = "reduced, as in the literature: 6 tiles, distractors dropped"
SPEC = EncoderSpec(
    "ab" * 32, "toy", 64, (0.5,) * 3, (0.25,) * 3, DIM, (4, DIM), 0.3, 3.0, True, 0.1
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plain:
    """Pictures of one colour each; names that HTML must escape."""

    prefix: str
    count: int

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.prefix}/<{index}>&.jpg"

    def read(self, index: int, height_px: int, width_px: int) -> Image:
        return np.full((height_px, width_px, 3), 20 * index, np.uint8)


def embeddings() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return queries and gallery: both views of places 0 and 1 miss, the others hit."""
    gallery = np.eye(GALLERY, DIM, dtype=np.float32)
    queries = gallery[np.arange(PLACES * VIEWS) // VIEWS].copy()
    # Of place 0: tiles 3, 4, 5 and 6 are nearer than tile 0. Of place 1: tile 2 is.
    queries[0] = 0.2 * gallery[0] + gallery[3] + 0.9 * gallery[4] + 0.8 * gallery[5]
    queries[0] += 0.7 * gallery[6]
    queries[1] = 0.5 * gallery[0] + gallery[3]
    queries[2] = queries[3] = 0.5 * gallery[1] + gallery[2]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return queries, gallery


def toy_task(protocol: str = OFFICIAL, **values: Any) -> RetrievalTask:
    count = PLACES * VIEWS
    line = np.arange(GALLERY) * 100.0
    standing = (np.arange(count) // VIEWS) * 100.0
    task = RetrievalTask(
        name="drone→satellite",
        protocol=protocol,
        queries=Plain("query_drone", count),
        gallery=Plain("gallery", GALLERY),
        positives=Relations.from_edges(np.arange(count), np.arange(count) // VIEWS, count),
        one_percent_k=1,
        metrics=("recall", "ap", "hit_rate", "sdm"),
        semi_positives=Relations.from_edges([0], [4], count, 0.0),
        query_positions=Positions(np.stack([standing, 0 * standing], 1), "metres"),
        gallery_positions=Positions(np.stack([line, 0 * line], 1), "metres"),
    )
    return dataclasses.replace(task, **values)


def scored_tasks() -> list[Scored]:
    queries, gallery = embeddings()
    tasks = [toy_task(), toy_task(REDUCED, gallery_rows=np.arange(PLACES, dtype=np.int32))]
    return [
        Scored(task, score(task, queries, gallery, dim=dim), 1.5, 0.25)
        for task in tasks
        for dim in (None, 4)
    ]


def toy_document(scored: list[Scored]) -> dict[str, Any]:
    data = DataConfig("sues200", height_m=200)
    return document("runs/a/enc.safetensors", "checkpoint", SPEC, data, Path("D"), "cpu", scored)


def size_px(view: str) -> tuple[int, int]:
    return (64, 128) if view == "query" else (64, 64)


class Page(HTMLParser):
    """Collects what a test asks about; complains of tags that are not closed."""

    VOID = frozenset({"meta", "img", "br", "line", "polyline", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.lines = 0
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag == "img":
            self.images.append(values["src"] or "")
        self.lines += tag == "polyline"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.lines += tag == "polyline"

    def handle_endtag(self, tag: str) -> None:
        if tag == "polyline":
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page() -> Page:
    scored = scored_tasks()
    return Page(render_page(toy_document(scored), scored, size_px))


# ---- the worst queries ---------------------------------------------------------------------------


def test_the_worst_query_of_each_place_comes_first_with_its_results() -> None:
    scored = scored_tasks()[0]
    first, second = worst_queries(scored)
    length = float(np.linalg.norm([0.2, 1, 0.9, 0.8, 0.7]))
    assert (first.row, first.query, first.rank) == (0, "query_drone/<0>&.jpg", 5)
    assert (first.positive_row, first.positive) == (0, "gallery/<0>&.jpg")
    assert [found.row for found in first.top] == [3, 4, 5, 6, 0]
    assert [found.verdict for found in first.top] == [
        "wrong",
        "semi-positive",
        "wrong",
        "wrong",
        "right",
    ]
    assert first.top[0] == Neighbour(
        3, "gallery/<3>&.jpg", "wrong", pytest.approx(1 / length), 300.0
    )
    assert (second.row, second.rank) == (2, 2)


def test_queries_answered_right_are_no_worst_queries() -> None:
    task = toy_task()
    _, gallery = embeddings()
    perfect = gallery[np.arange(PLACES * VIEWS) // VIEWS]
    scored = Scored(task, score(task, perfect, gallery), 0.0, 0.0)
    assert worst_queries(scored) == []
    text = Page(render_page(toy_document([scored]), [scored], size_px)).text
    assert "Every query found a right image first." in text


def test_a_gallery_smaller_than_the_list_has_a_shorter_list() -> None:
    task = toy_task(gallery_rows=np.arange(3, dtype=np.int32), query_rows=np.array([2], np.int32))
    scored = Scored(task, score(task, *embeddings()), 0.0, 0.0)
    (miss,) = worst_queries(scored)
    assert [found.row for found in miss.top] == [2, 1, 0]


def test_without_positions_there_are_no_metres() -> None:
    task = toy_task(query_positions=None)
    scored = Scored(task, score(task, *embeddings()), 0.0, 0.0)
    assert isinstance(worst_queries(scored)[0], Miss)
    assert {found.distance_m for found in worst_queries(scored)[0].top} == {None}
    text = Page(render_page(toy_document([scored]), [scored], size_px)).text
    assert "semi-positive" in text and re.search(r"\d m\b", text) is None


# ---- the document --------------------------------------------------------------------------------


def test_the_document_survives_json_and_says_what_was_measured() -> None:
    content = json.loads(json.dumps(toy_document(scored_tasks()), allow_nan=False))
    assert content["report_version"] == 1
    assert content["encoder"]["model_id"] == "ab" * 32
    assert content["data"] == {"kind": "sues200", "folder": "D", "height_m": 200}
    rows = content["tasks"]
    assert [(r["protocol"], r["dim"], r["gallery"]) for r in rows] == [
        (OFFICIAL, DIM, 9),
        (OFFICIAL, 4, 9),
        (REDUCED, DIM, 6),
        (REDUCED, 4, 6),
    ]
    assert (rows[0]["queries"], rows[0]["places"]) == (12, 6)
    assert rows[0]["metrics"]["recall_at_1"] == pytest.approx(8 / 12)
    low, high = rows[0]["intervals"]["recall_at_1"]
    assert low < 8 / 12 < high
    assert len(rows[0]["curve"]) == 50
    assert rows[0]["worst"][0]["top"][1]["verdict"] == "semi-positive"
    assert rows[1]["worst"] == [], "a prefix repeats no queries"


def test_every_line_of_the_table_names_its_protocol_and_gallery() -> None:
    heading, *lines = as_table(toy_document(scored_tasks())).splitlines()
    assert heading.split()[:4] == ["task", "dim", "queries", "gallery"]
    assert heading.endswith("protocol")
    assert [line.split()[3] for line in lines] == ["9", "9", "6", "6"]
    assert [line.endswith((OFFICIAL, REDUCED)) for line in lines] == [True] * 4
    assert " 66.67 " in lines[0]


def test_a_figure_that_a_task_lacks_is_a_dash() -> None:
    scored = scored_tasks()[:1]
    task = toy_task(metrics=("recall",))
    scored.append(Scored(task, score(task, *embeddings()), 0.0, 0.0))
    heading, with_ap, without = as_table(toy_document(scored)).splitlines()
    column = heading.index("AP")
    assert with_ap[column - 4 : column + 2].strip() == "73.75"  # (8 + 3/4 + 1/10) / 12
    assert without[column - 4 : column + 2].strip() == "–"


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_names_every_protocol(page: Page) -> None:
    assert page.open == []
    assert page.text.count(OFFICIAL) == page.text.count(REDUCED) == 2 + 2 + 1  # rows, line, section
    assert "Evaluation on sues200" in page.text and "height_m 200" in page.text


def test_every_picture_of_the_page_decodes_at_the_shape_of_its_side(page: Page) -> None:
    shapes = []
    for source in page.images:
        kind, data = source.split(",", 1)
        assert kind == "data:image/jpeg;base64"
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        shapes.append(image.shape[:2])
    # Two misses of each protocol: the query, what it should find, five results.
    assert shapes == ([(96, 192)] + [(96, 96)] * 6) * 4


def test_right_wrong_and_semi_positive_are_words_not_only_colours(page: Page) -> None:
    # Labels of the first miss: rank, verdict, score and metres.
    assert "1: wrong 0.579 · 300 m 2: semi-positive 0.521 · 400 m" in page.text
    assert "5: right 0.116 · 0 m" in page.text


def test_there_is_one_curve_a_protocol_and_a_legend(page: Page) -> None:
    assert page.lines == 2 * 2


def test_the_page_loads_nothing_from_elsewhere(page: Page) -> None:
    assert [a for a in page.addresses if not a.startswith("data:")] == []


def test_names_from_outside_cannot_become_markup() -> None:
    scored = scored_tasks()[:1]
    html = render_page(toy_document(scored), scored, size_px)
    assert "query_drone/&lt;0&gt;&amp;.jpg" in html
    assert "<0>" not in html


# ---- files ---------------------------------------------------------------------------------------


def test_both_files_are_written(tmp_path: Path) -> None:
    content = toy_document(scored_tasks())
    write_report(tmp_path / "report", content, "<p>page</p>")
    assert json.loads((tmp_path / "report" / "eval.json").read_text()) == json.loads(
        json.dumps(content)
    )
    assert (tmp_path / "report" / "eval.html").read_text() == "<p>page</p>"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_an_existing_report_is_kept_unless_asked(tmp_path: Path) -> None:
    write_report(tmp_path / "report", {"tasks": []}, "old")
    with pytest.raises(InputError) as error:
        write_report(tmp_path / "report", {"tasks": []}, "new")
    assert str(error.value) == (
        f"{tmp_path / 'report'}: already exists; pass --overwrite to replace it"
    )
    assert (tmp_path / "report" / "eval.html").read_text() == "old"
    write_report(tmp_path / "report", {"tasks": []}, "new", overwrite=True)
    assert (tmp_path / "report" / "eval.html").read_text() == "new"
