"""Several processes, one batch: start-up by torchrun, embeddings gathered with their gradient."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

from ..core.errors import InputError

# A rank that mines or validates leaves the others waiting; NCCL's ten minutes are too short.
_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's part of a batch of `count` pairs.

        Raises:
            InputError: the batch cannot be shared out equally.
        """
        if count % self.size:
            raise InputError(
                f"batch_pairs = {count} cannot be shared by {self.size} processes; "
                f"use a multiple of {self.size}"
            )
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the processes that `torchrun` started; alone where it did not.

    Raises:
        InputError: torchrun started more processes than there are GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= (gpus := torch.cuda.device_count()):
            raise InputError(
                f"torchrun started process {local + 1} on a machine with {gpus} GPUs; "
                f"use --nproc-per-node {gpus}"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All-gather whose backward adds up what every process found for this one's part.

    torch's own gather cuts the gradient; without it each process would learn from its own
    embeddings alone and the other processes' would be constants.
    """

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, world: World) -> torch.Tensor:
        ctx.world, ctx.rows = world, len(part)
        parts = [torch.empty_like(part) for _ in range(world.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        whole = gradients[0].contiguous()
        dist.all_reduce(whole)
        start = ctx.world.rank * ctx.rows
        return whole[start : start + ctx.rows], None


def gather(part: torch.Tensor, world: World) -> torch.Tensor:
    """Return the rows of all processes, in order of rank: (b, …) to (b * size, …).

    The gradient flows back to the process that a row came from, summed over all processes.
    """
    if world.size == 1:
        return part
    return cast(torch.Tensor, _Gather.apply(part, world))  # type: ignore[no-untyped-call]


def share_from_first(tensor: torch.Tensor, world: World) -> None:
    """Overwrite a tensor with what the first process holds."""
    if world.size > 1:
        dist.broadcast(tensor, 0)


def average(tensor: torch.Tensor, world: World) -> None:
    """Replace a tensor by its mean over all processes."""
    if world.size > 1:
        dist.all_reduce(tensor)
        tensor /= world.size


def any_process(flag: bool, world: World, device: torch.device) -> bool:
    """Return whether any process raised the flag; all learn it at the same step."""
    if world.size == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())
