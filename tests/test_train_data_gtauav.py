"""GTA-UAV and UAV-VisLoc: IoU weighs positives, semi-positives weigh nothing, tiles have places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.data_gtauav import GtaUav
from s4g.train.dataset import Count

TREE = (
    "GTA-UAV looks like drone/images/*, satellite/ZOOM_OFFSET_X_Y.png and "
    "{same,cross}-area-drone2sate-{train,test}.json"
)
# The official map: 24,576 px of 0.45 m, halved at every zoom.
STEP_M = 24_576 / 2**5 * 0.45
PICTURE = encode_rgb(np.full((8, 8, 3), 70, np.uint8), ".png")


def tile(x: int, y: int, zoom: int = 5) -> str:
    return f"{zoom}_0_{x}_{y}.png"


def center(x: int, y: int) -> list[float]:
    return [STEP_M * (x + 0.5), STEP_M * (y + 0.5)]


def entry(
    name: str, positives: dict[tuple[int, int], float], semi: dict[tuple[int, int], float]
) -> dict[str, Any]:
    """One entry as published: the second list holds the positives too."""
    everything = positives | semi
    return {
        "drone_img_dir": "drone/images",
        "drone_img_name": f"{name}.png",
        "drone_loc_x_y": [1000.0, 2000.0 + len(name)],
        "sate_img_dir": "satellite",
        "pair_pos_sate_img_list": [tile(*cell) for cell in positives],
        "pair_pos_sate_weight_list": list(positives.values()),
        "pair_pos_sate_loc_x_y_list": [center(*cell) for cell in positives],
        "pair_pos_semipos_sate_img_list": [tile(*cell) for cell in everything],
        "pair_pos_semipos_sate_weight_list": list(everything.values()),
        "pair_pos_semipos_sate_loc_x_y_list": [center(*cell) for cell in everything],
        "drone_metadata": {"height": 494.7, "drone_roll": -0.27, "cam_yaw": 85.0},
    }


TRAIN = [
    entry("200_0001_01", {(0, 0): 0.57}, {(1, 0): 0.25, (0, 1): 0.2}),
    entry("200_0001_02", {(1, 0): 0.62, (1, 1): 0.41}, {(0, 0): 0.15}),
    entry("200_0001_03", {}, {(2, 2): 0.3}),
]
TEST = [entry("300_0001_04", {(2, 2): 0.5}, {(1, 1): 0.3}), entry("300_0001_05", {}, {(1, 2): 0.2})]


def write_list(root: Path, split: str, entries: object, area: str = "cross") -> Path:
    file = root / f"{area}-area-drone2sate-{split}.json"
    file.write_text(json.dumps(entries, indent=4))
    return file


def write_set(root: Path) -> Path:
    write_list(root, "train", TRAIN)
    write_list(root, "test", TEST)
    (root / "drone/images").mkdir(parents=True)
    (root / "satellite").mkdir()
    for drone in TRAIN + TEST:
        (root / "drone/images" / drone["drone_img_name"]).write_bytes(PICTURE)
    for x in range(3):
        for y in range(3):
            (root / "satellite" / tile(x, y)).write_bytes(PICTURE)
    return root


def test_pairs_are_positives_weighted_by_their_overlap(tmp_path: Path) -> None:
    pairs = GtaUav(write_set(tmp_path), "cross").training()
    assert pairs.name == "GTA-UAV cross-area"
    # The third view has semi-positives alone: nothing to train on.
    assert (len(pairs.queries), len(pairs.references), len(pairs)) == (2, 3, 3)
    assert pairs.pair_query.tolist() == [0, 1, 1]
    assert pairs.pair_weight.tolist() == pytest.approx([0.57, 0.62, 0.41])
    assert pairs.references.name(int(pairs.pair_reference[0])) == "satellite/5_0_0_0.png"
    assert pairs.queries.read(0, 4, 4).shape == pairs.references.read(0, 4, 4).shape == (4, 4, 3)


def test_semi_positives_weigh_0_and_never_hide_a_positive(tmp_path: Path) -> None:
    pairs = GtaUav(write_set(tmp_path), "cross").training()
    number = {pairs.references.name(i): i for i in range(3)}
    related, weights = pairs.relations.of(1)
    found = dict(zip(related.tolist(), weights.tolist(), strict=True))
    assert found == {
        number["satellite/5_0_0_0.png"]: 0.0,
        number["satellite/5_0_1_0.png"]: pytest.approx(0.62),
        number["satellite/5_0_1_1.png"]: pytest.approx(0.41),
    }


def test_positions_are_local_metres(tmp_path: Path) -> None:
    pairs = GtaUav(write_set(tmp_path), "cross").training()
    positions = pairs.reference_positions
    assert positions is not None and positions.kind == "metres"
    assert positions.coordinates[0].tolist() == center(0, 0)


def test_all_tiles_on_disk_compete_and_have_a_place(tmp_path: Path) -> None:
    (task,) = GtaUav(write_set(tmp_path), "cross").tasks()
    assert task.protocol == "GTA-UAV cross-area test: all 9 tiles"
    assert (len(task.queries), len(task.gallery), task.one_percent_k) == (1, 9, 1)
    assert task.metrics == ("recall", "sdm")
    related, _ = task.positives.of(0)
    assert [task.gallery.name(int(i)) for i in related] == ["satellite/5_0_2_2.png"]
    assert task.gallery_positions is not None and task.query_positions is not None
    # Tile 0, 2 is in no list: its place follows from the lattice of the others.
    row = [task.gallery.name(i) for i in range(9)].index("satellite/5_0_0_2.png")
    assert task.gallery_positions.coordinates[row] == pytest.approx(center(0, 2))
    assert task.query_positions.coordinates.tolist() == [[1000.0, 2011.0]]


def test_tiles_whose_place_nothing_tells_leave_distances_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path)
    (tmp_path / "satellite" / tile(0, 0, zoom=7)).write_bytes(PICTURE)
    (task,) = GtaUav(tmp_path, "cross").tasks()
    assert task.metrics == ("recall",) and task.gallery_positions is None
    assert capsys.readouterr().err == (
        f"{tmp_path}: some tiles have no coordinates; SDM is left out\n"
    )


def test_centres_that_lie_on_no_lattice_are_not_continued(tmp_path: Path) -> None:
    write_set(tmp_path)
    bent = json.loads(json.dumps(TEST))
    bent[0]["pair_pos_sate_loc_x_y_list"][0][0] += STEP_M / 4
    bent[0]["pair_pos_semipos_sate_loc_x_y_list"][0][0] += STEP_M / 4
    write_list(tmp_path, "test", bent)
    (task,) = GtaUav(tmp_path, "cross").tasks()
    assert task.gallery_positions is None


def test_uav_visloc_in_this_format_has_degrees(tmp_path: Path) -> None:
    """Regions and zooms make the names; rows go with latitude."""
    write_set(tmp_path)

    def visloc(source: dict[str, Any]) -> dict[str, Any]:
        out = {k.replace("x_y", "lat_lon"): v for k, v in source.items()}
        for key in out:
            if key.endswith("img_list"):
                out[key] = [
                    "03_5_{:03}_{:03}.png".format(*map(int, n[:-4].split("_")[2:]))
                    for n in out[key]
                ]
            if key.endswith("lat_lon_list"):
                out[key] = [[32.0 - y / 1e5, 119.0 + x / 1e5] for x, y in out[key]]
        return out | {"drone_loc_lat_lon": [32.0, 119.0]}

    for split, entries in (("train", TRAIN), ("test", TEST)):
        write_list(tmp_path, split, [visloc(e) for e in entries])
    for old in (tmp_path / "satellite").iterdir():
        x, y = map(int, old.stem.split("_")[2:])
        old.rename(old.with_name(f"03_5_{x:03}_{y:03}.png"))
    data = GtaUav(tmp_path, "cross")
    (task,) = data.tasks()
    assert task.gallery_positions is not None and task.gallery_positions.kind == "wgs84"
    row = [task.gallery.name(i) for i in range(9)].index("satellite/03_5_000_002.png")
    x, y = center(0, 2)
    expected = [32.0 - y / 1e5, 119.0 + x / 1e5]
    assert task.gallery_positions.coordinates[row] == pytest.approx(expected)
    assert all(count.official is None for count in data.counts())


def test_tiles_beyond_the_map_that_a_list_names_are_left_out(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "satellite" / tile(1, 1)).unlink()
    pairs = GtaUav(tmp_path, "cross").training()
    assert (len(pairs), len(pairs.references)) == (2, 2)
    counted = {count.what: count for count in GtaUav(tmp_path, "cross").counts()}
    assert counted["tiles listed, not there"] == Count("tiles listed, not there", 1, 0)


def test_counts_stand_beside_the_official_ones(tmp_path: Path) -> None:
    assert GtaUav(write_set(tmp_path), "cross").counts() == [
        Count("train drone views listed", 3),
        Count("test drone views listed", 2),
        Count("drone images", 5, 33_763),
        Count("satellite tiles", 9, 14_640),
        Count("tiles listed, not there", 0, 0),
    ]
    assert [count.found for count in GtaUav(tmp_path, "same").counts()] == [0, 0, 5, 9]


def test_a_missing_list_is_named_with_the_tree(tmp_path: Path) -> None:
    write_set(tmp_path)
    with pytest.raises(InputError) as error:
        GtaUav(tmp_path, "same").training()
    assert str(error.value) == (
        f"{tmp_path / 'same-area-drone2sate-train.json'}: no such file; {TREE}"
    )


def test_a_missing_folder_of_tiles_is_named_with_the_tree(tmp_path: Path) -> None:
    write_list(tmp_path, "train", TRAIN)
    with pytest.raises(InputError) as error:
        GtaUav(tmp_path, "cross").training()
    assert str(error.value) == f"{tmp_path / 'satellite'}: no such folder; {TREE}"


def test_a_list_without_a_positive_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    file = write_list(tmp_path, "train", [TRAIN[2]])
    with pytest.raises(InputError) as error:
        GtaUav(tmp_path, "cross").training()
    assert str(error.value) == f"{file}: no drone view has a positive tile; {TREE}"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"drone_img_name": None}, "entry 1 lacks 'drone_img_name'"),
        (
            {"sate_img_dir": 7},
            "entry 1: sate_img_dir is '7', expected a list or text",
        ),
        (
            {"pair_pos_sate_weight_list": [0.5, 0.6]},
            "entry 1: pair_pos_sate_img_list, pair_pos_sate_weight_list, "
            "pair_pos_sate_loc_x_y_list differ in length",
        ),
        (
            {"pair_pos_sate_weight_list": ["much"]},
            "entry 1: a place is not two numbers, or a weight no number",
        ),
        (
            {"pair_pos_sate_weight_list": [1.5]},
            "entry 1: a weight is no IoU above 0 and up to 1",
        ),
        (
            {"drone_loc_x_y": [1.0]},
            "entry 1: a place is not two numbers, or a weight no number",
        ),
        (
            {"drone_loc_x_y": [float("nan"), 1.0]},
            "entry 1: a place is not two finite numbers",
        ),
    ],
)
def test_a_damaged_entry_is_named(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    write_set(tmp_path)
    damaged = {k: v for k, v in (TRAIN[0] | change).items() if v is not None}
    file = write_list(tmp_path, "train", [damaged])
    with pytest.raises(InputError) as error:
        GtaUav(tmp_path, "cross").training()
    assert str(error.value) == f"{file}: {fault}"


def test_degrees_and_metres_in_one_list_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    other = {k.replace("x_y", "lat_lon"): v for k, v in TRAIN[1].items()}
    file = write_list(tmp_path, "train", [TRAIN[0], other])
    with pytest.raises(InputError) as error:
        GtaUav(tmp_path, "cross").training()
    assert str(error.value) == f"{file}: entry 2 mixes degrees with metres"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("{}", "expected a list of drone views"),
        ('["a"]', "entry 1: expected an object, found 'a'"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    file = write_list(write_set(tmp_path), "train", [])
    file.write_text(text)
    with pytest.raises(InputError) as error:
        GtaUav(tmp_path, "cross").training()
    assert str(error.value).startswith(f"{file}: {fault}")
