"""Compare our Q/DQ placement for TensorRT with NVIDIA's: `python benchmarks/modelopt_placement.py
bundle/encoder.fp32.onnx --calib tiles/`.

ModelOpt, ONNX Runtime's own tool and `s4g.export.place_tensorrt` quantise one FP32 graph on the
same images, by the whole range of each activation. Printed are, by operator, what its inputs come
from (`int8`: out of a Q/DQ pair; `weights`: INT8 constants; `float`; `const`: float constants),
the cosine of embeddings to FP32 on held-out places, and how many faults our linter finds.

ModelOpt (`pip install 'nvidia-modelopt[onnx]'`) is 2 GB and brings an ONNX Runtime of its own:
give it an environment of its own. It needs no GPU for this.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx

from s4g.core.console import run_command, say
from s4g.core.errors import InputError
from s4g.core.spec import SPEC_KEY, EncoderSpec
from s4g.export.calibration import cut_tiles, middle
from s4g.export.graph import INPUT_NAME
from s4g.export.half import cast_images_first
from s4g.export.lint import lint_tensorrt
from s4g.export.onnx_graph import LAYOUT, OnnxGraph, attribute
from s4g.export.parity import embed_graph
from s4g.export.place_tensorrt import place
from s4g.export.prepare import prepare
from s4g.export.ranges import choose_ranges, measure

_LAYERS = ("Conv", "MatMul", "Gemm")
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")

Images = npt.NDArray[np.uint8]


class _Reader:
    """Feeds images to ONNX Runtime's calibrator, one at a time."""

    def __init__(self, images: Images) -> None:
        self._images = iter(images[:, None])

    def get_next(self) -> dict[str, Images] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT_NAME: image}


def by_modelopt(prepared: Path, output: Path, images: Images) -> None:
    """Quantise with NVIDIA's tool; what is not INT8 stays FP32."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(prepared),
        quantize_mode="int8",
        calibration_data={INPUT_NAME: images},
        calibration_method="max",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(output),
        log_level="WARNING",
    )


def by_onnxruntime(prepared: Path, output: Path, images: Images) -> None:
    """Quantise with the settings of ONNX Runtime's tool that make a graph legal for TensorRT."""
    from onnxruntime import quantization as ort

    options: dict[str, Any] = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "OpTypesToExcludeOutputQuantization": list(_LAYERS),
    }
    ort.quantize_static(
        prepared,
        output,
        _Reader(images),
        quant_format=ort.QuantFormat.QDQ,
        activation_type=ort.QuantType.QInt8,
        weight_type=ort.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=list(_LAYERS),
        extra_options=options,
    )


def sources(model: bytes) -> Counter[tuple[str, str]]:
    """Count nodes by operator and by what each of its inputs comes from."""
    graph = OnnxGraph(model)

    def kind(name: str) -> str:
        node = graph.producers.get(name)
        while node is not None and (node.op_type in LAYOUT or node.op_type == "Cast"):
            name = node.input[0]
            node = graph.producers.get(name)
        if node is None:
            return "const" if name in graph.constants else "input"
        if node.op_type != "DequantizeLinear":
            return "float"
        made = graph.producers.get(node.input[0])
        root = node.input[0] if made is None else made.input[0]
        return "weights" if root in graph.constants else "int8"

    counts: Counter[tuple[str, str]] = Counter()
    for node in graph:
        if node.op_type in LAYOUT or node.op_type in (*_QUANTISERS, "Cast", "Shape"):
            continue
        depthwise = " (grouped)" if attribute(node, "group", 1) > 1 else ""
        kinds = " + ".join(kind(name) for name in node.input if name)
        counts[node.op_type + depthwise, kinds] += 1
    return counts


def table(graphs: dict[str, bytes], prepared: bytes, images: Images) -> list[str]:
    """Return the comparison as lines of text."""
    counted = {name: sources(model) for name, model in graphs.items()}
    rows = sorted(set().union(*counted.values()))
    lines = [f"{'':<52}" + "".join(f"{name:>14}" for name in graphs)]
    for row in rows:
        cells = "".join(f"{counts[row] or '':>14}" for counts in counted.values())
        lines.append(f"{row[0]:<22}{row[1]:<30}{cells}")
    exact = embed_graph(prepared, images)
    cosines = [(embed_graph(m, images, True) * exact).sum(axis=1) for m in graphs.values()]
    faults = [len(lint_tensorrt(model)) for model in graphs.values()]
    rows_of_numbers = {
        "cosine to FP32, mean": [f"{c.mean():.5f}" for c in cosines],
        "cosine to FP32, lowest": [f"{c.min():.5f}" for c in cosines],
        "faults by s4g.export.lint": [str(count) for count in faults],
    }
    for name, cells in rows_of_numbers.items():
        lines.append(f"{name:<52}" + "".join(f"{cell:>14}" for cell in cells))
    return lines


@click.command()
@click.argument("graph", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--calib", required=True, help="Imagery, as of s4g-export.")
@click.option("--images", type=int, default=64, show_default=True, help="To calibrate on.")
@click.option("--places", type=int, default=100, show_default=True, help="To judge by.")
def cli(graph: Path, calib: str, images: int, places: int) -> None:
    """Quantise the FP32 file GRAPH of a bundle in four ways and compare."""
    if importlib.util.find_spec("modelopt") is None:
        raise InputError(
            "modelopt is not installed; pip install 'nvidia-modelopt[onnx]' into an environment "
            "of its own, as it replaces onnxruntime"
        )
    model = graph.read_bytes()
    entries = {e.key: e.value for e in onnx.load_from_string(model).metadata_props}
    spec = EncoderSpec.from_json(entries.get(SPEC_KEY, ""), str(graph))
    found = cut_tiles(calib, spec, images, places, 0)
    held_out = middle(found.places, spec.input_px)
    source = OnnxGraph(prepare(model))
    cast_images_first(source)
    prepared = source.to_bytes()
    ranges = choose_ranges(measure(prepared, found.tiles, lambda count: None), "minmax")
    graphs = {
        "ours": place(prepared, ranges),
        "ours, all": place(prepared, ranges, (), "int8", "int8"),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "prepared.onnx")
        path.write_bytes(prepared)
        # In this order: ModelOpt replaces functions of ONNX Runtime's tool.
        for name, quantise in (("ONNX Runtime", by_onnxruntime), ("ModelOpt", by_modelopt)):
            say(f"quantising with {name}")
            quantise(path, Path(folder, "int8.onnx"), found.tiles)
            graphs[name] = Path(folder, "int8.onnx").read_bytes()
    click.echo(f"{spec.backbone}, {spec.input_px} px, {len(found.tiles)} images of {calib}")
    click.echo("\n".join(table(graphs, prepared, held_out)))


if __name__ == "__main__":
    run_command(cli)
