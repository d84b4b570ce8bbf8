"""The options of `s4g-pack` that say where imagery comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.console import parse_numbers, say
from ..core.errors import InputError

if TYPE_CHECKING:
    from ..core.geo import BBox
    from ..core.ground import GroundSource

_F = TypeVar("_F", bound=Callable[..., Any])
_SOURCE = (
    "GeoTIFF or other raster, a folder or 'glob*.tif' of them, .mbtiles, .pmtiles, a z/x/y folder, "
    "a STAC item (.json), https://….tif, a template https://…/{z}/{x}/{y}.png, or "
    "landscape[:key=value,…]."
)
_OPTIONS = (
    click.option("--source", help=_SOURCE),
    click.option(
        "--also",
        multiple=True,
        metavar="SOURCE",
        help="The same ground on another date: one more vector for each tile; may be repeated.",
    ),
    click.option("--attribution", default="", help="Credit to show with imagery that names none."),
    click.option(
        "--stretch",
        metavar="LOW,HIGH",
        help="Values of a raster that become black and white.  [default: 8-bit as it is, others by "
        "their 2nd and 98th percentile, told]",
    ),
    click.option("--zoom", metavar="Z|MIN-MAX", help="Zooms to take from a tile server."),
    click.option(
        "--rate",
        type=click.FloatRange(0.01, 1000),
        help="Requests per second to it, at most.  [default: 5]",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 20),
        help="How often a failed request is repeated.  [default: 5]",
    ),
    click.option("--contact", default="", help="Tells the server's operator who asks."),
    click.option(
        "--cache",
        type=click.Path(path_type=Path),
        help="Folder for fetched tiles.  [default: the user's cache]",
    ),
    click.option(
        "--i-have-permission",
        "permission",
        is_flag=True,
        help="For public tile servers that forbid bulk download without an agreement.",
    ),
)


def source_options(command: _F) -> _F:
    """Add the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class SourceOptions:
    """What was given; `bounds` is the region to fetch from a tile server."""

    attribution: str
    stretch: str | None
    zoom: str | None
    rate_per_s: float | None
    retries: int | None
    contact: str
    cache: Path | None
    permission: bool
    bounds: BBox | None

    def open(self, source: str) -> GroundSource:
        """Open one source.

        Raises:
            InputError: it is missing, no imagery, or an option that it needs is.
            S4GError: a server refuses.
        """
        from ..core.sources import open_ground, open_url

        if "{" not in source:
            ground = open_ground(source, None if self.stretch is None else _stretch(self.stretch))
            if self.attribution and not ground.attribution:
                ground.attribution = self.attribution
            return ground
        from ..core.source_xyz_url import DEFAULT_RATE_PER_S, DEFAULT_RETRIES, UrlOptions

        if self.bounds is None:
            raise InputError("--bbox, --area or --route is missing: a tile server has no end")
        if self.zoom is None:
            raise InputError("--zoom is missing: which zooms to take from the tile server")
        first, last = _zooms(self.zoom)
        return open_url(
            source,
            UrlOptions(
                self.attribution,
                first,
                last,
                self.bounds,
                DEFAULT_RATE_PER_S if self.rate_per_s is None else self.rate_per_s,
                self.contact,
                self.cache,
                self.permission,
                DEFAULT_RETRIES if self.retries is None else self.retries,
            ),
        )

    def check(self, sources: Sequence[str]) -> None:
        """Refuse options of tile servers where none of the sources is one.

        Raises:
            InputError: one of them was given; the message names it.
        """
        if any("{" in source for source in sources):
            return
        given = {
            "--zoom": self.zoom,
            "--rate": self.rate_per_s,
            "--retries": self.retries,
            "--contact": self.contact or None,
            "--cache": self.cache,
            "--i-have-permission": self.permission or None,
        }
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    f"{option}: is for tile servers, and none is among the sources; leave it out, "
                    "or give a template such as https://host/{z}/{x}/{y}.png"
                )

    def check_use(self, layers: Sequence[GroundSource]) -> None:
        """Refuse or tell of options that none of the open sources heeds.

        Raises:
            InputError: `--stretch` was given, and none is a raster.
        """
        from ..core.sources import takes_stretch

        if self.stretch is not None and not any(takes_stretch(layer) for layer in layers):
            raise InputError(
                f"--stretch: has no effect on {layers[0].name}, which is no raster; leave it out"
            )
        if self.attribution and all(layer.attribution != self.attribution for layer in layers):
            say(
                f"note: --attribution is not used: {layers[0].name} has its own, "
                f"{layers[0].attribution!r}"
            )


def _stretch(text: str) -> tuple[float, float]:
    low, high = parse_numbers(text, 2, "--stretch", "LOW,HIGH, the values of black and white")
    return low, high


def _zooms(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    try:
        found = int(first), int(last or first)
    except ValueError:
        raise InputError(
            f"--zoom {text}: expected a number or two, for example 19 or 16-19"
        ) from None
    return found
