"""Recipes: everything that defines a training, read from TOML into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import InputError
from ..core.landscape_style import STYLES
from .augment import AugmentConfig
from .batches import SamplingConfig
from .dataset import PANORAMA_KINDS, DataConfig
from .datasets import check_data_config
from .distill import DistillConfig
from .loss import LossConfig
from .model import ModelConfig
from .qat import QatConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")

GROUND_KINDS = ("landscape", "stack", "rasters", "pictures", "xyz")
SPLITS = ("train", "val", "west", "every", "apart")
SCHEDULES = ("cosine", "polynomial", "constant")
PRECISIONS = ("bf16", "fp16", "fp32")
_TABLES = (
    "model",
    "views",
    "optim",
    "data",
    "loss",
    "sampling",
    "augment",
    "distill",
    "loading",
    "qat",
)
# Tables that mean nothing to the other kind of training.
_GROUND_TABLES = ("views",)
_DATA_TABLES = ("sampling", "augment", "loading")


@dataclass(frozen=True)
class GroundConfig:
    """One source of training imagery.

    Attributes:
        kind: `landscape` (procedural worlds), `stack` (rasters of the same ground at several
            dates), `rasters` (unrelated georeferenced rasters), `pictures` (pictures without
            georeference) or `xyz` (folders of z/x/y tiles).
        weight: share of the training pairs, relative to the other sources.
        files: glob patterns below the data folder; for a `stack` one pattern a date, matched by
            sorted order.
        split: `train`; `val`; `west` (western part trains, the rest validates), `every`
            (every n-th file validates) or, for pictures, `apart` (a share of the flight trains,
            photos that touch none of its ground validate, the others are left out).
        split_value: the western share, n, or the share of the flight.
        positions: CSV of file, lat, lon below the data folder, for `apart`.
        gsd_m: ground size of a pixel of a picture or of a procedural world (0: 0.5 m); for
            rasters, read no finer than this.
        read_gsd_m: read pictures no finer than this.
        zoom: zoom of `xyz` tiles.
        worlds: number of procedural worlds.
        val_worlds: number of further worlds that only validate.
        size_m: side of a world.
        first_seed: seed of the first world.
        renders: pictures of each world: other season, year, light, sensor.
        styles: the countries that the worlds show, in turn; none: all but those held out for
            tests (`HELD_OUT`).
        credit: what to credit in the model card.
    """

    kind: str
    weight: float = 1.0
    files: tuple[str, ...] = ()
    split: str = "train"
    split_value: float = 0.0
    positions: str = ""
    gsd_m: float = 0.0
    read_gsd_m: float = 0.0
    zoom: int = 0
    worlds: int = 0
    val_worlds: int = 0
    size_m: float = 512.0
    first_seed: int = 1000
    renders: int = 4
    styles: tuple[str, ...] = ()
    credit: str = ""


@dataclass(frozen=True)
class ViewConfig:
    """How a drone frame differs from its tile, after telemetry has been applied.

    Angles are standard deviations in degrees; shares are of the footprint. `wild_share` of the
    frames have telemetry that is far off instead: errors spread evenly over plus and minus
    `wild_yaw_deg` and `wild_tilt_deg`, and a height wrong by a factor of up to 1 + `wild_height`
    either way.
    """

    footprint_min_m: float = 20.0
    footprint_max_m: float = 1200.0
    center_offset: float = 0.16  # uniform; the lattice's stride makes frames fall between tiles
    yaw_error_deg: float = 4.0
    tilt_deg: float = 6.0
    tilt_error_deg: float = 1.5
    height_error: float = 0.06
    wild_share: float = 0.0
    wild_yaw_deg: float = 12.0
    wild_tilt_deg: float = 10.0
    wild_height: float = 0.4
    photometric: float = 1.0  # strength of colour, blur, noise, shadow, change; 0 switches off


@dataclass(frozen=True)
class OptimConfig:
    """The optimisation.

    Attributes:
        steps: length of a training on `[[ground]]` imagery.
        epochs: length of a training on `[data]`: passes over its pairs.
        batch_pairs: pairs of a batch, over all processes.
        chunk_pairs: pairs a process embeds at a time (gradient caching, for small GPUs); 0: its
            whole share of the batch at once.
        neighbours: `[[ground]]`: pairs of a batch drawn from one neighbourhood: hard negatives.
        lookalikes: `[[ground]]`: share of a batch drawn, by as many at a time, from places that the
            encoder takes for each other, mined anew after each validation.
        learning_rate: peak.
        weight_decay: of AdamW, on matrices and kernels.
        decay_everything: decay norms, biases and the scale as well, as Sample4Geo does.
        warmup_steps: linear warm-up.
        warmup_epochs: the same in passes over `[data]`; replaces `warmup_steps` if above 0.
        schedule: after the warm-up: `cosine` to zero, `polynomial` (power 1.5 to a tenth) or
            `constant`.
        clip_norm: largest norm of the gradient; 0: no bound.
        ema_decay: of the averaged weights, which become the checkpoint; 0: no averaging.
        precision: `bf16`, `fp16` (with loss scaling) or `fp32`.
        grad_checkpointing: compute activations twice instead of keeping them.
        compile: `torch.compile` the encoder.
        validate_every: `[[ground]]`: steps between validations.
        validate_epochs: `[data]`: epochs between validations.
        save_every: steps between saves of the state to resume from.
    """

    steps: int = 2000
    epochs: int = 1
    batch_pairs: int = 96
    chunk_pairs: int = 0
    neighbours: int = 8
    lookalikes: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    decay_everything: bool = False
    warmup_steps: int = 100
    warmup_epochs: float = 0.0
    schedule: str = "cosine"
    clip_norm: float = 5.0
    ema_decay: float = 0.998
    precision: str = "bf16"
    grad_checkpointing: bool = False
    compile: bool = False
    validate_every: int = 400
    validate_epochs: int = 1
    save_every: int = 100

    def check(self, origin: str) -> None:
        """Refuse values out of range; `origin` names the recipe.

        Raises:
            InputError: a number is out of range or a name unknown.
        """
        for name in ("steps", "epochs", "validate_every", "validate_epochs", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{origin}: {name} = {getattr(self, name)} must be at least 1")
        if self.batch_pairs < 2:
            raise InputError(
                f"{origin}: batch_pairs = {self.batch_pairs}; a batch of fewer than 2 pairs has no "
                "negatives"
            )
        for name in ("chunk_pairs", "warmup_steps", "warmup_epochs", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise InputError(f"{origin}: {name} = {getattr(self, name)} must not be below 0")
        if not 0 <= self.lookalikes <= 1:
            raise InputError(f"{origin}: lookalikes = {self.lookalikes} must lie in [0, 1]")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"{origin}: ema_decay = {self.ema_decay} must lie in [0, 1)")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{origin}: {name} = {getattr(self, name)!r} must be one of {', '.join(known)}"
                )


@dataclass(frozen=True)
class LoadConfig:
    """How the pictures of a data set are read.

    Attributes:
        unreadable_limit: pictures that cannot be read are named and left out, up to this many.
    """

    unreadable_limit: int = 100


@dataclass(frozen=True)
class Recipe:
    """A whole training, on `[[ground]]` imagery or on a `[data]` set."""

    name: str
    description: str
    seed: int
    model: ModelConfig
    views: ViewConfig
    optim: OptimConfig
    grounds: tuple[GroundConfig, ...] = field(default_factory=tuple)
    data: DataConfig | None = None
    loss: LossConfig = field(default_factory=LossConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    loading: LoadConfig = field(default_factory=LoadConfig)
    qat: QatConfig = field(default_factory=QatConfig)


def load_recipe(name: str, changes: tuple[str, ...] = ()) -> Recipe:
    """Read a shipped recipe by name, or a TOML file by path.

    Args:
        name: such as `sample4geo/cvusa`, or a path that ends in `.toml`.
        changes: `table.key=value` in TOML, each in place of what the file says; `ground.2.key`
            is of the second `[[ground]]`.

    Raises:
        InputError: no such recipe, no valid TOML, an unknown key or a value of the wrong kind.
    """
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise InputError(f"{path}: no such recipe file")
        text = path.read_text()
    else:
        shipped = shipped_recipes()
        if name not in shipped:
            raise InputError(
                f"--recipe {name}: no such recipe; shipped are {', '.join(shipped)}, "
                "or give a .toml file"
            )
        text = (_shipped_folder() / f"{name}.toml").read_text()
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe {name}: not valid TOML ({error})") from None
    for change in changes:
        _change(table, change)
    return _recipe(table, name)


def _change(table: dict[str, Any], change: str) -> None:
    place, _, value = change.partition("=")
    section, _, key = place.strip().rpartition(".")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = None
    number = re.fullmatch(r"ground\.(\d{1,4})", section)
    if (section not in _TABLES and number is None) or not key or parsed is None:
        raise InputError(
            f"--set {change}: expected TABLE.KEY=VALUE with a value in TOML, such as "
            f"optim.batch_pairs=16 or optim.precision='fp32'; tables are {', '.join(_TABLES)}, "
            "ground.1, ground.2, …"
        )
    if number is None:
        table.setdefault(section, {})[key] = parsed
        return
    grounds = table.get("ground", [])
    if not 1 <= int(number[1]) <= len(grounds):
        raise InputError(f"--set {change}: the recipe has {len(grounds)} [[ground]] entries")
    grounds[int(number[1]) - 1][key] = parsed


def shipped_recipes() -> list[str]:
    """Return the names of the recipes in the package, such as `edge` and `sample4geo/cvusa`."""
    folder = _shipped_folder()
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.toml"))


def _shipped_folder() -> Path:
    return Path(str(resources.files("s4g.train"))) / "recipes"


def _recipe(table: dict[str, Any], origin: str) -> Recipe:
    place = f"recipe {origin}"
    _refuse_unknown(table, ("description", "seed", "ground", *_TABLES), place)
    if bool(table.get("ground")) == ("data" in table):
        raise InputError(
            f"{place}: has no [[ground]] and no [data]; add imagery or a data set"
            if "data" not in table
            else f"{place}: has both [[ground]] and [data]; keep one of them"
        )
    for name in _GROUND_TABLES if "data" in table else _DATA_TABLES:
        if name in table:
            other = "[[ground]]" if "data" in table else "[data]"
            raise InputError(f"{place}: [{name}] means nothing without {other}; remove it")
    grounds = tuple(
        _section(GroundConfig, entry, f"{place}, [[ground]] {i + 1}")
        for i, entry in enumerate(table.get("ground", []))
    )
    for ground in grounds:
        _check_ground(ground, origin)
    recipe = Recipe(
        name=origin.removesuffix(".toml") if origin in shipped_recipes() else Path(origin).stem,
        description=str(table.get("description", "")),
        seed=_seed(table.get("seed", 0), place),
        model=_section(ModelConfig, table.get("model", {}), f"{place}, [model]"),
        views=_section(ViewConfig, table.get("views", {}), f"{place}, [views]"),
        optim=_section(OptimConfig, table.get("optim", {}), f"{place}, [optim]"),
        grounds=grounds,
        data=_section(DataConfig, table["data"], f"{place}, [data]") if "data" in table else None,
        loss=_section(LossConfig, table.get("loss", {}), f"{place}, [loss]"),
        sampling=_section(SamplingConfig, table.get("sampling", {}), f"{place}, [sampling]"),
        augment=_section(AugmentConfig, table.get("augment", {}), f"{place}, [augment]"),
        distill=_section(DistillConfig, table.get("distill", {}), f"{place}, [distill]"),
        loading=_section(LoadConfig, table.get("loading", {}), f"{place}, [loading]"),
        qat=_section(QatConfig, table.get("qat", {}), f"{place}, [qat]"),
    )
    _check(recipe, place)
    return recipe


def _check(recipe: Recipe, place: str) -> None:
    recipe.model.check(f"{place}, [model]")
    recipe.loss.check(f"{place}, [loss]", recipe.model.embedding_dim)
    recipe.optim.check(f"{place}, [optim]")
    recipe.distill.check(f"{place}, [distill]")
    recipe.qat.check(f"{place}, [qat]")
    if recipe.data is not None:
        check_data_config(recipe.data, f"{place}, [data]")
        panoramas = recipe.data.kind in PANORAMA_KINDS
        recipe.augment.check(f"{place}, [augment]", "panorama" if panoramas else "nadir")
        if panoramas and recipe.data.north_up:
            raise InputError(f"{place}, [data]: north_up = true means nothing to panoramas")


def _seed(value: object, place: str) -> int:
    if type(value) is not int or value < 0:
        raise InputError(f"{place}: seed = {value!r} must be a whole number, 0 or above")
    return value


def _check_ground(ground: GroundConfig, origin: str) -> None:
    place = f"recipe {origin}, ground of kind {ground.kind!r}"
    if ground.kind not in GROUND_KINDS:
        raise InputError(f"{place}: kind must be one of {', '.join(GROUND_KINDS)}")
    if ground.split not in SPLITS:
        raise InputError(f"{place}: split {ground.split!r} must be one of {', '.join(SPLITS)}")
    if ground.kind != "landscape" and not ground.files:
        raise InputError(f"{place}: needs files = [glob, …]")
    if ground.kind == "landscape" and ground.worlds < 1:
        raise InputError(f"{place}: needs worlds = N")
    for style in ground.styles:
        if style not in STYLES:
            raise InputError(f"{place}: style {style!r} must be one of {', '.join(STYLES)}")
    if ground.kind == "pictures" and ground.gsd_m <= 0:
        raise InputError(f"{place}: needs gsd_m, the ground size of a pixel in metres")
    if ground.split == "apart" and not (ground.kind == "pictures" and ground.positions):
        raise InputError(
            f"{place}: split 'apart' is for pictures and needs positions = 'photos.csv', a "
            "table of file, lat, lon"
        )
    if ground.split in ("west", "apart") and not 0 < ground.split_value < 1:
        raise InputError(
            f"{place}: split {ground.split!r} needs split_value between 0 and 1, the share that "
            "trains"
        )
    if ground.kind == "xyz" and not 1 <= ground.zoom <= 24:
        raise InputError(f"{place}: needs zoom, between 1 and 24")


def _section(cls: type[_T], table: dict[str, Any], place: str) -> _T:
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(table, tuple(fields), place)
    values: dict[str, Any] = {}
    for name, value in table.items():
        default = fields[name].default
        if default is dataclasses.MISSING:
            default = ""
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            raise InputError(
                f"{place}: {name} = {value!r} must be of type {type(default).__name__}"
            )
        values[name] = value
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(f"recipe {place.removeprefix('recipe ').split(',')[0]}: {error}") from None


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"{place}: unknown key {key!r}; {hint}")
