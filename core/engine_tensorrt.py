"""TensorRT on the GPU: embeds images, or whole frames whose patches it cuts itself."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .cuda import Buffer, Device, Stream, open_device
from .engine import Embeddings, Images, check_images
from .errors import InputError, S4GError
from .gpu_warp import FrameWarper, check_warps
from .plan import check_graph, check_runnable, import_tensorrt, read_plan
from .tensorrt_network import Network
from .warp import FrameWarp

# How long the end of the program waits for a call that another thread is in.
_LAST_WAIT_S = 5.0


class TensorRtEngine:
    """A plan of `s4g-export build`; see `FrameEngine`.

    Buffers are page-locked and allocated once, for the largest batch; larger requests run in parts.
    All calls share one stream, one after the other. What the engine holds is released by `close`,
    or else when the engine is collected or the program ends.

    Attributes:
        spec: of the encoder.
        name: the plan's file.
        backend: "tensorrt".
    """

    backend = "tensorrt"

    def __init__(self, path: Path, graphs: bool = True) -> None:
        """Check and load a plan.

        Args:
            path: of the plan; its sidecar lies beside it.
            graphs: whether work is recorded as CUDA graphs; without, each call starts it anew.

        Raises:
            InputError: there is no plan, it is damaged, of another graph than the one beside it,
                or made for another TensorRT or GPU.
            S4GError: there is no GPU or no driver, memory runs out, or TensorRT refuses the plan.
        """
        self.name = str(path)
        plan, info = read_plan(path)
        check_graph(path, info)
        self.spec = info.spec
        trt = import_tensorrt()
        self._device = device = open_device()
        gpu = (device.name, device.capability, device.multiprocessor_count)
        check_runnable(path, info, trt.__version__, *gpu)
        self._lock = threading.RLock()
        self._warper: tuple[FrameWarper, Buffer] | None = None
        side, dim = self.spec.input_px, self.spec.embedding_dim
        with device.current(), contextlib.ExitStack() as held:
            self._stream = Stream(device)
            held.callback(self._stream.close)
            shape = (info.batch_max, side, side, 3)
            self._images = Buffer(device, shape, np.uint8, "images")
            held.callback(self._images.free)
            self._embeddings = Buffer(device, (info.batch_max, dim), np.float32, "embeddings")
            held.callback(self._embeddings.free)
            self._network = Network(trt, path, plan, info, device, graphs)
            held.callback(self._network.close)
            self._network.bind(self._images.address, self._embeddings.address)
            self._held = held.pop_all()
        self._release = weakref.finalize(
            self, _release, self._lock, device, self._stream, self._held
        )

    def embed(self, images: Images) -> Embeddings:
        """Embed images (B, S, S, 3) uint8 RGB; return (B, D) float32, L2-normalised.

        Raises:
            InputError: shape or dtype is wrong.
            S4GError: the GPU fails, or the engine is closed.
        """
        check_images(images, self.spec)

        def fill(first: int, last: int) -> None:
            count = last - first
            np.copyto(self._images.host[:count], images[first:last])
            self._images.to_device(count, self._stream)

        with self._running():
            return self._run(len(images), fill)

    def embed_frame(
        self, frame: Images, warps: Sequence[FrameWarp], patches: Images | None = None
    ) -> Embeddings:
        """Cut patches out of a frame and embed them; the frame crosses the bus once.

        The network sees dark patches brightened, as `core.dusk` does it.

        Args:
            frame: (H, W, 3) uint8 RGB.
            warps: of the P patches.
            patches: (>= P, S, S, 3) uint8, filled with the patches as they were cut in its first
                P places.

        Returns:
            (P, D) float32, L2-normalised.

        Raises:
            InputError: a shape or dtype is wrong, or frame and warps do not belong together.
            S4GError: the GPU fails, or the engine is closed.
        """
        side = self.spec.input_px
        check_warps(frame, warps, side)
        if patches is not None:
            check_images(patches, self.spec)
            if len(patches) < len(warps):
                raise InputError(f"room for {len(patches)} patches, {len(warps)} are to be cut")

        with self._running():
            warper, cuts = self._open_warper()
            if warps:
                warper.upload(frame, warps, self._stream)

            def fill(first: int, last: int) -> None:
                count, stream = last - first, self._stream
                warper.cut(first, last, side, cuts.address, stream)
                if patches is not None:
                    cuts.to_host(count, stream)
                warper.brighten(count, side, cuts.address, self._images.address, stream)

            def keep(first: int, last: int) -> None:
                if patches is not None:
                    patches[first:last] = cuts.host[: last - first]

            return self._run(len(warps), fill, keep)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Hold the engine for one call, with the GPU's context current."""
        with self._lock:
            if not self._release.alive:
                raise S4GError(f"{self.name}: the engine is closed")
            with self._device.current():
                try:
                    yield
                except BaseException:
                    # Work under way still uses the buffers, which the next call may replace.
                    with contextlib.suppress(S4GError):
                        self._stream.wait()
                    raise

    def _open_warper(self) -> tuple[FrameWarper, Buffer]:
        """Return what cuts patches, and where they lie before the network's input."""
        if self._warper is None:
            warper = FrameWarper(self._device)
            self._held.callback(warper.close)
            # Read twice on the GPU, also where it shares the CPU's memory: see `FrameWarper`.
            shape = self._images.host.shape
            cuts = Buffer(self._device, shape, np.uint8, "patches", copied=True)
            self._held.callback(cuts.free)
            self._warper = warper, cuts
        return self._warper

    def _run(
        self,
        total: int,
        fill: Callable[[int, int], None],
        keep: Callable[[int, int], None] | None = None,
    ) -> Embeddings:
        """Embed `total` images, as many at a time as the plan takes.

        Args:
            total: number of images.
            fill: puts images `first` to `last - 1` into the input, through the stream.
            keep: called with the same two, once the stream is done.
        """
        result = np.empty((total, self.spec.embedding_dim), np.float32)
        step = self._network.batch_max
        for first in range(0, total, step):
            last = min(first + step, total)
            count = last - first
            fill(first, last)
            # A plan may take no batch this small: what lies behind the images is embedded too.
            self._network.run(max(count, self._network.batch_min), self._stream)
            self._embeddings.to_host(count, self._stream)
            self._stream.wait()
            result[first:last] = self._embeddings.host[:count]
            if keep is not None:
                keep(first, last)
        if not np.isfinite(result).all():
            raise S4GError(
                f"{self.name}: embeddings that are no numbers; build the plan again, or use the "
                "FP16 plan"
            )
        return result

    def close(self) -> None:
        """Release everything the engine holds; a second call does nothing."""
        with self._lock:
            self._release()


def _release(
    lock: threading.RLock, device: Device, stream: Stream, held: contextlib.ExitStack
) -> None:
    """Release in the reverse of the order in which things were made.

    Nothing is taken from under a call that does not end: then the end of the process releases it.
    """
    taken = False
    with contextlib.suppress(KeyboardInterrupt):
        taken = lock.acquire(timeout=_LAST_WAIT_S)
    if not taken:
        return
    try:
        with device.current(), held, contextlib.suppress(S4GError):
            stream.wait()  # a failure was told by the call it happened in
    finally:
        lock.release()
