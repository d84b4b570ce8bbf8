"""A plan repeats nothing, puts no place against itself, wastes nothing, and is hard throughout."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.train.batches import BatchPlan, SamplingConfig, batch_hardness, plan_batches
from s4g.train.relations import Indices, Relations
from s4g.train.units import PairArrays


def pair_set(
    query: npt.ArrayLike, reference: npt.ArrayLike, semi: npt.ArrayLike | None = None
) -> PairArrays:
    """Return pairs; `semi` is (E, 2) semi-positive queries and references."""
    queries, references = np.asarray(query, np.int32), np.asarray(reference, np.int32)
    extra = np.zeros((0, 2), np.int32) if semi is None else np.asarray(semi, np.int32)
    relations = Relations.from_edges(
        np.concatenate([queries, extra[:, 0]]),
        np.concatenate([references, extra[:, 1]]),
        int(queries.max()) + 1,
        np.concatenate([np.ones(len(queries)), np.zeros(len(extra))]),
    )
    return SimpleNamespace(
        pair_query=queries,
        pair_reference=references,
        pair_weight=np.ones(len(queries), np.float32),
        relations=relations,
    )


def one_to_one(count: int) -> PairArrays:
    return pair_set(np.arange(count), np.arange(count))


def views_of_places(places: int, views: int) -> PairArrays:
    return pair_set(np.arange(places * views), np.repeat(np.arange(places), views))


def street(count: int, near: int) -> Indices:
    """Return lists of places along a ring road: the `near` nearest of each."""
    step = 1 + np.arange(near) // 2
    step[1::2] *= -1
    return ((np.arange(count)[:, None] + step) % count).astype(np.int32)


def related(pairs: PairArrays) -> npt.NDArray[np.bool_]:
    """Return which pairs may not meet: (P, P), worked out one by one."""
    count = len(pairs.pair_query)
    apart = np.zeros((count, count), bool)
    for first in range(count):
        own = set(pairs.relations.of(int(pairs.pair_query[first]))[0].tolist())
        apart[first] = [int(reference) in own for reference in pairs.pair_reference]
    apart |= apart.T
    np.fill_diagonal(apart, False)
    return apart


def check(plan: BatchPlan, pairs: PairArrays, batch: int, views: int = 1) -> None:
    """Hold a plan to its promises."""
    assert plan.batches.dtype == np.int32
    assert plan.batches.shape == (len(plan.hardness), batch)
    assert len(np.unique(plan.batches)) == plan.batches.size
    assert plan.dropped == len(pairs.pair_query) - plan.batches.size
    assert plan.unavoidable == len(pairs.pair_query) % batch
    apart = related(pairs)
    if views > 1:
        reference = pairs.pair_reference[plan.batches].reshape(len(plan.batches), -1, views)
        assert (reference == reference[:, :, :1]).all()
        assert all(len(np.unique(row[:, 0])) == len(row) for row in reference)
        apart &= pairs.pair_reference[:, None] != pairs.pair_reference
    for row in plan.batches:
        assert not apart[np.ix_(row, row)].any()


@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(2, 40),
    references=st.integers(2, 20),
    several=st.integers(0, 12),
    semi=st.integers(0, 20),
    batch=st.integers(2, 6),
    listed=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_plan_keeps_related_pairs_apart_and_wastes_nothing(
    seed: int,
    queries: int,
    references: int,
    several: int,
    semi: int,
    batch: int,
    listed: bool,
) -> None:
    rng = np.random.default_rng(seed)
    query = np.concatenate([np.arange(queries), rng.integers(0, queries, several)])
    drawn = np.stack([query, rng.integers(0, references, len(query))], axis=1)
    drawn = np.unique(drawn, axis=0)
    extra = np.stack([rng.integers(0, queries, semi), rng.integers(0, references, semi)], axis=1)
    pairs = pair_set(drawn[:, 0], drawn[:, 1], extra)
    lists = rng.integers(-1, references, (len(drawn), 5)).astype(np.int32) if listed else None
    if lists is not None:
        lists = np.stack([np.pad(u := np.unique(row), (5 - len(u), 0), constant_values=-1)
                          for row in lists])  # fmt: skip
    whole = len(drawn) // batch
    # Then a division into batches exists (Hajnal and Szemeredi, 1970).
    sure = whole > int(related(pairs).sum(axis=1).max())
    try:
        plan = plan_batches(pairs, lists, SamplingConfig(), batch, seed, 0)
    except InputError:
        assert not sure
        return
    check(plan, pairs, batch)
    if sure:
        assert plan.dropped == plan.unavoidable


@given(
    seed=st.integers(0, 2**32 - 1),
    views=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    batch=st.integers(1, 8),
)
@settings(max_examples=80, deadline=None)
def test_places_of_many_views_drop_the_fewest_that_can_be(
    seed: int, views: list[int], batch: int
) -> None:
    pairs = pair_set(np.arange(sum(views)), np.repeat(np.arange(len(views)), views))
    most = max(
        n for n in range(sum(views) // batch + 1) if sum(min(v, n) for v in views) >= n * batch
    )
    if not most:
        with pytest.raises(InputError):
            plan_batches(pairs, None, SamplingConfig(), batch, seed, 0)
        return
    plan = plan_batches(pairs, None, SamplingConfig(), batch, seed, 0)
    check(plan, pairs, batch)
    assert len(plan.batches) == most


def test_too_few_places_for_a_batch_are_an_error() -> None:
    with pytest.raises(InputError) as error:
        plan_batches(views_of_places(3, 100), None, SamplingConfig(), 4, 0, 0)
    assert str(error.value) == (
        "a batch of 4 pairs: the training set has 300 pairs of 3 references, too few that show "
        "different places; lower the batch"
    )


def test_queries_of_several_references_are_kept_apart_too() -> None:
    # Every query shows two neighbouring tiles of a ring: only every third pair may meet.
    query = np.repeat(np.arange(30), 2)
    pairs = pair_set(query, (query + np.tile([0, 1], 30)) % 30)
    plan = plan_batches(pairs, None, SamplingConfig(), 10, 0, 0)
    check(plan, pairs, 10)
    assert len(plan.batches) == 6


def test_a_set_of_the_shape_of_university_1652_loses_94_pairs() -> None:
    rng = np.random.default_rng(0)
    pairs = views_of_places(701, 54)
    place = street(701, 8)[pairs.pair_reference]
    plan = plan_batches(pairs, place, SamplingConfig(), 128, 1, 0)
    assert plan.batches.shape == (295, 128)
    assert (plan.dropped, plan.unavoidable) == (94, 94)
    reference = np.sort(pairs.pair_reference[plan.batches], axis=1)
    assert (reference[:, 1:] > reference[:, :-1]).all()
    drawn = rng.permuted(np.tile(np.arange(701), (295, 1)), axis=1)[:, :128]
    by_chance = np.mean([np.isin(street(701, 8)[row], row).sum() / 128 for row in drawn])
    assert plan.hardness.min() > 3 * by_chance


def test_semi_positives_of_neighbouring_tiles_never_meet_in_hard_batches() -> None:
    # As VIGOR: three neighbours of each tile overlap, and lists lead straight to them.
    count = 240
    tile = np.arange(count)
    semi = np.concatenate([np.stack([tile, (tile + s) % count], axis=1) for s in (-1, 1, 2)])
    pairs = pair_set(tile, tile, semi)
    plan = plan_batches(pairs, street(count, 24), SamplingConfig(), 12, 0, 0)
    check(plan, pairs, 12)
    assert plan.dropped == 0
    assert plan.hardness.mean() > 4  # 1.2 by chance


def test_batches_are_the_places_that_look_alike() -> None:
    # 16 kinds of 16 places, each alike all of its kind.
    kind = np.random.default_rng(0).permutation(256).reshape(16, 16)
    lists = np.empty((256, 15), np.int32)
    for members in kind:
        for member in members:
            lists[member] = members[members != member]
    plan = plan_batches(one_to_one(256), lists, SamplingConfig(), 16, 0, 0)
    np.testing.assert_array_equal(plan.hardness, 15)


def test_no_batch_is_made_of_scattered_rests() -> None:
    # Places on a plane, listed by distance; growing batch by batch ends in such rests.
    rng = np.random.default_rng(0)
    place = rng.random((2048, 2))
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    lists = np.argsort(distance, axis=1)[:, :32].astype(np.int32)
    plan = plan_batches(one_to_one(2048), lists, SamplingConfig(pool=32, select=32), 32, 0, 0)
    assert plan.hardness.mean() > 16
    assert plan.hardness.min() > 0.5 * plan.hardness.mean()


def test_the_order_of_batches_does_not_follow_their_hardness() -> None:
    # The second half of the places has no lists at all.
    lists = street(1024, 16)
    lists[512:] = -1
    plan = plan_batches(one_to_one(1024), lists, SamplingConfig(), 16, 3, 0)
    first, last = plan.hardness[:32].mean(), plan.hardness[32:].mean()
    assert plan.hardness.max() > 8
    assert abs(first - last) < 3


def test_item_0_meets_its_neighbours_like_any_other() -> None:
    plan = plan_batches(one_to_one(256), street(256, 8), SamplingConfig(), 16, 0, 0)
    ((row, _),) = np.argwhere(plan.batches == 0)
    assert len(set(plan.batches[row].tolist()) & {1, 2, 3, 4, 252, 253, 254, 255}) >= 4


def test_a_plan_is_the_same_under_the_same_seed_and_epoch_only() -> None:
    pairs, lists = one_to_one(300), street(300, 16)
    config = SamplingConfig(pool=16, select=8)
    plans = [
        plan_batches(pairs, lists, config, 16, seed, epoch).batches
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    ]
    np.testing.assert_array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])
    assert not np.array_equal(plans[0], plans[3])


def test_a_plan_is_the_same_on_every_machine() -> None:
    semi = np.stack([np.arange(512), (np.arange(512) + 1) % 512], axis=1)
    pairs = pair_set(np.arange(512), np.arange(512), semi)
    plan = plan_batches(pairs, street(512, 16), SamplingConfig(select=8, group=8), 16, 1, 2)
    digest = hashlib.sha256(plan.batches.astype("<i4").tobytes()).hexdigest()
    assert digest[:16] == "4415db9b05154880"


def test_other_pairs_are_left_over_in_each_epoch() -> None:
    pairs = one_to_one(100)
    left = [
        set(range(100)) - set(plan_batches(pairs, None, SamplingConfig(), 16, 0, e).batches.flat)
        for e in range(8)
    ]
    assert all(len(missing) == 4 for missing in left)
    assert len(set.union(*left)) > 16


def test_a_batch_may_be_made_of_several_groups() -> None:
    pairs, lists = one_to_one(1024), street(1024, 14)
    whole = plan_batches(pairs, lists, SamplingConfig(), 32, 0, 0)
    groups = plan_batches(pairs, lists, SamplingConfig(group=8), 32, 0, 0)
    check(groups, pairs, 32)
    # A unit's whole group of 8 lies within 7 places of it, half of a list of 14.
    assert 4 < groups.hardness.mean() < 8 < whole.hardness.mean()


def test_several_views_of_a_place_stay_together_where_asked_for() -> None:
    pairs = views_of_places(30, 9)
    config = SamplingConfig(views_per_reference=4)
    plan = plan_batches(pairs, street(30, 6)[pairs.pair_reference], config, 16, 0, 0)
    check(plan, pairs, 16, views=4)
    assert len(plan.batches) == 15  # one view of each of the 30 places is left over
    assert (plan.dropped, plan.unavoidable) == (30, 14)


def test_the_views_that_stay_together_change_with_the_epoch() -> None:
    pairs = views_of_places(8, 10)
    config = SamplingConfig(views_per_reference=2)
    seen = {
        tuple(sorted(couple))
        for epoch in range(4)
        for couple in plan_batches(pairs, None, config, 8, 0, epoch).batches.reshape(-1, 2).tolist()
    }
    assert len(seen) > 80


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            SamplingConfig(views_per_reference=3),
            "[sampling] views_per_reference = 3: a batch of 16 pairs is no multiple of it; "
            "change one of them",
        ),
        (
            SamplingConfig(group=5),
            "[sampling] group = 5: must divide the batch of 16 pairs and be a multiple of "
            "views_per_reference = 1",
        ),
        (
            SamplingConfig(group=2, views_per_reference=4),
            "[sampling] group = 2: must divide the batch of 16 pairs and be a multiple of "
            "views_per_reference = 4",
        ),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(config: SamplingConfig, message: str) -> None:
    with pytest.raises(InputError) as error:
        plan_batches(views_of_places(30, 9), None, config, 16, 0, 0)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pool": 0}, "[sampling] pool = 0: must be 1 or more"),
        ({"mined_every": -1}, "[sampling] mined_every = -1: must be 0 or more"),
        ({"pool": 32}, "[sampling] select = 64: is more than pool = 32; lower it"),
        (
            {"directions": "back"},
            "[sampling] directions = 'back': must be one of both, queries",
        ),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, int | str], message: str) -> None:
    with pytest.raises(InputError) as error:
        SamplingConfig(**values)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_hardness_counts_listed_references_within_the_batch() -> None:
    lists = np.array([[1, 2], [0, -1], [3, 0], [-1, -1]], np.int32)
    batches = np.array([[0, 1], [2, 3]], np.int32)
    hardness = batch_hardness(batches, np.array([0, 1, 2, 3], np.int32), lists)
    np.testing.assert_array_equal(hardness, [1.0, 0.5])


def test_lists_of_references_are_not_taken_for_lists_of_pairs() -> None:
    with pytest.raises(ValueError, match="^30 lists for 270 pairs: see candidates.py$"):
        plan_batches(views_of_places(30, 9), street(30, 4), SamplingConfig(), 16, 0, 0)
