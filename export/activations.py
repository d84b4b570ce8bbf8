"""What flows through a graph: activations, their peaks by channel and their means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from .graph import INPUT_NAME

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_BATCH = 8
# What a batch's tensors may take; those of one image of a large network pass a gigabyte.
_BATCH_BYTES = 2**29


def batch_size(found: Mapping[str, Floats], most: int) -> int:
    """Return how many images make a batch, at most `most`, given the tensors of one image."""
    image_bytes = sum(value.nbytes for value in found.values())
    return min(max(1, _BATCH_BYTES // max(1, image_bytes)), most)


def observe(model: bytes, tensors: Sequence[str], images: Images) -> Iterator[dict[str, Floats]]:
    """Yield the named tensors, of the first image and then of a batch of images at a time.

    Args:
        model: ONNX file.
        tensors: names of tensors that nodes make, float32.
        images: (N, H, W, 3) uint8.
    """
    import onnxruntime as ort

    if not tensors:
        return  # ONNX Runtime refuses to compute nothing
    proto = onnx.load_from_string(model)
    del proto.graph.output[:]
    for name in tensors:
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    done, size = 0, 1
    while done < len(images):
        batch = images[done : done + size]
        found = dict(zip(tensors, session.run(list(tensors), {INPUT_NAME: batch}), strict=True))
        yield found
        if not done:
            size = batch_size(found, _BATCH)
        done += len(batch)


def peaks_by_channel(model: bytes, axes: Mapping[str, int], images: Images) -> dict[str, Doubles]:
    """Return the largest magnitude of each channel, (C,), over images and positions.

    Args:
        model: ONNX file.
        axes: the channels' axis of each tensor, by name; negative counts from the end.
        images: (N, H, W, 3) uint8.
    """
    peaks: dict[str, Doubles] = {}
    for found in observe(model, list(axes), images):
        for name, value in found.items():
            rows = np.moveaxis(value, axes[name], -1).reshape(-1, value.shape[axes[name]])
            peak = np.abs(rows).max(axis=0).astype(np.float64)
            peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    return peaks


def means(model: bytes, tensors: Sequence[str], images: Images) -> dict[str, Doubles]:
    """Return the mean of each tensor over its first axis, that of images: (1, …).

    Args:
        model: ONNX file.
        tensors: names of tensors that nodes make, float32.
        images: (N, H, W, 3) uint8.
    """
    sums: dict[str, Doubles] = {}
    counts: dict[str, int] = {}
    for found in observe(model, list(dict.fromkeys(tensors)), images):
        for name, value in found.items():
            total = value.sum(axis=0, keepdims=True, dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + total
            counts[name] = counts.get(name, 0) + len(value)
    return {name: total / counts[name] for name, total in sums.items()}
