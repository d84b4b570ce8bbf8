"""A level's imagery, read block by block, cut into tiles, embedded and quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.engine import Engine
from ..core.errors import S4GError
from ..core.geo import BBox, LocalFrame
from ..core.ground import GroundImage, GroundSource
from .quantise import Codes, Floats32, quantise
from .tiling import Block, Cells, Lattice, blocks, cells_inside, hilbert_order

_BATCH = 32
Tile = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EmbeddedLevel:
    """Tiles along a Hilbert curve and their distinct vectors, in the order they first appear.

    Attributes:
        cells: (N,) uint32, the lattice cell of each tile.
        vector_of_tile: (N,) uint32, its vector.
        codes: (V, D) int8.
        scales: (V,) float32.
    """

    cells: Cells
    vector_of_tile: npt.NDArray[np.uint32]
    codes: Codes
    scales: Floats32


def embed_level(
    source: GroundSource,
    frame: LocalFrame,
    region: BBox,
    lattice: Lattice,
    engine: Engine,
    min_valid: float,
    advance: Callable[[int], None] = lambda steps: None,
) -> EmbeddedLevel | None:
    """Embed the tiles of a level that lie in the region and have enough imagery.

    Memory is bounded by one block of imagery and the vectors themselves.

    Args:
        source: the imagery.
        frame: the pack's frame.
        region: WGS84 box; tiles that reach beyond it are left out.
        lattice: the level.
        engine: the encoder.
        min_valid: least share of a tile that must be imagery; the rest of it is black.
        advance: told how many cells are done.

    Returns:
        The level, or None where no tile has enough imagery.

    Raises:
        S4GError: the source is damaged, or the encoder returned a vector that is not finite.
    """
    cells: list[int] = []
    codes: list[Codes] = []
    scales: list[Floats32] = []
    tiles = _tiles(source, frame, cells_inside(lattice, frame, region), lattice, min_valid, advance)
    for batch_cells, images in _batches(tiles):
        try:
            batch_codes, batch_scales = quantise(engine.embed(images))
        except ValueError as error:
            raise S4GError(f"{engine.name}: of its embeddings {error}; export it again") from None
        cells += batch_cells
        codes.append(batch_codes)
        scales.append(batch_scales)
    if not cells:
        return None
    found = np.array(cells, np.uint32)
    order = hilbert_order(lattice, found)
    return _distinct(found[order], np.concatenate(codes)[order], np.concatenate(scales)[order])


def _tiles(
    source: GroundSource,
    frame: LocalFrame,
    inside: npt.NDArray[np.bool_],
    lattice: Lattice,
    min_valid: float,
    advance: Callable[[int], None],
) -> Iterator[tuple[int, Tile]]:
    """Yield cell and image (a view) of every tile with enough imagery."""
    for block in blocks(lattice):
        wanted = inside[
            block.rows.start : block.rows.stop, block.columns.start : block.columns.stop
        ]
        if wanted.any():
            yield from _cut(source.read(frame, block.window), block, lattice, wanted, min_valid)
        advance(len(block.rows) * len(block.columns))


def _cut(
    image: GroundImage,
    block: Block,
    lattice: Lattice,
    wanted: npt.NDArray[np.bool_],
    min_valid: float,
) -> Iterator[tuple[int, Tile]]:
    for i, j in np.argwhere(wanted).tolist():
        top, left = i * lattice.step_px, j * lattice.step_px
        area = np.s_[top : top + lattice.input_px, left : left + lattice.input_px]
        valid = image.valid[area].mean()
        if valid > 0 and valid >= min_valid:
            cell = (block.rows.start + i) * lattice.columns + block.columns.start + j
            yield cell, image.rgb[area]


def _batches(tiles: Iterator[tuple[int, Tile]]) -> Iterator[tuple[list[int], Tile]]:
    cells: list[int] = []
    images: list[Tile] = []
    for cell, image in tiles:
        cells.append(cell)
        images.append(image)
        if len(cells) == _BATCH:
            yield cells, np.stack(images)
            cells, images = [], []
    if cells:
        yield cells, np.stack(images)


def _distinct(cells: Cells, codes: Codes, scales: Floats32) -> EmbeddedLevel:
    numbers: dict[bytes, int] = {}
    first: list[int] = []
    vector_of_tile = np.empty(len(cells), np.uint32)
    for tile, row in enumerate(codes):
        number = numbers.setdefault(row.tobytes(), len(first))
        if number == len(first):
            first.append(tile)
        vector_of_tile[tile] = number
    return EmbeddedLevel(cells, vector_of_tile, codes[first], scales[first])
