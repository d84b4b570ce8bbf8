"""Frames from where the user says: photos, folders, video files, cameras, streams.

A frame of a file arrives encoded and is decoded late, because the pose that comes with it tells
how much detail is needed. Clocks: `t` is the source's own (position in the video, the driver's
timestamp); `arrived_s` is the monotonic clock, for latencies.
"""

from __future__ import annotations

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
        t: seconds on the source's clock, None for photos.
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


class FrameSource(Protocol):
    """Something that yields frames in order."""

    name: str
    dropped: int  # live frames that were overtaken by newer ones

    @property
    def count(self) -> int | None:
        """Frames to come, None where nobody knows."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            InputError: a file is corrupt.
            S4GError: a live source went silent.
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


def open_frames(source: str) -> FrameSource:
    """Open what follows `--camera`.

    Args:
        source: a device (`/dev/video0` or `0`), a URL, a GStreamer pipeline (`… ! …`), a video
            file, a photo, or a folder of photos.

    Raises:
        InputError: there is no such thing, or this OpenCV cannot open it.
    """
    from .video import LiveCamera, VideoFile

    path = Path(source)
    if source.isdigit() or source.startswith("/dev/") or "://" in source or " ! " in source:
        return LiveCamera(source)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES):
        return PhotoFiles(path)
    if path.is_file():
        return VideoFile(path)
    raise InputError(
        f"--camera {source}: no such file or folder; give a device (/dev/video0), a URL "
        "(rtsp://…), a video, a photo or a folder of photos"
    )
