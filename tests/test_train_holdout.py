"""Held-out places share nothing with what is trained on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.train.dataset import Image, PairSet, Positions, RetrievalTask
from s4g.train.holdout import hold_out
from s4g.train.relations import Relations

pytest.importorskip("scipy", reason="groups of references need scipy (the train extra)")


class Numbered:
    """Pictures that know their number in the whole set."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int, height_px: int, width_px: int) -> Image:
        return np.full((height_px, width_px, 3), index % 256, np.uint8)


def pair_set(
    edges: list[tuple[int, int, float]],
    queries: int,
    references: int,
    positions: Positions | None = None,
) -> PairSet:
    """Pairs are the edges of weight above 0."""
    table = np.array(edges, np.float64).reshape(-1, 3)
    relations = Relations.from_edges(
        table[:, 0].astype(int), table[:, 1].astype(int), queries, table[:, 2]
    )
    positive = relations.weights > 0
    return PairSet(
        name="toy",
        queries=Numbered(queries),
        references=Numbered(references),
        pair_query=relations.rows[positive],
        pair_reference=relations.references[positive],
        pair_weight=relations.weights[positive],
        relations=relations,
        reference_positions=positions,
    )


def buildings(count: int, views: int = 3) -> PairSet:
    return pair_set(
        [(b * views + v, b, 1.0) for b in range(count) for v in range(views)], count * views, count
    )


def grid(side: int, step_m: float = 50.0) -> Positions:
    axis = np.arange(side) * step_m
    return Positions(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), "metres")


def numbers(images: object) -> list[int]:
    return [int(images.name(i)) for i in range(len(images))]  # type: ignore[attr-defined]


def split(pairs: PairSet, share: float = 0.2, seed: int = 1) -> tuple[PairSet, RetrievalTask]:
    left, task = hold_out(pairs, share, seed)
    assert task is not None
    return left, task


def test_whole_buildings_are_held_out() -> None:
    left, task = split(buildings(50), 0.1)
    held = numbers(task.gallery)
    assert len(held) == 5
    assert sorted(held + numbers(left.references)) == list(range(50))
    assert numbers(task.queries) == [b * 3 + v for b in held for v in range(3)]
    assert (len(left), len(left.queries)) == (135, 135)


def test_the_task_says_what_it_is() -> None:
    _, task = split(buildings(50), 0.1)
    assert task.name == "drone→satellite"
    assert task.protocol == "validation: 5 held-out places of the training split"
    assert task.one_percent_k == 1 and task.metrics == ("recall",)
    panoramas = dataclasses.replace(buildings(50), geometry="panorama")
    assert split(panoramas)[1].name == "panorama→satellite"


def test_pictures_are_those_of_the_whole_set() -> None:
    left, task = split(buildings(20))
    row = len(task.gallery) - 1
    assert (task.gallery.read(row, 2, 2) == numbers(task.gallery)[row]).all()
    for i in (0, len(left) - 1):
        query, reference = int(left.pair_query[i]), int(left.pair_reference[i])
        assert int(left.queries.name(query)) // 3 == int(left.references.name(reference))


def test_with_positions_what_is_held_out_lies_together() -> None:
    """Of a lattice of 24 x 24 places a fifth: whole cells, so few neighbours are apart."""
    places = grid(24)
    pairs = pair_set([(i, i, 1.0) for i in range(576)], 576, 576, places)
    _, task = split(pairs)
    held = np.zeros((24, 24), bool)
    held.ravel()[numbers(task.gallery)] = True
    share = held.mean()
    assert 0.1 < share < 0.3
    apart = (held[1:] != held[:-1]).sum() + (held[:, 1:] != held[:, :-1]).sum()
    # Scattered places would have 2 x 24 x 23 x 2 x share x (1 - share) such edges.
    assert apart < 0.5 * 4 * 24 * 23 * share * (1 - share)
    assert task.gallery_positions is not None
    assert len(task.gallery_positions) == len(task.gallery)


def test_the_cells_are_those_of_the_ground_far_north_too() -> None:
    """At 80 degrees a degree of longitude is a sixth of one of latitude: cells follow metres."""
    lat = 80 + np.arange(8) * 0.01
    lon = np.arange(48) * 0.01
    places = Positions(np.stack(np.meshgrid(lat, lon), -1).reshape(-1, 2), "wgs84")
    pairs = pair_set([(i, i, 1.0) for i in range(384)], 384, 384, places)
    _, task = split(pairs, 0.06)
    assert task.gallery_positions is not None
    spread = np.ptp(task.gallery_positions.coordinates, axis=0)
    assert len(task.gallery) > 4 and spread[1] > spread[0]


def test_places_of_several_tiles_are_held_out_whole_and_counted_once() -> None:
    """As in DenseUAV: six tiles a place, without positions and with them."""
    edges = [(p, p * 6 + t, 1.0) for p in range(40) for t in range(6)]
    places = Positions(np.repeat(grid(7).coordinates[:40], 6, axis=0), "metres")
    for positions in (None, places):
        left, task = split(pair_set(edges, 40, 240, positions), 0.1)
        tiles = np.array(numbers(task.gallery))
        assert np.bincount(tiles // 6)[np.unique(tiles // 6)].tolist() == [6] * (len(tiles) // 6)
        assert not set(tiles // 6) & set(np.array(numbers(left.references)) // 6)
    assert task.protocol == f"validation: {len(tiles) // 6} held-out places of the training split"


def test_a_query_that_only_touches_a_held_out_place_is_neither_trained_on_nor_asked() -> None:
    pairs = buildings(20)
    _, task = split(pairs)
    held = numbers(task.gallery)
    inside, outside = held[0], next(b for b in range(20) if b not in held)
    edges = [(q, q // 3, 1.0) for q in range(60)] + [(outside * 3, inside, 0.0)]
    # Groups are linked by the new edge, so positions keep the choice as it was.
    apart = Positions(np.column_stack([np.arange(20.0) * 100, np.zeros(20)]), "metres")
    found = None
    for seed in range(20):
        left, task = split(pair_set(edges, 60, 20, apart), seed=seed)
        if inside in numbers(task.gallery) and outside not in numbers(task.gallery):
            found = left, task
            break
    assert found is not None
    assert outside * 3 not in numbers(found[0].queries) + numbers(found[1].queries)
    assert outside * 3 + 1 in numbers(found[0].queries)


def test_where_queries_chain_all_places_single_ones_are_held_out() -> None:
    edges = [(i, i, 1.0) for i in range(30)] + [(i, i + 1, 0.0) for i in range(29)]
    left, task = split(pair_set(edges, 30, 30), 0.1)
    assert len(task.gallery) == 3
    assert len(left) < 27  # queries beside a held-out place are lost


def test_references_without_a_pair_are_in_neither_part() -> None:
    pairs = pair_set([(i, 2 * i, 1.0) for i in range(20)], 20, 40)
    left, task = split(pairs)
    assert all(number % 2 == 0 for number in numbers(left.references) + numbers(task.gallery))


def test_the_same_seed_makes_the_same_choice_and_another_one_another() -> None:
    pairs = buildings(60)
    first, second, other = (numbers(split(pairs, 0.2, seed)[1].gallery) for seed in (1, 1, 2))
    assert first == second != other


def test_one_place_alone_cannot_be_split() -> None:
    pairs = buildings(1)
    assert hold_out(pairs, 0.5, 0) == (pairs, None)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.1, 0.3]))
def test_about_the_share_is_held_out(seed: int, share: float) -> None:
    """Within a quarter of it, of places that lie unevenly over the ground."""
    rng = np.random.default_rng(seed)
    towns = rng.uniform(0, 1e5, (12, 2))
    places = np.concatenate([rng.normal(town, 4e3, (rng.integers(20, 400), 2)) for town in towns])
    count = len(places)
    pairs = pair_set([(i, i, 1.0) for i in range(count)], count, count, Positions(places, "metres"))
    _, task = split(pairs, share, seed)
    assert len(task.gallery) / count == pytest.approx(share, rel=0.25)


def test_a_share_of_0_holds_nothing_out() -> None:
    pairs = buildings(10)
    assert hold_out(pairs, 0.0, 0) == (pairs, None)


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(InputError) as error:
        hold_out(buildings(10), 1.0, 0)
    assert str(error.value) == "val_share = 1: must be 0 or more and less than 1"


def test_a_set_whose_every_pair_touches_a_held_out_place_is_refused() -> None:
    edges = [(q, r, 1.0) for q in range(3) for r in range(4)]
    with pytest.raises(InputError) as error:
        hold_out(pair_set(edges, 3, 4), 0.25, 0)
    assert str(error.value) == (
        "val_share = 0.25: every one of 12 pairs touches a held-out place; lower the share, or "
        "add places"
    )


def random_pairs(seed: int, located: bool) -> PairSet:
    """Queries with a positive near by, at times more of them, and semi-positives."""
    rng = np.random.default_rng(seed)
    references = int(rng.integers(25, 120))
    queries = int(rng.integers(references, 3 * references))
    places = rng.uniform(0, 1000, (references, 2))
    edges = []
    for query in range(queries):
        true = int(rng.integers(references))
        edges.append((query, true, 1.0))
        near = np.linalg.norm(places - places[true], axis=1).argsort()[1:4]
        for other in near:
            if rng.random() < 0.15:
                edges.append((query, int(other), float(rng.choice([0.0, 0.4]))))
    positions = Positions(places, "metres") if located else None
    return pair_set(edges, queries, references, positions)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.05, 0.1, 0.3]))
def test_nothing_held_out_is_trained_on_and_relations_stay_as_they_were(
    seed: int, located: bool, share: float
) -> None:
    pairs = random_pairs(seed, located)
    try:
        left, task = hold_out(pairs, share, seed)
    except InputError:  # every pair may touch a held-out place, above all where places are few
        assume(False)
    assert task is not None
    queries, references = np.array(numbers(left.queries)), np.array(numbers(left.references))
    asked, held = np.array(numbers(task.queries)), np.array(numbers(task.gallery))
    assert not set(queries) & set(asked) and not set(references) & set(held)
    # No query of the training is related to a held-out reference in any way.
    for query in queries:
        assert not set(pairs.relations.of(int(query))[0].tolist()) & set(held.tolist())
    # Everything that is left is used, and numbered within its own collection.
    assert np.unique(left.pair_query).tolist() == list(range(len(queries)))
    assert np.unique(left.pair_reference).tolist() == list(range(len(references)))
    assert len(left.relations) == len(queries) and len(task.positives) == len(asked)
    # Pairs and relations are those of the whole set.
    for query, reference, weight in zip(
        left.pair_query, left.pair_reference, left.pair_weight, strict=True
    ):
        related, weights = left.relations.of(int(query))
        assert weights[related == reference] == weight
    for part, rows, columns in (
        (left.relations, queries, references),
        (task.positives, asked, held),
    ):
        for row, query in enumerate(rows):
            related, weights = part.of(row)
            known = dict(zip(*(v.tolist() for v in pairs.relations.of(int(query))), strict=True))
            for reference, weight in zip(columns[related], weights, strict=True):
                assert known[int(reference)] == pytest.approx(float(weight))
    # Every query that is asked can be found.
    assert (np.diff(task.positives.start) > 0).all()
    if located:
        assert left.reference_positions is not None and pairs.reference_positions is not None
        there = pairs.reference_positions.coordinates[references]
        assert (left.reference_positions.coordinates == there).all()
