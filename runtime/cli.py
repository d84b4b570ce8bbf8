"""`s4g-run`: localises camera frames in a pack; `score` compares fixes with the truth."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.console import CommandGroup, MainCommand, debug_option, run_command, say
from ..core.devices import DEVICES
from ..core.errors import InputError
from ..core.files import check_output, write_bytes
from . import cli_log, cli_outputs, cli_service, cli_view
from .cli_flights import log
from .cli_part import Part, Running, add_all
from .cli_replay import replay
from .cli_score import score
from .cli_view_log import view

if TYPE_CHECKING:
    from .score import ScoredFix, Truth

_PATH = click.Path(path_type=Path)
# What a run can do besides printing its fixes; each adds its options and looks on.
PARTS: tuple[Part, ...] = (cli_outputs.PART, cli_view.PART, cli_log.PART, cli_service.PART)


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
@click.option(
    "--quiet",
    is_flag=True,
    help="Print no fixes; needs --out, --to, --view, --truth or --plot.",
)
@add_all(PARTS)
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
    **others: Any,
) -> None:
    """Localise camera frames in a region pack; print one JSON fix per line.

    \b
    Example:
      s4g-run --camera photos/ --pack region.s4gpack --telemetry telemetry.csv \\
              --hfov 82 --truth truth.csv --plot track.png > fixes.jsonl
    """
    elsewhere = any(part.is_asked_for(others) for part in PARTS)
    if quiet and not (out or truth or plot or elsewhere):
        raise InputError(
            "--quiet: nothing would be left to see; add --out, --to, --view, --truth or --plot"
        )
    for path in (out, plot):
        if path is not None:
            check_output(path, overwrite)
    for part in PARTS:
        part.check(others)
    from ..core.engine import describe
    from .camera_open import live_kind
    from .cli_open import (
        open_lens,
        open_pack_and_engine,
        open_poses,
        open_source,
        open_truth,
        parse_mount,
        parse_start,
    )
    from .cli_stream import stream_fixes
    from .frames import LiveOptions, parse_mode
    from .pack_watch import watched
    from .pipeline import FixMaker, Localiser, run_frames
    from .rate import between_frames, while_awaited
    from .tracker import Tracker

    if start is not None and single:
        raise InputError(f"--start {start}: with --single no frame comes first; leave one out")
    if rate is not None and single:
        raise InputError(f"--rate {rate:g}: with --single nothing is carried on; leave one out")
    begin = None if start is None else parse_start(start)
    if alert_limit is not None and truth is None:
        raise InputError(f"--alert-limit {alert_limit:g}: nothing is scored; add --truth FILE")
    mode = None if camera_mode is None else parse_mode(camera_mode)
    is_live = live_kind(camera) is not None
    live = LiveOptions(max_age, latency_ms, give_up_s=give_up, mode=mode)
    with ExitStack() as stack:
        lens = open_lens(hfov, intrinsics)
        known_truth = open_truth(truth)
        pack, engine = open_pack_and_engine(stack, pack_path, signer, encoder, device, threads)
        source = stack.enter_context(closing(open_source(camera, live)))
        angles = None if mount is None else parse_mount(mount)
        poses = stack.enter_context(
            closing(open_poses(telemetry, source, telemetry_offset, angles))
        )
        localiser = Localiser(pack, engine, lens, level, live=is_live)
        tracker = None if single else Tracker(pack, begin, diagnostics)
        if tracker is not None:
            stack.callback(tracker.close)
        maker = tracker or FixMaker(pack, diagnostics)
        running = Running(
            others | {"overwrite": overwrite}, pack, engine, source, poses, lens, tracker, is_live,
            realtime,
        )  # fmt: skip
        for part in PARTS:
            running.observers.extend(part.open(stack, running))
        results = run_frames(
            source, poses, localiser, maker, realtime, max_frames, running.observers
        )
        if tracker is not None and rate is not None:
            fill_in = while_awaited if is_live else between_frames
            results = fill_in(results, tracker, rate)
        results = watched(results, pack)
        keep = known_truth is not None or plot is not None
        total = min(source.count or 0, max_frames or source.count or 0)
        say(f"encoder: {describe(engine)}")
        fixes = stream_fixes(results, source, total, out, overwrite, quiet, keep, single, is_live)
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


def _say_score(fixes: list[ScoredFix], truth: Truth, alert_limit_m: float | None) -> None:
    from .score import score_fixes, score_table

    say(score_table(score_fixes(fixes, truth, alert_limit_m)))


cli.add_command(score)
cli.add_command(view)
cli.add_command(replay)
cli.add_command(log)


def main() -> None:
    """Entry point of `s4g-run`."""
    run_command(cli)
