"""Opens what the options of `s4g-run` name; an error names the option."""

from __future__ import annotations

import math
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.console import say
from ..core.errors import InputError

if TYPE_CHECKING:
    from ..core.engine import Engine
    from ..tilepacks.reader import Pack
    from .frames import FrameSource, LiveOptions
    from .intrinsics import Lens
    from .score import Truth
    from .telemetry import Telemetry
    from .tracker import Start


def open_lens(hfov: float | None, intrinsics: Path | None) -> Lens:
    """Return the optics that `--hfov` or `--intrinsics` tell.

    Raises:
        InputError: it cannot be had; the message says why.
    """
    from .intrinsics import Lens, read_intrinsics

    if hfov is not None and intrinsics is not None:
        raise InputError("--hfov and --intrinsics: give one of them, they say the same thing")
    return Lens(hfov, None if intrinsics is None else read_intrinsics(intrinsics))


def open_truth(path: Path | None) -> Truth | None:
    """Return what `--truth` holds.

    Raises:
        InputError: it cannot be had; the message says why.
    """
    from .score import read_truth

    return None if path is None else read_truth(path)


def open_source(camera: str, live: LiveOptions) -> FrameSource:
    """Open what `--camera` names.

    Raises:
        InputError: it cannot be had; the message says why.
    """
    from .frames import open_frames

    return open_frames(camera, live)


def _numbers(option: str, text: str, names: str) -> tuple[float, float, float]:
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: expected three numbers, {names}") from None
    if not all(map(math.isfinite, (first, second, third))):
        raise InputError(f"{option} {text}: expected three numbers, {names}")
    return first, second, third


def parse_mount(text: str) -> tuple[float, float, float]:
    """Return what `--mount` says.

    Raises:
        InputError: it cannot be had; the message says why.
    """
    return _numbers("--mount", text, "YAW,PITCH,ROLL in degrees")


def parse_start(text: str) -> Start:
    """Return what `--start` says.

    Raises:
        InputError: it cannot be had; the message says why.
    """
    from .tracker import Start

    lat, lon, radius_m = _numbers("--start", text, "LAT,LON,RADIUS_M")
    if not (abs(lat) <= 90 and abs(lon) <= 180 and radius_m > 0):
        raise InputError(f"--start {text}: expected degrees, and metres above 0")
    return Start(lat, lon, radius_m)


def open_pack_and_engine(
    stack: ExitStack,
    pack_path: Path,
    signer: Path | None,
    encoder: Path | None,
    device: str,
    threads: int | None,
) -> tuple[Pack, Engine]:
    """Open pack and encoder, and check that they belong together.

    Raises:
        InputError: it cannot be had; the message says why.
    """
    from ..core.engine import load_engine
    from ..core.spec import check_same_encoder
    from ..tilepacks.reader import open_pack

    if threads is not None:
        import cv2

        cv2.setNumThreads(threads)
    pack = stack.enter_context(open_pack(pack_path))
    if signer is not None:
        from ..tilepacks.signature import check_signature, read_public_key

        check_signature(pack.container, read_public_key(signer))
    pack.make_ready()  # whatever is wrong with it is found on the ground
    engine = stack.enter_context(closing(load_engine(encoder, device, threads or 0)))
    check_same_encoder(str(pack_path), pack.spec, engine.name, engine.spec)
    return pack, engine


def open_poses(
    telemetry: str | None,
    source: FrameSource,
    offset_s: float,
    mount_deg: tuple[float, float, float] | None,
) -> Telemetry:
    """Open what `--telemetry` names.

    Raises:
        InputError: it cannot be had; the message says why.
    """
    from .frames import PhotoFiles
    from .telemetry import open_telemetry

    if telemetry is None and isinstance(source, PhotoFiles):
        say("no --telemetry: reading attitude and height from the photos (exif)")
        telemetry = "exif"
    if telemetry is None:
        raise InputError(
            f"--camera {source.name}: a video or live camera needs --telemetry FILE or a MAVLink "
            "stream with attitude and height"
        )
    return open_telemetry(telemetry, offset_s=offset_s, mount_deg=mount_deg)
