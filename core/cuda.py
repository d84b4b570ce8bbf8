"""The GPU through pycuda: its shared context, page-locked buffers, streams, CUDA graphs.

pycuda (2026.1) knows no CUDA graphs: those go to the driver's own library through ctypes. Nothing
here is imported or initialised before it is asked for.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import S4GError

# From cuda.h, the same in CUDA 12 and 13.
_STREAM_NON_BLOCKING = 1  # work of other users on the default stream does not hold ours up
_CAPTURE_THREAD_LOCAL = 1  # other threads may allocate while we record
_SUCCESS = 0

_MIB = 1 << 20

_lock = threading.Lock()
_devices: list[Device] = []  # one, once it was opened


class GpuError(S4GError):
    """The GPU itself refused or failed: nothing that is installed differently helps."""


def load_driver() -> Any:
    """Return pycuda's driver module, initialised.

    Raises:
        S4GError: pycuda, the NVIDIA driver or a GPU is missing; the message says which.
    """
    try:
        import pycuda.driver as driver
    except ModuleNotFoundError as error:
        missing = (error.name or "pycuda").partition(".")[0]
        raise S4GError(
            f"{missing} is not installed; on Jetson: export PATH=/usr/local/cuda/bin:$PATH "
            "CUDA_ROOT=/usr/local/cuda; pip install pycuda"
        ) from None
    except (ImportError, OSError) as error:
        raise S4GError(
            f"pycuda cannot reach the NVIDIA driver ({one_line(error)}); start a container with "
            "--runtime nvidia, or build pycuda for this driver: pip install --no-cache-dir "
            "--force-reinstall --no-deps pycuda"
        ) from None
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise S4GError(f"no GPU can be used ({one_line(error)}); check nvidia-smi") from None
    if count == 0:
        raise S4GError("no GPU can be used (the driver lists none); check CUDA_VISIBLE_DEVICES")
    return driver


class Device:
    """The GPU: the first that the driver lists. Get it from `open_device`.

    Attributes:
        name: what the driver calls it.
        capability: compute capability, for example `8.7`.
        multiprocessor_count: as many as the power mode leaves on.
        integrated: whether it shares the memory of the CPU, as on Jetson.
        driver: pycuda's driver module.
    """

    def __init__(self) -> None:
        """Retain the primary context, which CUDA's runtime inside other libraries uses as well.

        It stays with the process: that runtime holds it until then anyway, and pycuda leaves a
        primary context that it releases on the stack of the thread. It must be released by name,
        as pycuda's destructor takes it for an ordinary context.
        """
        self.driver = load_driver()
        device = self.driver.Device(0)
        self.name: str = device.name()
        self.capability = "{}.{}".format(*device.compute_capability())
        attributes = self.driver.device_attribute
        self.multiprocessor_count = int(device.get_attribute(attributes.MULTIPROCESSOR_COUNT))
        self.integrated = bool(device.get_attribute(attributes.INTEGRATED))
        with cuda_errors(self.driver, "opening the GPU"):
            self._context = device.retain_primary_context()
        # Finalizers run last made, first: after those of whatever uses the device.
        weakref.finalize(self, self._context.detach)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU's context current in this thread, and the one before current again."""
        with cuda_errors(self.driver, "making its context current"):
            self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()


def open_device() -> Device:
    """Return the GPU; the process has one `Device`.

    Raises:
        S4GError: pycuda, the NVIDIA driver or a GPU is missing.
    """
    with _lock:
        if not _devices:
            _devices.append(Device())
        return _devices[0]


class Stream:
    """A queue of work on the GPU.

    Attributes:
        raw: pycuda's stream, for its own calls.
        handle: CUDA's, for other libraries.
    """

    def __init__(self, device: Device) -> None:
        """Make it; the context must be current."""
        self._driver = device.driver
        with cuda_errors(self._driver, "making a stream"):
            self.raw: Any = self._driver.Stream(_STREAM_NON_BLOCKING)
        self.handle = int(self.raw.handle)

    def wait(self) -> None:
        """Wait until all that was put into it is done.

        Raises:
            S4GError: some of it failed.
        """
        with cuda_errors(self._driver, "working"):
            self.raw.synchronize()

    def close(self) -> None:
        """Release it; the context must be current."""
        self.raw = None  # pycuda destroys it with the last reference


class DeviceMemory:
    """Memory on the GPU."""

    def __init__(self, device: Device, size_bytes: int, use: str) -> None:
        """Allocate; the context must be current. `use` names it in errors.

        Raises:
            S4GError: there is not enough.
        """
        with cuda_errors(device.driver, f"allocating {_mib(size_bytes)} for {use}"):
            self._allocation = device.driver.mem_alloc(max(1, size_bytes))
        self.address = int(self._allocation)

    def free(self) -> None:
        """Give it back; the context must be current."""
        self._allocation.free()


class Buffer:
    """An array that CPU and GPU share.

    On an integrated GPU both see the same page-locked memory and nothing is copied; elsewhere, or
    with `copied`, the GPU has memory of its own.

    Attributes:
        host: the array.
        address: where the GPU finds it.
    """

    def __init__(
        self,
        device: Device,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        use: str,
        copied: bool = False,
    ) -> None:
        """Allocate; the context must be current. `use` names it in errors.

        Raises:
            S4GError: there is not enough memory.
        """
        self._driver = driver = device.driver
        size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        shared = device.integrated and not copied
        flags = driver.host_alloc_flags.DEVICEMAP if shared else 0
        with cuda_errors(driver, f"allocating {_mib(size_bytes)} page-locked for {use}"):
            self.host: npt.NDArray[Any] = driver.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._page_locked = self.host.base
        self._memory: DeviceMemory | None = None
        try:
            if shared:
                with cuda_errors(driver, f"mapping memory for {use}"):
                    self.address = int(self._page_locked.get_device_pointer())
            else:
                self._memory = DeviceMemory(device, size_bytes, use)
                self.address = self._memory.address
        except S4GError:
            self.free()
            raise

    def to_device(self, count: int, stream: Stream) -> None:
        """Let the GPU see the first `count` rows, once the stream gets there."""
        if self._memory is not None:
            with cuda_errors(self._driver, "copying to the GPU"):
                self._driver.memcpy_htod_async(self.address, self.host[:count], stream.raw)

    def to_host(self, count: int, stream: Stream) -> None:
        """Let the CPU see the first `count` rows, once the stream has got there."""
        if self._memory is not None:
            with cuda_errors(self._driver, "copying from the GPU"):
                self._driver.memcpy_dtoh_async(self.host[:count], self.address, stream.raw)

    def free(self) -> None:
        """Give the memory back; the context must be current, and no view of `host` in use."""
        self.host = np.empty(0, self.host.dtype)
        if self._memory is not None:
            self._memory.free()
        self._page_locked.free()


class Graph:
    """Work of a stream, recorded once, that one call starts again."""

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        """Record what `enqueue` puts into the stream; nothing of it runs.

        Raises:
            S4GError: the work cannot be recorded, or `enqueue` raises it.
        """
        self._library = library = load_libcuda()
        self._stream = stream
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        _call(library, "cuStreamBeginCapture_v2", stream.handle, _CAPTURE_THREAD_LOCAL)
        try:
            try:
                enqueue()
            finally:  # or the stream records for ever
                end = library.cuStreamEndCapture(stream.handle, ctypes.byref(graph))
            _check(library, "cuStreamEndCapture", end)
            if not graph:
                raise S4GError("cuStreamEndCapture recorded nothing")
            _call(library, "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            if graph:
                library.cuGraphDestroy(graph)
        self._executable = executable

    def launch(self) -> None:
        """Put the recorded work into the stream.

        Raises:
            S4GError: the driver refuses.
        """
        _call(self._library, "cuGraphLaunch", self._executable, self._stream.handle)

    def close(self) -> None:
        """Release the recording; the context must be current."""
        self._library.cuGraphExecDestroy(self._executable)


@functools.lru_cache(maxsize=1)
def load_libcuda() -> Any:
    """Return the driver's own library with the signatures of what is called in it (cuda.h).

    Raises:
        S4GError: it is not there, or too old for CUDA graphs.
    """
    handle, pointer = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    signatures: dict[str, list[Any]] = {
        "cuGetErrorString": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
        "cuStreamBeginCapture_v2": [handle, ctypes.c_int],
        "cuStreamEndCapture": [handle, pointer],
        "cuGraphInstantiateWithFlags": [pointer, handle, ctypes.c_ulonglong],
        "cuGraphLaunch": [handle, handle],
        "cuGraphExecDestroy": [handle],
        "cuGraphDestroy": [handle],
    }
    try:
        library = ctypes.CDLL("libcuda.so.1")
        for name, arguments in signatures.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
    except (OSError, AttributeError) as error:
        raise S4GError(f"CUDA graphs need the driver of CUDA 11.4 or newer ({error})") from None
    return library


@contextmanager
def cuda_errors(driver: Any, doing: str) -> Iterator[None]:
    """Turn an error of pycuda into one line that says what was being done.

    Raises:
        GpuError: pycuda raised something.
    """
    try:
        yield
    except driver.MemoryError as error:
        raise GpuError(
            f"out of GPU memory while {doing} ({one_line(error)}); stop other programs that use "
            "the GPU, or build the plan with a smaller --batch-max"
        ) from None
    except driver.Error as error:
        raise GpuError(f"the GPU failed while {doing} ({one_line(error)})") from None


def _call(library: Any, name: str, *arguments: Any) -> None:
    _check(library, name, getattr(library, name)(*arguments))


def _check(library: Any, name: str, code: int) -> None:
    if code == _SUCCESS:
        return
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    raise S4GError(f"{name} failed: {(text.value or b'unknown error').decode()} ({code})")


def one_line(error: Exception) -> str:
    """Return all of an error on one line, or its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _mib(size_bytes: int) -> str:
    return f"{max(1, round(size_bytes / _MIB))} MiB"
