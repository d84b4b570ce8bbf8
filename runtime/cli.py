"""`s4g-run`: localises camera frames in a pack; `score` compares fixes with the truth."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from ..core.console import CommandGroup, MainCommand, debug_option, progress, run_command, say
from ..core.devices import DEVICES
from ..core.errors import InputError
from ..core.files import atomic_file, check_output, write_bytes
from .cli_score import score

if TYPE_CHECKING:
    from ..core.engine import Engine
    from ..tilepacks.reader import Pack
    from .fix import Fix
    from .frames import FrameSource, LiveOptions
    from .intrinsics import Lens
    from .pipeline import Stages
    from .score import ScoredFix, Truth
    from .telemetry import Telemetry
    from .tracker import Start

_PATH = click.Path(path_type=Path)
_LATEST_STAGES = 10_000  # frames whose stage times are kept: a long flight must not fill memory


@click.group(cls=CommandGroup)
def cli() -> None:
    """Localise camera frames in a region pack, without GNSS."""


@cli.main_job
@click.command(cls=MainCommand)
@click.option(
    "--camera",
    required=True,
    metavar="SRC",
    help="Device (/dev/video0 or 0), rtsp:// or udp:// URL, GStreamer pipeline, video file, "
    "photo, or folder of photos.",
)
@click.option("--pack", "pack_path", required=True, type=_PATH, help="Region pack of s4g-pack.")
@click.option(
    "--require-signature",
    "signer",
    type=_PATH,
    metavar="KEY.pub",
    help="Take only a pack that this key has signed (s4g-pack sign).",
)
@click.option(
    "--telemetry",
    metavar="FILE|URL|exif",
    help="Attitude and height per frame (docs/telemetry.md): a CSV, an autopilot's log, DJI "
    "subtitles, a MAVLink stream (udpin:…, serial:…), or 'exif' for DJI photos; photos without "
    "this option are read as 'exif'.",
)
@click.option(
    "--telemetry-offset",
    type=float,
    default=0.0,
    metavar="S",
    help="What the frames' clock shows when the telemetry's shows 0, seconds.",
)
@click.option(
    "--mount",
    metavar="YAW,PITCH,ROLL",
    help="How a fixed camera sits in the vehicle, degrees; 0,0,0 looks straight down.",
)
@click.option("--encoder", type=_PATH, help="Bundle or ONNX file; default: the embedded encoder.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(DEVICES),
    help="What runs the encoder; auto: TensorRT where the bundle has a plan, else CUDA, else CPU.",
)
@click.option("--hfov", type=float, metavar="DEG", help="Horizontal field of view, degrees.")
@click.option("--intrinsics", type=_PATH, help="camera.json, OpenCV YAML or ROS camera_info YAML.")
@click.option("--truth", type=_PATH, help="CSV of true positions; only scored, never used.")
@click.option("--out", type=_PATH, help="Write the fixes to this file too, one JSON per line.")
@click.option("--plot", type=_PATH, help="Draw fixes (and truth) on the pack's imagery, PNG.")
@click.option("--level", type=float, metavar="M", help="Use tiles this wide, metres, always.")
@click.option("--start", metavar="LAT,LON,RADIUS_M", help="Where the flight starts, if known.")
@click.option(
    "--single",
    is_flag=True,
    help="Localise each frame by itself, as if there were no other: to compare.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=1000),
    metavar="HZ",
    help="Say where the drone is this often between frames too.",
)
@click.option(
    "--max-age",
    type=float,
    default=0.5,
    show_default=True,
    metavar="S",
    help="Live: leave out frames older than this.",
)
@click.option(
    "--latency-ms",
    type=float,
    default=0.0,
    metavar="MS",
    help="Live: from exposure to arrival, where no driver tells (all but V4L2).",
)
@click.option(
    "--camera-mode", metavar="WxH[:FOURCC]", help="Live: what a V4L2 device is asked for."
)
@click.option("--give-up", type=float, metavar="S", help="Live: end after so long without a frame.")
@click.option(
    "--alert-limit", type=float, metavar="M", help="With --truth: fixes farther off are false."
)
@click.option("--realtime", is_flag=True, help="Replay files at the pace of their clock.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for inference and image work.")
@click.option("--max-frames", type=click.IntRange(min=1), help="Stop after this many frames.")
@click.option("--diagnostics", is_flag=True, help="Add how each fix came about (calibration).")
@click.option("--overwrite", is_flag=True, help="Replace --out and --plot files that exist.")
@click.option("--quiet", is_flag=True, help="Print no fixes; needs --out, --truth or --plot.")
@debug_option
def run(
    camera: str,
    pack_path: Path,
    telemetry: str | None,
    encoder: Path | None,
    device: str,
    hfov: float | None,
    intrinsics: Path | None,
    truth: Path | None,
    out: Path | None,
    plot: Path | None,
    signer: Path | None,
    telemetry_offset: float,
    mount: str | None,
    start: str | None,
    single: bool,
    rate: float | None,
    max_age: float,
    latency_ms: float,
    camera_mode: str | None,
    give_up: float | None,
    alert_limit: float | None,
    level: float | None,
    realtime: bool,
    threads: int | None,
    max_frames: int | None,
    diagnostics: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Localise camera frames in a region pack; print one JSON fix per line.

    \b
    Example:
      s4g-run --camera photos/ --pack region.s4gpack --telemetry telemetry.csv \\
              --hfov 82 --truth truth.csv --plot track.png > fixes.jsonl
    """
    if quiet and not (out or truth or plot):
        raise InputError("--quiet: nothing would be left to see; add --out, --truth or --plot")
    for path in (out, plot):
        if path is not None:
            check_output(path, overwrite)
    from ..core.engine import describe
    from .camera_open import live_kind
    from .frames import LiveOptions, parse_mode
    from .pack_watch import watched
    from .pipeline import FixMaker, Localiser, run_frames
    from .rate import between_frames, while_awaited
    from .tracker import Tracker

    if start is not None and single:
        raise InputError(f"--start {start}: with --single no frame comes first; leave one out")
    if rate is not None and single:
        raise InputError(f"--rate {rate:g}: with --single nothing is carried on; leave one out")
    begin = None if start is None else _start(start)
    if alert_limit is not None and truth is None:
        raise InputError(f"--alert-limit {alert_limit:g}: nothing is scored; add --truth FILE")
    mode = None if camera_mode is None else parse_mode(camera_mode)
    is_live = live_kind(camera) is not None
    live = LiveOptions(max_age, latency_ms, give_up_s=give_up, mode=mode)
    with ExitStack() as stack:
        lens = _lens(hfov, intrinsics)
        known_truth = _truth(truth)
        pack, engine = _pack_and_engine(stack, pack_path, signer, encoder, device, threads)
        source = stack.enter_context(closing(_source(camera, live)))
        angles = None if mount is None else _mount(mount)
        poses = stack.enter_context(
            closing(_telemetry(telemetry, source, telemetry_offset, angles))
        )
        localiser = Localiser(pack, engine, lens, level, live=is_live)
        tracker = None if single else Tracker(pack, begin, diagnostics)
        if tracker is not None:
            stack.callback(tracker.close)
        maker = tracker or FixMaker(pack, diagnostics)
        results = run_frames(source, poses, localiser, maker, realtime, max_frames)
        if tracker is not None and rate is not None:
            fill_in = while_awaited if is_live else between_frames
            results = fill_in(results, tracker, rate)
        results = watched(results, pack)
        keep = known_truth is not None or plot is not None
        total = min(source.count or 0, max_frames or source.count or 0)
        say(f"encoder: {describe(engine)}")
        fixes = _stream(results, source, total, out, overwrite, quiet, keep, single, is_live)
        if (complaint := poses.complaint()) is not None:
            raise InputError(complaint)
        if engine.spec.unknown_score <= 0:
            say(
                f"note: {engine.name} is not calibrated: ground that the pack does not hold may "
                "pass for a fix; calibrate its checkpoint with s4g-train calibrate"
            )
        if known_truth is not None:
            _say_score(fixes, known_truth, alert_limit)
        if plot is not None:
            from .plot import draw_track

            write_bytes(plot, draw_track(pack, fixes, known_truth), overwrite)
            say(f"track drawn to {plot}")


def _lens(hfov: float | None, intrinsics: Path | None) -> Lens:
    from .intrinsics import Lens, read_intrinsics

    if hfov is not None and intrinsics is not None:
        raise InputError("--hfov and --intrinsics: give one of them, they say the same thing")
    return Lens(hfov, None if intrinsics is None else read_intrinsics(intrinsics))


def _truth(path: Path | None) -> Truth | None:
    from .score import read_truth

    return None if path is None else read_truth(path)


def _source(camera: str, live: LiveOptions) -> FrameSource:
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


def _mount(text: str) -> tuple[float, float, float]:
    return _numbers("--mount", text, "YAW,PITCH,ROLL in degrees")


def _start(text: str) -> Start:
    from .tracker import Start

    lat, lon, radius_m = _numbers("--start", text, "LAT,LON,RADIUS_M")
    if not (abs(lat) <= 90 and abs(lon) <= 180 and radius_m > 0):
        raise InputError(f"--start {text}: expected degrees, and metres above 0")
    return Start(lat, lon, radius_m)


def _pack_and_engine(
    stack: ExitStack,
    pack_path: Path,
    signer: Path | None,
    encoder: Path | None,
    device: str,
    threads: int | None,
) -> tuple[Pack, Engine]:
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


def _telemetry(
    telemetry: str | None,
    source: FrameSource,
    offset_s: float,
    mount_deg: tuple[float, float, float] | None,
) -> Telemetry:
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


def _stream(
    results: Generator[tuple[Fix, Stages], None, None],
    source: FrameSource,
    total: int,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    keep: bool,
    single: bool,
    is_live: bool,
) -> list[ScoredFix]:
    """Print and write fixes as they come; return them where `keep` asks for it."""
    from .score import parse_fix, stage_table

    fixes: list[ScoredFix] = []
    stages: deque[Stages] = deque(maxlen=_LATEST_STAGES)
    frames = issued = timeless = 0
    with ExitStack() as stack:
        file: IO[str] | None = None
        if out is not None:
            temporary = stack.enter_context(atomic_file(out, overwrite))
            # Line by line, so that after a power cut the temporary file still tells the flight.
            file = stack.enter_context(temporary.open("w", encoding="utf-8", buffering=1))
        advance = stack.enter_context(progress("localising", total, "frames"))
        stack.enter_context(closing(results))
        try:
            for fix, times in results:
                line = fix.to_json()
                if not quiet:
                    click.echo(line)
                if file is not None:
                    file.write(line + "\n")
                if keep:
                    fixes.append(parse_fix(line, "fix"))
                if times:
                    stages.append(times)
                if fix.latency_ms is None:
                    continue  # no frame led to it
                frames += 1
                issued += fix.lat is not None
                timeless += fix.t is None and bool(times)
                advance(1)
        except KeyboardInterrupt:
            if not is_live:
                raise
            say("interrupted")  # a live run ends this way: keep what it found
    drops = f", {source.dropped} frames dropped" if source.dropped else ""
    say(f"{issued} fixes from {frames} frames{drops}")
    if timeless and not single:
        say(
            f"note: {timeless} frames have no time: each was localised by itself; a 't' column in "
            "the telemetry gives them one"
        )
    if stages:
        say(stage_table(stages))
    return fixes


def _say_score(fixes: list[ScoredFix], truth: Truth, alert_limit_m: float | None) -> None:
    from .score import score_fixes, score_table

    say(score_table(score_fixes(fixes, truth, alert_limit_m)))


cli.add_command(score)


def main() -> None:
    """Entry point of `s4g-run`."""
    run_command(cli)
