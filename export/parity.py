"""How far an exported encoder departs from the one that was trained, on ground it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ..core.camera import Attitude, Camera, ground_from_pixel, pixel_from_ground
from ..core.engine import Embeddings, Engine, Images
from ..core.errors import S4GError
from ..core.spec import EncoderSpec
from ..train.model import Encoder, normalise
from .graph import INPUT_NAME

# Largest difference of any coordinate between torch and the FP32 graph; float noise is 1e-6.
MAX_FP32_DIFFERENCE = 1e-4
# Mean cosine between different places above which an encoder tells nothing apart.
_COLLAPSED_COSINE = 0.999
_BATCH = 32

# What a frame turned north-up with a drone's telemetry still gets wrong (1 sigma).
_HEADING_ERROR_DEG = 3.0
_TILT_ERROR_DEG = 1.0
_SCALE_ERROR = 0.03
_SHIFT_SHARE = 0.04  # of the footprint
_TILT_DEG = 5.0
# Kept below what PLACE_FACTOR leaves around a tile.
_MAX_SIGMAS = 2.0


@dataclass(frozen=True)
class Agreement:
    """Cosine between two encoders' embeddings of the same images."""

    mean: float
    p1: float
    min: float

    @classmethod
    def between(cls, first: Embeddings, second: Embeddings) -> Agreement:
        """Compare (N, D) with (N, D), both L2-normalised."""
        cosine = np.einsum("nd,nd->n", first.astype(np.float64), second.astype(np.float64))
        return cls(float(cosine.mean()), float(np.percentile(cosine, 1)), float(cosine.min()))


@dataclass(frozen=True)
class Recall:
    """Share of views whose own tile is the best match, or among the best five."""

    r1: float
    r5: float

    @classmethod
    def of(cls, views: Embeddings, tiles: Embeddings) -> Recall:
        """Match views (N, D) to tiles (N, D); view i shows tile i."""
        scores = views @ tiles.T
        better = (scores > np.diag(scores)[:, None]).sum(axis=1)
        return cls(float((better < 1).mean()), float((better < 5).mean()))


@dataclass(frozen=True)
class HeldOut:
    """Held-out pairs: tiles (N, px, px, 3) uint8 and a camera's view of each."""

    tiles: Images
    views: Images

    @property
    def images(self) -> Images:
        """Tiles, then views: (2N, px, px, 3)."""
        return np.concatenate([self.tiles, self.views])


def held_out_pairs(places: Images, input_px: int, seed: int) -> HeldOut:
    """Make a tile and a camera-like view of every place.

    The view has the errors that a frame has after it was turned north-up by telemetry: heading,
    residual tilt, height and position; and other light, blur and noise.

    Args:
        places: (N, q, q, 3) uint8 with q > input_px; the tile is the middle.
        input_px: side of tile and view.
        seed: of the errors.
    """
    rng = np.random.default_rng(seed)
    start = (places.shape[1] - input_px) // 2
    tiles = places[:, start : start + input_px, start : start + input_px]
    views = np.stack([_camera_view(place, input_px, rng) for place in places])
    return HeldOut(np.ascontiguousarray(tiles), views)


def _camera_view(place: Images, input_px: int, rng: np.random.Generator) -> Images:
    """Look at a place (one pixel is one metre) with the true attitude, read by the believed one."""
    camera = Camera.from_hfov(input_px, input_px, 60.0)
    agl_m = camera.fx_px
    yaw, pitch, roll = rng.uniform(0, 360), *rng.uniform(-_TILT_DEG, _TILT_DEG, 2)
    true = Attitude(yaw, pitch, roll, agl_m)
    error = np.clip(rng.standard_normal(6), -_MAX_SIGMAS, _MAX_SIGMAS)
    believed = Attitude(
        yaw + _HEADING_ERROR_DEG * error[0],
        pitch + _TILT_ERROR_DEG * error[1],
        roll + _TILT_ERROR_DEG * error[2],
        agl_m * (1 + _SCALE_ERROR * error[3]),
    )
    shift = _SHIFT_SHARE * input_px * error[4:]
    half, middle = (input_px - 1) / 2, (place.shape[0] - 1) / 2
    ground_from_patch = np.array([[1, 0, shift[0] - half], [0, -1, shift[1] + half], [0, 0, 1]])
    place_from_ground = np.array([[1, 0, middle], [0, -1, middle], [0, 0, 1]])
    seen = ground_from_pixel(camera, true) @ pixel_from_ground(camera, believed)
    view = cv2.warpPerspective(
        place,
        place_from_ground @ seen @ ground_from_patch,
        (input_px, input_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return _other_light(np.asarray(view, np.uint8), rng)


def _other_light(image: Images, rng: np.random.Generator) -> Images:
    value = (image.astype(np.float32) / 255) ** rng.uniform(0.8, 1.25)
    value = value * rng.uniform(0.85, 1.15, 3).astype(np.float32) + rng.uniform(-0.05, 0.05)
    blurred = cv2.GaussianBlur(value.astype(np.float32), (0, 0), rng.uniform(0.3, 1.0))
    noisy = blurred + rng.normal(0, rng.uniform(0, 0.02), value.shape)
    return np.asarray(np.clip(np.rint(noisy * 255), 0, 255), np.uint8)


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


def embed_literal(model: bytes, images: Images) -> Embeddings:
    """Embed images with every optimisation off: the arithmetic the file spells out."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
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
