"""Pixel buffers that are used again, as soon as nobody looks at them.

A new full-HD array for every frame costs 6 MB of page faults. A buffer is given out again only when
the pool itself is the last that refers to it: numpy lets every view refer to the array whose memory
it shows, so a frame stays as it is for as long as anyone holds it or a part of it, in any thread.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# One being written, one waiting, one with its reader, one that the reader keeps to compare with.
POOLED = 4


class FrameBuffers:
    """Arrays for pixels of one thread; others may hold them, only one may ask for them."""

    def __init__(self, pooled: int = POOLED) -> None:
        """Start without any; keep at most `pooled` for the next time."""
        self._pooled = pooled
        self._buffers: list[Pixels] = []

    def take(self, shape: tuple[int, ...]) -> Pixels:
        """Return a uint8 array of this shape, of any content, that nobody else holds.

        Where readers hold all of the pool's arrays it is a new one.
        """
        if self._buffers and self._buffers[0].shape != shape:
            self._buffers.clear()
        for index in range(len(self._buffers)):
            if _references(self._buffers, index) == _IDLE:
                return self._buffers[index]
        new = np.empty(shape, np.uint8)
        if len(self._buffers) < self._pooled:
            self._buffers.append(new)
        return new


def _references(buffers: list[Pixels], index: int) -> int:
    return sys.getrefcount(buffers[index])


# What the interpreter counts for an array that only its list holds; differs between versions.
_IDLE = _references([np.empty(0, np.uint8)], 0)
