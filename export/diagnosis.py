"""The diagnosis of `s4g-export doctor`: what was tried, what became of it, and how it reads."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from ..core.errors import S4GError
from .machine import describe, machine

WORKS, FAILS, ABSENT = "works", "fails", "absent"
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "torch", "onnx", "tensorrt", "pycuda")


@dataclass(frozen=True)
class Check:
    """What happened when something was tried.

    Attributes:
        name: of the back end, library or plan.
        state: `works`, `fails` (it is here) or `absent`.
        detail: what was found, or what is wrong.
        remedy: what to do about it on this machine; empty where it works.
        p50_ms: median time of one image, None where none was embedded.
        cosine: smallest cosine to what ONNX Runtime's CPU makes of the same graph.
    """

    name: str
    state: str
    detail: str = ""
    remedy: str = ""
    p50_ms: float | None = None
    cosine: float | None = None

    @property
    def embeds(self) -> bool:
        """Whether it is a back end that embedded images as it should."""
        return self.state == WORKS and self.p50_ms is not None


@dataclass(frozen=True)
class Diagnosis:
    """Everything `s4g-export doctor` reports."""

    encoder: str
    platform: str
    checks: tuple[Check, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, with the machine and the versions found."""
        return {"machine": machine(), "versions": versions(), **asdict(self)}

    def as_table(self) -> str:
        """Return it as text."""
        lines = [describe(machine()), f"{'platform':<22}{self.platform}"]
        lines += [f"{name:<22}{version or 'not installed'}" for name, version in versions().items()]
        lines += ["", f"encoder {self.encoder}"]
        for check in self.checks:
            lines.append(f"{check.name:<24}{check.state:<8}{check.detail}".rstrip())
            if check.remedy:
                lines.append(f"{'':<24}remedy: {check.remedy}")
        return "\n".join(lines)


def versions() -> dict[str, str | None]:
    """Return the version of everything that matters here, None where it is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def check_usable(diagnosis: Diagnosis) -> None:
    """Refuse a machine on which nothing runs.

    Raises:
        S4GError: no back end embeds images.
    """
    if not any(check.embeds for check in diagnosis.checks):
        raise S4GError(
            f"{diagnosis.encoder}: no back end runs it here; the remedies are listed above"
        )
