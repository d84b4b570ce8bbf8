"""What a data set gives: pairs to train on and retrieval tasks to be judged by.

One small interface for all: a module `data_*.py` reads one layout on disk and returns these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .relations import Indices, Relations, Weights

Image = npt.NDArray[np.uint8]


class UnreadableImageError(InputError):
    """One picture of a set cannot be read; the message names the file."""


class Images(Protocol):
    """Pictures by number. Cheap to copy into a worker process."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def name(self, index: int) -> str:
        """Return what a user would recognise: a path, or a place."""
        ...

    def read(self, index: int, height_px: int, width_px: int) -> Image:
        """Return the picture resized to (height_px, width_px, 3) uint8 RGB.

        Raises:
            UnreadableImageError: the file is missing or damaged.
        """
        ...


@dataclass(frozen=True)
class Positions:
    """Where pictures were taken, or what they show.

    Attributes:
        coordinates: (N, 2) float64: latitude, longitude in WGS84 degrees, or x, y in metres.
        kind: `wgs84` or `metres`.
    """

    coordinates: npt.NDArray[np.float64]
    kind: Literal["wgs84", "metres"]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.coordinates)

    def take(self, rows: npt.NDArray[np.integer]) -> Positions:
        """Return some of the positions."""
        return Positions(self.coordinates[rows], self.kind)


@dataclass(frozen=True)
class PairSet:
    """Training pairs.

    A *query* is what a camera saw (a drone's view, a panorama), a *reference* a map tile. The
    unit of training is a pair of both that show one place.

    Attributes:
        name: for messages and the model card.
        queries: Q pictures.
        references: R pictures.
        pair_query: (P,) int32.
        pair_reference: (P,) int32.
        pair_weight: (P,) float32, 1 or the overlap (IoU) of the two views, above 0.
        relations: Q rows over R references; holds every pair, other positives, semi-positives.
        geometry: `nadir` where both views look down, `panorama` where the query is a street
            panorama whose columns are headings and whose middle looks north.
        reference_positions: R positions, where known.
    """

    name: str
    queries: Images
    references: Images
    pair_query: Indices
    pair_reference: Indices
    pair_weight: Weights
    relations: Relations
    geometry: Literal["nadir", "panorama"] = "nadir"
    reference_positions: Positions | None = None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pair_query)


@dataclass(frozen=True)
class RetrievalTask:
    """Queries to be found in a gallery.

    Attributes:
        name: the direction, such as `drone→satellite`.
        protocol: which gallery and rules; printed with every figure.
        queries: all pictures of the query side.
        gallery: all pictures of the gallery side.
        positives: one row a picture of `queries` over the pictures of `gallery`; weights above 0.
        query_view: whether the queries have the size of the model's `query` or `reference` input.
        gallery_view: the same for the gallery.
        query_rows: (q,) int32, the pictures of `queries` that are asked; None: all of them.
        gallery_rows: (g,) int32, the pictures of `gallery` that compete; None: all of them.
        semi_positives: relations that the hit rate ignores (VIGOR); None: no hit rate.
        one_percent_k: k of "R@1%" under this protocol.
        metrics: which groups of figures the protocol reports: `recall`, `ap`, `hit_rate`, `sdm`.
        query_positions: one position a picture of `queries`, where known.
        gallery_positions: one position a picture of `gallery`, where known.
    """

    name: str
    protocol: str
    queries: Images
    gallery: Images
    positives: Relations
    one_percent_k: int
    query_view: Literal["query", "reference"] = "query"
    gallery_view: Literal["query", "reference"] = "reference"
    query_rows: Indices | None = None
    gallery_rows: Indices | None = None
    semi_positives: Relations | None = None
    metrics: tuple[str, ...] = ("recall",)
    query_positions: Positions | None = None
    gallery_positions: Positions | None = None


@dataclass(frozen=True)
class Count:
    """How many pictures, places or pairs were found, and how many the official set has.

    Attributes:
        what: such as `train satellite images`.
        found: as read.
        official: as published; None where no figure is published.
    """

    what: str
    found: int
    official: int | None = None


class Dataset(Protocol):
    """One data set on disk."""

    name: str

    def training(self) -> PairSet:
        """Return the pairs of the official training split."""
        ...

    def tasks(self) -> list[RetrievalTask]:
        """Return the retrieval tasks of the official test split, every protocol apart."""
        ...

    def counts(self) -> list[Count]:
        """Return the counts of both splits; a split that is not on disk counts 0."""
        ...


@dataclass(frozen=True)
class DataConfig:
    """The `[data]` table of a recipe.

    Attributes:
        kind: `cvusa`, `cvact`, `vigor`, `university1652`, `sues200`, `denseuav`, `gtauav` or
            `own`.
        area: VIGOR and GTA-UAV: `same` or `cross`.
        height_m: SUES-200: 150, 200, 250 or 300.
        val_share: share of the training places held out to select the checkpoint by.
        photos: `own`: a CSV of photos with coordinates, or a folder of them with GPS in EXIF.
        source: `own`: the imagery to cut tiles from, as for `s4g-pack --source`.
        footprint_m: `own`: side of the tiles on the ground, metres.
        stride: `own`: step between tiles, share of the footprint.
        gsd_min_m: finest ground size of a pixel at the model's input, metres, for the encoder's
            spec; 0 together with `gsd_max_m`: not known.
        gsd_max_m: coarsest.
        north_up: whether both views are north-up; a drone's frames must be turned then.
        credit: what to credit in the model card.
    """

    kind: str
    area: str = "same"
    height_m: int = 150
    val_share: float = 0.1
    photos: str = "photos.csv"
    source: str = ""
    footprint_m: float = 0.0
    stride: float = 0.5
    gsd_min_m: float = 0.0
    gsd_max_m: float = 0.0
    north_up: bool = False
    credit: str = ""


DATA_KINDS = (
    "cvusa",
    "cvact",
    "vigor",
    "university1652",
    "sues200",
    "denseuav",
    "gtauav",
    "own",
)
# Their queries are street panoramas.
PANORAMA_KINDS = ("cvusa", "cvact", "vigor")
