"""What runs inside the virtual machine: one live camera through every fault that vivid can make.

Prints a JSON object per scenario, each on a line of the console that begins with MARK.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from s4g.core.errors import InputError
from s4g.runtime.camera import LiveCamera
from s4g.runtime.frames import CameraMode, Frame, LiveOptions, Outage

MARK = "S4G "
DRIVER = Path("/sys/bus/platform/drivers/vivid")
OPTIONS = LiveOptions(max_age_s=0.5, mode=CameraMode(320, 180))
PATIENCE_S = 30.0  # an emulated processor is slow
FRAMES_AFTER = 25  # that have to come before a fault is over

Events = Iterator[Frame | Outage]


def tell(scenario: str, **values: object) -> None:
    """Print one result."""
    print(MARK + json.dumps({"scenario": scenario, **values}), flush=True)


def nodes() -> list[str]:
    """Return the video nodes there are."""
    return sorted(str(path) for path in Path("/dev").glob("video*"))


def control(**values: int) -> None:
    """Set controls of the driver, at whatever node it has."""
    settings = ",".join(f"{name}={value}" for name, value in values.items())
    subprocess.run(["v4l2-ctl", "-d", nodes()[-1], "-c", settings], check=True)


def ages_s(events: Events, count: int, pause_s: float = 0.0) -> list[float]:
    """Return how long ago frames were taken, at the moment that the reader gets them."""
    ages: list[float] = []
    while len(ages) < count:
        time.sleep(pause_s)
        event = next(events)
        if isinstance(event, Frame):
            ages.append(time.monotonic() - (event.t or 0.0))
    return ages


def first_frame(events: Events) -> None:
    """Wait until the camera delivers."""
    for event in events:
        if isinstance(event, Frame):
            return


def fault(
    scenario: str,
    camera: LiveCamera,
    events: Events,
    cause: Callable[[], None],
    end: Callable[[], None] = lambda: None,
    lasts_s: float = 4.0,
) -> None:
    """Cause a fault, end it after a while; tell what the reader saw until frames flow again."""
    gap_s = reported_s = back_s = oldest_s = 0.0
    reason = ""
    cause()
    caused_s = last_s = time.monotonic()
    reopened, ended_s, after = camera.counts.reopened, None, 0
    for event in events:
        now_s = time.monotonic()
        if isinstance(event, Outage):
            reported_s = reported_s or now_s - caused_s
            reason = event.reason
        else:
            gap_s = max(gap_s, now_s - last_s)
            oldest_s = max(oldest_s, now_s - (event.t or 0.0))
            last_s = now_s
        if ended_s is None and now_s - caused_s > lasts_s:
            end()
            ended_s = time.monotonic()
        elif ended_s is not None and isinstance(event, Frame):
            back_s = back_s or now_s - ended_s
            after += 1
        if after >= FRAMES_AFTER or now_s - caused_s > PATIENCE_S:
            break
    tell(
        scenario,
        outage_told_after_s=round(reported_s, 2) or None,
        reason=reason,
        oldest_frame_s=round(oldest_s, 3),
        longest_gap_s=round(gap_s, 2),
        back_after_s=round(back_s, 2) if after else None,
        reopened=camera.counts.reopened - reopened,
        nodes=nodes(),
    )


def write(name: str) -> None:
    """Unbind or bind the device, as unplugging and plugging in do."""
    (DRIVER / name).write_text("vivid.0")


def unplug() -> None:
    """Take the device away."""
    control(disconnect=1)
    write("unbind")


def main() -> None:
    """Run all scenarios on one camera, the ones that move the device last."""
    for mode in (CameraMode(333, 222), CameraMode(320, 180, "MJPG")):
        try:
            LiveCamera("/dev/video0", LiveOptions(mode=mode)).close()
        except InputError as error:
            tell("a mode that it lacks", refused=str(error))
    camera = LiveCamera("/dev/video0", OPTIONS)
    events = camera.frames()
    first_frame(events)
    ages = sorted(ages_s(events, 100))
    tell("steady", p50_s=round(statistics.median(ages), 3), p95_s=round(ages[94], 3))

    before = camera.counts.overtaken
    ages = sorted(ages_s(events, 20, pause_s=0.3))
    tell(
        "reader takes 0.3 s a frame",
        p50_s=round(statistics.median(ages), 3),
        max_s=round(ages[-1], 3),
        overtaken=camera.counts.overtaken - before,
    )

    fault(
        "driver delivers nothing for 4 s",
        camera,
        events,
        lambda: control(percentage_of_dropped_buffers=100),
        lambda: control(percentage_of_dropped_buffers=0),
    )
    fault(
        "driver reports a fatal error",
        camera,
        events,
        lambda: control(inject_fatal_streaming_error=1),
    )
    fault("unplugged for 4 s", camera, events, unplug, lambda: write("bind"))
    held = os.open(nodes()[-1], os.O_RDWR)
    fault("unplugged while another program holds it", camera, events, unplug, lambda: write("bind"))
    os.close(held)

    camera.close()
    tell("counts", **vars(camera.counts))


if __name__ == "__main__":
    main()
