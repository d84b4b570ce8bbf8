"""A recipe's `[data]` table opens one data set, or says which value is not legal."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from s4g.core.errors import InputError
from s4g.train.dataset import DATA_KINDS, DataConfig
from s4g.train.datasets import KIND, check_data_config, open_dataset

OWN = DataConfig("own", source="ortho.tif", footprint_m=80.0)
KNOWN = "cvusa, cvact, vigor, university1652, sues200, denseuav, gtauav, own"


def test_every_kind_of_the_contract_can_be_opened() -> None:
    assert tuple(KIND) == DATA_KINDS


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (DataConfig("cvusa"), "CVUSA"),
        (DataConfig("cvact"), "CVACT"),
        (DataConfig("vigor", area="cross"), "VIGOR cross-area"),
        (DataConfig("university1652"), "University-1652"),
        (DataConfig("sues200", height_m=250), "SUES-200 250 m"),
        (DataConfig("denseuav"), "DenseUAV"),
        (DataConfig("gtauav"), "GTA-UAV same-area"),
        (OWN, "own photos"),
    ],
)
def test_opening_looks_at_no_picture(tmp_path: Path, config: DataConfig, name: str) -> None:
    assert open_dataset(config, tmp_path).name == name


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_dataset(DataConfig("cvusa"), tmp_path / "none")
    assert str(error.value) == (
        f"--data {tmp_path / 'none'}: no such folder; give the folder of the data set"
    )


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (DataConfig("vigour"), "kind = 'vigour' is no data set; did you mean 'vigor'?"),
        (DataConfig("imagenet"), f"kind = 'imagenet' is no data set; known are {KNOWN}"),
        (DataConfig("vigor", area="north"), "area = 'north' must be one of same, cross"),
        (DataConfig("gtauav", area=""), "area = '' must be one of same, cross"),
        (
            DataConfig("sues200", height_m=100),
            "height_m = 100 must be one of 150, 200, 250, 300",
        ),
        (
            DataConfig("cvusa", val_share=1.0),
            "val_share = 1 must be 0 or more and less than 1",
        ),
        (
            dataclasses.replace(OWN, source=""),
            "kind = 'own' needs source: photos is a CSV or a folder, source the imagery as for "
            "s4g-pack --source",
        ),
        (
            dataclasses.replace(OWN, footprint_m=0.0),
            "footprint_m = 0 must be above 0: the side of a tile on the ground, metres",
        ),
        (
            dataclasses.replace(OWN, stride=1.5),
            "stride = 1.5 must be above 0 and up to 1: the step between tiles as a share of their "
            "side",
        ),
    ],
)
def test_a_value_that_is_not_legal_is_named_with_what_is(config: DataConfig, fault: str) -> None:
    with pytest.raises(InputError) as error:
        check_data_config(config, "recipe mine, [data]")
    assert str(error.value) == f"recipe mine, [data]: {fault}"


def test_values_of_other_kinds_do_not_matter() -> None:
    check_data_config(DataConfig("cvusa", area="", height_m=0, stride=0.0), "recipe mine, [data]")
