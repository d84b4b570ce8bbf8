"""Two processes with half a batch each are one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s4g.core.errors import InputError
from s4g.train.distributed import World, join_world

PROGRAM = """
import sys
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from s4g.train.distributed import average, gather, join_world
from s4g.train.gradcache import TwoViews, backward
from s4g.train.loss import LossConfig, SymmetricInfoNCE, batch_targets
from s4g.train.model import Encoder, ModelConfig
from s4g.train.relations import Relations

folder, chunk = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
with join_world(torch.device("cpu")) as world:
    torch.manual_seed(world.rank)  # the first process's weights must win
    encoder = Encoder(ModelConfig("test_convnext", 32, 0, head="pool"))
    views = TwoViews(encoder)
    if world.size > 1:
        views = nn.parallel.DistributedDataParallel(views)
    loss = SymmetricInfoNCE(LossConfig(nested_dims=(8,)))
    generator = torch.Generator().manual_seed(5)
    queries, references = torch.randn(2, 8, 3, 32, 32, generator=generator)
    rows = np.arange(8, dtype=np.int32)
    # Pair 1 also overlaps the reference of pair 6, of another process; pair 2 could not be read.
    relations = Relations.from_edges([*rows, 1], [*rows, 6], 8, [1] * 8 + [0])
    targets = batch_targets(relations, rows, rows, rows != 2)
    share = world.share(8)
    value = backward(
        views, queries[share], references[share],
        lambda q, r: loss(gather(q, world), gather(r, world), targets, share), chunk,
    )
    average(value, world)
    average(loss.log_scale.grad, world)
    found = {n: p.grad for n, p in encoder.named_parameters()}
    found |= {"scale": loss.log_scale.grad, "loss": value}
    save_file({n: g.contiguous() for n, g in found.items()}, f"{folder}/{world.rank}.safetensors")
"""


def gradients(folder: Path, processes: int, chunk: int) -> list[dict[str, torch.Tensor]]:
    """Run the program in `processes` processes; return the gradients each of them ends with."""
    folder.mkdir()
    program = folder / "program.py"
    program.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    launcher += ["--standalone", "--local-addr", "127.0.0.1"]  # a free port, on loopback
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("WORLD_SIZE", None)
    done = subprocess.run(
        [sys.executable, *launcher, str(program), str(folder), str(chunk)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [load_file(folder / f"{rank}.safetensors") for rank in range(processes)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return gradients(tmp_path_factory.mktemp("alone") / "run", 1, 0)[0]


@pytest.mark.parametrize("chunk", [0, 3])
def test_two_processes_find_the_loss_and_gradients_of_one(
    tmp_path: Path, alone: dict[str, torch.Tensor], chunk: int
) -> None:
    """With the whole share of the batch at once, and with gradient caching."""
    both = gradients(tmp_path / "run", 2, chunk)
    for name, expected in alone.items():
        for found in both:
            assert torch.allclose(found[name], expected, rtol=1e-5, atol=1e-5), name


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    with pytest.raises(InputError) as error:
        World(0, 3).share(128)
    assert str(error.value) == (
        "batch_pairs = 128 cannot be shared by 3 processes; use a multiple of 3"
    )


def test_the_shares_of_a_batch_follow_each_other() -> None:
    assert [World(rank, 4).share(8) for rank in range(4)] == [
        slice(0, 2),
        slice(2, 4),
        slice(4, 6),
        slice(6, 8),
    ]


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world(torch.device("cpu")) as world:
        assert world == World(0, 1)
        assert world.is_first
