"""The manifest's values as dataclasses, to JSON and, checked one by one, back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import InputError
from ..core.geo import BBox, LocalFrame
from ..core.spec import EncoderSpec
from .tiling import MAX_CELLS, Lattice
from .tuning import SearchPlan
from .variants import MAX_VARIANTS, Variant

_MAX_METRES = 1e8  # farther than any two places on Earth
_MAX_PX = 1 << 16
MAX_OVERVIEW_PX = 4096  # a side: what is decoded takes 48 MB
MAX_LEVELS = 16


@dataclass(frozen=True)
class LevelRecord:
    """One level as the manifest tells it.

    Attributes:
        lattice: where its tiles may lie.
        count: tiles in the pack (cells without imagery are left out).
        vectors: distinct vectors among them.
        search: how it is searched.
        found: share of probes whose best tile lay within a footprint, by this search.
    """

    lattice: Lattice
    count: int
    vectors: int
    search: SearchPlan
    found: float


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
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any], origin: str) -> Manifest:
        """Read JSON values; entries it does not know are passed over (later minor versions).

        Raises:
            InputError: the encoder spec is of another version.
            ValueError: an entry is missing, of another type or out of range; the message names it.
        """
        entries = _Entries(values, "")
        bounds, frame = (entries.object(k) for k in ("bounds", "frame"))
        try:
            box = BBox(*(bounds.number(k, -180, 180) for k in ("west", "south", "east", "north")))
        except InputError as error:
            raise ValueError(str(error)) from None
        levels = entries.value("levels", list)
        overview = entries.value("overview", dict, type(None))
        if not 1 <= len(levels) <= MAX_LEVELS:
            raise ValueError(f"its manifest has {len(levels)} levels")
        layers = tuple(
            _layer(_Entries(v, f"layers.{i}.")) for i, v in enumerate(entries.value("layers", list))
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
            levels=tuple(_level(_Entries(v, f"levels.{i}.")) for i, v in enumerate(levels)),
            overview=None if overview is None else _overview(_Entries(overview, "overview.")),
        )


class _Entries:
    """A JSON object whose entries are fetched with their type and range checked."""

    def __init__(self, values: Any, prefix: str) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(f"its manifest entry {prefix.rstrip('.')} is no object")
        self._values, self._prefix = values, prefix

    @property
    def keys(self) -> list[str]:
        if not all(key.isprintable() for key in self._values):
            raise ValueError(
                f"its manifest entry {self._prefix.rstrip('.')} holds unprintable characters"
            )
        return list(self._values)

    def value(self, key: str, *types: type) -> Any:
        value = self._values.get(key, _MISSING)
        if not isinstance(value, types) or isinstance(value, bool):
            raise ValueError(
                f"its manifest entry {self._prefix}{key} is missing or of a wrong type"
            )
        return value

    def text(self, key: str) -> str:
        """Return a string that can be shown: no half characters, nothing that moves a cursor."""
        value: str = self.value(key, str)
        if not "".join(value.split()).isprintable():
            raise ValueError(f"its manifest entry {self._prefix}{key} holds unprintable characters")
        return value

    def object(self, key: str) -> _Entries:
        return _Entries(self.value(key, dict), f"{self._prefix}{key}.")

    def number(self, key: str, least: float, most: float) -> float:
        value = self.value(key, int, float)
        if not least <= value <= most:  # before `float`, which does not take any whole number
            told = str(value)[:20]
            raise ValueError(f"its manifest entry {self._prefix}{key} is {told}, out of range")
        return float(value)

    def integer(self, key: str, least: int, most: int) -> int:
        value: int = self.value(key, int)
        if not least <= value <= most:
            raise ValueError(f"its manifest entry {self._prefix}{key} is out of range")
        return value


_MISSING = object()


def _level(entries: _Entries) -> LevelRecord:
    place, search = entries.object("lattice"), entries.object("search")
    lattice = Lattice(
        footprint_m=place.number("footprint_m", 1e-3, _MAX_METRES),
        input_px=place.integer("input_px", 1, _MAX_PX),
        step_px=place.integer("step_px", 1, _MAX_PX),
        west_m=place.number("west_m", -_MAX_METRES, _MAX_METRES),
        north_m=place.number("north_m", -_MAX_METRES, _MAX_METRES),
        columns=place.integer("columns", 1, MAX_CELLS),
        rows=place.integer("rows", 1, MAX_CELLS),
    )
    count = entries.integer("count", 1, MAX_CELLS)
    plan = SearchPlan(
        method=search.value("method", str),
        dims=search.integer("dims", 0, 1 << 16),
        ef=search.integer("ef", 0, 1 << 16),
        recall_at_1=search.number("recall_at_1", 0, 1),
        recall_at_10=search.number("recall_at_10", 0, 1),
    )
    if plan.method not in ("graph", "exact"):
        raise ValueError(f"its search method {plan.method!r} is unknown")
    vectors = entries.integer("vectors", 1, count)
    return LevelRecord(lattice, count, vectors, plan, entries.number("found", 0, 1))


def _layer(entries: _Entries) -> LayerRecord:
    return LayerRecord(
        name=entries.text("name"),
        gsd_m=entries.number("gsd_m", 0, _MAX_METRES),
        attribution=entries.text("attribution"),
        date=entries.text("date"),
    )


def _variants(entries: _Entries, layers: int) -> tuple[Variant, ...]:
    rows = entries.value("variants", list)
    if not 1 <= len(rows) <= MAX_VARIANTS:
        raise ValueError(f"its manifest has {len(rows)} variants")
    found = []
    for number, row in enumerate(rows):
        one = _Entries(row, f"variants.{number}.")
        layer, heading = one.integer("layer", 0, layers - 1), one.number("heading_deg", 0, 360)
        found.append(Variant(layer, heading))
    return tuple(found)


def _projection(entries: _Entries, spec: EncoderSpec) -> ProjectionRecord:
    kind = entries.value("kind", str)
    if kind not in ("leading", "matrix"):
        raise ValueError(f"its projection {kind!r} is unknown")
    shares = entries.object("shares")
    return ProjectionRecord(
        dims=entries.integer("dims", 1, spec.embedding_dim),
        kind=kind,
        shares={key: shares.number(key, 0, 1) for key in shares.keys},
    )


def _overview(entries: _Entries) -> OverviewRecord:
    return OverviewRecord(
        west_m=entries.number("west_m", -_MAX_METRES, _MAX_METRES),
        north_m=entries.number("north_m", -_MAX_METRES, _MAX_METRES),
        gsd_m=entries.number("gsd_m", 1e-6, _MAX_METRES),
        width_px=entries.integer("width_px", 1, MAX_OVERVIEW_PX),
        height_px=entries.integer("height_px", 1, MAX_OVERVIEW_PX),
    )
