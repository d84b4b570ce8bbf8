"""Checkpoint to ONNX: one graph from uint8 pixels to unit-length embeddings."""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..core.errors import S4GError
from ..core.onnx_file import EXPORT_KEY
from ..core.spec import SPEC_KEY, EncoderSpec
from ..train.model import Encoder

# 20 is the first opset where GELU is one node, which quantisation then leaves whole; at 18 it is
# five nodes with Q/DQ pairs between them, and slower. TensorRT 10 and newer read it.
OPSET = 20
INPUT_NAME = "images"
OUTPUT_NAME = "embeddings"


class _ExportGraph(nn.Module):
    """Images (B, H, W, 3) uint8 to embeddings (B, D) float32, as the engine contract wants."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, encoder: Encoder, spec: EncoderSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.side_px = spec.input_px
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std)).repeat(spec.input_px))
        self.register_buffer("shift", (-mean / std).repeat(spec.input_px))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # As train.model.normalise, but by whole lines of pixels, with constants as long: three
        # channels innermost are too few for a vector unit, and took 15 % of an INT8 call.
        # The cast comes first: TensorRT takes bytes at its door, not in any other operator.
        lines = images.float().reshape(-1, self.side_px, 3 * self.side_px)
        pixels = (lines * self.scale + self.shift).reshape(-1, self.side_px, self.side_px, 3)
        embeddings: torch.Tensor = self.encoder(pixels.permute(0, 3, 1, 2))
        return embeddings


def export_graph(encoder: Encoder, spec: EncoderSpec) -> bytes:
    """Return the encoder as an FP32 ONNX file with its spec in the metadata.

    The batch is dynamic, height and width are fixed to `spec.input_px`. The tracing exporter is
    used on purpose: it needs no onnxscript and is several times faster than the dynamo exporter
    (docs/exporting.md).

    Raises:
        S4GError: the backbone uses an operation that ONNX cannot express.
    """
    graph = _ExportGraph(simplify(encoder), spec).eval()
    sample = torch.zeros(2, spec.input_px, spec.input_px, 3, dtype=torch.uint8)
    # Asked first, as the exporter prints the whole graph when it meets such an operation.
    if missing := _unknown_operations(graph, sample):
        layer, operations = _layer_with(missing, graph, sample)
        raise S4GError(
            f"backbone {spec.backbone}: layer {layer} uses {', '.join(operations)}, which ONNX "
            "lacks; choose another backbone"
        )
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The tracer calls itself deprecated and reports every constant: nothing to act on.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                (sample,),
                buffer,  # type: ignore[arg-type]  # a stream is accepted by the tracing exporter
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        reason = str(error).strip().splitlines()[0]
        raise S4GError(
            f"backbone {spec.backbone}: cannot be written as ONNX ({reason}); choose another"
        ) from error
    return with_metadata(buffer.getvalue(), dataclasses.replace(spec, precision="fp32"), {})


def _unknown_operations(module: nn.Module, *inputs: torch.Tensor) -> list[str]:
    """Return the operations of a module that the exporter cannot translate, as far as it tells."""
    _load_translations()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            _, missing = torch.onnx.utils.unconvertible_ops(module, inputs, opset_version=OPSET)
        except (RuntimeError, torch.onnx.errors.OnnxExporterError):
            return []  # it cannot be traced by itself
    return sorted({str(name).removeprefix("aten::") for name in missing})


@functools.cache
def _load_translations() -> None:
    """Export next to nothing: torch loads its translations of operations at an export only.

    Asked before, it counts what came with a later opset, attention for one, as missing.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        sink: Any = io.BytesIO()
        torch.onnx.export(nn.ReLU(), (torch.zeros(1),), sink, opset_version=OPSET, dynamo=False)


def _layer_with(
    missing: list[str], graph: nn.Module, sample: torch.Tensor
) -> tuple[str, list[str]]:
    """Return the name of the innermost layer that uses some of the operations, and those."""
    fed: dict[str, tuple[torch.Tensor, ...]] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda module, inputs: fed.update({name: inputs})

    layers = {name: layer for name, layer in graph.named_modules() if name}
    hooks = [layer.register_forward_pre_hook(remember(name)) for name, layer in layers.items()]
    with torch.no_grad():
        graph(sample)
    for hook in hooks:
        hook.remove()
    for name in sorted(fed, key=lambda n: -n.count(".")):
        if own := sorted(set(missing).intersection(_unknown_operations(layers[name], *fed[name]))):
            return name.removeprefix("encoder."), own
    return "encoder", missing


def simplify(encoder: Encoder) -> Encoder:
    """Return a copy that computes the same with fewer operations.

    Training-time branches are merged into single convolutions (RepVGG-style blocks) and
    LayerScale into the layer before it, which keeps Q/DQ pairs out of that product.
    """
    from timm.utils.model import reparameterize_model

    encoder = copy.deepcopy(encoder).eval()
    encoder.backbone = reparameterize_model(encoder.backbone)
    with torch.no_grad():
        for block in encoder.backbone.modules():
            _fold_layer_scale(block)
    return encoder


def _fold_layer_scale(block: nn.Module) -> None:
    """Multiply ConvNeXt's gamma into the last layer of the block's MLP (exact)."""
    gamma = getattr(block, "gamma", None)
    last = getattr(getattr(block, "mlp", None), "fc2", None)
    if not isinstance(gamma, nn.Parameter) or not isinstance(last, (nn.Linear, nn.Conv2d)):
        return
    last.weight.mul_(gamma.reshape(-1, *[1] * (last.weight.ndim - 1)))
    if last.bias is not None:
        last.bias.mul_(gamma)
    block.register_parameter("gamma", None)


def with_metadata(model: bytes, spec: EncoderSpec, made: dict[str, Any]) -> bytes:
    """Return the ONNX file with `spec`, and how it was made, in its metadata."""
    import onnx

    proto = onnx.load_from_string(model)
    proto.producer_name = "s4g"
    entries = {SPEC_KEY: spec.to_json()}
    if made:
        entries[EXPORT_KEY] = json.dumps(made, sort_keys=True, separators=(",", ":"))
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, entries)
    result: bytes = proto.SerializeToString(deterministic=True)
    return result
