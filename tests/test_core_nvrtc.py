"""NVRTC: which library is taken, what is kept, and the real compiler where it is installed."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from s4g.core import nvrtc
from s4g.core.errors import S4GError
from s4g.core.gpu_warp import kernel_source
from s4g.core.nvrtc import Nvrtc, compiled

SOURCE = 'extern "C" __global__ void nothing() {}'


class Library:
    """NVRTC as far as it is called: compiles everything but what says `broken`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.programs = 0
        self.text = b""
        self.options: list[bytes] = []
        self.nvrtcGetErrorString = self._error_string

    def nvrtcVersion(self, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = 12, 6
        return 0

    def nvrtcCreateProgram(self, program: Any, source: bytes, name: bytes, *headers: Any) -> int:
        assert headers == (0, None, None)
        program._obj.value = 1
        self.programs += 1
        self.text = source
        return 0

    def nvrtcCompileProgram(self, program: Any, count: int, options: Any) -> int:
        self.options.append(options[0])
        return 6 if b"broken" in self.text else 0

    def nvrtcGetCUBINSize(self, program: Any, size: Any) -> int:
        size._obj.value = len(self.text)
        return 0

    def nvrtcGetCUBIN(self, program: Any, binary: Any) -> int:
        ctypes.memmove(binary, self.text[::-1], len(self.text))
        return 0

    def nvrtcGetProgramLogSize(self, program: Any, size: Any) -> int:
        size._obj.value = 40
        return 0

    def nvrtcGetProgramLog(self, program: Any, log: Any) -> int:
        log.value = b"warp.cu(3): error:\n  no such thing"
        return 0

    def nvrtcDestroyProgram(self, program: Any) -> int:
        self.programs -= 1
        return 0

    class _ErrorString:
        restype: Any = None

        def __call__(self, code: int) -> bytes:
            return b"NVRTC_ERROR_COMPILATION"

    _error_string = _ErrorString()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    """A library that is taken whatever the driver; the cache is an empty folder."""
    made = Library()

    def load(newest: int) -> Library:
        made.asked.append(f"CUDA {newest}")
        return made

    monkeypatch.setattr(nvrtc, "_load", load)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return made


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "s4g" / "kernels").glob("*"))


# ---- compiling ---------------------------------------------------------------------------------


def test_the_binary_is_for_the_gpus_compute_capability(library: Library) -> None:
    assert compiled(SOURCE, "warp.cu", "8.7", 12060) == SOURCE.encode()[::-1]
    assert library.options == [b"--gpu-architecture=sm_87"]
    assert library.asked == ["CUDA 12"]
    assert library.programs == 0


def test_what_does_not_compile_is_one_line_of_the_compiler(
    library: Library, tmp_path: Path
) -> None:
    with pytest.raises(S4GError) as caught:
        compiled("broken", "warp.cu", "8.7", 12060)
    assert str(caught.value) == (
        "warp.cu: NVRTC 12.6 cannot compile it for compute capability 8.7 (warp.cu(3): error: no "
        "such thing); install the CUDA runtime of this GPU's driver"
    )
    assert library.programs == 0
    assert cached(tmp_path) == []


# ---- the cache ---------------------------------------------------------------------------------


def test_a_binary_is_compiled_once(library: Library, tmp_path: Path) -> None:
    first = compiled(SOURCE, "warp.cu", "8.7", 12060)
    assert compiled(SOURCE, "warp.cu", "8.7", 12060) == first
    assert len(library.options) == 1
    assert [path.suffix for path in cached(tmp_path)] == [".cubin"]


@pytest.mark.parametrize(("source", "capability"), [(SOURCE + " ", "8.7"), (SOURCE, "9.0")])
def test_another_source_or_gpu_is_compiled_anew(
    library: Library, source: str, capability: str
) -> None:
    compiled(SOURCE, "warp.cu", "8.7", 12060)
    compiled(source, "warp.cu", capability, 12060)
    assert len(library.options) == 2


@pytest.mark.parametrize("damage", [b"", b"x", b"0" * 200])
def test_a_damaged_binary_is_compiled_anew(library: Library, tmp_path: Path, damage: bytes) -> None:
    compiled(SOURCE, "warp.cu", "8.7", 12060)
    (path,) = cached(tmp_path)
    path.write_bytes(damage)
    assert compiled(SOURCE, "warp.cu", "8.7", 12060) == SOURCE.encode()[::-1]
    assert compiled(SOURCE, "warp.cu", "8.7", 12060) == SOURCE.encode()[::-1]
    assert len(library.options) == 2


def test_without_a_place_for_the_cache_it_works_all_the_same(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compiled(SOURCE, "warp.cu", "8.7", 12060) == SOURCE.encode()[::-1]


def test_a_cache_with_a_relative_path_is_not_used(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the XDG specification."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    compiled(SOURCE, "warp.cu", "8.7", 12060)
    assert not (tmp_path / "cache").exists()
    assert len(list((tmp_path / ".cache" / "s4g" / "kernels").glob("*.cubin"))) == 1


# ---- the library -------------------------------------------------------------------------------


def looked_for(
    driver_version: int, monkeypatch: pytest.MonkeyPatch, there: str = ""
) -> tuple[list[str], str]:
    """Return the libraries tried in turn, and the refusal; the one called `there` loads."""
    tried: list[str] = []

    def open_library(name: str) -> Library:
        tried.append(name)
        if name != there:
            raise OSError(f"{name}: cannot open shared object file")
        return Library()

    monkeypatch.setattr(ctypes, "CDLL", open_library)
    try:
        Nvrtc(driver_version)
    except S4GError as error:
        return tried, str(error)
    return tried, ""


def test_the_drivers_own_cuda_is_looked_for_first_and_older_ones_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_ROOT", "/opt/cuda")
    tried, refusal = looked_for(13020, monkeypatch)
    assert tried == [
        "libnvrtc.so.13",
        "/opt/cuda/lib64/libnvrtc.so.13",
        "/usr/local/cuda/lib64/libnvrtc.so.13",
        "libnvrtc.so.12",
        "/opt/cuda/lib64/libnvrtc.so.12",
        "/usr/local/cuda/lib64/libnvrtc.so.12",
    ]
    assert refusal == (
        "no libnvrtc.so.13 or libnvrtc.so.12, which compiles GPU code; on Jetson: sudo apt install "
        "nvidia-jetpack, and where CUDA is not in /usr/local/cuda: export CUDA_ROOT=FOLDER"
    )


def test_a_newer_cuda_than_the_drivers_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, refusal = looked_for(12060, monkeypatch, there="libnvrtc.so.12")
    assert (tried, refusal) == (["libnvrtc.so.12"], "")


def test_a_driver_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, refusal = looked_for(11080, monkeypatch)
    assert tried == []
    assert refusal.startswith("no driver of CUDA 12 or newer, which compiles GPU code; ")


def test_the_real_compiler_takes_the_kernel() -> None:
    """NVRTC needs no GPU; compute capability 8.7 is Orin's."""
    try:
        compiler = Nvrtc(13000)
    except S4GError as error:
        pytest.skip(str(error))
    binary = compiler.compile(kernel_source(), "warp.cu", "8.7")
    assert binary.startswith(b"\x7fELF")
    assert b"warp_patches" in binary
    with pytest.raises(S4GError) as caught:
        compiler.compile(kernel_source().replace("rintf(", "rimtf("), "warp.cu", "8.7")
    assert str(caught.value).startswith(f"warp.cu: NVRTC {compiler.version} cannot compile it for")
    assert 'identifier "rimtf" is undefined' in str(caught.value)
    with pytest.raises(S4GError, match="cannot compile it for compute capability 1.0"):
        compiler.compile(SOURCE, "warp.cu", "1.0")
