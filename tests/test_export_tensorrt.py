"""Building plans, on a stand-in for TensorRT: what the builder is told, and how failures are told.

The stand-in's names and parameters are those of the real bindings (test_tensorrt_bindings.py).
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s4g.core.errors import InputError, S4GError
from s4g.core.files import sha256_bytes, sha256_file
from s4g.core.plan import platform_name
from s4g.core.tensorrt_log import TensorRtLog
from s4g.export import tensorrt as building
from s4g.export.plan_cache import PlanCache
from s4g.export.tensorrt import build
from s4g.export.tensorrt_monitor import BuildShare, make_monitor
from s4g.export.tensorrt_target import BuildOptions, build_available, find_target


def load(name: str) -> ModuleType:
    """Import a helper that lies beside this file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


fake_pycuda = load("fake_pycuda")
fake_tensorrt = load("fake_tensorrt")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = fake_pycuda.Gpu(integrated=True)
    made.install(monkeypatch)
    return made


@pytest.fixture
def told(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the stand-in for TensorRT does, and what was done with it."""
    behaviour = fake_tensorrt.Behaviour()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(behaviour))
    return behaviour


@pytest.fixture
def graph(tmp_path: Path, toy_encoder: Path) -> Path:
    path = tmp_path / "encoder.fp16.onnx"
    shutil.copy(toy_encoder, path)
    return path


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, heard: list[str]) -> PlanCache:
    return PlanCache(tmp_path / "cache", heard.append)


def failure(graph: Path, options: BuildOptions | None = None) -> str:
    with pytest.raises(S4GError) as error:
        build(graph, options or BuildOptions(), None)
    return str(error.value)


def test_a_plan_is_built_strongly_typed_for_a_range_of_batches(graph: Path, told: Any) -> None:
    plan, info = build(graph, BuildOptions(batch_opt=4, batch_max=8), None)
    assert told.builds == [
        {
            "graph": sha256_file(graph),
            "strongly_typed": True,
            "workspace": None,
            "level": 3,
            "compatibility": "NONE",
            "verbosity": "LAYER_NAMES_ONLY",
            "tf32": False,
            "profiles": [{"images": [[1, 64, 64, 3], [4, 64, 64, 3], [8, 64, 64, 3]]}],
            "timings": None,
        }
    ]
    assert plan.startswith(fake_tensorrt.PLAN_MAGIC)
    assert (info.batch_min, info.batch_opt, info.batch_max) == (1, 4, 8)


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
def test_strong_typing_is_asked_for_in_every_version(
    graph: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The flag has another value in 11."""
    told = fake_tensorrt.Behaviour(version=version)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(told))
    _, info = build(graph, BuildOptions(), None)
    assert told.builds[0]["strongly_typed"]
    assert info.tensorrt == version


def test_what_is_known_about_a_plan_is_complete(graph: Path, told: Any) -> None:
    plan, info = build(graph, BuildOptions(workspace_mib=256), None)
    assert info.plan_sha256 == sha256_bytes(plan)
    assert info.plan_bytes == len(plan)
    assert (info.graph, info.graph_sha256) == (graph.name, sha256_file(graph))
    assert (info.gpu, info.compute_capability, info.multiprocessor_count) == ("Orin", "8.7", 8)
    assert (info.tensorrt, info.platform) == ("10.3.0", platform_name())
    assert info.flags == {
        "optimisation_level": 3,
        "workspace_mib": 256,
        "hardware_compatible": False,
        "layer_details": False,
    }
    assert info.spec.backbone == "toy"
    assert re.fullmatch(r"s4g \d+\.\d+\.\d+", info.made_by)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", info.created)
    assert info.cosine_min is None


def test_options_reach_the_builder(graph: Path, told: Any) -> None:
    build(graph, BuildOptions(workspace_mib=512, optimisation_level=5, layer_details=True), None)
    (made,) = told.builds
    assert made["workspace"] == 512 << 20
    assert made["level"] == 5
    assert made["verbosity"] == "DETAILED"


# ---- what does not fit -------------------------------------------------------------------------


def test_the_best_batch_may_not_be_more_than_the_largest(graph: Path, told: Any) -> None:
    assert failure(graph, BuildOptions(batch_opt=8, batch_max=4)) == (
        "--batch-opt 8: is more than --batch-max 4; raise --batch-max"
    )
    assert told.builds == []


@pytest.mark.parametrize(
    ("name", "capability"), [("Orin", (8, 7)), ("NVIDIA Thor", (11, 0)), ("Tesla T4", (7, 5))]
)
def test_compatible_plans_are_not_built_on_jetson_and_old_cards(
    graph: Path, told: Any, gpu: Any, name: str, capability: tuple[int, int]
) -> None:
    gpu.name, gpu.capability = name, capability
    assert failure(graph, BuildOptions(hardware_compatible=True)) == (
        f"--hardware-compatible: not on {name} (compute capability "
        f"{capability[0]}.{capability[1]}), only on desktop and server GPUs from Ampere (8.0) on; "
        "leave it out"
    )


def test_compatible_plans_are_built_on_newer_cards(graph: Path, told: Any, gpu: Any) -> None:
    gpu.name, gpu.capability = "NVIDIA H100", (9, 0)
    _, info = build(graph, BuildOptions(hardware_compatible=True), None)
    assert told.builds[0]["compatibility"] == "AMPERE_PLUS"
    assert info.flags["hardware_compatible"] is True


def test_a_graph_with_a_fixed_batch_is_refused(tmp_path: Path, told: Any, graph: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the fixed graph needs onnx (the export extra)")
    model = onnx.load(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, graph)
    assert failure(graph) == (
        f"{graph}: takes images of shape (1, 64, 64, 3), expected (-1, 64, 64, 3) with a free "
        "batch; export it again"
    )


@pytest.mark.parametrize("content", [b"", b"ftrt", bytes(1000)], ids=len)
def test_a_damaged_graph_never_reaches_tensorrt(graph: Path, told: Any, content: bytes) -> None:
    graph.write_bytes(content)
    with pytest.raises(InputError) as error:
        build(graph, BuildOptions(), None)
    assert str(error.value).startswith(f"{graph}: ONNX Runtime cannot load it (")
    assert told.builds == []


# ---- what TensorRT refuses ---------------------------------------------------------------------


def test_a_node_that_tensorrt_does_not_know_is_named(graph: Path, told: Any) -> None:
    told.parse_errors = [
        ("/blocks/0/Gelu", "Gelu", "No importer registered\nfor op: Gelu"),
        ("/blocks/1/Gelu", "Gelu", "the same"),
    ]
    assert failure(graph) == (
        f"{graph}: TensorRT 10.3.0 cannot take node /blocks/0/Gelu (Gelu) of this graph (No "
        "importer registered for op: Gelu); export it again with that node in float "
        "(--keep-float), or update TensorRT"
    )


def test_a_refusal_that_names_no_node_is_told_too(graph: Path, told: Any) -> None:
    told.parse_errors = [("", "", "Failed to parse the model")]
    assert failure(graph) == (
        f"{graph}: TensorRT 10.3.0 cannot take this graph (Failed to parse the model); export it "
        "again, or update TensorRT"
    )


def test_a_failed_build_is_told_with_tensorrts_own_words(graph: Path, told: Any) -> None:
    told.build_fails = True
    told.build_log = [
        ("ERROR", "first"),
        ("INTERNAL_ERROR", "IBuilder::buildSerializedNetwork:\n Error Code 4: Miopen"),
        ("WARNING", "something else"),
        ("INFO", "out of memory"),  # nobody's error
    ]
    assert failure(graph) == (
        f"{graph}: TensorRT 10.3.0 cannot build it (IBuilder::buildSerializedNetwork: Error Code "
        "4: Miopen); try another --optimisation-level, or use the ONNX files of the bundle"
    )


def test_a_build_that_fails_in_silence_is_told(graph: Path, told: Any) -> None:
    told.build_fails = True
    assert "cannot build it (no reason given); try another" in failure(graph)


def test_a_version_that_no_sidecar_can_hold_is_refused_before_the_build(
    graph: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = fake_tensorrt.Behaviour(version="12.0.0-rc1")
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(told))
    assert failure(graph).startswith('tensorrt of this machine is "12.0.0-rc1", a form that ')
    assert told.builds == []


# As TensorRT 8 to 10 logged it (TensorRT #4258, #840, BEVDet #132).
OUT_OF_MEMORY = [
    ("ERROR", "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"),
    ("ERROR", "[virtualMemoryBuffer.cpp::resizePhysical::144] Error Code 2: OutOfMemory (no info)"),
    (
        "ERROR",
        "Requested amount of GPU memory (15485030400 bytes) could not be allocated. There may not "
        "be enough free memory for allocation to succeed.",
    ),
    ("ERROR", "Tactic 2 failed due to insufficient memory on requested size of 83886080"),
]
SKIPPED = "Skipping tactic 2 due to insufficient memory on requested size of 83886080"
LAST = "Error Code 2: Internal Error (Assertion engine != nullptr failed.)"


@pytest.mark.parametrize("line", OUT_OF_MEMORY, ids=lambda line: line[1][:30])
def test_a_build_without_enough_memory_says_what_to_do(
    graph: Path, told: Any, line: tuple[str, str]
) -> None:
    told.build_fails = True
    told.build_log = [line, ("ERROR", LAST)]
    assert failure(graph) == (
        f"{graph}: out of GPU memory while TensorRT 10.3.0 built it ({LAST}); stop other programs, "
        "or pass a smaller --workspace-mib (256), --optimisation-level (1) or --batch-max"
    )


def test_a_tactic_that_was_skipped_is_no_reason_of_a_later_failure(graph: Path, told: Any) -> None:
    told.build_fails = True
    told.build_log = [("WARNING", SKIPPED), ("ERROR", "Error Code 4: Miopen")]
    assert "TensorRT 10.3.0 cannot build it (Error Code 4: Miopen); try another" in failure(graph)


@pytest.mark.parametrize(
    "before", [("WARNING", SKIPPED), ("ERROR", SKIPPED)], ids=["skip", "error"]
)
def test_a_node_without_implementation_is_named(
    graph: Path, told: Any, before: tuple[str, str]
) -> None:
    """Which is what too small a workspace ends in: a smaller one would be the wrong advice."""
    told.build_fails = True
    text = "Error Code 10: (Could not find any implementation for node {/dw/Conv}.)"
    told.build_log = [before, ("ERROR", text)]
    assert failure(graph) == (
        f"{graph}: TensorRT 10.3.0 has no implementation of /dw/Conv on Orin ({text}); raise "
        "--workspace-mib, or export again with that node in float (--keep-float)"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of GPU memory while TensorRT 10.3.0 built it (out of memory)"),
        (RuntimeError("std::bad_cast"), "TensorRT 10.3.0 cannot build it (std::bad_cast)"),
    ],
)
def test_an_exception_of_the_builder_is_one_line(
    graph: Path, told: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(self: Any, network: Any, config: Any) -> None:
        raise error

    builder = sys.modules["tensorrt"].Builder
    monkeypatch.setattr(builder, "build_serialized_network", fail)
    assert failure(graph).startswith(f"{graph}: {said}; ")


def test_warnings_of_a_build_that_succeeds_are_no_errors(graph: Path, told: Any) -> None:
    told.build_log = [("WARNING", SKIPPED), ("ERROR", "recovered")]
    plan, _ = build(graph, BuildOptions(), None)
    assert plan


def test_a_gpu_that_tensorrt_cannot_use_is_told(graph: Path, told: Any) -> None:
    told.no_gpu = True
    assert failure(graph) == (
        "TensorRT 10.3.0 cannot use Orin (CUDA initialization failure with error: 35); check the "
        "driver (s4g-export doctor)"
    )


# ---- can this machine build? -------------------------------------------------------------------


def test_a_machine_with_tensorrt_and_a_gpu_can_build(told: Any) -> None:
    assert build_available() is None


def test_a_machine_without_tensorrt_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    reason = build_available()
    assert reason is not None and reason.startswith("TensorRT cannot be imported (")


def test_a_machine_without_a_gpu_cannot(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    reason = build_available()
    assert reason is not None and "pycuda" in reason


# ---- the cache ---------------------------------------------------------------------------------


def test_the_same_build_comes_from_the_cache(graph: Path, told: Any, cache: PlanCache) -> None:
    plan, info = build(graph, BuildOptions(), cache)
    cache.keep(plan, info)
    renamed = graph.with_name("other.onnx")
    graph.rename(renamed)
    found = build(renamed, BuildOptions(), cache)
    assert found[0] == plan
    assert found[1].graph == "other.onnx"
    assert found[1].created == info.created
    assert len(told.builds) == 1


def test_a_plan_in_the_cache_is_built_again_on_request_with_its_timings(
    graph: Path, told: Any, cache: PlanCache
) -> None:
    cache.keep(*build(graph, BuildOptions(), cache))
    build(graph, BuildOptions(), cache, again=True)
    assert [made["timings"] for made in told.builds] == [[], [sha256_file(graph)]]


@pytest.mark.parametrize("change", ["graph", "option", "gpu", "multiprocessors", "version"])
def test_another_build_does_not(
    graph: Path,
    told: Any,
    gpu: Any,
    cache: PlanCache,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache.keep(*build(graph, BuildOptions(), cache))
    options = BuildOptions()
    if change == "graph":
        graph.write_bytes(graph.read_bytes() + b"\x32\x00")  # an empty training info: harmless
    if change == "option":
        options = BuildOptions(optimisation_level=1)
    if change == "gpu":
        gpu.name = "NVIDIA Thor"
    if change == "multiprocessors":
        gpu.multiprocessors = 4
    monkeypatch.setattr("s4g.core.cuda._devices", [])
    if change == "version":
        told.version = "10.3.1"
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(told))
    build(graph, options, cache)
    assert len(told.builds) == 2


def test_a_failed_build_leaves_nothing_in_the_cache(
    graph: Path, told: Any, cache: PlanCache
) -> None:
    told.build_fails = True
    with pytest.raises(S4GError):
        build(graph, BuildOptions(), cache)
    assert list(cache.folder.glob("*.plan")) == []


def test_timings_of_a_build_serve_the_next(
    graph: Path, told: Any, cache: PlanCache, heard: list[str]
) -> None:
    build(graph, BuildOptions(), cache)
    build(graph, BuildOptions(optimisation_level=4), cache)
    assert [made["timings"] for made in told.builds] == [[], [sha256_file(graph)]]
    assert heard == []


def test_timings_that_others_kept_meanwhile_stay(
    graph: Path, told: Any, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_on = find_target().measured_on
    config = sys.modules["tensorrt"].Builder(sys.modules["tensorrt"].Logger())
    theirs = config.create_builder_config().create_timing_cache(b"")
    theirs._entries.add("theirs")
    read = PlanCache.read_timings

    def read_and_let_others_write(self: PlanCache, *wanted: str) -> bytes:
        kept = read(self, *wanted)
        cache.add_timings(*measured_on, bytes(theirs.serialize()), lambda a, b: a)
        return kept

    monkeypatch.setattr(PlanCache, "read_timings", read_and_let_others_write)
    build(graph, BuildOptions(), cache)
    kept = read(cache, *measured_on)
    assert b'"theirs"' in kept and sha256_file(graph).encode() in kept


@pytest.mark.parametrize("kept", [b"no timings", None], ids=["foreign", "other version"])
def test_timings_that_tensorrt_does_not_take_are_told_and_measured_again(
    graph: Path, told: Any, cache: PlanCache, heard: list[str], kept: bytes | None
) -> None:
    if kept is None:
        kept = fake_tensorrt.TIMING_MAGIC + b'{"version": "10.9.0", "entries": ["x"]}'
    cache.add_timings(*find_target().measured_on, kept, lambda a, b: a)
    build(graph, BuildOptions(), cache)
    assert told.builds[0]["timings"] == []
    assert heard == [f"{cache.folder}: TensorRT does not take its timings; they are measured again"]
    build(graph, BuildOptions(batch_max=2), cache)
    assert told.builds[1]["timings"] == [sha256_file(graph)]


def test_without_a_cache_nothing_is_kept(graph: Path, told: Any, tmp_path: Path) -> None:
    build(graph, BuildOptions(), None)
    assert told.builds[0]["timings"] is None
    assert not (tmp_path / "cache").exists()


# ---- progress and Ctrl-C -----------------------------------------------------------------------


@pytest.fixture
def advanced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of the progress bar."""
    steps: list[int] = []

    @contextmanager
    def record(description: str, total: int, unit: str = "") -> Iterator[Any]:
        assert (description, total, unit) == ("building encoder.fp16.onnx", 100, "%")
        yield steps.append

    monkeypatch.setattr(building, "progress", record)
    return steps


def test_the_bar_reaches_its_end_and_never_goes_back(
    graph: Path, told: Any, advanced: list[int]
) -> None:
    build(graph, BuildOptions(), None)
    assert sum(advanced) == 100
    assert min(advanced) >= 0
    assert len([step for step in advanced if step]) > 4  # the inner phase shows


def test_ctrl_c_stops_a_build(
    graph: Path, told: Any, monkeypatch: pytest.MonkeyPatch, cache: PlanCache
) -> None:
    """It arrives inside a callback, through which no exception may pass."""

    @contextmanager
    def interrupted(description: str, total: int, unit: str = "") -> Iterator[Any]:
        def advance(steps: int) -> None:
            raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(building, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(graph, BuildOptions(), cache)
    assert not list(cache.folder.glob("*.timings"))


@pytest.mark.parametrize("method", ["start", "reach", "finish"])
def test_a_monitor_that_is_interrupted_stops_the_build(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def interrupt(*_: Any) -> int:
        raise KeyboardInterrupt

    log, trt = TensorRtLog(), fake_tensorrt.make()
    monitor = make_monitor(trt, log, lambda steps: None)
    monkeypatch.setattr(BuildShare, "start" if method == "start" else "reach", interrupt)
    if method == "start":
        monitor.phase_start("whole", None, 2)
        assert not monitor.step_complete("whole", 0)
    elif method == "reach":
        assert not monitor.step_complete("whole", 0)
    else:
        monitor.phase_finish("whole")
    with pytest.raises(KeyboardInterrupt):
        log.check()


def test_phases_inside_a_step_take_that_steps_share() -> None:
    share = BuildShare()
    share.start("whole", None, 2)
    share.start("inner", "whole", 5)
    assert [share.reach("inner", step) for step in (1, 2, 3, 4, 5)] == [10] * 5
    assert share.reach("inner", None) == 0
    assert share.reach("whole", 1) == 0  # the inner phase was that step
    assert share.reach("whole", 2) == 50
    assert share.reach("whole", None) == 0


def test_a_phase_that_ends_early_counts_as_done() -> None:
    share = BuildShare()
    share.start("whole", None, 10)
    assert share.reach("whole", 1) == 10
    assert share.reach("whole", None) == 90


def test_unknown_phases_and_more_steps_than_announced_do_no_harm() -> None:
    share = BuildShare()
    assert share.reach("never started", 3) == 0
    share.start("whole", None, 0)
    assert share.reach("whole", 7) == 100
    share.start("second", None, 4)
    assert share.reach("second", 4) == 0
