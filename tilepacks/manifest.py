"""The manifest's values as dataclasses, to JSON and, checked one by one, back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import InputError
from ..core.geo import BBox, LocalFrame
from ..core.pmtiles_directory import MAX_ZOOM
from ..core.spec import EncoderSpec
from .entries import MAX_METRES, Entries
from .tiling import MAX_CELLS, Lattice
from .tuning import SearchPlan
from .variants import MAX_VARIANTS, Variant

_MAX_PX = 1 << 16
MAX_OVERVIEW_PX = 4096  # a side: what is decoded takes 48 MB
MAX_LEVELS = 16
MAX_IMAGERY_TILES = 1 << 26  # of all zooms: some 600 GB; what `verify` looks at has an end


@dataclass(frozen=True)
class LevelRecord:
    """One level as the manifest tells it.

    Attributes:
        lattice: where its tiles may lie.
        count: tiles in the pack (cells without imagery are left out).
        vectors: distinct vectors among them.
        search: how it is searched.
        found: share of probes whose best tile lay within a footprint, by this search; None: not
            measured, since a pack that was cut or merged has no imagery to look at.
    """

    lattice: Lattice
    count: int
    vectors: int
    search: SearchPlan
    found: float | None


@dataclass(frozen=True)
class LayerRecord:
    """One imagery of the region: its name, native metres per pixel, credit and date if known."""

    name: str
    gsd_m: float
    attribution: str
    date: str


@dataclass(frozen=True)
class ProjectionRecord:
    """How embeddings become the pack's vectors.

    Attributes:
        dims: length of the vectors.
        kind: `leading` coordinates, or the columns of a `matrix`.
        shares: of probes that found their place when it was built, by dimensions tried; `full`
            stands for all of them in float.
    """

    dims: int
    kind: str
    shares: dict[str, float]


@dataclass(frozen=True)
class OverviewRecord:
    """Where the picture of the region lies: left and top edge in the frame, pixel size, pixels."""

    west_m: float
    north_m: float
    gsd_m: float
    width_px: int
    height_px: int


@dataclass(frozen=True)
class ImageryRecord:
    """The imagery that a pack carries, a pyramid of WebP tiles in Web Mercator.

    Attributes:
        min_zoom: lowest zoom; the region takes about one tile there.
        max_zoom: highest zoom.
        gsd_m: native, of the imagery it was cut from.
        quality: of WebP, 1 to 100.
        tiles: in all zooms.
    """

    min_zoom: int
    max_zoom: int
    gsd_m: float
    quality: int
    tiles: int


@dataclass(frozen=True)
class Manifest:
    """Everything a pack says about itself besides its sections.

    Attributes:
        tool: program and version that built it.
        spec: contract of the encoder whose vectors it holds.
        layers: the imagery, at least one.
        variants: what every tile was embedded as; a tile's number of it is in `variants` sections.
        projection: of embeddings to vectors.
        bounds: WGS84 box of the region.
        frame: local frame of all metres in the pack.
        min_valid: share of a tile that had to be imagery for it to be packed.
        levels: finest first.
        overview: the picture's place, or None.
        imagery: what the pyramid of imagery is like, or None.
    """

    tool: str
    spec: EncoderSpec
    layers: tuple[LayerRecord, ...]
    variants: tuple[Variant, ...]
    projection: ProjectionRecord
    bounds: BBox
    frame: LocalFrame
    min_valid: float
    levels: tuple[LevelRecord, ...]
    overview: OverviewRecord | None
    imagery: ImageryRecord | None = None

    def to_values(self) -> dict[str, Any]:
        """Return the manifest as JSON values."""
        return {
            "tool": self.tool,
            "encoder": json.loads(self.spec.to_json()),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "variants": [dataclasses.asdict(variant) for variant in self.variants],
            "projection": dataclasses.asdict(self.projection),
            "bounds": dataclasses.asdict(self.bounds),
            "frame": dataclasses.asdict(self.frame),
            "min_valid": self.min_valid,
            "levels": [dataclasses.asdict(level) for level in self.levels],
            "overview": None if self.overview is None else dataclasses.asdict(self.overview),
            "imagery": None if self.imagery is None else dataclasses.asdict(self.imagery),
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any], origin: str) -> Manifest:
        """Read JSON values; entries it does not know are passed over (later minor versions).

        Raises:
            InputError: the encoder spec is of another version.
            ValueError: an entry is missing, of another type or out of range; the message names it.
        """
        entries = Entries(values, "")
        bounds, frame = (entries.object(k) for k in ("bounds", "frame"))
        try:
            box = BBox(*(bounds.number(k, -180, 180) for k in ("west", "south", "east", "north")))
        except InputError as error:
            raise ValueError(str(error)) from None
        levels = entries.value("levels", list)
        overview = entries.value("overview", dict, type(None))
        imagery = entries.value("imagery", dict, type(None))
        if not 1 <= len(levels) <= MAX_LEVELS:
            raise ValueError(f"its manifest has {len(levels)} levels")
        layers = tuple(
            _layer(Entries(v, f"layers.{i}.")) for i, v in enumerate(entries.value("layers", list))
        )
        spec = EncoderSpec.from_json(json.dumps(entries.value("encoder", dict)), origin)
        projection = _projection(entries.object("projection"), spec)
        return cls(
            tool=entries.text("tool"),
            spec=spec,
            layers=layers,
            variants=_variants(entries, len(layers)),
            projection=projection,
            bounds=box,
            frame=LocalFrame(frame.number("lat_deg", -90, 90), frame.number("lon_deg", -180, 180)),
            min_valid=entries.number("min_valid", 0, 1),
            levels=tuple(_level(Entries(v, f"levels.{i}.")) for i, v in enumerate(levels)),
            overview=None if overview is None else _overview(Entries(overview, "overview.")),
            imagery=None if imagery is None else _imagery(Entries(imagery, "imagery.")),
        )


def _level(entries: Entries) -> LevelRecord:
    place, search = entries.object("lattice"), entries.object("search")
    lattice = Lattice(
        footprint_m=place.number("footprint_m", 1e-3, MAX_METRES),
        input_px=place.integer("input_px", 1, _MAX_PX),
        step_px=place.integer("step_px", 1, _MAX_PX),
        west_m=place.number("west_m", -MAX_METRES, MAX_METRES),
        north_m=place.number("north_m", -MAX_METRES, MAX_METRES),
        columns=place.integer("columns", 1, MAX_CELLS),
        rows=place.integer("rows", 1, MAX_CELLS),
    )
    count = entries.integer("count", 1, MAX_CELLS)
    plan = SearchPlan(
        method=search.value("method", str),
        step=search.integer("step", 1, 16),
        sampled=search.integer("sampled", 0, count),
        dims=search.integer("dims", 0, 1 << 16),
        ef=search.integer("ef", 0, 1 << 16),
        recall_at_1=search.number("recall_at_1", 0, 1),
        recall_at_10=search.number("recall_at_10", 0, 1),
    )
    if plan.method not in ("graph", "sample", "exact"):
        raise ValueError(f"its search method {plan.method!r} is unknown")
    vectors = entries.integer("vectors", 1, count)
    measured = entries.value("found", int, float, type(None)) is not None
    found = entries.number("found", 0, 1) if measured else None
    return LevelRecord(lattice, count, vectors, plan, found)


def _layer(entries: Entries) -> LayerRecord:
    return LayerRecord(
        name=entries.text("name"),
        gsd_m=entries.number("gsd_m", 0, MAX_METRES),
        attribution=entries.text("attribution"),
        date=entries.text("date"),
    )


def _variants(entries: Entries, layers: int) -> tuple[Variant, ...]:
    rows = entries.value("variants", list)
    if not 1 <= len(rows) <= MAX_VARIANTS:
        raise ValueError(f"its manifest has {len(rows)} variants")
    found = []
    for number, row in enumerate(rows):
        one = Entries(row, f"variants.{number}.")
        layer, heading = one.integer("layer", 0, layers - 1), one.number("heading_deg", 0, 360)
        found.append(Variant(layer, heading))
    return tuple(found)


def _projection(entries: Entries, spec: EncoderSpec) -> ProjectionRecord:
    kind = entries.value("kind", str)
    if kind not in ("leading", "matrix"):
        raise ValueError(f"its projection {kind!r} is unknown")
    shares = entries.object("shares")
    return ProjectionRecord(
        dims=entries.integer("dims", 1, spec.embedding_dim),
        kind=kind,
        shares={key: shares.number(key, 0, 1) for key in shares.keys},
    )


def _overview(entries: Entries) -> OverviewRecord:
    return OverviewRecord(
        west_m=entries.number("west_m", -MAX_METRES, MAX_METRES),
        north_m=entries.number("north_m", -MAX_METRES, MAX_METRES),
        gsd_m=entries.number("gsd_m", 1e-6, MAX_METRES),
        width_px=entries.integer("width_px", 1, MAX_OVERVIEW_PX),
        height_px=entries.integer("height_px", 1, MAX_OVERVIEW_PX),
    )


def _imagery(entries: Entries) -> ImageryRecord:
    min_zoom = entries.integer("min_zoom", 0, MAX_ZOOM)
    return ImageryRecord(
        min_zoom=min_zoom,
        max_zoom=entries.integer("max_zoom", min_zoom, MAX_ZOOM),
        gsd_m=entries.number("gsd_m", 1e-6, MAX_METRES),
        quality=entries.integer("quality", 1, 100),
        tiles=entries.integer("tiles", 1, MAX_IMAGERY_TILES),
    )
