"""Recipes: everything that defines a training, read from TOML into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import InputError
from .model import ModelConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")

GROUND_KINDS = ("landscape", "stack", "rasters", "pictures", "xyz")
SPLITS = ("train", "val", "west", "every")


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
        split: `train`; `val`; `west` (western part trains, the rest validates) or `every`
            (every n-th file validates).
        split_value: the western share, or n.
        gsd_m: ground size of a pixel of a picture; for rasters, read no finer than this.
        zoom: zoom of `xyz` tiles.
        worlds: number of procedural worlds.
        val_worlds: number of further worlds that only validate.
        size_m: side of a world.
        first_seed: seed of the first world.
        renders: pictures of each world: other season, year, light, sensor.
        credit: what to credit in the model card.
    """

    kind: str
    weight: float = 1.0
    files: tuple[str, ...] = ()
    split: str = "train"
    split_value: float = 0.0
    gsd_m: float = 0.0
    zoom: int = 0
    worlds: int = 0
    val_worlds: int = 0
    size_m: float = 512.0
    first_seed: int = 1000
    renders: int = 4
    credit: str = ""


@dataclass(frozen=True)
class ViewConfig:
    """How a drone frame differs from its tile, after telemetry has been applied.

    Angles are standard deviations in degrees; shares are of the footprint.
    """

    footprint_min_m: float = 20.0
    footprint_max_m: float = 1200.0
    center_offset: float = 0.16  # uniform; the lattice's stride makes frames fall between tiles
    yaw_error_deg: float = 4.0
    tilt_deg: float = 6.0
    tilt_error_deg: float = 1.5
    height_error: float = 0.06
    photometric: float = 1.0  # strength of colour, blur, noise, shadow, change; 0 switches off


@dataclass(frozen=True)
class OptimConfig:
    """The optimisation."""

    steps: int = 2000
    batch_pairs: int = 96
    neighbours: int = 8  # pairs of a batch drawn from one neighbourhood: hard negatives
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    label_smoothing: float = 0.1
    ema_decay: float = 0.998
    bf16: bool = True
    validate_every: int = 400
    save_every: int = 100


@dataclass(frozen=True)
class Recipe:
    """A whole training."""

    name: str
    description: str
    seed: int
    model: ModelConfig
    views: ViewConfig
    optim: OptimConfig
    grounds: tuple[GroundConfig, ...] = field(default_factory=tuple)


def load_recipe(name: str) -> Recipe:
    """Read a shipped recipe by name, or a TOML file by path.

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
        text = (resources.files("s4g.train") / "recipes" / f"{name}.toml").read_text()
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe {name}: not valid TOML ({error})") from None
    return _recipe(table, name)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes in the package."""
    folder = resources.files("s4g.train") / "recipes"
    return sorted(Path(e.name).stem for e in folder.iterdir() if e.name.endswith(".toml"))


def _recipe(table: dict[str, Any], origin: str) -> Recipe:
    known = ("description", "seed", "model", "views", "optim", "ground")
    _refuse_unknown(table, known, f"recipe {origin}")
    grounds = tuple(
        _section(GroundConfig, entry, f"recipe {origin}, [[ground]] {i + 1}")
        for i, entry in enumerate(table.get("ground", []))
    )
    if not grounds:
        raise InputError(f"recipe {origin}: has no [[ground]]; add at least one source of imagery")
    for ground in grounds:
        _check_ground(ground, origin)
    return Recipe(
        name=Path(origin).stem,
        description=str(table.get("description", "")),
        seed=int(table.get("seed", 0)),
        model=_section(ModelConfig, table.get("model", {}), f"recipe {origin}, [model]"),
        views=_section(ViewConfig, table.get("views", {}), f"recipe {origin}, [views]"),
        optim=_section(OptimConfig, table.get("optim", {}), f"recipe {origin}, [optim]"),
        grounds=grounds,
    )


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
    if ground.kind == "pictures" and ground.gsd_m <= 0:
        raise InputError(f"{place}: needs gsd_m, the ground size of a pixel in metres")
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
    return cls(**values)


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"{place}: unknown key {key!r}; {hint}")
