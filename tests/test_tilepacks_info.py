from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.info import pack_info, pack_text, plan_info, plan_text
from s4g.tilepacks.plan import Plan, plan_pack
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.signature import make_keys, sign_pack

SPEC = EncoderSpec(
    "00" * 32, "toy", 64, (0.5,) * 3, (0.25,) * 3, 256, (256,), 0.3, 3.0, True, 0.1
)  # fmt: skip


@pytest.fixture(scope="module")
def info(toy_pack: Path) -> dict[str, Any]:
    with open_pack(toy_pack) as pack:
        return pack_info(pack)


@pytest.fixture(scope="module")
def plan() -> Plan:
    rgb = np.zeros((800, 1200, 3), np.uint8)
    valid = np.ones((800, 1200), bool)
    ground = ArrayGround(rgb, valid, LocalFrame(47.0, 8.0), -600.0, 400.0, 1.0, "field.tif")
    return plan_pack(ground, SPEC, None, (40.0, 160.0))


def test_a_pack_tells_what_it_holds(toy_pack: Path, info: dict[str, Any]) -> None:
    with open_pack(toy_pack) as pack:
        assert [level["tiles"] for level in info["levels"]] == [v.count for v in pack.levels]
        assert info["encoder"]["model_id"] == pack.spec.model_id
    assert info["bytes"] == toy_pack.stat().st_size
    assert [level["footprint_m"] for level in info["levels"]] == [48, 64]
    assert info["layers"] == [
        {
            "name": "toy.tif",
            "gsd_m": pytest.approx(0.5, rel=1e-3),
            "attribution": "toy imagery, public domain",
            "date": "",
        }
    ]
    assert info["signed_by"] is None
    assert info["headings"] == 1
    assert info["dims"] == 32
    assert json.loads(json.dumps(info)) == info


def test_bytes_of_the_parts_are_nearly_those_of_the_file(info: dict[str, Any]) -> None:
    parts = sum(level["bytes"] for level in info["levels"]) + info["overview_bytes"]
    assert parts < info["bytes"] < parts + 5000  # the manifest


def test_the_text_is_for_people(info: dict[str, Any]) -> None:
    text = pack_text(info)
    assert "imagery     toy.tif, 0.5 m/px" in text
    assert "attribution toy imagery, public domain" in text
    assert "vectors     32-d, 8 bit\n" in text
    assert "signed      no\n" in text
    assert "level     48 m  " in text and ", exact scan, " in text
    assert len(text.splitlines()) == 8 + len(info["levels"])


def test_the_text_tells_of_headings_graphs_and_tiles_alike(info: dict[str, Any]) -> None:
    told = copy.deepcopy(info)
    told |= {"headings": 4, "attribution": "", "overview_bytes": 0}
    level = told["levels"][0]
    level |= {"search": "graph", "step": 1, "ef": 64, "recall_at_1": 0.9931, "found": 0.5}
    level["vectors"] = level["tiles"] - 3
    text = pack_text(told)
    assert "8 bit, at 4 headings" in text
    assert "attribution none given" in text
    assert "overview    none" in text
    assert "graph ef 64, recall@1 0.993, 50.0% of trial views found, 3 look like another" in text


def test_what_nobody_measured_is_said_not_to_be(info: dict[str, Any]) -> None:
    told = copy.deepcopy(info)
    told["levels"][0]["found"] = None
    line = pack_text(told).splitlines()[-2]
    assert line.endswith(", exact scan, share of trial views found not measured")


def test_one_is_not_told_in_the_plural(info: dict[str, Any], plan: Plan) -> None:
    told = copy.deepcopy(info)
    told["levels"][0] |= {"tiles": 1, "vectors": 1}
    assert " 1 tile every " in pack_text(told)
    planned = plan_text(plan_info(plan, SPEC, 1.0, False, 64, 1, packs=1))
    assert planned.splitlines()[0] == "region 1200 x 800 m, in 1 pack"


def test_a_signature_is_told(tmp_path: Path, toy_pack: Path) -> None:
    path = tmp_path / "p.s4gpack"
    path.write_bytes(toy_pack.read_bytes())
    signer = sign_pack(path, make_keys(tmp_path / "ops")[0])
    with open_pack(path) as pack:
        info = pack_info(pack)
    assert info["signed_by"] == signer
    assert f"signed      by key {signer}" in pack_text(info)


def test_a_plan_tells_tiles_and_bytes(plan: Plan) -> None:
    told = plan_info(plan, SPEC, 1.0, overview=False, dims=64, variants=1)
    fine, coarse = told["levels"]
    assert [fine["tiles"], coarse["tiles"]] == [lattice.count for lattice in plan.lattices]
    assert coarse["bytes"] == coarse["tiles"] * (64 + 2)
    assert told["overview_bytes"] == 0
    assert told["projection_bytes"] == 4 * SPEC.embedding_dim * 64
    assert told["bytes"] == fine["bytes"] + coarse["bytes"] + told["projection_bytes"]


def test_links_are_counted_where_a_level_is_large(plan: Plan) -> None:
    for rows, links in ((255, 0), (256, 3)):
        large = dataclasses.replace(plan.lattices[0], columns=256, rows=rows)
        told = plan_info(
            dataclasses.replace(plan, lattices=(large,)), SPEC, 1.0, False, dims=64, variants=1
        )
        assert told["levels"][0]["bytes"] == 256 * rows * (64 + 2 + links)


def test_variants_multiply_what_a_plan_takes(plan: Plan) -> None:
    once, often = (plan_info(plan, SPEC, 1.0, False, 64, variants) for variants in (1, 8))
    assert often["levels"][0]["tiles"] == 8 * once["levels"][0]["tiles"]
    assert often["levels"][0]["bytes"] == 8 * once["levels"][0]["bytes"]


def test_every_pack_of_a_set_has_a_projection(plan: Plan) -> None:
    one, many = (plan_info(plan, SPEC, 1.0, False, 64, 1, packs=packs) for packs in (1, 4))
    assert many["projection_bytes"] == 4 * one["projection_bytes"]
    assert plan_text(many).splitlines()[0] == "region 1200 x 800 m, in 4 packs"


def test_a_plan_without_dimensions_takes_the_usual_ones(plan: Plan) -> None:
    told = plan_info(plan, SPEC, 1.0, False, None, 1)
    assert told["bytes"] == plan_info(plan, SPEC, 1.0, False, 128, 1)["bytes"]


def test_a_plan_is_told_to_people(plan: Plan) -> None:
    text = plan_text(plan_info(plan, SPEC, 1.0, True, None, 1))
    first, fine, _, picture, last = text.splitlines()
    assert first == "region 1200 x 800 m"
    assert fine.startswith("level     40 m  at most ")
    assert picture.startswith("overview     about 240")
    assert last.startswith("total        about ") and last.endswith("; nothing was written")
