"""OpenVINO as an engine, run for real where it is installed."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.engine import embedded_encoder_path, load_engine
from s4g.core.errors import InputError, S4GError

pytest.importorskip("openvino", reason="OpenVINO is not installed (the openvino extra)")
onnx = pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")

from s4g.core.engine_openvino import OpenVinoEngine  # noqa: E402


def some_images(count: int, side_px: int = 64) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, side_px, side_px, 3), np.uint8)


def message_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        OpenVinoEngine(path)
    return str(caught.value)


def test_it_embeds_as_onnx_runtime_does(toy_encoder: Path) -> None:
    engine, other = load_engine(toy_encoder, "openvino", 1), load_engine(toy_encoder, "cpu", 1)
    images = some_images(5)
    assert (engine.backend, engine.name) == ("openvino cpu", str(toy_encoder))
    assert engine.spec == other.spec
    assert engine.embed(images).dtype == np.float32
    assert np.allclose(engine.embed(images), other.embed(images), atol=1e-5)


def test_it_runs_the_quantised_file_of_the_package() -> None:
    try:
        path = embedded_encoder_path()
    except S4GError as error:
        pytest.skip(str(error))
    engine, other = OpenVinoEngine(path, 1), load_engine(path, "cpu", 1)
    images = some_images(4, engine.spec.input_px)
    cosine = np.einsum("nd,nd->n", engine.embed(images), other.embed(images))
    assert cosine.min() > 0.999


def test_every_batch_size_gives_the_same_embeddings(toy_encoder: Path) -> None:
    engine = OpenVinoEngine(toy_encoder, 1)
    images = some_images(7)
    whole = engine.embed(images)
    for size in (1, 2, 3, 4, 5):  # more sizes than programs of their own
        parts = [engine.embed(images[i : i + size]) for i in range(0, 7, size)]
        assert np.allclose(np.concatenate(parts), whole, atol=1e-5)


def test_views_of_other_arrays_are_embedded_as_they_look(toy_encoder: Path) -> None:
    engine = OpenVinoEngine(toy_encoder, 1)
    images = some_images(4)
    assert np.allclose(engine.embed(images[::2]), engine.embed(images)[::2], atol=1e-5)


def test_no_images_give_no_embeddings(toy_encoder: Path) -> None:
    assert OpenVinoEngine(toy_encoder).embed(some_images(0)).shape == (0, 32)


def test_threads_may_share_an_engine(toy_encoder: Path) -> None:
    engine = OpenVinoEngine(toy_encoder, 1)
    images = some_images(32)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: engine.embed(images[i : i + 1])[0], range(32)))
    assert np.allclose(found, engine.embed(images), atol=1e-5)


def test_a_closed_engine_embeds_no_more(toy_encoder: Path) -> None:
    engine = OpenVinoEngine(toy_encoder)
    engine.close()
    engine.close()
    with pytest.raises(S4GError) as caught:
        engine.embed(some_images(1))
    assert str(caught.value) == f"{toy_encoder}: the engine is closed"


def test_images_that_do_not_fit_are_refused(toy_encoder: Path) -> None:
    with pytest.raises(InputError) as caught:
        OpenVinoEngine(toy_encoder).embed(some_images(1, 32))
    assert str(caught.value) == (
        "images of shape (1, 32, 32, 3) and type uint8; this encoder takes (B, 64, 64, 3) uint8 RGB"
    )


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    message = message_of(path)
    assert message.startswith(f"{path}: OpenVINO cannot load it (")
    assert message.endswith("); export it again")


def test_an_onnx_file_without_a_spec_is_refused(toy_encoder: Path, tmp_path: Path) -> None:
    model = onnx.load(toy_encoder)
    del model.metadata_props[:]
    path = tmp_path / "bare.onnx"
    onnx.save(model, path)
    assert message_of(path) == (
        f"{path}: an ONNX file without an encoder spec; make it with s4g-export"
    )


def test_a_graph_that_is_not_what_its_spec_says_is_refused(
    toy_encoder: Path, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(OpenVinoEngine(toy_encoder).spec, embedding_dim=64)
    model = onnx.load(toy_encoder)
    onnx.helper.set_model_props(model, {"s4g_encoder_spec": wrong.to_json()})
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    assert message_of(path) == (
        f"{path}: its graph (images u8 ['?', 64, 64, 3], embeddings f32 ['?', 32]) is not the "
        "encoder of its spec (uint8 (B, 64, 64, 3) to float (B, 64)); export it again"
    )
