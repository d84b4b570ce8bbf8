"""A frame as a JPEG, encoded by whoever asks for it first."""

from __future__ import annotations

import threading

from ..core.jpeg import is_jpeg
from .frame_buffers import FrameBuffers, Pixels
from .frames import Frame

_QUALITY = 85


class FrameJpeg:
    """A frame that stays what it is; several threads may ask for it."""

    def __init__(self, encoded: bytes | None, pixels: Pixels | None) -> None:
        """Keep a frame: encoded, or as (H, W, 3) uint8 RGB that nobody writes to."""
        self._lock = threading.Lock()
        self._encoded = encoded
        self._pixels = pixels

    def bytes(self) -> bytes:
        """Return the frame as a JPEG, at full size."""
        with self._lock:
            if self._encoded is None:
                from ..core.images import encode_rgb

                assert self._pixels is not None
                self._encoded = encode_rgb(self._pixels, ".jpg", _QUALITY)
                self._pixels = None
            return self._encoded


def keep_frame(frame: Frame, buffers: FrameBuffers) -> FrameJpeg | None:
    """Return a frame to encode later; one that is no JPEG already is copied, about 1 ms at full HD.

    Args:
        frame: of any source.
        buffers: of the calling thread.

    Returns:
        None where the frame has neither a JPEG nor pixels.
    """
    if frame.encoded is not None and is_jpeg(frame.encoded):
        return FrameJpeg(frame.encoded, None)
    if frame.decoded is None:
        return None
    pixels = buffers.take(frame.decoded.shape)
    pixels[:] = frame.decoded
    return FrameJpeg(None, pixels)
