"""How hot the machine is and whether it holds its clocks back: a Jetson's sensors, any Linux's.

Read every few seconds by a thread of its own. A node that is missing, or answers nothing, is left
out, never guessed: on Orin the zones `cv0-thermal` to `cv2-thermal` answer EAGAIN while that part
of the chip is off.

Sources: Linux `Documentation/ABI/testing/sysfs-class-thermal`; NVIDIA, Jetson Linux Developer
Guide, "Platform Power and Performance" (nvpmodel, over-current events of `soctherm_oc`). Names of
zones and cooling devices are those of Orin's device tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..core.console import say

PERIOD_S = 5.0
_POWER_MODE_S = 60.0  # nvpmodel is a program to start; the mode is changed by hand
_PROGRAM_LIMIT_S = 5.0
_MOST_BYTES = 4096
# Milli-degrees that a sensor which is off or broken may show instead of an error.
_COLDEST_C, _HOTTEST_C = -55.0, 150.0
# Where the GPU of a Jetson tells its load, in thousandths: JetPack 6 and 7, 5, and Xavier.
_GPU_LOADS = (
    "sys/devices/platform/bus@0/17000000.gpu/load",
    "sys/devices/platform/17000000.gpu/load",
    "sys/devices/17000000.ga10b/load",
    "sys/devices/platform/17000000.ga10b/load",
    "sys/devices/17000000.gv11b/load",
    "sys/devices/gpu.0/load",
)
# Cooling devices that do nothing but tell that hardware lowers clocks; a fan that turns, or a clock
# that is capped a little, is no alarm.
_ALERTS = ("-throttle-alert", "hot-surface-alert")


@dataclass(frozen=True)
class Reading:
    """What the sensors said at a time.

    Attributes:
        monotonic_s: when.
        model: of the board, from its device tree; None where it has none.
        temperatures_c: by zone, `tj-thermal` (the hottest of the chip), `gpu-thermal` …
        throttled: what lowers clocks now: names of alerts and of zones past their passive trip
            point, `over-current` where events were counted since the reading before.
        over_current_events: since boot, None where nobody counts.
        gpu_load: 0 to 1, None where nobody tells.
        power_mode: of nvpmodel, such as `25W`; None where there is none.
    """

    monotonic_s: float
    model: str | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()
    over_current_events: int | None = None
    gpu_load: float | None = None
    power_mode: str | None = None

    @property
    def hottest(self) -> str:
        """Zone and temperature of the hottest place, for a line of text."""
        if not self.temperatures_c:
            return "no temperatures"
        zone = max(self.temperatures_c, key=self.temperatures_c.__getitem__)
        return f"{zone} {self.temperatures_c[zone]:.1f} °C"


def read_board(
    root: Path = Path("/"), power_mode: str | None = None, before: Reading | None = None
) -> Reading:
    """Read all sensors once.

    Args:
        root: where `sys` and `proc` lie.
        power_mode: as `read_power_mode` told it.
        before: the last reading; over-current events count from it on.
    """
    thermal = root / "sys/class/thermal"
    temperatures_c: dict[str, float] = {}
    throttled = []
    for zone in sorted(thermal.glob("thermal_zone*"), key=_number):
        name, value = _text(zone / "type"), _whole(zone / "temp")
        if name is None or value is None or not _COLDEST_C <= value / 1e3 <= _HOTTEST_C:
            continue
        if name in temperatures_c:  # several of a kind, as disks are: all are told
            name = f"{name} {zone.name.removeprefix('thermal_zone')}"
        temperatures_c[name] = value / 1e3
        if any(value >= trip for trip in _passive_trips(zone)):
            throttled.append(name)
    for device in sorted(thermal.glob("cooling_device*"), key=_number):
        name = _text(device / "type") or ""
        if name.endswith(_ALERTS) and (_whole(device / "cur_state") or 0) > 0:
            throttled.append(name)
    counts = [_whole(p) for p in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))]
    events = [count for count in counts if count is not None]
    total = sum(events) if events else None
    counted = None if before is None else before.over_current_events
    if total is not None and counted is not None and total > counted:
        throttled.append("over-current")
    loads = (_whole(root / path) for path in _GPU_LOADS)
    load = next((value for value in loads if value is not None), None)
    model = _text(root / "proc/device-tree/model")
    return Reading(
        time.monotonic(),
        None if model is None else model.rstrip("\0"),
        temperatures_c,
        tuple(throttled),
        total,
        None if load is None else min(max(load / 1e3, 0.0), 1.0),
        power_mode,
    )


def read_power_mode(program: str | None = None) -> str | None:
    """Return the mode that `nvpmodel -q` tells, None where there is no such program.

    Args:
        program: path of nvpmodel; found on PATH unless given.
    """
    program = program or shutil.which("nvpmodel")
    if program is None:
        return None
    try:
        told = subprocess.run(
            [program, "-q"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PROGRAM_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in told.stdout.decode("utf-8", "replace").splitlines():
        head, _, mode = line.partition("NV Power Mode:")
        if not head.strip() and mode.strip():
            return mode.strip()[:64]
    return None


class Board:
    """Reads the sensors in a thread of its own, and says once when throttling begins and ends.

    Attributes:
        latest: the newest reading of whichever board is watched in this process, None before the
            first and where none is; any thread may take it, it never changes.
    """

    latest: ClassVar[Reading | None] = None

    def __init__(self, root: Path = Path("/"), period_s: float = PERIOD_S) -> None:
        """Start the thread."""
        self._root, self._period_s = root, period_s
        self._before: Reading | None = None
        self._mode_due_s = -float("inf")
        self._mode: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="s4g-board", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(_PROGRAM_LIMIT_S + 1.0)
        Board.latest = None

    def look(self) -> Reading:
        """Read the sensors, publish what they say, and say what is new."""
        now_s = time.monotonic()
        if now_s >= self._mode_due_s:
            self._mode, self._mode_due_s = read_power_mode(), now_s + _POWER_MODE_S
        reading = read_board(self._root, self._mode, self._before)
        before, self._before = self._before, reading
        Board.latest = reading
        if before is None and reading.power_mode is not None:
            say(f"board: {reading.model}, power mode {reading.power_mode}, {reading.hottest}")
        if before is not None and reading.power_mode != before.power_mode:
            say(f"board: power mode {reading.power_mode}, was {before.power_mode}")
        if reading.throttled and not (before and before.throttled):
            say(f"board: throttling ({', '.join(reading.throttled)}), {reading.hottest}")
        elif before and before.throttled and not reading.throttled:
            say(f"board: no longer throttling, {reading.hottest}")
        return reading

    def _run(self) -> None:
        while True:
            self.look()
            if self._stop.wait(self._period_s):
                return


def _passive_trips(zone: Path) -> list[int]:
    """Return the milli-degrees from which on a zone has clocks lowered."""
    trips = []
    for kind in zone.glob("trip_point_*_type"):
        value = _whole(zone / kind.name.replace("_type", "_temp"))
        if _text(kind) == "passive" and value is not None and value > 0:
            trips.append(value)
    return trips


def _number(path: Path) -> int:
    digits = path.name.lstrip("abcdefghijklmnopqrstuvwxyz_")
    return int(digits) if digits.isdecimal() else 0


def _text(path: Path) -> str | None:
    """Return what a node holds, None where it answers nothing.

    By the system's own calls: a node that answers EAGAIN makes Python's buffered files raise
    TypeError.
    """
    try:
        node = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(node, _MOST_BYTES).decode("utf-8", "replace").strip() or None
    except OSError:
        return None
    finally:
        os.close(node)


def _whole(path: Path) -> int | None:
    text = _text(path)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return None
