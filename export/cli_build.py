"""`s4g-export build`: TensorRT plans of a bundle, built and tried on the machine that runs them."""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.console import debug_option, say
from ..core.devices import BUNDLE_FP16, BUNDLE_TRT_INT8
from ..core.errors import InputError, S4GError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..core.plan import Identity, PlanInfo
    from .agreement import Agreement
    from .plan_cache import PlanCache
    from .tensorrt_target import BuildOptions, Target

GRAPHS = {"int8": BUNDLE_TRT_INT8, "fp16": BUNDLE_FP16}
_PROBES = 8

Tell = Callable[[str], None]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--graph",
    default="all",
    show_default=True,
    type=click.Choice([*GRAPHS, "all"]),
    help="Which of the bundle's TensorRT graphs to build.",
)
@click.option(
    "--batch-max",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Most images in one call.",
)
@click.option(
    "--batch-opt",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Images in one call that the plan is tuned for.",
)
@click.option(
    "--workspace-mib",
    default=None,
    type=click.IntRange(1, 1 << 20),
    help="Most GPU memory a layer may use, MiB; default: TensorRT's own choice.",
)
@click.option(
    "--optimisation-level",
    default=3,
    show_default=True,
    type=click.IntRange(0, 5),
    help="From 0 (quick build) to 5 (long search for faster kernels).",
)
@click.option(
    "--hardware-compatible",
    is_flag=True,
    help="Build for every desktop GPU from Ampere on: slower, and not on Jetson.",
)
@click.option(
    "--layer-details",
    is_flag=True,
    help="Keep names and parameters of layers in the plan, for profilers.",
)
@click.option("--no-cache", is_flag=True, help="Neither read nor write the cache of plans.")
@click.option("--overwrite", is_flag=True, help="Build again where a plan is up to date.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@debug_option
def build(
    bundle: Path, graph: str, no_cache: bool, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Build TensorRT plans of BUNDLE on this machine, which must be the one that runs them.

    Example: s4g-export build bundle --graph int8 --workspace-mib 512

    Each plan is run and compared with ONNX Runtime before it takes its place. A plan that fits
    this machine, graph and options is kept.
    """
    from ..core.files import cache_folder
    from ..core.plan import plan_path
    from .plan_cache import PlanCache
    from .tensorrt_target import BuildOptions

    made = build_bundle(
        bundle,
        BuildOptions(**options),
        say,
        graphs=tuple(GRAPHS) if graph == "all" else (graph,),
        cache=None if no_cache else PlanCache(cache_folder("tensorrt"), say),
        overwrite=overwrite,
    )
    rows = [{"file": plan_path(Path(info.graph)).name, **info.as_json()} for info in made]
    click.echo(json.dumps(rows) if as_json else as_table(made))


def build_bundle(
    bundle: Path,
    options: BuildOptions,
    tell: Tell,
    *,
    graphs: Sequence[str] = tuple(GRAPHS),
    cache: PlanCache | None = None,
    overwrite: bool = False,
) -> list[PlanInfo]:
    """Build the plans of a bundle's TensorRT graphs beside them.

    Args:
        bundle: folder of `s4g-export`.
        options: how to build.
        tell: hears what is being done.
        graphs: which, of `GRAPHS`; of several, those that the bundle holds.
        cache: of plans and timings, or None.
        overwrite: build again what is up to date.

    Returns:
        What is known about each plan, the ones that were up to date included.

    Raises:
        InputError: the bundle holds no such graph, an option or this machine does not fit.
        S4GError: a build fails, or its plan returns other embeddings than ONNX Runtime; whatever
            was there before is still there.
    """
    from .tensorrt_target import find_target

    files = _graph_files(bundle, graphs)
    try:
        target = find_target()
    except S4GError as error:
        raise type(error)(f"{error}; {build_elsewhere(bundle)}") from None
    options.check(target)
    return [_build_one(file, target, options, tell, cache, overwrite) for file in files]


def build_plans(bundle: Path) -> None:
    """Build the plans of a new bundle where this machine can; else say where that is done.

    Raises:
        S4GError: TensorRT is here but a build fails; the bundle stays as it is.
    """
    from ..core.files import cache_folder
    from .plan_cache import PlanCache
    from .tensorrt_target import BuildOptions, build_available

    if (reason := build_available()) is not None:
        say(f"no plans yet: {reason}; {build_elsewhere(bundle)}")
        return
    say(
        as_table(
            build_bundle(
                bundle, BuildOptions(), say, cache=PlanCache(cache_folder("tensorrt"), say)
            )
        )
    )


def build_elsewhere(bundle: Path) -> str:
    """Return the remedy where a machine cannot build plans."""
    command = f"s4g-export build {shlex.quote(bundle.name or str(bundle))}"
    return f"plans are built on the device that runs them: copy {bundle} there and run {command}"


def _graph_files(bundle: Path, graphs: Sequence[str]) -> list[Path]:
    if not bundle.is_dir():
        raise InputError(f"{bundle}: no such bundle; give a folder made by s4g-export")
    names = [GRAPHS[graph] for graph in graphs]
    files = [bundle / name for name in names if (bundle / name).is_file()]
    if not files:
        raise InputError(
            f"{bundle}: holds no {' and no '.join(names)}; export again with --tensorrt"
        )
    return files


def _build_one(
    graph: Path,
    target: Target,
    options: BuildOptions,
    tell: Tell,
    cache: PlanCache | None,
    overwrite: bool,
) -> PlanInfo:
    from ..core.files import sha256_file
    from ..core.plan import plan_path, read_plan
    from ..core.plan_write import write_plan
    from .tensorrt import build as build_plan

    path = plan_path(graph)
    identity = target.identity(sha256_file(graph), options)
    doing = "building"
    if path.exists() and not overwrite:
        try:
            _, info = read_plan(path)
            reason = _difference(info.identity, identity)
        except InputError as error:
            reason = str(error).partition("; ")[0]
        if not reason:
            tell(f"{path}: up to date")
            return info
        doing = f"building again ({reason})"
    tell(f"{path}: {doing}")
    data, info = build_plan(graph, options, cache, again=overwrite)
    seen = compare(graph, data, info)
    if seen.fault:
        raise S4GError(
            f"{graph}: the plan built from it returns other embeddings than ONNX Runtime "
            f"({seen.fault}) and was not kept; try another --optimisation-level, or use the ONNX "
            "files of the bundle"
        )
    info = dataclasses.replace(info, cosine_min=round(seen.cosine, 6))
    write_plan(path, data, info, overwrite=True)
    if cache is not None:
        cache.keep(data, info)
    return info


def _difference(kept: Identity, wanted: Identity) -> str:
    """Say what a plan that is there differs in from the one that is asked for."""
    names = [field.name for field in dataclasses.fields(kept)]
    changed = [name for name in names if getattr(kept, name) != getattr(wanted, name)]
    return f"{', '.join(changed).replace('_sha256', '')} changed" if changed else ""


def compare(graph: Path, data: bytes, info: PlanInfo) -> Agreement:
    """Run a plan on made-up images, in every way it will run; compare with what its graph spells.

    The plan is tried from a hidden folder beside the graph: it takes its place only afterwards.

    Raises:
        InputError: something that TensorRT's runtime needs is missing.
        S4GError: the plan does not run.
    """
    from ..core.engine_tensorrt import TensorRtEngine
    from ..core.plan import plan_path
    from ..core.plan_write import write_plan
    from .agreement import agreement, embed_every_way, repeated
    from .tensorrt import Graph

    images = probe_images(info.spec.input_px, min(_PROBES, info.batch_max))
    expected = Graph.read(graph).embed(images)
    with tempfile.TemporaryDirectory(prefix=".plan.", dir=graph.parent) as folder:
        path = plan_path(Path(folder) / graph.name)
        write_plan(path, data, info)
        engine = TensorRtEngine(path)
        try:
            found = embed_every_way(engine.embed, images)
        finally:
            engine.close()
    return agreement(found, repeated(expected))


def probe_images(side_px: int, count: int) -> npt.NDArray[np.uint8]:
    """Return (count, side, side, 3) uint8: noise and, every other one, soft ramps with blocks."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
    ramp = np.linspace(0, 1, side_px)
    for image in images[::2]:
        slope_y, slope_x = rng.uniform(0, 255, (2, 3)) / 2
        image[:] = ramp[:, None, None] * slope_y + ramp[None, :, None] * slope_x
        for _ in range(12):
            y, x = rng.integers(0, side_px, 2)
            height, width = rng.integers(2, 2 + side_px // 3, 2)
            image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return images


def as_table(made: Sequence[PlanInfo]) -> str:
    """Return what was built as text, one line a plan."""
    from ..core.plan import plan_path

    lines = []
    for info in made:
        cosine = "not compared" if info.cosine_min is None else f"{info.cosine_min:.4f}"
        lines.append(
            f"{plan_path(Path(info.graph)).name:<24}{info.plan_bytes / 1e6:>7.1f} MB  "
            f"batch 1 to {info.batch_max}, best at {info.batch_opt}; "
            f"lowest cosine to ONNX Runtime {cosine}; "
            f"TensorRT {info.tensorrt}, {info.gpu} ({info.compute_capability})"
        )
    return "\n".join(lines)
