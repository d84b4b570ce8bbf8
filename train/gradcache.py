"""Forward and backward of one batch, at once or in chunks with the same gradients.

Gradient caching (Gao et al., RepL4NLP 2021): embed all chunks without keeping activations, take
the loss of the whole batch and its gradient at the embeddings, then embed each chunk again and
pass that gradient through it. Memory is that of one chunk, gradients are those of the whole batch
wherever an embedding does not depend on its neighbours in the batch: batch norm in training mode
does, layer norm does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# Embeddings of this process's queries and references to a scalar loss.
LossOfEmbeddings = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class TwoViews(nn.Module):
    """Embed queries and references in one call, so that one process group sees one forward."""

    def __init__(self, encoder: nn.Module) -> None:
        """Wrap the shared encoder."""
        super().__init__()
        self.encoder = encoder

    def forward(
        self, queries: torch.Tensor, references: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed (B, 3, h, w) and (B, 3, H, W); views of one size go through together."""
        if queries.shape == references.shape:
            both: torch.Tensor = self.encoder(torch.cat([queries, references]))
            first, second = both.chunk(2)
            return first, second
        return self.encoder(queries), self.encoder(references)


def backward(
    views: nn.Module,
    queries: torch.Tensor,
    references: torch.Tensor,
    loss_of: LossOfEmbeddings,
    chunk_pairs: int = 0,
    autocast: Callable[[], torch.autocast] | None = None,
    scale_loss: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
) -> torch.Tensor:
    """Add the gradients of a batch's loss to the parameters.

    Args:
        views: `TwoViews`, or `DistributedDataParallel` around it.
        queries: (B, 3, h, w) float32, normalised, of this process.
        references: (B, 3, H, W) float32.
        loss_of: the loss of (B, D) and (B, D); may gather from other processes.
        chunk_pairs: pairs embedded at a time; 0: the whole batch at once.
        autocast: makes the context of mixed precision for the encoder; None: float32.
        scale_loss: as `GradScaler.scale`.

    Returns:
        The loss, detached, not scaled.
    """
    mixed = autocast or nullcontext
    if not 0 < chunk_pairs < len(queries):
        with mixed():
            embeddings = views(queries, references)
        loss = loss_of(*embeddings)
        scale_loss(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    parts = [slice(i, i + chunk_pairs) for i in range(0, len(queries), chunk_pairs)]
    states, cached = [], []
    module = views.module if isinstance(views, DistributedDataParallel) else views
    with torch.no_grad(), _norms_not_counting(module):
        for part in parts:
            states.append(_random_state(queries.device))
            with mixed():
                cached.append(module(queries[part], references[part]))
    first, second = (torch.cat(list(side)).requires_grad_() for side in zip(*cached, strict=True))
    loss = loss_of(first, second)
    scale_loss(loss).backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None and second.grad is not None
    for index, part in enumerate(parts):
        wait = isinstance(views, DistributedDataParallel) and index < len(parts) - 1
        with views.no_sync() if wait else nullcontext():  # type: ignore[operator]
            with _random_state_of(states[index], queries.device), mixed():
                ours, theirs = views(queries[part], references[part])
            surrogate = (ours * first.grad[part]).sum() + (theirs * second.grad[part]).sum()
            surrogate.backward()
    return loss.detach()


_RandomState = tuple[torch.Tensor, torch.Tensor | None]


def _random_state(device: torch.device) -> _RandomState:
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_gpu


@contextmanager
def _random_state_of(state: _RandomState, device: torch.device) -> Iterator[None]:
    """Draw the same dropout as when the chunk was embedded first; go on as if never drawn twice."""
    now = _random_state(device)
    _set_random_state(state, device)
    try:
        yield
    finally:
        _set_random_state(now, device)


def _set_random_state(state: _RandomState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


@contextmanager
def _norms_not_counting(module: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting a chunk twice in their running statistics."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
