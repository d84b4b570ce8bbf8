"""Import timm where torchvision's compiled operators do not match a CPU build of torch.

torchvision's wheel links against CUDA. Beside a CPU torch its extension silently fails to load and
`import torchvision`, which timm needs, dies on the missing operator `torchvision::nms`. Declaring
the operators' schemas is enough: no encoder calls them.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

_MISSING_OPERATORS = ("nms", "qnms")
_library: list[torch.library.Library] = []  # a schema lives as long as its library object


def import_timm() -> Any:
    """Return the timm module."""
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in _MISSING_OPERATORS:
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _library.append(library)
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401
    import timm

    return timm
