"""Our code and our stand-in use only what the real bindings of TensorRT 10.3 to 11.4 have.

No GPU and no TensorRT is needed: see tensorrt_bindings.py. The wheels are fetched once, into
`$S4G_TENSORRT_BINDINGS` or `.pytest_cache`; where that is not possible these tests skip.
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(
    os.environ.get("S4G_TENSORRT_BINDINGS") or ROOT / ".pytest_cache" / "tensorrt-bindings"
)


def load(name: str) -> ModuleType:
    """Import a helper that lies beside this file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


real = load("tensorrt_bindings")
usage = load("tensorrt_usage")
fake = load("fake_tensorrt")

# What our code calls `Any`, without leading underscores: parameters, fields, and functions that
# return it. A new one fails the tests until it is named here; empty: nothing of TensorRT's.
TYPES = {
    "trt": "module",
    "import_tensorrt": "module",
    "logger": "ILogger",
    "make_logger": "ILogger",
    "severity": "ILogger.Severity",
    "make_monitor": "IProgressMonitor",
    "builder": "Builder",
    "create_builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "make_context": "IExecutionContext",
    "session": "",  # ONNX Runtime's
    "stream": "",  # pycuda's
    "value": "",
}
OBJECTS = (
    "Builder",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "Runtime",
)

SOURCES = {
    f"{folder}/{path.name}": ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("core", "export")
    for path in sorted((ROOT / folder).glob("*.py"))
}
SPEAKING = {file: tree for file, tree in SOURCES.items() if usage.uses_tensorrt(tree)}
ANY_FUNCTIONS = usage.any_functions(list(SPEAKING.values()))
ANY_FIELDS = usage.any_fields(list(SPEAKING.values()))


@pytest.fixture(params=list(real.PACKAGES))
def bindings(request: pytest.FixtureRequest) -> Any:
    """The real bindings of one version after another."""
    return bindings_of(request.param)


def bindings_of(version: str) -> Any:
    found = read(version)
    if isinstance(found, str):
        pytest.skip(f"the bindings of TensorRT {version} cannot be had: {found}")
    return found


@functools.cache
def read(version: str) -> Any:
    """Return the bindings of a version, or why they cannot be had."""
    try:
        return real.Bindings.load(version, real.fetch(version, CACHE))
    except real.Unavailable as reason:
        return str(reason)


def checked(bindings: Any, tree: ast.Module, file: str) -> Any:
    return usage.Usage(bindings, TYPES, ANY_FUNCTIONS, ANY_FIELDS, file).check(tree)


def spelt(trees: list[ast.Module]) -> set[str]:
    """Return every `x` of a `something.x`."""
    return {n.attr for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Attribute)}


def test_the_bindings_are_the_version_they_are_taken_for(bindings: Any) -> None:
    assert bindings.reported == bindings.version


def test_the_files_that_speak_to_tensorrt_are_found() -> None:
    expected = {
        "core/plan.py",
        "core/tensorrt_log.py",
        "core/tensorrt_network.py",
        "export/tensorrt.py",
        "export/tensorrt_monitor.py",
        "export/tensorrt_target.py",
    }
    assert expected <= SPEAKING.keys()


@pytest.mark.parametrize("file", SPEAKING)
def test_every_name_call_and_override_of_our_code_exists(bindings: Any, file: str) -> None:
    assert checked(bindings, SPEAKING[file], file).complaints == []


@pytest.mark.parametrize("file", SPEAKING)
def test_no_use_escapes_the_check(bindings: Any, file: str) -> None:
    """Whatever is spelt like a member of TensorRT's objects was recognised as one."""
    members = {
        name
        for owner in OBJECTS
        for name in bindings.names[owner]["members"]
        if "_" in name.strip("_") and not name.startswith("_")
    }
    recognised = {path.split(".")[-1] for path in checked(bindings, SPEAKING[file], file).seen}
    assert (spelt([SPEAKING[file]]) & members) - recognised == set()


def test_our_code_builds_loads_and_runs() -> None:
    """The check would pass on code that does nothing."""
    assert spelt(list(SPEAKING.values())) >= {
        "STRONGLY_TYPED",
        "build_serialized_network",
        "set_timing_cache",
        "deserialize_cuda_engine",
        "execute_async_v3",
        "set_tensor_address",
    }


REAL = """
import sys
sys.path.insert(0, sys.argv[1])
import tensorrt_bindings as trt
sys.modules["tensorrt"] = trt
from pathlib import Path
from types import SimpleNamespace
from s4g.core import cuda
from s4g.core.errors import S4GError
from s4g.core.tensorrt_log import TensorRtLog, make_logger
from s4g.export.tensorrt import build
from s4g.export.tensorrt_monitor import make_monitor
from s4g.export.tensorrt_target import BuildOptions

log, steps = TensorRtLog(), []
logger, monitor = make_logger(trt, log), make_monitor(trt, log, steps.append)
assert isinstance(logger, trt.ILogger) and isinstance(monitor, trt.IProgressMonitor)
logger.log(trt.ILogger.Severity.ERROR, "two\\nlines")
logger.log(trt.ILogger.Severity.INFO, "nothing")
monitor.phase_start("whole", None, 4)
assert monitor.step_complete("whole", 0)
monitor.phase_finish("whole")
print(log.last, steps)
orin = SimpleNamespace(name="Orin", capability="8.7", multiprocessor_count=8)
cuda.open_device = lambda: orin
try:
    build(Path(sys.argv[2]), BuildOptions(), None)
except S4GError as error:
    print(error)
"""


@pytest.mark.parametrize("version", list(real.PACKAGES))
def test_the_real_module_takes_our_callbacks_and_misses_its_gpu(
    version: str, toy_encoder: Path
) -> None:
    """Run for real as far as that goes without a GPU: the builder cannot be made."""
    bindings_of(version)
    folder = real.fetch(version, CACHE)
    command = [sys.executable, "-c", REAL, str(folder), str(toy_encoder)]
    done = subprocess.run(command, capture_output=True, text=True)
    reason = "pybind11::init(): factory function returned nullptr"
    assert done.stdout.splitlines() == [
        "two lines [25, 75]",
        f"TensorRT {version} cannot use Orin ({reason}); check the driver (s4g-export doctor)",
    ], done.stderr


# ---- the check itself sees mistakes ------------------------------------------------------------

MISTAKES = [
    ("builder.create_optimisation_profile()", "TensorRT {v} has no Builder.create_optimisation_p"),
    ("config.set_flag(trt.BuilderFlag.FP61)", "TensorRT {v} has no BuilderFlag.FP61"),
    ("builder.build_serialized_network(config, network)", "fits no way to call it"),
    ("builder.build_serialized_network(network)", "fits no way to call it"),
    ("builder.create_network(flag=1)", "fits no way to call it"),
    ("config.set_timing_cache(config.create_timing_cache(b''))", "fits no way to call it"),
    ("config.optimisation_level = 3", "TensorRT {v} has no IBuilderConfig.optimisation_level"),
    ("config.num_optimization_profiles = 3", "num_optimization_profiles cannot be set"),
    (
        "config.profiling_verbosity = trt.MemoryPoolType.WORKSPACE",
        "takes ProfilingVerbosity, not MemoryPoolType",
    ),
    ("trt.Builder(network)", "fits no way to call it"),
    ("network.get_input(0).shapes", "TensorRT {v} has no ITensor.shapes"),
    ("[e.text() for e in [parser.get_error(0)]]", "TensorRT {v} has no ParserError.text"),
    ("[engine.get_tensor_profile_shape('a', 0)[0].size]", "TensorRT {v} has no Dims.size"),
    ("context.execute_async_v2(1)", "TensorRT {v} has no IExecutionContext.execute_async_v2"),
    ("(made := trt.Runtime(logger)).load()", "TensorRT {v} has no Runtime.load"),
    ("unknown: Any = 3", "unknown is Any: say in TYPES what it is ('' if not TensorRT's)"),
]


@pytest.mark.parametrize(("line", "complaint"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_seen(bindings: Any, line: str, complaint: str) -> None:
    names = ["trt", "builder", "config", "network", "parser", "engine", "context", "logger"]
    tree = ast.parse(f"def f({', '.join(f'{name}: Any' for name in names)}):\n    {line}\n")
    (found,) = checked(bindings, tree, "x.py").complaints
    assert found.startswith("x.py:2: ")
    assert complaint.format(v=bindings.version) in found


def test_a_callback_of_another_name_is_seen(bindings: Any) -> None:
    code = (
        "def f(trt: Any):\n    class M(trt.IProgressMonitor):\n        def phase_end(self, n): ..."
    )
    (found,) = checked(bindings, ast.parse(code), "x.py").complaints
    assert found == "x.py:3: IProgressMonitor has no phase_end(n) to override"


@pytest.mark.parametrize("removed", ["trt.BuilderFlag.INT8", "trt.IInt8MinMaxCalibrator"])
def test_what_version_11_removed_is_seen(removed: str) -> None:
    oldest, *_, newest = (bindings_of(version) for version in real.PACKAGES)
    tree = ast.parse(f"def f(trt: Any):\n    {removed}\n")
    assert checked(oldest, tree, "x.py").complaints == []
    (found,) = checked(newest, tree, "x.py").complaints
    assert found == f"x.py:2: TensorRT 11.4.0.106 has no {removed.removeprefix('trt.')}"


# ---- the stand-in ------------------------------------------------------------------------------


def fake_classes() -> dict[str, type]:
    module = fake.make()
    found = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return {**found, "ILogger.Severity": module.ILogger.Severity}


FAKE_CLASSES = fake_classes()


def own_members(made: type) -> dict[str, Any]:
    """Return what a class of the stand-in has of its own, base classes of ours included."""
    found: dict[str, Any] = {}
    for base in reversed(made.__mro__):
        if base.__module__ == fake.__name__ and not issubclass(base, enum.Enum):
            found |= {
                name: value
                for name, value in vars(base).items()
                if not name.startswith("_") or name == "__init__"
            }
    return found


@pytest.mark.parametrize("name", FAKE_CLASSES)
def test_the_stand_in_has_only_what_is_real(bindings: Any, name: str) -> None:
    made = FAKE_CLASSES[name]
    assert bindings.entry(name) is not None
    if issubclass(made, enum.Enum):
        for member in made:
            entry = bindings.entry(f"{name}.{member.name}")
            assert entry is not None and entry["kind"] == "value", member
        return
    for member, value in own_members(made).items():
        signatures = bindings.signatures(f"{name}.{member}" if member != "__init__" else name)
        if inspect.isfunction(value) and (member != "__init__" or signatures):
            given = [p for p in inspect.signature(value).parameters if p != "self"]
            assert any(
                [p.name for p in s.parameters[: len(given)]] == given
                and all(p.optional for p in s.parameters[len(given) :])
                for s in signatures
            ), f"{name}.{member}({', '.join(given)})"
        elif member != "__init__":
            entry = bindings.entry(f"{name}.{member}")
            assert entry is not None, f"{name}.{member}"
            assert entry["kind"] != "call", f"{name}.{member}"


def test_the_stand_in_numbers_strong_typing_as_the_real_versions_do(bindings: Any) -> None:
    flag = "STRONGLY_TYPED"
    module = fake.make(fake.Behaviour(version=bindings.version))
    entry = bindings.entry(f"NetworkDefinitionCreationFlag.{flag}")
    assert int(module.NetworkDefinitionCreationFlag[flag]) == entry["value"]
