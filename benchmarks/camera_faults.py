"""What live cameras do wrong, made for real, and what a reader of `s4g-run`'s frames sees of it.

Streams: an RTSP and a UDP server on loopback (GStreamer), killed, frozen and brought back. With
--vivid instead: a V4L2 driver in a virtual machine (QEMU), stalled, broken, unplugged. Ages are
true ages: the pictures of the streams show when they were made, the driver stamps its buffers.

Example:
    python benchmarks/camera_faults.py
    python benchmarks/camera_faults.py --vivid --kernel /tmp/kernel
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path

GUEST = Path(__file__).with_name("camera") / "guest.py"
TIMEOUT_S = 600.0


def streams() -> None:
    """Print the table of the streams."""
    from camera.streams import FPS, SIZE_PX, live, table

    if (lacking := live.why_not()) is not None:
        sys.exit(f"not run: {lacking}")
    print(f"{SIZE_PX[0]}x{SIZE_PX[1]} px, {FPS} fps, H.264\n")
    print("| fault | | read() in a loop | LiveCamera |\n|---|---|---|---|")
    last = ""
    for fault, measured, theirs, ours in table():
        print(f"| {fault if fault != last else ''} | {measured} | {theirs} | {ours} |", flush=True)
        last = fault


def vivid(kernel: Path) -> None:
    """Boot the virtual machine and print what its camera went through."""
    from camera.guest import MARK
    from camera.vivid import boot, lacking, make_initramfs

    if (missing := lacking(kernel)) is not None:
        sys.exit(f"not run: {missing}")
    python = Path(sys.prefix) / "bin" / "python"
    command = f"PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 {shlex.join([str(python), str(GUEST)])}"
    started_s, told = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as work:
        image, archive = make_initramfs(kernel, Path(work), command)
        print(f"{image.name}, emulated (TCG)\n", flush=True)
        for line in boot(image, archive, TIMEOUT_S):
            _, mark, text = line.partition(MARK)
            if mark:
                result = json.loads(text)
                told += 1
                print(result.pop("scenario"))
                print("".join(f"    {k}: {v}\n" for k, v in result.items()), end="", flush=True)
            else:
                print(line, file=sys.stderr, flush=True)
    if told == 0:
        sys.exit("the virtual machine told nothing")
    print(f"\n{time.monotonic() - started_s:.0f} s")


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vivid", action="store_true", help="a V4L2 driver in QEMU instead")
    parser.add_argument(
        "--kernel",
        type=Path,
        default=Path("/"),
        help="folder with boot/ and lib/modules/ of a Debian kernel; default: this machine's own",
    )
    arguments = parser.parse_args()
    if arguments.vivid:
        vivid(arguments.kernel)
    else:
        streams()


if __name__ == "__main__":
    main()
