"""Who embeds the blocks of a build: actors of a Ray cluster, one encoder each, on any machine.

Ray Data hands blocks to a pool of actors, moves results to the machine that builds, holds actors
back when that is slower, and gives the blocks of an actor that died (a spot machine that was taken
away) to another one. What a block becomes does not depend on who embeds it: the pack is the same
byte for byte as one built without Ray, as long as all machines run the encoder alike.

Actors open imagery and encoder themselves, by the names that the command was given: these must mean
the same on every machine (a shared folder, an address).
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.engine import load_engine
from ..core.errors import InputError, S4GError
from ..core.geo import LocalFrame
from ..core.ground import GroundSource
from .blocks import BlockTask, LocalEmbedder
from .embed import EmbeddedBlock
from .tiling import Lattice, block_of
from .variants import Variant

# Blocks that an actor gets at once: it reads one while it embeds another, and loses at most these.
_BATCH = 4
# Blocks that are described to the actors at once: some megabytes.
_WAVE = 1024
_READERS = 2
# Nothing is sent home, and what Ray's own processes log is not for those who pack.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_STORE_BYTES = 512 << 20  # of a cluster of this machine alone


@dataclass(frozen=True)
class Recipe:
    """What an actor needs to embed blocks as the build itself would.

    Attributes:
        open: opens the imagery by name; sent to the actors.
        sources: names of the imagery.
        encoder: bundle or ONNX file; None: the embedded one.
        model_id: of the encoder; an actor that finds another one refuses.
        device: what runs it (`core.devices.DEVICES`).
        threads: CPU threads of each actor; 0: one.
        frame: the pack's.
        variants: what to make of each tile.
        min_valid: least share of a tile that must be imagery.
    """

    open: Callable[[str], GroundSource]
    sources: tuple[str, ...]
    encoder: Path | None
    model_id: str
    device: str
    threads: int
    frame: LocalFrame
    variants: tuple[Variant, ...]
    min_valid: float


class RayEmbedder:
    """A pool of actors; a context manager."""

    def __init__(self, recipe: Recipe, actors: int) -> None:
        """Connect to the cluster of `$RAY_ADDRESS`, or start one on this machine alone.

        Raises:
            S4GError: Ray is not installed, or the cluster cannot be reached.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if not os.environ.get("RAY_ADDRESS"):
            # A cluster of one machine listens on its loopback alone; Linux is not asked otherwise.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise S4GError(f"Ray is missing ({error}); pip install 's4g[ray]'") from None
        self._recipe, self._actors = recipe, actors
        self._own = not ray.is_initialized()
        if self._own:
            self._connect(ray, max(1, recipe.threads) * actors)
        # The build shows its own progress, and tells what went wrong once.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL + 1)
        ray.data.DataContext.get_current().enable_progress_bars = False

    def _connect(self, ray: Any, cpus: int) -> None:
        quiet = {"log_to_driver": False, "logging_level": "error"}
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(**quiet)
                return
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                **quiet,
            )
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            where = os.environ.get("RAY_ADDRESS") or "a cluster on this machine"
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise S4GError(f"Ray cannot use {where} ({first}); check $RAY_ADDRESS") from error

    def embed(self, tasks: Iterator[BlockTask]) -> Iterator[tuple[BlockTask, EmbeddedBlock]]:
        """Yield the tasks, each with its block, as they are done."""
        while wave := list(itertools.islice(tasks, _WAVE)):
            yield from self._embed_wave(wave)

    def _embed_wave(self, wave: list[BlockTask]) -> Iterator[tuple[BlockTask, EmbeddedBlock]]:
        import ray

        recipe = self._recipe
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = 1 if recipe.device != "cpu" and resources.get("GPU") else 0
        batches = -(-len(wave) // _BATCH)
        rows = (
            ray.data.from_items(
                [_row_of(number, task) for number, task in enumerate(wave)],
                override_num_blocks=batches,
            )
            .map_batches(
                _Actor,
                fn_constructor_args=(recipe,),
                compute=ray.data.ActorPoolStrategy(size=min(self._actors, batches)),
                batch_size=_BATCH,
                num_cpus=max(1, recipe.threads),
                num_gpus=gpus,
            )
            .iter_rows()
        )
        try:
            for row in rows:
                yield (
                    wave[row["number"]],
                    EmbeddedBlock(
                        cells=np.frombuffer(row["cells"], np.uint32),
                        variants=np.frombuffer(row["variants"], np.uint8),
                        detail=np.frombuffer(row["detail"], np.uint8),
                        embeddings=np.frombuffer(row["embeddings"], np.float16).reshape(
                            -1, row["dim"]
                        ),
                    ),
                )
        except ray.exceptions.RayError as error:
            raise _told(error) from error

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        import ray

        if self._own:
            ray.shutdown()

    def __enter__(self) -> RayEmbedder:
        """Return the pool."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()


class _Actor:
    """One encoder with the imagery open, on some machine of the cluster."""

    def __init__(self, recipe: Recipe) -> None:
        layers = [recipe.open(name) for name in recipe.sources]
        engine = load_engine(recipe.encoder, recipe.device, max(1, recipe.threads))
        if engine.spec.model_id != recipe.model_id:
            raise InputError(
                f"{engine.name}: is encoder {engine.spec.model_id[:12]} on one machine of the "
                f"cluster and {recipe.model_id[:12]} where the build was started; copy it anew"
            )
        self._embedder = LocalEmbedder(
            layers, engine, recipe.frame, recipe.variants, recipe.min_valid, _READERS
        )

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        rows = [
            {name: column[at] for name, column in batch.items()}
            for at in range(len(batch["number"]))
        ]
        tasks = [_task_of(row) for row in rows]
        numbers = {id(task): row["number"] for task, row in zip(tasks, rows, strict=True)}
        for task, found in self._embedder.embed(iter(tasks)):
            columns = {
                "cells": found.cells.astype(np.uint32),
                "variants": found.variants,
                "detail": found.detail,
                "embeddings": found.embeddings,
            }
            yield {
                "number": np.array([numbers[id(task)]]),
                "dim": np.array([found.embeddings.shape[1]]),
                **{name: _one(column) for name, column in columns.items()},
            }


def _row_of(number: int, task: BlockTask) -> dict[str, Any]:
    rows, columns = task.block.rows, task.block.columns
    return {
        "number": number,
        "top": rows.start,
        "bottom": rows.stop,
        "left": columns.start,
        "right": columns.stop,
        "wanted": np.packbits(task.wanted).tobytes(),
        **{f"lattice_{name}": value for name, value in asdict(task.lattice).items()},
    }


def _task_of(row: dict[str, Any]) -> BlockTask:
    lattice = Lattice(
        footprint_m=float(row["lattice_footprint_m"]),
        input_px=int(row["lattice_input_px"]),
        step_px=int(row["lattice_step_px"]),
        west_m=float(row["lattice_west_m"]),
        north_m=float(row["lattice_north_m"]),
        columns=int(row["lattice_columns"]),
        rows=int(row["lattice_rows"]),
    )
    rows, columns = (
        range(int(row[first]), int(row[last]))
        for first, last in (("top", "bottom"), ("left", "right"))
    )
    shape = (len(rows), len(columns))
    bits = np.unpackbits(np.frombuffer(row["wanted"], np.uint8), count=shape[0] * shape[1])
    block = block_of(lattice, rows, columns)
    return BlockTask(0, 0, 0, lattice, block, bits.reshape(shape).astype(np.bool_))


def _one(column: Any) -> Any:
    """Return a column of one row that holds an array's bytes."""
    row = np.empty(1, object)
    row[0] = column.tobytes()
    return row


def _told(error: BaseException) -> S4GError:
    """Return what went wrong on another machine, in one line."""
    from ray.exceptions import RayError

    inner: BaseException | None = error
    while isinstance(inner, RayError):  # each holds what it was raised for
        inner = getattr(inner, "cause", None) or inner.__cause__
    if isinstance(inner, S4GError):  # ours is one line, to which Ray adds advice of its own
        return type(inner)(str(inner).splitlines()[0])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("s4g.core.errors.")]
    if own:
        return S4GError(own[-1].partition(": ")[2])
    told = (lines or [type(error).__name__])[0]
    return S4GError(f"Ray: {told}; what is done is kept, run the same command to go on")
