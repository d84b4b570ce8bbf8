"""Encoders are built from a recipe, with random or given weights, and rebuilt from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from s4g.core.errors import InputError
from s4g.core.spec import EncoderSpec
from s4g.train.checkpoint import load_checkpoint, model_id, save_checkpoint, start_from
from s4g.train.model import MEAN, STD, Encoder, ModelConfig, normalise
from s4g.train.timm_compat import import_timm

POOL = ModelConfig("test_convnext", 64, 0, head="pool", query_px=(32, 128))


def test_embeddings_have_unit_length_and_tell_images_apart() -> None:
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig("resnet10t", 64, 32)).eval()
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    out = encoder(normalise(images, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    assert out.shape == (3, 32)
    assert torch.allclose(out.norm(dim=1), torch.ones(3), atol=1e-5)
    assert not torch.allclose(out[0], out[1], atol=1e-3)


def test_the_pooling_head_is_the_backbones_own_and_takes_panoramas() -> None:
    torch.manual_seed(0)
    encoder = Encoder(POOL).eval()
    assert encoder.embedding_dim == 64
    assert [name for name, _ in encoder.named_children()] == ["backbone"]
    for height, width in ((64, 64), (32, 128)):
        assert encoder(torch.randn(2, 3, height, width)).shape == (2, 64)


def test_a_transformer_takes_the_recipes_size_and_panoramas() -> None:
    encoder = Encoder(ModelConfig("test_vit", 64, 0, head="pool", query_px=(32, 128))).eval()
    for height, width in ((64, 64), (32, 128)):
        assert encoder(torch.randn(2, 3, height, width)).shape == (2, encoder.embedding_dim)


def test_a_checkpoint_of_a_pooling_encoder_is_rebuilt_with_its_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder(POOL).eval()
    spec = EncoderSpec(
        model_id=model_id(encoder),
        backbone="test_convnext",
        input_px=64,
        mean=MEAN,
        std=STD,
        embedding_dim=64,
        nested_dims=(64,),
        gsd_min_m=0.1,
        gsd_max_m=1.0,
        north_up=False,
        temperature=0.05,
        head="pool",
        query_px=(32, 128),
    )
    save_checkpoint(tmp_path / "a.safetensors", encoder, spec)
    loaded, read = load_checkpoint(tmp_path / "a.safetensors")
    assert read == spec
    images = torch.randn(2, 3, 32, 128)
    assert torch.equal(loaded(images), encoder(images))


def test_given_weights_of_a_backbone_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    backbone = import_timm().create_model("test_convnext", num_classes=10)
    path = tmp_path / "weights.safetensors"
    save_file(backbone.state_dict(), path)
    config = ModelConfig("test_convnext", 64, 0, head="pool", pretrained_file=str(path))
    encoder = Encoder(config)
    assert torch.equal(encoder.backbone.stem[0].weight, backbone.stem[0].weight)


def test_weights_are_not_taken_where_others_are_loaded_next(tmp_path: Path) -> None:
    Encoder(ModelConfig("test_convnext", 64, 8, pretrained_file="gone.safetensors"), False)


@pytest.mark.parametrize("name", ["gone.safetensors", "weights.pth"])
def test_weights_that_are_no_safetensors_file_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        path.write_bytes(b"a pickle could run code")
    with pytest.raises(InputError) as error:
        Encoder(ModelConfig("test_convnext", 64, 8, pretrained_file=str(path)))
    assert str(error.value) == (
        f"pretrained_file {path}: no such safetensors file; save the backbone's weights with "
        "safetensors, other formats can run code"
    )


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    backbone = import_timm().create_model("test_convnext", num_classes=10)
    weights = backbone.state_dict()
    del weights["stem.0.weight"]
    save_file(weights, path)
    with pytest.raises(InputError) as error:
        Encoder(ModelConfig("test_convnext", 64, 8, pretrained_file=str(path)))
    assert str(error.value) == (
        f"pretrained_file {path}: is not of test_convnext, it lacks stem.0.weight (1 in all); "
        "save the weights of this backbone"
    )


def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    weights = import_timm().create_model("test_convnext", num_classes=10).state_dict()
    weights["stem.0.weight"] = torch.zeros(1, 2, 3)
    save_file(weights, path)
    with pytest.raises(InputError) as error:
        Encoder(ModelConfig("test_convnext", 64, 8, pretrained_file=str(path)))
    message = str(error.value)
    assert message.startswith(f"pretrained_file {path}: is not of test_convnext (")
    assert message.endswith("); save the weights of this backbone")
    assert "\n" not in message


def test_fetched_weights_are_the_safetensors_file_never_the_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    backbone = import_timm().create_model("test_convnext", num_classes=10)
    save_file(backbone.state_dict(), path)
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    encoder = Encoder(ModelConfig("test_convnext", 64, 8, pretrained=True))
    assert asked == [("timm/test_convnext.r160_in1k", "model.safetensors")]
    assert torch.equal(encoder.backbone.stem[0].weight, backbone.stem[0].weight)


def test_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(repository: str, file: str) -> str:
        raise OSError("no route\nto the hub")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(InputError) as error:
        Encoder(ModelConfig("test_convnext", 64, 8, pretrained=True))
    assert str(error.value) == (
        "backbone test_convnext: timm's pretrained weights cannot be had (no route to the hub); "
        "name a safetensors file in pretrained_file, or set pretrained = false"
    )


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(InputError) as error:
        Encoder(ModelConfig("resnet999", 64, 32))
    assert str(error.value) == (
        "backbone resnet999: timm has no such model; see timm.list_models()"
    )


def test_a_length_that_the_pooling_head_cannot_give_is_refused() -> None:
    with pytest.raises(InputError) as error:
        Encoder(ModelConfig("test_convnext", 64, 256, head="pool"))
    assert str(error.value) == (
        "backbone test_convnext: gives 64 numbers with head = 'pool', embedding_dim is 256; "
        "set embedding_dim = 0"
    )


def test_the_layout_head_needs_a_feature_map() -> None:
    with pytest.raises(InputError) as error:
        Encoder(ModelConfig("test_vit", 64, 32))
    assert str(error.value) == (
        "backbone test_vit: returns no feature map; choose a convolutional one or head = 'pool'"
    )


def test_a_backbone_without_gradient_checkpointing_says_what_else_saves_memory() -> None:
    encoder = Encoder(ModelConfig("test_convnext", 64, 8))

    class Plain(torch.nn.Module):
        pass

    encoder.backbone = Plain()
    with pytest.raises(InputError) as error:
        encoder.checkpoint_gradients()
    assert str(error.value) == (
        "backbone test_convnext: has no gradient checkpointing; set grad_checkpointing = false and "
        "use chunk_pairs to save memory"
    )


def test_an_encoder_starts_from_all_weights_of_a_checkpoint(toy_checkpoint: Path) -> None:
    encoder = Encoder(ModelConfig("test_resnet.r160_in1k", 64, 32))
    start_from(encoder, toy_checkpoint, "mine")
    assert model_id(encoder) == load_checkpoint(toy_checkpoint)[1].model_id


@pytest.mark.parametrize(
    ("config", "described"),
    [
        (ModelConfig("test_convnext", 64, 32), "test_convnext, 64 px, head layout, 32-d"),
        (ModelConfig("test_resnet", 64, 48), "test_resnet, 64 px, head layout, 48-d"),
        (ModelConfig("test_resnet", 96, 32), "test_resnet, 96 px, head layout, 32-d"),
        (ModelConfig("test_resnet", 64, 0, head="pool"), "test_resnet, 64 px, head pool, 96-d"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_no_start(
    toy_checkpoint: Path, config: ModelConfig, described: str
) -> None:
    with pytest.raises(InputError) as error:
        start_from(Encoder(config), toy_checkpoint, "mine")
    assert str(error.value) == (
        f"--init {toy_checkpoint}: is test_resnet, 64 px, head layout, 32-d; recipe mine trains "
        f"{described}; give a checkpoint of the recipe's [model], or change it"
    )


def test_a_start_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"stem.weight": torch.zeros(2)}, path)
    with pytest.raises(InputError) as error:
        start_from(Encoder(ModelConfig("test_resnet", 64, 32)), path, "mine")
    assert str(error.value) == (
        f"{path}: a safetensors file without an encoder spec; train with s4g-train"
    )
