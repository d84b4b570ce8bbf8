"""What measurements depend on: processor, clocks, power mode, board and system."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

_ROOT = Path("/")
_TIMEOUT_S = 10.0


def machine(root: Path = _ROOT) -> dict[str, Any]:
    """Return what latencies depend on.

    Args:
        root: where `/proc`, `/sys` and `/etc` are found.

    Returns:
        `processor` (model name), `cores`, `system`; then, None where the machine does not tell:
        `governor` and `clocks` ("fixed" or "scaled") of the first core, `board`, `l4t`, `jetpack`
        and `power_mode` of a Jetson, `gpu` as nvidia-smi names it.
    """
    return {
        "processor": _processor(root),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clocks": _clocks(root / "sys/devices/system/cpu/cpu0/cpufreq"),
        "board": _text(root / "proc/device-tree/model"),
        "l4t": l4t_release(root),
        "jetpack": _asked("dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack"),
        "power_mode": power_mode(_asked("nvpmodel", "-q") or ""),
        "gpu": _asked("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
    }


def describe(where: dict[str, Any]) -> str:
    """Return the machine in one line: what it is, then what was set on it."""
    parts = [where["board"], where["processor"], f"{where['cores']} cores", where["gpu"]]
    if where["power_mode"]:
        parts.append(f"power mode {where['power_mode']}")
    if where["governor"]:
        parts.append(f"governor {where['governor']}")
    if where["clocks"]:
        parts.append(f"clocks {where['clocks']}")
    return ", ".join(part for part in parts if part)


def l4t_release(root: Path = _ROOT) -> str | None:
    """Return the release of NVIDIA's Jetson Linux ("36.4.3"), None where it is not that.

    It is told by the first line of `/etc/nv_tegra_release`:
    `# R36 (release), REVISION: 4.3, GCID: …`.
    """
    text = _text(root / "etc/nv_tegra_release") or ""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def power_mode(told: str) -> str | None:
    """Return the power mode from what `nvpmodel -q` prints, None where it names none."""
    found = re.search(r"^NV Power Mode: *(.+?) *$", told, re.MULTILINE)
    return found[1] if found else None


def _processor(root: Path) -> str:
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _clocks(folder: Path) -> str | None:
    """Return "fixed" where the lowest allowed clock is the highest, as jetson_clocks sets it."""
    low, high = _text(folder / "scaling_min_freq"), _text(folder / "scaling_max_freq")
    if low is None or high is None:
        return None
    return "fixed" if low == high else "scaled"


def _text(path: Path) -> str | None:
    """Return a small file's text, None where there is none or it may not be read."""
    try:
        return path.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _asked(*command: str) -> str | None:
    """Return what a command prints, None where it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
