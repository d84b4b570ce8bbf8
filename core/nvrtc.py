"""CUDA C becomes a binary for one GPU, by NVRTC through ctypes, and is kept for the next start.

NVRTC comes with every CUDA runtime, needs neither a host compiler nor anything on PATH, and works
where there is no GPU. nvcc, which pycuda would start, is often neither installed nor found there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import S4GError
from .files import cache_folder, sha256_bytes, write_bytes

_OLDEST_MAJOR = 12  # of JetPack 6
_DIGEST_CHARS = 64
_TOOLKIT = Path("/usr/local/cuda")


class Nvrtc:
    """The compiler library that suits a driver.

    Attributes:
        version: of the library, for example `12.6`.
    """

    def __init__(self, driver_version: int) -> None:
        """Load the newest library that the driver can run the output of.

        Args:
            driver_version: as the driver tells it: 12060 for CUDA 12.6.

        Raises:
            S4GError: there is none.
        """
        newest = driver_version // 1000
        self._library = _load(newest)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def compile(self, source: str, name: str, capability: str) -> bytes:
        """Compile CUDA C to a binary (cubin).

        Args:
            source: the program; includes nothing.
            name: of its file, for messages.
            capability: compute capability of the GPU, for example `8.7`.

        Raises:
            S4GError: it does not compile, or the library does not know that GPU.
        """
        option = f"--gpu-architecture=sm_{capability.replace('.', '')}".encode()
        options = (ctypes.c_char_p * 1)(option)
        with self._program(source, name) as program:
            code = self._library.nvrtcCompileProgram(program, 1, options)
            if code != 0:
                log = self._text(program, "nvrtcGetProgramLog").rstrip(b"\0")
                reason = " ".join(log.decode(errors="replace").split()) or self._error(code)
                raise S4GError(
                    f"{name}: NVRTC {self.version} cannot compile it for compute capability "
                    f"{capability} ({reason}); install the CUDA runtime of this GPU's driver"
                )
            return self._text(program, "nvrtcGetCUBIN")

    @contextlib.contextmanager
    def _program(self, source: str, name: str) -> Iterator[ctypes.c_void_p]:
        program = ctypes.c_void_p()
        text = (source.encode(), name.encode(), 0, None, None)
        self._call("nvrtcCreateProgram", ctypes.byref(program), *text)
        try:
            yield program
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, name: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{name}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(name, program, text)
        return text.raw

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise S4GError(f"{name} failed: {self._error(code)}")

    def _error(self, code: int) -> str:
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        text: bytes = self._library.nvrtcGetErrorString(code)
        return text.decode()


def compiled(source: str, name: str, capability: str, driver_version: int) -> bytes:
    """Return the binary of CUDA C for a GPU, from the cache where it was compiled before.

    Args:
        source: the program; includes nothing.
        name: of its file, for messages.
        capability: compute capability of the GPU, for example `8.7`.
        driver_version: as the driver tells it: 12060 for CUDA 12.6.

    Raises:
        S4GError: it cannot be compiled.
    """
    compiler = Nvrtc(driver_version)
    key = sha256_bytes(f"{source}\0{capability}\0{compiler.version}".encode())
    path = cache_folder("kernels") / f"{Path(name).stem}-{key[:16]}.cubin"
    if (kept := _read_kept(path)) is not None:
        return kept
    binary = compiler.compile(source, name, capability)
    # Where it cannot be kept it is compiled again next time, at a fraction of a second.
    with contextlib.suppress(OSError, S4GError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, sha256_bytes(binary).encode() + binary, overwrite=True)
    return binary


def _read_kept(path: Path) -> bytes | None:
    """Return a binary of the cache; None where there is none, or it was altered."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    binary = data[_DIGEST_CHARS:]
    return binary if data[:_DIGEST_CHARS] == sha256_bytes(binary).encode() else None


def _load(newest: int) -> Any:
    """Return the library of the driver's CUDA or an older one that it runs as well."""
    roots = [os.environ.get(name) for name in ("CUDA_ROOT", "CUDA_HOME", "CUDA_PATH")]
    folders = [Path(root) / "lib64" for root in (*roots, _TOOLKIT) if root]
    names = [f"libnvrtc.so.{major}" for major in range(newest, _OLDEST_MAJOR - 1, -1)]
    for name in names:
        for place in (name, *(str(folder / name) for folder in folders)):
            with contextlib.suppress(OSError):
                return ctypes.CDLL(place)
    wanted = " or ".join(names) or f"driver of CUDA {_OLDEST_MAJOR} or newer"
    raise S4GError(
        f"no {wanted}, which compiles GPU code; on Jetson: sudo apt install nvidia-jetpack, and "
        "where CUDA is not in /usr/local/cuda: export CUDA_ROOT=FOLDER"
    )
