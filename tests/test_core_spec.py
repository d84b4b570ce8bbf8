"""The encoder's contract: what its JSON must hold, and that encoders are never mixed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import EncoderMismatchError, InputError
from s4g.core.spec import SPEC_VERSION, EncoderSpec, check_same_encoder

SPEC = EncoderSpec(
    model_id="0123456789abcdef" * 4,
    backbone="resnet18",
    input_px=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    embedding_dim=256,
    nested_dims=(64, 128, 256),
    gsd_min_m=0.2,
    gsd_max_m=1.5,
    north_up=True,
    temperature=0.05,
    provenance={"recipe": "edge"},
)


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(SPEC.to_json()), **values})


@given(
    st.builds(
        EncoderSpec,
        model_id=st.text("0123456789abcdef", min_size=64, max_size=64),
        backbone=st.text(max_size=20),
        input_px=st.integers(16, 4096),
        mean=st.tuples(*[st.floats(-1, 2)] * 3),
        std=st.tuples(*[st.floats(0.01, 2)] * 3),
        embedding_dim=st.just(512),
        nested_dims=st.lists(st.integers(1, 512), max_size=4).map(tuple),
        gsd_min_m=st.floats(0.01, 1),
        gsd_max_m=st.floats(1, 100),
        north_up=st.booleans(),
        temperature=st.floats(0.001, 1),
        unknown_score=st.floats(-1, 1),
        precision=st.sampled_from(["fp32", "int8"]),
        provenance=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)),
    )
)
def test_a_spec_comes_back_from_its_json(spec: EncoderSpec) -> None:
    assert EncoderSpec.from_json(spec.to_json(), "a.onnx") == spec


def test_the_json_is_canonical_so_that_equal_specs_give_equal_bytes() -> None:
    first = dataclasses.replace(SPEC, provenance={"a": 1, "b": 2})
    second = dataclasses.replace(SPEC, provenance={"b": 2, "a": 1})
    assert first.to_json() == second.to_json()
    assert " " not in first.to_json()


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "{}", "[" * 100_000])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        EncoderSpec.from_json(text, "a.onnx")
    assert str(caught.value) == "a.onnx: its encoder spec is not valid JSON; export it again"


def test_a_spec_of_another_version_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        EncoderSpec.from_json(changed(spec_version=SPEC_VERSION + 1), "a.onnx")
    assert str(caught.value) == ("a.onnx: encoder spec version 2, this program reads 1; update s4g")


def test_an_unknown_entry_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        EncoderSpec.from_json(changed(zoom=17, colour="red"), "a.onnx")
    assert str(caught.value) == "a.onnx: encoder spec has unknown entries colour, zoom"


def test_a_missing_entry_is_named() -> None:
    value = json.loads(SPEC.to_json())
    del value["mean"], value["input_px"]
    with pytest.raises(InputError) as caught:
        EncoderSpec.from_json(json.dumps(value), "a.onnx")
    assert str(caught.value) == "a.onnx: encoder spec lacks input_px, mean; export it again"


@pytest.mark.parametrize(
    "values",
    [
        {"model_id": "short"},
        {"model_id": "Z" * 64},
        {"model_id": 7},
        {"backbone": None},
        {"input_px": 8},
        {"input_px": 224.5},
        {"input_px": "224"},
        {"mean": 0.5},
        {"mean": [0.5, 0.5]},
        {"mean": ["a", "b", "c"]},
        {"std": [0.2, 0.0, 0.2]},
        {"std": [0.2, float("nan"), 0.2]},
        {"embedding_dim": 0},
        {"embedding_dim": 10**400},
        {"nested_dims": [64, 300]},
        {"nested_dims": [0]},
        {"nested_dims": {}},
        {"gsd_min_m": 2.0},
        {"gsd_max_m": float("inf")},
        {"gsd_min_m": 10**400},
        {"temperature": 0},
        {"temperature": -0.05},
        {"unknown_score": float("nan")},
        {"north_up": "yes"},
        {"provenance": []},
    ],
)
def test_a_value_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        EncoderSpec.from_json(changed(**values), "a.onnx")
    assert str(caught.value) == ("a.onnx: encoder spec holds values out of range; export it again")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from([f.name for f in dataclasses.fields(EncoderSpec)]), json_values)
def test_any_json_in_any_entry_gives_a_spec_or_an_input_error(name: str, value: object) -> None:
    try:
        spec = EncoderSpec.from_json(changed(**{name: value}), "a.onnx")
    except InputError as error:
        assert str(error).startswith("a.onnx: encoder spec ")
    else:
        assert json.loads(spec.to_json())[name] == value


def test_artefacts_of_one_encoder_work_together() -> None:
    check_same_encoder("a.onnx", SPEC, "b.s4gpack", dataclasses.replace(SPEC, precision="int8"))


def test_artefacts_of_two_encoders_are_refused_with_both_names() -> None:
    other = dataclasses.replace(SPEC, model_id="f" * 64)
    with pytest.raises(EncoderMismatchError) as caught:
        check_same_encoder("a.onnx", SPEC, "b.s4gpack", other)
    assert str(caught.value) == (
        "a.onnx was made by encoder 0123456789ab, b.s4gpack by encoder ffffffffffff; "
        "use the encoder the pack was built with (--encoder) or build the pack again"
    )
