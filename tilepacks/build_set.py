"""A region too large for one pack becomes a set of packs, one after the other, in bounded memory.

All of them share frame, grid and projection, so that parts can be cut out across their borders.
The projection is chosen on a few packs spread over the region, which are embedded first. Blocks of
several packs may be under way at once (Ray); each pack is linked and written when its last block
has come, and what it was made from is removed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..core.engine import Engine
from ..core.errors import InputError, S4GError
from ..core.files import check_output, replace_folder
from ..core.ground import GroundSource
from .blocks import BlockEmbedder, BlockTask, LocalEmbedder
from .dims import Gallery, check_dims
from .fingerprint import fingerprint
from .job import Job, Measured, keep_projection, measure, read_projection
from .options import BuildOptions, Progress, silent
from .pack_set import SUFFIX, is_set, open_set, write_index
from .plan import Plan
from .projection import Projection, add_moments
from .shards import Shard, cut_plan
from .variants import make_variants
from .words import counted
from .work import WorkFolder, work_folder

# Packs of the set that its projection is chosen on.
_SAMPLES = 4
_SEED = 17


def build_set(
    layers: Sequence[GroundSource],
    engine: Engine,
    plan: Plan,
    shard_m: float,
    out: Path,
    options: BuildOptions,
    progress: Progress = silent,
    overwrite: bool = False,
    restart: bool = False,
    projection: Projection | None = None,
    embedder: BlockEmbedder | None = None,
) -> list[str]:
    """Build a set of packs, or go on with one that was begun; return what the user should know.

    Args:
        layers: imagery of the region, one or several dates; the first one decides the plan.
        engine: the encoder, the one the plan was made for.
        plan: region and levels, of all packs together.
        shard_m: about the side of the square that a pack covers, metres.
        out: the folder to make, `NAME.s4gpacks`.
        options: what each pack shall be like.
        progress: how to show progress.
        overwrite: replace an existing set.
        restart: throw away what an interrupted build has done.
        projection: of the pack that these shall be like; None: one of their own.
        embedder: who embeds the blocks; None: this process.

    Raises:
        InputError: no tile has enough imagery, or the set was begun with another plan, or is being
            built by another process.
        S4GError: a source is damaged, the disk is full, or the encoder or hnswlib failed.
    """
    if out.suffix != SUFFIX:
        raise InputError(f"{out}: a set of packs is a folder; name it {out.stem}{SUFFIX}")
    check_output(out, overwrite)
    _check_replaceable(out)
    check_dims(options.dims, engine.spec)
    shards = cut_plan(plan, shard_m)
    variants = make_variants(len(layers), options.headings)
    if embedder is None:
        embedder = LocalEmbedder(
            layers, engine, plan.frame, variants, options.min_valid, options.workers
        )
    told = {**fingerprint(layers, engine, plan, options, projection), "side of a pack": shard_m}
    with work_folder(out, told, restart) as work:
        packs = work.sub("packs").path
        jobs = {
            number: Job(
                layers,
                engine,
                shard.plan,
                options,
                variants,
                work.sub(shard.name),
                progress,
                number,
            )
            for number, shard in enumerate(shards)
            if not _is_done(work, packs, shard)
        }
        made = read_projection(work)
        if made is None:
            if len(jobs) < len(shards):
                raise S4GError(
                    f"{work.path}: the projection was damaged since some packs were made with it; "
                    "pass --restart to begin anew"
                )
            made = _choose(jobs, engine, options, embedder, progress, projection)
            keep_projection(work, made)
        _build(work, packs, shards, jobs, made[0], embedder, progress)
        names = [file for shard in shards if (file := _file_of(work, shard)) is not None]
        if not names:
            work.remove()
            raise InputError(
                f"{layers[0].name}: none of {counted(len(shards), 'pack')} has a tile with "
                f"{options.min_valid:.0%} imagery; lower --min-valid or choose another region"
            )
        for left in packs.iterdir():  # by a build that was killed while it wrote
            if left.name not in names:
                left.unlink()
        has = write_index(packs, names)
        replace_folder(packs, out, overwrite)
        work.remove()
    return [
        f"level {lattice.footprint_m:g}: left out, no tile has {options.min_valid:.0%} imagery"
        for lattice in plan.lattices
        if lattice.footprint_m not in has
    ]


def _check_replaceable(out: Path) -> None:
    """Refuse to replace anything but a set with nothing else in its folder."""
    if not out.exists():
        return
    if not is_set(out):
        raise InputError(
            f"{out}: is no set of packs and is not replaced by one; choose another --out"
        )
    with open_set(out) as packs:
        for path in packs.strangers:
            raise InputError(
                f"{path}: is no part of the set that would be replaced; move it elsewhere, or "
                "choose another --out"
            )


def _file_of(work: WorkFolder, shard: Shard) -> str | None:
    """Return the file of a shard that is done, or None where it has no tile."""
    done = work.read(f"done-{shard.name}")
    return f"{shard.name}.s4gpack" if done is not None and done.manifest["levels"] else None


def _is_done(work: WorkFolder, packs: Path, shard: Shard) -> bool:
    if work.read(f"done-{shard.name}") is None:
        return False
    file = _file_of(work, shard)
    return file is None or (packs / file).is_file()


def _choose(
    jobs: dict[int, Job],
    engine: Engine,
    options: BuildOptions,
    embedder: BlockEmbedder,
    progress: Progress,
    given: Projection | None,
) -> Measured:
    """Return a projection that suits a few packs, spread over the region."""
    galleries: list[Gallery] = []
    moments = np.zeros((engine.spec.embedding_dim,) * 2)
    order = iter(np.random.default_rng(_SEED).permutation(sorted(jobs)).tolist())
    samples = 0
    while (wanted := _SAMPLES - samples) and (some := list(itertools.islice(order, wanted))):
        tried = [jobs[number] for number in some]
        with progress(
            "tiles to choose dimensions", sum(job.plan.count for job in tried)
        ) as advance:
            todo = itertools.chain.from_iterable(job.todo(advance) for job in tried)
            for task, found in embedder.embed(todo):
                jobs[task.shard].keep(task, found)
                advance(task.wanted.size)
        for job in tried:
            job.drop_empty_levels()
            own = job.galleries()
            for gallery in own:
                for part in gallery.parts():
                    add_moments(moments, part)
            galleries += own
            samples += bool(own)
    return measure(galleries, engine.spec, moments, options.dims, given)


class _Pending:
    """Which packs wait for blocks, and for how many."""

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}
        self._all_sent: list[int] = []

    def tasks(self, jobs: dict[int, Job]) -> Iterator[BlockTask]:
        for number, job in jobs.items():
            self._sent[number] = 0
            for task in job.todo():
                self._sent[number] += 1
                yield task
            self._all_sent.append(number)

    def came(self, number: int) -> None:
        self._sent[number] -= 1

    def ready(self) -> list[int]:
        """Return the packs whose blocks have all come, once each."""
        found = [number for number in self._all_sent if self._sent[number] == 0]
        self._all_sent = [number for number in self._all_sent if number not in found]
        return found


def _build(
    work: WorkFolder,
    packs: Path,
    shards: Sequence[Shard],
    jobs: dict[int, Job],
    projection: Projection,
    embedder: BlockEmbedder,
    progress: Progress,
) -> None:
    pending = _Pending()
    with progress("packs", len(shards)) as advance:
        advance(len(shards) - len(jobs))

        def finish() -> None:
            for number in pending.ready():
                _finish(work, packs, shards[number], jobs.pop(number), projection)
                advance(1)

        for task, found in embedder.embed(pending.tasks(dict(jobs))):
            jobs[task.shard].keep(task, found)
            pending.came(task.shard)
            finish()
        finish()


def _finish(work: WorkFolder, packs: Path, shard: Shard, job: Job, projection: Projection) -> None:
    job.drop_empty_levels()
    if job.levels:
        job.finish(job.projection(projection), packs / f"{shard.name}.s4gpack", overwrite=True)
    # One entry for each pack says that it is done, or that there is nothing to pack.
    work.write(f"done-{shard.name}", {"levels": len(job.levels)}, {"none": b""})
    work.sub(shard.name).remove()
