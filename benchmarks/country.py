"""100 km² of procedural country as a pack with imagery, and a flight over it on another date.

The ground is sixteen landscapes side by side, as GeoTIFFs, packed by `s4g-pack` as a user would;
the flight is a circle over one of them, flown by `s4g-sim` in another season and light. Everything
is kept in a folder and made once, which takes the encoder a quarter of an hour on two free cores.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
from brighton import command

from s4g.core.files import atomic_file, write_bytes
from s4g.core.geo import LocalFrame
from s4g.core.images import read_rgb
from s4g.core.landscape import make_world, render_world
from s4g.core.raster_files import load_rasterio
from s4g.tilepacks.reader import Pack, open_pack

ORIGIN = LocalFrame(47.0, 8.0)
SIDE_M, GSD_M = 2500.0, 0.625  # of one landscape; a pixel of tiles of 80 m
SEED = 7100
FLOWN = 5  # number of the landscape that is flown over
RADIUS_M, SPEED_MPS, FPS, AGL_M = 250.0, 20.0, 10.0, 150.0
_CORNERS = 48  # of the circle
_PACK_DATE, _FLIGHT_DATE = ("summer", 0, 0, "a"), ("autumn", 1, 3, "b")
_VIDEO_CODEC = "mp4v"


@dataclass(frozen=True)
class Country:
    """The files.

    Attributes:
        pack: of the whole country.
        frames: folder of JPEGs.
        telemetry: of the frames.
        truth: of the frames.
        camera: its intrinsics.
        video: the same frames.
        video_telemetry: of the video.
    """

    pack: Path
    frames: Path
    telemetry: Path
    truth: Path
    camera: Path
    video: Path
    video_telemetry: Path


def make_country(work: Path, side: int = 4) -> Country:
    """Return the files, made where they are missing; tell on stderr how long that took.

    Args:
        work: folder that keeps them; made where it is missing.
        side: landscapes in a row; 4 for 100 km².
    """
    folder = work / f"country{side}"
    flight = folder / "flight"
    country = Country(
        folder / "region.s4gpack",
        flight / "frames",
        flight / "telemetry.csv",
        flight / "truth.csv",
        flight / "camera.json",
        folder / "flight.mp4",
        folder / "video.csv",
    )
    ground = folder / "ground"
    ground.mkdir(parents=True, exist_ok=True)
    for number in range(side * side):
        write_ground(ground / f"{number:02}.tif", number, side, _PACK_DATE)
    if not country.pack.exists():
        start = time.monotonic()
        command(
            "s4g-pack", "--source", str(ground), "--levels", "80,160", "--imagery",
            "--out", str(country.pack),
        )  # fmt: skip
        say(f"packed in {time.monotonic() - start:.0f} s")
    if not flight.exists():
        flown, route = folder / "flown.tif", folder / "route.csv"
        number = min(FLOWN, side * side - 1)
        write_ground(flown, number, side, _FLIGHT_DATE)
        write_route(route, number, side)
        start = time.monotonic()
        command(
            "s4g-sim", "--source", str(flown), "--route", str(route), "--agl", f"{AGL_M:g}",
            "--hfov", "75", "--size", "1280x720", "--speed", f"{SPEED_MPS:g}",
            "--fps", f"{FPS:g}", "--sway", "3", "--out", str(flight),
        )  # fmt: skip
        say(f"flown in {time.monotonic() - start:.0f} s")
    if not country.video.exists():
        write_video(country)
    return country


def write_ground(path: Path, number: int, side: int, date: tuple[str, int, int, str]) -> None:
    """Write one landscape as a GeoTIFF, unless it is there."""
    if path.exists():
        return
    start = time.monotonic()
    world = make_world(SEED + number, SIDE_M, GSD_M)
    picture = render_world(world, *date)
    rasterio = load_rasterio()
    west_m, north_m = corner_m(number, side)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "crs": ORIGIN.crs, "tiled": True,
        "width": picture.shape[1], "height": picture.shape[0], "compress": "deflate",
        "transform": rasterio.transform.from_origin(west_m, north_m, GSD_M, GSD_M),
        "photometric": "rgb",
    }  # fmt: skip
    with (
        atomic_file(path) as temporary,
        rasterio.open(temporary, "w", **profile) as file,
    ):
        file.write(picture.transpose(2, 0, 1))
    say(f"{path.name}: {time.monotonic() - start:.0f} s")


def corner_m(number: int, side: int) -> tuple[float, float]:
    """Return the west and north edge of a landscape, metres in the country's frame."""
    row, column = divmod(number, side)
    return (column - side / 2) * SIDE_M, (side / 2 - row) * SIDE_M


def write_route(path: Path, number: int, side: int) -> None:
    """Write a circle around the middle of a landscape; it ends where it began."""
    west_m, north_m = corner_m(number, side)
    lines = ["lat,lon\n"]
    for corner in range(_CORNERS + 1):
        angle = 2 * math.pi * corner / _CORNERS
        east = west_m + SIDE_M / 2 + RADIUS_M * math.sin(angle)
        north = north_m - SIDE_M / 2 + RADIUS_M * math.cos(angle)
        lat, lon = (float(v) for v in ORIGIN.to_wgs84(east, north))
        lines.append(f"{lat:.8f},{lon:.8f}\n")
    write_bytes(path, "".join(lines).encode(), overwrite=True)


def write_video(country: Country) -> None:
    """Write the frames as a video, and telemetry without the column of files."""
    files = sorted(country.frames.iterdir())
    rows, columns = read_rgb(files[0]).shape[:2]
    with atomic_file(country.video) as temporary:
        code = cv2.VideoWriter.fourcc(*_VIDEO_CODEC)
        writer = cv2.VideoWriter(str(temporary), code, FPS, (columns, rows))
        for file in files:
            writer.write(cv2.cvtColor(read_rgb(file), cv2.COLOR_RGB2BGR))
        writer.release()
    with country.telemetry.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    names = [name for name in table[0] if name != "file"]
    with (
        atomic_file(country.video_telemetry, True) as path,
        path.open("w", encoding="utf-8", newline="") as out,
    ):
        writer_csv = csv.DictWriter(out, names, extrasaction="ignore")
        writer_csv.writeheader()
        writer_csv.writerows(table)


def describe_pack(path: Path) -> str:
    """Return what a pack holds, on one line."""
    with open_pack(path) as pack:
        return f"{area_km2(pack):.0f} km², {tile_counts(pack)}, {sizes(pack, path)}"


def area_km2(pack: Pack) -> float:
    """Return the area of a pack's region."""
    west, south, east, north = pack.frame.local_bounds(pack.bounds)
    return (east - west) * (north - south) / 1e6


def tile_counts(pack: Pack) -> str:
    """Return the tiles of each level."""
    records = zip(pack.levels, pack.manifest.levels, strict=True)
    return ", ".join(
        f"{level.count:,} tiles of {level.footprint_m:g} m ({record.search.method}, "
        f"step {record.search.step})"
        for level, record in records
    )


def sizes(pack: Pack, path: Path) -> str:
    """Return the sizes of the file and of its imagery, and the length of its vectors."""
    imagery = pack.section_bytes.get("imagery", 0)
    dims = pack.manifest.projection.dims
    return f"{dims}-d, {path.stat().st_size / 1e6:.0f} MB of which imagery {imagery / 1e6:.0f} MB"


def say(text: str) -> None:
    """Tell something on stderr; stdout is for the tables."""
    print(text, file=sys.stderr, flush=True)
