"""What an ONNX file says about itself, read without the onnx package: spec, facts, signature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_bytes
from .spec import SPEC_KEY, EncoderSpec

EXPORT_KEY = "s4g_export"  # metadata entry that says how the file was made

Tensor = tuple[str, str, Sequence[object]]  # name, type and shape, as a library spells them


def check_signature(
    file: str,
    spec: EncoderSpec,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    types: tuple[str, str],
) -> str:
    """Return the input's name; `types` are the library's names of uint8 and float32.

    Raises:
        InputError: the graph does not do what its spec says.
    """
    side, dim = spec.input_px, spec.embedding_dim
    fits = (
        len(inputs) == len(outputs) == 1
        and inputs[0][1] == types[0]
        and _may_be(inputs[0][2], (None, side, side, 3))
        and outputs[0][1] == types[1]
        and _may_be(outputs[0][2], (None, dim))
    )
    if not fits:
        seen = ", ".join(f"{name} {kind} {shape}" for name, kind, shape in (*inputs, *outputs))
        raise InputError(
            f"{file}: its graph ({seen}) is not the encoder of its spec "
            f"(uint8 (B, {side}, {side}, 3) to float (B, {dim})); export it again"
        )
    return inputs[0][0]


def session_input(file: str, spec: EncoderSpec, session: Any) -> str:
    """Return the input's name of a session of ONNX Runtime.

    Raises:
        InputError: its graph does not do what its spec says.
    """
    inputs = [(v.name, v.type, v.shape) for v in session.get_inputs()]
    outputs = [(v.name, v.type, v.shape) for v in session.get_outputs()]
    return check_signature(file, spec, inputs, outputs, ("tensor(uint8)", "tensor(float)"))


def _may_be(shape: Sequence[object], wanted: tuple[int | None, ...]) -> bool:
    """Return whether a shape, in which names stand for sizes left open, fits."""
    return len(shape) == len(wanted) and all(
        not isinstance(seen, int) or expected in (None, seen)
        for seen, expected in zip(shape, wanted, strict=True)
    )


def read_facts(path: Path) -> dict[str, Any]:
    """Return what the exporter wrote about how an ONNX file was made; empty in older files.

    Raises:
        InputError: the file is not ONNX, or the entry is damaged.
    """
    session = open_to_look(path, read_bytes(path))
    text = session.get_modelmeta().custom_metadata_map.get(EXPORT_KEY, "{}")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise InputError(f"{path}: its metadata entry {EXPORT_KEY} is damaged; export it again")
    return facts


def no_spec(path: Path) -> InputError:
    """Return the error about an ONNX file that is no encoder of ours."""
    return InputError(f"{path}: an ONNX file without an encoder spec; make it with s4g-export")


def first_line(error: Exception) -> str:
    """Return what an error says first, or its type where it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def read_spec(path: Path, session: Any) -> EncoderSpec:
    """Return the encoder's spec; `session` is ONNX Runtime's, of the file `path`.

    Raises:
        InputError: the file has none, or it is damaged.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    if SPEC_KEY not in metadata:
        raise no_spec(path)
    return EncoderSpec.from_json(metadata[SPEC_KEY], str(path))


def open_to_look(path: Path, model: bytes) -> Any:
    """Return a session that is only looked at: no optimisation, which takes most of the time.

    Raises:
        InputError: the file is not ONNX.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the error about a file that ONNX Runtime refuses."""
    return InputError(f"{path}: ONNX Runtime cannot load it ({first_line(error)}); export it again")
