"""The ways to quantise that are tried, the one that is kept, and the layers left in float."""

from __future__ import annotations

import contextlib
import dataclasses
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")
pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.export.cli import export
from s4g.export.onnx_graph import OnnxGraph
from s4g.export.parity import Agreement, Pairs, embed_graph
from s4g.export.ranges import METHODS
from s4g.export.tune import (
    MAX_FLOAT_SHARE,
    TARGETS,
    Bars,
    Quantised,
    Tuner,
)

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

WIDTH = 16  # as many channels as TensorRT's graph needs to round a layer
NO_BARS = Bars(min_cosine=-1, max_r1_drop=1)
UNREACHABLE = Bars(min_cosine=1.01, max_r1_drop=1)


def chain(layers: int, activation: str, fragile: int = 0) -> bytes:
    """Return `layers` convolutions `c0`, `c1`, … and a projection.

    Args:
        layers: how many convolutions.
        activation: behind each of them, with the operands after `x`.
        fragile: the number of a convolution; one channel of its input is 1000 times as wide as
            the others.
    """
    constants: dict[str, Any] = {"table": toy.normal(WIDTH, 24), "space": [2, 3]}
    nodes = []
    for i in range(layers):
        given, inputs = (f"r{i - 1}", WIDTH) if i else ("pixels", 3)
        nodes.append(f"c{i} = Conv({given}, w{i}, b{i}) r{i} = {activation.replace('x', f'c{i}')}")
        constants[f"w{i}"] = toy.normal(WIDTH, inputs, 1, 1, seed=i, scale=(2 / inputs) ** 0.5)
        constants[f"b{i}"] = toy.normal(WIDTH, seed=50 + i, scale=0.1)
    if fragile:
        constants[f"w{fragile - 1}"][3] *= 1000
        constants[f"w{fragile}"][:, 3] /= 1000
    if "huge" in activation:
        constants |= {"zero": 0.0, "huge": 1e9}
    model: bytes = toy.encoder(
        f"{' '.join(nodes)} m = ReduceMean <keepdims = 0> (r{layers - 1}, space) "
        "features = Gemm(m, table)",
        **constants,
    )
    return model


RELU = "Relu(x)"
CLIP = "Clip(x, zero, huge)"  # a ReLU that equalisation takes for something else


def pairs(count: int = 20) -> Pairs:
    tiles = toy.images(count, seed=5)
    noise = np.random.default_rng(6).integers(-40, 40, tiles.shape)
    views = np.clip(tiles + noise, 0, 255).astype(np.uint8)
    return Pairs(tiles, views, toy.images(3, seed=7))


class Progress:
    """Records what is told."""

    def __init__(self) -> None:
        self.told: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def __call__(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        steps = self.told.setdefault(f"{label}: {total} {unit}", [])
        yield steps.append


def tuner(
    model: bytes,
    method: str = "minmax",
    depthwise: str = "float",
    given: Pairs | None = None,
    images: npt.NDArray[np.uint8] | None = None,
) -> Tuner:
    calibration = toy.images(12) if images is None else images
    return Tuner(model, calibration, given or pairs(), method, depthwise, Progress())


def float_layers(made: Quantised) -> set[str]:
    """Return the layers whose weights are still float constants."""
    return {node.name for node in OnnxGraph(made.model).weighted()}


@pytest.fixture(scope="module")
def auto() -> tuple[Tuner, dict[str, Quantised]]:
    made = tuner(chain(3, RELU), "auto")
    return made, {target: made.tune(target, NO_BARS, ()) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_the_way_with_the_best_mean_cosine_is_kept(
    auto: tuple[Tuner, dict[str, Quantised]], target: str
) -> None:
    trials = [trial for trial in auto[0].trials if trial.target == target]
    kept = auto[1][target].trial
    assert kept in trials
    assert kept.mean_cosine == max(trial.mean_cosine for trial in trials)


@pytest.mark.parametrize("target", TARGETS)
def test_all_methods_are_compared_then_equalisation_and_bias_correction(
    auto: tuple[Tuner, dict[str, Quantised]], target: str
) -> None:
    trials = [trial for trial in auto[0].trials if trial.target == target]
    ways = [(t.method, t.equalised, t.corrected) for t in trials]
    assert ways[:4] == [(method, True, True) for method in METHODS]
    best = max(trials[:4], key=lambda trial: trial.mean_cosine).method
    assert ways[4:] == [(best, False, True), (best, False, False), (best, True, False)]


@pytest.mark.parametrize("target", TARGETS)
def test_a_trial_tells_how_its_graph_embeds_tuning_pairs(
    auto: tuple[Tuner, dict[str, Quantised]], target: str
) -> None:
    made, kept = auto[0], auto[1][target]
    trial = kept.trial
    variant = made._variants[-1 if trial.equalised else 0]
    tried = made._try(target, variant, trial.method, trial.corrected, ())
    made.trials.pop()
    wanted = embed_graph(made.prepared, made.pairs.images)
    found = embed_graph(tried.model, made.pairs.images)
    agreement = Agreement.between(wanted, found)
    assert trial == tried.trial
    assert trial.mean_cosine == pytest.approx(agreement.mean)
    assert trial.p1_cosine == pytest.approx(agreement.p1)
    assert trial.r1 == made.pairs.paired(found).recall.r1
    assert (kept.kept_float, trial.kept_float) == ((), 0)
    finished = Agreement.between(wanted, embed_graph(kept.model, made.pairs.images))
    assert 0.98 < finished.mean < 1 - 1e-9  # quantised, and well


def test_a_graph_for_each_target_is_made(auto: tuple[Tuner, dict[str, Quantised]]) -> None:
    kinds = {}
    for target, kept in auto[1].items():
        graph = OnnxGraph(kept.model)
        zeros = [graph.value(n.input[2]) for n in graph if n.op_type == "QuantizeLinear"]
        kinds[target] = {str(zero.dtype) for zero in zeros}
    assert kinds == {"cpu": {"uint8"}, "tensorrt": {"int8"}}


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_a_method_that_was_asked_for_is_the_only_one(method: str) -> None:
    made = tuner(chain(2, RELU), method)
    made.tune("cpu", NO_BARS, ())
    assert {trial.method for trial in made.trials} == {method}
    assert len(made.trials) == 4


def test_where_nothing_can_be_equalised_there_is_one_calibration() -> None:
    made = tuner(chain(2, CLIP))
    made.tune("cpu", NO_BARS, ())
    assert made.pairs_equalised == 0
    assert [(t.equalised, t.corrected) for t in made.trials] == [(False, True), (False, False)]
    assert list(made.progress.told) == [  # type: ignore[attr-defined]
        "calibrating: 12 images",
        "calibrating what was chosen: 55 images",
    ]


def test_calibration_tells_its_progress_for_each_float_graph() -> None:
    made = tuner(chain(2, RELU))
    told = made.progress.told  # type: ignore[attr-defined]
    assert {label: sum(steps) for label, steps in told.items()} == {
        "calibrating: 12 images": 12,
        "calibrating, channels equalised: 12 images": 12,
    }
    assert made.pairs_equalised == 1


def test_equalisation_is_kept_where_it_pays() -> None:
    """What unbalances these channels is undone exactly."""
    made = tuner(chain(3, RELU, fragile=1))
    kept = made.tune("cpu", NO_BARS, ())
    assert kept.trial.equalised
    worst = max(trial.mean_cosine for trial in made.trials if not trial.equalised)
    assert 1 - kept.trial.mean_cosine < 0.2 * (1 - worst)


LONG, FRAGILE = 11, 5


@pytest.fixture(scope="module")
def fragile() -> Tuner:
    return tuner(chain(LONG, CLIP, FRAGILE))


@pytest.mark.parametrize("target", TARGETS)
def test_the_layers_that_lose_most_stay_in_float_until_the_bar_holds(
    fragile: Tuner, target: str
) -> None:
    bar = 0.99
    made = dataclasses.replace(fragile, trials=[], layers=[])
    assert made.tune(target, NO_BARS, ()).trial.p1_cosine < bar
    assert made.layers == []  # no scan was needed
    kept = made.tune(target, Bars(bar, 1), ())
    assert kept.trial.p1_cosine >= bar
    assert set(kept.kept_float) == {f"c{FRAGILE - 1}", f"c{FRAGILE}"}
    assert kept.kept_float == tuple(layer.node for layer in made.layers[:2])
    assert kept.trial.kept_float == 2
    assert float_layers(kept) - {"c0", "features"} == set(kept.kept_float)


@pytest.mark.parametrize("target", TARGETS)
def test_no_more_layers_than_a_share_stay_in_float(fragile: Tuner, target: str) -> None:
    made = dataclasses.replace(fragile, trials=[])
    kept = made.tune(target, UNREACHABLE, ())
    counts = [trial.kept_float for trial in made.trials]
    # TensorRT leaves the first and the last layer in float by itself: they are no candidates.
    candidates = LONG + 1 if target == "cpu" else LONG - 1
    assert max(counts) == int(MAX_FLOAT_SHARE * candidates) == 3
    assert counts == [0, 0, 1, 2, 3]
    assert kept.trial.mean_cosine == max(trial.mean_cosine for trial in made.trials)


def test_layers_stay_in_float_in_the_graph_that_did_best() -> None:
    made = tuner(chain(14, RELU))
    kept = made.tune("cpu", UNREACHABLE, ())
    whole = max((t for t in made.trials if not t.kept_float), key=lambda t: t.mean_cosine)
    assert whole.equalised
    parts = [t for t in made.trials if t.kept_float]
    assert [t.kept_float for t in parts] == [1, 2, 4]
    assert {(t.equalised, t.corrected) for t in parts} == {(True, whole.corrected)}
    assert kept.trial.mean_cosine == max(t.mean_cosine for t in made.trials)
    # The worst is left out first, and what it lost is gained.
    assert 1 - parts[0].mean_cosine < 0.2 * (1 - whole.mean_cosine)


def test_layers_the_user_keeps_stay_in_float_and_are_no_candidates(fragile: Tuner) -> None:
    made = dataclasses.replace(fragile, trials=[])
    worst = made.scan()[0].node
    kept = made.tune("cpu", Bars(0.99, 1), (worst, "r0"))
    assert kept.kept_float[:2] == (worst, "r0")
    assert len(kept.kept_float) == len(set(kept.kept_float)) == 3
    assert float_layers(kept) == {f"c{FRAGILE - 1}", f"c{FRAGILE}"}


def test_a_loss_of_recall_alone_keeps_layers_in_float(fragile: Tuner) -> None:
    made = dataclasses.replace(fragile, trials=[])
    assert made.tune("cpu", Bars(-1, 1), ()).kept_float == ()
    before = pairs().paired(embed_graph(made.prepared, pairs().images)).recall.r1
    assert made.trials[0].r1 < before - 1 / 20
    kept = made.tune("cpu", Bars(-1, 0), ())
    assert kept.kept_float
    assert kept.trial.r1 >= before - 1 / 20  # one pair more or less says nothing


@pytest.mark.parametrize("target", TARGETS)
def test_biases_of_layers_in_float_are_not_corrected(target: str) -> None:
    made = tuner(chain(4, CLIP))
    kept = made.tune(target, NO_BARS, ("c2",))
    before, after = OnnxGraph(made.prepared), OnnxGraph(kept.model)
    (found,) = [n for n in after if n.name == "c2"]
    np.testing.assert_array_equal(after.value(found.input[2]), before.value("b2"))


def test_biases_of_rounded_layers_are_corrected_where_it_pays() -> None:
    """TensorRT's graph has float biases, so that they can be read."""
    made = tuner(chain(4, CLIP))
    kept = made.tune("tensorrt", NO_BARS, ("c2",))
    after = OnnxGraph(kept.model)
    changed = {
        name: not np.array_equal(after.value(node.input[2]), OnnxGraph(made.prepared).value(own))
        for node in after
        for name, own in [(node.name, f"b{node.name[1:]}")]
        if node.op_type == "Conv"
    }
    corrected = kept.trial.corrected
    assert changed == {"c0": False, "c1": corrected, "c2": False, "c3": corrected}


@pytest.mark.parametrize(("depthwise", "rounded"), [("float", False), ("int8", True)])
def test_depthwise_layers_follow_the_policy(depthwise: str, rounded: bool) -> None:
    model = toy.encoder(
        f"c = Conv(pixels, w, b) r = Relu(c) d = Conv <group = {WIDTH}> (r, each, b) "
        "m = ReduceMean <keepdims = 0> (d, space) features = Gemm(m, table)",
        w=toy.normal(WIDTH, 3, 3, 3),
        b=toy.normal(WIDTH),
        each=toy.normal(WIDTH, 1, 3, 3),
        table=toy.normal(WIDTH, 24),
        space=[2, 3],
    )
    kept = tuner(model, depthwise=depthwise).tune("tensorrt", NO_BARS, ())
    assert ("d" not in float_layers(kept)) == rounded


def test_what_is_chosen_is_calibrated_on_the_images_to_choose_by_as_well() -> None:
    """Dull images calibrate, bright ones choose: the finished graph's range holds both."""
    dull = np.asarray(100 + toy.images(12) // 8, np.uint8)
    made = tuner(chain(2, CLIP), images=dull)
    kept = made.tune("cpu", NO_BARS, ())
    bright = tuner(chain(2, CLIP), images=np.concatenate([dull, made.pairs.images]))
    trial = kept.trial
    wanted = bright._try("cpu", bright._variants[0], trial.method, trial.corrected, ())
    scale = {
        name: float(graph.value(next(n for n in graph if n.op_type == "QuantizeLinear").input[1]))
        for name, graph in (("kept", OnnxGraph(kept.model)), ("wanted", OnnxGraph(wanted.model)))
    }
    assert scale["kept"] == pytest.approx(scale["wanted"])
    seen = made._try("cpu", made._variants[0], trial.method, trial.corrected, ())
    first = next(n for n in OnnxGraph(seen.model) if n.op_type == "QuantizeLinear")
    assert scale["kept"] > 2 * float(OnnxGraph(seen.model).value(first.input[1]))


def test_the_scan_is_made_once_and_tells_its_progress(fragile: Tuner) -> None:
    made = dataclasses.replace(fragile, layers=[], trials=[], progress=Progress())
    layers = made.scan()
    assert {layer.node for layer in layers[:2]} == {f"c{FRAGILE - 1}", f"c{FRAGILE}"}
    assert len(layers) == LONG + 1
    told = made.progress.told  # type: ignore[attr-defined]
    assert sum(told["which layers lose: 12 layers"]) == LONG + 1
    told.clear()
    assert made.scan() is layers
    assert told == {}


def test_the_same_images_give_the_same_graph() -> None:
    first, second = (tuner(chain(2, RELU)).tune("cpu", NO_BARS, ()) for _ in range(2))
    assert first == second


def test_the_command_offers_auto_and_every_method() -> None:
    """It names them itself, as it must not import what they need."""
    (option,) = [parameter for parameter in export.params if parameter.name == "method"]
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == ("auto", *METHODS)
