"""The TensorRT engine, on stand-ins for TensorRT and pycuda that really compute."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from s4g.core.camera import Attitude, Camera, look_point_m
from s4g.core.dusk import brighten
from s4g.core.engine import FrameEngine, load_engine
from s4g.core.engine_tensorrt import TensorRtEngine
from s4g.core.errors import InputError, IntegrityError, S4GError
from s4g.core.files import sha256_bytes
from s4g.core.warp import FrameWarp, cut_with_opencv, north_up_warp


def load(name: str) -> ModuleType:
    """Import a helper that lies beside this file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


fake_pycuda = load("fake_pycuda")
fake_tensorrt = load("fake_tensorrt")
toy_plan = load("toy_plan")
build = toy_plan.build

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++ to compile the kernel for the CPU"
)
SIDE, DIM = 64, 32  # of the toy encoder
BATCH_MAX = toy_plan.BATCH_MAX
CAMERA = Camera(320, 240, 260.0, 260.0, 158.0, 121.0, (-0.1, 0.02, 0.0, 0.0))
ATTITUDE = Attitude(40.0, 8.0, -5.0, 100.0)


@pytest.fixture(params=[False, True], ids=["card", "jetson"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = fake_pycuda.Gpu(integrated=request.param)
    made.install(monkeypatch)
    return made


@pytest.fixture
def told(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The behaviour of TensorRT, whose work goes into the stand-in's streams."""
    behaviour = fake_tensorrt.Behaviour(enqueue=gpu.enqueue)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(behaviour))
    return behaviour


@pytest.fixture
def plan(tmp_path: Path, toy_encoder: Path, told: Any, gpu: Any) -> Path:
    return build(tmp_path / "encoder.fp16.plan", toy_encoder, told, gpu)


@pytest.fixture
def engine(plan: Path) -> Iterator[TensorRtEngine]:
    made = TensorRtEngine(plan)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cpu(toy_encoder: Path) -> Any:
    return load_engine(toy_encoder, "cpu", 1)


def images(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def frame(width: int = 320, height: int = 240, seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def warps(count: int, camera: Camera = CAMERA, footprint_m: float = 40.0) -> list[FrameWarp]:
    east, north = look_point_m(camera, ATTITUDE)
    places = [(east + 4.0 * i, north - 3.0 * i) for i in range(count)]
    return [north_up_warp(camera, ATTITUDE, place, footprint_m, SIDE) for place in places]


def released(gpu: Any, told: Any) -> bool:
    return not gpu.live and not gpu.stack() and not told.alive


# ---- images ------------------------------------------------------------------------------------


def test_it_is_an_engine_for_frames(engine: TensorRtEngine, plan: Path, cpu: Any) -> None:
    assert isinstance(engine, FrameEngine)
    assert (engine.name, engine.backend, engine.spec) == (str(plan), "tensorrt", cpu.spec)


@pytest.mark.parametrize("count", [0, 1, 2, 3, BATCH_MAX, BATCH_MAX + 1, 3 * BATCH_MAX + 2])
def test_any_number_of_images_is_embedded(engine: TensorRtEngine, cpu: Any, count: int) -> None:
    batch = images(count)
    result = engine.embed(batch)
    assert (result.shape, result.dtype) == ((count, DIM), np.float32)
    np.testing.assert_allclose(result, cpu.embed(batch) if count else result, atol=1e-5)


def test_images_that_lie_scattered_in_memory_are_embedded(engine: TensorRtEngine, cpu: Any) -> None:
    batch = images(4)[::2, :, ::-1]
    np.testing.assert_allclose(engine.embed(batch), cpu.embed(batch.copy()), atol=1e-5)


def test_results_stay_when_the_next_are_made(engine: TensorRtEngine) -> None:
    first = engine.embed(images(2, 1))
    kept = first.copy()
    engine.embed(images(2, 2))
    assert np.array_equal(first, kept)


def test_a_plan_that_takes_no_small_batch_embeds_one_image(
    tmp_path: Path, toy_encoder: Path, told: Any, gpu: Any, cpu: Any
) -> None:
    engine = TensorRtEngine(build(tmp_path / "three.plan", toy_encoder, told, gpu, least=3))
    for count in (1, 3, 5):
        np.testing.assert_allclose(engine.embed(images(count)), cpu.embed(images(count)), atol=1e-5)
    assert {batch for batch, _ in told.executions} == {3, 4}
    engine.close()


def test_images_of_another_shape_are_refused(engine: TensorRtEngine) -> None:
    with pytest.raises(InputError) as caught:
        engine.embed(np.zeros((1, 32, 32, 3), np.uint8))
    assert str(caught.value) == (
        "images of shape (1, 32, 32, 3) and type uint8; this encoder takes (B, 64, 64, 3) uint8 RGB"
    )


def test_embeddings_that_are_no_numbers_are_refused(engine: TensorRtEngine, told: Any) -> None:
    """As FP16 overflows show."""
    put = told.enqueue
    output = engine._embeddings

    def spoil(stream: int, work: Callable[[], None]) -> None:
        put(stream, work)
        put(stream, lambda: output_view(output.address)[:].fill(np.nan))

    told.enqueue = spoil
    with pytest.raises(S4GError) as caught:
        engine.embed(images(1))
    assert str(caught.value) == (
        f"{engine.name}: embeddings that are no numbers; build the plan again, or use the FP16 plan"
    )


def output_view(address: int) -> np.ndarray:
    import ctypes

    return np.ctypeslib.as_array((ctypes.c_float * DIM).from_address(address))


# ---- contexts and CUDA graphs ------------------------------------------------------------------


def test_the_second_call_records_and_the_third_only_replays(
    engine: TensorRtEngine, gpu: Any, told: Any, cpu: Any
) -> None:
    told_work = told.enqueue
    enqueued: list[int] = []
    told.enqueue = lambda stream, work: (enqueued.append(stream), told_work(stream, work))
    for seed in range(5):
        batch = images(2, seed)
        np.testing.assert_allclose(engine.embed(batch), cpu.embed(batch), atol=1e-5)
    assert len(enqueued) == 2  # once plain, once recorded
    assert gpu.calls.count("cuStreamBeginCapture_v2") == 1
    assert gpu.calls.count("cuGraphLaunch") == 4
    assert len(told.executions) == 5


def test_addresses_are_set_once_for_each_batch_size(engine: TensorRtEngine, told: Any) -> None:
    for _ in range(3):
        for count in (1, 3, 2):
            engine.embed(images(count))
    assert sorted(told.addresses) == ["embeddings"] * 3 + ["images"] * 3


def test_recordings_of_several_sizes_stay_right_side_by_side(
    engine: TensorRtEngine, cpu: Any
) -> None:
    """A recording is void as soon as its context changes; see the stand-in."""
    for seed in range(4):
        for count in (4, 1, 2, 3):
            batch = images(count, seed)
            np.testing.assert_allclose(engine.embed(batch), cpu.embed(batch), atol=1e-5)


def test_only_so_many_batch_sizes_are_kept_ready(
    engine: TensorRtEngine, gpu: Any, told: Any, cpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s4g.core.tensorrt_network.MAX_CONTEXTS", 2)
    for count in (1, 1, 2, 2, 3, 3, 1, 1):
        np.testing.assert_allclose(engine.embed(images(count)), cpu.embed(images(count)), atol=1e-5)
    contexts = [one for one in told.alive if type(one).__name__ == "IExecutionContext"]
    assert len(contexts) == 2  # of 3 and 1
    assert list(gpu.live.values()).count("executable") == 2
    told.addresses.clear()
    engine.embed(images(3))
    engine.embed(images(2))  # in the place of 1, which was used before 3
    engine.embed(images(3))
    assert told.addresses.count("images") == 1


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("cuStreamBeginCapture_v2", "cuStreamBeginCapture_v2 failed: broken (1)"),
        ("cuStreamEndCapture", "cuStreamEndCapture failed: capture invalidated (901)"),
        ("cuGraphInstantiateWithFlags", "cuGraphInstantiateWithFlags failed: broken (1)"),
    ],
)
def test_a_plan_that_cannot_be_recorded_runs_call_by_call_and_says_so_once(
    engine: TensorRtEngine,
    gpu: Any,
    cpu: Any,
    capsys: pytest.CaptureFixture[str],
    call: str,
    reason: str,
) -> None:
    gpu.fail = call
    for count in (1, 1, 1, 2, 2, 2):
        np.testing.assert_allclose(engine.embed(images(count)), cpu.embed(images(count)), atol=1e-5)
    assert gpu.calls.count("cuStreamBeginCapture_v2") == 1
    assert "graph" not in gpu.live.values()
    assert capsys.readouterr().err == (
        f"note: {engine.name}: its work cannot be recorded as a CUDA graph and is started call by "
        f"call, which is slower ({reason})\n"
    )


# ---- frames ------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("count", [1, 3, BATCH_MAX, BATCH_MAX + 3])
def test_a_frame_gives_what_opencv_and_the_cpu_give(
    engine: TensorRtEngine, cpu: Any, count: int
) -> None:
    picture, cuts = frame(), warps(count)
    patches = np.zeros((count + 1, SIDE, SIDE, 3), np.uint8)
    result = engine.embed_frame(picture, cuts, patches)
    expected = np.stack([cut_with_opencv(picture, warp) for warp in cuts])
    assert np.abs(patches[:count].astype(int) - expected).max() <= 8  # OpenCV 4: fixed point
    assert not patches[count].any()
    np.testing.assert_allclose(result, cpu.embed(patches[:count]), atol=1e-5)


@needs_compiler
def test_a_frame_crosses_the_bus_once(engine: TensorRtEngine, gpu: Any) -> None:
    picture, count = frame(), BATCH_MAX + 2
    engine.embed_frame(picture, warps(count))
    warp_bytes, row_bytes = (0, 0) if gpu.integrated else (136, 4 * DIM)
    assert gpu.bytes_up == picture.nbytes + count * warp_bytes
    assert gpu.bytes_down == count * row_bytes
    kernels = ("warp_patches", "sum_columns", "brighten_patches")
    assert [(name, grid[2]) for name, grid in gpu.kernels] == [
        (name, part) for part in (BATCH_MAX, 2) for name in kernels
    ]


@needs_compiler
def test_patches_come_back_only_where_they_are_wanted(engine: TensorRtEngine, gpu: Any) -> None:
    patches = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    engine.embed_frame(frame(), warps(2), patches)
    assert gpu.bytes_down == patches.nbytes + (0 if gpu.integrated else 2 * 4 * DIM)


def network_saw(engine: TensorRtEngine, count: int) -> np.ndarray:
    """Return the last batch in the memory of the stand-in for a GPU."""
    size = count * SIDE * SIDE * 3
    memory = (ctypes.c_ubyte * size).from_address(engine._images.address)
    return np.frombuffer(memory, np.uint8).reshape(count, SIDE, SIDE, 3)


@needs_compiler
@pytest.mark.parametrize("count", [1, BATCH_MAX + 3])
def test_dark_patches_are_brightened_for_the_network_and_come_back_as_they_were_cut(
    engine: TensorRtEngine, cpu: Any, count: int
) -> None:
    picture, cuts = frame() // 6, warps(count)
    patches = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    result = engine.embed_frame(picture, cuts, patches)
    expected = np.stack([cut_with_opencv(picture, warp) for warp in cuts])
    assert np.abs(patches.astype(int) - expected).max() <= 2
    brighten(patches)
    np.testing.assert_allclose(result, cpu.embed(patches), atol=1e-5)
    last = patches[(count - 1) // BATCH_MAX * BATCH_MAX :]
    assert np.array_equal(network_saw(engine, len(last)), last)


@needs_compiler
def test_frames_may_change_their_size(engine: TensorRtEngine) -> None:
    patches = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    for width, height in ((160, 120), (640, 480), (320, 240), (160, 120)):
        camera = CAMERA.resized(width, height)
        picture, cuts = frame(width, height), warps(2, camera)
        engine.embed_frame(picture, cuts, patches)
        expected = np.stack([cut_with_opencv(picture, warp) for warp in cuts])
        assert np.abs(patches.astype(int) - expected).mean() < 1


@needs_compiler
def test_memory_is_kept_between_frames(engine: TensorRtEngine, gpu: Any) -> None:
    engine.embed_frame(frame(), warps(2))
    before = dict(gpu.live)
    engine.embed_frame(frame(160, 120), warps(2, CAMERA.resized(160, 120)))
    assert {k: v for k, v in gpu.live.items() if v != "executable"} == before


@needs_compiler
def test_a_frame_that_lies_scattered_in_memory_is_cut(engine: TensorRtEngine) -> None:
    picture, cuts = frame()[:, :, ::-1], warps(1)
    patches = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    engine.embed_frame(picture, cuts, patches)
    expected = cut_with_opencv(np.ascontiguousarray(picture), cuts[0])
    assert np.abs(patches[0].astype(int) - expected).mean() < 1


@needs_compiler
def test_images_and_frames_take_turns(engine: TensorRtEngine, cpu: Any) -> None:
    picture, cuts, batch = frame(), warps(2), images(2)
    first = engine.embed_frame(picture, cuts)
    np.testing.assert_allclose(engine.embed(batch), cpu.embed(batch), atol=1e-5)
    assert np.array_equal(engine.embed_frame(picture, cuts), first)


@needs_compiler
def test_a_frame_without_patches_gives_no_embeddings(engine: TensorRtEngine, gpu: Any) -> None:
    assert engine.embed_frame(frame(), []).shape == (0, DIM)
    assert gpu.kernels == []


def test_a_frame_of_another_camera_is_refused(engine: TensorRtEngine, gpu: Any) -> None:
    with pytest.raises(InputError) as caught:
        engine.embed_frame(frame(160, 120), warps(1))
    assert str(caught.value) == "frame of 160x120 px, camera of 320x240 px; use Camera.resized"
    assert gpu.kernels == []


@needs_compiler
def test_memory_for_a_larger_frame_takes_the_place_of_the_old(
    engine: TensorRtEngine, gpu: Any
) -> None:
    for width, height in ((160, 120), (640, 480)):
        engine.embed_frame(frame(width, height), warps(1, CAMERA.resized(width, height)))
    sizes = [int(kind.split()[1]) for kind in gpu.live.values() if " " in kind]
    assert sizes.count(640 * 480 * 3) == 2  # page-locked and on the GPU
    assert 160 * 120 * 3 not in sizes


def test_room_for_too_few_patches_is_refused(engine: TensorRtEngine) -> None:
    with pytest.raises(InputError) as caught:
        engine.embed_frame(frame(), warps(2), np.zeros((1, SIDE, SIDE, 3), np.uint8))
    assert str(caught.value) == "room for 1 patches, 2 are to be cut"


def test_without_a_compiler_for_gpus_images_are_still_embedded(
    engine: TensorRtEngine, cpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: Any) -> bytes:
        raise S4GError("no libnvrtc.so.12, which compiles GPU code")

    monkeypatch.setattr("s4g.core.gpu_warp.compiled", missing)
    with pytest.raises(S4GError, match=re.escape("no libnvrtc.so.12, which compiles GPU code")):
        engine.embed_frame(frame(), warps(1))
    np.testing.assert_allclose(engine.embed(images(1)), cpu.embed(images(1)), atol=1e-5)


# ---- threads -----------------------------------------------------------------------------------


@needs_compiler
def test_threads_take_turns(engine: TensorRtEngine, gpu: Any, cpu: Any) -> None:
    wrong: list[str] = []
    picture, cuts = frame(), warps(2)
    patches_alone = np.stack([cut_with_opencv(picture, warp) for warp in cuts]).astype(int)

    def work(seed: int) -> None:
        for i in range(8):
            batch = images(1 + (seed + i) % 5, 10 * seed + i)
            if not np.allclose(engine.embed(batch), cpu.embed(batch), atol=1e-5):
                wrong.append(f"images {seed} {i}")
            patches = np.zeros((2, SIDE, SIDE, 3), np.uint8)
            engine.embed_frame(picture, cuts, patches)
            if np.abs(patches - patches_alone).mean() > 1:
                wrong.append(f"frame {seed} {i}")
        if gpu.stack():
            wrong.append("a context stays current")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_waits_for_the_call_under_way(engine: TensorRtEngine, told: Any) -> None:
    """The other thread is inside TensorRT when the engine is closed."""
    inside, go_on = threading.Event(), threading.Event()
    put = told.enqueue
    results: list[Any] = []

    def slow(stream: int, work: Callable[[], None]) -> None:
        inside.set()
        go_on.wait()
        put(stream, work)

    told.enqueue = slow
    caller = threading.Thread(target=lambda: results.append(engine.embed(images(1))))
    closer = threading.Thread(target=engine.close)
    caller.start()
    inside.wait()
    closer.start()
    go_on.set()
    caller.join()
    closer.join()
    assert results[0].shape == (1, DIM)


# ---- release -----------------------------------------------------------------------------------


@needs_compiler
def test_closing_releases_everything(plan: Path, gpu: Any, told: Any) -> None:
    engine = TensorRtEngine(plan)
    for count in (1, 1, 2, 2, 2):
        engine.embed(images(count))
    engine.embed_frame(frame(), warps(2))
    assert {value.split()[0] for value in gpu.live.values()} >= {"stream", "module", "executable"}
    engine.close()
    assert released(gpu, told)
    engine.close()


@needs_compiler
def test_another_thread_may_close(plan: Path, gpu: Any, told: Any) -> None:
    engine = TensorRtEngine(plan)
    engine.embed_frame(frame(), warps(1))
    thread = threading.Thread(target=engine.close)
    thread.start()
    thread.join()
    assert released(gpu, told)


@needs_compiler
def test_an_engine_that_nobody_closed_is_released_when_it_goes(
    plan: Path, gpu: Any, told: Any
) -> None:
    engine = TensorRtEngine(plan)
    engine.embed_frame(frame(), warps(1))
    del engine
    assert released(gpu, told)


def test_a_closed_engine_says_so(engine: TensorRtEngine) -> None:
    engine.close()
    for call in (lambda: engine.embed(images(1)), lambda: engine.embed_frame(frame(), warps(1))):
        with pytest.raises(S4GError) as caught:
            call()
        assert str(caught.value) == f"{engine.name}: the engine is closed"


def test_two_engines_share_the_gpus_context(plan: Path, gpu: Any, cpu: Any) -> None:
    first, second = TensorRtEngine(plan), TensorRtEngine(plan)
    assert gpu.calls.count("retain_primary_context") == 1
    first.close()
    np.testing.assert_allclose(second.embed(images(1)), cpu.embed(images(1)), atol=1e-5)
    second.close()


def test_a_call_that_failed_keeps_nothing_alive(plan: Path, gpu: Any, told: Any) -> None:
    """The error may be kept, and its traceback with what the frames held."""
    engine = TensorRtEngine(plan)
    told.execute_fails = True
    with pytest.raises(S4GError) as kept:
        engine.embed(images(1))
    engine.close()
    assert released(gpu, told)
    assert kept.value.__traceback__ is not None


def test_a_batch_that_is_refused_keeps_nothing_alive(plan: Path, gpu: Any, told: Any) -> None:
    engine = TensorRtEngine(plan)
    with pytest.raises(S4GError) as kept:
        engine._network.run(BATCH_MAX + 1, engine._stream)
    assert str(kept.value) == (
        f"{plan}: TensorRT refuses a batch of 5 (IExecutionContext::setInputShape: Error Code 3: "
        "API Usage Error (images)); build it again"
    )
    engine.close()
    assert released(gpu, told)


def test_the_end_of_the_program_takes_nothing_from_under_a_call(
    plan: Path, gpu: Any, told: Any, cpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that nobody waits for is inside TensorRT when the finalizers run."""
    monkeypatch.setattr("s4g.core.engine_tensorrt._LAST_WAIT_S", 0.01)
    engine = TensorRtEngine(plan)
    inside, go_on = threading.Event(), threading.Event()
    put, results = told.enqueue, []

    def slow(stream: int, work: Callable[[], None]) -> None:
        inside.set()
        go_on.wait()
        put(stream, work)

    told.enqueue = slow
    caller = threading.Thread(target=lambda: results.append(engine.embed(images(1))))
    caller.start()
    inside.wait()
    before = dict(gpu.live)
    engine._release()  # as the end of the program calls it
    after = dict(gpu.live)
    go_on.set()
    caller.join()
    assert after == before
    np.testing.assert_allclose(results[0], cpu.embed(images(1)), atol=1e-5)
    with engine._device.current():
        engine._held.close()


def test_the_end_of_the_program_waits_for_a_call_that_ends(
    plan: Path, gpu: Any, told: Any, cpu: Any
) -> None:
    engine = TensorRtEngine(plan)
    inside, go_on = threading.Event(), threading.Event()
    put, results = told.enqueue, []

    def slow(stream: int, work: Callable[[], None]) -> None:
        inside.set()
        go_on.wait()
        put(stream, work)

    told.enqueue = slow
    caller = threading.Thread(target=lambda: results.append(engine.embed(images(1))))
    caller.start()
    inside.wait()
    threading.Timer(0.05, go_on.set).start()
    engine._release()
    caller.join()
    np.testing.assert_allclose(results[0], cpu.embed(images(1)), atol=1e-5)
    assert released(gpu, told)


# ---- failures ----------------------------------------------------------------------------------


FIRST = [(call, 0) for call in ("retain_primary_context", "push", "Stream", "mem_alloc")]


@pytest.mark.parametrize(
    ("call", "after"), [*FIRST, ("pagelocked_empty", 0), ("pagelocked_empty", 1)]
)
def test_a_constructor_that_fails_leaves_nothing(
    plan: Path, gpu: Any, told: Any, call: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first or the second call of a kind fails."""
    called, seen = gpu.called, [0]

    def count(name: str, current: bool = True) -> None:
        if name == call:
            seen[0] += 1
            if seen[0] == after + 1:
                gpu.fail = call
        called(name, current)

    monkeypatch.setattr(gpu, "called", count)
    with pytest.raises(S4GError, match=f"{call} failed: unspecified launch failure"):
        TensorRtEngine(plan)
    assert released(gpu, told)


def test_a_runtime_that_finds_no_gpu_leaves_nothing(plan: Path, gpu: Any, told: Any) -> None:
    told.no_gpu = True
    with pytest.raises(S4GError) as caught:
        TensorRtEngine(plan)
    assert str(caught.value) == (
        f"TensorRT 10.3.0 cannot use {gpu.name} (CUDA initialization failure with error: 35); "
        "check the driver (s4g-export doctor)"
    )
    assert released(gpu, told)


def test_a_plan_that_tensorrt_refuses_leaves_nothing(
    tmp_path: Path, toy_encoder: Path, told: Any, gpu: Any
) -> None:
    path = build(tmp_path / "x.plan", toy_encoder, told, gpu)
    data = b"no plan of TensorRT"
    changes = {"plan_sha256": sha256_bytes(data), "plan_bytes": len(data)}
    build(path, toy_encoder, told, gpu, **changes)
    path.write_bytes(data)
    with pytest.raises(S4GError) as caught:
        TensorRtEngine(path)
    assert str(caught.value) == (
        f"{path}: TensorRT cannot load the plan (IRuntime::deserializeCudaEngine: Error Code 1: "
        "Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.)); build it "
        "again, or free memory"
    )
    assert released(gpu, told)


def test_a_plan_that_is_not_the_encoder_of_its_spec_leaves_nothing(
    tmp_path: Path, toy_encoder: Path, told: Any, gpu: Any, cpu: Any
) -> None:
    from dataclasses import replace

    spec = replace(cpu.spec, embedding_dim=16, nested_dims=(16,))
    path = build(tmp_path / "x.plan", toy_encoder, told, gpu, spec=spec)
    with pytest.raises(S4GError) as caught:
        TensorRtEngine(path)
    assert re.fullmatch(
        re.escape(f"{path}: its tensors (images ")
        + ".*"
        + re.escape(
            ") are not the encoder of its spec (uint8 images (B, 64, 64, 3) to float embeddings "
            "(B, 16)); build it again"
        ),
        str(caught.value),
    )
    assert released(gpu, told)


def test_a_plan_of_other_batches_than_its_sidecar_says_leaves_nothing(
    tmp_path: Path, toy_encoder: Path, told: Any, gpu: Any
) -> None:
    path = build(tmp_path / "x.plan", toy_encoder, told, gpu, batch_max=8)
    with pytest.raises(S4GError) as caught:
        TensorRtEngine(path)
    assert str(caught.value) == (
        f"{path}: takes batches of 1 to 4, its sidecar says 1 to 8; build it again"
    )
    assert released(gpu, told)


def test_an_earlier_error_is_no_reason_for_a_later_failure(
    engine: TensorRtEngine, gpu: Any, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.execute_fails = True
    with pytest.raises(S4GError, match="enqueueV3"):
        engine.embed(images(1))
    monkeypatch.setattr(engine._network, "_make_context", Silent)
    with pytest.raises(S4GError) as caught:
        engine.embed(images(2))
    assert str(caught.value) == (
        f"{engine.name}: inference failed (no reason given); restart; build it again if it stays"
    )


class Silent:
    """A context that fails without a word."""

    def set_device_memory(self, memory: int, size: int) -> None:
        pass

    def set_input_shape(self, name: str, shape: Any) -> bool:
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        return False


def test_what_tensorrt_warns_of_when_it_loads_a_plan_is_told(
    plan: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    told.load_log = [
        ("WARNING", "Using an engine plan file across different models of devices\nis not advised"),
        ("INFO", "Loaded engine size: 2 MiB"),
    ]
    TensorRtEngine(plan).close()
    assert capsys.readouterr().err == (
        f"note: {plan}: TensorRT warns: Using an engine plan file across different models of "
        "devices is not advised\n"
    )


@pytest.mark.parametrize("during", ["load_log", "execute_fails"])
def test_ctrl_c_inside_tensorrt_arrives_and_nothing_is_left(
    plan: Path, gpu: Any, told: Any, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    """It arrives inside a callback, through which no exception may pass."""

    def interrupt(self: Any, is_error: bool, message: str) -> None:
        raise KeyboardInterrupt

    engine = TensorRtEngine(plan) if during == "execute_fails" else None
    monkeypatch.setattr("s4g.core.tensorrt_log.TensorRtLog.hear", interrupt)
    setattr(told, during, True if engine else [("WARNING", "text")])
    with pytest.raises(KeyboardInterrupt):
        engine.embed(images(1)) if engine else TensorRtEngine(plan)
    if engine:
        engine.close()
    assert released(gpu, told)


def test_ctrl_c_inside_an_inference_that_works_arrives_once(
    engine: TensorRtEngine, told: Any, cpu: Any
) -> None:
    put = told.enqueue

    def interrupted(stream: int, work: Callable[[], None]) -> None:
        engine._network._log.interrupted = True  # as the logger leaves it
        put(stream, work)

    told.enqueue = interrupted
    with pytest.raises(KeyboardInterrupt):
        engine.embed(images(1))
    told.enqueue = put
    np.testing.assert_allclose(engine.embed(images(1)), cpu.embed(images(1)), atol=1e-5)


def test_a_plan_of_a_graph_that_was_exported_again_is_refused(plan: Path, gpu: Any) -> None:
    plan.with_suffix(".onnx").write_bytes(b"another graph")
    with pytest.raises(InputError, match="built from another encoder.fp16.onnx than the one besid"):
        TensorRtEngine(plan)
    assert gpu.calls == []


def test_a_plan_of_another_board_or_power_mode_is_refused(plan: Path, gpu: Any) -> None:
    gpu.multiprocessors = 4
    with pytest.raises(InputError, match="this machine has .* 4 multiprocessors"):
        TensorRtEngine(plan)


def test_too_little_memory_says_what_it_was_for(plan: Path, gpu: Any, told: Any) -> None:
    gpu.free_bytes = 1 << 20
    with pytest.raises(S4GError) as caught:
        TensorRtEngine(plan)
    assert str(caught.value) == (
        "out of GPU memory while allocating 1 MiB for the network (cuMemAlloc failed: out of "
        "memory); stop other programs that use the GPU, or build the plan with a smaller "
        "--batch-max"
    )
    assert released(gpu, told)


def test_a_context_that_cannot_be_made_says_why(
    engine: TensorRtEngine, told: Any, cpu: Any
) -> None:
    told.no_context = True
    with pytest.raises(S4GError) as caught:
        engine.embed(images(1))
    assert str(caught.value) == (
        f"{engine.name}: TensorRT cannot prepare the plan (IExecutionContext: CUDA error: out of "
        "memory); free memory"
    )
    told.no_context = False
    np.testing.assert_allclose(engine.embed(images(1)), cpu.embed(images(1)), atol=1e-5)


def test_an_inference_that_fails_says_why_and_the_next_may_work(
    engine: TensorRtEngine, told: Any, cpu: Any
) -> None:
    told.execute_fails = True
    with pytest.raises(S4GError) as caught:
        engine.embed(images(1))
    assert str(caught.value) == (
        f"{engine.name}: inference failed (IExecutionContext::enqueueV3: Error Code 1: Cuda "
        "Runtime); restart; build it again if it stays"
    )
    told.execute_fails = False
    np.testing.assert_allclose(engine.embed(images(1)), cpu.embed(images(1)), atol=1e-5)


def test_a_failure_on_the_gpu_is_one_line(engine: TensorRtEngine, gpu: Any) -> None:
    gpu.fail = "synchronize"
    with pytest.raises(S4GError) as caught:
        engine.embed(images(1))
    assert str(caught.value) == (
        "the GPU failed while working (synchronize failed: unspecified launch failure)"
    )


def test_work_under_way_is_waited_for_when_a_call_fails(
    engine: TensorRtEngine, gpu: Any, told: Any
) -> None:
    told.execute_fails = True
    with pytest.raises(S4GError):
        engine.embed(images(1))
    assert not any(gpu.streams.values())


def test_a_plan_of_another_gpu_names_both(
    tmp_path: Path, toy_encoder: Path, told: Any, gpu: Any
) -> None:
    path = build(
        tmp_path / "x.plan", toy_encoder, told, gpu, gpu="Xavier", compute_capability="7.2"
    )
    with pytest.raises(InputError) as caught:
        TensorRtEngine(path)
    for part in ("Xavier (7.2,", f"{gpu.name} ({gpu.capability[0]}.{gpu.capability[1]},"):
        assert part in str(caught.value)
    assert "deserialize" not in str(told.alive)
    assert released(gpu, told)


def test_a_damaged_plan_never_reaches_tensorrt(plan: Path, gpu: Any, told: Any) -> None:
    data = bytearray(plan.read_bytes())
    data[100] ^= 1
    plan.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="its SHA-256 is not the one in"):
        TensorRtEngine(plan)
    assert gpu.calls == []
