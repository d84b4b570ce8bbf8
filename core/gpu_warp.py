"""North-up patches cut on the GPU: the raw frame goes there once, the patches stay there.

`kernels/warp.cu` does what `cut_with_opencv` does, to within one grey level (OpenCV 5; OpenCV 4
itself rounds positions to 1/32 pixel), and what `brighten` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np
import numpy.typing as npt

from .camera import reach
from .cuda import Buffer, Device, Stream, cuda_errors
from .dusk import DAY_MEAN, DUSK_MEAN, MOST_GAIN, mean_step
from .errors import InputError
from .nvrtc import compiled
from .warp import FrameWarp, Image, check_frame

_KERNEL_FILE = "warp.cu"
_BLOCK_PX = 16
_COLUMNS = 128  # of a block that brightens
_COEFFICIENTS = 8
# Up to here sums of a block's pixels stay below 2^32; no frame has use for more.
MAX_SHRINK = 4096

# struct Warp of kernels/warp.cu.
WARP_DTYPE = np.dtype(
    [
        ("frame_from_patch", np.float64, (9,)),
        ("focal_px", np.float32, (2,)),
        ("center_px", np.float32, (2,)),
        ("distortion", np.float32, (_COEFFICIENTS,)),
        ("reach", np.float32),
        ("distorted", np.int32),
        ("shrink", np.int32),
        ("reserved", np.int32),
    ]
)

Packed = npt.NDArray[np.void]


def kernel_source() -> str:
    """Return the CUDA C of the kernel."""
    file = resources.files("s4g.core") / "kernels" / _KERNEL_FILE
    return file.read_text(encoding="utf-8")


def check_warps(frame: Image, warps: Sequence[FrameWarp], size_px: int) -> None:
    """Refuse a frame and warps that do not belong together.

    Raises:
        InputError: the frame is not (H, W, 3) uint8 of the warps' camera, the lens has too many
            coefficients, a patch is not `size_px` wide, or shrunk by no possible factor.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(
            f"frame of shape {frame.shape} and type {frame.dtype}; expected (H, W, 3) uint8 RGB"
        )
    for warp in warps:
        check_frame(frame, warp.camera)
        if len(warp.camera.distortion) > _COEFFICIENTS:
            raise InputError(
                f"a lens of {len(warp.camera.distortion)} distortion coefficients; expected "
                f"{_COEFFICIENTS} at most"
            )
        if warp.size_px != size_px:
            raise InputError(f"patches of {warp.size_px} px; this encoder takes {size_px} px")
        if not 1 <= warp.shrink <= min(*frame.shape[:2], MAX_SHRINK):
            raise InputError(
                f"a patch that shrinks a frame of {frame.shape[1]}x{frame.shape[0]} px by "
                f"{warp.shrink}; expected 1 to {min(*frame.shape[:2], MAX_SHRINK)}"
            )


def pack_warps(warps: Sequence[FrameWarp], out: Packed) -> None:
    """Write warps as the kernel reads them into the first places of `out` (of `WARP_DTYPE`)."""
    for place, warp in enumerate(warps):
        camera = warp.camera
        out[place] = (
            warp.frame_from_patch.reshape(9),
            (camera.fx_px, camera.fy_px),
            (camera.cx_px, camera.cy_px),
            (*camera.distortion, *(0.0,) * _COEFFICIENTS)[:_COEFFICIENTS],
            reach(camera.distortion) if camera.distortion else 0.0,
            bool(camera.distortion),
            warp.shrink,
            0,
        )


class FrameWarper:
    """The kernels and what they read: one frame and the warps of its patches.

    The frame gets memory of the GPU's own also where it shares the CPU's: the kernel reads every
    pixel several times for every patch, and Jetson's GPU does not cache mapped memory (NVIDIA,
    CUDA for Tegra, "Memory Selection"). The warps are few and read in place.
    """

    def __init__(self, device: Device) -> None:
        """Compile and load the kernels; the context must be current.

        Raises:
            S4GError: it cannot be compiled or loaded.
        """
        self._device = device
        driver = device.driver
        version = driver.get_driver_version()
        binary = compiled(kernel_source(), _KERNEL_FILE, device.capability, version)
        with cuda_errors(driver, f"loading {_KERNEL_FILE}"):
            self._module = driver.module_from_buffer(binary)
            self._cut = self._module.get_function("warp_patches").prepare("PiiPiP")
            self._sum = self._module.get_function("sum_columns").prepare("PiiP")
            self._brighten = self._module.get_function("brighten_patches").prepare("PPiifffP")
        self._sums: Buffer | None = None
        self._frame: Buffer | None = None
        self._warps: Buffer | None = None
        self._size = (0, 0)

    def upload(self, frame: Image, warps: Sequence[FrameWarp], stream: Stream) -> None:
        """Put a frame and the warps of its patches into the stream.

        What was uploaded before must have been used: the stream must be done.

        Args:
            frame: (H, W, 3) uint8, checked by `check_warps`.
            warps: of all patches that will be cut, all of one size.
            stream: where to.

        Raises:
            S4GError: there is not enough memory.
        """
        self._frame = self._room(self._frame, frame.size, np.uint8, "the frame", copied=True)
        self._warps = self._room(self._warps, len(warps), WARP_DTYPE, "warps", copied=False)
        columns = len(warps) * warps[0].size_px
        self._sums = self._room(self._sums, columns, np.uint32, "brightness", copied=True)
        np.copyto(self._frame.host[: frame.size].reshape(frame.shape), frame)
        pack_warps(warps, self._warps.host)
        self._size = frame.shape[1], frame.shape[0]
        self._frame.to_device(frame.size, stream)
        self._warps.to_device(len(warps), stream)

    def cut(self, first: int, last: int, size_px: int, address: int, stream: Stream) -> None:
        """Let the GPU draw patches `first` to `last - 1` of what was uploaded.

        Args:
            first: number of the first patch.
            last: number after the last.
            size_px: side of a patch.
            address: where the first of them goes on the GPU; (N, size_px, size_px, 3) uint8.
            stream: where to.
        """
        assert self._frame is not None and self._warps is not None
        blocks = -(-size_px // _BLOCK_PX)
        warps = self._warps.address + first * WARP_DTYPE.itemsize
        with cuda_errors(self._device.driver, "cutting patches"):
            self._cut.prepared_async_call(
                (blocks, blocks, last - first),
                (_BLOCK_PX, _BLOCK_PX, 1),
                stream.raw,
                self._frame.address,
                *self._size,
                warps,
                size_px,
                address,
            )

    def brighten(self, count: int, size_px: int, patches: int, out: int, stream: Stream) -> None:
        """Let the GPU copy patches and brighten the dark ones, each by itself.

        Args:
            count: number of patches, no more than there were warps.
            size_px: side of a patch.
            patches: where they lie on the GPU; (count, size_px, size_px, 3) uint8.
            out: where they go.
            stream: where to put the work.
        """
        assert self._sums is not None
        grid, block = (-(-size_px // _COLUMNS), 1, count), (_COLUMNS, 1, 1)
        step, sums = mean_step(size_px), self._sums.address
        light = (DUSK_MEAN, DAY_MEAN, MOST_GAIN)
        with cuda_errors(self._device.driver, "brightening patches"):
            self._sum.prepared_async_call(grid, block, stream.raw, patches, size_px, step, sums)
            self._brighten.prepared_async_call(
                grid, block, stream.raw, patches, sums, size_px, step, *light, out
            )

    def close(self) -> None:
        """Release buffers and kernels; the context must be current and the stream done."""
        for buffer in (self._frame, self._warps, self._sums):
            if buffer is not None:
                buffer.free()
        self._frame = self._warps = self._sums = None
        # pycuda unloads a module with its last reference; each kernel holds one.
        self._cut = self._sum = self._brighten = self._module = None

    def _room(
        self, buffer: Buffer | None, rows: int, dtype: npt.DTypeLike, use: str, copied: bool
    ) -> Buffer:
        """Return `buffer`, or a larger one where it has no room for `rows`."""
        if buffer is not None and len(buffer.host) >= rows:
            return buffer
        larger = Buffer(self._device, (rows,), dtype, use, copied)
        if buffer is not None:
            buffer.free()
        return larger
