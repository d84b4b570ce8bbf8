"""What `--metrics` tells: counters and the latest fix, in Prometheus' text format.

The thread that matches frames adds to plain numbers that it alone writes. Whoever asks is answered
by a thread of its own (`metrics_server`), which reads them as they are: nobody waits for anybody.
Positions are not told.

Source: Prometheus exposition formats, by its own library `prometheus_client`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from .. import __version__
from .board import Board
from .fix import Fix, State
from .observe import Observation

if TYPE_CHECKING:
    from .cli_part import Running
    from .sink_hub import SinkStatus
    from .tracker import Tracker

# Upper bounds, seconds: from TensorRT on a Jetson to a crowded CPU; past half a second every frame
# is too old by default.
LATENCY_BOUNDS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class Counts:
    """Looks on and counts; written by the thread that matches frames, read by any."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.frames = 0
        self.outages = 0
        self.states = dict.fromkeys(State, 0)
        self.reasons: Counter[str] = Counter()
        self.stages_s: dict[str, float] = {}
        self.latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.latency_s = 0.0
        self.latest: tuple[Observation, float] | None = None

    def observe(self, seen: Observation) -> None:
        """Count a frame, or that there is none."""
        self.latest = (seen, time.monotonic())
        fix = seen.fix
        if fix.reason is not None:
            self.reasons[fix.reason.value] += 1
        if seen.frame is None:
            self.outages += 1
            return
        self.frames += 1
        self.states[fix.state] += 1
        if not seen.stages or fix.latency_ms is None:
            return  # not looked at
        for stage, ms in seen.stages.items():
            if stage != "total":
                self.stages_s[stage] = self.stages_s.get(stage, 0.0) + ms / 1e3
        latency_s = fix.latency_ms / 1e3
        self.latency_s += latency_s
        self.latencies[bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1


class Drops(Protocol):
    """A source of frames that knows what it left out."""

    @property
    def dropped(self) -> int:
        """Live frames that were overtaken by newer ones."""
        ...


class Metrics:
    """A collector of `prometheus_client`: turns counts into metric families when asked."""

    def __init__(
        self,
        counts: Counts,
        source: Drops,
        tracker: Tracker | None = None,
        is_live: bool = False,
        outputs: Callable[[], Sequence[SinkStatus]] = tuple,
        about: dict[str, str] | None = None,
    ) -> None:
        """Take what is to be told.

        Args:
            counts: filled by the run.
            source: of the frames.
            tracker: counts places that were taken up anew; None with `--single`.
            is_live: the latest fix is carried on to the moment at which somebody asks.
            outputs: tells how each output fares.
            about: names and versions.
        """
        self._counts, self._source, self._tracker = counts, source, tracker
        self._is_live, self._outputs, self._about = is_live, outputs, about or {}

    def registry(self) -> CollectorRegistry:
        """Return a registry of this collector and of the process (memory, processor time)."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        return registry

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        yield InfoMetricFamily("s4g", "What runs.", value={"version": __version__, **self._about})
        yield from self._frames()
        yield from self._latest()
        yield from self._each_output()
        yield from _board()

    def _frames(self) -> Iterator[Metric]:
        counts = self._counts
        yield CounterMetricFamily("s4g_frames", "Frames processed.", value=counts.frames)
        yield CounterMetricFamily(
            "s4g_frames_dropped",
            "Live frames overtaken by newer ones.",
            value=self._source.dropped,
        )
        yield CounterMetricFamily(
            "s4g_outages", "Times at which the camera had delivered nothing.", value=counts.outages
        )
        states = {state.value: count for state, count in counts.states.items()}
        yield _by("s4g_fixes", "Frames by the state of their fix.", "state", states)
        # Copied at once: the run may add a key meanwhile.
        yield _by("s4g_reasons", "Why there was no match.", "reason", dict(counts.reasons))
        yield _by("s4g_stage_seconds", "Spent on each stage.", "stage", dict(counts.stages_s))
        total, buckets = 0, []
        bounds = [*map(str, LATENCY_BOUNDS_S), "+Inf"]
        for bound, count in zip(bounds, list(counts.latencies), strict=True):
            total += count
            buckets.append((bound, float(total)))
        yield HistogramMetricFamily(
            "s4g_latency_seconds",
            "From a frame's arrival to its fix.",
            buckets=buckets,
            sum_value=counts.latency_s,
        )
        if self._tracker is not None:
            yield CounterMetricFamily(
                "s4g_resets",
                "Times another place was taken up than the one believed before.",
                value=self._tracker.resets,
            )

    def _latest(self) -> Iterator[Metric]:
        """Tell of the latest fix, of a live run carried on to now."""
        latest = self._counts.latest
        if latest is None:
            return
        seen, told_s = latest
        now_s = time.monotonic()
        fix = seen.fix
        if self._is_live and seen.track is not None:
            fix = seen.track.at(now_s)
        states = GaugeMetricFamily("s4g_state", "1 for the present state.", labels=["state"])
        for state in State:
            states.add_metric([state.value], float(fix.state is state))
        yield states
        yield GaugeMetricFamily(
            "s4g_last_frame_age_seconds",
            "Since the run last looked at a frame, or found that there was none.",
            value=max(now_s - told_s, 0.0),
        )
        yield from _known(fix)

    def _each_output(self) -> Iterator[Metric]:
        statuses = list(self._outputs())
        if not statuses:
            return
        # Two outputs may have the same name, where only their settings differ.
        names: Counter[str] = Counter()
        labels = []
        for status in statuses:
            names[status.name] += 1
            number = names[status.name]
            labels.append(status.name if number == 1 else f"{status.name} ({number})")
        for name, text, values in (
            ("sent", "Fixes handed over.", [s.sent for s in statuses]),
            ("dropped", "Fixes overtaken, or without room.", [s.dropped for s in statuses]),
            ("errors", "Fixes that could not be written.", [s.errors for s in statuses]),
            ("let_go", "Clients that were too slow or gone.", [s.let_go for s in statuses]),
        ):
            rows = dict(zip(labels, values, strict=True))
            yield _by(f"s4g_output_{name}", text, "output", rows)
        up = GaugeMetricFamily("s4g_output_up", "0 while it is lost.", labels=["output"])
        for label, status in zip(labels, statuses, strict=True):
            up.add_metric([label], float(status.state == "open"))
        yield up


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _known(fix: Fix) -> Iterator[Metric]:
    """Yield what a fix tells of itself; what it does not tell is left out."""
    for name, text, value in (
        ("s4g_sigma_metres", "Standard deviation per axis.", fix.sigma_m),
        ("s4g_hpl_metres", "Horizontal protection level.", fix.hpl_m),
        ("s4g_anchor_age_seconds", "Since the last match.", fix.anchor_age_s),
    ):
        if value is not None:
            yield GaugeMetricFamily(name, text, value=value)


def _board() -> Iterator[Metric]:
    reading = Board.latest
    if reading is None:
        return
    if reading.temperatures_c:
        zones = GaugeMetricFamily("s4g_temperature_celsius", "By thermal zone.", labels=["zone"])
        for zone, temperature_c in reading.temperatures_c.items():
            zones.add_metric([zone], temperature_c)
        yield zones
        yield GaugeMetricFamily(
            "s4g_throttled",
            "1 while something lowers clocks.",
            value=float(bool(reading.throttled)),
        )
    if reading.over_current_events is not None:
        yield CounterMetricFamily(
            "s4g_over_current_events", "Since boot.", value=reading.over_current_events
        )
    if reading.gpu_load is not None:
        yield GaugeMetricFamily("s4g_gpu_load_ratio", "0 to 1.", value=reading.gpu_load)
    if reading.power_mode is not None:
        yield InfoMetricFamily("s4g_power_mode", "Of nvpmodel.", value={"mode": reading.power_mode})


def metrics_of(running: Running, counts: Counts) -> Metrics:
    """Return the metrics of a run."""

    def outputs() -> list[SinkStatus]:
        from .sink_hub import Outputs

        return [s for one in running.observers if isinstance(one, Outputs) for s in one.status()]

    about = {
        "encoder": running.engine.spec.model_id[:12],
        "backbone": running.engine.spec.backbone,
    }
    return Metrics(counts, running.source, running.tracker, running.is_live, outputs, about)


def exposition(metrics: Metrics) -> Callable[[str], tuple[str, bytes]]:
    """Return what answers a request: its Accept header in, content type and body out."""
    registry = metrics.registry()

    def expose(accept: str) -> tuple[str, bytes]:
        encode, kind = choose_encoder(accept)
        return kind, encode(registry)

    return expose
