"""A false place for ten seconds, from the frames to what an autopilot would do with the messages.

The autopilots here are *models* of the gates that ArduPilot's EKF3 and PX4's EKF2 put before a
position, written from their sources and a few lines long. Neither autopilot, nor a simulation of
one (SITL), has been run.
"""

import math
import runpy
import select
import socket
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s4g.runtime.fix import State
from s4g.runtime.sink import Moment, parse_sink_url
from s4g.runtime.sink_mavlink import open_sink

m = pytest.importorskip("pymavlink.dialects.v20.common", reason="needs pymavlink (s4g[telemetry])")
toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_runtime_tracker.py"))))
STEP_S = 0.1


@dataclass
class GateModel:
    """A model of how an autopilot weighs positions; it flies on by its own velocity meanwhile.

    Attributes:
        gate: innovations beyond so many standard deviations are refused.
        least_sigma_m: of a measurement, whatever it says of itself.
        retry_s: after so long without one that passed, the next is taken as it is.
        drift_mps: how fast its own position becomes uncertain.
    """

    gate: float
    least_sigma_m: float
    retry_s: float
    drift_mps: float = 0.5
    place_m: complex = 0
    sigma_m: float = 5.0
    passed_s: float = 0.0
    refused: int = 0
    resets: int = 0

    def fly(self, moved_m: complex) -> None:
        self.place_m += moved_m
        self.sigma_m = math.hypot(self.sigma_m, self.drift_mps * STEP_S)

    def take(self, place_m: complex, sigma_m: float, now_s: float) -> None:
        variance = max(sigma_m, self.least_sigma_m) ** 2
        own = self.sigma_m**2
        if abs(place_m - self.place_m) <= self.gate * math.sqrt(own + variance):
            weight = own / (own + variance)
            self.place_m += weight * (place_m - self.place_m)
            self.sigma_m = math.sqrt(own * (1 - weight))
            self.passed_s = now_s
        elif now_s - self.passed_s >= self.retry_s:
            self.place_m, self.sigma_m = place_m, math.sqrt(variance)
            self.passed_s = now_s
            self.resets += 1
        else:
            self.refused += 1


# EK3_POS_I_GATE 500, EK3_POSNE_M_NSE 0.5, 10 s with a velocity; EKF2_AGP0_GATE 3,
# EKF2_AGP0_NOISE 1, reset_timeout_max 7 s.
MODELS = {
    "ardupilot": lambda: GateModel(5.0, 0.5, 10.0),
    "px4": lambda: GateModel(3.0, 1.0, 7.0),
}


class Air:
    """A flight, the output, and the modelled autopilot, on the frames' own clock."""

    def __init__(self, receiver: str) -> None:
        self.flight = toy.Flight()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        kind = {"ardupilot": "gps_input", "px4": "global_position_sensor"}[receiver]
        url = (
            f"mavlink+udp://127.0.0.1:{self.socket.getsockname()[1]}"
            f"?as={receiver}&messages={kind}&sysid=1&ground_alt=400"
        )
        run: Any = SimpleNamespace(tracker=self.flight.tracker, is_live=False, telemetry=None)
        self.sink = open_sink(parse_sink_url(url), run)
        self.model = MODELS[receiver]()
        self.model.place_m = complex(*self.flight.place_m)
        self.model.passed_s = self.flight.t
        self.sent: list[float] = []

    def fly(self, seconds: float, false_m: complex = 0) -> list[State]:
        """Fly on; frames show ground that lies elsewhere by `false_m`."""
        states = []
        for _ in range(round(seconds / toy.PERIOD_S)):
            flight = self.flight
            ahead_m = flight.velocity_mps * toy.PERIOD_S if flight.index else 0.0
            seen_m = flight.place_m + ahead_m + [false_m.real, false_m.imag]
            states.append(flight.step(flight.finding(seen_m)).state)
            for i in range(round(toy.PERIOD_S / STEP_S)):
                t = flight.t + i * STEP_S
                self.model.fly(complex(*flight.velocity_mps) * STEP_S)
                fix = flight.tracker.track.at(t)
                self.sink.send(Moment(fix, None, 0.0, flight.tracker.resets))
                self.hear(t)
        return states

    def hear(self, t: float) -> None:
        while select.select([self.socket], [], [], 0)[0]:
            got = m.MAVLink(None).decode(bytearray(self.socket.recv(999)))
            east, north = self.flight.pack.frame.to_local(got.lat / 1e7, got.lon / 1e7)
            sigma_m = getattr(got, "horiz_accuracy", None) or got.eph
            self.model.take(complex(float(east), float(north)), sigma_m, t)
            self.sent.append(t)

    def error_m(self) -> float:
        """How far the autopilot believes to be from where it is."""
        flown_m = self.flight.velocity_mps * (toy.PERIOD_S - STEP_S)
        return abs(self.model.place_m - complex(*(self.flight.place_m + flown_m)))

    def close(self) -> None:
        self.sink.close()
        self.socket.close()


@pytest.mark.parametrize("false_s", [10.0, 15.0])
@pytest.mark.parametrize("receiver", sorted(MODELS))
def test_a_false_place_is_silence_within_three_seconds_and_no_reset_of_the_model(
    receiver: str, false_s: float
) -> None:
    air = Air(receiver)
    try:
        air.fly(20)
        assert air.sent[-1] == pytest.approx(air.flight.t + 0.4)  # it is being sent
        assert air.error_m() < 10
        began_s = air.flight.t
        states = air.fly(10, complex(700, -600))
        assert states[-1] is State.NO_FIX
        assert air.sent[-1] - began_s < 3.0
        # The tracker takes up a place that frames have seen for over ten seconds; the output holds
        # it back, and the frames that then show the true one again take it back in time.
        air.fly(false_s - 10, complex(700, -600))
        air.fly(40)
        assert air.sent[-1] == pytest.approx(air.flight.t + 0.4)  # it is being sent again
        assert not [t for t in air.sent if began_s + 3 <= t < began_s + false_s]
        assert (air.model.resets, air.model.refused) == (0, 0)
        assert air.error_m() < 10
    finally:
        air.close()


@pytest.mark.parametrize("receiver", sorted(MODELS))
def test_the_model_gives_in_to_a_sender_that_does_not_fall_silent(receiver: str) -> None:
    model = MODELS[receiver]()
    for i in range(130):
        model.fly(0)
        model.take(complex(0 if i < 20 else 900, 0), 5.0, i * STEP_S)
    assert model.resets == 1
    assert model.place_m.real == pytest.approx(900, abs=1)
    assert model.refused == round(model.retry_s / STEP_S) - 1
