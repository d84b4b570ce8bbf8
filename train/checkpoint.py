"""Checkpoints: weights and EncoderSpec in one safetensors file, training state beside it.

safetensors holds tensors and text only: loading a foreign file runs no code.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from ..core.errors import InputError, IntegrityError
from ..core.files import atomic_file
from ..core.spec import SPEC_KEY, EncoderSpec
from .model import Encoder, ModelConfig

CHECKPOINT_NAME = "encoder.safetensors"  # in a run folder


def model_id(encoder: Encoder) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of the weights, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: Path, encoder: Encoder, spec: EncoderSpec, overwrite: bool = False
) -> None:
    """Write weights and spec atomically.

    Raises:
        InputError: the file exists and `overwrite` is false.
    """
    _save(path, _contiguous(encoder.state_dict()), {SPEC_KEY: spec.to_json()}, overwrite)


def load_checkpoint(path: Path) -> tuple[Encoder, EncoderSpec]:
    """Read a checkpoint; the encoder is in evaluation mode.

    Raises:
        InputError: no such file, no spec in it, or weights that do not fit the spec's backbone.
        IntegrityError: the file is no safetensors file, or the weights are not those of its id.
    """
    tensors, metadata = _load(path)
    if SPEC_KEY not in metadata:
        raise InputError(
            f"{path}: a safetensors file without an encoder spec; train with s4g-train"
        )
    spec = EncoderSpec.from_json(metadata[SPEC_KEY], str(path))
    config = ModelConfig(
        spec.backbone, spec.input_px, spec.embedding_dim, spec.head, spec.query_px or ()
    )
    config.check(str(path))
    encoder = Encoder(config, initialise=False)
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError:
        raise InputError(
            f"{path}: its weights do not fit {spec.backbone} at {spec.input_px} px; "
            "it was made by another version of s4g"
        ) from None
    if model_id(encoder) != spec.model_id:
        raise IntegrityError(f"{path}: its weights are not those of its model id; it was altered")
    return encoder.eval(), spec


def start_from(encoder: Encoder, path: Path, recipe: str) -> None:
    """Give an encoder the weights of a checkpoint.

    Args:
        encoder: as the recipe describes it.
        path: the checkpoint.
        recipe: the recipe's name, for errors.

    Raises:
        InputError: the checkpoint cannot be read, or is of another architecture.
        IntegrityError: the file is no safetensors file, or was altered.
    """
    given, _ = load_checkpoint(path)
    wanted = encoder.config.backbone.split(".")[0], encoder.head
    try:
        if (given.config.backbone.split(".")[0], given.head) != wanted:
            raise RuntimeError
        encoder.load_state_dict(given.state_dict())
    except RuntimeError:  # shapes differ
        raise InputError(
            f"--init {path}: is {_described(given)}; recipe {recipe} trains "
            f"{_described(encoder)}; give a checkpoint of the recipe's [model], or change it"
        ) from None


def _described(encoder: Encoder) -> str:
    config = encoder.config
    architecture = config.backbone.split(".")[0]
    return f"{architecture}, {config.input_px} px, head {encoder.head}, {encoder.embedding_dim}-d"


def save_state(path: Path, tensors: dict[str, torch.Tensor], values: dict[str, object]) -> None:
    """Write training state (tensors and JSON values) atomically, replacing an older one."""
    _save(path, _contiguous(tensors), {"values": json.dumps(values)}, overwrite=True)


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Read what `save_state` wrote.

    Raises:
        IntegrityError: the file is no safetensors file with training state.
    """
    tensors, metadata = _load(path)
    try:
        values = json.loads(metadata["values"])
    except (KeyError, ValueError):
        raise IntegrityError(f"{path}: holds no training state; remove it to start anew") from None
    return tensors, values


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # Cloned: safetensors refuses tensors that share storage.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _save(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], overwrite: bool
) -> None:
    from safetensors.torch import save

    data = save(tensors, metadata)
    with atomic_file(path, overwrite) as temporary:
        temporary.write_bytes(data)


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise IntegrityError(f"{path}: not a safetensors checkpoint ({error})") from None
