"""Ways to tell how alike a query and a tile are: encoders, and what they must beat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from condition import Floats, Images

from s4g.core.engine import embedded_encoder_path, load_engine
from s4g.core.files import read_bytes
from s4g.core.spec import EncoderSpec

BASELINE_PX = 128
_BATCH = 64
_RANDOM_SEED = 65_000


@dataclass(frozen=True, eq=False)
class Method:
    """One way.

    Attributes:
        name: for tables.
        size_px: side of the pictures it takes.
        prepare: from (M, S, S, 3) uint8 to what `compare` takes; an array or list of M.
        compare: scores (M, N) of M prepared queries and N prepared tiles, higher is more alike.
        views: most query views that are compared in a condition; 0 for all.
        turns: whether turned pictures are as alike as others: one heading is enough.
        spec: of an encoder.
        about: what was measured: file and hashes.
    """

    name: str
    size_px: int
    prepare: Callable[[Images], Any]
    compare: Callable[[Any, Any], Floats]
    views: int = 0
    turns: bool = False
    spec: EncoderSpec | None = None
    about: str = ""


def cosines(queries: Floats, tiles: Floats) -> Floats:
    """Return the products (M, N) of L2-normalised rows."""
    return np.asarray(queries @ tiles.T, np.float64)


def encoder_method(name: str, path: Path | None) -> Method:
    """Load an ONNX file, a bundle, or a checkpoint (needs torch); the packaged encoder for None.

    Raises:
        InputError: it is none of these.
    """
    path = embedded_encoder_path() if path is None else path
    if path.suffix == ".safetensors":
        embed, spec = _checkpoint(path)
    else:
        engine = load_engine(path, "cpu", 1)
        embed, spec = engine.embed, engine.spec
        path = Path(engine.name)
    digest = hashlib.sha256(read_bytes(path)).hexdigest()
    about = f"{path.name}, SHA-256 {digest[:16]}…, model id {spec.model_id[:16]}…"
    prepare = _once(_batched(embed))
    return Method(name, spec.input_px, prepare, cosines, spec=spec, about=about)


def random_weights(like: EncoderSpec) -> Method | None:
    """Return the network of a spec before any training; None without torch."""
    try:
        import torch

        from s4g.train.model import Encoder, ModelConfig
    except ImportError:
        return None
    torch.manual_seed(_RANDOM_SEED)
    torch.set_num_threads(1)
    config = ModelConfig(like.backbone, like.input_px, like.embedding_dim, like.head)
    embed = _torch_embed(Encoder(config).eval(), like)
    about = f"{like.backbone}, seed {_RANDOM_SEED}"
    return Method("random weights", like.input_px, _batched(embed), cosines, about=about)


def hog_method() -> Method:
    """Return histograms of oriented gradients (Dalal and Triggs 2005): 8 x 8 cells, 9 bins."""
    about = "histograms of oriented gradients, 7 x 7 blocks of 2 x 2 cells of 9 bins"
    return Method("HOG", BASELINE_PX, _batched(_gradients), cosines, about=about)


def _gradients(images: Images) -> Floats:
    """Return descriptors (B, 1764), L2-normalised; as their mean is taken off, not all alike."""
    cells, bins = 8, 9
    side = images.shape[1] // cells
    rows = []
    for image in images:
        picture = cv2.GaussianBlur(grey(image).astype(np.float32), (0, 0), 1.0)
        east, south = np.gradient(picture, axis=1), np.gradient(picture, axis=0)
        place = (np.arctan2(south, east) % np.pi) / np.pi * bins - 0.5
        lower, share = np.floor(place).astype(int), place - np.floor(place)
        length = np.hypot(east, south)
        cell = np.arange(cells * side) // side
        index = (cell[:, None] * cells + cell) * bins
        counts = np.zeros(cells * cells * bins)
        for number, weight in ((lower % bins, 1 - share), ((lower + 1) % bins, share)):
            inside = np.s_[: cells * side, : cells * side]
            where = (index + number[inside]).ravel()
            counts += np.bincount(where, (length * weight)[inside].ravel(), len(counts))
        grid = counts.reshape(cells, cells, bins)
        parts = [grid[y : y + cells - 1, x : x + cells - 1] for y in (0, 1) for x in (0, 1)]
        blocks = np.concatenate(parts, axis=2)
        blocks /= np.linalg.norm(blocks, axis=2, keepdims=True) + 1.0
        rows.append(blocks.ravel() - blocks.mean())
    stacked = np.stack(rows)
    length = np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-9)
    return np.asarray(stacked / length, np.float64)


def grey(image: Images) -> Images:
    """Return (S, S) uint8."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _batched(embed: Callable[[Images], Any]) -> Callable[[Images], Floats]:
    def prepare(images: Images) -> Floats:
        parts = [embed(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
        return np.asarray(np.concatenate(parts), np.float32)

    return prepare


def _once(embed: Callable[[Images], Floats]) -> Callable[[Images], Floats]:
    """Embed no picture twice: a frame's middle is a query, foreign frames are others' own."""
    known: dict[bytes, Floats] = {}

    def prepare(images: Images) -> Floats:
        keys = [hashlib.blake2b(image.tobytes()).digest() for image in images]
        fresh = {key: row for row, key in enumerate(keys) if key not in known}
        if fresh:
            known.update(zip(fresh, embed(images[list(fresh.values())]), strict=True))
        return np.stack([known[key] for key in keys])

    return prepare


def _checkpoint(path: Path) -> tuple[Callable[[Images], Any], EncoderSpec]:
    import torch

    from s4g.train.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    encoder, spec = load_checkpoint(path)
    return _torch_embed(encoder.eval(), spec), spec


def _torch_embed(encoder: Any, spec: EncoderSpec) -> Callable[[Images], Any]:
    import torch

    from s4g.train.model import normalise

    def embed(images: Images) -> Any:
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images))
            return encoder(normalise(batch, spec.mean, spec.std)).float().numpy()

    return embed
