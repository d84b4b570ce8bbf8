"""Lists belong to pairs: both directions alternate, and nothing related is in them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.train.candidates import lists_from_references, merge_lists, thin_lists
from s4g.train.mining import Mined
from s4g.train.relations import Relations
from s4g.train.units import PairArrays


def pair_set(
    query: npt.ArrayLike,
    reference: npt.ArrayLike,
    semi_positives: list[tuple[int, int]] | None = None,
    weight: npt.ArrayLike | None = None,
) -> PairArrays:
    queries, references = np.asarray(query, np.int32), np.asarray(reference, np.int32)
    semi = np.asarray(semi_positives or [], np.int32).reshape(-1, 2)
    relations = Relations.from_edges(
        np.concatenate([queries, semi[:, 0]]),
        np.concatenate([references, semi[:, 1]]),
        int(queries.max()) + 1,
        np.concatenate([np.ones(len(queries)), np.zeros(len(semi))]),
    )
    return SimpleNamespace(
        pair_query=queries,
        pair_reference=references,
        pair_weight=np.asarray(np.ones(len(queries)) if weight is None else weight, np.float32),
        relations=relations,
    )


def mined(references: npt.ArrayLike, queries: npt.ArrayLike | None) -> Mined:
    first = np.asarray(references, np.int32)
    if queries is None:
        return Mined(first, np.zeros(first.shape, np.float32), None, None, 0.0)
    second = np.asarray(queries, np.int32)
    return Mined(
        first,
        np.zeros(first.shape, np.float32),
        second,
        np.zeros(second.shape, np.float32),
        0.0,
    )


def test_two_panoramas_of_one_satellite_keep_lists_of_their_own() -> None:
    pairs = pair_set([0, 1, 2, 3], [0, 0, 1, 2])
    lists = merge_lists(mined([[1, 2], [2, 1], [0, 2], [1, 0]], None), pairs)
    np.testing.assert_array_equal(lists[:2], [[1, 2], [2, 1]])


def test_both_directions_alternate_and_queries_stand_for_their_references() -> None:
    pairs = pair_set([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])
    forth = [[3, 2, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    back = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [4, 3, 1]]  # reference 4 is query 0's
    lists = merge_lists(mined(forth, back), pairs)
    np.testing.assert_array_equal(lists[0], [3, 0, 2])  # 3; query 4: 0; 2; query 3: 1; cut


def test_a_query_of_several_pairs_stands_for_the_reference_of_the_heaviest() -> None:
    pairs = pair_set([0, 1, 1, 1], [0, 1, 2, 3], weight=[1, 0.4, 0.9, 0.9])
    lists = merge_lists(mined([[-1], [-1]], [[1], [-1], [-1], [-1]]), pairs)
    np.testing.assert_array_equal(lists[0], [2])


def test_what_is_related_to_the_pairs_query_is_left_out() -> None:
    pairs = pair_set([0, 1, 2], [0, 1, 2], semi_positives=[(0, 2)])
    lists = merge_lists(mined([[1, 0], [0, 2], [0, 1]], [[2, 1], [0, 2], [0, 1]]), pairs)
    np.testing.assert_array_equal(lists[0], [1, -1])  # query 2 stands for reference 2


def test_a_map_gives_every_pair_of_a_reference_its_list() -> None:
    pairs = pair_set([0, 1, 2], [1, 1, 0], semi_positives=[(1, 2)])
    lists = lists_from_references(np.array([[1, 2], [2, 0], [0, 1]], np.int32), pairs)
    np.testing.assert_array_equal(lists, [[2, 0], [0, -1], [1, 2]])


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30), k=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_a_list_names_each_once_hardest_first(seed: int, count: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = pair_set(
        np.arange(count),
        rng.integers(0, count, count),
        [(int(a), int(b)) for a, b in rng.integers(0, count, (count, 2))],
    )
    forth = rng.integers(-1, count, (count, k))
    back = rng.integers(-1, count, (count, k))
    lists = merge_lists(mined(forth, back), pairs)
    for pair in range(count):
        query, reference = pair, int(pairs.pair_reference[pair])
        expected: list[int] = []
        for rank in range(k):
            asked = int(back[reference, rank])
            other = int(pairs.pair_reference[asked]) if asked >= 0 else -1
            for wanted in (int(forth[query, rank]), other):
                if wanted >= 0 and wanted not in expected:
                    expected.append(wanted)
        related = pairs.relations.of(query)[0]
        expected = [r for r in expected if r not in related][:k]
        assert lists[pair].tolist() == expected + [-1] * (k - len(expected))


def test_the_nearest_half_always_serves_and_the_rest_is_drawn() -> None:
    lists = np.tile(np.arange(100, dtype=np.int32), (500, 1))
    thin = thin_lists(lists, 20, np.random.default_rng(0))
    np.testing.assert_array_equal(thin[:, :10], lists[:, :10])
    rest = thin[:, 10:]
    assert all(len(set(row)) == 10 for row in rest.tolist())
    assert set(rest.ravel().tolist()) == set(range(10, 100))
    again = thin_lists(lists, 20, np.random.default_rng(0))
    np.testing.assert_array_equal(thin, again)


def test_a_short_list_serves_whole() -> None:
    lists = np.array([[3, 1]], np.int32)
    np.testing.assert_array_equal(thin_lists(lists, 2, np.random.default_rng(0)), lists)
