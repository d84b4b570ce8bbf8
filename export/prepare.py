"""An exported graph made ready for quantisation: folded, every shape known, every node named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from ..core.errors import S4GError


def prepare(model: bytes) -> bytes:
    """Fold constants and batch norm, infer shapes and name every node.

    Args:
        model: FP32 ONNX file of `graph.export_graph`.

    Raises:
        S4GError: ONNX Runtime cannot run one of its operators.
    """
    from onnxruntime.quantization import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="s4g-prepare-") as folder:
        source, output = Path(folder, "fp32.onnx"), Path(folder, "prepared.onnx")
        source.write_bytes(model)
        try:
            quant_pre_process(str(source), str(output), skip_symbolic_shape=True)
        except Exception as error:  # ONNX Runtime has its own kinds, one for each status
            reason = " ".join(str(error).split())
            raise S4GError(
                f"the graph cannot be prepared for quantisation ({reason}); choose another "
                "backbone or leave out --int8"
            ) from error
        proto = onnx.load(str(output))
    taken: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)
    result: bytes = proto.SerializeToString(deterministic=True)
    return result
