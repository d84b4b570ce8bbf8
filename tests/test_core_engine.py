"""Engines: loading an encoder, embedding images, refusing what is no encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from s4g.core import engine as engine_module
from s4g.core.engine import (
    BUNDLE_CPU_INT8,
    BUNDLE_FP32,
    OnnxEngine,
    embedded_encoder_path,
    load_engine,
)
from s4g.core.errors import InputError, S4GError

onnx = pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")


def some_images(count: int, side_px: int = 64) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, side_px, side_px, 3), np.uint8)


def message_of(path: Path, device: str = "cpu") -> str:
    with pytest.raises(InputError) as caught:
        load_engine(path, device)
    return str(caught.value)


def test_embeddings_have_unit_length_and_the_specs_size(toy_encoder: Path) -> None:
    engine = load_engine(toy_encoder, "cpu")
    embeddings = engine.embed(some_images(5))
    assert embeddings.shape == (5, engine.spec.embedding_dim)
    assert embeddings.dtype == np.float32
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_an_image_has_the_same_embedding_alone_and_in_a_batch(toy_encoder: Path) -> None:
    engine = load_engine(toy_encoder, "cpu", threads=1)
    images = some_images(3)
    alone = np.concatenate([engine.embed(images[i : i + 1]) for i in range(3)])
    assert np.allclose(engine.embed(images), alone, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
    ],
)
def test_images_that_do_not_fit_are_refused(
    toy_encoder: Path, images: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(InputError) as caught:
        load_engine(toy_encoder, "cpu").embed(images)
    assert str(caught.value) == (
        f"images of shape {images.shape} and type {images.dtype}; "
        "this encoder takes (B, 64, 64, 3) uint8 RGB"
    )


def test_a_bundle_gives_its_int8_graph_before_its_float_one(
    toy_encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / BUNDLE_FP32).write_bytes(toy_encoder.read_bytes())
    assert load_engine(tmp_path, "cpu").name == str(tmp_path / BUNDLE_FP32)
    (tmp_path / BUNDLE_CPU_INT8).write_bytes(toy_encoder.read_bytes())
    assert load_engine(tmp_path, "cpu").name == str(tmp_path / BUNDLE_CPU_INT8)


def test_a_folder_without_engines_is_refused(tmp_path: Path) -> None:
    assert message_of(tmp_path) == (
        f"{tmp_path}: holds neither encoder.cpu.int8.onnx nor encoder.fp32.onnx; export again"
    )


def test_a_missing_encoder_is_refused(tmp_path: Path) -> None:
    assert message_of(tmp_path / "no.onnx") == (
        f"{tmp_path / 'no.onnx'}: no such encoder; give an ONNX file or a bundle of s4g-export"
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_encoder_is_refused(toy_encoder: Path, tmp_path: Path, share: float) -> None:
    data = toy_encoder.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(share * len(data))])
    message = message_of(path)
    assert message.startswith(f"{path}: ")
    assert message.endswith("export it again") or message.endswith("make it with s4g-export")


def test_an_onnx_file_without_a_spec_is_refused(toy_encoder: Path, tmp_path: Path) -> None:
    model = onnx.load(toy_encoder)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    assert message_of(tmp_path / "bare.onnx") == (
        f"{tmp_path / 'bare.onnx'}: an ONNX file without an encoder spec; make it with s4g-export"
    )


def test_a_graph_that_is_not_what_its_spec_says_is_refused(
    toy_encoder: Path, tmp_path: Path
) -> None:
    spec = load_engine(toy_encoder, "cpu").spec
    model = onnx.load(toy_encoder)
    wrong = dataclasses.replace(spec, embedding_dim=spec.embedding_dim * 2)
    onnx.helper.set_model_props(model, {"s4g_encoder_spec": wrong.to_json()})
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    assert message_of(path) == (
        f"{path}: its graph (images tensor(uint8) ['batch', 64, 64, 3], embeddings tensor(float) "
        "['batch', 32]) is not the encoder of its spec (uint8 (B, 64, 64, 3) to float (B, 64)); "
        "export it again"
    )


def test_an_unknown_device_is_refused(toy_encoder: Path) -> None:
    assert message_of(toy_encoder, "tpu") == "device tpu: expected one of auto, cpu, cuda"


def test_cuda_is_refused_where_onnx_runtime_has_none(toy_encoder: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has a CUDA provider")
    assert message_of(toy_encoder, "cuda") == (
        "device cuda: this ONNX Runtime has no CUDA provider; install onnxruntime-gpu"
    )


def test_a_graph_that_fails_while_running_is_a_failure_that_names_the_file(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OnnxEngine(toy_encoder, "cpu")
    engine._input = "nothing"
    with pytest.raises(S4GError) as caught:
        engine.embed(some_images(1))
    assert str(caught.value).startswith(f"{toy_encoder}: inference failed (")
    assert caught.value.exit_code == 1


def test_an_installation_without_encoder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module.resources, "files", lambda package: tmp_path)
    with pytest.raises(S4GError) as caught:
        load_engine()
    assert str(caught.value) == (
        "this installation carries no encoder; pass --encoder BUNDLE or FILE"
    )


def test_the_encoder_that_the_package_carries_works() -> None:
    try:
        path = embedded_encoder_path()
    except S4GError as error:
        pytest.skip(str(error))
    engine = load_engine(path, "cpu")
    embeddings = engine.embed(some_images(2, engine.spec.input_px))
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)
    assert path.stat().st_size <= 12_000_000
