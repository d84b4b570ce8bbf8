"""An exported graph made ready for quantisation: folded, every shape known, every node named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from ..core.errors import S4GError


def prepare(model: bytes) -> bytes:
    """Fold constants and batch norm, infer shapes and name every node.

    This is what ONNX Runtime's quant_pre_process does, which goes on where the optimiser fails.

    Args:
        model: FP32 ONNX file of `graph.export_graph`.

    Raises:
        S4GError: ONNX Runtime cannot run one of its operators.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="s4g-prepare-") as folder:
        output = Path(folder, "prepared.onnx")
        options.optimized_model_filepath = str(output)
        try:
            ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has its own kinds, one for each status
            reason = " ".join(str(error).split())
            raise S4GError(
                f"the graph cannot be run by ONNX Runtime ({reason}); choose another backbone"
            ) from error
        proto = onnx.shape_inference.infer_shapes(onnx.load(str(output)))
    taken = {node.name for node in proto.graph.node}
    for index, node in enumerate(proto.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{index}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)
    result: bytes = proto.SerializeToString(deterministic=True)
    return result
