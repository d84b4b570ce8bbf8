"""An ONNX graph becomes a TensorRT plan, on the GPU that will run it.

Needs TensorRT and ONNX Runtime, neither torch nor onnx, so that a Jetson with the base package can
build. One code path serves TensorRT 10.3 to 11.4: networks are strongly typed, every precision is
the graph's own, and only what all those versions share is used (tests/test_tensorrt_bindings.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.console import progress
from ..core.engine import Embeddings, Images
from ..core.errors import InputError, S4GError
from ..core.files import read_bytes, sha256_bytes
from ..core.onnx_file import open_to_look, read_spec, session_input
from ..core.plan import PlanInfo
from ..core.spec import EncoderSpec
from ..core.tensorrt_log import TensorRtLog, make_logger
from .plan_cache import PlanCache
from .tensorrt_monitor import PERCENT, make_monitor
from .tensorrt_target import BATCH_MIN, BuildOptions, Target, find_target

_MIB = 1 << 20
# How TensorRT 10 and 11 log it in errors. In warnings it is about tactics that are skipped.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|insufficient memory|GPU memory .*could not be allocated"
)
_NO_IMPLEMENTATION = re.compile(r"Could not find any implementation for node (?:\{)?([^\s{}]+)")


@dataclass(frozen=True)
class Graph:
    """An ONNX encoder, and ONNX Runtime doing the arithmetic it spells out, unoptimised."""

    data: bytes
    spec: EncoderSpec
    input_name: str
    session: Any

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Read a file.

        Raises:
            InputError: it is damaged, or no encoder of ours.
        """
        data = read_bytes(path)
        session = open_to_look(path, data)
        spec = read_spec(path, session)
        return cls(data, spec, session_input(str(path), spec, session), session)

    def embed(self, images: Images) -> Embeddings:
        """Embed (B, S, S, 3) uint8 RGB; return (B, D) float32."""
        embeddings: Embeddings = self.session.run(None, {self.input_name: images})[0]
        return embeddings


def build(
    graph: Path, options: BuildOptions, cache: PlanCache | None, again: bool = False
) -> tuple[bytes, PlanInfo]:
    """Build the plan of an ONNX file of a bundle, or take it from the cache.

    The plan is not kept in the cache yet: that is for the caller, once it has seen it work.

    Args:
        graph: ONNX file with an encoder spec and a free batch.
        options: how.
        cache: of plans and timings; None builds without.
        again: build even where the cache holds the plan; its timings still serve.

    Raises:
        InputError: the graph is no encoder, an option or this machine does not fit.
        S4GError: TensorRT cannot build it, or runs out of memory.
        KeyboardInterrupt: the user stopped the build.
    """
    target = find_target()
    options.check(target)
    read = Graph.read(graph)
    identity = target.identity(sha256_bytes(read.data), options)
    identity.check()
    if cache is not None and not again and (found := cache.find(identity)) is not None:
        plan, info = found
        return plan, replace(info, graph=graph.name)
    plan = _Build(graph, target, options, cache).run(read.data, read.spec.input_px)
    return plan, PlanInfo(
        plan_sha256=sha256_bytes(plan),
        plan_bytes=len(plan),
        graph=graph.name,
        **{name: getattr(identity, name) for name in identity.__dataclass_fields__},
        spec=read.spec,
        made_by=f"s4g {__version__}",
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


class _Build:
    """One build, and what TensorRT said during it."""

    def __init__(
        self, graph: Path, target: Target, options: BuildOptions, cache: PlanCache | None
    ) -> None:
        self.graph = graph
        self.target = target
        self.options = options
        self.cache = cache
        self.log = TensorRtLog()

    def run(self, data: bytes, side_px: int) -> bytes:
        """Return the plan of the ONNX file `data`, whose images are `side_px` wide."""
        trt = self.target.trt
        logger = make_logger(trt, self.log)
        builder = self._create_builder(trt, logger)
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(strongly_typed)
        # The network points into the parser's weights: the parser must outlive the build.
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(data):
            raise self._parse_failure(parser)
        config = builder.create_builder_config()
        self._configure(trt, config)
        self._add_profile(builder, network, config, side_px)
        self._attach_timings(config)
        with progress(f"building {self.graph.name}", PERCENT, "%") as advance:
            monitor = make_monitor(trt, self.log, advance)
            config.progress_monitor = monitor
            plan = self._build(builder, network, config)
        self._keep_timings(config)
        return plan

    def _create_builder(self, trt: Any, logger: Any) -> Any:
        try:
            return trt.Builder(logger)
        except TypeError as error:  # what the bindings raise where CUDA cannot be initialised
            raise S4GError(
                f"TensorRT {self.target.tensorrt} cannot use {self.target.gpu} "
                f"({self.log.last or error}); check the driver (s4g-export doctor)"
            ) from None

    def _parse_failure(self, parser: Any) -> S4GError:
        where, float_node, why = "", "", self.log.last
        if parser.num_errors:
            error = parser.get_error(0)
            why = " ".join(error.desc().split()) or why
            if error.node_operator():
                where = f" node {error.node_name() or '(unnamed)'} ({error.node_operator()}) of"
                float_node = " with that node in float (--keep-float)"
        return S4GError(
            f"{self.graph}: TensorRT {self.target.tensorrt} cannot take{where} this graph "
            f"({why or 'no reason given'}); export it again{float_node}, or update TensorRT"
        )

    def _configure(self, trt: Any, config: Any) -> None:
        options = self.options
        config.builder_optimization_level = options.optimisation_level
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default: FP32 layers in 10 bits of mantissa
        if options.workspace_mib is not None:
            workspace = options.workspace_mib * _MIB
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
        if options.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if options.layer_details:
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    def _add_profile(self, builder: Any, network: Any, config: Any, side_px: int) -> None:
        """Say which batches are to be expected."""
        images = network.get_input(0)
        shape = tuple(images.shape)
        if shape != (-1, side_px, side_px, 3):
            raise InputError(
                f"{self.graph}: takes images of shape {shape}, expected "
                f"(-1, {side_px}, {side_px}, 3) with a free batch; export it again"
            )
        profile = builder.create_optimization_profile()
        batches = (BATCH_MIN, self.options.batch_opt, self.options.batch_max)
        least, best, most = ((batch, *shape[1:]) for batch in batches)
        profile.set_shape(images.name, least, best, most)
        config.add_optimization_profile(profile)

    def _attach_timings(self, config: Any) -> None:
        """Give the builder the timings of earlier builds, strictly of this TensorRT and GPU."""
        if self.cache is None:
            return
        kept = self.cache.read_timings(*self.target.measured_on)
        timings = config.create_timing_cache(kept)
        if timings is None or not config.set_timing_cache(timings, False):
            self.cache.tell(
                f"{self.cache.folder}: TensorRT does not take its timings; they are measured again"
            )
            timings = config.create_timing_cache(b"")
            config.set_timing_cache(timings, False)

    def _build(self, builder: Any, network: Any, config: Any) -> bytes:
        try:
            plan = builder.build_serialized_network(network, config)
        except (RuntimeError, MemoryError) as error:
            self.log.hear(True, str(error) or "out of memory")
            plan = None
        self.log.check()
        if plan is None:
            raise self._build_failure()
        return bytes(plan)

    def _build_failure(self) -> S4GError:
        version, why = self.target.tensorrt, self.log.last or "no reason given"
        no_implementation = _NO_IMPLEMENTATION.search(why)
        if no_implementation is None and any(map(_OUT_OF_MEMORY.search, self.log.errors)):
            return S4GError(
                f"{self.graph}: out of GPU memory while TensorRT {version} built it ({why}); stop "
                "other programs, or pass a smaller --workspace-mib (256), --optimisation-level (1) "
                "or --batch-max"
            )
        if no_implementation is not None:
            return S4GError(
                f"{self.graph}: TensorRT {version} has no implementation of "
                f"{no_implementation[1]} on {self.target.gpu} ({why}); raise --workspace-mib, or "
                "export again with that node in float (--keep-float)"
            )
        return S4GError(
            f"{self.graph}: TensorRT {version} cannot build it ({why}); try another "
            "--optimisation-level, or use the ONNX files of the bundle"
        )

    def _keep_timings(self, config: Any) -> None:
        timings = config.get_timing_cache()
        if self.cache is None or timings is None:
            return

        def unite(first: bytes, second: bytes) -> bytes:
            mine = config.create_timing_cache(first)
            theirs = config.create_timing_cache(second)
            if mine is None or theirs is None or not mine.combine(theirs, False):
                return first
            return bytes(mine.serialize())

        self.cache.add_timings(*self.target.measured_on, bytes(timings.serialize()), unite)
