"""Blocks stay within their budget, and the best k of blocks are the best k of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.errors import S4GError
from s4g.train.relations import Relations
from s4g.train.similarity import TopK, block_shape, edges_of_block, similarity_blocks

Floats = npt.NDArray[np.float32]


def whole(scores: Floats, k: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """Sort whole rows, equal ones by index; -inf is nothing."""
    index = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, index, axis=1)
    index = np.where(np.isneginf(best), -1, index)
    fill = ((0, 0), (0, k - index.shape[1]))
    return (
        np.pad(index, fill, constant_values=-1).astype(np.int32),
        np.pad(best, fill, constant_values=-np.inf),
    )


@given(
    queries=st.integers(1, 5000),
    references=st.integers(1, 5000),
    dim=st.integers(1, 2048),
    spare=st.integers(0, 1 << 27),
)
def test_a_block_and_its_rows_stay_within_the_budget(
    queries: int, references: int, dim: int, spare: int
) -> None:
    budget = 4 * (1 + 2 * dim) + spare
    rows, columns = block_shape(queries, references, dim, budget)
    assert 1 <= rows <= queries
    assert 1 <= columns <= references
    assert 4 * (rows * columns + (rows + columns) * dim) <= budget


def test_few_queries_make_longer_blocks() -> None:
    assert block_shape(16, 100_000, 1024, 96 << 20)[1] > 4 * block_shape(
        100_000, 100_000, 1024, 96 << 20
    )[1]  # fmt: skip


def test_a_budget_for_no_block_is_refused() -> None:
    with pytest.raises(S4GError) as error:
        block_shape(10, 10, 1024, 8000)
    assert str(error.value) == (
        "a memory budget of 8000 bytes holds no block of 1024-dimensional embeddings; "
        "allow at least 8196"
    )


def test_blocks_cover_every_product_once_and_query_major() -> None:
    rng = np.random.default_rng(0)
    queries = rng.integers(-3, 4, (300, 5)).astype(np.float32)
    references = rng.integers(-3, 4, (170, 5)).astype(np.float32)
    seen = np.full((300, 170), np.nan, np.float32)
    order = []
    for rows, columns, block in similarity_blocks(queries, references, budget_bytes=20_000):
        assert np.isnan(seen[rows, columns]).all()
        seen[rows, columns] = block.numpy()
        order.append((rows.start, columns.start))
    np.testing.assert_array_equal(seen, queries @ references.T)
    assert len(order) == 15
    assert order == sorted(order)


def test_memory_mapped_and_half_precision_embeddings_serve(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-3, 4, (20, 4)).astype(np.float16)
    np.save(tmp_path / "references.npy", values)
    mapped = np.load(tmp_path / "references.npy", mmap_mode="r")
    queries = values[:7].astype(np.float32)
    ((_, _, block),) = similarity_blocks(queries, mapped)
    np.testing.assert_array_equal(block.numpy(), queries @ values.astype(np.float32).T)


@pytest.mark.parametrize(("side", "row"), [("query", 3), ("reference", 70)])
def test_an_embedding_that_is_not_finite_is_named(side: str, row: int) -> None:
    queries, references = np.ones((5, 2), np.float32), np.ones((90, 2), np.float32)
    (queries if side == "query" else references)[row, 1] = np.nan
    with pytest.raises(S4GError) as error:
        list(similarity_blocks(queries, references, budget_bytes=9000))
    assert str(error.value) == (
        f"the embedding of {side} {row} is not finite; the encoder diverged, go back to an "
        "earlier checkpoint"
    )


def test_products_are_in_full_precision_whatever_the_process_allows() -> None:
    rng = np.random.default_rng(0)
    queries, references = rng.standard_normal((2, 40, 64)).astype(np.float32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            ((_, _, block),) = similarity_blocks(queries, references)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_allclose(block.numpy(), queries @ references.T, rtol=0, atol=1e-5)


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    k=st.integers(1, 40),
    step=st.integers(1, 300),
    values=st.sampled_from([1, 3, 1000]),
    rising=st.booleans(),
    transposed=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_best_k_do_not_depend_on_blocks_or_order(
    seed: int,
    rows: int,
    columns: int,
    k: int,
    step: int,
    values: int,
    rising: bool,
    transposed: bool,
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-values, values + 1, (rows, columns)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    scores[scores == 0] *= rng.choice([-1, 1], int((scores == 0).sum()))  # both zeros
    if rising:  # every block beats all before it
        scores.sort(axis=1)
    top = TopK(rows, k)
    for start in range(0, columns, step):
        block = torch.from_numpy(np.ascontiguousarray(scores[:, start : start + step]))
        half = rows // 2
        for part in (slice(0, half), slice(half, rows)):
            some = block[part]
            if transposed:
                some = some.T.contiguous()
            top.update(some, part, start, transposed)
    index, best = top.result()
    expected_index, expected_best = whole(scores, k)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_array_equal(best, expected_best)
    assert (index.dtype, best.dtype) == (np.int32, np.float32)


def test_the_relations_of_a_block_are_those_of_its_rows_and_columns() -> None:
    relations = Relations.from_edges([0, 1, 1, 2, 2, 3], [4, 0, 5, 3, 4, 4], 4, [1, 1, 0, 1, 0, 1])
    rows, columns, edges = edges_of_block(relations, slice(1, 3), slice(3, 5))
    np.testing.assert_array_equal(rows, [1, 1])
    np.testing.assert_array_equal(columns, [0, 1])
    np.testing.assert_array_equal(relations.weights[edges], [1, 0])
