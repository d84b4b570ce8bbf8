"""Measure reading, loading and augmentation: `python benchmarks/loader.py`.

Images a second: decoding whole against decoding at reduced scale, batches of pairs from 0, 1 and 2
processes, and the original's augmentation on the CPU. Pictures are synthetic JPEGs of the data
sets' sizes unless --data names a folder of real ones. Variants take turns, and the median counts:
a busy machine then slows all alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt
import torch

from s4g.core.console import run_command
from s4g.core.errors import InputError
from s4g.core.images import encode_rgb, list_images, read_rgb
from s4g.train.augment import Augment, AugmentConfig, Geometry
from s4g.train.dataset import PairSet
from s4g.train.layout import FileImages
from s4g.train.loading import PairLoader
from s4g.train.reading import read_resized, resize
from s4g.train.relations import Relations

_PER_KIND = 8  # pictures of each size
# What, (H, W) on disk, (H, W) of the model's input.
_KINDS = (
    ("University-1652 view", (512, 512), (384, 384)),
    ("CVUSA panorama", (224, 1232), (140, 768)),
    ("VIGOR panorama", (1024, 2048), (384, 768)),
    ("drone photo, 20 megapixels", (3648, 5472), (384, 384)),
)
_WORKERS = (0, 1, 2)
_BATCH_PAIRS = 32
_BATCHES = 6


def _photo(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return noise of many scales, which costs a decoder about what a photo does."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells, amplitude in ((4, 50), (16, 30), (64, 20), (256, 12)):
        coarse = rng.standard_normal((cells, cells, 3), np.float32) * amplitude
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(image + 128, 0, 255), np.uint8)


def _write(folder: Path, name: str, size: tuple[int, int]) -> list[Path]:
    paths = []
    for index in range(_PER_KIND):
        path = folder / f"{name.split(',')[0].replace(' ', '_')}_{index}.jpg"
        path.write_bytes(encode_rgb(_photo(*size, seed=index), ".jpg", 92))
        paths.append(path)
    return paths


def _rates(variants: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Return the median images a second of each variant; a variant returns how many it made."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():  # caches, libraries, processes
        run()
    for _ in range(repeats):
        for name, run in variants.items():
            start = time.perf_counter()
            images = run()
            times[name].append(images / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _reading(paths: list[Path], size: tuple[int, int], repeats: int) -> dict[str, float]:
    def whole() -> int:
        return len([resize(read_rgb(path), *size) for path in paths])

    def reduced() -> int:
        return len([read_resized(path, *size) for path in paths])

    return _rates({"whole": whole, "reduced": reduced}, repeats)


def _loading(paths: list[Path], size: tuple[int, int], repeats: int) -> dict[str, float]:
    numbers = np.arange(_BATCH_PAIRS * _BATCHES, dtype=np.int32)
    files = FileImages(Path("/"), [str(paths[i % len(paths)])[1:] for i in numbers])
    relations = Relations.from_edges(numbers, numbers, len(numbers))
    weights = np.ones(len(numbers), np.float32)
    pairs = PairSet("benchmark", files, files, numbers, numbers, weights, relations)
    plan = numbers.reshape(_BATCHES, _BATCH_PAIRS)
    loaders = {
        f"{workers} workers, jpeg {jpeg:g}": PairLoader(pairs, size, size, workers, 0, 0, jpeg=jpeg)
        for workers in _WORKERS
        for jpeg in (0.0, 0.5)
    }

    def epoch_of(loader: PairLoader) -> Callable[[], int]:
        return lambda: sum(2 * len(batch.pairs) for batch in loader.epoch(plan))

    rates = _rates({name: epoch_of(loader) for name, loader in loaders.items()}, repeats)
    for loader in loaders.values():
        loader.close()
    return rates


def _augmenting(repeats: int) -> dict[str, float]:
    photos = np.stack([_photo(384, 384, seed) for seed in range(_BATCH_PAIRS)])
    images = torch.from_numpy(photos)
    settings = {
        "normalised only": AugmentConfig(
            flip=0.0, jpeg=0.0, colour=0.0, blur_or_sharpen=0.0, dropout=0.0
        ),
        "the original's": AugmentConfig(rotate="reference"),
        "with heading, scale, tilt": AugmentConfig(
            rotate="reference", heading_deg=5.0, scale=0.1, tilt_deg=4.0
        ),
    }
    geometry: Geometry = "nadir"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def batch_of(augment: Augment) -> Callable[[], int]:
        return lambda: sum(map(len, augment(images, images, 0)))

    variants = {n: batch_of(Augment(c, geometry, mean, std)) for n, c in settings.items()}
    return _rates(variants, repeats)


def _print(title: str, rates: dict[str, float]) -> None:
    print(title)
    for name, rate in rates.items():
        print(f"  {name:28s} {rate:9.1f} images/s")


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of pictures to read instead.")
@click.option("--repeats", default=5, show_default=True, help="Runs whose median is printed.")
@click.option("--threads", default=1, show_default=True, help="Threads of OpenCV in this process.")
def main(data: Path | None, repeats: int, threads: int) -> None:
    """Print images a second."""
    if repeats < 1:
        raise InputError(f"--repeats {repeats}: must be 1 or more")
    cv2.setNumThreads(threads)
    print(f"{torch.get_num_threads()} threads of torch, {threads} of OpenCV")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if data is not None:
            kinds = [(str(data), list_images(data)[: 4 * _PER_KIND], (384, 384))]
        else:
            kinds = [(what, _write(folder, what, size), target) for what, size, target in _KINDS]
        for what, paths, target in kinds:
            height, width = target
            _print(f"{what} to {height} x {width}", _reading(paths, target, repeats))
        what, paths, target = kinds[0]
        _print(f"batches of {_BATCH_PAIRS} pairs, {what}", _loading(paths, target, repeats))
    _print(f"augmentation of {_BATCH_PAIRS} pairs at 384 x 384", _augmenting(repeats))


if __name__ == "__main__":
    run_command(main)
