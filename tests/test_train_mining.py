"""Mined negatives are exactly the hardest, in both directions, and never a related place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.errors import S4GError
from s4g.train.mining import mine
from s4g.train.relations import Relations

Floats = npt.NDArray[np.float32]


def hardest(scores: Floats, k: int) -> npt.NDArray[np.int32]:
    """Sort whole rows, equal ones by index; -inf is nothing."""
    out = np.full((len(scores), k), -1, np.int32)
    for row, values in enumerate(scores):
        order = [i for i in np.argsort(-values, kind="stable") if values[i] > -np.inf][:k]
        out[row, : len(order)] = order
    return out


def related_scores(queries: Floats, references: Floats, exclude: Relations) -> Floats:
    scores: Floats = queries @ references.T
    scores[exclude.rows, exclude.references] = -np.inf
    return scores


# Whole numbers: their products are exact in any order, and ties abound.
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 40),
    references=st.integers(1, 40),
    edges=st.integers(0, 80),
    k=st.integers(1, 50),
    budget=st.integers(500, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_both_directions_are_those_of_the_whole_matrix(
    seed: int, queries: int, references: int, edges: int, k: int, budget: int
) -> None:
    rng = np.random.default_rng(seed)
    left = rng.integers(-2, 3, (queries, 6)).astype(np.float32)
    right = rng.integers(-2, 3, (references, 6)).astype(np.float32)
    exclude = Relations.from_edges(
        rng.integers(0, queries, edges),
        rng.integers(0, references, edges),
        queries,
        rng.integers(0, 2, edges),
    )
    mined = mine(left, right, k, exclude, budget_bytes=budget)
    scores = related_scores(left, right, exclude)
    np.testing.assert_array_equal(mined.references, hardest(scores, k))
    np.testing.assert_array_equal(mined.queries, hardest(scores.T, k))
    listed = mined.references >= 0
    found = np.take_along_axis(scores, np.maximum(mined.references, 0), axis=1)
    np.testing.assert_array_equal(mined.reference_scores, np.where(listed, found, -np.inf))


def test_scores_of_real_embeddings_are_those_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.standard_normal((2, 500, 32)).astype(np.float32)
    exclude = Relations.from_edges(np.arange(500), np.arange(500), 500)
    mined = mine(left, right, 20, exclude, budget_bytes=100_000)
    scores = related_scores(left, right, exclude)
    assert mined.query_scores is not None
    np.testing.assert_allclose(
        mined.reference_scores, -np.sort(-scores, axis=1)[:, :20], rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(
        mined.query_scores, -np.sort(-scores.T, axis=1)[:, :20], rtol=0, atol=1e-4
    )


def test_neither_positives_nor_semi_positives_are_mined() -> None:
    same = np.ones((1, 2), np.float32)
    exclude = Relations.from_edges([0, 0], [0, 2], 1, [1, 0])
    mined = mine(same, np.repeat(same, 4, axis=0), 4, exclude)
    np.testing.assert_array_equal(mined.references, [[1, 3, -1, -1]])
    assert mined.queries is not None
    np.testing.assert_array_equal(mined.queries[:, 0], [-1, 0, -1, 0])


def test_item_0_is_mined_like_any_other() -> None:
    left = np.eye(3, dtype=np.float32)
    right = np.array([[0.5, 0.9, 0.8], [0, 1, 0], [0, 0, 1]], np.float32)
    mined = mine(left, right, 1, Relations.from_edges([0, 1, 2], [0, 1, 2], 3))
    np.testing.assert_array_equal(mined.references[1:], [[0], [0]])


def test_recall_counts_the_best_positive_against_what_is_unrelated() -> None:
    queries = np.eye(4, dtype=np.float32)
    references = np.array(
        [
            [0.5, 0.0, 0.9, 0.2],  # positive of 0
            [0.9, 0.7, 0.0, 0.2],  # semi-positive of 0, positive of 1
            [0.3, 0.1, 0.1, 0.2],  # second positive of 0, positive of 2
            [0.4, 0.6, 0.0, 0.2],
        ],
        np.float32,
    )
    exclude = Relations.from_edges([0, 0, 0, 1, 2], [0, 1, 2, 1, 2], 4, [1, 0, 1, 1, 1])
    mined = mine(queries, references, 2, exclude)
    # 0: 0.5 > 0.4. 1: 0.7 > 0.6. 2: 0.1 < 0.9. 3 has no positive and is not asked.
    assert mined.recall_at_1 == pytest.approx(2 / 3)


def test_an_encoder_that_says_the_same_to_all_recalls_nothing() -> None:
    same = np.ones((9, 3), np.float32)
    mined = mine(same, same, 2, Relations.from_edges(np.arange(9), np.arange(9), 9))
    assert mined.recall_at_1 == 0.0


def test_recall_without_positives_is_unknown() -> None:
    same = np.ones((2, 3), np.float32)
    assert np.isnan(mine(same, same, 1, Relations.from_edges([0], [1], 2, 0.0)).recall_at_1)


def test_one_direction_alone_gives_no_lists_of_references() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 30, 4)).astype(np.float32)
    exclude = Relations.from_edges(np.arange(30), np.arange(30), 30)
    one = mine(left, right, 5, exclude, directions="queries")
    both = mine(left, right, 5, exclude)
    assert one.queries is None and one.query_scores is None
    np.testing.assert_array_equal(one.references, both.references)
    assert one.recall_at_1 == both.recall_at_1


def test_memory_mapped_embeddings_are_mined_without_a_copy_of_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-3, 4, (2, 50, 4)).astype(np.float32)
    np.save(tmp_path / "both.npy", values)
    mapped = np.load(tmp_path / "both.npy", mmap_mode="r")
    exclude = Relations.from_edges(np.arange(50), np.arange(50), 50)
    mined = mine(mapped[0], mapped[1], 7, exclude, budget_bytes=3000)
    np.testing.assert_array_equal(
        mined.references, mine(values[0], values[1], 7, exclude).references
    )


def test_an_encoder_that_diverged_is_not_mined_with() -> None:
    values = np.ones((3, 2), np.float32)
    values[2, 0] = np.inf
    with pytest.raises(S4GError, match="^the embedding of query 2 is not finite"):
        mine(values, np.ones((3, 2), np.float32), 1, Relations.from_edges([], [], 3))
