"""TensorRT plans on disk: a clean plan file with a JSON sidecar, checked before TensorRT reads it.

A plan with bytes of ours glued to it opens in no other tool, so everything we know about it lies
beside it in `<plan>.json` (docs/tensorrt.md). TensorRT trusts a plan as it trusts a library: no
byte reaches it before size, SHA-256 and sidecar have been checked.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EncoderMismatchError, InputError, IntegrityError
from .files import sha256_bytes, sha256_file
from .spec import EncoderSpec

SIDECAR_VERSION = 1
SPEC_FILE = "spec.json"  # the spec of a bundle's checkpoint, beside its engines
OLDEST_TENSORRT = (10, 3)  # JetPack 6.1
MAX_BATCH = 1024
# Compute capabilities of Jetson: Nano, TX2, Xavier, Orin, Thor (10.1 became 11.0 with CUDA 13).
_JETSON_GPUS = frozenset({"5.3", "6.2", "7.2", "8.7", "10.1", "11.0"})
_AMPERE = (8, 0)

_MAX_SIDECAR_BYTES = 1 << 20
_MAX_PLAN_BYTES = 1 << 34

_Check = Callable[[Any], bool]


def _whole(low: int, high: int) -> _Check:
    return lambda value: type(value) is int and low <= value <= high


def _text(pattern: str) -> _Check:
    expression = re.compile(pattern)
    return lambda value: isinstance(value, str) and expression.fullmatch(value) is not None


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


# What a builder was told, and which values are possible.
FLAGS: Mapping[str, _Check] = {
    "optimisation_level": _whole(0, 5),
    "workspace_mib": lambda value: value is None or _whole(1, 1 << 20)(value),
    "hardware_compatible": _flag,
    "layer_details": _flag,
}
_FIELDS: Mapping[str, _Check] = {
    "plan_sha256": _text("[0-9a-f]{64}"),
    "plan_bytes": _whole(1, _MAX_PLAN_BYTES),
    "graph": _text(r"[^/\\\x00-\x1f]{1,255}"),
    "graph_sha256": _text("[0-9a-f]{64}"),
    "tensorrt": _text(r"\d{1,4}(\.\d{1,6}){1,3}(\.post\d{1,3})?"),
    "gpu": _text(r"[^\x00-\x1f]{1,200}"),
    "compute_capability": _text(r"\d{1,2}\.\d"),
    "multiprocessor_count": _whole(1, 1 << 12),
    "platform": _text("[a-z0-9_]{1,32}-[a-z0-9_]{1,32}"),
    "flags": lambda value: (
        isinstance(value, dict)
        and value.keys() == FLAGS.keys()
        and all(FLAGS[name](value[name]) for name in FLAGS)
    ),
    "batch_min": _whole(1, MAX_BATCH),
    "batch_opt": _whole(1, MAX_BATCH),
    "batch_max": _whole(1, MAX_BATCH),
    "spec": lambda value: isinstance(value, dict),
    "made_by": _text(r"[^\x00-\x1f]{1,100}"),
    "created": _text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    "cosine_min": lambda value: (
        value is None or (type(value) in (int, float) and -1.001 <= value <= 1.001)
    ),
}


@dataclass(frozen=True)
class Identity:
    """What decides whether two builds give interchangeable plans; see `PlanInfo`."""

    graph_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    multiprocessor_count: int
    platform: str
    flags: dict[str, Any]
    batch_min: int
    batch_opt: int
    batch_max: int

    def check(self) -> None:
        """Refuse, before minutes of building, what no sidecar could say afterwards.

        Raises:
            InputError: a value is of no form that `read_sidecar` takes.
        """
        for name, value in dataclasses.asdict(self).items():
            if not _FIELDS[name](value):
                raise InputError(
                    f"{name} of this machine is {json.dumps(value)[:80]}, a form that no plan's "
                    "sidecar can hold; update s4g, or install another TensorRT"
                )

    @property
    def key(self) -> str:
        """SHA-256 (hex) over all of it."""
        canonical = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return sha256_bytes(canonical.encode())


@dataclass(frozen=True)
class PlanInfo:
    """Everything a plan's sidecar holds, besides its version.

    Attributes:
        plan_sha256: of the plan file, 64 hex digits.
        plan_bytes: size of the plan file.
        graph: name of the ONNX file it was built from.
        graph_sha256: of that file.
        tensorrt: full version that built it, the only one that runs it.
        gpu: name of the GPU it was built on.
        compute_capability: of that GPU, for example `8.7`.
        multiprocessor_count: of that GPU; all boards of a Jetson family share the two above, and
            the power mode may switch multiprocessors off.
        platform: system and processor, for example `linux-aarch64`.
        flags: what the builder was told (`FLAGS`).
        batch_min: smallest batch it takes.
        batch_opt: batch it is fastest at.
        batch_max: largest batch it takes.
        spec: of the encoder.
        made_by: program and version.
        created: UTC, `2026-01-31T12:00:00Z`.
        cosine_min: lowest cosine to ONNX Runtime's embeddings of the same graph, measured on the
            building device; None where it was not compared.
    """

    plan_sha256: str
    plan_bytes: int
    graph: str
    graph_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    multiprocessor_count: int
    platform: str
    flags: dict[str, Any]
    batch_min: int
    batch_opt: int
    batch_max: int
    spec: EncoderSpec
    made_by: str
    created: str
    cosine_min: float | None = None

    @property
    def identity(self) -> Identity:
        """What decides whether this plan stands for another build."""
        names = (field.name for field in dataclasses.fields(Identity))
        return Identity(**{name: getattr(self, name) for name in names})

    def as_json(self) -> dict[str, Any]:
        """Return the content of the sidecar."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["spec"] = json.loads(self.spec.to_json())
        return {"sidecar_version": SIDECAR_VERSION, **values}


def plan_path(graph: Path) -> Path:
    """Return where the plan of a graph lies: `encoder.fp16.onnx` to `encoder.fp16.plan`."""
    return graph.with_suffix(".plan")


def sidecar_path(plan: Path) -> Path:
    """Return where the sidecar of a plan lies: `encoder.fp16.plan.json`."""
    return plan.with_name(plan.name + ".json")


def platform_name() -> str:
    """Return system and processor of this machine, for example `linux-aarch64`."""
    return f"{sys.platform}-{platform.machine().lower()}"


def read_sidecar(plan: Path) -> PlanInfo:
    """Read the sidecar of `plan`, which need not be there itself.

    Raises:
        InputError: there is no sidecar, or it is of another version.
        IntegrityError: it is no sidecar, or a value in it is impossible.
    """
    path = sidecar_path(plan)
    value = _load_json(path, plan)
    version = value.pop("sidecar_version", None)
    if version != SIDECAR_VERSION:
        raise InputError(
            f"{path}: sidecar version {version!r}, this program reads {SIDECAR_VERSION}; "
            f"update s4g, or {_rebuild(plan)}"
        )
    if unknown := sorted(value.keys() - _FIELDS.keys()):
        raise IntegrityError(f"{path}: unknown entries {', '.join(unknown)}; {_rebuild(plan)}")
    if missing := sorted(_FIELDS.keys() - value.keys()):
        raise IntegrityError(f"{path}: lacks {', '.join(missing)}; {_rebuild(plan)}")
    for name, possible in _FIELDS.items():
        if not possible(value[name]):
            seen = json.dumps(value[name])[:80]
            raise IntegrityError(f"{path}: {name} is {seen}, which no plan has; {_rebuild(plan)}")
    spec = EncoderSpec.from_json(json.dumps(value.pop("spec")), str(path))
    info = PlanInfo(**value, spec=spec)
    if not info.batch_min <= info.batch_opt <= info.batch_max:
        batches = f"{info.batch_min}, {info.batch_opt}, {info.batch_max}"
        raise IntegrityError(
            f"{path}: batches {batches} (least, best, most) do not rise; {_rebuild(plan)}"
        )
    return info


def _load_json(path: Path, plan: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_SIDECAR_BYTES:
            raise IntegrityError(f"{path}: too large for a plan's sidecar; {_rebuild(plan)}")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{plan}: has no sidecar ({path.name}), which says what it was built for; "
            f"{_rebuild(plan)}"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise IntegrityError(f"{path}: is no plan's sidecar; {_rebuild(plan)}")
    return value


def read_plan(path: Path) -> tuple[bytes, PlanInfo]:
    """Read a plan and its sidecar; what is returned may be given to TensorRT.

    Where a bundle's `spec.json` lies beside the plan, both must speak of the same encoder.

    Raises:
        InputError: plan or sidecar is missing, or of another version or encoder.
        IntegrityError: either is damaged, truncated or altered, or they do not belong together.
    """
    if not path.is_file() and not sidecar_path(path).is_file():
        raise InputError(f"{path}: no such plan; make it with s4g-export build BUNDLE")
    info = read_sidecar(path)
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size == info.plan_bytes else b""
    except FileNotFoundError:
        raise InputError(
            f"{path}: the plan is missing, only its sidecar is there; {_rebuild(path)}"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) != info.plan_bytes:
        raise IntegrityError(
            f"{path}: {size} bytes, {info.plan_bytes} according to its sidecar: it was truncated "
            f"or altered; {_rebuild(path)}"
        )
    if sha256_bytes(data) != info.plan_sha256:
        raise IntegrityError(
            f"{path}: its SHA-256 is not the one in {sidecar_path(path).name}: it was altered, or "
            f"the sidecar belongs to another plan; {_rebuild(path)}"
        )
    _check_encoder(path, info)
    return data, info


def _check_encoder(path: Path, info: PlanInfo) -> None:
    beside = path.with_name(SPEC_FILE)
    if not beside.is_file():
        return
    spec = EncoderSpec.from_json(beside.read_text(encoding="utf-8", errors="replace"), str(beside))
    if spec.model_id != info.spec.model_id:
        raise EncoderMismatchError(
            f"{path}: built from encoder {info.spec.model_id[:12]}, its bundle holds "
            f"{spec.model_id[:12]}; {_rebuild(path)}"
        )


def check_graph(path: Path, info: PlanInfo) -> None:
    """Refuse a plan whose graph lies beside it and is not the one it was built from.

    Raises:
        InputError: the graph was exported again, or cannot be read.
    """
    graph = path.parent / info.graph
    try:
        if not graph.is_file() or sha256_file(graph) == info.graph_sha256:
            return
    except OSError as error:
        raise InputError(f"{graph}: cannot be read ({error.strerror})") from None
    raise InputError(
        f"{path}: built from another {info.graph} than the one beside it, which was exported "
        f"later; {_rebuild(path)}"
    )


def takes_compatible_plans(compute_capability: str) -> bool:
    """Return whether a GPU runs plans built for others as well (`hardware_compatible`)."""
    numbers = tuple(int(part) for part in compute_capability.split("."))
    return numbers >= _AMPERE and compute_capability not in _JETSON_GPUS


def check_runnable(
    path: Path,
    info: PlanInfo,
    tensorrt_version: str,
    gpu: str,
    compute_capability: str,
    multiprocessor_count: int,
) -> None:
    """Refuse a plan of another TensorRT, GPU or platform than this machine's.

    Raises:
        InputError: they differ; the message says both sides.
    """
    built = (info.gpu, info.compute_capability, info.multiprocessor_count)
    here = (gpu, compute_capability, multiprocessor_count)
    same_gpu = built == here or (
        info.flags["hardware_compatible"] and takes_compatible_plans(compute_capability)
    )
    if same_gpu and (info.tensorrt, info.platform) == (tensorrt_version, platform_name()):
        return
    mode = ""
    if built[:2] == here[:2] and built != here and compute_capability in _JETSON_GPUS:
        mode = ", or set the power mode that it was built in (nvpmodel)"
    raise InputError(
        f"{path}: built for {_machine(info.tensorrt, built, info.platform)}, this machine has "
        f"{_machine(tensorrt_version, here, platform_name())}; {_rebuild(path)} on this machine"
        f"{mode}"
    )


def _machine(tensorrt_version: str, gpu: tuple[str, str, int], platform: str) -> str:
    name, capability, count = gpu
    return (
        f"TensorRT {tensorrt_version} on {name} ({capability}, {count} multiprocessors, {platform})"
    )


def _rebuild(plan: Path) -> str:
    return f"build it again with s4g-export build {shlex.quote(str(plan.parent))}"


def import_tensorrt() -> Any:
    """Import TensorRT and refuse versions that this program cannot use; return the module.

    Raises:
        InputError: it is not installed, does not load, or is too old or known to be broken.
    """
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"TensorRT cannot be imported ({reason}); on Jetson it comes with JetPack "
            "(python3-libnvinfer, in a virtual environment made with --system-site-packages), "
            "elsewhere pip install tensorrt"
        ) from None
    version = str(trt.__version__)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_TENSORRT:
        raise InputError(
            f"TensorRT {version} is too old: plans need 10.3 or newer, which JetPack 6.1 and newer "
            "bring; update JetPack"
        )
    return trt
