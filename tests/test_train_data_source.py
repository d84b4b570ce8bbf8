"""Training on a data set: planned batches, mined lists, resume to the last bit, bad pictures."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from s4g.core.errors import InputError
from s4g.train.batches import SamplingConfig
from s4g.train.checkpoint import load_checkpoint, model_id
from s4g.train.data_source import UNKNOWN_GSD_M, DataSource
from s4g.train.dataset import DataConfig
from s4g.train.loop import Trainer
from s4g.train.loss import LossConfig
from s4g.train.model import ModelConfig
from s4g.train.recipe import LoadConfig, OptimConfig, Recipe, ViewConfig

CPU = torch.device("cpu")
PLACES, VIEWS, SIDE_PX = 20, 3, 64


def write_university(root: Path, coordinates: bool = True) -> None:
    """Write training places, each a tile and views of it: turned a little, noisy."""
    rng = np.random.default_rng(3)
    lines = ["id,lat,lon"]
    for number in range(PLACES):
        name = f"{number:04d}"
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        tile = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
        write(root / "train" / "satellite" / name / f"{name}.png", tile)
        for view in range(VIEWS):
            turn = cv2.getRotationMatrix2D((32, 32), float(rng.normal(0, 5)), 1.0)
            seen = cv2.warpAffine(tile, turn, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REFLECT)
            noisy = np.clip(seen + rng.normal(0, 8, seen.shape), 0, 255).astype(np.uint8)
            write(root / "train" / "drone" / name / f"image-{view:02d}.png", noisy)
        lines.append(f"{name},{47 + 0.001 * (number % 5)},{8 + 0.001 * (number // 5)}")
    if coordinates:
        (root / "coordinates.csv").write_text("\n".join(lines) + "\n")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures this small are not worth a second thread, and it waits for its turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def university(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("university")
    write_university(root)
    return root


def recipe(**changes: object) -> Recipe:
    plan = Recipe(
        name="toy",
        description="",
        seed=7,
        model=ModelConfig("test_resnet", SIDE_PX, 16),
        views=ViewConfig(),
        optim=OptimConfig(
            epochs=4, batch_pairs=8, warmup_steps=2, precision="fp32", save_every=1000
        ),
        data=DataConfig("university1652", val_share=0.2, credit="ours"),
        sampling=SamplingConfig(geographic_epochs=1, mined_every=1, pool=6, select=4),
    )
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def trainer(run: Path, root: Path, plan: Recipe, workers: int = 0) -> Trainer:
    run.mkdir(exist_ok=True)
    return Trainer(plan, DataSource(plan, root, CPU, workers), run, CPU)


def events(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["event"] for line in lines if "event" in line]


def test_training_mines_validates_on_places_never_seen_and_writes_a_checkpoint(
    tmp_path: Path, university: Path
) -> None:
    run = trainer(tmp_path / "run", university, recipe())
    validation = run.train(lambda steps: None)
    assert validation is not None
    assert validation.recall[1] > 0.5
    written = validation.as_dict()
    assert written["protocol"] == "validation: 4 held-out places of the training split"
    assert (written["queries"], written["gallery"]) == (12, 4)
    # 16 places of 3 views are left: 48 pairs, 6 batches of 8, nothing dropped.
    assert run.step == 4 * 6
    found = events(tmp_path / "run")
    assert [sorted(event) for event in found] == [
        ["dropped", "hardness", "plan_s"],
        *[["dropped", "hardness", "mining_s", "plan_s", "train_recall_at_1"]] * 3,
    ]
    assert {event["dropped"] for event in found} == {0.0}
    _, spec = load_checkpoint(tmp_path / "run" / "encoder.safetensors")
    assert spec.provenance["credits"] == ["ours"]
    assert (spec.gsd_min_m, spec.gsd_max_m) == UNKNOWN_GSD_M
    assert not spec.north_up


@pytest.mark.parametrize("stop_at", [8, 12, 15])
def test_a_training_stopped_in_an_epoch_or_at_its_end_resumes_to_the_same_bits(
    tmp_path: Path, university: Path, stop_at: int
) -> None:
    """Lists come from weights that are gone, dropout and augmentation from the step's number."""
    whole = trainer(tmp_path / "whole", university, recipe())
    whole.train(lambda steps: None)

    first = trainer(tmp_path / "parts", university, recipe())

    def stop(steps: int) -> None:
        if first.step == stop_at:
            first._on_signal(signal.SIGTERM, None)

    assert first.train(stop) is None
    second = trainer(tmp_path / "parts", university, recipe())
    second.resume()
    assert second.step == stop_at
    second.train(lambda steps: None)
    assert model_id(second.encoder) == model_id(whole.encoder)
    assert model_id(second.averaged) == model_id(whole.averaged)
    assert torch.equal(second.loss.log_scale, whole.loss.log_scale)


def test_worker_processes_make_the_same_batches(tmp_path: Path, university: Path) -> None:
    plan = recipe(optim=dataclasses.replace(recipe().optim, epochs=2))
    ended = []
    for workers in (0, 2):
        run = trainer(tmp_path / f"run{workers}", university, plan, workers)
        run.train(lambda steps: None)
        ended.append(model_id(run.encoder))
    assert ended[0] == ended[1]


def test_several_views_of_a_place_train_as_positives_of_each_other(
    tmp_path: Path, university: Path
) -> None:
    sampling = SamplingConfig(pool=6, select=4, views_per_reference=2)
    source = DataSource(recipe(sampling=sampling), university, CPU, 0)
    source.prepare(0, lambda images, view: np.zeros((len(images), 4), np.float32))
    batch = next(source.batches(0))
    assert batch.targets is not None
    assert batch.targets.weights.sum(dim=1).tolist() == [2.0] * 8
    source.close()


def test_a_damaged_picture_is_left_out_and_the_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_university(tmp_path / "data")
    for number in range(PLACES):  # whichever places are held out, some of these train
        (tmp_path / "data" / "train" / "drone" / f"{number:04d}" / "image-00.png").write_bytes(b"x")
    plan = recipe(
        optim=dataclasses.replace(recipe().optim, epochs=2), data=DataConfig("university1652")
    )
    run = trainer(tmp_path / "run", tmp_path / "data", plan)
    run.train(lambda steps: None)
    assert "image-00.png: " in capsys.readouterr().err
    assert torch.isfinite(next(run.encoder.parameters())).all()


def test_too_many_damaged_pictures_end_the_training_with_their_names(tmp_path: Path) -> None:
    write_university(tmp_path / "data")
    for number in range(PLACES):
        (tmp_path / "data" / "train" / "drone" / f"{number:04d}" / "image-00.png").write_bytes(b"x")
    plan = recipe(loading=LoadConfig(unreadable_limit=2))
    with pytest.raises(InputError, match="3 unreadable images, unreadable_limit is 2: "):
        trainer(tmp_path / "run", tmp_path / "data", plan).train(lambda steps: None)


def test_geographic_lists_need_positions(tmp_path: Path) -> None:
    write_university(tmp_path, coordinates=False)
    with pytest.raises(InputError) as error:
        DataSource(recipe(), tmp_path, CPU, 0)
    assert str(error.value).endswith(
        "gives no positions of its references, which [sampling] geographic_epochs needs; add "
        "coordinates.csv, or set it to 0"
    )


def test_a_set_smaller_than_a_batch_is_refused(university: Path) -> None:
    plan = recipe(optim=dataclasses.replace(recipe().optim, batch_pairs=64))
    with pytest.raises(InputError, match="batch_pairs = 64, but only 48 pairs are left to train"):
        DataSource(plan, university, CPU, 0)


def test_gradient_caching_trains_the_nested_dimensions_of_a_pooling_encoder(
    tmp_path: Path, university: Path
) -> None:
    plan = recipe(
        model=ModelConfig("test_convnext", SIDE_PX, 0, head="pool"),
        loss=LossConfig(nested_dims=(8, 32)),
        optim=dataclasses.replace(recipe().optim, epochs=1, chunk_pairs=3, grad_checkpointing=True),
    )
    run = trainer(tmp_path / "run", university, plan)
    run.train(lambda steps: None)
    _, spec = load_checkpoint(tmp_path / "run" / "encoder.safetensors")
    assert (spec.head, spec.embedding_dim, spec.nested_dims) == ("pool", 64, (8, 32, 64))


RECIPE = """
seed = 7
[model]
backbone = "test_resnet"
input_px = 64
embedding_dim = 16
[data]
kind = "university1652"
val_share = 0.2
[sampling]
geographic_epochs = 1
mined_every = 1
pool = 6
select = 4
[optim]
epochs = 3
batch_pairs = 8
precision = "fp32"
"""


def test_two_processes_train_one_encoder(tmp_path: Path, university: Path) -> None:
    """As torchrun starts them: mining, validation and the checkpoint happen once."""
    plan = tmp_path / "toy.toml"
    plan.write_text(RECIPE)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    launcher += ["--nproc-per-node", "2", "-m", "s4g.train.cli"]
    arguments = ["--recipe", plan, "--data", university, "--out", tmp_path / "run"]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, arguments), "--workers", "0", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("validation R@1") == 3
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["queries"] == 12
    assert len(events(tmp_path / "run")) == 3
    load_checkpoint(tmp_path / "run" / "encoder.safetensors")
