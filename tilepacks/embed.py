"""A block of imagery, cut into tiles and embedded: the unit in which a build works and resumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..core.engine import Engine
from ..core.errors import S4GError
from ..core.geo import LocalFrame
from ..core.ground import GroundImage, GroundSource, GroundWindow
from .quantise import Floats32
from .tiling import Block, Cells, Lattice
from .variants import Variant

# A block is embedded in batches of this many tiles, counted from its first one: what an encoder
# returns may depend in the last bit on what else is in the batch, and a build must be repeatable.
BATCH = 32
_DETAIL_STEPS = 16  # of the stored detail, per grey level

Tile = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EmbeddedBlock:
    """Tiles of a block, variant by variant, from north to south and west to east.

    Attributes:
        cells: (N,) uint32, the lattice cell of each tile.
        variants: (N,) uint8, which of the pack's variants each tile is.
        detail: (N,) uint8, mean gradient of the tile, sixteenths of a grey level per pixel.
        embeddings: (N, D) float16.
    """

    cells: Cells
    variants: Bytes
    detail: Bytes
    embeddings: Halves


def read_block(
    layers: Sequence[GroundSource], frame: LocalFrame, block: Block, margin_px: int
) -> list[GroundImage]:
    """Read the imagery of a block, with a margin around it, from every layer."""
    window = block.window
    margin_m = margin_px * window.gsd_m
    wider = GroundWindow(
        window.west_m - margin_m,
        window.north_m + margin_m,
        window.gsd_m,
        window.width_px + 2 * margin_px,
        window.height_px + 2 * margin_px,
    )
    return [layer.read(frame, wider) for layer in layers]


def embed_block(
    images: Sequence[GroundImage],
    block: Block,
    lattice: Lattice,
    wanted: npt.NDArray[np.bool_],
    variants: Sequence[Variant],
    engine: Engine,
    min_valid: float,
    margin_px: int = 0,
) -> EmbeddedBlock:
    """Embed the tiles of a block that are wanted and have enough imagery.

    Args:
        images: of `read_block`, one for each layer.
        block: where they lie.
        lattice: the level.
        wanted: (rows, columns) of the block: which tiles to consider.
        variants: what to make of each tile.
        engine: the encoder.
        min_valid: least share of a tile that must be imagery; the rest of it is black.
        margin_px: of `read_block`.

    Raises:
        S4GError: the encoder returned a vector that is zero or not finite.
    """
    cells, numbers, detail = [], [], []
    sheets = [_Sheet(image, lattice, block, margin_px) for image in images]
    for number, variant in enumerate(variants):
        sheet = sheets[variant.layer]
        shares = sheet.valid_shares
        kept = np.argwhere(wanted & (shares > 0) & (shares >= min_valid))
        rows, columns = kept[:, 0], kept[:, 1]
        cells.append((block.rows.start + rows) * lattice.columns + block.columns.start + columns)
        numbers.append(np.full(len(kept), number, np.uint8))
        detail.append(sheet.detail[rows, columns])
    tiles = _tiles(sheets, cells, variants, block, lattice)
    batches = _batches(tiles, lattice.input_px)
    found = [checked_embed(engine, batch).astype(np.float16) for batch in batches]
    dim = engine.spec.embedding_dim
    return EmbeddedBlock(
        np.concatenate(cells).astype(np.uint32),
        np.concatenate(numbers),
        np.concatenate(detail),
        np.concatenate([np.empty((0, dim), np.float16), *found]),
    )


def checked_embed(engine: Engine, images: Tile) -> Floats32:
    """Return the embeddings (B, D) float32 of images (B, px, px, 3) uint8.

    Raises:
        S4GError: one is zero or not finite.
    """
    found = engine.embed(images)
    if not (np.isfinite(found).all() and found.any(axis=1).all()):
        raise S4GError(
            f"{engine.name}: an embedding is zero or not finite; export the encoder again"
        )
    return found


class _Sheet:
    """A layer's imagery of a block, and what its tiles have of it."""

    def __init__(self, image: GroundImage, lattice: Lattice, block: Block, margin_px: int) -> None:
        self.rgb = image.rgb
        self._lattice, self._margin_px = lattice, margin_px
        self._shape = len(block.rows), len(block.columns)
        self.valid_shares = self._means(image.valid.astype(np.float32))
        grey = cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        gradient = np.zeros_like(grey)
        gradient[:, 1:] += np.abs(np.diff(grey, axis=1))
        gradient[1:] += np.abs(np.diff(grey, axis=0))
        means = self._means(gradient) * (_DETAIL_STEPS / 2)
        self.detail = np.clip(np.rint(means), 0, 255).astype(np.uint8)

    def _means(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the mean of (H, W) values over every tile, (rows, columns)."""
        side, step = self._lattice.input_px, self._lattice.step_px
        sums = cv2.integral(values, sdepth=cv2.CV_64F)
        top = self._margin_px + step * np.arange(self._shape[0])[:, None]
        left = self._margin_px + step * np.arange(self._shape[1])[None, :]
        total = sums[top + side, left + side] - sums[top, left + side]
        total += sums[top, left] - sums[top + side, left]
        means: npt.NDArray[np.float64] = total / side**2
        return means

    def tile(self, row: int, column: int, heading_deg: float) -> Tile:
        """Return a tile (px, px, 3) whose top points to a heading; a view where that is north."""
        side, step = self._lattice.input_px, self._lattice.step_px
        top, left = self._margin_px + row * step, self._margin_px + column * step
        if heading_deg == 0:
            return self.rgb[top : top + side, left : left + side]
        half = (side - 1) / 2
        # From pixels of the turned tile to those of the sheet: clockwise by the heading.
        turn = cv2.getRotationMatrix2D((half, half), -heading_deg, 1.0)
        turn[:, 2] += left, top
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(self.rgb, turn, (side, side), flags=flags), np.uint8)


def _tiles(
    sheets: Sequence[_Sheet],
    cells: Sequence[npt.NDArray[np.int64]],
    variants: Sequence[Variant],
    block: Block,
    lattice: Lattice,
) -> Iterator[Tile]:
    for variant, own in zip(variants, cells, strict=True):
        for cell in own.tolist():
            row, column = divmod(cell, lattice.columns)
            yield sheets[variant.layer].tile(
                row - block.rows.start, column - block.columns.start, variant.heading_deg
            )


def _batches(tiles: Iterator[Tile], side: int) -> Iterator[Tile]:
    """Yield tiles in batches, all in one buffer: use a batch before taking the next."""
    buffer = np.empty((BATCH, side, side, 3), np.uint8)
    filled = 0
    for tile in tiles:
        buffer[filled] = tile
        filled += 1
        if filled == BATCH:
            yield buffer
            filled = 0
    if filled:
        yield buffer[:filled]
