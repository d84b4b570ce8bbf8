from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from s4g.core.errors import InputError
from s4g.core.geo import BBox, LocalFrame
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.manifest import (
    LayerRecord,
    LevelRecord,
    Manifest,
    OverviewRecord,
    ProjectionRecord,
)
from s4g.tilepacks.tiling import Lattice
from s4g.tilepacks.tuning import EXACT, SearchPlan
from s4g.tilepacks.variants import Variant

SPEC = EncoderSpec(
    "00" * 32, "toy", 64, (0.5,) * 3, (0.25,) * 3, 8, (8,), 0.3, 3.0, True, 0.1
)  # fmt: skip
MANIFEST = Manifest(
    tool="s4g 0.1.0",
    spec=SPEC,
    layers=(
        LayerRecord("field.tif", 0.5, "nobody, 2020", "2020-08-31"),
        LayerRecord("older.tif", 1.0, "", ""),
    ),
    variants=(Variant(0, 0.0), Variant(1, 180.0)),
    projection=ProjectionRecord(6, "matrix", {"full": 0.9, "6": 0.895}),
    bounds=BBox(8.0, 47.0, 8.1, 47.1),
    frame=LocalFrame(47.05, 8.05),
    min_valid=0.6,
    levels=(
        LevelRecord(Lattice(80.0, 64, 16, -1.5, 2.5, 100, 50), 4000, 3990,
                    SearchPlan("graph", 3, 450, 4, 64, 0.995, 0.97), 0.97),
        LevelRecord(Lattice(160.0, 64, 16, -1.5, 2.5, 5, 5), 25, 25, EXACT, 1.0),
    ),
    overview=OverviewRecord(-100.0, 100.0, 0.5, 400, 400),
)  # fmt: skip


def _values() -> dict[str, Any]:
    return copy.deepcopy(json.loads(json.dumps(MANIFEST.to_values())))


def test_manifest_survives_the_round_trip() -> None:
    assert Manifest.from_values(_values(), "p.s4gpack") == MANIFEST


def test_entries_of_later_versions_are_passed_over() -> None:
    values = _values()
    values["weather"] = "fine"
    values["levels"][0]["colour"] = "green"
    assert Manifest.from_values(values, "p.s4gpack") == MANIFEST


def test_pack_without_a_picture_is_read() -> None:
    values = _values()
    values["overview"] = None
    assert Manifest.from_values(values, "p.s4gpack").overview is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tool", 1, "its manifest entry tool is missing or of a wrong type"),
        ("levels", [], "its manifest has 0 levels"),
        ("levels", [1], "its manifest entry levels.0 is no object"),
        ("levels.0.count", None, "its manifest entry levels.0.count is missing or of a wrong type"),
        ("levels.0.count", True, "its manifest entry levels.0.count is missing or of a wrong type"),
        ("levels.0.count", 2**32, "its manifest entry levels.0.count is out of range"),
        ("levels.0.count", 0, "its manifest entry levels.0.count is out of range"),
        ("levels.0.vectors", 4001, "its manifest entry levels.0.vectors is out of range"),
        ("levels.1.lattice.rows", 0, "its manifest entry levels.1.lattice.rows is out of range"),
        ("levels.0.search.method", "magic", "its search method 'magic' is unknown"),
        ("levels.0.search.ef", -1, "its manifest entry levels.0.search.ef is out of range"),
        ("bounds.west", 8.2, "bbox 8.2,47,8.1,47.1: west 8.2 must be less than east 8.1; the order "
         "is W,S,E,N"),
        ("frame.lat_deg", 91, "its manifest entry frame.lat_deg is 91, out of range"),
        ("layers.0.gsd_m", 1e999, "its manifest entry layers.0.gsd_m is inf, out of range"),
        ("layers.0.gsd_m", 10**400, "its manifest entry layers.0.gsd_m is 10000000000000000000, "
         "out of range"),
        ("layers.0.name", "a\x1b[2J", "its manifest entry layers.0.name holds unprintable "
         "characters"),
        ("tool", "\ud800", "its manifest entry tool holds unprintable characters"),
        ("projection.shares", {"a\n": 1}, "its manifest entry projection.shares holds unprintable "
         "characters"),
        ("overview.height_px", 4097, "its manifest entry overview.height_px is out of range"),
        ("layers", [1], "its manifest entry layers.0 is no object"),
        ("variants", [], "its manifest has 0 variants"),
        ("variants.1.layer", 2, "its manifest entry variants.1.layer is out of range"),
        ("projection.kind", "magic", "its projection 'magic' is unknown"),
        ("projection.dims", 9, "its manifest entry projection.dims is out of range"),
        ("levels.0.found", 1.1, "its manifest entry levels.0.found is 1.1, out of range"),
        ("overview", "x", "its manifest entry overview is missing or of a wrong type"),
        ("overview.width_px", 0, "its manifest entry overview.width_px is out of range"),
        ("overview.gsd_m", 0, "its manifest entry overview.gsd_m is 0, out of range"),
    ],
)  # fmt: skip
def test_wrong_entry_is_named(path: str, value: object, message: str) -> None:
    values = _values()
    place: Any = values
    *parents, last = path.split(".")
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[last] = value
    with pytest.raises(ValueError) as error:
        Manifest.from_values(values, "p.s4gpack")
    assert str(error.value) == message


@pytest.mark.parametrize("key", sorted(MANIFEST.to_values()))
def test_every_entry_is_needed(key: str) -> None:
    values = _values()
    del values[key]
    with pytest.raises(
        ValueError, match=f"^its manifest entry {key} is missing or of a wrong type$"
    ):
        Manifest.from_values(values, "p.s4gpack")


def test_encoder_of_a_later_version_is_refused_by_name() -> None:
    values = _values()
    values["encoder"]["spec_version"] = 99
    with pytest.raises(InputError) as error:
        Manifest.from_values(values, "p.s4gpack")
    assert str(error.value).startswith("p.s4gpack: encoder spec version 99, this program reads ")
