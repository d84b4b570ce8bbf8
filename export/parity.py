"""How far an exported encoder departs from the one that was trained, on ground it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..core.engine import Embeddings, Engine, Images
from ..core.engine_onnx import UNWANTED_OPTIMISERS
from ..core.errors import S4GError
from ..core.spec import EncoderSpec
from ..core.views import camera_view
from ..train.model import Encoder, normalise
from ..train.retrieval import TIE
from .calibration import middle
from .graph import INPUT_NAME

# Largest difference of any coordinate between torch and the FP32 graph; noise is 1e-7 to 5e-6.
MAX_FP32_DIFFERENCE = 1e-5
# Mean cosine between different places above which an encoder tells nothing apart.
_COLLAPSED_COSINE = 0.999
_BATCH = 8  # at 384 px and with optimisations off more take gigabytes


@dataclass(frozen=True)
class Agreement:
    """How alike two encoders embed the same images.

    Attributes:
        mean: of the cosines.
        p1: their 1st percentile.
        min: the smallest.
        max_difference: largest difference of any coordinate.
    """

    mean: float
    p1: float
    min: float
    max_difference: float

    @classmethod
    def between(cls, first: Embeddings, second: Embeddings) -> Agreement:
        """Compare (N, D) with (N, D), both L2-normalised."""
        cosine = np.einsum("nd,nd->n", first.astype(np.float64), second.astype(np.float64))
        return cls(
            float(cosine.mean()),
            float(np.percentile(cosine, 1)),
            float(cosine.min()),
            float(np.abs(first - second).max()),
        )


@dataclass(frozen=True)
class Recall:
    """Share of views whose own tile is the best match, or among the best five."""

    r1: float
    r5: float

    @classmethod
    def of(cls, views: Embeddings, tiles: Embeddings) -> Recall:
        """Match views (V, D) to tiles (N, D); view i shows tile i mod N, and loses a tie."""
        ahead = _ahead(views, tiles)
        return cls(float((ahead < 1).mean()), float((ahead < 5).mean()))


def _ahead(views: Embeddings, tiles: Embeddings) -> npt.NDArray[np.int64]:
    """Return how many other tiles (N, D) score at least as high as each view's (V, D) own."""
    scores = views @ tiles.T
    own = scores[np.arange(len(views)), own_tiles(len(views), len(tiles))]
    # Not "at least as high", which NaN never is.
    ahead: npt.NDArray[np.int64] = (~(scores < own[:, None] - TIE)).sum(axis=1) - 1
    return ahead


def own_tiles(views: int, tiles: int) -> npt.NDArray[np.int64]:
    """Return the row of each view's own tile, (V,): views come in rounds over the tiles."""
    return np.arange(views) % tiles


@dataclass(frozen=True)
class Changes:
    """Views whose own tile one encoder ranks first and another does not.

    Attributes:
        lost: the first encoder does, the second does not.
        gained: the other way round. A recall that falls by less than the square root of both
            together may fall by chance.
    """

    lost: int
    gained: int

    @classmethod
    def between(cls, first: Paired, second: Paired) -> Changes:
        """Compare two encoders on the same pairs."""
        before, after = (_ahead(p.views, p.tiles) < 1 for p in (first, second))
        return cls(int((before & ~after).sum()), int((after & ~before).sum()))


def top1_agreement(first: Paired, second: Paired) -> float:
    """Return the share of views for which both encoders rank the same tile first."""
    same = (first.views @ first.tiles.T).argmax(axis=1) == (second.views @ second.tiles.T).argmax(
        axis=1
    )
    return float(same.mean())


@dataclass(frozen=True)
class Pairs:
    """Tiles, a camera's views of them, and a flight's frames: (…, px, px, 3) uint8.

    Attributes:
        tiles: (N, px, px, 3).
        views: (V, px, px, 3), V a multiple of N; view i shows tile i mod N.
        frames: (F, px, px, 3).
    """

    tiles: Images
    views: Images
    frames: Images

    @property
    def images(self) -> Images:
        """Tiles, then views, then frames: (N + V + F, px, px, 3)."""
        return np.concatenate([self.tiles, self.views, self.frames])

    def paired(self, embeddings: Embeddings) -> Paired:
        """Part the embeddings of `images` again."""
        views = len(self.tiles), len(self.tiles) + len(self.views)
        return Paired(embeddings[: views[0]], embeddings[slice(*views)])


@dataclass(frozen=True)
class Paired:
    """Embeddings of tiles (N, D) and of their views (V, D)."""

    tiles: Embeddings
    views: Embeddings

    @property
    def recall(self) -> Recall:
        """Views matched to tiles."""
        return Recall.of(self.views, self.tiles)


def make_pairs(places: Images, frames: Images, seed: int, views: int = 0) -> Pairs:
    """Make a tile and camera-like views of every place.

    A view has the errors that a frame has after it was turned north-up by telemetry: heading,
    residual tilt, height and position; and other light, blur and noise.

    Args:
        places: (N, q, q, 3) uint8 with q > px; the tile is the middle.
        frames: (F, px, px, 3) uint8, taken as they are.
        seed: of the errors.
        views: at least so many views, every place seen equally often, and at least once.
    """
    rng = np.random.default_rng(seed)
    input_px = frames.shape[1]
    rounds = max(1, -(-views // max(1, len(places))))
    made = [camera_view(place, input_px, rng) for _ in range(rounds) for place in places]
    shape = (0, input_px, input_px, 3)
    return Pairs(
        middle(places, input_px), np.stack(made) if made else np.zeros(shape, np.uint8), frames
    )


def embed_torch(encoder: Encoder, spec: EncoderSpec, images: Images) -> Embeddings:
    """Embed images (N, px, px, 3) uint8 with the trained network; return (N, D) float32."""
    parts = []
    with torch.no_grad():
        for batch in _batches(images):
            normalised = normalise(torch.from_numpy(batch), spec.mean, spec.std)
            parts.append(encoder(normalised).numpy())
    return np.concatenate(parts)


def embed_engine(engine: Engine, images: Images) -> Embeddings:
    """Embed images with an engine, as pack and run will; return (N, D) float32."""
    return np.concatenate([engine.embed(batch) for batch in _batches(images)])


def embed_graph(model: bytes, images: Images, literal: bool = False) -> Embeddings:
    """Embed images with a graph that is no file yet; return (N, D) float32.

    Args:
        model: ONNX file.
        images: (N, px, px, 3) uint8.
        literal: with every optimisation off: the arithmetic the file spells out.

    Raises:
        S4GError: ONNX Runtime cannot run it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    if literal:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=UNWANTED_OPTIMISERS,
        )
    except Exception as error:  # ONNX Runtime has its own kinds, one for each status
        reason = " ".join(str(error).split())
        raise S4GError(
            f"the graph cannot be run by ONNX Runtime ({reason}); choose another backbone"
        ) from error
    return np.concatenate([session.run(None, {INPUT_NAME: batch})[0] for batch in _batches(images)])


def _batches(images: Images) -> Iterator[Images]:
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH]


def check_fp32(file: str, trained: Embeddings, exported: Embeddings) -> float:
    """Return the largest difference of any coordinate.

    Raises:
        S4GError: it is above `MAX_FP32_DIFFERENCE`, or not a number.
    """
    difference = float(np.abs(trained - exported).max())
    if not difference <= MAX_FP32_DIFFERENCE:
        raise S4GError(
            f"{file}: differs from the checkpoint by {difference:.2g} in a coordinate, at most "
            f"{MAX_FP32_DIFFERENCE:g} is allowed; the exporter mistranslates this backbone, "
            "choose another"
        )
    return difference


def check_distinct(file: str, tiles: Embeddings) -> float:
    """Return the mean cosine between embeddings of different places (N, D).

    Raises:
        S4GError: they are all the same, so that nothing can be told apart.
    """
    count = len(tiles)
    total = tiles.sum(axis=0, dtype=np.float64)
    cosine = float((total @ total - count) / (count * (count - 1)))
    if not cosine < _COLLAPSED_COSINE:
        raise S4GError(
            f"{file}: embeds different places alike (mean cosine {cosine:.5f}); "
            "the weights have collapsed or were never trained, train again"
        )
    return cosine
