"""The INT8 limit of one core by its bare instruction, beside what ONNX Runtime reaches.

`s4g-export bench` measures an engine against the fastest product of ONNX Runtime. This program
says how far that is from the instruction itself (vpdpbusd, x86 with AVX512-VNNI or AVX-VNNI), so
that the share of the limit can be read either way. It needs Linux and a C compiler.

    python benchmarks/int8_limit.py
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from s4g.export.machine import describe, machine
from s4g.export.roofline import measure_roofline

_ROUNDS = 100_000  # about a millisecond: short enough to be left alone by other programs
_RUNS = 200
# Register, how the instruction is spelled, multiply-adds it does, registers for independent sums
# (as many as there are beside the factor's: its latency must not be the limit).
_KINDS = {
    "avx512_vnni": ("zmm", "vpdpbusd", 64, 31),
    "avx_vnni": ("ymm", "{vex} vpdpbusd", 32, 15),
}


def instruction_gmacs_per_s() -> float:
    """Return 10^9 multiply-adds per second of the instruction on one core."""
    flags = Path("/proc/cpuinfo").read_text().split()
    kind = next((kind for kind in _KINDS if kind in flags), None)
    compiler = shutil.which("gcc") or shutil.which("clang")
    if kind is None or compiler is None:
        sys.exit("error: no C compiler, install gcc" if kind else "error: no VNNI instructions")
    register, instruction, macs, sums = _KINDS[kind]
    factor = f"%%{register}{sums}"
    products = "".join(f"{instruction} {factor},{factor},%%{register}{i}\\n" for i in range(sums))
    clobbers = ",".join(f'"{register}{i}"' for i in range(sums + 1))
    program = f"""void run(long rounds) {{
        __asm__ volatile("1:\\n{products}dec %0\\njnz 1b" : "+r"(rounds) : : "cc",{clobbers});
    }}"""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "limit.c", Path(folder) / "limit.so"
        source.write_text(program)
        command = [compiler, "-O2", "-march=native", "-shared", "-fPIC", source, "-o", library]
        subprocess.run(command, check=True)
        run = ctypes.CDLL(str(library)).run
    fastest_s = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        run(ctypes.c_long(_ROUNDS))
        fastest_s = min(fastest_s, time.perf_counter() - start)
    return _ROUNDS * sums * macs / fastest_s / 1e9


def main() -> None:
    """Print both limits."""
    print(describe(machine()))
    limit, reached = instruction_gmacs_per_s(), measure_roofline(1)
    share = reached.int8_gmacs_per_s / limit
    print(f"instruction (vpdpbusd)      {limit:6.0f} GMAC/s")
    print(f"ONNX Runtime, INT8 product  {reached.int8_gmacs_per_s:6.0f} GMAC/s, {share:.0%} of it")
    print(f"ONNX Runtime, FP32 product  {reached.fp32_gmacs_per_s:6.0f} GMAC/s")


if __name__ == "__main__":
    main()
