"""What a plan is bound to: TensorRT, the GPU of this machine, and how it was asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..core.errors import InputError, S4GError
from ..core.plan import Identity, import_tensorrt, platform_name, takes_compatible_plans

BATCH_MIN = 1


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        batch_opt: batch the plan is tuned for.
        batch_max: largest batch it takes; the smallest is 1.
        workspace_mib: most GPU memory one layer may use, None for TensorRT's own choice.
        optimisation_level: 0 (quick build) to 5 (long search).
        hardware_compatible: whether the plan shall run on other GPUs from Ampere on; slower.
        layer_details: whether names and parameters of layers stay in the plan, for profilers.
    """

    batch_opt: int = 1
    batch_max: int = 16
    workspace_mib: int | None = None
    optimisation_level: int = 3
    hardware_compatible: bool = False
    layer_details: bool = False

    def check(self, target: Target) -> None:
        """Refuse what cannot be built on `target`.

        Raises:
            InputError: options contradict each other or the GPU.
        """
        if self.batch_opt > self.batch_max:
            raise InputError(
                f"--batch-opt {self.batch_opt}: is more than --batch-max {self.batch_max}; "
                "raise --batch-max"
            )
        capability = target.compute_capability
        if self.hardware_compatible and not takes_compatible_plans(capability):
            raise InputError(
                f"--hardware-compatible: not on {target.gpu} (compute capability {capability}), "
                "only on desktop and server GPUs from Ampere (8.0) on; leave it out"
            )


@dataclass(frozen=True)
class Target:
    """What a plan is bound to: TensorRT and the GPU of this machine."""

    trt: Any
    gpu: str
    compute_capability: str
    multiprocessor_count: int

    @property
    def tensorrt(self) -> str:
        """The full version of TensorRT."""
        return str(self.trt.__version__)

    @property
    def measured_on(self) -> tuple[str, str, str]:
        """What timings of kernels hold for: TensorRT, GPU, compute capability."""
        return self.tensorrt, self.gpu, self.compute_capability

    def identity(self, graph_sha256: str, options: BuildOptions) -> Identity:
        """Return what a plan built here from that graph would be known by."""
        flags = asdict(options)
        return Identity(
            graph_sha256=graph_sha256,
            tensorrt=self.tensorrt,
            gpu=self.gpu,
            compute_capability=self.compute_capability,
            multiprocessor_count=self.multiprocessor_count,
            platform=platform_name(),
            batch_min=BATCH_MIN,
            batch_opt=flags.pop("batch_opt"),
            batch_max=flags.pop("batch_max"),
            flags=flags,
        )


def find_target() -> Target:
    """Return TensorRT and the GPU of this machine.

    Raises:
        InputError: TensorRT is missing or of a version this program cannot use.
        S4GError: there is no GPU, or its driver cannot be reached.
    """
    trt = import_tensorrt()
    from ..core.cuda import open_device

    device = open_device()
    return Target(trt, device.name, device.capability, device.multiprocessor_count)


def build_available() -> str | None:
    """Return why no plan can be built on this machine, None where one can."""
    try:
        find_target()
    except S4GError as error:
        return str(error)
    return None
