"""The page of an export shows every figure of the report and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="export needs torch (the export extra)")
pytest.importorskip("jinja2", reason="the page needs jinja2 (the train extra)")

from s4g.core.spec import EncoderSpec
from s4g.export.bench import Latency
from s4g.export.calibration import TileSet
from s4g.export.page import Worst, render_page, worst_cases
from s4g.export.parity import Agreement, Changes, Pairs, Recall
from s4g.export.report import Artefact, Report, as_json
from s4g.export.sensitivity import LayerLoss
from s4g.export.tune import Bars, Trial

PX, PLACES = 128, 4
SPEC = EncoderSpec("3f" * 32, "toy_b0", PX, (0.5,) * 3, (0.25,) * 3, 96, (96,), 0.5, 4.0, True, 0.1)
TRIALS = (
    Trial("cpu", "minmax", True, True, 0, 0.91213, 0.8121, 0.7111),
    Trial("cpu", "mse", True, True, 0, 0.99325, 0.9531, 0.8333),
    Trial("cpu", "mse", False, True, 0, 0.98131, 0.9301, 0.8222),
    Trial("tensorrt", "entropy", True, False, 0, 0.98217, 0.9401, 0.8151),
    Trial("tensorrt", "entropy", True, False, 2, 0.99111, 0.9511, 0.8251),
)
LAYERS = tuple(LayerLoss(f"/stages/{i}/Conv", "Conv", 0.0391 * 0.5**i) for i in range(22))


def agreement(mean: float) -> Agreement:
    return Agreement(mean, mean - 0.0111, mean - 0.0222, 1 - mean)


def artefact(name: str, target: str, precision: str, mean: float, **changes: Any) -> Artefact:
    """Return an artefact whose every figure differs from every other's."""
    timed = target != "tensorrt"
    made = Artefact(
        file=f"encoder.{name}.onnx",
        target=target,
        precision=precision,
        size_bytes=int(mean * 1e8),
        sha256=f"{int(mean * 1e6):064d}",
        served=agreement(mean) if timed else None,
        literal=agreement(mean - 0.0003),
        frames=agreement(mean - 0.0007),
        recall=Recall(mean - 0.1, mean - 0.05),
        recall_on_fp32_tiles=Recall(mean - 0.09, mean - 0.04),
        top1_agreement=mean - 0.031,
        changes=Changes(lost=int(1e4 * mean) % 37, gained=int(1e4 * mean) % 23),
        latency=Latency(10 * mean, 11 * mean, 12 * mean) if timed else None,
        images_per_s=1234 * mean if timed else None,
        quantised={},
        kept_float=(),
        trial=None,
    )
    return dataclasses.replace(made, **changes)


FP32 = artefact("fp32", "any", "fp32", 0.99991)
CPU = artefact("cpu.int8", "cpu", "int8", 0.9932, quantised={"Conv": 38, "Add": 7}, trial=TRIALS[1])
TRT = artefact(
    "trt.int8",
    "tensorrt",
    "int8",
    0.9911,
    quantised={"Conv": 36},
    kept_float=(LAYERS[0].node, LAYERS[1].node),
    trial=TRIALS[4],
)
FP16 = artefact("fp16", "tensorrt", "fp16", 0.9987)


def report(*artefacts: Artefact, **changes: Any) -> Report:
    made = Report(
        spec=SPEC,
        tiles=TileSet(
            "ortho/2024.tif",
            calibration=np.zeros((2, 192, 192, 3), np.uint8),
            tuning=np.zeros((0, 192, 192, 3), np.uint8),
            places=np.zeros((457, 2, 2, 3), np.uint8),
            files=13,
            georeferenced=True,
            frames=np.zeros((29, 1, 1, 3), np.uint8),
            held_out_frames=np.zeros((31, 1, 1, 3), np.uint8),
        ),
        calibration_images=1333,
        views=911,
        seed=77,
        threads=3,
        macs=331_700_000,
        checkpoint=Recall(0.8971, 0.9473),
        max_fp32_difference=2.4e-7,
        mean_cosine_between_places=0.317,
        artefacts=artefacts or (FP32, CPU, TRT, FP16),
        bars=Bars(0.97, 0.013),
        trials=TRIALS,
        layers=LAYERS,
    )
    return dataclasses.replace(made, **changes)


FLOAT_ONLY = report(FP32, trials=(), layers=(), calibration_images=0)


def toy_pairs(px: int = PX) -> Pairs:
    """Return tiles of one colour each and darker views of them."""
    tiles = np.stack([np.full((px, px, 3), 60 * i, np.uint8) for i in range(PLACES)])
    return Pairs(tiles, tiles // 2, tiles[:0])


WORST = (
    Worst(CPU.file, 1, 1, 0.8765, 1, 2),
    Worst(CPU.file, 0, 0, 0.8901, 0, 0),
    Worst(TRT.file, 3, 3, 0.7007, 2, 3),
    Worst(TRT.file, 2, 2, 0.7123, 0, 1),
)


class Page(HTMLParser):
    """Collects what a test asks about; complains of tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]


def page(made: Report | None = None, worst: tuple[Worst, ...] = WORST) -> Page:
    return Page(render_page(as_json(made or report()), toy_pairs(), worst))


@pytest.fixture(scope="module")
def full() -> Page:
    return page()


# ---- what it says --------------------------------------------------------------------------------


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


# How the page writes the numbers of the report, by their key.
WRITTEN: dict[str, Callable[[Any], str]] = {
    "input_px": lambda v: f"{v} px",
    "embedding_dim": lambda v: f"{v} numbers",
    "opset": lambda v: f"opset {v}",
    "macs": lambda v: f"{v / 1e6:.1f} million multiply-adds",
    "files": lambda v: f"files {v}, georeferenced",
    "images": lambda v: f"{v:,} images",
    "frames": lambda v: f"{v} frames of a flight",
    "seed": lambda v: f"seed {v}",
    "held_out_places": lambda v: f"{v} places",
    "held_out_views": lambda v: f"{v} views",
    "held_out_frames": lambda v: f"{v} frames of a flight",
    "fp32_max_difference": lambda v: f"(here {v:.1e} )",
    "mean_cosine_between_places": lambda v: f"mean cosine {v:.3f} (checkpoint)",
    "size_bytes": lambda v: f"{v:,} bytes",
    "mean": lambda v: f"{v:.4f}",
    "p1": lambda v: f"{v:.4f}",
    "min": lambda v: f"{v:.4f}",
    "max_difference": lambda v: f"{v:.1e}",
    "r1": percent,
    "r5": percent,
    "top1_agreement": percent,
    "lost": lambda v: f"{v} lost",
    "gained": lambda v: f"{v} gained",
    "p50_ms": lambda v: f"{v:.2f}",
    "p95_ms": lambda v: f"{v:.2f}",
    "p99_ms": lambda v: f"{v:.2f}",
    "images_per_s": lambda v: f"{v:,.0f}",
    "Conv": lambda v: f"{v} Conv",
    "Add": lambda v: f"{v} Add",
    "kept_float": lambda v: str(v),  # of a trial; an artefact's are names
    "mean_cosine": lambda v: f"{v:.5f}",
    "p1_cosine": lambda v: f"{v:.4f}",
    "loss": lambda v: f"{v:.1e}",
    "cores": lambda v: f"cores {v}",
    "threads": lambda v: f"threads {v}",
    "min_cosine": lambda v: f"at least {v:g}",
    "max_r1_drop": lambda v: f"at most {100 * v:g} points",
}


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield key and value of everything in the report; what a list holds has the list's key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, name)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from leaves(inner, key)
    else:
        yield key, value


def test_every_number_of_the_report_is_on_the_page(full: Page) -> None:
    content = as_json(report())
    content["sensitivity"] = content["sensitivity"][:20]  # the rest stays in report.json
    numbers = [
        (key, value)
        for key, value in leaves(content)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        if key != "report_version"
    ]
    assert len(numbers) > 100
    missing = [(key, value) for key, value in numbers if WRITTEN[key](value) not in full.text]
    assert missing == []


def test_every_name_hash_and_version_of_the_report_is_on_the_page(full: Page) -> None:
    content = as_json(report())
    content["sensitivity"] = content["sensitivity"][:20]
    words = [
        (key, value)
        for key, value in leaves(content)
        if isinstance(value, str) and key not in ("target", "precision")
    ]
    assert len(words) > 40
    assert [pair for pair in words if pair[1] not in full.text] == []


def test_a_file_stands_in_one_row_with_the_change_against_the_checkpoint(full: Page) -> None:
    files = {row[0]: row[1:] for row in full.rows if len(row) == 13}
    assert files["checkpoint torch"] == ["", "", "", "", "", "", "89.71", "94.73", "", "", "", ""]
    assert files["encoder.cpu.int8.onnx INT8, CPU"] == [
        "99.3", "0.9932", "0.9821", "0.9710", "6.8e-03", "96.22 16 lost, 19 gained",
        "89.32 −0.39", "94.32 −0.41", "9.93", "10.93", "11.92", "1,226",
    ]  # fmt: skip
    assert files["encoder.fp32.onnx FP32, any target"][6] == "89.99 +0.28"


def test_a_graph_for_tensorrt_has_dashes_and_a_footnote_that_says_where_it_is_timed(
    full: Page,
) -> None:
    files = {row[0]: row[1:] for row in full.rows if len(row) == 13}
    assert files["encoder.trt.int8.onnx INT8, TensorRT"][8:] == ["–", "–", "–", "–"]
    assert "timed on the device, by s4g-export bench BUNDLE ." in full.text


def test_recall_that_did_not_change_has_no_sign() -> None:
    same = dataclasses.replace(CPU, recall=Recall(0.8971 - 1e-9, 0.9473))
    files = {row[0]: row[1:] for row in page(report(FP32, same)).rows if len(row) == 13}
    assert files["encoder.cpu.int8.onnx INT8, CPU"][6:8] == ["89.71 0.00", "94.73 0.00"]


def test_agreement_is_told_as_served_spelt_out_and_on_frames(full: Page) -> None:
    told = [row for row in full.rows if row[0] == CPU.file]
    assert told == [
        [
            CPU.file,
            "as served",
            "0.9932",
            "0.9821",
            "0.9710",
            "6.8e-03",
            "90.32 +0.61",
            "95.32 +0.59",
        ]
    ]
    at = full.rows.index(told[0])
    assert full.rows[at + 1] == ["optimisations off", "0.9929", "0.9818", "0.9707", "7.1e-03"]
    assert full.rows[at + 2] == ["frames alone", "0.9925", "0.9814", "0.9703", "7.5e-03"]


def test_how_each_int8_graph_was_made_is_told(full: Page) -> None:
    assert (
        "encoder.cpu.int8.onnx ranges mse channels equalised biases corrected "
        "in INT8 7 Add, 38 Conv kept in float nothing" in full.text
    )
    assert (
        "encoder.trt.int8.onnx ranges entropy channels equalised biases as they were "
        "in INT8 36 Conv kept in float 2: /stages/0/Conv , /stages/1/Conv" in full.text
    )


def test_the_chosen_trial_of_each_target_is_marked(full: Page) -> None:
    trials = [row for row in full.rows if len(row) == 9 and row[0] != "Ranges"]
    assert [row[:4] for row in trials] == [
        ["minmax", "yes", "yes", "0"],
        ["mse ✓ chosen", "yes", "yes", "0"],
        ["mse", "no", "yes", "0"],
        ["entropy", "yes", "no", "0"],
        ["entropy ✓ chosen", "yes", "no", "2"],
    ]
    assert full.text.index("For CPU") < full.text.index("For TensorRT")


def test_layers_in_float_are_marked_and_only_the_worst_twenty_shown(full: Page) -> None:
    assert full.text.count("Conv · in float: encoder.trt.int8.onnx") == 2
    assert "/stages/19/Conv" in full.text and "/stages/20/Conv" not in full.text
    assert "the worst 20 of 22 layers (the rest: report.json )" in full.text


def test_a_missed_bar_is_shown_with_its_line() -> None:
    made = report(FP32, dataclasses.replace(CPU, literal=agreement(0.95)))
    text = page(made).text
    assert made.missed == [
        "encoder.cpu.int8.onnx: cosine to the checkpoint 0.9389 at the 1st percentile, "
        "--min-cosine 0.97"
    ]
    assert "missed 1 bar is missed: " + made.missed[0] in text
    assert "passed" not in text


def test_bars_that_hold_are_passed(full: Page) -> None:
    assert report().missed == []
    assert "passed Every file reaches its bars." in full.text
    assert "missed" not in full.text


def test_the_verdict_on_int8_stands_at_the_top(full: Page) -> None:
    assert report().verdict + "." in full.text
    assert full.text.index(report().verdict) < full.text.index("Files")


def test_an_export_without_int8_has_no_empty_sections() -> None:
    made = page(FLOAT_ONLY, ())
    assert made.open == []
    assert "encoder.fp32.onnx" in made.text
    for heading in ("How INT8 was made", "What was tried", "Layers that lose most", "Worst views"):
        assert heading not in made.text
    assert made.values("img", "src") == made.values("rect", "width") == []
    assert "bench BUNDLE" not in made.text


def test_threads_left_to_onnx_runtime_are_told_in_words() -> None:
    assert "threads chosen by ONNX Runtime" in page(report(threads=0)).text


def test_plain_pictures_are_told_from_georeferenced_rasters() -> None:
    tiles = dataclasses.replace(report().tiles, georeferenced=False)
    assert "13, plain pictures, scale and north unknown" in page(report(tiles=tiles)).text


def test_what_the_machine_does_not_tell_is_left_out(full: Page) -> None:
    content = as_json(report())
    content["machine"] |= {"power_mode": "MAXN", "board": None}
    text = Page(render_page(content, toy_pairs())).text
    assert "power mode MAXN" in text
    assert "board" not in text and "None" not in text


# ---- bars ----------------------------------------------------------------------------------------


def bar_widths(losses: list[float]) -> list[float]:
    content = as_json(report(trials=()))
    content["sensitivity"] = [{"node": "n", "operator": "Conv", "loss": loss} for loss in losses]
    made = Page(render_page(content, toy_pairs()))
    return [float(width.removesuffix("%")) for width in made.values("rect", "width")]


def test_a_bar_shows_its_loss_on_a_logarithmic_axis() -> None:
    assert bar_widths([0.1, 0.01, 0.001]) == [100.0, 50.0, 1.0]


def test_losses_far_below_the_largest_do_not_stretch_the_axis() -> None:
    assert bar_widths([0.1, 1e-2, 1e-14]) == [100.0, 80.0, 1.0]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=20))
def test_bars_of_any_losses_stay_inside_and_in_order(losses: list[float]) -> None:
    widths = bar_widths(losses)
    assert all(0 <= width <= 100 for width in widths)
    shown = [pair for pair in zip(losses, widths, strict=True) if 0 < pair[0] < float("inf")]
    assert [width for _, width in sorted(shown)] == sorted(width for _, width in shown)


def test_a_file_that_embeds_nothing_but_nan_is_still_reported() -> None:
    nan = float("nan")
    nothing = Agreement(nan, nan, nan, nan)
    trial = dataclasses.replace(TRIALS[1], mean_cosine=nan, p1_cosine=nan)
    broken = dataclasses.replace(CPU, served=nothing, literal=nothing, trial=trial)
    made = page(report(FP32, broken, trials=(trial,), layers=()))
    assert "cosine to the checkpoint nan" in made.text
    assert made.values("rect", "width") == ["0.0%"]


# ---- the worst views -----------------------------------------------------------------------------


def embeddings(*rows: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    found = np.array(rows, np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


TILES = ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))
PAIRS = Pairs(*(np.zeros((n, 8, 8, 3), np.uint8) for n in (3, 3, 1)))


def test_lost_matches_come_first_then_the_lowest_cosine() -> None:
    frame = (1.0, 0, 0)
    trained = embeddings(*TILES, (1, 0, 0), (0, 1, 0), (0.95, 0, 1), frame)
    found = embeddings(*TILES, (1, 0.5, 0), (0, 1, 0.1), (1, 0, 0.95), (0, 0, -1.0))
    cosine = np.einsum("nd,nd->n", trained, found)
    assert worst_cases("a.onnx", trained, found, PAIRS, 2) == [
        Worst("a.onnx", 2, 2, pytest.approx(cosine[5]), 2, 0),
        Worst("a.onnx", 0, 0, pytest.approx(cosine[3]), 0, 0),
    ]
    assert [case.view for case in worst_cases("a.onnx", trained, found, PAIRS)] == [2, 0, 1]


def test_the_file_ranks_by_its_own_tiles_and_the_checkpoint_by_its_own() -> None:
    trained = embeddings(*TILES, *TILES, (1, 0, 0))
    found = embeddings(TILES[1], TILES[0], TILES[2], *TILES, (1, 0, 0))
    worst = worst_cases("a.onnx", trained, found, PAIRS, 1)
    assert worst == [Worst("a.onnx", 0, 0, 1.0, 0, 1)]


def test_a_second_view_of_a_place_is_shown_with_its_tile() -> None:
    trained = embeddings(*TILES, *TILES, *TILES, (1, 0, 0))
    found = trained.copy()
    found[7] = (1, 0, 0)
    twice = Pairs(PAIRS.tiles, np.concatenate([PAIRS.views, PAIRS.views]), PAIRS.frames)
    assert worst_cases("a.onnx", trained, found, twice, 1) == [Worst("a.onnx", 4, 1, 0.0, 1, 0)]


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (1, 1, "still found"),
        (1, 0, "match lost"),
        (0, 1, "match gained"),
        (2, 0, "found by neither"),
    ],
)
def test_what_became_of_a_match_is_told(before: int, after: int, outcome: str) -> None:
    assert Worst("a.onnx", 4, 1, 0.9, before, after).outcome == outcome


def picture_colours(made: Page, rows: int) -> list[list[int]]:
    """Return the grey level of every picture, four a view: view, own tile, who ranks what first."""
    grey = []
    for source in made.values("img", "src"):
        kind, data = source.split(",", 1)
        assert kind == "data:image/jpeg;base64"
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None and image.shape == (rows, rows, 3)
        grey.append(int(image.mean()))
    return [grey[i : i + 4] for i in range(0, len(grey), 4)]


def test_each_worst_view_has_its_four_pictures(full: Page) -> None:
    assert picture_colours(full, 96) == [
        [30, 60, 60, 120],
        [0, 0, 0, 0],
        [90, 180, 120, 180],
        [60, 120, 0, 60],
    ]


def test_pictures_smaller_than_a_thumbnail_are_not_enlarged() -> None:
    made = Page(render_page(as_json(report()), toy_pairs(64), WORST[:1]))
    assert picture_colours(made, 64) == [[30, 60, 60, 120]]


def test_worst_views_are_told_in_words_under_their_file(full: Page) -> None:
    text = full.text[full.text.index("Worst views") :]
    lost = "View 1: cosine 0.8765, match lost view own tile right checkpoint tile 1 wrong this file"
    assert lost + " tile 2" in text
    neither = "View 2: cosine 0.7123, found by neither view own tile wrong checkpoint tile 0"
    assert text.index(CPU.file) < text.index(lost) < text.index(TRT.file) < text.index(neither)


# ---- the file ------------------------------------------------------------------------------------


def test_the_page_is_well_formed(full: Page) -> None:
    assert full.open == []
    assert len(full.tags) > 300


def test_the_page_loads_nothing_and_runs_nothing(full: Page) -> None:
    html = render_page(as_json(report()), toy_pairs(), WORST)
    addresses = [
        value
        for _, attributes in full.tags
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "data", "xlink:href", "action", "style")
    ]
    assert len(addresses) == 16 and all(a.startswith("data:image/jpeg;base64,") for a in addresses)
    assert {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in full.tags} == set()
    assert not [key for _, attributes in full.tags for key in attributes if key.startswith("on")]
    for loader in ("http:", "https:", "url(", "@import"):
        assert loader not in html


def test_both_colour_schemes_are_there() -> None:
    assert "prefers-color-scheme: dark" in render_page(as_json(report()), toy_pairs())


def test_the_same_report_gives_the_same_page_also_from_its_json() -> None:
    content = as_json(report())
    before = copy.deepcopy(content)
    first = render_page(content, toy_pairs(), WORST)
    assert content == before
    assert render_page(json.loads(json.dumps(content)), toy_pairs(), WORST) == first


def test_names_from_outside_cannot_become_markup() -> None:
    evil = "<script>alert('&')</script>"
    content = as_json(
        report(
            FP32,
            dataclasses.replace(CPU, kept_float=(evil,)),
            spec=dataclasses.replace(SPEC, backbone=evil),
            tiles=dataclasses.replace(report().tiles, source=evil),
            layers=(LayerLoss(evil, evil, 0.1),),
        )
    )
    content["bars"]["missed"] = [evil]
    content["machine"]["processor"] = evil
    html = render_page(content, toy_pairs(), (Worst(evil, 0, 0, 0.5, 0, 1),))
    assert "<script" not in html
    # Title, heading, missed bar, float layer, layer and its operator, source, file, processor.
    assert html.count("&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;") == 9


def test_a_figure_that_the_report_lacks_is_an_error_not_a_gap() -> None:
    from jinja2 import UndefinedError

    content = as_json(report())
    del content["artefacts"][0]["top1_agreement"]
    with pytest.raises(UndefinedError, match="top1_agreement"):
        render_page(content, toy_pairs())
