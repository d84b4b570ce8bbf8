import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime.fix import Candidate, Fix, Reason, State
from s4g.runtime.score_read import parse_fix, read_fixes

TRACK = Fix(
    3, 1.5, State.TRACK, "a.jpg", lat=47.0, lon=8.0, sigma_m=2.0, hpl_m=7.44, anchor_age_s=0.0,
    score=0.8, latency_ms=12.0, top=(Candidate(47.0, 8.0, 40.0, 0.8),),
).to_json()  # fmt: skip
REFUSED = Fix(4, 2.0, State.NO_FIX, reason=Reason.DARK, latency_ms=5.0).to_json()


def write(folder: Path, data: bytes) -> Path:
    path = folder / "fixes.jsonl"
    path.write_bytes(data)
    return path


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(TRACK) | changes)


def refusal(line: str) -> str:
    with pytest.raises(InputError) as error:
        parse_fix(line, "fixes.jsonl: line 1")
    return str(error.value)


def test_a_fixes_file_is_read_line_by_line(tmp_path: Path) -> None:
    first, second = read_fixes(write(tmp_path, f"{TRACK}\n{REFUSED}\n".encode()))
    assert (first.frame, first.t, first.file, first.state) == (3, 1.5, "a.jpg", "TRACK")
    assert (first.place, first.sigma_m, first.hpl_m, first.level_m) == ((47.0, 8.0), 2.0, 7.44, 40)
    assert (first.anchor_age_s, first.score, first.latency_ms) == (0.0, 0.8, 12.0)
    assert (second.state, second.reason, second.place) == ("NO_FIX", "dark", None)
    assert second.level_m is None


def test_keys_of_newer_programs_are_passed_over() -> None:
    assert parse_fix(changed(resets=3, covariance=[1, 0, 1]), "x").place == (47.0, 8.0)


def test_a_last_line_that_was_cut_is_left_out_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for length in (1, 30, len(REFUSED) - 1):
        path = write(tmp_path, f"{TRACK}\n{REFUSED[:length]}".encode())
        assert [fix.frame for fix in read_fixes(path)] == [3]
        assert capsys.readouterr().err == f"note: {path}: line 2 is cut short and left out\n"


def test_a_whole_last_line_needs_no_line_feed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(read_fixes(write(tmp_path, f"{TRACK}\n{REFUSED}".encode()))) == 2
    assert capsys.readouterr().err == ""


def test_a_last_line_cut_in_the_middle_of_a_letter_is_left_out(tmp_path: Path) -> None:
    cut = changed(file="é.jpg").replace("\\u00e9", "é").encode().split(b"\xa9")[0]
    assert cut.endswith(b"\xc3")
    assert len(read_fixes(write(tmp_path, TRACK.encode() + b"\n" + cut))) == 1


@pytest.mark.parametrize("line", ["{}", "[1]", "nonsense", '{"v":1}', "", TRACK[:-9], "[" * 20_000])
def test_another_line_that_is_no_fix_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"{TRACK}\n{line}\n{REFUSED}\n".encode())
    with pytest.raises(InputError) as error:
        read_fixes(path)
    assert str(error.value) == (
        f"{path}: line 2: not a fix of s4g-run; expected a line of fixes.jsonl"
    )


@pytest.mark.parametrize("data", [b"", b'{"v":1,"t":0.5,"fra'])
def test_a_file_without_a_whole_fix_is_refused(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path, data)
    with pytest.raises(InputError) as error:
        read_fixes(path)
    assert str(error.value) == f"{path}: holds no fixes"


def test_a_picture_is_no_fixes_file(tmp_path: Path) -> None:
    path = write(tmp_path, b"\x89PNG\xff\xd8\n\x00\xff\n")
    with pytest.raises(InputError) as error:
        read_fixes(path)
    assert str(error.value) == f"{path}: not a fixes file; expected UTF-8 JSON lines"


def test_a_newer_format_is_refused() -> None:
    assert refusal(changed(v=2)) == "fixes.jsonl: line 1: fix version 2, expected 1; update s4g"


def test_an_unknown_state_is_refused() -> None:
    assert refusal(changed(state="LOST")) == (
        "fixes.jsonl: line 1: state 'LOST', expected one of INIT, ACQUIRING, TRACK, DEGRADED, "
        "NO_FIX, OUT_OF_PACK"
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lat": math.nan}, "lat nan, expected a finite number from -90 to 90, or null"),
        ({"lon": 181}, "lon 181, expected a finite number from -180 to 180, or null"),
        ({"t": math.inf}, "t inf, expected a finite number, or null"),
        ({"hpl_m": -1}, "hpl_m -1, expected a finite number of at least 0, or null"),
        ({"sigma_m": 0}, "sigma_m 0; expected more than 0 metres, or null for unknown"),
        ({"latency_ms": -1}, "latency_ms -1, expected a finite number of at least 0, or null"),
        ({"lon": None}, "lat 47.0, lon None; expected both or neither"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_named(changes: dict[str, Any], complaint: str) -> None:
    assert refusal(changed(**changes)) == f"fixes.jsonl: line 1: {complaint}"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json.loads(TRACK))), JSON)
def test_whatever_a_key_holds_there_is_a_fix_or_one_line(key: str, value: Any) -> None:
    try:
        fix = parse_fix(changed(**{key: value}), "fixes.jsonl: line 1")
    except InputError as error:
        assert str(error).startswith("fixes.jsonl: line 1: ")
        assert "\n" not in str(error)
    else:
        assert fix.place is None or all(map(math.isfinite, fix.place))
