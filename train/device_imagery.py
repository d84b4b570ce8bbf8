"""All imagery of a training on the device that trains, and patches cut from it there.

Every level of every pyramid lies in one flat buffer, so that one kernel cuts a whole batch from
many images of many sizes: a GPU cuts and trains on thousands of pairs a second, which no number
of CPU cores could hand to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..core.errors import InputError
from .device_stream import uploaded
from .drone_views import Matrices
from .grounds import Ground

_MAX_PIXELS = 2**31 - 1


class DeviceImagery:
    """The pixels of grounds on a device.

    Attributes:
        levels: (G,) levels of each ground's pyramids.
        dates: (G,) dates of each ground.
    """

    def __init__(self, grounds: Sequence[Ground], device: torch.device) -> None:
        """Copy the pyramids of all dates.

        Raises:
            InputError: the grounds have more pixels than one buffer can hold, or the device has
                too little memory for them.
        """
        images = [level for g in grounds for date in g.dates for level in date]
        sizes = np.array([image.shape[:2] for image in images], np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))])
        if starts[-1] > _MAX_PIXELS:
            raise InputError(
                f"the grounds have {starts[-1] / 1e9:.1f} billion pixels, at most "
                f"{_MAX_PIXELS / 1e9:.1f} fit; leave some out or read them no finer with gsd_m"
            )
        self.levels = np.array([len(g.dates[0]) for g in grounds])
        self.dates = np.array([len(g.dates) for g in grounds])
        self._first = np.concatenate([[0], np.cumsum(self.levels * self.dates)[:-1]])
        try:
            # Four bytes a pixel: one load fetches all of it.
            self._pixels = torch.zeros(int(starts[-1]), 4, dtype=torch.uint8, device=device)
            for image, start in zip(images, starts[:-1], strict=True):
                flat = torch.from_numpy(np.ascontiguousarray(image)).reshape(-1, 3)
                self._pixels[start : start + len(flat), :3] = flat.to(device)
        except torch.cuda.OutOfMemoryError as error:
            raise InputError(
                f"the GPU's memory is too small for {4 * starts[-1] >> 20} MiB of imagery; "
                "leave some grounds out or read them no finer with gsd_m"
            ) from error
        self._packed = self._pixels.view(torch.int32).view(-1)
        self._table = torch.from_numpy(np.column_stack([starts[:-1], sizes])).to(device)
        self.device = device

    def rows(
        self, grounds: npt.NDArray[np.int64], dates: npt.NDArray[np.int64], ratios: Matrices
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Choose the level that is just finer than what is cut from it.

        Args:
            grounds: (N,) index of each patch's ground.
            dates: (N,) index of the date.
            ratios: (N,) pixels of the finest level for each pixel of the patch.

        Returns:
            (N,) images, for `cut`, and (N, 3, 3) from pixels of the finest level to theirs.
        """
        levels = np.clip(np.log2(np.maximum(ratios, 1.0)), 0, self.levels[grounds] - 1).astype(int)
        shrink = 0.5**levels
        maps = np.zeros((len(levels), 3, 3))
        maps[:, 0, 0] = maps[:, 1, 1] = shrink
        maps[:, :2, 2] = (shrink / 2 - 0.5)[:, None]
        maps[:, 2, 2] = 1
        return self._first[grounds] + dates * self.levels[grounds] + levels, maps

    def cut(
        self, images: npt.NDArray[np.int64], pixel_from_patch: Matrices, size_px: int
    ) -> torch.Tensor:
        """Resample patches, bilinearly; beyond its edges an image is mirrored.

        Args:
            images: (N,) from `rows`.
            pixel_from_patch: (N, 3, 3) from pixels of the patch to pixels of the image.
            size_px: S.

        Returns:
            (N, S, S, 3) float32 in [0, 255], on the device.
        """
        table = self._table[uploaded(torch.from_numpy(images), self.device)]
        start, height, width = (column[:, None] for column in table.T)
        maps = uploaded(torch.from_numpy(pixel_from_patch.astype(np.float32)), self.device)
        axis = torch.arange(size_px, device=self.device, dtype=torch.float32)
        row, column = (v.reshape(-1) for v in torch.meshgrid(axis, axis, indexing="ij"))
        x, y, z = (
            maps[:, i, 0, None] * column + maps[:, i, 1, None] * row + maps[:, i, 2, None]
            for i in range(3)
        )
        x0, right = _neighbours(x / z, width)
        y0, below = _neighbours(y / z, height)
        first = start + y0 * width + x0
        # An image one pixel wide or high has no neighbour to that side.
        step_x, step_y = (width > 1).long(), torch.where(height > 1, width, 0)
        out = self._fetch(first) * ((1 - right) * (1 - below))
        out += self._fetch(first + step_x) * (right * (1 - below))
        out += self._fetch(first + step_y) * ((1 - right) * below)
        out += self._fetch(first + step_y + step_x) * (right * below)
        return out.view(len(images), size_px, size_px, 3)

    def _fetch(self, index: torch.Tensor) -> torch.Tensor:
        found = torch.index_select(self._packed, 0, index.reshape(-1))
        return found.view(torch.uint8).view(*index.shape, 4)[..., :3].float()


def _neighbours(place: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pixel before a place (N, P), int64, and how far beyond it lies, (N, P, 1)."""
    last = (size - 1).float()
    period = (2 * last).clamp(min=1)
    place = place.abs() % period
    place = torch.minimum(place, period - place).clamp(max=last)
    before = torch.minimum(place.floor(), (last - 1).clamp(min=0))
    return before.long(), (place - before).clamp(0, 1)[..., None]
