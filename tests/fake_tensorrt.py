"""A stand-in for the `tensorrt` module, for tests on machines without a GPU.

`make(behaviour)` returns a fresh module; put it into `sys.modules["tensorrt"]`. A plan of it holds
the ONNX file, and an engine really computes: it reads the input at the address it was given, runs
the graph in ONNX Runtime and writes the embeddings to the address of the output.

test_tensorrt_bindings.py checks that every public name here, and every parameter, exists in the
real bindings. What tests steer and look at lives in `Behaviour`.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

PLAN_MAGIC = b"ftrt"
TIMING_MAGIC = b"fake timing cache "
_DTYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
_NUMPY = {"UINT8": np.uint8, "FLOAT": np.float32, "HALF": np.float16}


@dataclass
class Behaviour:
    """What the module does, and what was done with it.

    Attributes:
        version: of TensorRT.
        no_gpu: whether `Builder` and `Runtime` fail as they do without a GPU.
        parse_errors: (node, operator, text) of what the parser finds.
        build_log: (severity, text) the builder logs.
        build_fails: whether the builder returns None.
        load_log: (severity, text) that loading a plan logs.
        wrong_embeddings: whether engines return the embeddings of another encoder.
        turned: by how much engines turn embeddings, as a share of a second direction.
        scale: by what engines multiply embeddings.
        execute_fails: whether `execute_async_v3` returns False.
        no_context: whether `create_execution_context` returns None.
        enqueue: takes (stream handle, work) of each inference, as fake_pycuda does; None runs it
            at once.
        builds: what each build was told.
        executions: (batch, stream handle) of each inference.
        addresses: each name whose address was set.
        alive: runtimes, engines and contexts that are still referenced.
    """

    version: str = "10.3.0"
    no_gpu: bool = False
    parse_errors: list[tuple[str, str, str]] = field(default_factory=list)
    build_log: list[tuple[str, str]] = field(default_factory=list)
    build_fails: bool = False
    load_log: list[tuple[str, str]] = field(default_factory=list)
    wrong_embeddings: bool = False
    turned: float = 0.0
    scale: float = 1.0
    execute_fails: bool = False
    no_context: bool = False
    enqueue: Callable[[int, Callable[[], None]], None] | None = None
    builds: list[dict[str, Any]] = field(default_factory=list)
    executions: list[tuple[int, int]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    alive: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)


def _session(model: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def make(behaviour: Behaviour | None = None) -> ModuleType:
    """Return a module `tensorrt` that behaves as told."""
    told = behaviour or Behaviour()
    major = int(told.version.split(".")[0])

    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    class ILogger:
        def __init__(self) -> None:
            pass

        def log(self, severity: Severity, msg: str) -> None:
            raise NotImplementedError

    ILogger.Severity = Severity  # type: ignore[attr-defined]

    class Logger(ILogger):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

        def __init__(self, min_severity: Any = Severity.WARNING) -> None:
            super().__init__()
            self.min_severity = min_severity

        def log(self, severity: Any, msg: str) -> None:
            pass

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        # 11.x dropped EXPLICIT_BATCH and moved the flag; its value must not be written by hand.
        STRONGLY_TYPED = 1 if major < 11 else 0

    class MemoryPoolType(enum.IntEnum):
        WORKSPACE = 0

    class BuilderFlag(enum.IntEnum):
        TF32 = 7

    class ProfilingVerbosity(enum.IntEnum):
        LAYER_NAMES_ONLY = 0
        NONE = 1
        DETAILED = 2

    class HardwareCompatibilityLevel(enum.IntEnum):
        NONE = 0
        AMPERE_PLUS = 1

    class DataType(enum.IntEnum):
        FLOAT = 0
        HALF = 1
        INT8 = 2
        UINT8 = 5

    class TensorIOMode(enum.IntEnum):
        NONE = 0
        INPUT = 1
        OUTPUT = 2

    class ExecutionContextAllocationStrategy(enum.IntEnum):
        STATIC = 0
        ON_PROFILE_CHANGE = 1
        USER_MANAGED = 2

    class LayerInformationFormat(enum.IntEnum):
        ONELINE = 0
        JSON = 1

    class Dims:
        """As the real one: a sequence, but no tuple."""

        __slots__ = ("_sizes",)

        def __init__(self, shape: Sequence[int]) -> None:
            self._sizes = tuple(shape)

        def __len__(self) -> int:
            return len(self._sizes)

        def __getitem__(self, index: int) -> int:
            return self._sizes[index]

        def __iter__(self) -> Iterator[int]:
            return iter(self._sizes)

    class IHostMemory(bytes):
        @property
        def nbytes(self) -> int:
            return len(self)

    class ITensor:
        __slots__ = ("name", "shape", "dtype")

        def __init__(self, value: Any) -> None:
            self.name = value.name
            self.shape = Dims([n if isinstance(n, int) else -1 for n in value.shape])
            self.dtype = DataType[_DTYPES[value.type]]

    class INetworkDefinition:
        __slots__ = ("_flags", "_inputs", "_model", "_outputs")

        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._model = b""
            self._inputs: list[ITensor] = []
            self._outputs: list[ITensor] = []

        @property
        def num_inputs(self) -> int:
            return len(self._inputs)

        @property
        def num_outputs(self) -> int:
            return len(self._outputs)

        def get_input(self, index: int) -> ITensor:
            return self._inputs[index]

        def get_output(self, index: int) -> ITensor:
            return self._outputs[index]

    class ParserError:
        __slots__ = ("_error",)

        def __init__(self, error: tuple[str, str, str]) -> None:
            self._error = error

        def node_name(self) -> str:
            return self._error[0]

        def node_operator(self) -> str:
            return self._error[1]

        def desc(self) -> str:
            return self._error[2]

    class OnnxParser:
        __slots__ = ("_errors", "_network")

        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            self._network = network
            self._errors: list[tuple[str, str, str]] = []

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return ParserError(self._errors[index])

        def parse(self, model: bytes, path: str | None = None) -> bool:
            self._errors = list(told.parse_errors)
            if self._errors:
                return False
            session = _session(bytes(model))
            self._network._model = bytes(model)
            self._network._inputs = [ITensor(value) for value in session.get_inputs()]
            self._network._outputs = [ITensor(value) for value in session.get_outputs()]
            return True

    class IOptimizationProfile:
        __slots__ = ("_shapes",)

        def __init__(self) -> None:
            self._shapes: dict[str, list[list[int]]] = {}

        def set_shape(
            self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
        ) -> None:
            if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
                raise RuntimeError("Shape provided for opt is inconsistent with other shapes.")
            self._shapes[input] = [list(min), list(opt), list(max)]

    class ITimingCache:
        __slots__ = ("_entries", "_version")

        def __init__(self, entries: list[str], version: str) -> None:
            self._entries = set(entries)
            self._version = version

        def serialize(self) -> IHostMemory:
            value = {"version": self._version, "entries": sorted(self._entries)}
            return IHostMemory(TIMING_MAGIC + json.dumps(value).encode())

        def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
            if input_cache._version != self._version and not ignore_mismatch:
                return False
            self._entries |= input_cache._entries
            return True

    class IBuilderConfig:
        __slots__ = (
            "_cache",
            "_flags",
            "_pools",
            "_profiles",
            "builder_optimization_level",
            "hardware_compatibility_level",
            "profiling_verbosity",
            "progress_monitor",
        )

        def __init__(self) -> None:
            self._cache: ITimingCache | None = None
            self._flags = {BuilderFlag.TF32}  # on unless it is cleared
            self._pools: dict[Any, int] = {}
            self._profiles: list[IOptimizationProfile] = []
            self.builder_optimization_level = 3
            self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
            self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
            self.progress_monitor: IProgressMonitor | None = None

        def clear_flag(self, flag: BuilderFlag) -> None:
            self._flags.discard(flag)

        def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
            self._pools[pool] = pool_size

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
            data = bytes(serialized_timing_cache)
            if not data:
                return ITimingCache([], told.version)
            if not data.startswith(TIMING_MAGIC):
                return None
            value = json.loads(data[len(TIMING_MAGIC) :])
            return ITimingCache(value["entries"], value["version"])

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            if cache._version != told.version and not ignore_mismatch:
                return False
            self._cache = cache
            return True

        def get_timing_cache(self) -> ITimingCache | None:
            return self._cache

    class Builder:
        __slots__ = ("_logger",)

        def __init__(self, logger: ILogger) -> None:
            _refuse_without_gpu(told, logger, Severity)
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(
            self, network: INetworkDefinition, config: IBuilderConfig
        ) -> IHostMemory | None:
            graph = hashlib.sha256(network._model).hexdigest()
            told.builds.append(
                {
                    "graph": graph,
                    "strongly_typed": bool(
                        network._flags >> NetworkDefinitionCreationFlag.STRONGLY_TYPED & 1
                    ),
                    "workspace": config._pools.get(MemoryPoolType.WORKSPACE),
                    "level": config.builder_optimization_level,
                    "compatibility": config.hardware_compatibility_level.name,
                    "verbosity": config.profiling_verbosity.name,
                    "tf32": BuilderFlag.TF32 in config._flags,
                    "profiles": [profile._shapes for profile in config._profiles],
                    "timings": sorted(config._cache._entries) if config._cache else None,
                }
            )
            if not self._steps(config.progress_monitor):
                return None
            for severity, text in told.build_log:
                self._logger.log(Severity[severity], text)
            if told.build_fails:
                return None
            if config._cache is not None:
                config._cache._entries.add(graph)
            header = {"version": told.version, "profiles": [p._shapes for p in config._profiles]}
            text = json.dumps(header).encode()
            size = len(text).to_bytes(4, "little")
            return IHostMemory(PLAN_MAGIC + size + text + network._model)

        def _steps(self, monitor: IProgressMonitor | None) -> bool:
            """Report two phases, one inside the other, as the real builder does."""
            if monitor is None:
                return True
            monitor.phase_start("Building Engine", None, 4)
            goes_on = True
            for step in range(4):
                if step == 1:
                    monitor.phase_start("Timing", "Building Engine", 10)
                    for inner in range(8):  # a phase may end early
                        monitor.step_complete("Timing", inner)
                    monitor.phase_finish("Timing")
                goes_on = goes_on and monitor.step_complete("Building Engine", step)
            monitor.phase_finish("Building Engine")
            return goes_on

    # ---- runtime -------------------------------------------------------------------------------

    class EngineInspector:
        __slots__ = ("_names",)

        def __init__(self, names: Sequence[str]) -> None:
            self._names = list(names)

        def get_engine_information(self, format: LayerInformationFormat) -> str:
            return json.dumps({"Layers": ["fused"], "Bindings": self._names})

    class IExecutionContext:
        __slots__ = ("__weakref__", "_addresses", "_changes", "_engine", "_ready", "_shapes")

        def __init__(self, engine: ICudaEngine, ready: bool) -> None:
            told.alive.add(self)
            self._engine = engine
            self._ready = ready  # whether it has scratch memory
            self._changes = 0
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._addresses: dict[str, int] = {}

        @property
        def engine(self) -> ICudaEngine:
            return self._engine

        def set_device_memory(self, memory: int, size: int) -> None:
            if memory % 256 or size < self._engine.device_memory_size_v2:
                raise RuntimeError("set_device_memory: misaligned or too small")
            self._changes += 1
            self._ready = True

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            return 0 <= profile_index < self._engine.num_optimization_profiles

        def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
            least, _, most = self._engine.get_tensor_profile_shape(name, 0)
            fits = len(shape) == len(least) and all(
                low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
            )
            if not fits:
                self._engine._logger.log(
                    Severity.ERROR,
                    f"IExecutionContext::setInputShape: Error Code 3: API Usage Error ({name})",
                )
                return False
            self._changes += 1
            self._shapes[name] = tuple(shape)
            return True

        def get_tensor_shape(self, name: str) -> Dims:
            shape = list(self._shapes.get(name, self._engine.get_tensor_shape(name)))
            if self._engine.get_tensor_mode(name) == TensorIOMode.OUTPUT and self._shapes:
                shape[0] = next(iter(self._shapes.values()))[0]
            return Dims(shape)

        def set_tensor_address(self, name: str, memory: int) -> bool:
            if name not in self._engine._tensors or not memory:
                return False
            self._changes += 1
            self._addresses[name] = memory
            told.addresses.append(name)
            return True

        def infer_shapes(self) -> list[str]:
            inputs = [
                name
                for name in self._engine._tensors
                if self._engine.get_tensor_mode(name) == TensorIOMode.INPUT
            ]
            return [name for name in inputs if name not in self._shapes]

        def execute_async_v3(self, stream_handle: int) -> bool:
            engine = self._engine
            ready = (
                self._ready
                and not self.infer_shapes()
                and self._addresses.keys() == engine._tensors.keys()
            )
            if not ready or told.execute_fails:
                engine._logger.log(
                    Severity.ERROR, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime"
                )
                return False
            work = self._work(dict(self._shapes), dict(self._addresses), stream_handle)
            if told.enqueue is None:
                work()
            else:
                told.enqueue(stream_handle, work)
            return True

        def _work(
            self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], stream: int
        ) -> Callable[[], None]:
            """Return one inference, bound to what the context is now, as a CUDA graph is."""
            engine, state, changes = self._engine, weakref.ref(self), self._changes

            def work() -> None:
                context = state()
                feed = {}
                for name, shape in shapes.items():
                    dtype = np.dtype(_NUMPY[engine.get_tensor_dtype(name).name])
                    data = ctypes.string_at(addresses[name], math.prod(shape) * dtype.itemsize)
                    feed[name] = np.frombuffer(data, dtype).reshape(shape)
                results = engine._session.run(None, feed)
                for name, value in zip(engine._outputs, results, strict=True):
                    if told.wrong_embeddings:
                        value = np.roll(value, 1, axis=1)
                    if told.turned:
                        value = _turned(value, told.turned)
                    value = value * np.float32(told.scale)
                    if context is None or context._changes != changes:
                        value = np.full_like(value, np.nan)  # undefined, says the guide
                    data = np.ascontiguousarray(value).tobytes()
                    ctypes.memmove(addresses[name], data, len(data))
                told.executions.append((next(iter(shapes.values()))[0], stream))

            return work

    class ICudaEngine:
        __slots__ = (
            "__weakref__",
            "_inputs",
            "_logger",
            "_outputs",
            "_profiles",
            "_session",
            "_tensors",
        )

        def __init__(self, data: bytes, logger: ILogger) -> None:
            told.alive.add(self)
            size = int.from_bytes(data[4:8], "little")
            header = json.loads(data[8 : 8 + size])
            self._logger = logger
            self._profiles = header["profiles"]
            self._session = _session(data[8 + size :])
            self._inputs = [value.name for value in self._session.get_inputs()]
            self._outputs = [value.name for value in self._session.get_outputs()]
            values = [*self._session.get_inputs(), *self._session.get_outputs()]
            self._tensors = {value.name: ITensor(value) for value in values}

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        @property
        def num_optimization_profiles(self) -> int:
            return len(self._profiles)

        @property
        def device_memory_size_v2(self) -> int:
            return 1 << 20

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return self._tensors[name].dtype

        def get_tensor_shape(self, name: str) -> Dims:
            return self._tensors[name].shape

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
            return [Dims(shape) for shape in self._profiles[profile_index][name]]

        def create_execution_context(
            self,
            strategy: Any = ExecutionContextAllocationStrategy.STATIC,
        ) -> IExecutionContext | None:
            if told.no_context:
                self._logger.log(Severity.ERROR, "IExecutionContext: CUDA error: out of memory")
                return None
            managed = strategy == ExecutionContextAllocationStrategy.USER_MANAGED
            return IExecutionContext(self, not managed)

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(list(self._tensors))

    class Runtime:
        __slots__ = ("__weakref__", "_logger")

        def __init__(self, logger: ILogger) -> None:
            _refuse_without_gpu(told, logger, Severity)
            told.alive.add(self)
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            data = bytes(serialized_engine)
            for severity, text in told.load_log:
                self._logger.log(Severity[severity], text)
            if data[:4] != PLAN_MAGIC:
                self._logger.log(
                    Severity.ERROR,
                    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization "
                    "assertion magicTagRead == kMAGIC_TAG failed.)",
                )
                return None
            return ICudaEngine(data, self._logger)

    module = ModuleType("tensorrt")
    module.__version__ = told.version  # type: ignore[attr-defined]
    for name, value in locals().copy().items():
        if isinstance(value, type) and name != "Severity":
            setattr(module, name, value)
    return module


def _turned(value: np.ndarray, share: float) -> np.ndarray:
    """Return unit vectors turned by an angle whose cosine is 1 / sqrt(1 + share^2)."""
    other = np.roll(value, 1, axis=1)
    other -= np.sum(other * value, axis=1, keepdims=True) * value
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    turned: np.ndarray = (value + np.float32(share) * other) / np.float32(np.hypot(1, share))
    return turned


def _refuse_without_gpu(told: Behaviour, logger: Any, severity: Any) -> None:
    if told.no_gpu:
        logger.log(severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")
