import math
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime.telemetry_mavlink import Collector, DeviceClock, load_dialect
from s4g.runtime.telemetry_rotation import matrix_of, quaternions, rotation
from s4g.runtime.telemetry_vehicle import Tracks

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_mavlink.py"))))
PILOT = toy.Autopilot()


def collected(*messages: tuple[float, bytes], **more: object) -> Collector:
    """Return a collector that received messages at these times."""
    collector = Collector(Tracks(), **more)
    parser = toy.common.MAVLink(None)
    parser.robust_parsing = True
    for received_s, data in messages:
        for message in parser.parse_buffer(data) or ():
            collector.add(message, received_s)
    return collector


def value(track, t: float) -> float:
    return float(track.at(t)[0][0])


def test_attitude_is_in_radians_and_becomes_a_rotation() -> None:
    tracks = collected((50.0, PILOT.attitude(1.0, 0.5, -0.2, 0.1))).tracks
    expected = rotation(*np.degrees([0.5, -0.2, 0.1]))
    np.testing.assert_allclose(matrix_of(tracks.body.at(50.0)[0]), expected, atol=1e-6)


def test_height_is_in_millimetres_and_velocity_in_centimetres_per_second() -> None:
    messages = [PILOT.attitude(1.0, 0), PILOT.global_position(1.0, 80.5, 5.25, -3.5)]
    tracks = collected((50.0, b"".join(messages))).tracks
    assert value(tracks.relative_m, 50.0) == 80.5
    assert tracks.velocity_mps.at(50.0)[0].tolist() == [5.25, -3.5]


def test_a_velocity_of_zeros_is_taken_for_unknown() -> None:
    messages = [PILOT.attitude(1.0, 0), PILOT.global_position(1.0, 80.5, 0.0, 0.0)]
    assert len(collected((50.0, b"".join(messages))).tracks.velocity_mps) == 0


def test_local_velocity_goes_before_the_global_ones() -> None:
    pilot = toy.Autopilot()
    tracks = collected(
        (50.0, pilot.attitude(1.0, 0)),
        (50.1, pilot.local_position(1.1, 0.0, 0.0)),
        (50.2, pilot.global_position(1.2, 80.0, 9.0, 9.0)),
    ).tracks
    assert tracks.velocity_mps.at(50.2)[0].tolist() == [0.0, 0.0]


def test_distance_is_in_centimetres_and_must_look_down_in_range() -> None:
    messages = [
        PILOT.attitude(1.0, 0),
        PILOT.distance(1.0, 4150),
        PILOT.distance(1.1, 3000, orientation=0),
        PILOT.distance(1.2, 12000),
        PILOT.distance(1.3, 20),
        PILOT.distance(1.4, 3000, quality=1),
    ]
    tracks = collected((50.0, b"".join(messages))).tracks
    assert len(tracks.range_m) == 1
    assert value(tracks.range_m, 50.0) == 41.5


def test_a_terrain_height_counts_where_there_is_terrain_data() -> None:
    messages = [PILOT.attitude(1.0, 0), PILOT.terrain(55.5), PILOT.terrain(99.0, spacing=0)]
    tracks = collected((50.0, b"".join(messages))).tracks
    assert len(tracks.terrain_m) == 1
    assert value(tracks.terrain_m, 50.0) == 55.5


def test_a_gimbal_says_where_its_yaw_counts_from() -> None:
    gimbal = toy.Autopilot(component=154)
    q = quaternions([[30, -80, 0]])[0]
    messages = [PILOT.attitude(1.0, 0), gimbal.gimbal(1.0, q, 32), gimbal.gimbal(1.1, -q, 64)]
    tracks = collected((50.0, b"".join(messages))).tracks
    for track in (tracks.gimbal_nose, tracks.gimbal_north):
        assert len(track) == 1
        np.testing.assert_allclose(matrix_of(track.at(50.0)[0]), rotation(30, -80, 0), atol=1e-6)


def test_of_several_gimbals_the_first_counts() -> None:
    q = quaternions([[30, -80, 0]])[0]
    messages = [
        PILOT.attitude(1.0, 0),
        PILOT.gimbal(1.0, q, 64, gimbal_id=1),
        PILOT.gimbal(1.1, q, 64, gimbal_id=2),
        toy.Autopilot(component=171).gimbal(1.2, q, 64, gimbal_id=1),
        PILOT.gimbal(1.3, q, 64, gimbal_id=1),
    ]
    assert len(collected((50.0, b"".join(messages))).tracks.gimbal_north) == 2


def test_the_first_autopilot_is_the_one_and_other_systems_are_counted() -> None:
    other = toy.Autopilot(system=2)
    collector = collected(
        (50.0, other.global_position(1.0, 11.0)),
        (50.1, PILOT.attitude(1.0, 1.0)),
        (50.2, other.attitude(1.1, 2.0)),
        (50.3, other.global_position(1.2, 22.0)),
    )
    assert collector.system == 1
    assert len(collector.tracks.body) == 1 and len(collector.tracks.relative_m) == 0
    assert collector.counts.foreign == 2


def test_a_named_system_is_listened_to_alone() -> None:
    collector = collected(
        (50.0, PILOT.attitude(1.0, 1.0)),
        (50.1, toy.Autopilot(system=9).attitude(1.1, 2.0)),
        system=9,
    )
    assert (len(collector.tracks.body), collector.counts.foreign) == (1, 1)


def test_what_a_gimbal_or_computer_says_of_itself_is_not_the_vehicles() -> None:
    """Our own messages among them: they come back where a router repeats them."""
    ours = toy.Autopilot(component=197)
    messages = [
        toy.Autopilot(component=154).attitude(0.9, 2.0),
        PILOT.attitude(1.0, 1.0),
        toy.Autopilot(component=154).attitude(1.1, 2.0),
        ours.global_position(1.2, 11.0, 9.0, 9.0),
        ours.local_position(1.3, 9.0, 9.0),
    ]
    tracks = collected((50.0, b"".join(messages))).tracks
    assert len(tracks.body) == 1
    assert len(tracks.relative_m) == len(tracks.velocity_mps) == 0


@pytest.mark.parametrize("angles", [(math.nan, 0, 0), (0, math.nan, 0), (0, 0, math.inf)])
def test_attitude_that_is_no_number_is_counted_as_damaged(angles: tuple[float, ...]) -> None:
    collector = collected((50.0, PILOT.attitude(1.0, *angles)))
    assert len(collector.tracks.body) == 0
    assert (collector.counts.rows, collector.counts.damaged) == (0, 1)


def test_messages_that_come_late_are_dropped_and_counted() -> None:
    collector = collected(
        (50.0, PILOT.attitude(1.0, 0.1)),
        (50.2, PILOT.attitude(1.2, 0.3)),
        (50.3, PILOT.attitude(1.1, 0.2)),
        (50.4, PILOT.attitude(1.2, 0.3)),
    )
    assert (collector.counts.rows, collector.counts.older) == (2, 2)


def test_messages_of_different_kinds_may_overtake_each_other() -> None:
    collector = collected(
        (50.0, PILOT.attitude(1.0, 0.1)), (50.1, PILOT.global_position(0.9, 80.0))
    )
    assert collector.counts.older == 0


@pytest.mark.parametrize("forget", [False, True])
def test_an_autopilot_that_restarts_begins_anew(forget: bool) -> None:
    messages = [
        (50.0, PILOT.attitude(600.0, 1.0)),
        (50.1, PILOT.global_position(600.1, 80.0)),
        (60.0, PILOT.attitude(0.5, 2.0)),
        (60.1, PILOT.attitude(0.6, 2.0)),
    ]
    collector = collected(*messages, forget=forget)
    assert collector.counts.restarts == 1
    assert len(collector.tracks.relative_m) == (0 if forget else 1)
    assert collector.tracks.body.last_s == pytest.approx(60.1)


def test_a_sender_without_a_clock_counts_at_the_time_of_reception() -> None:
    tracks = collected((50.0, PILOT.attitude(0, 0.1)), (50.5, PILOT.attitude(0, 0.3))).tracks
    assert (tracks.body.first_s, tracks.body.last_s) == (50.0, 50.5)


def test_damaged_bytes_are_counted_and_cost_no_whole_message() -> None:
    message = PILOT.attitude(1.0, 0.1)
    wrong = bytearray(PILOT.attitude(1.1, 0.1))
    wrong[12] ^= 0xFF
    collector = collected((50.0, b"noise" + message + bytes(wrong) + PILOT.attitude(1.2, 0.2)))
    assert (collector.counts.rows, collector.counts.damaged) == (2, 2)


def test_a_burst_after_a_stall_keeps_the_times_at_which_it_was_made() -> None:
    first = [(50.0 + i / 10, PILOT.attitude(1.0 + i / 10, 0)) for i in range(5)]
    burst = [(52.0, PILOT.attitude(1.5 + i / 10, 0)) for i in range(15)]
    body = collected(*first, *burst).tracks.body
    assert body.at(51.0)[1] == pytest.approx(0.0, abs=0.01)
    assert body.last_s == pytest.approx(51.9, abs=0.01)


@given(st.lists(st.floats(0, 0.3), min_size=5, max_size=50), st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_clocks_distance_is_that_of_the_quickest_message(
    delays_s: list[float], device_s: float, ours_s: float
) -> None:
    clock = DeviceClock()
    for i, delay_s in enumerate(delays_s):
        made_s = i / 10
        local_s = clock.local_s(device_s + made_s, ours_s + made_s + delay_s)
        late_s = local_s - (ours_s + made_s)
        quickest_s = min(delays_s[: i + 1])
        # It may creep up by a millisecond per second.
        assert quickest_s - 1e-6 <= late_s <= quickest_s + 1e-3 * (made_s + 0.3) + 1e-6
        assert late_s <= delay_s + 1e-6


def test_a_delay_that_has_grown_for_good_is_believed_after_a_while() -> None:
    clock = DeviceClock()
    clock.local_s(0.0, 100.0)
    for t in range(1, 1001):
        local_s = clock.local_s(float(t), 100.0 + t + 0.2)
    assert local_s == pytest.approx(1100.2)


def test_without_pymavlink_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymavlink.dialects.v20", None)
    with pytest.raises(InputError) as error:
        load_dialect("a.tlog")
    assert str(error.value) == (
        "a.tlog: MAVLink is read with pymavlink, which is not installed; "
        "pip install 's4g[telemetry]'"
    )
