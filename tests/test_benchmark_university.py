"""The comparison of hard negatives: its set shares no ground, its methods differ as they say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from s4g.core.geo import distance_m


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])


def test_only_the_lists_of_hard_negatives_differ_between_methods() -> None:
    from university_shaped import METHODS, sampling

    assert {method: tuple(sampling(method, 8).values()) for method in METHODS} == {
        "random": (0, 0),
        "geographic": (8, 0),
        "mined": (0, 2),
        "both": (2, 2),
    }


def test_places_that_are_asked_share_no_ground_with_those_trained_on(data_dir: Path) -> None:
    from cut_university import NAIP_FOOTPRINT_M, REACH, _naip

    if not (data_dir / "naip_nd_multidate").is_dir():
        pytest.skip(f"no naip_nd_multidate in {data_dir}")
    sites = list(_naip(data_dir))
    trained = [site for site in sites if site.split == "train"]
    asked = [site for site in sites if site.split == "test"]
    assert min(len(trained), len(asked)) > 400
    last, first = max(site.lon_deg for site in trained), min(site.lon_deg for site in asked)
    apart_m = float(distance_m(sites[0].lat_deg, last, sites[0].lat_deg, first))
    assert apart_m > REACH * NAIP_FOOTPRINT_M
    assert {site.tile.date for site in sites} == {0}
    assert {shot.date for site in sites for shot in site.shots} == {1, 2, 3, 4, 5}
