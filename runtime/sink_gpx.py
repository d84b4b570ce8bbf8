"""`--to gpx:FILE`: the track, for maps and log viewers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gpx import GpxTrack, gpx_begins
from .sink import SinkUrl
from .sink_file import create_for
from .sink_track import TrackSink

if TYPE_CHECKING:
    from .cli_part import Running


def open_sink(url: SinkUrl, running: Running) -> TrackSink:
    """Begin a GPX file; `name=` is the track's.

    Raises:
        InputError: the URL names no file, one that exists, or one that cannot be written.
    """
    url.refuse_others(("name",))
    begins = gpx_begins(url.settings.get("name", "s4g-run"))
    return create_for(
        url, "track.gpx", running, lambda file: TrackSink(url.name, file, begins, GpxTrack())
    )
