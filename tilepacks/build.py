"""From a plan to a pack: embed every level block by block, choose dimensions, link, write.

Reading runs ahead of the encoder in threads of its own. What is done is kept beside the pack to be
(work.py), so that a build goes on where it was stopped, and the pack is the same byte for byte
however often that happened and however many threads read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.engine import Engine
from ..core.errors import InputError
from ..core.ground import GroundSource
from .blocks import BlockEmbedder, LocalEmbedder
from .dims import check_dims
from .fingerprint import fingerprint
from .job import Job
from .options import BuildOptions, Progress, silent
from .plan import Plan
from .projection import Projection
from .variants import make_variants
from .work import work_folder


def build_pack(
    layers: Sequence[GroundSource],
    engine: Engine,
    plan: Plan,
    out: Path,
    options: BuildOptions,
    progress: Progress = silent,
    overwrite: bool = False,
    restart: bool = False,
    projection: Projection | None = None,
    embedder: BlockEmbedder | None = None,
) -> None:
    """Build a pack, or go on with one that was begun.

    Args:
        layers: imagery of the region, one or several dates; the first one decides the plan.
        engine: the encoder, the one the plan was made for.
        plan: region and levels.
        out: the file to write.
        options: what it shall be like.
        progress: how to show progress.
        overwrite: replace an existing pack.
        restart: throw away what an interrupted build has done.
        projection: of the pack that this one shall be like; None: its own.
        embedder: who embeds the blocks; None: this process.

    Raises:
        InputError: a level has no tile with enough imagery, or the pack was begun with another
            plan, or is being built by another process.
        S4GError: a source is damaged, the disk is full, or the encoder or hnswlib failed.
    """
    check_dims(options.dims, engine.spec)
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name a file for the pack")
    variants = make_variants(len(layers), options.headings)
    if embedder is None:
        embedder = LocalEmbedder(
            layers, engine, plan.frame, variants, options.min_valid, options.workers
        )
    told = fingerprint(layers, engine, plan, options, projection)
    with work_folder(out, told, restart) as work:
        job = Job(layers, engine, plan, options, variants, work, progress)
        job.embed(embedder)
        job.check()
        job.finish(job.projection(projection), out, overwrite)
        work.remove()
