"""`s4g-sim`: a simulated camera flight over any georeferenced imagery."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.console import MainCommand, debug_option, parse_numbers, progress, run_command, say
from ..core.errors import InputError
from ..core.files import atomic_folder, check_output

if TYPE_CHECKING:
    from ..core.camera import Camera
    from ..core.ground import GroundSource
    from .route import Route, Track
    from .simulate import FrameRenderer, Moment, Optics, SensorErrors

_PATH = click.Path(path_type=Path)
_FLIGHT_VERSION = 1
_LANE_SHARE = 0.7  # distance between lanes over the width a frame sees

# What the command accepts; outside it a value is a slip of the pen.
_LIMITS: dict[str, tuple[float, float, str]] = {
    "agl": (1, 20_000, "metres"),
    "speed": (0.1, 300, "metres per second"),
    "fps": (0.01, 120, "frames per second"),
    "hfov": (5, 150, "degrees"),
    "tilt": (0, 15, "degrees"),
    "sway": (0, 15, "degrees"),
    "heading_error": (0, 180, "degrees"),
    "agl_error": (0, 0.5, "a share of the height"),
    "velocity_error": (0, 50, "metres per second"),
    "motion_blur": (0, 100, "milliseconds"),
    "exposure": (0, 3, "f-stops"),
    "vignetting": (0, 0.9, "a share of the brightness"),
    "noise": (0, 60, "8-bit steps"),
    "inset": (0, 1e6, "metres"),
    "spacing": (1, 1e6, "metres"),
}


@dataclass(frozen=True)
class _Numbers:
    """The numbers among the options, each in its unit of `_LIMITS`."""

    agl: float | None
    inset: float | None
    spacing: float | None
    speed: float
    fps: float
    hfov: float
    tilt: float
    sway: float
    heading_error: float
    agl_error: float
    velocity_error: float
    motion_blur: float
    exposure: float
    vignetting: float
    noise: float

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: one is out of range; the message names option, value, range and unit.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            low, high, unit = _LIMITS[field.name]
            if value is not None and not low <= value <= high:
                name = field.name.replace("_", "-")
                raise InputError(f"--{name} {value:g}: expected {low:g} to {high:g} {unit}")


def _number(
    name: str, default: float | None, text: str, metavar: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of a number with its unit as metavar."""
    return click.option(
        f"--{name}",
        type=float,
        default=default,
        show_default=default is not None,
        metavar=metavar,
        help=text,
    )


@click.command(cls=MainCommand, context_settings={"help_option_names": ["--help"]})
@click.option(
    "--source",
    required=True,
    metavar="RASTER|landscape[:KEY=VALUE,…]",
    help="Imagery to fly over: a georeferenced raster, or the procedural landscape "
    "(keys seed, size_m, gsd_m, season, year, light, sensor, lat, lon).",
)
@click.option("--out", required=True, type=_PATH, metavar="FLIGHT", help="Folder to make.")
@click.option("--route", type=_PATH, help="CSV with lat, lon[, agl_m], or GeoJSON LineString.")
@click.option(
    "--pattern",
    type=click.Choice(["lawnmower", "line"]),
    help="Without --route: lanes over the whole source, or one line through it.  "
    "[default: lawnmower]",
)
@_number("inset", None, "Pattern: distance kept from the source's sides (a frame's reach).", "M")
@_number("spacing", None, "Lawnmower: distance between lanes (0.7 of a frame's width).", "M")
@_number("agl", None, "Height above ground.", "M")
@_number("speed", 15.0, "Ground speed.", "M/S")
@_number("fps", 1.0, "Frames per second.", "HZ")
@_number("hfov", 60.0, "Horizontal field of view.", "DEG")
@click.option("--size", default="640x480", show_default=True, metavar="WxH", help="Frame, pixels.")
@click.option("--distortion", metavar="K1,K2", help="Radial lens distortion (OpenCV).")
@_number("tilt", 1.0, "Std of pitch and roll that the telemetry does not report.", "DEG")
@_number("sway", 0.0, "Std of pitch and roll that the telemetry reports.", "DEG")
@_number("heading-error", 2.0, "Std of the reported yaw's error.", "DEG")
@_number("agl-error", 0.02, "Std of the reported height's relative error.", "SHARE")
@_number("velocity-error", 0.3, "Std of the reported speeds' error.", "M/S")
@_number("motion-blur", 2.0, "Exposure time, during which the camera moves on.", "MS")
@_number("exposure", 0.15, "Std of the exposure's wander.", "EV")
@_number("vignetting", 0.15, "Loss of brightness in the corners.", "SHARE")
@_number("noise", 2.0, "Std of pixel noise, of 255.", "STEPS")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["jpg", "png", "mp4"]),
    default="jpg",
    show_default=True,
    help="frames/000000.jpg …, or .png, or one flight.mp4.",
)
@click.option(
    "--jpeg", type=click.IntRange(1, 100), default=90, show_default=True, help="JPEG quality."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of all errors and noise; the same seed gives the same flight.",
)
@click.option("--overwrite", is_flag=True, help="Replace FLIGHT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@debug_option
def cli(
    source: str,
    out: Path,
    route: Path | None,
    pattern: str | None,
    size: str,
    distortion: str | None,
    file_format: str,
    jpeg: int,
    seed: int,
    overwrite: bool,
    as_json: bool,
    **numbers: Any,
) -> None:
    """Render a camera flight over imagery: frames, telemetry as sensors report it, and the truth.

    \b
    Example:
      s4g-sim --source ortho.tif --route mission.csv --agl 120 --out flight
      s4g-sim --source landscape:seed=11,season=autumn,year=1 --agl 150 --out flight
      s4g-run --camera flight/frames --telemetry flight/telemetry.csv \\
              --intrinsics flight/camera.json --truth flight/truth.csv --pack region.s4gpack
    """
    values = _Numbers(**numbers)
    camera = _camera(size, values.hfov, distortion)
    if route is not None:
        _check_route_options(pattern, values)
    check_output(out, overwrite)
    from ..core.sources import open_ground

    with closing(open_ground(source)) as ground:
        waypoints = _waypoints(route, pattern, ground, camera, values)
        track = _track(waypoints, ground, values)
        errors, optics = _imperfections(values)
        from .simulate import FrameRenderer, moments

        flight = moments(track, errors, optics.exposure_ev, seed)
        renderer = FrameRenderer(ground, camera, optics, seed)
        _say_resolution(renderer, ground, flight)
        summary = {
            "frames": len(flight),
            "length_m": round(track.length_m, 1),
            "duration_s": round(float(track.t[-1]), 3),
            "frame_gsd_m": round(renderer.gsd_m(flight[0].true.agl_m), 4),
        }
        settings = {
            "flight_version": _FLIGHT_VERSION,
            "source": source,
            "attribution": ground.attribution,
            "route": waypoints.name,
            **asdict(values),
            "size": [camera.width_px, camera.height_px],
            "distortion": list(camera.distortion),
            "format": file_format,
            "jpeg": jpeg,
            "seed": seed,
            **summary,
        }
        summary |= _write(out, overwrite, renderer, flight, settings, file_format, jpeg, values.fps)
    _report(out, summary, as_json)


def _check_route_options(pattern: str | None, values: _Numbers) -> None:
    for name, given in (
        ("pattern", pattern),
        ("inset", values.inset),
        ("spacing", values.spacing),
    ):
        if given is not None:
            raise InputError(f"--{name}: a pattern is laid only without --route; leave out one")


def _camera(size: str, hfov: float, distortion: str | None) -> Camera:
    from ..core.camera import Camera

    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    width, height = (int(v) for v in match.groups()) if match else (0, 0)
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise InputError(f"--size {size}: expected WIDTHxHEIGHT in pixels, 32 to 8192 each")
    camera = Camera.from_hfov(width, height, hfov)
    if distortion is None:
        return camera
    k1, k2 = parse_numbers(distortion, 2, "--distortion", "two numbers K1,K2 such as -0.1,0.01")
    if k1 == k2 == 0:
        return camera
    return replace(camera, distortion=(k1, k2, 0.0, 0.0))


def _waypoints(
    path: Path | None,
    pattern: str | None,
    ground: GroundSource,
    camera: Camera,
    values: _Numbers,
) -> Route:
    from .route import pattern_route, read_route
    from .simulate import footprint_m

    if path is not None:
        return read_route(path)
    agl = values.agl
    if agl is None:
        raise InputError(
            "--agl: missing; give the height above ground in metres, or a --route with agl_m"
        )
    wide, high = footprint_m(camera, agl)
    # Half a frame's diagonal keeps level frames inside; tilted ones may see past the border.
    inset = math.hypot(wide, high) / 2 if values.inset is None else values.inset
    spacing = _LANE_SHARE * wide if values.spacing is None else values.spacing
    return pattern_route(pattern or "lawnmower", ground.bounds, inset, spacing)


def _track(route: Route, ground: GroundSource, values: _Numbers) -> Track:
    """Fly the route.

    Raises:
        InputError: as `fly`, or none of its frames lies over the source.
    """
    from .route import fly

    track = fly(route, values.agl, values.speed, values.fps)
    box = ground.bounds
    inside = (
        (track.lat_deg >= box.south)
        & (track.lat_deg <= box.north)
        & (track.lon_deg >= box.west)
        & (track.lon_deg <= box.east)
    )
    if not inside.any():
        lat, lon = float(track.lat_deg[0]), float(track.lon_deg[0])
        raise InputError(
            f"{route.name}: starts at lat {lat:.5f}, lon {lon:.5f} and never crosses the source "
            f"(W,S,E,N {box}); check the order of lat and lon, or choose another --source"
        )
    if not inside.all():
        say(f"{route.name}: {int((~inside).sum())} of {len(inside)} frames lie off the source")
    return track


def _imperfections(values: _Numbers) -> tuple[SensorErrors, Optics]:
    from .simulate import Optics, SensorErrors

    errors = SensorErrors(
        values.tilt, values.sway, values.heading_error, values.agl_error, values.velocity_error
    )
    return errors, Optics(values.motion_blur, values.exposure, values.vignetting, values.noise)


def _say_resolution(renderer: FrameRenderer, ground: GroundSource, flight: list[Moment]) -> None:
    finest = renderer.gsd_m(min(moment.true.agl_m for moment in flight))
    if finest < 0.5 * ground.gsd_m:
        say(
            f"note: frames show {finest:.2g} m/px, the source has {ground.gsd_m:.2g} m/px; "
            "they will look soft"
        )


def _write(
    out: Path,
    overwrite: bool,
    renderer: FrameRenderer,
    flight: list[Moment],
    settings: dict[str, Any],
    file_format: str,
    jpeg: int,
    fps: float,
) -> dict[str, Any]:
    from .flight import FrameSink, PhotoSink, VideoSink, write_flight, write_settings

    with atomic_folder(out, overwrite) as folder:
        sink: FrameSink
        if file_format == "mp4":
            sink, suffix = VideoSink(folder, renderer.camera, fps), None
        else:
            suffix = f".{file_format}"
            sink = PhotoSink(folder, suffix, jpeg)
        with progress("rendering", len(flight), "frames") as advance:
            past, least = write_flight(folder, flight, renderer.frame, sink, suffix, advance)
        write_settings(folder, renderer.camera, settings)
    return {"frames_past_border": past, "least_share_on_source": round(least, 4)}


def _report(out: Path, summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"flight": str(out), **summary}))
        return
    click.echo(
        f"{out}: {summary['frames']} frames, {summary['length_m'] / 1e3:.2f} km, "
        f"{summary['duration_s']:.0f} s, {summary['frame_gsd_m']:g} m/px"
    )
    if summary["frames_past_border"]:
        say(
            f"{summary['frames_past_border']} frames see past the source's border "
            f"(black; the worst shows {summary['least_share_on_source']:.0%} of it)"
        )


def main() -> None:
    """Run the command and exit."""
    run_command(cli)


if __name__ == "__main__":
    main()
