"""Checkpoint to ONNX: same embeddings, one graph, self-describing."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.engine import load_engine  # noqa: E402
from s4g.core.errors import S4GError  # noqa: E402
from s4g.core.onnx_file import EXPORT_KEY  # noqa: E402
from s4g.core.spec import SPEC_KEY, EncoderSpec  # noqa: E402
from s4g.export import graph  # noqa: E402
from s4g.train.checkpoint import load_checkpoint  # noqa: E402
from s4g.train.model import Encoder, ModelConfig, normalise  # noqa: E402


def embed(encoder, spec, images):
    with torch.no_grad():
        return encoder(normalise(torch.from_numpy(images), spec.mean, spec.std)).numpy()


def random_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder, spec = load_checkpoint(toy_checkpoint)
    path = tmp_path_factory.mktemp("graph") / "encoder.onnx"
    path.write_bytes(graph.export_graph(encoder, spec))
    return path


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_graph_embeds_any_batch_as_the_checkpoint_does(exported, toy_checkpoint, batch):
    encoder, spec = load_checkpoint(toy_checkpoint)
    images = random_images(batch)
    found = load_engine(exported, "cpu", 1).embed(images)
    assert found.shape == (batch, spec.embedding_dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, embed(encoder, spec, images), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_graph_takes_uint8_pixels_of_fixed_size_and_any_batch(exported):
    proto = onnx.load(str(exported))
    (entry,) = proto.graph.input
    dims = entry.type.tensor_type.shape.dim
    assert entry.name == "images"
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert dims[0].dim_param == "batch"
    assert [d.dim_value for d in dims[1:]] == [64, 64, 3]
    assert [o.name for o in proto.graph.output] == ["embeddings"]
    assert [o.version for o in proto.opset_import if not o.domain] == [graph.OPSET]


def test_batch_norm_is_folded_into_convolutions(exported):
    kinds = {node.op_type for node in onnx.load(str(exported)).graph.node}
    assert "Conv" in kinds
    assert "BatchNormalization" not in kinds


def test_a_graph_carries_its_spec(exported, toy_checkpoint):
    _, spec = load_checkpoint(toy_checkpoint)
    assert load_engine(exported, "cpu").spec == dataclasses.replace(spec, precision="fp32")


def test_the_same_checkpoint_gives_the_same_bytes(exported, toy_checkpoint):
    encoder, spec = load_checkpoint(toy_checkpoint)
    assert graph.export_graph(encoder, spec) == exported.read_bytes()


def test_metadata_replaces_what_was_there(exported):
    spec = load_engine(exported, "cpu").spec
    changed = dataclasses.replace(spec, precision="int8")
    model = graph.with_metadata(exported.read_bytes(), changed, {"opset": 20})
    model = graph.with_metadata(model, changed, {"opset": 21})
    entries = {p.key: p.value for p in onnx.load_from_string(model).metadata_props}
    assert entries == {SPEC_KEY: changed.to_json(), EXPORT_KEY: '{"opset":21}'}


def backbone_spec(backbone: str) -> EncoderSpec:
    return EncoderSpec(
        "0" * 64, backbone, 64, (0.5,) * 3, (0.25,) * 3, 16, (16,), 0.3, 3.0, True, 0.1
    )


def test_layer_scale_is_folded_without_changing_the_embedding():
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig("test_convnext", 64, 16)).eval()
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    spec, images = backbone_spec("test_convnext"), random_images(3)
    simple = graph.simplify(encoder)
    assert any(name.endswith("gamma") for name, _ in encoder.named_parameters())
    assert not any(name.endswith("gamma") for name, _ in simple.named_parameters())
    np.testing.assert_allclose(embed(simple, spec, images), embed(encoder, spec, images), atol=1e-5)


def test_training_branches_are_merged_without_changing_the_embedding():
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig("repvgg_a0", 64, 16)).eval()
    spec, images = backbone_spec("repvgg_a0"), random_images(3)
    simple = graph.simplify(encoder)

    def convolutions(network):
        return sum(isinstance(m, torch.nn.Conv2d) for m in network.modules())

    assert convolutions(simple) < convolutions(encoder)
    np.testing.assert_allclose(embed(simple, spec, images), embed(encoder, spec, images), atol=1e-4)


def test_an_operation_that_onnx_lacks_is_refused(toy_checkpoint):
    encoder, spec = load_checkpoint(toy_checkpoint)

    class Bessel(torch.nn.Module):
        def forward(self, features):
            return torch.special.bessel_j0(features)

    encoder.reduce = torch.nn.Sequential(encoder.reduce, Bessel())
    with pytest.raises(S4GError) as failure:
        graph.export_graph(encoder, spec)
    assert str(failure.value) == (
        "backbone test_resnet: layer reduce.1 uses special_bessel_j0, which ONNX lacks; choose "
        "another backbone"
    )


def test_attention_is_exported_by_a_process_that_exported_nothing_before() -> None:
    """Until its first export torch knows no translation of operations of later opsets."""
    code = (
        "import torch\n"
        "from s4g.export.graph import _unknown_operations\n"
        "class Attention(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.nn.functional.scaled_dot_product_attention(x, x, x)\n"
        "print(_unknown_operations(Attention(), torch.zeros(1, 2, 4, 8)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
