"""Embeddings of pictures: from a checkpoint or an exported engine, each picture once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..core.console import progress
from ..core.engine import Engine, load_engine
from ..core.errors import InputError, S4GError
from ..core.spec import EncoderSpec
from .checkpoint import CHECKPOINT_NAME, load_checkpoint
from .dataset import Image, Images, UnreadableImageError
from .loading import iterate_images
from .model import normalise
from .opening import torch_device

Floats = npt.NDArray[np.float32]
View = Literal["query", "reference"]

# Larger arrays are mapped to a file, so that memory holds only what is in use.
_IN_MEMORY_BYTES = 256 << 20


class Embedder(Protocol):
    """An encoder that turns pictures into embeddings.

    Attributes:
        file: where it came from.
        format: `checkpoint` or `engine`.
        spec: what it is.
    """

    file: str
    format: str
    spec: EncoderSpec

    def size_px(self, view: View) -> tuple[int, int]:
        """Return height and width of the pictures it takes for one side of a task.

        Raises:
            InputError: it cannot take the pictures of this side.
        """
        ...

    def embed(self, images: Image) -> Floats:
        """Embed (B, H, W, 3) uint8 RGB of a size above; return (B, D) float32, L2-normalised."""
        ...


class CheckpointEmbedder:
    """A checkpoint run by torch; bf16 autocast on a GPU, fp32 on a CPU."""

    format = "checkpoint"

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Load the checkpoint; see `load_checkpoint` for what is raised."""
        self.file = str(path)
        encoder, self.spec = load_checkpoint(path)
        self._device = torch.device(device)
        self._encoder = encoder.to(self._device)

    def size_px(self, view: View) -> tuple[int, int]:
        """Return height and width of the pictures of one side."""
        side = self.spec.input_px
        return (self.spec.query_px or (side, side)) if view == "query" else (side, side)

    def embed(self, images: Image) -> Floats:
        """Embed (B, H, W, 3) uint8 RGB; return (B, D) float32, L2-normalised.

        Raises:
            InputError: the batch does not fit the GPU.
        """
        on_gpu = self._device.type == "cuda"
        try:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
                batch = torch.from_numpy(images).to(self._device)
                embeddings = self._encoder(normalise(batch, self.spec.mean, self.spec.std))
            return np.asarray(embeddings.float().cpu().numpy(), np.float32)
        except torch.cuda.OutOfMemoryError:
            raise InputError(
                f"--batch {len(images)}: the GPU has too little memory for so many images; "
                f"try --batch {max(1, len(images) // 2)}"
            ) from None


class EngineEmbedder:
    """An exported engine, FP32 or INT8, run by ONNX Runtime."""

    format = "engine"

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load the engine; see `load_engine` for what is raised."""
        self._engine: Engine = load_engine(path, device)
        self.file, self.spec = self._engine.name, self._engine.spec

    def size_px(self, view: View) -> tuple[int, int]:
        """Return height and width of the pictures of one side.

        Raises:
            InputError: the encoder's queries are panoramas; an engine takes squares only.
        """
        square = (self.spec.input_px,) * 2
        if view == "query" and self.spec.query_px not in (None, square):
            height, width = self.spec.query_px or square
            raise InputError(
                f"{self.file}: its encoder takes queries of {height} x {width} px, this engine "
                f"only images of {square[0]} x {square[1]}; evaluate the checkpoint instead"
            )
        return square

    def embed(self, images: Image) -> Floats:
        """Embed (B, H, W, 3) uint8 RGB; return (B, D) float32, L2-normalised."""
        return self._engine.embed(images)


def open_embedder(path: Path, device: str = "auto") -> Embedder:
    """Load a checkpoint, a training's folder, an exported engine or a bundle's folder.

    Args:
        path: a `.safetensors` or `.onnx` file, or a folder of `s4g-train` or `s4g-export`.
        device: `auto`, `cpu` or `cuda`; torch and ONNX Runtime each know their own GPUs.

    Raises:
        InputError: there is no such file, it is neither, or there is no such device.
        IntegrityError: the file is damaged.
    """
    if not path.exists():
        raise InputError(f"{path}: no such encoder; give a checkpoint or an exported engine")
    if path.suffix == ".safetensors":
        return CheckpointEmbedder(path, torch_device(device))
    if (path / CHECKPOINT_NAME).is_file():  # a run of s4g-train
        return CheckpointEmbedder(path / CHECKPOINT_NAME, torch_device(device))
    if path.suffix == ".onnx" or path.is_dir():
        return EngineEmbedder(path, device)
    raise InputError(
        f"{path}: not an encoder; give a .safetensors checkpoint, an .onnx engine or the folder "
        "of an export"
    )


def embed_images(
    embedder: Embedder,
    images: Images,
    view: View,
    batch: int = 64,
    workers: int = 0,
    out: Path | None = None,
    label: str = "images",
) -> Floats:
    """Embed all pictures, in order.

    Args:
        embedder: what embeds.
        images: N pictures.
        view: which side of a task they are; gives their size.
        batch: pictures at a time.
        workers: processes that read pictures.
        out: map the result to this new `.npy` file; None: keep it in memory.
        label: what the progress bar says.

    Returns:
        (N, D) float32, L2-normalised.

    Raises:
        InputError: a picture cannot be read: a figure over the others would be of another protocol.
        S4GError: an embedding is not finite.
    """
    height_px, width_px = embedder.size_px(view)
    shape = (len(images), embedder.spec.embedding_dim)
    if out is None:
        embeddings: Floats = np.empty(shape, np.float32)
    else:
        embeddings = np.lib.format.open_memmap(out, "w+", np.float32, shape)
    done = 0
    pictures = iterate_images(images, height_px, width_px, batch, workers)
    with progress(label, len(images), "images") as advance, contextlib.closing(pictures):
        try:
            for part in pictures:
                rows = slice(done, done + len(part))
                embeddings[rows] = embedder.embed(part)
                _check_finite(embedder, embeddings[rows], images, done)
                done = rows.stop
                advance(len(part))
        except UnreadableImageError as error:
            raise InputError(f"{error}; an evaluation needs every image of its protocol") from None
    return embeddings


def _check_finite(embedder: Embedder, embeddings: Floats, images: Images, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise S4GError(
            f"{embedder.file}: gives {images.name(first + int(bad[0]))} an embedding that is not "
            "finite; the training diverged, take an earlier checkpoint"
        )


class EmbeddedImages:
    """Embeddings by picture collection: protocols and directions that share one embed it once."""

    def __init__(self, embedder: Embedder, folder: Path, batch: int = 64, workers: int = 0) -> None:
        """Start empty; `folder` exists and takes large arrays for as long as this is used."""
        self._embedder = embedder
        self._folder = folder
        self._batch = batch
        self._workers = workers
        # The collections are kept, so that no other can come to have the same id.
        self._done: dict[tuple[int, tuple[int, int]], tuple[Images, Floats]] = {}

    def of(self, images: Images, view: View, label: str) -> Floats:
        """Return (N, D) float32, as `embed_images`."""
        key = (id(images), self._embedder.size_px(view))
        if key not in self._done:
            size_bytes = 4 * len(images) * self._embedder.spec.embedding_dim
            large = size_bytes > _IN_MEMORY_BYTES
            out = self._folder / f"{len(self._done)}.npy" if large else None
            embeddings = embed_images(
                self._embedder, images, view, self._batch, self._workers, out, label
            )
            self._done[key] = (images, embeddings)
        return self._done[key][1]
