"""The kernels that cut patches against OpenCV: `python benchmarks/gpu_warp.py --frame photo.jpg`.

Needs a GPU and pycuda, not TensorRT. Prints how far the two lie apart, how far dark patches that
the GPU brightened lie from those that the CPU did, and how long each takes for all patches of a
frame: upload, cutting, brightening and waiting on one side, all of that on the CPU on the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from s4g.core.camera import Attitude, Camera, look_point_m
from s4g.core.console import run_command, say
from s4g.core.cuda import Device, DeviceMemory, Stream, open_device
from s4g.core.dusk import brighten
from s4g.core.gpu_warp import FrameWarper, check_warps
from s4g.core.images import read_rgb
from s4g.core.warp import FrameWarp, Image, cut_with_opencv, north_up_warp
from s4g.export.machine import describe, machine

_WARM_UP = 20
_DUSK = 6  # parts of daylight's brightness
_LENSES = {"perfect": (), "drone": (-0.28, 0.10, 0.0008, -0.0005, -0.02)}
# A slow flight with all headings, tilted as in wind; patches side by side, as `s4g-run` cuts them.
_ATTITUDE = Attitude(37.0, 6.0, -4.0, 120.0)


def _warps(frame: Image, lens: str, patches: int, size_px: int) -> list[FrameWarp]:
    height_px, width_px = frame.shape[:2]
    focal_px = 0.8 * width_px
    middle = (width_px - 1) / 2, (height_px - 1) / 2
    camera = Camera(width_px, height_px, focal_px, focal_px, *middle, _LENSES[lens])
    footprint_m = 0.5 * _ATTITUDE.agl_m * height_px / focal_px
    east_m, north_m = look_point_m(camera, _ATTITUDE)
    places = [(east_m + (i % 3 - 1) * 5.0, north_m + (i // 3 - 1) * 5.0) for i in range(patches)]
    return [north_up_warp(camera, _ATTITUDE, place, footprint_m, size_px) for place in places]


def _times_ms(work: Callable[[], object], runs: int) -> tuple[float, float]:
    """Return median and 99th percentile of one run."""
    times_ms = []
    for i in range(_WARM_UP + runs):
        start_s = time.perf_counter()
        work()
        if i >= _WARM_UP:
            times_ms.append(1e3 * (time.perf_counter() - start_s))
    median, slow = np.percentile(times_ms, [50, 99])
    return float(median), float(slow)


def measure(device: Device, frame: Image, warps: list[FrameWarp], runs: int) -> dict[str, float]:
    """Cut all patches both ways; the device's context must be current."""
    size_px, count = warps[0].size_px, len(warps)
    check_warps(frame, warps, size_px)
    stream, warper = Stream(device), FrameWarper(device)
    size_bytes = count * size_px**2 * 3
    room, brightened = (DeviceMemory(device, size_bytes, use) for use in ("patches", "images"))
    patches = np.empty((count, size_px, size_px, 3), np.uint8)

    def cut_and_brighten(picture: Image) -> None:
        warper.upload(picture, warps, stream)
        warper.cut(0, count, size_px, room.address, stream)
        warper.brighten(count, size_px, room.address, brightened.address, stream)
        stream.wait()

    def on_cpu() -> None:
        for i, warp in enumerate(warps):
            patches[i] = cut_with_opencv(frame, warp)
        brighten(patches)

    gpu_ms = _times_ms(lambda: cut_and_brighten(frame), runs)
    cpu_ms = _times_ms(on_cpu, runs)
    seen = np.empty_like(patches)
    device.driver.memcpy_dtoh(seen, brightened.address)
    apart = np.abs(seen.astype(int) - patches)
    cut_and_brighten(frame // _DUSK)
    device.driver.memcpy_dtoh(patches, room.address)
    device.driver.memcpy_dtoh(seen, brightened.address)
    brighten(patches)
    dusk = np.abs(seen.astype(int) - patches)
    for memory in (room, brightened):
        memory.free()
    warper.close()
    stream.close()
    return {
        "shrink": warps[0].shrink,
        "max diff": float(apart.max()),
        "mean diff": float(apart.mean()),
        "dusk diff": float(dusk.max()),
        "GPU p50 ms": gpu_ms[0],
        "GPU p99 ms": gpu_ms[1],
        "CPU p50 ms": cpu_ms[0],
        "CPU p99 ms": cpu_ms[1],
    }


@click.command()
@click.option("--frame", "path", type=click.Path(path_type=Path), help="Photo; default: noise.")
@click.option(
    "--size", nargs=2, type=int, default=(1920, 1080), show_default=True, help="Of noise."
)
@click.option("--patches", type=click.IntRange(1), default=5, show_default=True)
@click.option("--px", type=click.IntRange(16), default=224, show_default=True, help="Of a patch.")
@click.option("--runs", type=click.IntRange(10), default=200, show_default=True)
def cli(path: Path | None, size: tuple[int, int], patches: int, px: int, runs: int) -> None:
    """Print a table with a row for each lens."""
    device = open_device()
    if path is None:
        width_px, height_px = size
        frame = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), np.uint8)
    else:
        frame = read_rgb(path)
    say(f"{device.name} ({device.capability}); {describe(machine())}")
    rows = {}
    with device.current():
        for lens in _LENSES:
            rows[lens] = measure(device, frame, _warps(frame, lens, patches, px), runs)
    names = next(iter(rows.values()))
    click.echo(" ".join(["lens   ", *(f"{name:>10}" for name in names)]))
    for lens, row in rows.items():
        click.echo(" ".join([f"{lens:<7}", *(f"{value:>10.3g}" for value in row.values())]))


if __name__ == "__main__":
    run_command(cli)
