from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.engine import load_engine
from s4g.core.errors import S4GError
from s4g.core.sources import open_ground
from s4g.tilepacks.blocks import BlockTask
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.build_set import build_set
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import Plan, plan_pack
from s4g.tilepacks.ray_blocks import RayEmbedder, Recipe, _row_of, _task_of
from s4g.tilepacks.tiling import Lattice, block_of
from s4g.tilepacks.variants import make_variants

# Ray warns of its own defaults.
pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = BuildOptions(dims=16, overview=False, headings=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of this machine alone, for all tests of this file."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on the loopback alone
    }
    ray = pytest.importorskip("ray", reason="needs Ray (the ray extra)")
    pytest.importorskip("ray.data", reason="needs Ray Data (the ray extra)")
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,  # none that is there: Ray hands out numbers
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level="error",
    )
    yield ray
    ray.shutdown()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _recipe(source: Path, encoder: Path, opener: Callable[[str], Any], **given: Any) -> Recipe:
    with closing(load_engine(encoder, threads=1)) as engine:
        plan = _plan(source, engine)
        values = {"model_id": engine.spec.model_id, "min_valid": OPTIONS.min_valid, **given}
    variants = make_variants(1, OPTIONS.headings)
    return Recipe(
        opener, (str(source),), encoder, threads=1, frame=plan.frame, variants=variants,
        **{"device": "cpu", **values},
    )  # fmt: skip


def _plan(source: Path, engine: Any) -> Plan:
    with closing(open_ground(str(source))) as ground:
        return plan_pack(ground, engine.spec, None, (32.0, 64.0))


def _build(source: Path, encoder: Path, out: Path, embedder: Any = None) -> None:
    with (
        closing(load_engine(encoder, threads=1)) as engine,
        closing(open_ground(str(source))) as ground,
    ):
        plan = plan_pack(ground, engine.spec, None, (32.0, 64.0))
        if out.suffix == ".s4gpacks":
            build_set([ground], engine, plan, 130.0, out, OPTIONS, embedder=embedder)
        else:
            build_pack([ground], engine, plan, out, OPTIONS, embedder=embedder)


@pytest.mark.slow
def test_two_actors_build_the_same_bytes_as_this_process(
    cluster: Any, tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    _build(toy_source, toy_encoder, tmp_path / "plain.s4gpack")
    recipe = _recipe(toy_source, toy_encoder, open_ground)
    with RayEmbedder(recipe, 2) as embedder:
        _build(toy_source, toy_encoder, tmp_path / "ray.s4gpack", embedder)
    assert sha256(tmp_path / "ray.s4gpack") == sha256(tmp_path / "plain.s4gpack")


@pytest.mark.slow
def test_actors_that_hold_a_gpu_build_the_same_bytes(
    cluster: Any, tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    _build(toy_source, toy_encoder, tmp_path / "plain.s4gpack")
    recipe = _recipe(toy_source, toy_encoder, open_ground, device="auto")
    with RayEmbedder(recipe, 1) as embedder:
        _build(toy_source, toy_encoder, tmp_path / "ray.s4gpack", embedder)
    assert sha256(tmp_path / "ray.s4gpack") == sha256(tmp_path / "plain.s4gpack")


@pytest.mark.slow
def test_a_set_is_the_same_even_when_an_actor_dies_on_the_way(
    cluster: Any, tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    mark = tmp_path / "died"

    def opener(name: str) -> Any:
        """Open imagery whose second reading kills the process, once."""
        ground = open_ground(name)
        read, times = ground.read, [0]

        def mortal(*where: Any) -> Any:
            times[0] += 1
            if times[0] == 2 and not mark.exists():
                mark.touch()
                os._exit(1)
            return read(*where)

        ground.read = mortal  # type: ignore[method-assign]
        return ground

    _build(toy_source, toy_encoder, tmp_path / "plain.s4gpacks")
    with RayEmbedder(_recipe(toy_source, toy_encoder, opener), 2) as embedder:
        _build(toy_source, toy_encoder, tmp_path / "ray.s4gpacks", embedder)
    assert mark.exists()
    for file in (tmp_path / "plain.s4gpacks").iterdir():
        assert sha256(tmp_path / "ray.s4gpacks" / file.name) == sha256(file)


@pytest.mark.slow
def test_what_fails_on_another_machine_is_told_in_one_line(
    cluster: Any, tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    def opener(name: str) -> Any:
        ground = open_ground(name)

        def broken(*where: Any) -> Any:
            raise S4GError(f"{name}: block 7 is damaged; copy it anew")

        ground.read = broken  # type: ignore[method-assign]
        return ground

    with (
        RayEmbedder(_recipe(toy_source, toy_encoder, opener), 1) as embedder,
        pytest.raises(S4GError) as error,
    ):
        _build(toy_source, toy_encoder, tmp_path / "p.s4gpack", embedder)
    assert str(error.value) == f"{toy_source}: block 7 is damaged; copy it anew"
    assert not (tmp_path / "p.s4gpack").exists()


@pytest.mark.slow
def test_another_encoder_on_another_machine_is_refused(
    cluster: Any, tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    recipe = _recipe(toy_source, toy_encoder, open_ground, model_id="ab" * 32)
    with RayEmbedder(recipe, 1) as embedder, pytest.raises(S4GError) as error:
        _build(toy_source, toy_encoder, tmp_path / "p.s4gpack", embedder)
    with closing(load_engine(toy_encoder, threads=1)) as engine:
        own = engine.spec.model_id[:12]
    assert f"is encoder {own} on one machine of the cluster and abababababab" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_survives_the_way_to_an_actor() -> None:
    lattice = Lattice(80.0, 64, 16, -100.5, 90.25, 9, 7)
    wanted = np.random.default_rng(0).random((3, 5)) < 0.5
    task = BlockTask(4, 1, 17, lattice, block_of(lattice, range(2, 5), range(4, 9)), wanted)
    # As a row of numpy scalars, which is what an actor gets.
    row = {
        name: np.asarray([value])[0] if isinstance(value, (int, float)) else value
        for name, value in _row_of(0, task).items()
    }
    found = _task_of(row)
    assert (found.lattice, found.block) == (lattice, task.block)
    assert (found.wanted == wanted).all()


def test_without_ray_the_remedy_is_told(
    monkeypatch: pytest.MonkeyPatch, toy_source: Path, toy_encoder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(S4GError) as error:
        RayEmbedder(_recipe(toy_source, toy_encoder, open_ground), 2)
    assert str(error.value).startswith("Ray is missing (")
    assert str(error.value).endswith("); pip install 's4g[ray]'")
