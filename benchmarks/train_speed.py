"""Pairs per second of training: tensors that lie ready, and pictures from files.

    python benchmarks/train_speed.py --backbone convnext_base --px 384 --pairs 128
    python benchmarks/train_speed.py --backbone resnet10t --px 128 --pairs 64 --device cpu

Beside it stands the share of the rate at which this device multiplies large matrices, measured in
the same run: what is left of that share is the limit.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch

from s4g.core.images import encode_rgb
from s4g.train.batches import SamplingConfig
from s4g.train.data_source import DataSource
from s4g.train.dataset import DataConfig
from s4g.train.loop import Trainer
from s4g.train.model import ModelConfig
from s4g.train.opening import DEVICES, torch_device
from s4g.train.recipe import OptimConfig, Recipe, ViewConfig
from s4g.train.source import Batch, BatchSource, Embed

_MATRIX = {"cuda": 8192, "cpu": 2048}
_MATRIX_RUNS = 10
_FILE_PX = 512  # University-1652's pictures
_BATCHES = 4  # that the files make up; read again from epoch to epoch


class ReadyBatches:
    """One batch that lies on the device, over and over: what the network alone can do."""

    gsd_range_m = (1.0, 1.0)
    north_up = False

    def __init__(self, pairs: int, px: int, steps: int, device: torch.device) -> None:
        """Draw the pictures."""
        shape = (pairs, 3, px, px)
        images = [torch.randn(shape, device=device) for _ in range(2)]
        self._batch = Batch(*(i.contiguous(memory_format=torch.channels_last) for i in images))
        self.steps_per_epoch, self.epochs = steps, 1
        self.credits: list[str] = []

    def prepare(self, epoch: int, embed: Embed) -> dict[str, float]:
        """Plan nothing."""
        return {}

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batch."""
        for _ in range(first, self.steps_per_epoch):
            yield self._batch

    def validate(self, embed: Embed) -> None:
        """Validate nothing."""

    def state(self) -> dict[str, torch.Tensor]:
        """Have none."""
        return {}

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take none."""

    def close(self) -> None:
        """Hold nothing."""


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating point operations per second of a large square matrix product."""
    side = _MATRIX[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(_MATRIX_RUNS):
        start = now(device)
        a @ b
        seconds.append(now(device) - start)
    return 2 * side**3 / statistics.median(seconds)


def now(device: torch.device) -> float:
    """Return the time when everything handed to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def forward_flops(trainer: Trainer, px: int) -> float:
    """Return the floating point operations of embedding one picture."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trainer.averaged(torch.zeros(1, 3, px, px, device=trainer.device))
    return float(counter.get_total_flops())


def write_places(root: Path, places: int) -> None:
    """Write a University-1652 training split of noise that JPEG finds as hard as photos."""
    rng = np.random.default_rng(0)
    for number in range(places):
        for view, file in (("satellite", f"{number:04d}.jpg"), ("drone", "image-01.jpeg")):
            coarse = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            image = np.kron(coarse, np.ones((_FILE_PX // 64, _FILE_PX // 64, 1), np.uint8))
            folder = root / "train" / view / f"{number:04d}"
            folder.mkdir(parents=True)
            (folder / file).write_bytes(encode_rgb(image, ".jpg", 90))


def speed(trainer: Trainer, steps: int, warm_up: int) -> tuple[float, float]:
    """Train some steps; return the median seconds of one and the share waited for data.

    The first steps, in which libraries choose their kernels and workers start, do not count.
    """
    seconds: list[float] = []
    waited: list[float] = []
    epoch = 0
    while len(seconds) < steps:
        trainer.source.prepare(epoch, trainer.embed)
        start = now(trainer.device)
        for batch in trainer.source.batches(0):
            got = time.perf_counter()
            trainer._train_step(batch)
            trainer.step += 1
            end = now(trainer.device)
            seconds.append(end - start)
            waited.append(got - start)
            start = end
        epoch += 1
    trainer.source.close()
    counted = seconds[warm_up:]
    return statistics.median(counted), sum(waited[warm_up:]) / sum(counted)


@click.command()
@click.option("--backbone", default="convnext_base", show_default=True)
@click.option("--px", default=384, show_default=True)
@click.option("--pairs", default=128, show_default=True)
@click.option("--steps", default=30, show_default=True)
@click.option("--warm-up", default=5, show_default=True)
@click.option("--precision", default="bf16", show_default=True)
@click.option("--chunk", default=0, show_default=True, help="Pairs at a time; 0: all.")
@click.option("--compile", "compiled", is_flag=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--threads", type=int)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
def main(
    backbone: str,
    px: int,
    pairs: int,
    steps: int,
    warm_up: int,
    precision: str,
    chunk: int,
    compiled: bool,
    workers: int,
    threads: int | None,
    device: str,
) -> None:
    """Measure and print a table."""
    if threads:
        torch.set_num_threads(threads)
    place = torch.device(torch_device(device))
    recipe = Recipe(
        name="speed",
        description="",
        seed=0,
        model=ModelConfig(backbone, px, 0, head="pool"),
        views=ViewConfig(),
        optim=OptimConfig(
            epochs=1, batch_pairs=pairs, chunk_pairs=chunk, precision=precision, compile=compiled
        ),
        data=DataConfig("university1652", val_share=0.0),
        sampling=SamplingConfig(),
    )
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    rate = matrix_rate(place, dtype)
    name = torch.cuda.get_device_name() if place.type == "cuda" else platform.processor()
    cores = "" if place.type == "cuda" else f", {torch.get_num_threads()} threads"
    print(f"{name or place}{cores}, torch {torch.__version__}")
    print(f"{backbone}, {px} px, {pairs} pairs, {precision}, chunk {chunk or 'all'}", end="")
    print(", compiled" if compiled else "")
    print(f"a large {precision} matrix product: {rate / 1e12:.2f} TFLOP/s\n")
    print(f"{'':12}{'pairs/s':>9}{'ms/step':>9}{'TFLOP/s':>9}{'of matrix rate':>16}{'waiting':>9}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_places(root, max(pairs, 8) * _BATCHES)
        sources: dict[str, BatchSource] = {
            "tensors": ReadyBatches(pairs, px, steps, place),
            "files": DataSource(recipe, root, place, workers),
        }
        for label, source in sources.items():
            trainer = Trainer(recipe, source, root, place)
            seconds, waited = speed(trainer, steps, warm_up)
            flops = 3 * 2 * pairs * forward_flops(trainer, px)  # backward counts twice
            print(
                f"{label:12}{pairs / seconds:9.1f}{1000 * seconds:9.1f}"
                f"{flops / seconds / 1e12:9.3f}{100 * flops / seconds / rate:14.1f} %"
                f"{100 * waited:7.1f} %"
            )


if __name__ == "__main__":
    main()
