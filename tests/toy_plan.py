"""A plan of the toy encoder, as the stand-in for TensorRT builds and runs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from s4g.core.engine import load_engine
from s4g.core.files import sha256_bytes
from s4g.core.plan import PlanInfo, platform_name
from s4g.core.plan_write import write_plan

SIDE_PX = 64
BATCH_MAX = 4


def build(
    path: Path, encoder: Path, told: Any, device: Any, least: int = 1, **changes: Any
) -> Path:
    """Write the plan of an encoder, as the stand-in's builder makes it, with its sidecar."""
    trt = sys.modules["fake_tensorrt"].make(told)
    builder = trt.Builder(trt.Logger())
    network = builder.create_network(1)
    assert trt.OnnxParser(network, trt.Logger()).parse(encoder.read_bytes())
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    batches = (least, BATCH_MAX, BATCH_MAX)
    profile.set_shape("images", *((batch, SIDE_PX, SIDE_PX, 3) for batch in batches))
    config.add_optimization_profile(profile)
    plan = bytes(builder.build_serialized_network(network, config))
    values: dict[str, Any] = {
        "plan_sha256": sha256_bytes(plan),
        "plan_bytes": len(plan),
        "graph": "encoder.fp16.onnx",
        "graph_sha256": sha256_bytes(encoder.read_bytes()),
        "tensorrt": told.version,
        "gpu": device.name,
        "compute_capability": "{}.{}".format(*device.capability),
        "multiprocessor_count": device.multiprocessors,
        "platform": platform_name(),
        "flags": {
            "optimisation_level": 3,
            "workspace_mib": None,
            "hardware_compatible": False,
            "layer_details": False,
        },
        "batch_min": least,
        "batch_opt": BATCH_MAX,
        "batch_max": BATCH_MAX,
        "spec": load_engine(encoder, "cpu", 1).spec,
        "made_by": "s4g 0",
        "created": "2026-01-31T12:00:00Z",
    }
    write_plan(path, plan, PlanInfo(**{**values, **changes}), overwrite=True)
    return path
