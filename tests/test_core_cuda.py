"""The GPU through pycuda: what is missing is named, contexts nest, memory is shared or copied."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from s4g.core import cuda
from s4g.core.cuda import Buffer, DeviceMemory, Graph, Stream, one_line, open_device
from s4g.core.errors import S4GError


def load(name: str) -> ModuleType:
    """Import a helper that lies beside this file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


fake_pycuda = load("fake_pycuda")


@pytest.fixture(params=[False, True], ids=["card", "jetson"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = fake_pycuda.Gpu(integrated=request.param)
    made.install(monkeypatch)
    return made


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = fake_pycuda.Gpu()
    made.install(monkeypatch)
    return made


# ---- what is missing ---------------------------------------------------------------------------


def refusal() -> str:
    with pytest.raises(S4GError) as caught:
        open_device()
    return str(caught.value)


@pytest.fixture(autouse=True)
def not_opened_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_devices", [])


def test_missing_pycuda_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert refusal() == (
        "pycuda is not installed; on Jetson: export PATH=/usr/local/cuda/bin:$PATH "
        "CUDA_ROOT=/usr/local/cuda; pip install pycuda"
    )


def test_a_missing_driver_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the real pycuda says where libcuda.so.1 is not there."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text(
        "raise ImportError('libcuda.so.1: cannot open shared object file:\\n No such file')"
    )
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert refusal() == (
            "pycuda cannot reach the NVIDIA driver (libcuda.so.1: cannot open shared object file: "
            "No such file); start a container with --runtime nvidia, or build pycuda for this "
            "driver: pip install --no-cache-dir --force-reinstall --no-deps pycuda"
        )
    finally:
        sys.modules.pop("pycuda", None)


def test_a_driver_without_a_gpu_is_told(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise card.driver.RuntimeError("cuInit failed: no CUDA-capable device is detected")

    monkeypatch.setattr(card.driver, "init", init)
    assert refusal() == (
        "no GPU can be used (cuInit failed: no CUDA-capable device is detected); check nvidia-smi"
    )


def test_gpus_that_are_hidden_are_told(card: Any) -> None:
    card.fail = "count"
    assert refusal() == "no GPU can be used (the driver lists none); check CUDA_VISIBLE_DEVICES"


def test_a_gpu_is_known_by_name_capability_and_multiprocessors(gpu: Any) -> None:
    device = open_device()
    seen = (device.name, device.capability, device.multiprocessor_count)
    assert seen == (("Orin", "8.7", 8) if gpu.integrated else ("Big GPU", "9.0", 132))


def test_an_error_is_told_on_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError()) == "ValueError"


# ---- the context -------------------------------------------------------------------------------


def test_the_process_has_one_device(gpu: Any) -> None:
    devices: list[cuda.Device] = []
    threads = [threading.Thread(target=lambda: devices.append(open_device())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(device) for device in devices}) == 1
    assert gpu.calls.count("retain_primary_context") == 1
    assert devices[0].integrated == gpu.integrated


def test_the_context_is_released_by_name_with_the_device(card: Any) -> None:
    """pycuda's destructor would take it for an ordinary context; at the end of the program too."""
    device = cuda.Device()
    assert "detach" not in card.calls
    del device
    assert card.calls.count("detach") == 1


def test_the_context_is_current_inside_and_gone_after_even_if_that_fails(card: Any) -> None:
    device = open_device()
    with pytest.raises(KeyError), device.current():
        assert len(card.stack()) == 1
        raise KeyError
    assert card.stack() == []


def test_the_context_of_another_library_is_current_again_afterwards(card: Any) -> None:
    other = card.driver.Device(0).retain_primary_context()
    other.push()
    device = open_device()
    with device.current(), device.current():
        assert len(card.stack()) == 3
    assert card.stack() == [other]


def test_another_thread_has_its_own_current_context(card: Any) -> None:
    device = open_device()
    seen: list[int] = []

    def look() -> None:
        seen.append(len(card.stack()))
        with device.current():
            seen.append(len(card.stack()))

    with device.current():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == [0, 1]


# ---- memory ------------------------------------------------------------------------------------


def test_a_buffer_is_shared_on_jetson_and_copied_on_a_card(gpu: Any) -> None:
    device = open_device()
    with device.current():
        stream = Stream(device)
        buffer = Buffer(device, (3, 4), np.float32, "tests")
        kinds = sorted(kind.split()[0] for kind in gpu.live.values() if kind != "stream")
        assert kinds == (["mapped"] if gpu.integrated else ["device", "page-locked"])
        assert (buffer.address == buffer.host.ctypes.data) == gpu.integrated
        buffer.host[:] = 1
        buffer.to_device(2, stream)
        stream.wait()
        assert gpu.bytes_up == (0 if gpu.integrated else 2 * 4 * 4)
        on_gpu = np.ctypeslib.as_array((ctypes.c_float * 12).from_address(buffer.address))
        assert on_gpu[:8].tolist() == [1.0] * 8
        on_gpu[:] = 5
        buffer.to_host(1, stream)
        stream.wait()
        rows = [5.0, 5.0, 5.0] if gpu.integrated else [5.0, 1.0, 1.0]
        assert buffer.host[:, 0].tolist() == rows
        buffer.free()
        stream.close()
    assert gpu.live == {}


def test_a_buffer_that_is_to_be_copied_is_copied_everywhere(gpu: Any) -> None:
    device = open_device()
    with device.current():
        buffer = Buffer(device, (8,), np.uint8, "tests", copied=True)
        assert sorted(kind.split()[0] for kind in gpu.live.values()) == ["device", "page-locked"]
        buffer.free()
    assert gpu.live == {}


def test_a_buffer_that_gets_only_half_its_memory_gives_that_back(card: Any) -> None:
    device = open_device()
    card.free_bytes = 3 << 20
    with device.current(), pytest.raises(S4GError) as caught:
        Buffer(device, (2 << 20,), np.uint8, "tests")
    assert str(caught.value) == (
        "out of GPU memory while allocating 2 MiB for tests (cuMemAlloc failed: out of memory); "
        "stop other programs that use the GPU, or build the plan with a smaller --batch-max"
    )
    assert card.live == {}


def test_memory_that_cannot_be_mapped_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = fake_pycuda.Gpu(integrated=True)
    gpu.install(monkeypatch)
    device = open_device()
    gpu.fail = "get_device_pointer"
    with device.current(), pytest.raises(S4GError, match="failed while mapping memory for tests"):
        Buffer(device, (8,), np.uint8, "tests")
    assert gpu.live == {}


def test_memory_of_no_size_is_still_memory(card: Any) -> None:
    """A network may need no scratch memory; an address is asked for all the same."""
    device = open_device()
    with device.current():
        memory = DeviceMemory(device, 0, "tests")
        assert memory.address
        memory.free()


def test_copies_happen_when_the_stream_gets_there(card: Any) -> None:
    device = open_device()
    with device.current():
        stream = Stream(device)
        buffer = Buffer(device, (4,), np.uint8, "tests")
        buffer.host[:] = 1
        buffer.to_device(4, stream)
        buffer.host[:] = 2  # too early: the copy has not been made
        stream.wait()
        buffer.host[:] = 3
        buffer.to_host(4, stream)
        assert buffer.host.tolist() == [3] * 4
        stream.wait()
        assert buffer.host.tolist() == [2] * 4
        buffer.free()
        stream.close()


# ---- CUDA graphs -------------------------------------------------------------------------------


def record(card: Any, fail: str = "") -> tuple[Stream, list[int], Graph]:
    device = open_device()
    stream, done = Stream(device), []
    card.fail = fail
    return stream, done, Graph(stream, lambda: card.enqueue(stream.handle, lambda: done.append(1)))


def test_recorded_work_runs_at_every_launch_and_only_then(card: Any) -> None:
    with open_device().current():
        stream, done, graph = record(card)
        stream.wait()
        assert done == []
        for _ in range(3):
            graph.launch()
        stream.wait()
        assert done == [1, 1, 1]
        graph.close()
        stream.close()
    assert card.live == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("cuStreamBeginCapture_v2", "cuStreamBeginCapture_v2 failed: broken (1)"),
        ("cuStreamEndCapture", "cuStreamEndCapture failed: capture invalidated (901)"),
        ("cuGraphInstantiateWithFlags", "cuGraphInstantiateWithFlags failed: broken (1)"),
    ],
)
def test_a_recording_that_fails_leaves_nothing(card: Any, call: str, message: str) -> None:
    with open_device().current():
        with pytest.raises(S4GError) as caught:
            record(card, call)
        assert str(caught.value) == message
    assert "graph" not in card.live.values()
    assert card.capture is None


def test_a_recording_ends_where_the_work_fails(card: Any) -> None:
    def fail() -> None:
        raise S4GError("inference failed")

    with open_device().current():
        stream = Stream(open_device())
        with pytest.raises(S4GError, match="inference failed"):
            Graph(stream, fail)
        assert card.capture is None
        stream.close()
    assert card.live == {}


def test_a_launch_that_the_driver_refuses_is_told(card: Any) -> None:
    with open_device().current():
        _, _, graph = record(card)
        card.fail = "cuGraphLaunch"
        with pytest.raises(S4GError) as caught:
            graph.launch()
        assert str(caught.value) == "cuGraphLaunch failed: broken (1)"
        graph.close()


def test_without_a_driver_graphs_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    cuda.load_libcuda.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(S4GError) as caught:
        cuda.load_libcuda()
    assert str(caught.value) == (
        "CUDA graphs need the driver of CUDA 11.4 or newer (libcuda.so.1: cannot open shared "
        "object file)"
    )


# Prototypes as in cuda.h of CUDA 12 and 13; what is called is written down.
LIBCUDA = """
#include <stdint.h>
typedef struct CUstream_st *CUstream; typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
static uint64_t seen[8]; static int count;
int cuGetErrorString(int error, const char **text) { *text = error == 7 ? "seven" : 0; return 0; }
int cuStreamBeginCapture_v2(CUstream s, int mode) { seen[count++] = (uint64_t)s + mode; return 0; }
int cuStreamEndCapture(CUstream s, CUgraph *g) {
    seen[count++] = (uint64_t)s; *g = (CUgraph)0x123456789abcdef0; return 0; }
int cuGraphInstantiateWithFlags(CUgraphExec *e, CUgraph g, unsigned long long flags) {
    seen[count++] = (uint64_t)g + flags; *e = (CUgraphExec)0x7fedcba987654320; return 0; }
int cuGraphDestroy(CUgraph g) { seen[count++] = (uint64_t)g; return 0; }
int cuGraphLaunch(CUgraphExec e, CUstream s) {
    seen[count++] = (uint64_t)e; seen[count++] = (uint64_t)s; return count > 5 ? 7 : 0; }
int cuGraphExecDestroy(CUgraphExec e) { seen[count++] = (uint64_t)e; return 0; }
uint64_t seen_at(int i) { return seen[i]; }
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to compile a libcuda")
def test_handles_of_64_bits_reach_the_driver_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library of C with the driver's prototypes, called as the driver's is."""
    (tmp_path / "cuda.c").write_text(LIBCUDA)
    path = tmp_path / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, tmp_path / "cuda.c"], check=True)
    cuda.load_libcuda.cache_clear()
    real = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: real(str(path)))
    stream = object.__new__(Stream)
    stream.handle = 0x7FFF12345678ABC0
    graph = Graph(stream, lambda: None)
    with pytest.raises(S4GError) as caught:
        graph.launch()
    assert str(caught.value) == "cuGraphLaunch failed: seven (7)"
    library = real(str(path))
    library.seen_at.restype = ctypes.c_uint64
    recording, executable = 0x123456789ABCDEF0, 0x7FEDCBA987654320
    expected = [stream.handle + 1, stream.handle, recording, recording, executable, stream.handle]
    assert [library.seen_at(i) for i in range(6)] == expected
    cuda.load_libcuda.cache_clear()


# ---- the stand-in ------------------------------------------------------------------------------

# What pycuda 2026.1 has of what the stand-in offers: src/wrapper/wrap_cudadrv.cpp, and driver.py
# for the calls of `Function`.
REAL = {
    "Context": {"detach", "push", "pop"},
    "Device": {
        "count",
        "name",
        "compute_capability",
        "get_attribute",
        "retain_primary_context",
    },
    "DeviceAllocation": {"free"},
    "Event": {"record", "synchronize", "time_till"},
    "Error": set(),
    "Function": {"prepare", "prepared_async_call"},
    "LogicError": set(),
    "MemoryError": set(),
    "Module": {"get_function"},
    "PagelockedHostAllocation": {"free", "get_device_pointer"},
    "RuntimeError": set(),
    "Stream": {"handle", "synchronize"},
    "device_attribute": {"INTEGRATED", "MULTIPROCESSOR_COUNT"},
    "host_alloc_flags": {"DEVICEMAP"},
    "get_driver_version": set(),
    "init": set(),
    "mem_alloc": set(),
    "memcpy_dtoh": set(),
    "memcpy_dtoh_async": set(),
    "memcpy_htod_async": set(),
    "module_from_buffer": set(),
    "pagelocked_empty": set(),
}


def offered() -> dict[str, set[str]]:
    driver = fake_pycuda.Gpu().driver
    return {
        name: {member for member in vars(value) if not member.startswith("_")}
        if isinstance(value, type)
        else set()
        for name, value in vars(driver).items()
        if not name.startswith("_")
    }


def test_the_stand_in_offers_what_pycuda_has() -> None:
    assert offered() == REAL


def test_the_installed_pycuda_has_it() -> None:
    driver = pytest.importorskip(
        "pycuda.driver", reason="pycuda is not installed, or finds no driver", exc_type=ImportError
    )
    for name, members in REAL.items():
        assert members <= set(dir(getattr(driver, name))), name
