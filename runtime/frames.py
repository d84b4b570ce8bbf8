"""Frames from where the user says: photos, folders, video files, cameras, streams.

A photo arrives encoded and is decoded late, because the pose that comes with it tells how much
detail is needed. Clocks: `t` is the position in a video, and for live cameras the time of capture
on the machine's monotonic clock; `arrived_s` is always on the latter, for latencies. Files give
every frame they hold, and the same each time; live cameras the newest, or that there is none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.files import read_bytes
from ..core.images import IMAGE_SUFFIXES, decode_rgb, list_images
from ..core.jpeg import is_complete, is_jpeg, jpeg_size

RGB = npt.NDArray[np.uint8]
REDUCTIONS = (8, 4, 2)  # what JPEG decoders offer, coarsest first


@dataclass(frozen=True)
class Frame:
    """One frame, not yet decoded where it comes from a JPEG.

    Attributes:
        index: 0, 1, 2 … in the source; dropped live frames are not counted.
        t: seconds: position in the video, or monotonic time of capture; None for photos.
        file: name of the photo without its folder, None for videos and cameras.
        name: what to call the frame in errors.
        width_px: columns at full size.
        height_px: rows at full size.
        arrived_s: monotonic time at which its bytes were at hand.
        decode_s: seconds already spent on decoding.
        encoded: content of the photo file, None for videos and cameras.
        decoded: (H, W, 3) uint8 RGB, None while a JPEG is encoded.
    """

    index: int
    t: float | None
    file: str | None
    name: str
    width_px: int
    height_px: int
    arrived_s: float
    decode_s: float = 0.0
    encoded: bytes | None = None
    decoded: RGB | None = None

    def rgb(self, max_reduction: int = 1) -> tuple[RGB, int]:
        """Decode to (H, W, 3) uint8 RGB, at 1/reduction of the size where that is cheaper.

        Returns:
            The pixels and the reduction they really have: 1 for all but JPEGs.

        Raises:
            InputError: the photo is corrupt; the message names it.
        """
        if self.decoded is not None:
            return self.decoded, 1
        assert self.encoded is not None
        rgb = decode_rgb(self.encoded, self.name, max_reduction)
        expected = (-(-self.height_px // max_reduction), -(-self.width_px // max_reduction))
        if rgb.shape[:2] != expected:
            raise InputError(
                f"{self.name}: decodes to {rgb.shape[1]}x{rgb.shape[0]} px, its header says "
                f"{self.width_px}x{self.height_px}; replace or remove the file"
            )
        return rgb, max_reduction


@dataclass(frozen=True)
class Outage:
    """A live source delivers nothing, or nothing recent; told again and again while that lasts.

    Attributes:
        t: monotonic time at which this was found, comparable with `Frame.t` of the source.
        arrived_s: the same.
        reason: how long there was no frame and why, as far as is known; one line.
    """

    t: float
    arrived_s: float
    reason: str


@dataclass(frozen=True)
class CameraMode:
    """What a V4L2 device is asked for; OpenCV takes 640 x 480 where nobody asks.

    Attributes:
        width_px: columns.
        height_px: rows.
        fourcc: pixel format, None for what OpenCV chooses.
    """

    width_px: int
    height_px: int
    fourcc: str | None = None


def parse_mode(text: str) -> CameraMode:
    """Read `WxH` or `WxH:FOURCC`, such as `1280x720:MJPG`.

    Raises:
        InputError: it is neither.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)(?::([\x21-\x7e]{4}))?", text)
    if match is None:
        raise InputError(
            f"--camera-mode {text}: not WxH or WxH:FOURCC; give something like 1280x720:MJPG"
        )
    return CameraMode(int(match[1]), int(match[2]), match[3])


@dataclass(frozen=True)
class LiveOptions:
    """How a live source is read.

    Attributes:
        max_age_s: frames taken longer ago than this are not handed on.
        latency_ms: from exposure to arrival, for sources whose driver does not tell: all but V4L2.
        outage_period_s: an outage is told after this long without a frame, and each time it has
            lasted that much longer.
        give_up_s: an outage this long ends the run; None for never.
        mode: what a V4L2 device is asked for.
    """

    max_age_s: float = 0.5
    latency_ms: float = 0.0
    outage_period_s: float = 0.5
    give_up_s: float | None = None
    mode: CameraMode | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: no frame could ever be young enough, or no outage short enough.
        """
        if not 0 <= self.latency_ms < self.max_age_s * 1e3:
            raise InputError(
                f"--latency-ms {self.latency_ms:g}: must be at least 0 and less than --max-age "
                f"{self.max_age_s:g} s, or every frame is too old"
            )
        if self.give_up_s is not None and not self.give_up_s > 0:
            raise InputError(f"--give-up {self.give_up_s:g}: must be more than 0 s")


class FrameSource(Protocol):
    """Something that yields frames in order."""

    name: str

    @property
    def dropped(self) -> int:
        """Live frames that were overtaken by newer ones."""
        ...

    @property
    def count(self) -> int | None:
        """Frames to come, None where nobody knows."""
        ...

    def frames(self) -> Iterator[Frame | Outage]:
        """Yield the frames; a live source also tells that there are none, and does not end.

        Raises:
            InputError: a file is corrupt.
            S4GError: a live source was silent for longer than it may be.
        """
        ...

    def close(self) -> None:
        """Release device, stream or file."""
        ...


class PhotoFiles:
    """One photo or the photos of a folder, in the order of their names."""

    dropped = 0

    def __init__(self, path: Path) -> None:
        """List the files.

        Raises:
            InputError: the folder holds no pictures.
        """
        self.name = str(path)
        self._files = list_images(path) if path.is_dir() else [path]
        self.count = len(self._files)

    def frames(self) -> Iterator[Frame]:
        """Yield the photos; JPEGs still encoded."""
        for index, path in enumerate(self._files):
            arrived_s = time.monotonic()
            data = read_bytes(path)
            size = jpeg_size(data) if is_jpeg(data) else None
            if size is not None:
                if not is_complete(data):
                    raise InputError(
                        f"{path}: a truncated JPEG ({len(data)} bytes); replace or remove the file"
                    )
                yield Frame(index, None, path.name, str(path), *size, arrived_s, encoded=data)
                continue
            # No header of a known shape: decode now, which also tells a corrupt file.
            rgb = decode_rgb(data, str(path))
            yield Frame(
                index,
                None,
                path.name,
                str(path),
                rgb.shape[1],
                rgb.shape[0],
                arrived_s,
                decode_s=time.monotonic() - arrived_s,
                encoded=data,
                decoded=rgb,
            )

    def close(self) -> None:
        """Nothing to release."""


def open_frames(source: str, live: LiveOptions | None = None) -> FrameSource:
    """Open what follows `--camera`.

    Args:
        source: a device (`/dev/video0` or `0`), a URL, a GStreamer pipeline (`… ! …`), a video
            file, a photo, or a folder of photos.
        live: how to read it where it is live; files do not ask.

    Raises:
        InputError: there is no such thing, or this OpenCV cannot open it.
    """
    from .camera import LiveCamera
    from .camera_open import live_kind
    from .video import VideoFile

    path = Path(source)
    if live_kind(source) is not None:
        return LiveCamera(source, live)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES):
        return PhotoFiles(path)
    if path.is_file():
        return VideoFile(path)
    raise InputError(
        f"--camera {source}: no such file or folder; give a device (/dev/video0), a URL "
        "(rtsp://…), a video, a photo or a folder of photos"
    )
