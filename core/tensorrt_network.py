"""A TensorRT plan on the GPU: loaded, checked against its spec, run batch by batch.

Each batch size gets an execution context of its own, whose shapes and addresses are set once. The
second time a size comes up, its work is recorded as a CUDA graph; from then on one call starts it.
A recording is bound to the state of its context, so NVIDIA's guide asks for one context per graph
and lets them share their scratch memory, as all here do (TensorRT developer guide, "CUDA Graphs").
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .console import say
from .cuda import Device, DeviceMemory, Graph, Stream
from .errors import S4GError
from .plan import PlanInfo
from .tensorrt_log import TensorRtLog, make_logger

INPUT, OUTPUT = "images", "embeddings"
# What `s4g-run` asks for: 5 patches, then 1 to 8 more.
MAX_CONTEXTS = 8


@dataclass
class _Lane:
    """What runs one batch size."""

    context: Any = None
    graph: Graph | None = None
    runs: int = 0


class Network:
    """A plan on the GPU.

    Attributes:
        batch_min: smallest batch it takes.
        batch_max: largest batch it takes.
    """

    def __init__(
        self,
        trt: Any,
        path: Path,
        plan: bytes,
        info: PlanInfo,
        device: Device,
        graphs: bool = True,
    ) -> None:
        """Load a plan that has been checked; the device's context must be current.

        Args:
            trt: the TensorRT module.
            path: of the plan, for messages.
            plan: its content.
            info: what its sidecar says.
            device: where it runs.
            graphs: whether work is recorded as CUDA graphs.

        Raises:
            S4GError: TensorRT refuses it, memory runs out, or it is not the encoder of its spec.
        """
        self._trt, self._path, self._spec, self._device = trt, path, info.spec, device
        self._log = TensorRtLog()
        self._logger = make_logger(trt, self._log)
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()
        self._addresses: dict[str, int] = {}
        self._graphs = graphs  # until one cannot be recorded
        self._runtime: Any = None
        self._engine: Any = None
        self._scratch: DeviceMemory | None = None
        try:
            self._load(plan)
            self.batch_min, self.batch_max = self._check_signature()
            if (self.batch_min, self.batch_max) != (info.batch_min, info.batch_max):
                raise S4GError(
                    f"{path}: takes batches of {self.batch_min} to {self.batch_max}, its sidecar "
                    f"says {info.batch_min} to {info.batch_max}; build it again"
                )
            self._scratch_bytes, self._scratch = self._make_scratch()
        except BaseException:
            self.close()
            raise

    # TensorRT's objects go with their last reference: no local one, which a traceback would keep,
    # but fields, which `close` clears.

    def _load(self, plan: bytes) -> None:
        try:
            self._runtime = self._trt.Runtime(self._logger)
        except TypeError as error:  # what the bindings raise where CUDA cannot be initialised
            raise S4GError(
                f"TensorRT {self._trt.__version__} cannot use {self._device.name} "
                f"({self._log.last or error}); check the driver (s4g-export doctor)"
            ) from None
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._failure("TensorRT cannot load the plan", "build it again, or free memory")
        self._log.check()
        for warning in self._log.warnings:
            say(f"note: {self._path}: TensorRT warns: {warning}")

    def _check_signature(self) -> tuple[int, int]:
        """Return least and most batch; refuse a plan that does not do what its spec says."""
        trt = self._trt
        seen = []
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            mode, dtype = self._engine.get_tensor_mode(name), self._engine.get_tensor_dtype(name)
            seen.append((name, mode, dtype, tuple(self._engine.get_tensor_shape(name))))
        side, dim = self._spec.input_px, self._spec.embedding_dim
        wanted = {
            INPUT: (trt.TensorIOMode.INPUT, trt.DataType.UINT8, (side, side, 3)),
            OUTPUT: (trt.TensorIOMode.OUTPUT, trt.DataType.FLOAT, (dim,)),
        }
        found = {name: (mode, dtype, shape[1:]) for name, mode, dtype, shape in seen}
        if found != wanted or len(seen) != len(wanted):
            listed = ", ".join(f"{name} {dtype} {shape}" for name, _, dtype, shape in seen)
            raise S4GError(
                f"{self._path}: its tensors ({listed}) are not the encoder of its spec (uint8 "
                f"{INPUT} (B, {side}, {side}, 3) to float {OUTPUT} (B, {dim})); build it again"
            )
        batch = next(shape[0] for name, _, _, shape in seen if name == INPUT)
        if batch != -1:
            return batch, batch
        least, _, most = self._engine.get_tensor_profile_shape(INPUT, 0)
        return int(least[0]), int(most[0])

    def _make_scratch(self) -> tuple[int, DeviceMemory]:
        """Return size and memory of what all contexts work in, one after the other."""
        size_bytes = int(self._engine.device_memory_size_v2)
        return size_bytes, DeviceMemory(self._device, size_bytes, "the network")

    def bind(self, images: int, embeddings: int) -> None:
        """Say once where input and output lie on the GPU, with room for `batch_max`."""
        self._addresses = {INPUT: images, OUTPUT: embeddings}

    def run(self, batch: int, stream: Stream) -> None:
        """Put one inference of a batch, `batch_min` to `batch_max`, into the stream.

        The device's context must be current and no other call running.

        Raises:
            S4GError: TensorRT or the driver refuses.
        """
        self._log.clear()  # of earlier calls
        lane = self._lane(batch)
        lane.runs += 1
        if lane.graph is None and lane.runs == 2 and self._graphs:
            lane.graph = self._record(lane, stream)
        if lane.graph is not None:
            lane.graph.launch()
        else:
            self._enqueue(lane, stream)
        self._log.check()

    def _lane(self, batch: int) -> _Lane:
        if batch in self._lanes:
            self._lanes.move_to_end(batch)
            return self._lanes[batch]
        while len(self._lanes) >= MAX_CONTEXTS:
            self._release(self._lanes.popitem(last=False)[1])
        lane = _Lane()
        try:
            self._prepare(lane, batch)
        except BaseException:
            self._release(lane)
            raise
        self._lanes[batch] = lane
        return lane

    def _prepare(self, lane: _Lane, batch: int) -> None:
        """Give a lane a context for one batch size, ready to run."""
        side = self._spec.input_px
        lane.context = self._make_context()
        if lane.context is None:
            raise self._failure("TensorRT cannot prepare the plan", "free memory")
        assert self._scratch is not None
        lane.context.set_device_memory(self._scratch.address, self._scratch_bytes)
        ready = lane.context.set_input_shape(INPUT, (batch, side, side, 3)) and all(
            lane.context.set_tensor_address(name, address)
            for name, address in self._addresses.items()
        )
        if not ready:
            raise self._failure(f"TensorRT refuses a batch of {batch}", "build it again")

    def _make_context(self) -> Any:
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return self._engine.create_execution_context(strategy)

    def _enqueue(self, lane: _Lane, stream: Stream) -> None:
        if not lane.context.execute_async_v3(stream.handle):
            raise self._failure("inference failed", "restart; build it again if it stays")

    def _record(self, lane: _Lane, stream: Stream) -> Graph | None:
        try:
            return Graph(stream, lambda: self._enqueue(lane, stream))
        except S4GError as error:
            self._graphs = False
            say(
                f"note: {self._path}: its work cannot be recorded as a CUDA graph and is started "
                f"call by call, which is slower ({error})"
            )
            return None

    def _release(self, lane: _Lane) -> None:
        if lane.graph is not None:
            lane.graph.close()
        lane.graph = lane.context = None

    def close(self) -> None:
        """Release everything; the device's context must be current and the stream done."""
        for lane in self._lanes.values():
            self._release(lane)
        self._lanes.clear()
        # The bindings destroy an object with its last reference: contexts first.
        self._engine = None
        self._runtime = None
        if self._scratch is not None:
            self._scratch.free()
            self._scratch = None

    def _failure(self, what: str, remedy: str) -> S4GError:
        self._log.check()
        return S4GError(f"{self._path}: {what} ({self._log.last or 'no reason given'}); {remedy}")
