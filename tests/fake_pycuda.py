"""A stand-in for pycuda, libcuda and NVRTC, for tests on machines without a GPU.

Its memory is real memory, so that fake_tensorrt.py computes on it and the kernel, compiled for the
CPU, draws into it. Work put into a stream runs when the stream is waited for, and not before: a
result read too early, or an input replaced too soon, shows. Freed memory is overwritten and kept.
What is misused raises what the driver would raise, or worse. What tests steer and look at lives in
`Gpu`; test_core_cuda.py checks the names against those of the real pycuda.
"""

from __future__ import annotations

import ctypes
import itertools
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

INVALID_VALUE, CAPTURE_INVALIDATED, CAPTURE_UNSUPPORTED = 1, 901, 900
CUBIN_MAGIC = b"\x7fELF"
_NON_BLOCKING = 1
_DEVICEMAP = 2
_PAGE = 4096
Work = Callable[[], None]


class Gpu:
    """A GPU: what it is, what it does, and what was done with it.

    Attributes:
        name: of the device.
        capability: its compute capability.
        multiprocessors: how many of them are on.
        integrated: whether it shares the CPU's memory.
        free_bytes: memory left to allocate, page-locked or not.
        fail: name of a call of pycuda or libcuda that fails next; "" for none.
        calls: every call of pycuda and libcuda, in order.
        live: what is allocated or made and not yet released, with its kind.
        bytes_up: copied to the GPU.
        bytes_down: copied from it.
        kernels: name and grid of every launch.
    """

    def __init__(self, integrated: bool = False) -> None:
        self.name = "Orin" if integrated else "Big GPU"
        self.capability = (8, 7) if integrated else (9, 0)
        self.multiprocessors = 8 if integrated else 132
        self.integrated = integrated
        self.free_bytes = 1 << 30
        self.fail = ""
        self.calls: list[str] = []
        self.live: dict[int, str] = {}
        self.bytes_up = self.bytes_down = 0
        self.kernels: list[tuple[str, tuple[int, ...]]] = []
        self.streams: dict[int, list[Work]] = {}
        self.capture: tuple[int, int, list[Work]] | None = None  # thread, stream, work
        self.capture_broken = False
        self.recordings: dict[int, list[Work]] = {}
        self.numbers = itertools.count(0x1000, 8)
        self.contexts = threading.local()
        self.memory: dict[int, np.ndarray] = {}
        self.graveyard: list[np.ndarray] = []
        self.driver = _driver(self)
        self.libcuda = _LibCuda(self)

    def module(self) -> ModuleType:
        """Return `pycuda`; its driver is the attribute of that name."""
        package = ModuleType("pycuda")
        package.driver = self.driver  # type: ignore[attr-defined]
        package.__path__ = []
        return package

    def install(self, monkeypatch: Any) -> None:
        """Take the place of pycuda, libcuda and NVRTC until the test ends."""
        import sys

        from s4g.core import cuda, gpu_warp

        monkeypatch.setitem(sys.modules, "pycuda", self.module())
        monkeypatch.setitem(sys.modules, "pycuda.driver", self.driver)
        monkeypatch.setattr(cuda, "_devices", [])
        monkeypatch.setattr(cuda, "load_libcuda", lambda: self.libcuda)
        monkeypatch.setattr(gpu_warp, "compiled", self.compile)

    def compile(self, source: str, name: str, capability: str, driver_version: int) -> bytes:
        """Stand in for `nvrtc.compiled`."""
        self.called("compile", current=False)
        return CUBIN_MAGIC + source.encode()

    def called(self, name: str, current: bool = True) -> None:
        """Note a call; it fails where it was told to, or where no context is current."""
        self.calls.append(name)
        if current and not self.stack():
            raise self.driver.LogicError(f"{name} failed: invalid device context")
        if self.fail == name:
            self.fail = ""
            raise self.driver.LogicError(f"{name} failed: unspecified launch failure")

    def stack(self) -> list[Any]:
        """The contexts of this thread, the current one last."""
        if not hasattr(self.contexts, "stack"):
            self.contexts.stack = []
        return self.contexts.stack

    def allocate(self, size: int, kind: str) -> int:
        """Return the address of new memory, aligned as the driver aligns it."""
        if size > self.free_bytes:
            raise self.driver.MemoryError("cuMemAlloc failed: out of memory")
        if self.capture is not None and self.capture[0] == threading.get_ident():
            self.capture_broken = True
            raise self.driver.LogicError("cuMemAlloc failed: not permitted while capturing")
        self.free_bytes -= size
        room = np.full(size + _PAGE, 0xAA, np.uint8)
        address = -(-room.ctypes.data // _PAGE) * _PAGE
        self.memory[address] = room
        self.live[address] = f"{kind} {size}"
        return address

    def release(self, address: int, size: int) -> None:
        """Take memory back and spoil it."""
        if address not in self.live:
            raise self.driver.LogicError("cuMemFree failed: invalid argument")
        if any(self.streams.values()):
            raise AssertionError("memory freed while work is under way")
        del self.live[address]
        self.free_bytes += size
        room = self.memory.pop(address)
        room[:] = 0xDD
        self.graveyard.append(room)

    def ended(self, number: int) -> None:
        """Take back what pycuda destroys with its last reference, if a context is current."""
        if self.stack() and self.live.pop(number, "") == "stream":
            assert not self.streams.pop(number), "a stream destroyed while work is under way"

    def check_inside(self, address: int, size: int, kind: str = "") -> None:
        """Raise where memory is none of ours, of another kind, or too small."""
        for start, what in self.live.items():
            memory, _, room = what.partition(" ")
            inside = room and start <= address and address + size <= start + int(room)
            if inside and memory.startswith(kind):
                return
        raise self.driver.LogicError(f"invalid argument: {size} bytes at {address:#x}")

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work into a stream, or into the recording of it."""
        if stream not in self.streams:
            raise self.driver.LogicError("invalid resource handle")
        if self.capture is not None and self.capture[1] == stream:
            self.capture[2].append(work)
        else:
            self.streams[stream].append(work)


def _driver(gpu: Gpu) -> Any:
    """Return the module `pycuda.driver`."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class LogicError(Error):
        pass

    class RuntimeError(Error):
        pass

    class device_attribute:
        INTEGRATED = "INTEGRATED"
        MULTIPROCESSOR_COUNT = "MULTIPROCESSOR_COUNT"

    class host_alloc_flags:
        DEVICEMAP = _DEVICEMAP

    class Device:
        def __init__(self, number: int) -> None:
            if number != 0:
                raise LogicError("cuDeviceGet failed: invalid device ordinal")

        @staticmethod
        def count() -> int:
            return 0 if gpu.fail == "count" else 1

        def name(self) -> str:
            return gpu.name

        def compute_capability(self) -> tuple[int, int]:
            return gpu.capability

        def get_attribute(self, attr: str) -> int:
            return {
                device_attribute.INTEGRATED: int(gpu.integrated),
                device_attribute.MULTIPROCESSOR_COUNT: gpu.multiprocessors,
            }[attr]

        def retain_primary_context(self) -> Context:
            gpu.called("retain_primary_context", current=False)
            return Context()

    class Context:
        def detach(self) -> None:
            gpu.called("detach", current=False)

        def push(self) -> None:
            gpu.called("push", current=False)
            gpu.stack().append(self)

        @staticmethod
        def pop() -> None:
            if not gpu.stack():
                raise LogicError("context::pop failed: cannot pop non-current context")
            gpu.stack().pop()

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            self._handle = next(gpu.numbers)
            gpu.called("Stream")
            assert flags == _NON_BLOCKING
            gpu.streams[self._handle] = []
            gpu.live[self._handle] = "stream"

        def __del__(self) -> None:
            gpu.ended(self._handle)

        @property
        def handle(self) -> int:
            return self._handle

        def synchronize(self) -> None:
            gpu.called("synchronize")
            if gpu.capture is not None and gpu.capture[1] == self._handle:
                gpu.capture_broken = True
                raise LogicError("cuStreamSynchronize failed: not permitted while capturing")
            work, gpu.streams[self._handle] = gpu.streams[self._handle], []
            for one in work:
                one()

    class Event:
        def __init__(self) -> None:
            gpu.called("Event")
            self._reached_s = float("nan")
            self._stream: Stream | None = None

        def record(self, stream: Stream) -> None:
            gpu.called("record")
            self._stream = stream
            gpu.enqueue(stream.handle, self._reach)

        def _reach(self) -> None:
            self._reached_s = time.perf_counter()

        def synchronize(self) -> None:
            assert self._stream is not None
            self._stream.synchronize()

        def time_till(self, other: Event) -> float:
            return 1e3 * (other._reached_s - self._reached_s)

    class DeviceAllocation:
        def __init__(self, size: int) -> None:
            self._size = size
            self._address = gpu.allocate(size, "device")

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            gpu.called("free")
            gpu.release(self._address, self._size)

    class PagelockedHostAllocation:
        """The `base` of an array; a ctypes array as well, which numpy takes for that."""

        _flags: int

        def get_device_pointer(self) -> int:
            gpu.called("get_device_pointer")
            if not self._flags & _DEVICEMAP:
                raise LogicError("cuMemHostGetDevicePointer failed: invalid argument")
            return ctypes.addressof(self)  # type: ignore[arg-type]

        def free(self) -> None:
            gpu.called("free")
            gpu.release(ctypes.addressof(self), ctypes.sizeof(self))  # type: ignore[arg-type]

    class Module:
        def __init__(self, binary: bytes) -> None:
            self._library = kernel_on_cpu(binary[len(CUBIN_MAGIC) :].decode())
            self._number = next(gpu.numbers)
            gpu.live[self._number] = "module"

        def __del__(self) -> None:
            gpu.ended(self._number)

        def get_function(self, name: str) -> Function:
            return Function(self, name)

    class Function:
        def __init__(self, module: Module, name: str) -> None:
            self._module = module
            self._name = name
            self._format = ""

        def prepare(self, arg_types: str) -> Function:
            self._format = arg_types
            return self

        def prepared_async_call(
            self, grid: tuple[int, ...], block: tuple[int, ...], stream: Stream, *args: Any
        ) -> None:
            gpu.called("prepared_async_call")
            struct.pack(self._format, *args)
            gpu.kernels.append((self._name, grid))
            gpu.enqueue(stream.handle, lambda: self._run(grid, block, *args))

        def _run(self, grid: Any, block: Any, *args: Any) -> None:
            if self._name == "warp_patches":
                frame, width, height, warps, side, out = args
                gpu.check_inside(frame, width * height * 3, "device")
                gpu.check_inside(out, grid[2] * side * side * 3)
                gpu.check_inside(warps, grid[2] * 136)
            else:
                patches, *_, out = args
                side, sums = (args[1], out) if self._name == "sum_columns" else (args[2], args[1])
                gpu.check_inside(patches, grid[2] * side * side * 3)
                gpu.check_inside(sums, grid[2] * side * 4)
                if sums != out:
                    gpu.check_inside(out, grid[2] * side * side * 3)
            run_grid(self._module._library, self._name, grid, block, self._format, args)

    def init(flags: int = 0) -> None:
        gpu.called("init", current=False)

    def get_driver_version() -> int:
        return 12060

    def mem_alloc(bytes: int) -> DeviceAllocation:
        gpu.called("mem_alloc")
        return DeviceAllocation(bytes)

    def pagelocked_empty(
        shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0
    ) -> np.ndarray:
        gpu.called("pagelocked_empty")
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        address = gpu.allocate(size, "mapped" if mem_flags & _DEVICEMAP else "page-locked")
        members = {"_flags": mem_flags}
        made = type("Base", (PagelockedHostAllocation, ctypes.c_ubyte * size), members)
        return np.ndarray(shape, dtype, buffer=made.from_address(address))

    def memcpy_htod_async(dest: int, src: np.ndarray, stream: Any = None) -> None:
        gpu.called("memcpy_htod_async")
        assert src.flags.c_contiguous
        gpu.check_inside(src.ctypes.data, src.nbytes, "page-locked")
        gpu.check_inside(dest, src.nbytes, "device")
        gpu.bytes_up += src.nbytes
        _copy(dest, src.ctypes.data, src.nbytes, stream)

    def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Any = None) -> None:
        gpu.called("memcpy_dtoh_async")
        assert dest.flags.c_contiguous and dest.flags.writeable
        gpu.check_inside(dest.ctypes.data, dest.nbytes, "page-locked")
        gpu.check_inside(src, dest.nbytes, "device")
        gpu.bytes_down += dest.nbytes
        _copy(dest.ctypes.data, src, dest.nbytes, stream)

    def _copy(dest: int, src: int, size: int, stream: Any) -> None:
        gpu.enqueue(stream.handle, lambda: ctypes.memmove(dest, src, size) and None)

    def memcpy_dtoh(dest: np.ndarray, src: int) -> None:
        gpu.called("memcpy_dtoh")
        gpu.check_inside(src, dest.nbytes, "device")
        ctypes.memmove(dest.ctypes.data, src, dest.nbytes)

    def module_from_buffer(buffer: bytes) -> Module:
        gpu.called("module_from_buffer")
        return Module(buffer)

    names = {name: value for name, value in locals().items() if not name.startswith("_")}
    module = ModuleType("pycuda.driver")
    vars(module).update({name: value for name, value in names.items() if name != "gpu"})
    return module


class _LibCuda:
    """The calls of libcuda.so.1 that make CUDA graphs; each returns an error code."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def _failed(self, name: str) -> bool:
        self._gpu.calls.append(name)
        if self._gpu.fail != name:
            return False
        self._gpu.fail = ""
        return True

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = {CAPTURE_INVALIDATED: b"capture invalidated"}.get(code, b"broken")
        return 0

    def cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:
        gpu = self._gpu
        if self._failed("cuStreamBeginCapture_v2") or gpu.capture is not None or mode != 1:
            return INVALID_VALUE
        gpu.capture, gpu.capture_broken = (threading.get_ident(), stream, []), False
        return 0

    def cuStreamEndCapture(self, stream: int, graph: Any) -> int:
        gpu = self._gpu
        failed = self._failed("cuStreamEndCapture")
        if gpu.capture is None or gpu.capture[:2] != (threading.get_ident(), stream):
            return INVALID_VALUE
        work, gpu.capture = gpu.capture[2], None
        if failed or gpu.capture_broken:
            return CAPTURE_INVALIDATED
        graph._obj.value = self._made("graph", work)
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: int) -> int:
        if self._failed("cuGraphInstantiateWithFlags"):
            return INVALID_VALUE
        executable._obj.value = self._made("executable", self._gpu.recordings[graph.value])
        return 0

    def cuGraphLaunch(self, executable: Any, stream: int) -> int:
        if self._failed("cuGraphLaunch") or self._gpu.live.get(executable.value) != "executable":
            return INVALID_VALUE
        for work in self._gpu.recordings[executable.value]:
            self._gpu.enqueue(stream, work)
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:
        return self._destroyed("graph", graph)

    def cuGraphExecDestroy(self, executable: Any) -> int:
        return self._destroyed("executable", executable)

    def _made(self, kind: str, work: list[Work]) -> int:
        number = next(self._gpu.numbers)
        self._gpu.live[number] = kind
        self._gpu.recordings[number] = work
        return number

    def _destroyed(self, kind: str, handle: Any) -> int:
        gpu = self._gpu
        gpu.calls.append(f"destroy {kind}")
        if gpu.live.get(handle.value) != kind:
            return INVALID_VALUE
        waiting = [work for queue in gpu.streams.values() for work in queue]
        assert not any(work in waiting for work in gpu.recordings[handle.value])
        del gpu.live[handle.value], gpu.recordings[handle.value]
        return 0


def kernel_on_cpu(source: str) -> Any:
    """Return the kernel compiled for the CPU, once for each source.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    if source not in _compiled:
        folder = Path(tempfile.mkdtemp(prefix="s4g-kernel-"))
        try:
            (folder / "kernel.cu").write_text(source)
            shim = Path(__file__).with_name("cuda_on_cpu.h")
            library = folder / "kernel.so"
            command = ["g++", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
            command += ["-include", str(shim), "-x", "c++", str(folder / "kernel.cu")]
            subprocess.run([*command, "-o", str(library)], check=True)
            _compiled[source] = ctypes.CDLL(str(library))
        finally:
            shutil.rmtree(folder)
    return _compiled[source]


_compiled: dict[str, Any] = {}


_ARGUMENTS = {"P": ctypes.c_void_p, "i": ctypes.c_int, "f": ctypes.c_float}


def run_grid(library: Any, name: str, grid: Any, block: Any, form: str, args: Any) -> None:
    """Run a kernel's grid as loops; `form` and `args` as in the launch on a GPU."""
    sizes = ((ctypes.c_uint * 3)(*numbers) for numbers in (grid, block))
    values = (_ARGUMENTS[kind](value) for kind, value in zip(form, args, strict=True))
    getattr(library, f"run_{name}")(*sizes, *values)
