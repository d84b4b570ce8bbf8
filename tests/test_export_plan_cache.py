"""The cache of plans and timings: hits are identical builds, damage is told and made good."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from pathlib import Path

import pytest

from s4g.core.files import sha256_bytes
from s4g.core.plan import PlanInfo, sidecar_path
from s4g.core.spec import EncoderSpec
from s4g.export.plan_cache import PlanCache

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
)


ORIN = ("10.3.0", "Orin (nvgpu)", "8.7")


def plan(number: int, size: int = 100) -> tuple[bytes, PlanInfo]:
    """Return a plan and what is known about it; other numbers are other builds."""
    data = bytes([number]) * size
    info = PlanInfo(
        plan_sha256=sha256_bytes(data),
        plan_bytes=len(data),
        graph="encoder.fp16.onnx",
        graph_sha256=f"{number:064x}",
        tensorrt="10.3.0",
        gpu="Orin (nvgpu)",
        compute_capability="8.7",
        multiprocessor_count=8,
        platform="linux-aarch64",
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
    )
    return data, info


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, told: list[str]) -> PlanCache:
    return PlanCache(tmp_path / "cache" / "s4g", told.append)


def test_a_kept_plan_is_found_for_the_same_build(cache: PlanCache, told: list[str]) -> None:
    data, info = plan(1)
    cache.keep(data, info)
    assert cache.find(info.identity) == (data, info)
    assert told == []


def test_another_build_is_not_found(cache: PlanCache, told: list[str]) -> None:
    data, info = plan(1)
    cache.keep(data, info)
    assert cache.find(dataclasses.replace(info, batch_max=32).identity) is None
    assert cache.find(plan(2)[1].identity) is None
    assert told == []


def test_an_empty_cache_holds_nothing(cache: PlanCache, told: list[str]) -> None:
    assert cache.find(plan(1)[1].identity) is None
    assert cache.read_timings(*ORIN) == b""
    assert told == []


def test_a_damaged_plan_is_told_and_dropped(cache: PlanCache, told: list[str]) -> None:
    data, info = plan(1)
    cache.keep(data, info)
    (path,) = cache.folder.glob("*.plan")
    path.write_bytes(bytes(len(data)))
    assert cache.find(info.identity) is None
    assert told == [
        f"{path}: its SHA-256 is not the one in {sidecar_path(path).name}: it was altered, or the "
        "sidecar belongs to another plan; it is dropped from the cache"
    ]
    assert not path.exists() and not sidecar_path(path).exists()


def test_a_plan_that_lost_its_sidecar_is_told_and_dropped(
    cache: PlanCache, told: list[str]
) -> None:
    data, info = plan(1)
    cache.keep(data, info)
    (path,) = cache.folder.glob("*.plan")
    sidecar_path(path).unlink()
    assert cache.find(info.identity) is None
    assert told == [
        f"{path}: has no sidecar ({sidecar_path(path).name}), which says what it was built for; it "
        "is dropped from the cache"
    ]
    assert not path.exists()


def test_the_plan_of_another_build_under_this_key_is_dropped(
    cache: PlanCache, told: list[str]
) -> None:
    data, info = plan(1)
    cache.keep(data, info)
    (path,) = cache.folder.glob("*.plan")
    wanted = plan(2)[1].identity
    other = path.with_name(f"{wanted.key}.plan")
    sidecar_path(path).rename(sidecar_path(other))
    path.rename(other)
    assert cache.find(wanted) is None
    assert told == [f"{other}: holds the plan of another build; it is dropped from the cache"]
    assert list(cache.folder.glob("*.plan*")) == []


def test_the_plans_used_longest_ago_make_room(tmp_path: Path, told: list[str]) -> None:
    cache = PlanCache(tmp_path, told.append, max_bytes=250)
    plans = [plan(number) for number in range(4)]
    for age, (data, info) in enumerate(plans[:2]):
        cache.keep(data, info)
        os.utime(cache.folder / f"{info.identity.key}.plan", (1000 + age, 1000 + age))
    assert cache.find(plans[0][1].identity) is not None  # now used later than the second
    cache.keep(*plans[2])
    assert [cache.find(info.identity) is not None for _, info in plans] == [
        True,
        False,
        True,
        False,
    ]
    assert len(list(cache.folder.glob("*.json"))) == 2


def test_a_plan_larger_than_the_cache_is_kept_alone(tmp_path: Path, told: list[str]) -> None:
    cache = PlanCache(tmp_path, told.append, max_bytes=50)
    cache.keep(*plan(1))
    cache.keep(*plan(2))
    assert cache.find(plan(1)[1].identity) is None
    assert cache.find(plan(2)[1].identity) is not None


def test_a_plan_that_is_there_is_not_written_again_but_counts_as_used(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PlanCache(tmp_path, told.append)
    data, info = plan(1)
    cache.keep(data, info)
    path = tmp_path / f"{info.identity.key}.plan"
    os.utime(path, (1000, 1000))
    before = path.stat().st_ino
    cache.keep(data, info)
    assert path.stat().st_ino == before and path.stat().st_mtime > 1000


@pytest.mark.parametrize("damage", ["another", "cut", "sidecar"])
def test_a_plan_that_is_there_but_another_is_replaced(
    tmp_path: Path, told: list[str], damage: str
) -> None:
    cache = PlanCache(tmp_path, told.append)
    data, info = plan(1)
    path = tmp_path / f"{info.identity.key}.plan"
    other, _ = plan(2)
    cache.keep(other, dataclasses.replace(info, plan_sha256=sha256_bytes(other)))
    if damage == "cut":
        cache.keep(data, info)
        path.write_bytes(data[:-1])
    if damage == "sidecar":
        sidecar_path(path).unlink()
    cache.keep(data, info)
    assert cache.find(info.identity) == (data, info)
    assert told == []


def test_what_a_killed_build_left_is_removed(cache: PlanCache, told: list[str]) -> None:
    cache.keep(*plan(1))
    left = [
        cache.folder / f".{'0' * 64}.{end}" for end in ("plan.17.tmp", "timings.17.tmp.timings")
    ]
    for path in left:
        path.write_bytes(bytes(100))
    cache.keep(*plan(2))
    assert not any(path.exists() for path in left)
    assert len(list(cache.folder.glob("*.plan"))) == 2
    assert (cache.folder / ".lock").exists()


# ---- timings -----------------------------------------------------------------------------------


def never(first: bytes, second: bytes) -> bytes:
    raise AssertionError("there is nothing to unite")


def test_timings_are_kept_for_a_version_and_a_gpu(cache: PlanCache) -> None:
    cache.add_timings(*ORIN, b"measured", never)
    assert cache.read_timings(*ORIN) == b"measured"
    for other in [("10.16.2", *ORIN[1:]), (ORIN[0], "NVIDIA Thor", "8.7"), (*ORIN[:2], "11.0")]:
        assert cache.read_timings(*other) == b""


def test_timings_of_two_builders_are_united(cache: PlanCache) -> None:
    cache.add_timings(*ORIN, b"a", never)
    cache.add_timings(*ORIN, b"b", lambda mine, kept: mine + kept)
    assert cache.read_timings(*ORIN) == b"ba"


@pytest.mark.parametrize("damage", ["cut", "altered", "empty", "foreign"])
def test_damaged_timings_are_told_and_measured_again(
    cache: PlanCache, told: list[str], damage: str
) -> None:
    cache.add_timings(*ORIN, b"measured", never)
    (path,) = cache.folder.glob("*.timings")
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-1],
            "altered": content[:-1] + b"D",
            "empty": b"",
            "foreign": b"ftrt timing cache of another tool" * 5,
        }[damage]
    )
    assert cache.read_timings(*ORIN) == b""
    assert told == [f"{path}: damaged; timings are measured again"]
    cache.add_timings(*ORIN, b"again", never)
    assert cache.read_timings(*ORIN) == b"again"


# ---- the folder --------------------------------------------------------------------------------


def test_nobody_else_may_put_plans_there(cache: PlanCache) -> None:
    cache.keep(*plan(1))
    assert cache.folder.stat().st_mode & 0o077 == 0


def test_a_cache_that_cannot_be_used_is_told_and_stops_no_build(
    tmp_path: Path, told: list[str]
) -> None:
    place = tmp_path / "file"
    place.write_text("in the way")
    cache = PlanCache(place / "cache", told.append)
    data, info = plan(1)
    cache.keep(data, info)
    assert cache.find(info.identity) is None
    assert cache.read_timings(*ORIN) == b""
    cache.add_timings(*ORIN, b"measured", never)
    reason = f"[Errno 20] Not a directory: '{cache.folder}'"
    line = f"{cache.folder}: the cache cannot be used ({reason}); going on without"
    assert told == [line] * 4


def fill(folder: Path, first: int, repeats: int) -> None:
    """Keep plans and timings from another process."""
    cache = PlanCache(folder, print)
    for repeat in range(repeats):
        data, info = plan(10 * first + repeat, size=50_000)
        info = dataclasses.replace(info, graph_sha256="ab" * 32)  # all stand for one build
        cache.keep(data, info)
        cache.add_timings(
            *ORIN,
            bytes([first]),
            lambda mine, kept: bytes(sorted({*mine, *kept})),
        )


def test_builders_at_work_at_once_damage_nothing(tmp_path: Path, told: list[str]) -> None:
    """They replace the same plan again and again while it is read."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=fill, args=(tmp_path, number, 10)) for number in range(2)]
    for writer in writers:
        writer.start()
    cache = PlanCache(tmp_path, told.append)
    identity = dataclasses.replace(plan(1)[1].identity, graph_sha256="ab" * 32)
    while any(writer.is_alive() for writer in writers):
        kept = cache.find(identity)
        assert kept is None or (len(kept[0]), len(set(kept[0]))) == (50_000, 1)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert told == []
    assert cache.find(identity) is not None
    assert cache.read_timings(*ORIN) == bytes([0, 1])
    assert not list(tmp_path.glob(".*.tmp*"))
