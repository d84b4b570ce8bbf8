"""CVACT is read from a real MATLAB file and two folders of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.data_cvact import Cvact
from s4g.train.dataset import Count

scipy_io = pytest.importorskip("scipy.io", reason="ACT_data.mat needs scipy (the train extra)")

TREE = (
    "CVACT looks like ACT_data.mat, "
    "ANU_data_{small,test}/{streetview/ID_grdView.jpg,satview_polish/ID_satView_polish.jpg}"
)
IDS = [f"{letter * 21}_" for letter in "abcdef"]
UTM = np.column_stack([690_000.0 + np.arange(6), 6_090_000.0 - np.arange(6)])


def write_mat(path: Path, **changes: Any) -> None:
    """Write the fields of the official file: a struct's second field holds 1-based indices."""
    table = {
        "panoIds": np.array(IDS),
        "utm": UTM,
        "trainSet": {"trainQuery": np.zeros((1, 1)), "trainInd": np.array([[1], [2], [4]])},
        "valSet": {"valQuery": np.zeros((1, 1)), "valInd": np.array([[5], [3]])},
    }
    scipy_io.savemat(path, {k: v for k, v in (table | changes).items() if v is not None})


def write_pictures(root: Path, folder: str, ids: list[str]) -> None:
    data = encode_rgb(np.full((8, 8, 3), 90, np.uint8), ".jpg")
    for part in ("streetview", "satview_polish"):
        (root / folder / part).mkdir(parents=True, exist_ok=True)
    for name in ids:
        (root / folder / "streetview" / f"{name}_grdView.jpg").write_bytes(data)
        (root / folder / "satview_polish" / f"{name}_satView_polish.jpg").write_bytes(data)


def write_set(root: Path, **changes: Any) -> Path:
    write_mat(root / "ACT_data.mat", **changes)
    write_pictures(root, "ANU_data_small", IDS)
    write_pictures(root, "ANU_data_test", [IDS[5], "not-in-the-mat"])
    return root


def test_training_pairs_follow_the_indices_counted_from_1(tmp_path: Path) -> None:
    pairs = Cvact(write_set(tmp_path)).training()
    assert [pairs.queries.name(i) for i in range(3)] == [
        f"ANU_data_small/streetview/{IDS[i]}_grdView.jpg" for i in (0, 1, 3)
    ]
    assert pairs.references.name(2) == f"ANU_data_small/satview_polish/{IDS[3]}_satView_polish.jpg"
    assert pairs.references.read(2, 4, 4).shape == (4, 4, 3)
    assert pairs.geometry == "panorama"


def test_positions_are_utm_metres_of_the_same_ids(tmp_path: Path) -> None:
    positions = Cvact(write_set(tmp_path)).training().reference_positions
    assert positions is not None and positions.kind == "metres"
    assert positions.coordinates.tolist() == UTM[[0, 1, 3]].tolist()


def test_ids_without_both_pictures_are_left_out(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / f"ANU_data_small/satview_polish/{IDS[1]}_satView_polish.jpg").unlink()
    pairs = Cvact(tmp_path).training()
    assert len(pairs) == len(pairs.references) == 2
    assert pairs.references.name(1).split("/")[-1].startswith(IDS[3])


def test_val_and_test_are_tasks_apart(tmp_path: Path) -> None:
    val, test = Cvact(write_set(tmp_path)).tasks()
    assert val.protocol == "CVACT val: all 2 satellite images"
    assert val.queries.name(0) == f"ANU_data_small/streetview/{IDS[4]}_grdView.jpg"
    assert test.protocol == "CVACT test: all 2 satellite images"
    assert [test.gallery.name(i).split("/")[-1][:4] for i in range(2)] == ["ffff", "not-"]
    assert val.gallery_positions is not None
    assert test.gallery_positions is None  # an id of test need not be in the file


def test_the_test_split_is_left_out_with_a_word_where_it_is_not_on_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mat(tmp_path / "ACT_data.mat")
    write_pictures(tmp_path, "ANU_data_small", IDS)
    assert [task.protocol[:9] for task in Cvact(tmp_path).tasks()] == ["CVACT val"]
    assert capsys.readouterr().err == (
        f"{tmp_path / 'ANU_data_test'}: no such folder; CVACT test is left out\n"
    )
    assert Cvact(tmp_path).counts() == [
        Count("train pairs", 3, 35_532),
        Count("val pairs", 2, 8_884),
        Count("test pairs", 0, 92_802),
    ]


def test_a_missing_folder_is_named_with_the_tree(tmp_path: Path) -> None:
    write_mat(tmp_path / "ACT_data.mat")
    with pytest.raises(InputError) as error:
        Cvact(tmp_path).training()
    assert str(error.value) == (f"{tmp_path / 'ANU_data_small/streetview'}: no such folder; {TREE}")


def test_a_missing_index_is_named_with_the_tree(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "ACT_data.mat").unlink()
    with pytest.raises(InputError) as error:
        Cvact(tmp_path).training()
    assert str(error.value) == f"{tmp_path / 'ACT_data.mat'}: no such file; {TREE}"
    assert [count.found for count in Cvact(tmp_path).counts()] == [0, 0, 2]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600),
            "is of MATLAB 7.3 (HDF5); fetch the original, or save it again with -v7",
        ),
        (
            b"\x89HDF\r\n\x1a\n".ljust(600),
            "is of MATLAB 7.3 (HDF5); fetch the original, or save it again with -v7",
        ),
        (b"<html>404</html>".ljust(600), "not a MATLAB 5 file; fetch it again"),
        (b"", "not a MATLAB 5 file; fetch it again"),
    ],
)
def test_a_file_of_another_format_is_refused_unparsed(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    file = write_set(tmp_path) / "ACT_data.mat"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        Cvact(tmp_path).training()
    assert str(error.value) == f"{file}: {fault}"


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "ACT_data.mat"
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(InputError, match=f"^{file}: (damaged|lacks the variable)"):
        Cvact(tmp_path).training()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"valSet": None}, "lacks the variable valSet; fetch it again"),
        (
            {"trainSet": np.array([[1.0]])},
            "trainSet is no struct of two fields; fetch the file again",
        ),
        (
            {"trainSet": {"a": 0, "trainInd": np.array([[1], [7]])}},
            "trainSet.trainInd points outside the 6 panoIds; fetch the file again",
        ),
        (
            {"trainSet": {"a": 0, "trainInd": np.array([[0], [2]])}},
            "trainSet.trainInd points outside the 6 panoIds; fetch the file again",
        ),
        (
            {"trainSet": {"a": 0, "trainInd": "one"}},
            "trainSet.trainInd holds no numbers; fetch the file again",
        ),
        (
            {"utm": UTM[:5]},
            "expected panoIds as N rows of text and utm as N x 2 numbers, found <U22 (6,) and "
            "float64 (5, 2)",
        ),
        ({"utm": UTM * np.nan}, "utm holds values that are not finite; fetch it again"),
    ],
)
def test_a_variable_that_is_not_as_expected_is_named(
    tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    file = write_set(tmp_path, **changes) / "ACT_data.mat"
    with pytest.raises(InputError) as error:
        Cvact(tmp_path).training()
    assert str(error.value) == f"{file}: {fault}"


def test_a_split_without_a_single_pair_is_refused(tmp_path: Path) -> None:
    write_mat(tmp_path / "ACT_data.mat")
    write_pictures(tmp_path, "ANU_data_small", [IDS[0]])
    with pytest.raises(InputError) as error:
        Cvact(tmp_path).tasks()
    assert str(error.value) == (
        f"{tmp_path / 'ANU_data_small'}: no id of val has both pictures; {TREE}"
    )
