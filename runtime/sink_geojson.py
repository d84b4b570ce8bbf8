"""`--to geojson:FILE`: the track, for GIS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .geojson import BEGINS, GeoJsonTrack
from .sink import SinkUrl
from .sink_file import create_for
from .sink_track import TrackSink

if TYPE_CHECKING:
    from .cli_part import Running


def open_sink(url: SinkUrl, running: Running) -> TrackSink:
    """Begin a GeoJSON file.

    Raises:
        InputError: the URL names no file, one that exists, or one that cannot be written.
    """
    url.refuse_others(())
    return create_for(
        url,
        "track.geojson",
        running,
        lambda file: TrackSink(url.name, file, BEGINS, GeoJsonTrack()),
    )
