"""Scenarios: flights written down as TOML files, read into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from s4g.core.errors import InputError
from s4g.core.landscape import SEASONS, SENSORS, STYLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")

FOLDER = Path(__file__).parent / "scenarios"
FAULT_KINDS = ("blackout", "night", "blur", "kidnap", "silence")
MISSING = ("heading", "tilt", "height", "velocity")


@dataclass(frozen=True)
class View:
    """A date of a procedural world: how it looks, not what it is."""

    season: str = "summer"
    year: int = 0
    light: int = 0
    sensor: str = "a"


@dataclass(frozen=True)
class World:
    """Procedural ground at two dates.

    Attributes:
        style: the country.
        seed: which ground; recipes train on others.
        map: the date that is packed.
        flown: the date that is flown over.
        size_m: side of the square.
        gsd_m: metres per pixel.
        changed_share: of the ground, parcel by parcel, that is other ground when it is flown over.
        lake_m: east, north, half width and half height of a lake, from the centre of the world.
    """

    style: str
    seed: int
    map: View = field(default_factory=View)
    flown: View = field(default_factory=View)
    size_m: float = 3000.0
    gsd_m: float = 0.5
    changed_share: float = 0.0
    lake_m: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Rasters:
    """Real imagery of two dates, as paths within the folder of data.

    Attributes:
        map: a raster, or a folder of them.
        flown: another date of the same ground.
    """

    map: str
    flown: str


@dataclass(frozen=True)
class PackConfig:
    """What is packed.

    Attributes:
        levels_m: footprints of the tiles.
        imagery: whether the pack carries its imagery.
        part_m: west, south, east, north from the centre of the ground; None: all of it.
    """

    levels_m: tuple[float, ...] = (80.0, 160.0)
    imagery: bool = True
    part_m: tuple[float, ...] | None = None


@dataclass(frozen=True)
class RouteConfig:
    """Where the drone flies, in metres east and north of the centre of the ground.

    Attributes:
        points_m: waypoints.
        circle_m: east, north of the centre, radius, turns; clockwise, from the north.
        survey_m: west, south, east, north, and the distance of the lanes.
        visits: of every so many-th raster of a folder, instead of a way: [every, metres along].
        agl_m: height above ground: one, or at the start and at the end.
        speed_mps: over ground.
    """

    points_m: tuple[tuple[float, ...], ...] | None = None
    circle_m: tuple[float, ...] | None = None
    survey_m: tuple[float, ...] | None = None
    visits: tuple[float, ...] | None = None
    agl_m: tuple[float, ...] = (200.0,)
    speed_mps: float = 15.0


@dataclass(frozen=True)
class CameraConfig:
    """The camera and what it does to a picture; see docs/simulator.md."""

    hfov_deg: float = 60.0
    size_px: tuple[int, ...] = (640, 480)
    fps: float = 2.0
    exposure_ms: float = 2.0
    exposure_ev: float = 0.15
    vignetting: float = 0.15
    noise: float = 2.0
    jpeg: int = 90


@dataclass(frozen=True)
class SensorConfig:
    """How wrong the telemetry is.

    Attributes:
        tilt_deg: standard deviation of pitch and roll that nothing reports.
        sway_deg: ... that the telemetry reports.
        heading_deg: ... of the reported heading.
        height: ... of the reported height, as a share of it.
        velocity_mps: ... of the reported speeds.
        heading_bias_deg: added to every reported heading.
        height_factor: of every reported height.
        bank_deg: roll of the drone, and so of its camera, reported as it is.
        missing: what is never reported.
    """

    tilt_deg: float = 1.0
    sway_deg: float = 3.0
    heading_deg: float = 2.0
    height: float = 0.02
    velocity_mps: float = 0.5
    heading_bias_deg: float = 0.0
    height_factor: float = 1.0
    bank_deg: float = 0.0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """What befalls the flight.

    Attributes:
        kind: blackout (black frames), night (a sixth of the light), blur, silence (no telemetry),
            or kidnap (the drone goes on elsewhere, which nothing reports).
        from_s: when it begins.
        to_s: when it is over; a kidnap has no end.
        by_m: east, north of a kidnap.
    """

    kind: str
    from_s: float
    to_s: float = math.inf
    by_m: tuple[float, ...] = ()


@dataclass(frozen=True)
class StartConfig:
    """What is said of the start: within `radius_m` of a place that is `off_m` wrong."""

    radius_m: float
    off_m: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """A flight over a map.

    Attributes:
        title: for the table.
        about: one sentence.
        route: where it goes.
        world: procedural ground; or
        rasters: real ground.
        alert_limit_m: fixes farther off are false.
        seed: of all errors and noise.
        name: of its file.
    """

    title: str
    about: str
    route: RouteConfig
    world: World | None = None
    rasters: Rasters | None = None
    pack: PackConfig = field(default_factory=PackConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    sensors: SensorConfig = field(default_factory=SensorConfig)
    fault: tuple[Fault, ...] = ()
    start: StartConfig | None = None
    alert_limit_m: float = 50.0
    seed: int = 0
    name: str = ""


def scenario_files(folder: Path = FOLDER) -> dict[str, Path]:
    """Return the scenarios of a folder by name."""
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_scenario(path: Path) -> Scenario:
    """Read a scenario.

    Raises:
        InputError: it cannot be read, a key is unknown or missing, or a value cannot be.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from None
    scenario = _from_table(Scenario, table, str(path))
    _check(scenario, str(path))
    return dataclasses.replace(scenario, name=path.stem)


def _from_table(kind: type[_T], table: dict[str, Any], where: str) -> _T:
    """Return a dataclass of a table; keys that it does not have are refused."""
    hints = get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind) if f.name != "name"}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"{where}: unknown key {key!r}; {hint}known: {', '.join(known)}")
    for key, one in known.items():
        if key not in table and one.default is one.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: lacks the key {key!r}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where}: {value!r}, expected a list")
        return tuple(_value(get_args(hint)[0], item, where) for item in value)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(f"{where}: {value!r}, expected a table")
        return _from_table(hint, value, where)  # type: ignore[arg-type]
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InputError(f"{where}: {value!r}, expected {hint.__name__}")
    return value


def _check(scenario: Scenario, where: str) -> None:
    """Refuse what no flight can be made of.

    Raises:
        InputError: the message says what.
    """
    route = scenario.route
    ways = (route.points_m, route.circle_m, route.survey_m, route.visits)
    if sum(way is not None for way in ways) != 1:
        raise InputError(
            f"{where}: route: give exactly one of points_m, circle_m, survey_m, visits"
        )
    if (scenario.world is None) == (scenario.rasters is None):
        raise InputError(f"{where}: give exactly one of [world] and [rasters]")
    lengths = (
        ("route.circle_m", route.circle_m, (4,)),
        ("route.survey_m", route.survey_m, (5,)),
        ("route.visits", route.visits, (2,)),
        ("route.agl_m", route.agl_m, (1, 2)),
        ("pack.part_m", scenario.pack.part_m, (4,)),
        ("camera.size_px", scenario.camera.size_px, (2,)),
        ("world.lake_m", scenario.world.lake_m if scenario.world else None, (4,)),
    )
    for name, values, expected in lengths:
        if values is not None and len(values) not in expected:
            wanted = " or ".join(map(str, expected))
            raise InputError(f"{where}: {name}: {len(values)} numbers, expected {wanted}")
    if scenario.world is not None:
        _known(f"{where}: world.style", scenario.world.style, STYLES)
        for view in (scenario.world.map, scenario.world.flown):
            _known(f"{where}: world: season", view.season, SEASONS)
            _known(f"{where}: world: sensor", view.sensor, tuple(SENSORS))
    for missing in scenario.sensors.missing:
        _known(f"{where}: sensors.missing", missing, MISSING)
    for fault in scenario.fault:
        _known(f"{where}: fault.kind", fault.kind, FAULT_KINDS)
        if (fault.kind == "kidnap") != (len(fault.by_m) == 2):
            raise InputError(f"{where}: fault: by_m = [east, north] goes with a kidnap, and only")
        if not fault.from_s < fault.to_s:
            raise InputError(f"{where}: fault: {fault.kind} ends before it begins")


def _known(where: str, value: str, legal: tuple[str, ...]) -> None:
    if value not in legal:
        raise InputError(f"{where}: {value!r}, expected one of {', '.join(legal)}")
