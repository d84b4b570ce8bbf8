"""Makes the flights: what the camera and the sensors tell, and, in a folder apart, the truth."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from grounds import FLOWN, bounds_of, ground_key, open_date, raster_centers
from kept import code_of, key_of
from scenario import Fault, RouteConfig, Scenario, SensorConfig
from spoil import spoilt

from s4g.core.camera import Camera
from s4g.core.errors import InputError
from s4g.core.files import atomic_folder
from s4g.core.geo import BBox, LocalFrame
from s4g.runtime.flight import PhotoSink, photo_name, write_flight, write_settings
from s4g.runtime.route import Route, Track, fly, pattern_route
from s4g.runtime.simulate import FrameRenderer, Moment, Optics, SensorErrors, moments

RGB = npt.NDArray[np.uint8]

_CIRCLE_POINTS = 120
_SUFFIX = ".jpg"
_COLUMNS = {
    "heading": ("yaw_deg",),
    "tilt": ("pitch_deg", "roll_deg"),
    "height": ("agl_m",),
    "velocity": ("vel_n_mps", "vel_e_mps"),
}
_JUMP = 5.0  # usual ways between two frames, beyond which a drone was carried
# What is told, in the words of the truth's `event` column, where finding begins anew.
_AFTER = {"blackout": "after the dark", "night": "after the night", "blur": "after the blur"}


@dataclass(frozen=True)
class Seen:
    """What a method gets of a flight; no true position is in this folder."""

    folder: Path

    @property
    def frames(self) -> Path:
        """The folder of the pictures."""
        return self.folder / "frames"

    @property
    def clock(self) -> Path:
        """When each frame was taken, by the camera's clock: a CSV of `file` and `t`."""
        return self.folder / "frames.csv"

    @property
    def telemetry(self) -> Path:
        """What the sensors report, a CSV by time."""
        return self.folder / "telemetry.csv"

    @property
    def camera(self) -> Path:
        """The lens."""
        return self.folder / "camera.json"

    @property
    def start(self) -> tuple[float, float, float] | None:
        """Latitude, longitude and radius of what is said of the start, if anything."""
        path = self.folder / "start.json"
        if not path.exists():
            return None
        told = json.loads(path.read_text(encoding="utf-8"))
        return told["lat"], told["lon"], told["radius_m"]


def flight_key(scenario: Scenario, data: Path) -> str:
    """Return what a flight is kept under."""
    made_of = [
        None if part is None else dataclasses.asdict(part)
        for part in (
            scenario.route, scenario.camera, scenario.sensors, scenario.start, *scenario.fault
        )
    ]  # fmt: skip
    code = code_of("benchmarks/flights/making.py")
    return key_of(ground_key(scenario, data), made_of, scenario.seed, code)


def make_flight(
    scenario: Scenario, data: Path, out: Path, advance: Callable[[int], None] = lambda steps: None
) -> tuple[Seen, Path]:
    """Return what is seen of a flight and its truth, making it where that was not done before.

    Raises:
        InputError: the route leaves the ground, or a raster cannot be read.
    """
    folder = out / "flights" / flight_key(scenario, data)
    if not folder.exists():
        with atomic_folder(folder) as made:
            _make(scenario, data, out, made, advance)
    return Seen(folder / "seen"), folder / "truth" / "truth.csv"


def _make(
    scenario: Scenario, data: Path, out: Path, folder: Path, advance: Callable[[int], None]
) -> None:
    config = scenario.camera
    width_px, height_px = config.size_px
    camera = Camera.from_hfov(width_px, height_px, config.hfov_deg)
    optics = Optics(config.exposure_ms, config.exposure_ev, config.vignetting, config.noise)
    seen = folder / "seen"
    truth = folder / "truth"
    seen.mkdir()
    truth.mkdir()
    with closing(open_date(scenario, FLOWN, data, out)) as ground:
        flight = flown_moments(scenario, data)
        renderer = FrameRenderer(ground, camera, optics, scenario.seed)

        def render(moment: Moment) -> tuple[RGB, float]:
            frame, share = renderer.frame(moment)
            for number, fault in enumerate(scenario.fault):
                if fault.from_s <= moment.t < fault.to_s:
                    rng = np.random.default_rng([scenario.seed, 20 + number, moment.index])
                    frame = spoilt(frame, fault.kind, rng)
            return frame, share

        past, least = write_flight(
            seen, flight, render, PhotoSink(seen, _SUFFIX, config.jpeg), _SUFFIX, advance
        )
    written = {"frames": len(flight), "frames_past_border": past, "least_share_on_source": least}
    write_settings(folder, camera, written)
    (folder / "camera.json").rename(seen / "camera.json")
    (seen / "truth.csv").rename(truth / "truth.csv")
    add_events(truth / "truth.csv", scenario.fault)
    _write_clock(seen / "frames.csv", flight)
    hide(seen / "telemetry.csv", scenario.sensors.missing, scenario.fault)
    if scenario.start is not None:
        _write_start(seen / "start.json", scenario, flight[0])


def flown_moments(scenario: Scenario, data: Path) -> list[Moment]:
    """Return where the drone is at each frame and what its sensors say of it.

    Raises:
        InputError: the route leaves the ground.
    """
    bounds = bounds_of(scenario, FLOWN, data)
    track = _track(scenario, bounds, data)
    for fault in scenario.fault:
        if fault.kind == "kidnap":
            track = kidnapped(track, fault)
    inside = (
        (bounds.south <= track.lat_deg) & (track.lat_deg <= bounds.north)
        & (bounds.west <= track.lon_deg) & (track.lon_deg <= bounds.east)
    )  # fmt: skip
    if not inside.all():
        raise InputError(
            f"{scenario.name}: {int((~inside).sum())} of {len(inside)} frames lie off the ground"
        )
    sensors = scenario.sensors
    errors = SensorErrors(
        sensors.tilt_deg,
        sensors.sway_deg,
        sensors.heading_deg,
        sensors.height,
        sensors.velocity_mps,
    )
    flight = moments(track, errors, scenario.camera.exposure_ev, scenario.seed)
    return [misreported(moment, sensors) for moment in flight]


def misreported(moment: Moment, sensors: SensorConfig) -> Moment:
    """Return a moment of a banked drone, whose heading and height are reported wrong."""
    true, told = moment.true, moment.reported
    return dataclasses.replace(
        moment,
        true=dataclasses.replace(true, roll_deg=true.roll_deg + sensors.bank_deg),
        reported=dataclasses.replace(
            told,
            yaw_deg=(told.yaw_deg + sensors.heading_bias_deg) % 360.0,
            roll_deg=told.roll_deg + sensors.bank_deg,
            agl_m=told.agl_m * sensors.height_factor,
        ),
    )


def kidnapped(track: Track, fault: Fault) -> Track:
    """Return a track that goes on elsewhere from a moment on, as if nothing had happened."""
    after = track.t >= fault.from_s
    frame = LocalFrame(float(track.lat_deg[0]), float(track.lon_deg[0]))
    east, north = frame.to_local(track.lat_deg, track.lon_deg)
    lat, lon = frame.to_wgs84(east + fault.by_m[0], north + fault.by_m[1])
    return dataclasses.replace(
        track,
        lat_deg=np.where(after, lat, track.lat_deg),
        lon_deg=np.where(after, lon, track.lon_deg),
    )


def _track(scenario: Scenario, bounds: BBox, data: Path) -> Track:
    route, fps = scenario.route, scenario.camera.fps
    if route.visits is not None:
        return _visits(scenario, data)
    ways = _waypoints(route, bounds)
    track = fly(ways, route.agl_m[0], route.speed_mps, fps)
    # The height changes with the time, not with the waypoints.
    height_m = np.linspace(route.agl_m[0], route.agl_m[-1], len(track.t))
    return dataclasses.replace(track, agl_m=height_m)


def _waypoints(route: RouteConfig, bounds: BBox) -> Route:
    frame = LocalFrame(*bounds.center)
    if route.survey_m is not None:
        west, south, east, north, lane_m = route.survey_m
        box = frame.wgs84_bounds(west, south, east, north)
        return pattern_route("lawnmower", box, 0.0, lane_m)
    if route.circle_m is not None:
        east, north, radius_m, turns = route.circle_m
        angle = np.linspace(0, 2 * math.pi * turns, math.ceil(_CIRCLE_POINTS * turns) + 1)
        points = np.stack([east + radius_m * np.sin(angle), north + radius_m * np.cos(angle)])
    else:
        assert route.points_m is not None
        points = np.array(route.points_m, np.float64).T
    return Route("the scenario's route", *frame.to_wgs84(*points))


def _visits(scenario: Scenario, data: Path) -> Track:
    """Return a track of short straight ways, one over each raster that is visited."""
    route, fps = scenario.route, scenario.camera.fps
    assert route.visits is not None and scenario.rasters is not None
    every, along_m = int(route.visits[0]), route.visits[1]
    centers = raster_centers(scenario.rasters, data)[every - 1 :: every]
    parts = []
    for lat, lon in centers:
        frame = LocalFrame(lat, lon)
        ends = frame.to_wgs84(np.array([0.0, 0.0]), np.array([-along_m / 2, along_m / 2]))
        parts.append(fly(Route("a visit", *ends), route.agl_m[0], route.speed_mps, fps))
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("lat_deg", "lon_deg", "yaw_deg", "agl_m", "vel_n_mps", "vel_e_mps")
    }
    count = len(joined["lat_deg"])
    length_m = sum(part.length_m for part in parts)
    return Track(t=np.arange(count) / fps, length_m=length_m, **joined)


def add_events(truth_csv: Path, faults: tuple[Fault, ...]) -> None:
    """Add to a truth where finding begins anew: where the drone was carried to, after the dark."""
    names, rows = _read(truth_csv)
    lat, lon = (np.array([float(row[name]) for row in rows]) for name in ("lat", "lon"))
    frame = LocalFrame(float(lat[0]), float(lon[0]))
    steps_m = np.hypot(*np.diff(np.stack(frame.to_local(lat, lon)), axis=1))
    carried = set((np.flatnonzero(steps_m > _JUMP * np.median(steps_m)) + 1).tolist())
    over = {fault.to_s: _AFTER[fault.kind] for fault in faults if fault.kind in _AFTER}
    for number, row in enumerate(rows):
        due = [end_s for end_s in over if end_s <= float(row["t"])]
        told = ["kidnap"] * (number in carried) + [over.pop(end_s) for end_s in due]
        row["event"] = " and ".join(told)
    _write(truth_csv, [*names, "event"], rows)


def hide(telemetry_csv: Path, missing: tuple[str, ...], faults: tuple[Fault, ...]) -> None:
    """Take from a telemetry what is never reported, and all of it while it is silent."""
    names, rows = _read(telemetry_csv)
    hidden = {"file"} | {column for name in missing for column in _COLUMNS[name]}
    silent = [fault for fault in faults if fault.kind == "silence"]
    heard = [
        row
        for row in rows
        if not any(fault.from_s <= float(row["t"]) < fault.to_s for fault in silent)
    ]
    _write(telemetry_csv, [name for name in names if name not in hidden], heard)


def _write_clock(path: Path, flight: list[Moment]) -> None:
    rows = [{"file": photo_name(m.index, _SUFFIX), "t": f"{m.t:.3f}"} for m in flight]
    _write(path, ["file", "t"], rows)


def _write_start(path: Path, scenario: Scenario, first: Moment) -> None:
    assert scenario.start is not None
    angle = np.random.default_rng([scenario.seed, 10]).uniform(0, 2 * math.pi)
    off_m = scenario.start.off_m
    frame = LocalFrame(first.lat_deg, first.lon_deg)
    lat, lon = frame.to_wgs84(off_m * math.sin(angle), off_m * math.cos(angle))
    told = {"lat": float(lat), "lon": float(lon), "radius_m": scenario.start.radius_m}
    path.write_text(json.dumps(told) + "\n", encoding="utf-8")


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or []), list(reader)


def _write(path: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
