"""Plans and sidecars: what is written is read back, and nothing else is."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.errors import EncoderMismatchError, InputError, IntegrityError, S4GError
from s4g.core.files import sha256_bytes
from s4g.core.plan import (
    PlanInfo,
    check_graph,
    check_runnable,
    import_tensorrt,
    plan_path,
    platform_name,
    read_plan,
    sidecar_path,
)
from s4g.core.plan_write import write_plan
from s4g.core.spec import EncoderSpec

DATA = b"ftrt" + bytes(range(200))
SPEC = EncoderSpec(
    model_id="70" * 32,
    backbone="toy",
    input_px=64,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    embedding_dim=32,
    nested_dims=(32,),
    gsd_min_m=0.3,
    gsd_max_m=3.0,
    north_up=True,
    temperature=0.1,
    precision="int8",
)
INFO = PlanInfo(
    plan_sha256=sha256_bytes(DATA),
    plan_bytes=len(DATA),
    graph="encoder.trt.int8.onnx",
    graph_sha256="ab" * 32,
    tensorrt="10.3.0",
    gpu="Orin",
    compute_capability="8.7",
    multiprocessor_count=16,
    platform=platform_name(),
    flags={
        "optimisation_level": 3,
        "workspace_mib": None,
        "hardware_compatible": False,
        "layer_details": False,
    },
    batch_min=1,
    batch_opt=1,
    batch_max=16,
    spec=SPEC,
    made_by="s4g 0.1.0",
    created="2026-01-31T12:00:00Z",
    cosine_min=0.9987,
)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan and its sidecar in a folder of their own."""
    path = tmp_path / "encoder.trt.int8.plan"
    write_plan(path, DATA, INFO)
    return path


def again(plan: Path) -> str:
    return f"build it again with s4g-export build {plan.parent}"


def refusal(plan: Path) -> str:
    with pytest.raises(InputError) as error:
        read_plan(plan)
    return str(error.value)


def edit(plan: Path, **changes: Any) -> None:
    """Change entries of a sidecar; None stands for itself, ... removes an entry."""
    value = json.loads(sidecar_path(plan).read_text())
    value.update(changes)
    value = {name: entry for name, entry in value.items() if entry is not ...}
    sidecar_path(plan).write_text(json.dumps(value))


def test_a_plan_lies_beside_its_graph_and_its_sidecar_beside_it() -> None:
    assert plan_path(Path("b/encoder.trt.int8.onnx")) == Path("b/encoder.trt.int8.plan")
    assert sidecar_path(Path("b/encoder.fp16.plan")) == Path("b/encoder.fp16.plan.json")


def test_what_was_written_is_read(plan: Path) -> None:
    assert read_plan(plan) == (DATA, INFO)


def test_the_plan_file_holds_no_byte_of_ours(plan: Path) -> None:
    assert plan.read_bytes() == DATA


def test_an_untried_plan_is_read_too(plan: Path) -> None:
    edit(plan, cosine_min=None)
    assert read_plan(plan)[1].cosine_min is None


def test_a_plan_without_sidecar_is_refused(plan: Path) -> None:
    sidecar_path(plan).unlink()
    assert refusal(plan) == (
        f"{plan}: has no sidecar (encoder.trt.int8.plan.json), which says what it was built for; "
        f"{again(plan)}"
    )


def test_a_sidecar_without_plan_is_refused(plan: Path) -> None:
    plan.unlink()
    assert refusal(plan) == (
        f"{plan}: the plan is missing, only its sidecar is there; {again(plan)}"
    )


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.plan"
    assert refusal(path) == f"{path}: no such plan; make it with s4g-export build BUNDLE"


def test_a_folder_in_the_place_of_a_plan_is_refused(plan: Path) -> None:
    plan.unlink()
    plan.mkdir()
    edit(plan, plan_bytes=plan.stat().st_size)
    assert refusal(plan) == f"{plan}: cannot be read (Is a directory)"


@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1])
def test_a_truncated_or_longer_plan_is_refused(plan: Path, size: int) -> None:
    plan.write_bytes((DATA + b"x")[:size])
    assert refusal(plan) == (
        f"{plan}: {size} bytes, {len(DATA)} according to its sidecar: it was truncated or altered; "
        f"{again(plan)}"
    )


@settings(max_examples=20)  # each writes to disk
@given(place=st.integers(0, len(DATA) - 1), flip=st.integers(1, 255))
def test_a_plan_with_one_other_byte_is_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("altered") / "a.plan"
    write_plan(path, DATA, INFO)
    altered = bytearray(DATA)
    altered[place] ^= flip
    path.write_bytes(altered)
    assert refusal(path) == (
        f"{path}: its SHA-256 is not the one in a.plan.json: it was altered, or the sidecar "
        f"belongs to another plan; {again(path)}"
    )


def test_damage_is_told_from_other_mistakes(plan: Path) -> None:
    plan.write_bytes(bytes(len(DATA)))
    with pytest.raises(IntegrityError):
        read_plan(plan)


def test_a_plan_of_another_encoder_than_its_bundle_is_refused(plan: Path) -> None:
    other = dataclasses.replace(SPEC, model_id="71" * 32)
    (plan.parent / "spec.json").write_text(other.to_json())
    with pytest.raises(EncoderMismatchError) as error:
        read_plan(plan)
    assert str(error.value) == (
        f"{plan}: built from encoder 707070707070, its bundle holds 717171717171; {again(plan)}"
    )


def test_a_plan_of_its_bundles_encoder_is_read(plan: Path) -> None:
    fp32 = dataclasses.replace(SPEC, precision="fp32")
    (plan.parent / "spec.json").write_text(fp32.to_json())
    assert read_plan(plan) == (DATA, INFO)


def test_a_plan_runs_with_the_graph_it_was_built_from(plan: Path) -> None:
    check_graph(plan, INFO)  # none is here
    graph = plan.with_name(INFO.graph)
    graph.write_bytes(b"graph")
    check_graph(plan, dataclasses.replace(INFO, graph_sha256=sha256_bytes(b"graph")))


def test_a_plan_of_a_graph_that_was_exported_again_is_refused(plan: Path) -> None:
    plan.with_name(INFO.graph).write_bytes(b"another graph of the same encoder")
    with pytest.raises(InputError) as error:
        check_graph(plan, INFO)
    assert str(error.value) == (
        f"{plan}: built from another encoder.trt.int8.onnx than the one beside it, which was "
        f"exported later; {again(plan)}"
    )


@pytest.mark.parametrize("name", [".", ".."])
def test_a_graph_that_can_be_no_file_is_none(plan: Path, name: str) -> None:
    check_graph(plan, dataclasses.replace(INFO, graph=name))


# ---- sidecars ----------------------------------------------------------------------------------


def test_a_sidecar_of_another_version_is_refused(plan: Path) -> None:
    edit(plan, sidecar_version=2)
    assert refusal(plan) == (
        f"{sidecar_path(plan)}: sidecar version 2, this program reads 1; update s4g, or "
        f"{again(plan)}"
    )


def test_unknown_entries_are_refused(plan: Path) -> None:
    edit(plan, run="rm -rf", also=1)
    assert refusal(plan) == f"{sidecar_path(plan)}: unknown entries also, run; {again(plan)}"


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(PlanInfo)])
def test_a_missing_entry_is_refused(plan: Path, name: str) -> None:
    edit(plan, **{name: ...})
    assert refusal(plan) == f"{sidecar_path(plan)}: lacks {name}; {again(plan)}"


@pytest.mark.parametrize("version", ["10.6.0.post1", "10.13.3.9", "11.4.0.106.post12"])
def test_versions_that_exist_can_be_held(plan: Path, version: str) -> None:
    info = dataclasses.replace(INFO, tensorrt=version)
    info.identity.check()
    write_plan(plan, DATA, info, overwrite=True)
    assert read_plan(plan)[1].tensorrt == version


def test_what_no_sidecar_can_hold_is_refused_before_a_build() -> None:
    with pytest.raises(InputError) as error:
        dataclasses.replace(INFO, tensorrt="12.0.0-rc1").identity.check()
    assert str(error.value) == (
        'tensorrt of this machine is "12.0.0-rc1", a form that no plan\'s sidecar can hold; update '
        "s4g, or install another TensorRT"
    )


FLAGS = INFO.flags
ABSURD = [
    ("plan_sha256", "AB" * 32),
    ("plan_sha256", 3),
    ("plan_bytes", 0),
    ("plan_bytes", True),
    ("plan_bytes", 1 << 40),
    ("graph", "../encoder.onnx"),
    ("graph", ""),
    ("graph_sha256", "zz"),
    ("tensorrt", "10"),
    ("tensorrt", "10.3.0; rm"),
    ("tensorrt", "10.6.0.post"),
    ("gpu", ""),
    ("gpu", "a\nb"),
    ("compute_capability", "8"),
    ("compute_capability", 8.7),
    ("multiprocessor_count", 0),
    ("platform", "linux"),
    ("flags", None),
    ("flags", {}),
    ("flags", {**FLAGS, "int8": True}),
    ("flags", {**FLAGS, "optimisation_level": 6}),
    ("flags", {**FLAGS, "workspace_mib": 0}),
    ("flags", {**FLAGS, "hardware_compatible": 1}),
    ("batch_min", 0),
    ("batch_opt", 1.0),
    ("batch_max", 100_000),
    ("spec", []),
    ("made_by", ["s4g"]),
    ("created", "yesterday"),
    ("cosine_min", 2),
    ("cosine_min", float("nan")),
    ("cosine_min", True),
]


@pytest.mark.parametrize(("name", "value"), ABSURD, ids=repr)
def test_impossible_values_are_refused(plan: Path, name: str, value: Any) -> None:
    edit(plan, **{name: value})
    assert refusal(plan) == (
        f"{sidecar_path(plan)}: {name} is {json.dumps(value)[:80]}, which no plan has; "
        f"{again(plan)}"
    )


def test_batches_that_do_not_rise_are_refused(plan: Path) -> None:
    edit(plan, batch_opt=8, batch_max=4)
    assert refusal(plan) == (
        f"{sidecar_path(plan)}: batches 1, 8, 4 (least, best, most) do not rise; {again(plan)}"
    )


def test_a_damaged_spec_is_refused(plan: Path) -> None:
    edit(plan, spec={"spec_version": 1, "model_id": "70" * 32})
    assert refusal(plan).startswith(f"{sidecar_path(plan)}: encoder spec lacks backbone, ")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff\xfe", "[" * 100_000], ids=len)
def test_what_is_no_sidecar_is_refused(plan: Path, text: str) -> None:
    sidecar_path(plan).write_bytes(text.encode("latin-1"))
    assert refusal(plan) == f"{sidecar_path(plan)}: is no plan's sidecar; {again(plan)}"


def test_a_huge_sidecar_is_not_even_read(plan: Path) -> None:
    with sidecar_path(plan).open("wb") as file:
        file.truncate((1 << 20) + 1)
    assert refusal(plan) == f"{sidecar_path(plan)}: too large for a plan's sidecar; {again(plan)}"


@given(text=st.binary(max_size=300))
def test_no_sidecar_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.plan"
    path.write_bytes(DATA)
    sidecar_path(path).write_bytes(text)
    with pytest.raises(InputError):
        read_plan(path)


# ---- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["plan", "sidecar"])
def test_nothing_is_overwritten_unasked(plan: Path, which: str) -> None:
    gone, kept = plan, sidecar_path(plan)
    if which == "plan":
        gone, kept = kept, gone
    gone.unlink()
    with pytest.raises(InputError) as error:
        write_plan(plan, b"other", INFO)
    assert str(error.value) == f"{kept}: already exists; pass --overwrite to replace it"
    assert not gone.exists()


def test_a_plan_is_replaced_with_its_sidecar(plan: Path) -> None:
    data = b"another plan"
    info = dataclasses.replace(INFO, plan_sha256=sha256_bytes(data), plan_bytes=len(data))
    write_plan(plan, data, info, overwrite=True)
    assert read_plan(plan) == (data, info)
    assert len(list(plan.parent.iterdir())) == 2


@pytest.mark.parametrize("fails_at", [1, 2], ids=["plan", "sidecar"])
def test_a_full_disk_leaves_the_former_plan_as_it_was(
    plan: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Whichever of the two files it is, and whichever step: noticed when it goes to the disk."""
    flush, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(S4GError) as error:
        write_plan(plan, b"another plan", INFO, overwrite=True)
    assert str(error.value) == (
        f"{plan}: cannot write (No space left on device); free some space or choose another place; "
        "nothing was left behind"
    )
    monkeypatch.undo()
    assert read_plan(plan) == (DATA, INFO)
    assert len(list(plan.parent.iterdir())) == 2


@pytest.mark.parametrize("there", [True, False], ids=["replaced", "new"])
@pytest.mark.parametrize("last", ["encoder.trt.int8.plan", "encoder.trt.int8.plan.json"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_rename_that_fails_leaves_both_files_as_they_were(
    plan: Path, monkeypatch: pytest.MonkeyPatch, there: bool, last: str, error: BaseException
) -> None:
    if not there:
        plan.unlink()
        sidecar_path(plan).unlink()
    rename = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == last and self.name.endswith(".tmp"):
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((S4GError, KeyboardInterrupt)):
        write_plan(plan, b"another plan", INFO, overwrite=True)
    monkeypatch.undo()
    assert len(list(plan.parent.iterdir())) == (2 if there else 0)
    if there:
        assert read_plan(plan) == (DATA, INFO)


def test_a_crash_between_the_two_renames_leaves_nothing_usable(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = plan.read_bytes()
    data = bytes(len(DATA))
    info = dataclasses.replace(INFO, plan_sha256=sha256_bytes(data))
    write_plan(plan, data, info, overwrite=True)
    plan.write_bytes(former)  # as if only the sidecar had been renamed
    assert "it was altered, or the sidecar belongs to another plan" in refusal(plan)


# ---- the machine it runs on --------------------------------------------------------------------

HERE: dict[str, Any] = {
    "tensorrt_version": "10.3.0",
    "gpu": "Orin",
    "compute_capability": "8.7",
    "multiprocessor_count": 16,
}


def machine(
    version: str = "10.3.0",
    gpu: str = "Orin",
    capability: str = "8.7",
    count: int = 16,
    platform: str = platform_name(),
) -> str:
    return f"TensorRT {version} on {gpu} ({capability}, {count} multiprocessors, {platform})"


def test_a_plan_runs_where_it_was_built(plan: Path) -> None:
    check_runnable(plan, INFO, **HERE)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"tensorrt_version": "10.3.0.1"}, machine(version="10.3.0.1")),
        ({"gpu": "NVIDIA Thor"}, machine(gpu="NVIDIA Thor")),
        ({"compute_capability": "8.6"}, machine(capability="8.6")),
    ],
)
def test_a_plan_of_another_machine_is_refused_with_both_sides(
    plan: Path, change: dict[str, Any], seen: str
) -> None:
    with pytest.raises(InputError) as error:
        check_runnable(plan, INFO, **{**HERE, **change})
    assert str(error.value) == (
        f"{plan}: built for {machine()}, this machine has {seen}; {again(plan)} on this machine"
    )


def test_a_plan_of_another_board_of_the_family_or_power_mode_is_refused(plan: Path) -> None:
    """Driver and TensorRT call every Orin by one name."""
    with pytest.raises(InputError) as error:
        check_runnable(plan, INFO, **{**HERE, "multiprocessor_count": 8})
    assert str(error.value) == (
        f"{plan}: built for {machine()}, this machine has {machine(count=8)}; {again(plan)} on "
        "this machine, or set the power mode that it was built in (nvpmodel)"
    )


def test_a_plan_of_another_platform_is_refused(plan: Path) -> None:
    info = dataclasses.replace(INFO, platform="linux-riscv64")
    with pytest.raises(InputError) as error:
        check_runnable(plan, info, **HERE)
    assert str(error.value) == (
        f"{plan}: built for {machine(platform='linux-riscv64')}, this machine has {machine()}; "
        f"{again(plan)} on this machine"
    )


@pytest.mark.parametrize(
    ("gpu", "compute_capability", "runs"),
    [
        ("NVIDIA RTX A2000", "8.6", True),
        ("NVIDIA H100", "9.0", True),
        ("NVIDIA RTX 5090", "12.0", True),
        ("Tesla T4", "7.5", False),
        ("Orin", "8.7", False),
        ("NVIDIA Thor", "11.0", False),
    ],
)
def test_a_compatible_plan_runs_on_desktop_gpus_from_ampere_on(
    plan: Path, gpu: str, compute_capability: str, runs: bool
) -> None:
    flags = {**INFO.flags, "hardware_compatible": True}
    info = dataclasses.replace(INFO, flags=flags, gpu="NVIDIA A100", compute_capability="8.0")
    if runs:
        check_runnable(plan, info, "10.3.0", gpu, compute_capability, 26)
    else:
        with pytest.raises(InputError):
            check_runnable(plan, info, "10.3.0", gpu, compute_capability, 26)


@pytest.mark.parametrize(
    "change",
    [
        {"graph_sha256": "cd" * 32},
        {"tensorrt": "10.16.2"},
        {"gpu": "NVIDIA Thor"},
        {"compute_capability": "11.0"},
        {"multiprocessor_count": 8},
        {"platform": "linux-riscv64"},
        {"flags": {**INFO.flags, "optimisation_level": 4}},
        {"batch_opt": 2},
        {"batch_max": 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_a_build_changes_its_key(change: dict[str, Any]) -> None:
    assert dataclasses.replace(INFO, **change).identity.key != INFO.identity.key


def test_what_does_not_decide_a_build_leaves_its_key() -> None:
    later = dataclasses.replace(INFO, created="2027-01-01T00:00:00Z", cosine_min=None, graph="x")
    assert later.identity.key == INFO.identity.key


# ---- TensorRT itself ---------------------------------------------------------------------------


def test_a_machine_without_tensorrt_is_told_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError) as error:
        import_tensorrt()
    assert str(error.value) == (
        "TensorRT cannot be imported (import of tensorrt halted; None in sys.modules); on Jetson "
        "it comes with JetPack (python3-libnvinfer, in a virtual environment made with "
        "--system-site-packages), elsewhere pip install tensorrt"
    )


@pytest.mark.parametrize("version", ["8.6.2", "10.0.1", "10.2.0"])
def test_an_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))
    with pytest.raises(InputError) as error:
        import_tensorrt()
    assert str(error.value) == (
        f"TensorRT {version} is too old: plans need 10.3 or newer, which JetPack 6.1 and newer "
        "bring; update JetPack"
    )


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "11.4.0.106", "12.0.0"])
def test_a_newer_tensorrt_is_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert import_tensorrt() is module
