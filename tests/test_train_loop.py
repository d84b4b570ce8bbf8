"""Training learns, stops, resumes to the same weights, and its checkpoint says what it is."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from s4g.core.errors import IntegrityError, S4GError
from s4g.train import ground_source
from s4g.train.checkpoint import load_checkpoint, load_state, model_id, save_checkpoint
from s4g.train.cli import cli
from s4g.train.distill import DistillConfig
from s4g.train.evaluate import ValidationRegion, validate, validation_regions
from s4g.train.ground_source import GroundSource
from s4g.train.grounds import Ground, load_grounds
from s4g.train.loop import Trainer
from s4g.train.loss import batch_targets
from s4g.train.model import ModelConfig
from s4g.train.recipe import GroundConfig, OptimConfig, Recipe, ViewConfig
from s4g.train.relations import Relations
from s4g.train.source import Batch, Embed

GROUND = GroundConfig("landscape", worlds=2, val_worlds=1, size_m=256.0, renders=2, credit="ours")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures this small are not worth a second thread, and it waits for its turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def grounds() -> list[Ground]:
    return load_grounds((GROUND,), None, lambda name: None)


def recipe(steps: int, **optim: float) -> Recipe:
    return Recipe(
        name="tiny",
        description="",
        seed=5,
        model=ModelConfig("resnet10t", 64, 32),
        views=ViewConfig(),
        optim=OptimConfig(
            **{
                "steps": steps,
                "batch_pairs": 16,
                "neighbours": 4,
                "warmup_steps": 5,
                "precision": "fp32",
                "validate_every": 1000,
                "save_every": 1000,
                **optim,
            }  # type: ignore[arg-type]
        ),
        grounds=(GROUND,),
    )


def trainer(run: Path, grounds: list[Ground], plan: Recipe) -> Trainer:
    run.mkdir(exist_ok=True)
    device = torch.device("cpu")
    return Trainer(plan, GroundSource(grounds, plan, device, 1), run, device)


def test_training_lowers_the_loss_and_writes_a_checkpoint_that_loads(
    tmp_path: Path, grounds: list[Ground]
) -> None:
    run = trainer(tmp_path / "run", grounds, recipe(40))
    validation = run.train(lambda steps: None)
    assert validation is not None
    lines = [json.loads(v) for v in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < math.log(16)
    encoder, spec = load_checkpoint(tmp_path / "run" / "encoder.safetensors")
    assert spec.model_id == model_id(encoder)
    assert spec.temperature == validation.temperature
    assert spec.provenance["credits"] == ["ours"]
    assert spec.provenance["steps"] == 40
    assert spec.gsd_min_m == pytest.approx(max(20, 0.7 * 0.5 * 64) / 64)


def test_a_resumed_training_ends_with_the_same_weights(
    tmp_path: Path, grounds: list[Ground]
) -> None:
    whole = trainer(tmp_path / "whole", grounds, recipe(6))
    whole.train(lambda steps: None)

    first = trainer(tmp_path / "parts", grounds, recipe(6))

    def stop_at_three(steps: int) -> None:
        if first.step == 3:
            first._on_signal(2, None)

    assert first.train(stop_at_three) is None
    second = trainer(tmp_path / "parts", grounds, recipe(6))
    second.resume()
    assert second.step == 3
    second.train(lambda steps: None)
    assert model_id(second.encoder) == model_id(whole.encoder)
    assert model_id(second.averaged) == model_id(whole.averaged)


@pytest.mark.parametrize("stop", [2, 3])  # where an epoch ends, and within one
def test_a_resumed_training_meets_the_same_lookalikes(
    tmp_path: Path, grounds: list[Ground], stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground_source, "_POOL", 40)
    plan = recipe(4, lookalikes=0.5, validate_every=2)
    whole = trainer(tmp_path / "whole", grounds, plan)
    whole.train(lambda steps: None)

    first = trainer(tmp_path / "parts", grounds, plan)

    def stop_there(steps: int) -> None:
        if first.step == stop:
            first._on_signal(2, None)

    assert first.train(stop_there) is None
    second = trainer(tmp_path / "parts", grounds, plan)
    second.resume()
    second.train(lambda steps: None)
    assert model_id(second.encoder) == model_id(whole.encoder)


def test_a_loss_that_is_not_finite_stops_with_a_remedy(
    tmp_path: Path, grounds: list[Ground]
) -> None:
    run = trainer(tmp_path / "run", grounds, recipe(3))
    with torch.no_grad():
        run.encoder.project.weight.fill_(float("nan"))
    with pytest.raises(S4GError) as error:
        run.train(lambda steps: None)
    assert str(error.value) == (
        "step 0: the loss is nan; lower learning_rate in the recipe and train into a new --out; "
        "the last checkpoint and state are as they were"
    )


def test_a_loss_that_is_not_finite_leaves_checkpoint_and_state_as_they_were(
    tmp_path: Path, grounds: list[Ground]
) -> None:
    run = trainer(tmp_path / "run", grounds, recipe(6, validate_every=2, save_every=2))

    def poison(steps: int) -> None:
        if run.step == 5:
            with torch.no_grad():
                run.encoder.project.weight.fill_(float("nan"))

    with pytest.raises(S4GError, match=r"^step 5: the loss is nan; "):
        run.train(poison)
    encoder, spec = load_checkpoint(tmp_path / "run" / "encoder.safetensors")
    assert spec.provenance["steps"] in (2, 4)
    assert all(torch.isfinite(p).all() for p in encoder.parameters())
    tensors, values = load_state(tmp_path / "run" / "state.safetensors")
    assert values["step"] == 4
    assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())


def test_a_gradient_that_is_not_finite_stops_before_the_weights_take_it(
    tmp_path: Path, grounds: list[Ground]
) -> None:
    run = trainer(tmp_path / "run", grounds, recipe(3))
    run.encoder.project.bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(S4GError, match=r"^step 0: the gradient is not finite; "):
        run.train(lambda steps: None)
    assert all(torch.isfinite(p).all() for p in run.encoder.parameters())


def test_a_gpu_that_is_too_small_names_the_knobs(
    tmp_path: Path, grounds: list[Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("s4g.train.loop.backward", full)
    run = trainer(tmp_path / "run", grounds, recipe(3))
    with pytest.raises(S4GError) as error:
        run.train(lambda steps: None)
    assert str(error.value) == (
        "step 0: the GPU's memory is too small for 16 pairs at a time; set in [optim] "
        "chunk_pairs = 8 or grad_checkpointing = true or batch_pairs = 8"
    )


def in_precision(precision: str, steps: int) -> Recipe:
    plan = recipe(steps)
    return dataclasses.replace(plan, optim=dataclasses.replace(plan.optim, precision=precision))


def test_bfloat16_learns(tmp_path: Path, grounds: list[Ground]) -> None:
    run = trainer(tmp_path / "run", grounds, in_precision("bf16", 60))
    run.train(lambda steps: None)
    lines = [json.loads(v) for v in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if "loss" in line][-1] < math.log(16)


def test_half_precision_scales_the_loss_and_resumes_with_its_scale(
    tmp_path: Path, grounds: list[Ground]
) -> None:
    """A CPU has no fast float16: two steps show that scaling is undone before the update."""
    run = trainer(tmp_path / "run", grounds, in_precision("fp16", 2))
    exact = trainer(tmp_path / "exact", grounds, recipe(2))
    for one in (run, exact):
        one.train(lambda steps: None)
    for half, whole in zip(run.encoder.parameters(), exact.encoder.parameters(), strict=True):
        assert torch.allclose(half, whole, atol=5e-3)
    run.scaler.update(512.0)
    run.save()
    again = trainer(tmp_path / "run", grounds, in_precision("fp16", 3))
    again.resume()
    assert again.scaler.get_scale() == 512.0


def test_the_best_validation_keeps_the_checkpoint(
    tmp_path: Path, grounds: list[Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path / "run", grounds, recipe(6, validate_every=2))
    validate = run.source.validate
    recalls = iter([0.5, 0.9, 0.4])

    def judged(embed: Embed) -> object:
        found = validate(embed)
        return dataclasses.replace(found, recall={1: next(recalls), 5: 1.0, 10: 1.0})

    monkeypatch.setattr(run.source, "validate", judged)
    run.train(lambda steps: None)
    _, spec = load_checkpoint(tmp_path / "run" / "encoder.safetensors")
    assert spec.provenance["steps"] == 4
    assert spec.provenance["validation"]["recall_at_1"] == 0.9


def test_a_student_is_taught_while_it_trains(
    tmp_path: Path, grounds: list[Ground], toy_checkpoint: Path
) -> None:
    plan = dataclasses.replace(recipe(2), distill=DistillConfig(str(toy_checkpoint)))
    run = trainer(tmp_path / "run", grounds, plan)
    alone = trainer(tmp_path / "alone", grounds, recipe(2))
    for one in (run, alone):
        one.train(lambda steps: None)
    assert model_id(run.encoder) != model_id(alone.encoder)


def test_a_picture_that_could_not_be_read_teaches_nothing(
    tmp_path: Path, grounds: list[Ground], toy_checkpoint: Path
) -> None:
    plan = dataclasses.replace(recipe(1), distill=DistillConfig(str(toy_checkpoint)))
    run = trainer(tmp_path / "run", grounds, plan)
    images = torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    embeddings = torch.nn.functional.normalize(torch.randn(2, 4, 32), dim=2)
    valid = np.array([True, True, False, True])
    rows = np.arange(4, dtype=np.int32)
    targets = batch_targets(Relations.from_edges(rows, rows, 4), rows, rows, valid)
    with_black = run._loss_of(Batch(images[0], images[1], targets))(*embeddings)
    kept = run._loss_of(Batch(images[0][valid], images[1][valid]))(*embeddings[:, valid])
    assert with_black.item() == pytest.approx(kept.item(), rel=1e-5)


def test_more_steps_may_be_given_to_a_training_that_is_over(
    tmp_path: Path, grounds: list[Ground]
) -> None:
    trainer(tmp_path / "run", grounds, recipe(4, validate_every=3)).train(lambda steps: None)
    longer = trainer(tmp_path / "run", grounds, recipe(7, validate_every=3))
    longer.resume()
    assert (longer.step, longer.epoch, longer.first) == (4, 1, 1)
    longer.train(lambda steps: None)
    assert longer.step == 7


def test_a_state_of_another_model_is_refused(tmp_path: Path, grounds: list[Ground]) -> None:
    trainer(tmp_path / "run", grounds, recipe(3)).save()
    other = dataclasses.replace(recipe(3), model=ModelConfig("resnet10t", 64, 48))
    with pytest.raises(S4GError, match="the state of another model; train into a new folder$"):
        trainer(tmp_path / "run", grounds, other).resume()


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00garbage!")
    with pytest.raises(IntegrityError, match="not a safetensors checkpoint"):
        load_state(path)


def test_weights_altered_after_training_are_refused(tmp_path: Path, grounds: list[Ground]) -> None:
    run = trainer(tmp_path / "run", grounds, recipe(3))
    run.validate_and_save()
    path = tmp_path / "run" / "encoder.safetensors"
    encoder, spec = load_checkpoint(path)
    with torch.no_grad():
        encoder.project.bias[0] += 1
    save_checkpoint(path, encoder, spec, overwrite=True)
    with pytest.raises(IntegrityError) as error:
        load_checkpoint(path)
    assert str(error.value) == (
        f"{path}: its weights are not those of its model id; it was altered"
    )


def test_perfect_embeddings_have_full_recall_and_no_error(grounds: list[Ground]) -> None:
    (region,) = validation_regions(grounds, recipe(1))
    # An oracle that writes each picture's place on the unit sphere: near places, near vectors.
    places = {id(region.tiles): region.tile_xy, id(region.queries): region.query_xy}

    def oracle(images: np.ndarray) -> np.ndarray:
        xy = places[id(images)] * 0.05
        lifted = np.column_stack([xy, np.sqrt(1 - (xy**2).sum(axis=1))])
        return lifted.astype(np.float32)

    result = validate([region], oracle)
    assert result.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    assert result.median_error < 0.2


def test_views_of_foreign_ground_are_told_apart_by_the_unknown_score() -> None:
    """Two regions, each with embeddings of its own: a foreign query fits no tile well."""
    side = np.arange(8, dtype=np.float32)
    xy = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2) * 0.5
    rng = np.random.default_rng(4)

    def region(name: str, source: int) -> ValidationRegion:
        tiles = rng.integers(0, 256, (64, 4, 4, 3)).astype(np.uint8)
        return ValidationRegion(name, source, 100.0, tiles, xy, tiles.copy(), xy)

    def embed(images: np.ndarray) -> np.ndarray:
        centred = images.reshape(len(images), -1).astype(np.float32) - 127.5
        return centred / np.linalg.norm(centred, axis=1, keepdims=True)

    result = validate([region("a", 0), region("b", 1)], embed)
    assert result.recall[1] == 1.0
    assert result.unknown_recognised > 0.9
    assert 0.3 < result.unknown_score < 1.0


def test_blind_embeddings_have_the_recall_of_chance(grounds: list[Ground]) -> None:
    (region,) = validation_regions(grounds, recipe(1))
    rng = np.random.default_rng(0)

    def blind(images: np.ndarray) -> np.ndarray:
        vectors = rng.standard_normal((len(images), 16)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    assert validate([region], blind).recall[1] < 0.3


def command(*arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from s4g.train.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_run_folder_that_holds_a_training_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    code, _, message = command("--recipe", "landscape", "--out", tmp_path)
    assert code == 2
    assert message == (
        f"error: {tmp_path}: already holds a training; pass --resume to go on or choose another "
        "--out\n"
    )


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    code, _, message = command("--recipe", "landscape", "--out", tmp_path, "--resume")
    assert code == 2
    assert message == (
        f"error: {tmp_path}: holds no state.safetensors to resume from; start without --resume\n"
    )


def test_evaluating_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing of the kind")
    code, _, message = command("eval", path, "--recipe", "landscape")
    assert code == 2
    assert message.startswith(f"error: {path}: not a safetensors checkpoint")
    assert message.count("\n") == 1


def test_training_and_evaluation_by_command(tmp_path: Path) -> None:
    plan = tmp_path / "tiny.toml"
    plan.write_text(
        '[model]\nbackbone = "resnet10t"\ninput_px = 64\nembedding_dim = 32\n'
        '[optim]\nsteps = 2\nbatch_pairs = 8\nprecision = "fp32"\n'
        '[[ground]]\nkind = "landscape"\nworlds = 1\nval_worlds = 1\nsize_m = 256\nrenders = 2\n'
    )
    runner = CliRunner()
    run = tmp_path / "run"
    done = runner.invoke(cli, ["--recipe", str(plan), "--out", str(run)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in run.iterdir()) == [
        "encoder.safetensors",
        "history.png",
        "metrics.jsonl",
        "recipe.json",
        "state.safetensors",
        "tensorboard",
    ]
    checkpoint = str(run / "encoder.safetensors")
    done = runner.invoke(
        cli, ["eval", checkpoint, "--recipe", str(plan), "--json"], catch_exceptions=False
    )
    figures = json.loads(done.stdout)
    assert set(figures) == {
        "recall_at_1",
        "recall_at_5",
        "recall_at_10",
        "median_error_footprints",
        "temperature",
        "unknown_score",
        "unknown_recognised",
        "recall_at_1_by_region",
    }


def test_a_training_stopped_before_its_first_checkpoint_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "train", lambda self, on_step: None)
    plan = tmp_path / "tiny.toml"
    plan.write_text(
        '[model]\nbackbone = "resnet10t"\ninput_px = 64\n'
        '[[ground]]\nkind = "landscape"\nworlds = 1\nsize_m = 256\nrenders = 1\n'
    )
    done = CliRunner().invoke(cli, ["--recipe", str(plan), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "checkpoint" not in done.output
