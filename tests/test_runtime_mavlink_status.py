from dataclasses import replace
from typing import Any

import pytest

from s4g.runtime import mavlink_status as status
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.mavlink_local import Origin

m = pytest.importorskip("pymavlink.dialects.v20.common", reason="needs pymavlink (s4g[telemetry])")
FIX = Fix(frame=0, t=4_294_968.0, state=State.TRACK, hpl_m=24.25, anchor_age_s=0.5)


def over_the_wire(message: Any) -> Any:
    return m.MAVLink(None).decode(bytearray(message.pack(m.MAVLink(None, 1, 197))))


def test_a_companion_and_a_vehicle_of_its_own_have_heartbeats() -> None:
    got = over_the_wire(status.heartbeat(m))
    assert (got.type, got.autopilot) == (18, 8)  # ONBOARD_CONTROLLER, INVALID
    got = over_the_wire(status.heartbeat(m, is_vehicle=True))
    assert (got.type, got.autopilot) == (2, 0)  # QUADROTOR, GENERIC


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("reason", [None, *Reason])
def test_every_state_and_reason_fits_a_text(state: State, reason: Reason | None) -> None:
    got = over_the_wire(status.statustext(m, replace(FIX, state=state, reason=reason)))
    assert got.text == f"s4g: {state.value}" + (f" {reason.value}" if reason else "")
    assert got.severity == {
        State.TRACK: 6, State.INIT: 6, State.ACQUIRING: 6, State.DEGRADED: 5
    }.get(state, 4)  # fmt: skip


def test_values_are_named_where_they_are_known_and_their_clock_wraps() -> None:
    hpl, age = (over_the_wire(v) for v in status.named_values(m, FIX))
    assert (hpl.name, hpl.value, hpl.time_boot_ms) == ("s4g_hpl", 24.25, 704)
    assert (age.name, age.value) == ("anchor_age", 0.5)
    (only,) = status.named_values(m, replace(FIX, hpl_m=None))
    assert over_the_wire(only).name == "anchor_age"


def test_an_origin_is_asked_for_and_set() -> None:
    got = over_the_wire(status.set_origin(m, Origin(47.25, -8.5, 488.125), 42, 1.5))
    assert (got.latitude, got.longitude, got.altitude) == (472500000, -85000000, 488125)
    assert (got.target_system, got.time_usec) == (42, 1_500_000)
    got = over_the_wire(status.ask_origin(m, 42))
    assert (got.command, got.param1, got.target_system) == (512, 49, 42)


def test_timesync_is_answered_on_the_clock_of_the_stamps() -> None:
    got = over_the_wire(status.timesync(m, 123456789, 2.5))
    assert (got.tc1, got.ts1) == (2_500_000_000, 123456789)
