"""ONNX Runtime as an engine: real sessions on the CPU, a stand-in where a GPU is missing."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from s4g.core import engine_onnx
from s4g.core.engine_onnx import UNWANTED_OPTIMISERS, OnnxEngine
from s4g.core.errors import InputError, S4GError

onnx = pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")

RealSession = ort.InferenceSession


def some_images(count: int, side_px: int = 64) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, side_px, side_px, 3), np.uint8)


def message_of(path: Path, device: str = "cpu") -> str:
    with pytest.raises(InputError) as caught:
        OnnxEngine(path, device)
    return str(caught.value)


def with_entry(encoder: Path, path: Path, **entries: str) -> Path:
    """Copy an encoder, its metadata replaced."""
    model = onnx.load(encoder)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)
    return path


def test_embeddings_have_unit_length_and_the_specs_size(toy_encoder: Path) -> None:
    engine = OnnxEngine(toy_encoder)
    embeddings = engine.embed(some_images(5))
    assert engine.backend == "onnxruntime cpu"
    assert embeddings.shape == (5, engine.spec.embedding_dim)
    assert embeddings.dtype == np.float32
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_an_image_has_the_same_embedding_alone_and_in_a_batch(toy_encoder: Path) -> None:
    engine = OnnxEngine(toy_encoder, threads=1)
    images = some_images(3)
    alone = np.concatenate([engine.embed(images[i : i + 1]) for i in range(3)])
    assert np.allclose(engine.embed(images), alone, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_no_images_give_no_embeddings(toy_encoder: Path) -> None:
    assert OnnxEngine(toy_encoder).embed(some_images(0)).shape == (0, 32)


def test_threads_may_share_an_engine(toy_encoder: Path) -> None:
    engine = OnnxEngine(toy_encoder, threads=1)
    images = some_images(32)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: engine.embed(images[i : i + 1])[0], range(32)))
    assert np.allclose(found, engine.embed(images), atol=1e-6)


def test_a_single_thread_does_not_spin(toy_encoder: Path) -> None:
    key = "session.intra_op.allow_spinning"
    options = OnnxEngine(toy_encoder, threads=1)._session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry(key) == "0"
    options = OnnxEngine(toy_encoder, threads=2)._session.get_session_options()
    assert options.intra_op_num_threads == 2
    with pytest.raises(RuntimeError):  # not set
        options.get_session_config_entry(key)


def test_a_closed_engine_embeds_no_more(toy_encoder: Path) -> None:
    engine = OnnxEngine(toy_encoder)
    engine.close()
    engine.close()
    with pytest.raises(S4GError) as caught:
        engine.embed(some_images(1))
    assert str(caught.value) == f"{toy_encoder}: the engine is closed"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_encoder_is_refused(toy_encoder: Path, tmp_path: Path, share: float) -> None:
    data = toy_encoder.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(share * len(data))])
    message = message_of(path)
    assert message.startswith(f"{path}: ")
    assert message.endswith("export it again") or message.endswith("make it with s4g-export")


def test_an_onnx_file_without_a_spec_is_refused(toy_encoder: Path, tmp_path: Path) -> None:
    path = with_entry(toy_encoder, tmp_path / "bare.onnx")
    assert message_of(path) == (
        f"{path}: an ONNX file without an encoder spec; make it with s4g-export"
    )


def test_a_graph_that_is_not_what_its_spec_says_is_refused(
    toy_encoder: Path, tmp_path: Path
) -> None:
    spec = OnnxEngine(toy_encoder).spec
    wrong = dataclasses.replace(spec, embedding_dim=spec.embedding_dim * 2)
    path = with_entry(toy_encoder, tmp_path / "wrong.onnx", s4g_encoder_spec=wrong.to_json())
    assert message_of(path) == (
        f"{path}: its graph (images tensor(uint8) ['batch', 64, 64, 3], embeddings tensor(float) "
        "['batch', 32]) is not the encoder of its spec (uint8 (B, 64, 64, 3) to float (B, 64)); "
        "export it again"
    )


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert message_of(tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"


def test_a_graph_that_fails_while_running_is_a_failure_that_names_the_file(
    toy_encoder: Path,
) -> None:
    engine = OnnxEngine(toy_encoder)
    engine._input = "nothing"
    with pytest.raises(S4GError) as caught:
        engine.embed(some_images(1))
    assert str(caught.value).startswith(f"{toy_encoder}: inference failed (")
    assert caught.value.exit_code == 1


class StandIn:
    """A session that says it runs on a GPU, and computes on the CPU.

    Set `failure` to have it refused, `falls_back` to have it land on the CPU, `scale` to have it
    return embeddings of another length, `takes_part` to have TensorRT run nodes.
    """

    failure: Exception | None = None
    falls_back = False
    scale = 1.0
    takes_part = True
    asked: list[Any]
    batches: list[int]

    def __init__(self, model: bytes, options: Any, providers: list[Any], **more: Any) -> None:
        cpu = ["CPUExecutionProvider"]
        self.real = RealSession(model, options, providers=cpu)
        names = [p if isinstance(p, str) else p[0] for p in providers]
        self.names = cpu if StandIn.falls_back else names
        if names != cpu:
            assert more == {"enable_fallback": 0, "disabled_optimizers": UNWANTED_OPTIMISERS}
            StandIn.asked = providers
            StandIn.batches = []
            if StandIn.failure is not None:
                raise StandIn.failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def end_profiling(self) -> str:
        path = Path(self.real.end_profiling())
        assert "CPUExecutionProvider" in path.read_text()  # the real library notes who runs a node
        if StandIn.takes_part:
            event = {"cat": "Node", "args": {"provider": "TensorrtExecutionProvider"}}
            path.write_text(json.dumps([*json.loads(path.read_text()), event]))
        return str(path)

    def get_providers(self) -> list[str]:
        return self.names

    def run(self, outputs: None, feeds: dict[str, Any]) -> list[Any]:
        (images,) = feeds.values()
        StandIn.batches.append(len(images))
        first = StandIn.asked[0]
        if isinstance(first, tuple) and StandIn.takes_part:
            (Path(first[1]["trt_engine_cache_path"]) / "graph_sm87.engine").write_bytes(b"plan")
        return [StandIn.scale * self.real.run(outputs, feeds)[0]]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[StandIn]:
    # A copy for each test, so that what it sets does not last.
    for name in ("failure", "falls_back", "scale", "takes_part"):
        monkeypatch.setattr(StandIn, name, getattr(StandIn, name))
    monkeypatch.setattr(ort, "InferenceSession", StandIn)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return StandIn


def test_cuda_is_proved_by_an_image(gpu: type[StandIn], toy_encoder: Path) -> None:
    engine = OnnxEngine(toy_encoder, "cuda")
    assert engine.backend == "onnxruntime cuda"
    assert gpu.asked == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert gpu.batches == [1]


def test_a_silent_fall_back_to_the_cpu_is_refused(gpu: type[StandIn], toy_encoder: Path) -> None:
    gpu.falls_back = True
    assert message_of(toy_encoder, "cuda") == (
        "device cuda: does not work here (its libraries cannot be loaded); s4g-export doctor "
        "tells what is missing"
    )


def test_the_library_that_is_missing_is_named(
    gpu: type[StandIn], toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.falls_back = True
    monkeypatch.setattr(
        ort, "preload_dlls", lambda: print("Failed to load libcudnn.so.9\nPlease"), raising=False
    )
    assert message_of(toy_encoder, "cuda") == (
        "device cuda: does not work here (Failed to load libcudnn.so.9); s4g-export doctor tells "
        "what is missing"
    )


def test_a_session_that_the_gpu_refuses_is_the_devices_fault(
    gpu: type[StandIn], toy_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.failure = RuntimeError("CUDA failure 209: no kernel image is available\nmore")
    assert message_of(toy_encoder, "cuda") == (
        f"device cuda: does not work here ({toy_encoder}: CUDA failure 209: no kernel image is "
        "available); s4g-export doctor tells what is missing"
    )
    assert capsys.readouterr().out == ""


def test_a_damaged_file_is_not_blamed_on_the_gpu(gpu: type[StandIn], tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    message = message_of(path, "cuda")
    assert message.startswith(f"{path}: ONNX Runtime cannot load it (")
    assert message.endswith("); export it again")


@pytest.mark.parametrize(("scale", "length"), [(0.5, "0.5"), (float("nan"), "nan")])
def test_nonsense_from_a_gpu_is_refused(
    gpu: type[StandIn], toy_encoder: Path, scale: float, length: str
) -> None:
    gpu.scale = scale
    assert message_of(toy_encoder, "cuda") == (
        f"device cuda: does not work here ({toy_encoder}: an embedding of length {length}, "
        "expected 1); s4g-export doctor tells what is missing"
    )


def test_tensorrt_is_asked_for_a_strongly_typed_engine_and_a_cache_of_its_own(
    gpu: type[StandIn], toy_encoder: Path, tmp_path: Path
) -> None:
    engine = OnnxEngine(toy_encoder, "ort-tensorrt")
    assert engine.backend == "onnxruntime tensorrt"
    (name, options), *others = gpu.asked
    folders = list((tmp_path / "cache" / "s4g" / "ort-tensorrt").iterdir())
    assert name == "TensorrtExecutionProvider"
    assert others == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert [str(folder) for folder in folders] == [options["trt_engine_cache_path"]]
    assert options["trt_profile_max_shapes"] == "images:32x64x64x3"
    assert "trt_fp16_enable" not in options and "trt_int8_enable" not in options


def test_weights_decide_which_cached_engine_is_used(
    gpu: type[StandIn], toy_encoder: Path, tmp_path: Path
) -> None:
    spec = OnnxEngine(toy_encoder).spec.to_json()
    other = with_entry(toy_encoder, tmp_path / "b.onnx", s4g_encoder_spec=spec, made="again")
    folders = []
    for path in (toy_encoder, other):
        OnnxEngine(path, "ort-tensorrt")
        folders.append(gpu.asked[0][1]["trt_engine_cache_path"])
    assert folders[0] != folders[1]


def test_a_batch_beyond_tensorrts_range_is_cut(gpu: type[StandIn], toy_encoder: Path) -> None:
    engine = OnnxEngine(toy_encoder, "ort-tensorrt")
    images = some_images(70)
    assert np.allclose(engine.embed(images), OnnxEngine(toy_encoder).embed(images), atol=1e-6)
    assert gpu.batches[:4] == [1, 32, 32, 6]


def test_a_graph_that_tensorrt_leaves_to_others_is_refused(
    gpu: type[StandIn], toy_encoder: Path
) -> None:
    OnnxEngine(toy_encoder, "ort-tensorrt")  # whose engine stays in the cache
    gpu.takes_part = False
    assert message_of(toy_encoder, "ort-tensorrt") == (
        f"device ort-tensorrt: does not work here ({toy_encoder}: TensorRT took no part of this "
        "graph); s4g-export doctor tells what is missing"
    )


def test_what_runs_where_is_noted_for_the_proof_only(
    gpu: type[StandIn], toy_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    engine = OnnxEngine(toy_encoder, "ort-tensorrt")
    engine.embed(some_images(2))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not OnnxEngine(toy_encoder)._session.get_session_options().enable_profiling


def test_a_cache_that_cannot_be_made_is_a_failure(
    toy_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(S4GError) as caught:
        OnnxEngine(toy_encoder, "ort-tensorrt")
    assert str(caught.value).startswith(f"{tmp_path / 'file' / 's4g' / 'ort-tensorrt'}")
    assert str(caught.value).endswith(
        "cannot be made (Not a directory); set XDG_CACHE_HOME to another place"
    )


def test_a_gpu_that_is_not_here_is_refused_by_the_real_library(toy_encoder: Path) -> None:
    if engine_onnx.has_provider("cuda"):
        pytest.skip("this ONNX Runtime has a CUDA provider")
    with pytest.warns(UserWarning, match="not in available provider names"):
        message = message_of(toy_encoder, "cuda")
    assert message.startswith("device cuda: does not work here (")
