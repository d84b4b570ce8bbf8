"""Checkpoints and engines embed the same pictures alike, each picture once, all or none."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="checkpoints need torch (the train extra)")

from s4g.core.errors import InputError, IntegrityError, S4GError
from s4g.core.images import encode_rgb
from s4g.core.spec import SPEC_KEY, EncoderSpec
from s4g.train.dataset import Image
from s4g.train.embedders import (
    CheckpointEmbedder,
    EmbeddedImages,
    EngineEmbedder,
    embed_images,
    open_embedder,
)
from s4g.train.layout import FileImages

Floats = npt.NDArray[np.float32]

INPUT_PX, DIM = 64, 32  # of the toy checkpoint and the toy engine
SPEC = EncoderSpec(
    model_id="71" * 32,
    backbone="colour",
    input_px=INPUT_PX,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    embedding_dim=3,
    nested_dims=(3,),
    gsd_min_m=0.3,
    gsd_max_m=3.0,
    north_up=True,
    temperature=0.1,
)


def picture(height_px: int, width_px: int, seed: int) -> Image:
    """Return large patches of random colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height_px // 16, width_px // 16, 3), dtype=np.uint8)
    return np.asarray(coarse.repeat(16, 0).repeat(16, 1))


@dataclasses.dataclass
class Counting:
    """An encoder that gives the mean colour, counts pictures, and fails on black ones if asked."""

    file: str = "toy"
    format: str = "engine"
    spec: EncoderSpec = SPEC
    seen: list[tuple[int, ...]] = dataclasses.field(default_factory=list)

    def size_px(self, view: str) -> tuple[int, int]:
        return (8, 24) if view == "query" else (16, 16)

    def embed(self, images: Image) -> Floats:
        self.seen.append(images.shape)
        means = images.reshape(len(images), -1, 3).mean(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


@pytest.fixture
def pictures(tmp_path: Path) -> FileImages:
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(encode_rgb(picture(64, 64, i), ".jpg"))
    return FileImages(tmp_path, [f"{i}.jpg" for i in range(5)])


@pytest.fixture
def toy_int8(tmp_path: Path, toy_encoder: Path) -> Path:
    """The toy engine with its projection in INT8, as an export makes it."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    path = tmp_path / "encoder.cpu.int8.onnx"
    quantization.quantize_dynamic(toy_encoder, path, op_types_to_quantize=["MatMul"])
    return path


# ---- what embeds ---------------------------------------------------------------------------------


def test_a_checkpoint_gives_unit_vectors_that_do_not_depend_on_the_batch(
    toy_checkpoint: Path, pictures: FileImages
) -> None:
    embedder = open_embedder(toy_checkpoint)
    assert isinstance(embedder, CheckpointEmbedder)
    whole = embed_images(embedder, pictures, "query", batch=5)
    parts = embed_images(embedder, pictures, "query", batch=2)
    assert whole.shape == (5, DIM) and whole.dtype == np.float32
    assert np.linalg.norm(whole, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert parts == pytest.approx(whole, abs=1e-5)
    assert (whole @ whole.T - np.eye(5)).max() < 0.9999, "different pictures differ"


def test_an_engine_gives_what_onnx_runtime_gives(toy_encoder: Path, pictures: FileImages) -> None:
    embedder = open_embedder(toy_encoder)
    assert isinstance(embedder, EngineEmbedder)
    stacked = np.stack([pictures.read(i, INPUT_PX, INPUT_PX) for i in range(5)])
    direct = embedder.embed(stacked)
    assert embed_images(embedder, pictures, "reference", batch=2) == pytest.approx(direct, abs=1e-6)


def test_an_int8_engine_embeds_too(toy_int8: Path, toy_encoder: Path, pictures: FileImages) -> None:
    quantised = embed_images(open_embedder(toy_int8), pictures, "query")
    full = embed_images(open_embedder(toy_encoder), pictures, "query")
    cosines = (quantised * full).sum(axis=1)
    assert (cosines > 0.98).all()
    assert (quantised != full).any(), "it is the quantised graph that ran"


def test_a_bundles_folder_serves_as_an_encoder(tmp_path: Path, toy_encoder: Path) -> None:
    shutil.copy(toy_encoder, tmp_path / "encoder.fp32.onnx")
    assert open_embedder(tmp_path).file == str(tmp_path / "encoder.fp32.onnx")


def test_an_engine_needs_no_gpu_of_onnx_runtime_where_torch_has_one(
    toy_encoder: Path, pictures: FileImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    embedder = open_embedder(toy_encoder, "auto")
    assert embed_images(embedder, pictures, "query").shape == (5, DIM)


def test_a_folder_without_an_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_embedder(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: holds neither encoder.cpu.int8.onnx nor encoder.fp32.onnx; export again"
    )


def test_a_missing_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_embedder(tmp_path / "none.onnx")
    assert str(error.value) == (
        f"{tmp_path / 'none.onnx'}: no such encoder; give a checkpoint or an exported engine"
    )


def test_a_file_of_another_kind_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x04")
    with pytest.raises(InputError) as error:
        open_embedder(path)
    assert str(error.value) == (
        f"{path}: not an encoder; give a .safetensors checkpoint, an .onnx engine or the folder "
        "of an export"
    )


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(IntegrityError, match=f"^{path}: not a safetensors checkpoint"):
        open_embedder(path)


# ---- sizes ---------------------------------------------------------------------------------------


def test_an_engine_of_a_panorama_encoder_refuses_queries_but_takes_tiles(
    tmp_path: Path, toy_encoder: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")
    model = onnx.load(toy_encoder)
    spec = EncoderSpec.from_json(model.metadata_props[0].value, "toy")
    spec = dataclasses.replace(spec, head="pool", query_px=(64, 256))
    onnx.helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
    path = tmp_path / "panorama.onnx"
    onnx.save(model, path)
    embedder = open_embedder(path)
    assert embedder.size_px("reference") == (64, 64)
    with pytest.raises(InputError) as error:
        embedder.size_px("query")
    assert str(error.value) == (
        f"{path}: its encoder takes queries of 64 x 256 px, this engine only images of 64 x 64; "
        "evaluate the checkpoint instead"
    )


def test_a_checkpoint_takes_panoramas_at_the_size_it_was_trained_with(tmp_path: Path) -> None:
    from s4g.train.checkpoint import model_id, save_checkpoint
    from s4g.train.model import Encoder, ModelConfig

    encoder = Encoder(ModelConfig("test_resnet", 64, 0, "pool", (64, 256)))
    spec = dataclasses.replace(
        SPEC,
        model_id=model_id(encoder),
        backbone="test_resnet",
        embedding_dim=encoder.embedding_dim,
        nested_dims=(encoder.embedding_dim,),
        head="pool",
        query_px=(64, 256),
    )
    path = tmp_path / "panorama.safetensors"
    save_checkpoint(path, encoder, spec)
    embedder = open_embedder(path)
    assert (embedder.size_px("query"), embedder.size_px("reference")) == ((64, 256), (64, 64))
    panoramas = picture(64, 256, 1)[None]
    assert embedder.embed(panoramas).shape == (1, encoder.embedding_dim)


def test_pictures_come_in_the_size_of_their_side(pictures: FileImages) -> None:
    embedder = Counting()
    embed_images(embedder, pictures, "query", batch=3)
    embed_images(embedder, pictures, "reference", batch=4)
    assert embedder.seen == [(3, 8, 24, 3), (2, 8, 24, 3), (4, 16, 16, 3), (1, 16, 16, 3)]


# ---- whole or not at all -------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_ends_the_evaluation_and_is_named(
    pictures: FileImages, workers: int
) -> None:
    path = pictures.path(3)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError) as error:
        embed_images(Counting(), pictures, "query", workers=workers)
    assert str(error.value) == (
        f"{path}: a truncated JPEG (300 bytes); replace or remove the file; an evaluation needs "
        "every image of its protocol"
    )


def test_an_embedding_that_is_not_finite_names_its_picture(pictures: FileImages) -> None:
    black = encode_rgb(np.zeros((64, 64, 3), np.uint8), ".jpg")
    pictures.path(3).write_bytes(black)
    with pytest.raises(S4GError) as error:
        embed_images(Counting(), pictures, "query", batch=2)
    assert str(error.value) == (
        "toy: gives 3.jpg an embedding that is not finite; the training diverged, take an earlier "
        "checkpoint"
    )


def test_embeddings_can_be_mapped_to_a_file(tmp_path: Path, pictures: FileImages) -> None:
    out = tmp_path / "embeddings.npy"
    mapped = embed_images(Counting(), pictures, "query", out=out)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, embed_images(Counting(), pictures, "query"))


# ---- once ----------------------------------------------------------------------------------------


def test_a_collection_is_embedded_once_for_all_protocols(
    tmp_path: Path, pictures: FileImages
) -> None:
    embedder = Counting()
    embedded = EmbeddedImages(embedder, tmp_path)
    first, again = (embedded.of(pictures, "reference", "tiles") for _ in range(2))
    assert first is again
    assert len(embedder.seen) == 1
    embedded.of(pictures, "query", "the same pictures at another size")
    embedded.of(FileImages(tmp_path, ["0.jpg", "1.jpg"]), "reference", "other pictures")
    assert [shape[0] for shape in embedder.seen] == [5, 5, 2]


def test_large_collections_are_kept_in_files(
    tmp_path: Path, pictures: FileImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s4g.train.embedders._IN_MEMORY_BYTES", 5 * 3 * 4 - 1)
    embedded = EmbeddedImages(Counting(), tmp_path)
    assert isinstance(embedded.of(pictures, "query", "large"), np.memmap)
    small = FileImages(tmp_path, [f"{i}.jpg" for i in range(4)])
    assert not isinstance(embedded.of(small, "query", "small"), np.memmap)


def test_the_folder_of_a_training_stands_for_its_checkpoint(
    tmp_path: Path, toy_checkpoint: Path
) -> None:
    (tmp_path / "encoder.safetensors").write_bytes(toy_checkpoint.read_bytes())
    embedder = open_embedder(tmp_path, "auto")
    assert embedder.format == "checkpoint"
    assert embedder.file == str(tmp_path / "encoder.safetensors")
