"""The objective: one positive, several, graded ones, semi-positives, nested dimensions, shares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from s4g.core.errors import InputError
from s4g.train.loss import LossConfig, SymmetricInfoNCE, Targets, batch_targets
from s4g.train.relations import Relations

PLAIN = LossConfig(label_smoothing=0.0)


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(vectors, dim=1)


def identity(count: int) -> Targets:
    return Targets(torch.eye(count), torch.ones(count, count, dtype=torch.bool))


def test_the_loss_is_symmetric_and_lowest_on_the_diagonal() -> None:
    loss = SymmetricInfoNCE(PLAIN)
    a, b = unit(8, 16, 1), unit(8, 16, 2)
    assert loss(a, b).item() == pytest.approx(loss(b, a).item(), rel=1e-5)
    assert loss(a, a) < loss(a, b) < loss(a, a.roll(1, 0))


def test_the_loss_of_two_pairs_is_what_it_is_by_hand() -> None:
    loss = SymmetricInfoNCE(LossConfig(label_smoothing=0.1, start_temperature=0.5))
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    references = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # Cosines [[1, 0.6], [0, 0.8]], times 2; each row against its softmax, 0.95 and 0.05.
    rows = [(2.0, 1.2), (1.6, 0.0), (2.0, 0.0), (1.6, 1.2)]
    by_hand = 0.0
    for own, other in rows:
        total = math.log(math.exp(own) + math.exp(other))
        by_hand += 0.95 * (total - own) + 0.05 * (total - other)
    assert loss(queries, references).item() == pytest.approx(by_hand / 4, rel=1e-6)


@given(st.integers(2, 9), st.integers(0, 2**31), st.sampled_from([0.0, 0.1, 0.3]))
def test_targets_that_say_row_i_fits_row_i_change_nothing(
    count: int, seed: int, smoothing: float
) -> None:
    loss = SymmetricInfoNCE(LossConfig(label_smoothing=smoothing))
    a, b = unit(count, 8, seed), unit(count, 8, seed + 1)
    assert loss(a, b, identity(count)).item() == pytest.approx(loss(a, b).item(), rel=1e-5)


def test_a_second_view_of_a_place_is_no_negative_but_a_positive() -> None:
    """Pairs 0 and 1 share their reference, as two of a building's 54 drone views do."""
    relations = Relations.from_edges([0, 1, 2], [0, 0, 1], 3)
    targets = batch_targets(relations, np.array([0, 1, 2], np.int32), np.array([0, 0, 1], np.int32))
    assert targets.weights.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert targets.counted.all()
    place, other = unit(2, 16, 3)
    references = torch.stack([place, place, other])
    good = SymmetricInfoNCE(PLAIN)(references, references, targets)
    # Both views on their place: each of the two positives has half of the softmax and wants half.
    logit = float(place @ other) / 0.07
    row = math.log(2 * math.exp(1 / 0.07) + math.exp(logit)) - 1 / 0.07
    last = math.log(math.exp(1 / 0.07) + 2 * math.exp(logit)) - 1 / 0.07
    assert good.item() == pytest.approx((2 * row + last) / 3, rel=1e-5)


def test_a_semi_positive_is_never_a_negative() -> None:
    """Query 0 also overlaps the reference of pair 1: moving that reference changes nothing."""
    relations = Relations.from_edges([0, 0, 1], [0, 1, 1], 2, [1, 0, 1])
    targets = batch_targets(relations, np.array([0, 1], np.int32), np.array([0, 1], np.int32))
    assert targets.counted.tolist() == [[True, False], [True, True]]
    queries = unit(2, 8, 5).requires_grad_()
    references = unit(2, 8, 6).requires_grad_()
    logits = 1 / 0.07 * queries @ references.T
    # Row 0 has one entry left and no loss, as has column 1.
    row = logits[1].logsumexp(0) - logits[1, 1]
    column = logits[:, 0].logsumexp(0) - logits[0, 0]
    loss = SymmetricInfoNCE(PLAIN)(queries, references, targets)
    assert loss.item() == pytest.approx((row + column).item() / 4, rel=1e-5)


def test_a_pair_that_could_not_be_read_takes_no_part() -> None:
    relations = Relations.from_edges([0, 1, 2], [0, 1, 2], 3)
    rows = np.arange(3, dtype=np.int32)
    targets = batch_targets(relations, rows, rows, np.array([True, False, True]))
    queries, references = unit(3, 8, 7), unit(3, 8, 8)
    queries[1] = 0  # black pictures embed anywhere
    queries.requires_grad_()
    loss = SymmetricInfoNCE(LossConfig())
    whole = loss(queries, references, targets)
    kept = loss(queries[[0, 2]], references[[0, 2]])
    assert whole.item() == pytest.approx(kept.item(), rel=1e-5)
    whole.backward()
    assert queries.grad is not None and torch.isfinite(queries.grad).all()
    assert queries.grad[1].abs().max() == 0


def test_a_batch_of_which_nothing_could_be_read_has_no_loss_and_no_gradient() -> None:
    relations = Relations.from_edges([0, 1], [0, 1], 2)
    rows = np.arange(2, dtype=np.int32)
    targets = batch_targets(relations, rows, rows, np.zeros(2, bool))
    queries = unit(2, 8, 1).requires_grad_()
    loss = SymmetricInfoNCE(LossConfig())(queries, unit(2, 8, 2), targets)
    loss.backward()
    assert loss.item() == 0
    assert queries.grad is not None and queries.grad.abs().max() == 0


def test_the_overlap_of_a_pair_sets_its_smoothing() -> None:
    """Game4Loc: 1 - 1 / (1 + exp(-k w)), k = 5; half an overlap is smoothed by 0.0759."""
    queries, references = unit(2, 8, 9), unit(2, 8, 10)
    graded = Targets(torch.diag(torch.tensor([0.5, 0.5])), torch.ones(2, 2, dtype=torch.bool))
    weighted = SymmetricInfoNCE(LossConfig(overlap_sharpness=5.0))(queries, references, graded)
    smoothed = SymmetricInfoNCE(LossConfig(label_smoothing=0.07585818))(queries, references)
    assert weighted.item() == pytest.approx(smoothed.item(), rel=1e-5)


def test_two_overlaps_share_a_row_by_their_size() -> None:
    weights = torch.tensor([[0.6, 0.3], [0.0, 1.0]])
    targets = Targets(weights, torch.ones(2, 2, dtype=torch.bool))
    queries, references = unit(2, 8, 11), unit(2, 8, 12)
    shares = (1 / 0.07 * queries @ references.T).log_softmax(dim=1)
    back = (1 / 0.07 * references @ queries.T).log_softmax(dim=1)
    rows = -(2 * shares[0, 0] + shares[0, 1]) / 3 - shares[1, 1]
    columns = -back[0, 0] - (0.3 * back[1, 0] + back[1, 1]) / 1.3
    loss = SymmetricInfoNCE(PLAIN)(queries, references, targets)
    assert loss.item() == pytest.approx((rows + columns).item() / 4, rel=1e-5)


def test_nested_dimensions_average_the_loss_over_prefixes() -> None:
    queries, references = unit(6, 16, 13), unit(6, 16, 14)
    nested = SymmetricInfoNCE(LossConfig(nested_dims=(4, 8)))(queries, references)
    plain = SymmetricInfoNCE(LossConfig())
    parts = [
        plain(*(nn.functional.normalize(v[:, :dim], dim=1) for v in (queries, references)))
        for dim in (4, 8, 16)
    ]
    assert nested.item() == pytest.approx(sum(p.item() for p in parts) / 3, rel=1e-5)


@given(st.integers(0, 2**31), st.booleans())
def test_the_mean_over_shares_of_the_rows_is_the_loss_of_the_whole(
    seed: int, with_targets: bool
) -> None:
    loss = SymmetricInfoNCE(LossConfig(nested_dims=(4,)))
    queries, references = unit(6, 8, seed), unit(6, 8, seed + 1)
    targets = None
    if with_targets:
        relations = Relations.from_edges([0, 1, 2, 3, 4, 5, 3], [0, 1, 2, 3, 4, 5, 0], 6)
        rows = np.arange(6, dtype=np.int32)
        valid = np.random.default_rng(seed).random(6) > 0.3
        targets = batch_targets(relations, rows, rows, valid)
    whole = loss(queries, references, targets)
    shares = [loss(queries, references, targets, slice(i, i + 2)) for i in (0, 2, 4)]
    assert whole.item() == pytest.approx(sum(s.item() for s in shares) / 3, rel=1e-4, abs=1e-6)


def test_the_scale_is_bounded_unless_the_recipe_says_otherwise() -> None:
    for bound, scale in ((100.0, 100.0), (0.0, math.exp(6))):
        loss = SymmetricInfoNCE(LossConfig(max_scale=bound))
        loss.log_scale.data.fill_(6.0)
        assert loss.scale.item() == pytest.approx(scale)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LossConfig(label_smoothing=1.0), "label_smoothing = 1.0 must lie in [0, 1)"),
        (LossConfig(start_temperature=0.0), "start_temperature = 0.0 must be above 0"),
        (
            LossConfig(nested_dims=(64, 512)),
            "nested_dims holds 512; give lengths from 1 to embedding_dim, which is 256",
        ),
    ],
)
def test_values_out_of_range_are_refused(config: LossConfig, message: str) -> None:
    with pytest.raises(InputError) as error:
        config.check("recipe x, [loss]", 256)
    assert str(error.value) == f"recipe x, [loss]: {message}"
