"""What an ONNX file says about itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from s4g.core.errors import InputError
from s4g.core.files import read_bytes
from s4g.core.onnx_file import EXPORT_KEY, open_to_look, read_facts, read_spec

onnx = pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")


def with_entry(encoder: Path, path: Path, **entries: str) -> Path:
    """Copy an encoder, its metadata replaced."""
    model = onnx.load(encoder)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)
    return path


def test_facts_of_the_exporter_are_read(toy_encoder: Path, tmp_path: Path) -> None:
    path = with_entry(toy_encoder, tmp_path / "a.onnx", **{EXPORT_KEY: '{"macs": 12}'})
    assert read_facts(path) == {"macs": 12}
    assert read_facts(toy_encoder) == {}


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_damaged_facts_are_refused(toy_encoder: Path, tmp_path: Path, text: str) -> None:
    path = with_entry(toy_encoder, tmp_path / "a.onnx", **{EXPORT_KEY: text})
    with pytest.raises(InputError) as caught:
        read_facts(path)
    assert str(caught.value) == (
        f"{path}: its metadata entry s4g_export is damaged; export it again"
    )


def test_facts_of_a_file_that_is_no_onnx_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    with pytest.raises(InputError) as caught:
        read_facts(path)
    assert str(caught.value).startswith(f"{path}: ONNX Runtime cannot load it (")


def test_a_spec_is_read_from_a_session_that_optimises_nothing(toy_encoder: Path) -> None:
    session = open_to_look(toy_encoder, read_bytes(toy_encoder))
    assert read_spec(toy_encoder, session).backbone == "toy"
