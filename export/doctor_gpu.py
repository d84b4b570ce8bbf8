"""What the GPU can do, found out by doing it: TensorRT's builder, memory, our kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import numpy as np

from ..core.camera import Attitude, Camera
from ..core.cuda import Buffer, Device, GpuError, Stream, one_line, open_device
from ..core.devices import installed
from ..core.errors import S4GError
from ..core.gpu_warp import FrameWarper
from ..core.plan import import_tensorrt
from ..core.warp import cut_with_opencv, north_up_warp
from .diagnosis import ABSENT, FAILS, WORKS, Check
from .remedies import Platform, remedy

# OpenCV interpolates with 5 bits, the kernel in float: on a smooth picture they agree closely.
_MAX_PATCH_DIFFERENCE = 1.0
_PATCH_PX = 64


def check_tensorrt(where: Platform) -> Check:
    """Import TensorRT and create a builder, which needs a GPU and its driver."""
    name = "tensorrt builder"
    if not installed("tensorrt"):
        return Check(name, ABSENT, "tensorrt is not installed", remedy("tensorrt", where))
    try:
        tensorrt = import_tensorrt()
        tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    except (S4GError, TypeError) as error:  # not to be loaded, or (TypeError) no driver for it
        return Check(name, FAILS, one_line(error), remedy("tensorrt", where))
    except Exception as error:  # the bindings have kinds of their own
        return Check(name, FAILS, one_line(error))
    return Check(name, WORKS, f"TensorRT {tensorrt.__version__}")


def check_gpu(where: Platform) -> Iterator[Check]:
    """Yield whether bytes go to the GPU and back, and whether it cuts patches as OpenCV does."""
    if not installed("pycuda"):
        yield Check("pycuda", ABSENT, "pycuda is not installed", remedy("pycuda", where))
        return
    try:
        device = open_device()
        with device.current():
            _move_bytes(device)
    except S4GError as error:
        yield Check("pycuda", FAILS, str(error), _to_install("pycuda", error, where))
        return
    yield Check("pycuda", WORKS, f"{device.name}, compute capability {device.capability}")
    try:
        with device.current():
            worst = _cut_patch(device)
    except S4GError as error:
        yield Check("patch kernel", FAILS, str(error), _to_install("kernel", error, where))
        return
    yield Check("patch kernel", WORKS, f"differs from OpenCV by {worst:.1f} of 255 on average")


def _to_install(piece: str, error: S4GError, where: Platform) -> str:
    """Return the remedy of what does not load or compile; none where the GPU itself fails."""
    return "" if isinstance(error, GpuError) else remedy(piece, where)


def _move_bytes(device: Device) -> None:
    """Send bytes to the GPU and fetch them again; its context must be current."""
    sent = np.arange(4096, dtype=np.uint16)
    with ExitStack() as stack:
        stream = stack.enter_context(closing(Stream(device)))
        buffer = Buffer(device, sent.shape, sent.dtype, "a test", copied=True)
        stack.callback(buffer.free)
        buffer.host[:] = sent
        buffer.to_device(len(sent), stream)
        stream.wait()
        buffer.host[:] = 0
        buffer.to_host(len(sent), stream)
        stream.wait()
        if not np.array_equal(buffer.host, sent):
            raise GpuError("bytes come back from the GPU altered")


def _cut_patch(device: Device) -> float:
    """Cut a patch on the GPU; return its mean difference to OpenCV's, grey levels."""
    camera = Camera.from_hfov(320, 240, 60.0)
    warp = north_up_warp(camera, Attitude(20.0, 3.0, -2.0, 100.0), (0.0, 0.0), 60.0, _PATCH_PX)
    ramp = np.add.outer(np.arange(240), np.arange(320)) * (255 / 560)
    frame = np.ascontiguousarray(np.stack([ramp, 255 - ramp, ramp[::-1]], axis=2).astype(np.uint8))
    with ExitStack() as stack:
        stream = stack.enter_context(closing(Stream(device)))
        warper = stack.enter_context(closing(FrameWarper(device)))
        patch = Buffer(device, (1, _PATCH_PX, _PATCH_PX, 3), np.uint8, "a patch")
        stack.callback(patch.free)
        warper.upload(frame, [warp], stream)
        warper.cut(0, 1, _PATCH_PX, patch.address, stream)
        patch.to_host(1, stream)
        stream.wait()
        expected = cut_with_opencv(frame, warp).astype(float)
        difference = float(np.abs(patch.host[0] - expected).mean())
    if not difference <= _MAX_PATCH_DIFFERENCE:
        raise GpuError(f"the patch it cuts is wrong (differs from OpenCV's by {difference:.1f})")
    return difference
