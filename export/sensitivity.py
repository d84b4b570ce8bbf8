"""Which layers INT8 harms: each one quantised alone, and the worst left in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..core.engine import Images
from .bias import Doubles, correct_biases
from .onnx_graph import OnnxGraph
from .parity import Agreement, embed_graph
from .quantise import quantise_cpu


@dataclass(frozen=True)
class LayerLoss:
    """What quantising one layer alone costs.

    Attributes:
        node: name of the layer.
        operator: its ONNX operator.
        loss: 1 - mean cosine between the embeddings with and without.
    """

    node: str
    operator: str
    loss: float


def scan_layers(
    prepared: bytes,
    ranges: Mapping[str, tuple[float, float]],
    shifts: Mapping[str, Doubles],
    images: Images,
    advance: Callable[[int], None],
) -> list[LayerLoss]:
    """Quantise every weighted layer alone, with the activations around it; the worst come first.

    Args:
        prepared: FP32 ONNX file of `prepare.prepare`.
        ranges: (low, high) of every activation.
        shifts: of `bias.mean_shifts`, taken out of a layer's bias; empty: none.
        images: (N, px, px, 3) uint8, to embed.
        advance: hears of each layer done.
    """
    wanted = embed_graph(prepared, images)
    found = []
    for node in OnnxGraph(prepared).weighted():
        own = {node.name: shifts[node.name]} if node.name in shifts else {}
        alone = quantise_cpu(correct_biases(prepared, own), ranges, only=[node.name])
        loss = 1 - Agreement.between(wanted, embed_graph(alone, images)).mean
        found.append(LayerLoss(node.name, node.op_type, max(loss, 0.0)))
        advance(1)
    return sorted(found, key=lambda layer: -layer.loss)
