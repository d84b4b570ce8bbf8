import json

import pytest

from s4g.runtime.fix import Candidate, Diagnostics, Fix, Reason, State

FIELDS = ["v", "t", "frame", "state", "lat", "lon", "sigma_m", "hpl_m", "ve_mps", "vn_mps"]
FIELDS += ["heading_deg", "agl_m", "source", "anchor_age_s", "score", "latency_ms", "top"]


def test_a_fix_is_one_line_with_the_documented_fields_in_order() -> None:
    fix = Fix(
        frame=3,
        t=1.5,
        state=State.TRACK,
        lat=46.84261,
        lon=-91.99456,
        sigma_m=2.346,
        hpl_m=8.7234,
        heading_deg=45.0,
        agl_m=40.0,
        source="visual",
        anchor_age_s=0.0,
        score=0.81234,
        latency_ms=12.3456,
        top=(Candidate(46.84, -91.99, 36.0, 0.81234),),
    )
    line = fix.to_json()
    assert "\n" not in line
    assert json.loads(line) == {
        "v": 1,
        "t": 1.5,
        "frame": 3,
        "state": "TRACK",
        "lat": 46.84261,
        "lon": -91.99456,
        "sigma_m": 2.35,
        "hpl_m": 8.72,
        "ve_mps": None,
        "vn_mps": None,
        "heading_deg": 45.0,
        "agl_m": 40.0,
        "source": "visual",
        "anchor_age_s": 0.0,
        "score": 0.8123,
        "latency_ms": 12.35,
        "top": [{"lat": 46.84, "lon": -91.99, "level": 36.0, "score": 0.8123}],
    }
    assert list(json.loads(line)) == FIELDS


def test_a_refusal_has_a_reason_and_no_position() -> None:
    value = json.loads(Fix(0, None, State.NO_FIX, file="a.jpg", reason=Reason.TILT).to_json())
    assert list(value) == [*FIELDS, "file", "reason"]
    assert (value["state"], value["reason"], value["file"]) == ("NO_FIX", "tilt", "a.jpg")
    assert value["lat"] is None
    assert value["lon"] is None
    assert value["t"] is None


def test_diagnostics_are_apart_from_the_position() -> None:
    seen = Diagnostics(46.8, -91.9, 0.4, 3.0, 36.0, 3)
    value = json.loads(Fix(0, 0.0, State.NO_FIX, diagnostics=seen).to_json())
    assert value["lat"] is None
    assert value["diagnostics"] == {
        "lat": 46.8,
        "lon": -91.9,
        "mass": 0.4,
        "spread_m": 3.0,
        "level": 36.0,
        "patches": 3,
    }


def test_a_value_that_is_not_finite_never_leaves() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Fix(0, 0.0, State.TRACK, lat=float("nan"), lon=0.0).to_json()
