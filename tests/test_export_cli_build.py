"""`s4g-export build`: plans are tried before they take their place; what was there stays."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from s4g.core.console import run_command
from s4g.core.errors import S4GError
from s4g.core.files import sha256_file
from s4g.core.plan import read_plan, sidecar_path
from s4g.export import cli_build
from s4g.export.agreement import Agreement
from s4g.export.cli_build import build_bundle, build_plans, probe_images
from s4g.export.plan_cache import PlanCache
from s4g.export.tensorrt_target import BuildOptions

INT8, FP16 = "encoder.trt.int8.onnx", "encoder.fp16.onnx"
INT8_PLAN, FP16_PLAN = "encoder.trt.int8.plan", "encoder.fp16.plan"


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
    behaviour = fake_tensorrt.Behaviour(enqueue=gpu.enqueue)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(behaviour))
    return behaviour


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own cache is none of the tests' business."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "s4g" / "tensorrt"


@pytest.fixture
def bundle(tmp_path: Path, toy_encoder: Path) -> Path:
    """A bundle with both TensorRT graphs; the two files differ in a byte that means nothing."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copy(toy_encoder, folder / FP16)
    (folder / INT8).write_bytes(toy_encoder.read_bytes() + b"\x32\x00")
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        run_command(cli_build.build, arguments)
    return int(str(done.value.code))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_building_needs_no_library_of_training() -> None:
    """A Jetson installs the base package alone."""
    program = (
        "import sys, s4g.export.cli_build, s4g.export.tensorrt, s4g.core.engine_tensorrt\n"
        "print({'torch', 'timm', 'onnx'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_both_graphs_become_plans_that_were_tried(
    bundle: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(bundle), "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in rows] == [INT8_PLAN, FP16_PLAN]
    for row in rows:
        data, info = read_plan(bundle / row["file"])
        assert {"file": row["file"], **info.as_json()} == row
        assert info.cosine_min is not None and info.cosine_min == pytest.approx(1, abs=1e-5)
    assert {batch for batch, _ in told.executions} == {8, 1}
    assert sorted(files(bundle)) == sorted(
        [INT8, FP16, INT8_PLAN, FP16_PLAN, f"{INT8_PLAN}.json", f"{FP16_PLAN}.json"]
    )


def test_the_report_for_people_names_machine_and_agreement(
    bundle: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(bundle), "--graph", "fp16", "--batch-opt", "4") == 0
    size = (bundle / FP16_PLAN).stat().st_size / 1e6
    assert capsys.readouterr().out == (
        f"{FP16_PLAN:<24}{size:>7.1f} MB  batch 1 to 16, best at 4; lowest cosine to ONNX Runtime "
        "1.0000; TensorRT 10.3.0, Orin (8.7)\n"
    )
    assert not (bundle / INT8_PLAN).exists()


def test_what_is_there_is_built_of_all(bundle: Path, told: Any) -> None:
    (bundle / INT8).unlink()
    assert [info.graph for info in build_bundle(bundle, BuildOptions(), print)] == [FP16]


def test_a_small_largest_batch_is_tried_at_that(bundle: Path, told: Any) -> None:
    build_bundle(bundle, BuildOptions(batch_max=2), print, graphs=("fp16",))
    assert {batch for batch, _ in told.executions} == {2, 1}


def test_options_of_the_command_reach_the_builder(bundle: Path, told: Any) -> None:
    limits = ["--batch-max", "4", "--workspace-mib", "64", "--optimisation-level", "0"]
    assert run(str(bundle), "--graph", "int8", *limits, "--layer-details", "--no-cache") == 0
    (made,) = told.builds
    assert made["profiles"][0]["images"][2][0] == 4
    assert (made["workspace"], made["level"], made["verbosity"]) == (64 << 20, 0, "DETAILED")
    assert made["timings"] is None


# ---- plans that are there ----------------------------------------------------------------------


def test_a_plan_that_is_up_to_date_is_kept(
    bundle: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(str(bundle), "--graph", "fp16")
    before = files(bundle)
    capsys.readouterr()
    assert run(str(bundle), "--graph", "fp16") == 0
    assert capsys.readouterr().err == f"{bundle / FP16_PLAN}: up to date\n"
    assert files(bundle) == before
    assert len(told.builds) == 1


def test_overwrite_builds_again_whatever_the_cache_holds(bundle: Path, told: Any) -> None:
    run(str(bundle), "--graph", "fp16")
    assert run(str(bundle), "--graph", "fp16", "--overwrite") == 0
    assert len(told.builds) == 2
    assert told.builds[1]["timings"] == [sha256_file(bundle / FP16)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("options", "flags, batch_max changed"),
        ("graph", "graph changed"),
        ("gpu", "gpu, compute_capability changed"),
        ("power mode", "multiprocessor_count changed"),
        ("version", "tensorrt changed"),
    ],
)
def test_a_plan_that_does_not_fit_is_built_again_and_said_why(
    bundle: Path,
    told: Any,
    gpu: Any,
    change: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(str(bundle), "--graph", "fp16")
    capsys.readouterr()
    arguments = []
    if change == "options":
        arguments = ["--batch-max", "8", "--optimisation-level", "2"]
    if change == "graph":
        shutil.copy(bundle / INT8, bundle / FP16)
    if change == "gpu":
        gpu.name, gpu.capability = "NVIDIA Thor", (11, 0)
    if change == "power mode":
        gpu.multiprocessors = 4
    monkeypatch.setattr("s4g.core.cuda._devices", [])
    if change == "version":
        told.version = "10.16.1.11"
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(told))
    assert run(str(bundle), "--graph", "fp16", *arguments) == 0
    assert capsys.readouterr().err == f"{bundle / FP16_PLAN}: building again ({reason})\n"
    assert len(told.builds) == 2
    read_plan(bundle / FP16_PLAN)


def test_a_damaged_plan_is_built_again(
    bundle: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(str(bundle), "--graph", "fp16", "--no-cache")
    sidecar_path(bundle / FP16_PLAN).write_text("{}")
    capsys.readouterr()
    assert run(str(bundle), "--graph", "fp16", "--no-cache") == 0
    reason = f"{sidecar_path(bundle / FP16_PLAN)}: sidecar version None, this program reads 1"
    assert capsys.readouterr().err == f"{bundle / FP16_PLAN}: building again ({reason})\n"
    read_plan(bundle / FP16_PLAN)


def test_a_copied_bundle_takes_its_plan_from_the_cache(
    bundle: Path, told: Any, cache_home: Path
) -> None:
    run(str(bundle), "--graph", "fp16")
    (bundle / FP16_PLAN).unlink()
    sidecar_path(bundle / FP16_PLAN).unlink()
    assert run(str(bundle), "--graph", "fp16") == 0
    assert len(told.builds) == 1
    assert len(told.executions) == 12  # tried again all the same: 2 batches, 3 runs of each
    assert len(list(cache_home.glob("*.plan"))) == 1


# ---- failures leave everything as it was -------------------------------------------------------


@pytest.fixture
def built(bundle: Path, told: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, bytes]:
    """The files of a bundle whose plans were built."""
    run(str(bundle))
    capsys.readouterr()
    told.builds.clear()
    return files(bundle)


def test_a_plan_with_other_embeddings_is_not_kept(
    bundle: Path,
    built: dict[str, bytes],
    told: Any,
    cache_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told.wrong_embeddings = True
    assert run(str(bundle), "--graph", "fp16", "--batch-max", "8") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"error: {bundle / FP16}: the plan built from it returns other embeddings than ONNX "
        "Runtime (cosine "
    )
    assert said.endswith(
        ", at least 0.99 is asked for) and was not kept; try another --optimisation-level, or use "
        "the ONNX files of the bundle"
    )
    assert len(told.builds) == 1
    assert files(bundle) == built
    assert len(list(cache_home.glob("*.plan"))) == 2  # of the first build


@pytest.mark.parametrize(
    ("turned", "scale", "seen"),
    [
        (0.62, 1.17, "cosine 0.8499, at least 0.99 is asked for"),  # a dot product of 0.9944
        (0.0, 1.2, "length 1.2000, expected 1"),
        (0.0, 0.985, "length 0.9850, expected 1"),
    ],
)
def test_wrong_lengths_hide_no_wrong_directions_and_do_not_pass(
    bundle: Path,
    built: dict[str, bytes],
    told: Any,
    turned: float,
    scale: float,
    seen: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told.turned, told.scale = turned, scale
    assert run(str(bundle), "--graph", "fp16", "--overwrite") == 1
    assert f"returns other embeddings than ONNX Runtime ({seen}) and was not kept" in (
        capsys.readouterr().err
    )
    assert files(bundle) == built


def test_rounding_passes(bundle: Path, told: Any) -> None:
    told.turned, told.scale = 0.05, 1.004
    (info,) = build_bundle(bundle, BuildOptions(), print, graphs=("fp16",))
    assert info.cosine_min == pytest.approx(1 / np.hypot(1, 0.05), abs=1e-4)


@pytest.mark.parametrize("wrong", [2, 3], ids=["recorded", "replayed"])
def test_every_way_a_plan_runs_is_compared(
    bundle: Path, told: Any, gpu: Any, wrong: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run of a size records a CUDA graph, which all later ones replay."""
    launch = gpu.libcuda.cuGraphLaunch
    replays = [0]

    def spoilt(executable: Any, stream: int) -> int:
        replays[0] += 1
        if replays[0] == wrong - 1:
            gpu.enqueue(stream, lambda: setattr(told, "wrong_embeddings", True))
        code = launch(executable, stream)
        gpu.enqueue(stream, lambda: setattr(told, "wrong_embeddings", False))
        return int(code)

    gpu.libcuda.cuGraphLaunch = spoilt
    assert run(str(bundle), "--graph", "fp16") == 1
    assert "returns other embeddings than ONNX Runtime (cosine " in capsys.readouterr().err


def test_embeddings_that_are_no_numbers_do_not_pass(
    bundle: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Agreement(float("nan"), float("nan"))
    monkeypatch.setattr(cli_build, "compare", lambda graph, data, info: nothing)
    with pytest.raises(S4GError, match=r"\(cosine nan, at least 0\.99 is asked for\)"):
        build_bundle(bundle, BuildOptions(), print)


@pytest.mark.parametrize("fault", ["build_fails", "execute_fails", "no_context"])
def test_whatever_fails_the_former_plans_stay(
    bundle: Path, built: dict[str, bytes], told: Any, fault: str
) -> None:
    setattr(told, fault, True)
    assert run(str(bundle), "--overwrite", "--no-cache") == 1
    assert files(bundle) == built
    assert not list(bundle.glob(".plan.*"))


def test_a_second_graph_that_fails_leaves_the_first_plan_whole(bundle: Path, told: Any) -> None:
    (bundle / FP16).write_bytes(b"damaged")
    assert run(str(bundle)) == 2
    read_plan(bundle / INT8_PLAN)
    assert not (bundle / FP16_PLAN).exists()


# ---- machines that cannot build ----------------------------------------------------------------


def elsewhere(bundle: Path) -> str:
    return (
        f"plans are built on the device that runs them: copy {bundle} there and run s4g-export "
        "build bundle"
    )


def test_without_tensorrt_the_command_says_where_to_build(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert run(str(bundle)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: TensorRT cannot be imported (")
    assert said.endswith(f"; {elsewhere(bundle)}\n")


def test_without_a_gpu_the_command_says_where_to_build(
    bundle: Path,
    told: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def none() -> None:
        raise S4GError("no GPU can be used (the driver lists none)")

    monkeypatch.setattr("s4g.core.cuda.open_device", none)
    assert run(str(bundle)) == 1
    assert capsys.readouterr().err == (
        f"error: no GPU can be used (the driver lists none); {elsewhere(bundle)}\n"
    )


def test_a_new_bundle_gets_its_plans_where_they_can_be_built(
    bundle: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    build_plans(bundle)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[:2] == [f"{bundle / plan}: building" for plan in (INT8_PLAN, FP16_PLAN)]
    assert [line.split()[0] for line in lines[2:]] == [INT8_PLAN, FP16_PLAN]
    read_plan(bundle / INT8_PLAN)


def test_a_new_bundle_without_a_gpu_is_told_where_its_plans_are_built(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    build_plans(bundle)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no plans yet: TensorRT cannot be imported (")
    assert line.endswith(f"; {elsewhere(bundle)}")


# ---- what is named wrongly ---------------------------------------------------------------------


def test_a_bundle_that_is_not_there_is_refused(
    tmp_path: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(tmp_path / "none")) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'none'}: no such bundle; give a folder made by s4g-export\n"
    )


@pytest.mark.parametrize(
    ("graph", "missing"),
    [("int8", INT8), ("fp16", FP16), ("all", f"{INT8} and no {FP16}")],
)
def test_a_bundle_without_the_graph_is_refused(
    tmp_path: Path, told: Any, graph: str, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(tmp_path), "--graph", graph) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: holds no {missing}; export again with --tensorrt\n"
    )


def test_a_batch_that_contradicts_itself_is_refused_before_the_build(
    bundle: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(bundle), "--batch-opt", "4", "--batch-max", "2") == 2
    assert capsys.readouterr().err == (
        "error: --batch-opt 4: is more than --batch-max 2; raise --batch-max\n"
    )
    assert told.builds == []


def test_the_images_a_plan_is_tried_on_are_the_same_every_time_and_unlike_each_other() -> None:
    images = probe_images(64, 8)
    assert images.shape == (8, 64, 64, 3) and images.dtype == np.uint8
    assert np.array_equal(images, probe_images(64, 8))
    assert len({image.tobytes() for image in images}) == 8
    rough = np.abs(np.diff(images.astype(int), axis=1)).mean((1, 2, 3))
    assert (rough[1::2] > 60).all() and (rough[::2] < 30).all()  # noise, and soft ones


def test_the_cache_can_be_left_out(bundle: Path, told: Any, cache_home: Path) -> None:
    assert run(str(bundle), "--no-cache") == 0
    assert not cache_home.exists()


def test_the_cache_holds_what_was_tried(bundle: Path, told: Any, cache_home: Path) -> None:
    run(str(bundle), "--graph", "fp16")
    info = read_plan(bundle / FP16_PLAN)[1]
    found = PlanCache(cache_home, print).find(info.identity)
    assert found is not None and found[1] == info
    assert info.graph_sha256 == sha256_file(bundle / FP16)
