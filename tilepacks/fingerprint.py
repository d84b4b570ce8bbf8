"""What decides a pack's bytes: an interrupted build goes on only where none of it changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.engine import Engine
from ..core.files import sha256_bytes
from ..core.ground import GroundSource, files_of, notes_of
from .options import BuildOptions
from .plan import Plan
from .projection import Projection


def fingerprint(
    layers: Sequence[GroundSource],
    engine: Engine,
    plan: Plan,
    options: BuildOptions,
    projection: Projection | None,
) -> dict[str, Any]:
    """Return everything that decides a pack's bytes, by the names a user knows it by."""
    chosen = asdict(options)
    del chosen["workers"]
    return {
        "imagery": [_identity(layer) for layer in layers],
        "encoder": [
            engine.spec.model_id,
            engine.spec.precision,
            engine.backend,  # they differ in the last bits
            _states([Path(engine.name)]),  # two INT8 exports of one checkpoint differ
        ],
        "region": [str(plan.region), asdict(plan.frame)],
        "area": None if plan.area is None else [plan.area.rings, plan.area.margin_m],
        "levels and stride": [asdict(lattice) for lattice in plan.lattices],
        "options": chosen,
        "projection": _shape(projection),
        "version of s4g": __version__,
    }


def _shape(projection: Projection | None) -> list[Any] | None:
    if projection is None:
        return None
    matrix = b"" if projection.matrix is None else projection.matrix.tobytes()
    return [projection.dims, sha256_bytes(matrix)]


def _identity(layer: GroundSource) -> list[Any]:
    path = Path(layer.name)
    files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
    files = [*dict.fromkeys([*files, *files_of(layer)])]
    told = [layer.name, layer.gsd_m, str(layer.bounds), layer.attribution, *notes_of(layer)]
    return [*told, _states(files)]


def _states(files: Sequence[Path]) -> list[list[Any]]:
    """Return what shows that a file was changed: its size and when it was written."""
    states = [(file, file.stat()) for file in files if file.is_file()]
    return [[str(file), state.st_size, state.st_mtime_ns] for file, state in states]
