"""A finished log on the map: verified, in columns, beside the truth."""

from __future__ import annotations

import json
import math
import runpy
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the map needs aiohttp (the view extra)")
from s4g.core.errors import InputError
from s4g.core.geo import distance_m
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.score_truth import read_truth
from s4g.runtime.view_replay import Log, read_log
from s4g.tilepacks.reader import Pack, open_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_view.py"))))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def pack(toy_pack: Path, stack: ExitStack) -> Pack:
    return stack.enter_context(open_pack(toy_pack))


@pytest.fixture
def fixes(pack: Pack) -> list[Fix]:
    lost = toy.fix(pack, 3, State.NO_FIX, reason=Reason.DARK)
    return [*(toy.fix(pack, number) for number in range(3)), lost, toy.fix(pack, 4)]


def unpacked(log: Log) -> dict[str, Any]:
    """Read the columns as the page does."""
    packed, about = log.packed(), log.describe()
    sizes = {"<f8": "d", "<f4": "f", "|u1": "B"}
    return {
        one["name"]: list(
            struct.unpack_from(f"<{about['count']}{sizes[one['type']]}", packed, one["at"])
        )
        for one in about["columns"]
    }


def test_a_log_is_handed_over_in_columns(tmp_path: Path, fixes: list[Fix]) -> None:
    log = read_log(toy.write_log(tmp_path / "fixes.jsonl", fixes), None)
    about, columns = log.describe(), unpacked(log)
    assert (about["name"], about["count"], about["has_truth"]) == ("fixes.jsonl", 5, False)
    assert columns["t"] == [100.0, 100.1, 100.2, 100.3, 100.4]
    assert [about["states"][code] for code in columns["state"]] == [f.state.value for f in fixes]
    assert columns["reason"] == [255, 255, 255, about["reasons"].index("dark"), 255]
    assert columns["lat"][0] == pytest.approx(fixes[0].lat, abs=1e-7)
    assert columns["heading_deg"] == [90.0] * 5
    assert columns["ve_mps"] == [50.0] * 5


def test_a_fix_without_a_position_has_none_in_the_columns(tmp_path: Path, fixes: list[Fix]) -> None:
    columns = unpacked(read_log(toy.write_log(tmp_path / "fixes.jsonl", fixes), None))
    for name in ("lat", "lon", "sigma_m", "hpl_m"):
        assert [math.isnan(value) for value in columns[name]] == [False] * 3 + [True, False]


def test_columns_begin_where_their_numbers_can_be_read_in_place(
    tmp_path: Path, fixes: list[Fix]
) -> None:
    log = read_log(toy.write_log(tmp_path / "fixes.jsonl", fixes), None)
    assert {one["at"] % 8 for one in log.describe()["columns"]} == {0}


def test_the_truth_is_shown_with_the_error_and_what_befell_the_flight(
    tmp_path: Path, fixes: list[Fix], pack: Pack
) -> None:
    lat, lon = pack.frame.to_wgs84(-60.0, 13.0)
    rows = [
        f"{100 + i / 10},{float(lat):.9f},{float(lon):.9f},{'kidnap' * (i == 2)}" for i in range(5)
    ]
    (tmp_path / "truth.csv").write_text("\n".join(["t,lat,lon,event", *rows]))
    truth = read_truth(tmp_path / "truth.csv")
    log = read_log(toy.write_log(tmp_path / "fixes.jsonl", fixes), truth)
    columns = unpacked(log)
    assert log.describe()["has_truth"]
    assert log.events == [(2, "kidnap")]
    expected = float(distance_m(lat, lon, fixes[0].lat, fixes[0].lon))
    assert columns["error_m"][0] == pytest.approx(expected, abs=0.02)
    assert expected == pytest.approx(3.0, abs=0.01)
    assert math.isnan(columns["error_m"][3])


def test_truth_of_another_flight_is_refused(tmp_path: Path, fixes: list[Fix]) -> None:
    (tmp_path / "truth.csv").write_text("t,lat,lon\n5,47,8\n6,47,8\n")
    path = toy.write_log(tmp_path / "fixes.jsonl", fixes)
    with pytest.raises(InputError) as error:
        read_log(path, read_truth(tmp_path / "truth.csv"))
    assert str(error.value) == (
        f"{tmp_path / 'truth.csv'}: covers none of the fixes in {path}; give the truth of this "
        "flight"
    )


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("heading_deg", "north", "heading_deg 'north', expected a finite number, or null"),
        ("ve_mps", [1], "ve_mps [1], expected a finite number, or null"),
        ("top", [{"level": 1}], "top is no list of candidates; expected lat, lon, level, score"),
        (
            "top",
            [{"lat": None, "lon": 1, "level": 1, "score": 1}],
            "top is no list of candidates; expected lat, lon, level, score",
        ),
        ("state", "LOST", "state 'LOST', expected one of INIT, ACQUIRING, TRACK, DEGRADED, NO_FIX, "
         "OUT_OF_PACK"),
        ("lat", None, "lat None, lon LON; expected both or neither"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_fix_is_named(
    tmp_path: Path, fixes: list[Fix], key: str, value: object, complaint: str
) -> None:
    path = toy.write_log(tmp_path / "fixes.jsonl", fixes)
    lines = path.read_text().splitlines()
    changed = json.loads(lines[1]) | {key: value}
    lines[1] = json.dumps(changed)
    path.write_text("\n".join(lines) + "\n")
    complaint = complaint.replace("LON", str(changed["lon"]))
    with pytest.raises(InputError) as error:
        read_log(path, None)
    assert str(error.value) == f"{path}: line 2: {complaint}"


def test_a_last_line_that_was_cut_short_is_left_out(
    tmp_path: Path, fixes: list[Fix], capfd: pytest.CaptureFixture[str]
) -> None:
    path = toy.write_log(tmp_path / "fixes.jsonl", fixes)
    path.write_bytes(path.read_bytes()[:-40])
    assert read_log(path, None).describe()["count"] == 4
    assert capfd.readouterr().err == f"note: {path}: line 5 is cut short and left out\n"


def test_a_log_is_served_compressed_and_its_candidates_one_by_one(
    stack: ExitStack, pack: Pack, tmp_path: Path, fixes: list[Fix]
) -> None:
    import gzip

    log = read_log(toy.write_log(tmp_path / "fixes.jsonl", fixes), None)
    client = toy.replay(stack, pack, log)
    assert client.get("/info.json").json["mode"] == "replay"
    assert client.get("/replay/about.json").json["count"] == 5
    columns = client.get("/replay/columns")
    assert columns.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(columns.body) == log.packed()
    top = client.get("/replay/top/0.json").json
    assert [row[3] for row in top] == [0.91, 0.52]
    assert client.get("/replay/top/5.json").status == 404
    assert client.get("/live/events").status == 404


def test_a_long_log_is_small_on_the_way(tmp_path: Path, pack: Pack) -> None:
    one = toy.fix(pack, 0).to_json()
    path = tmp_path / "long.jsonl"
    path.write_text((one + "\n") * 5_000)
    log = read_log(path, None)
    assert len(log.packed()) < 5_000 * 100
    assert np.isfinite(log.columns["lat"]).all()
