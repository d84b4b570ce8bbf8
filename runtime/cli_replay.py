"""`s4g-run replay`: reruns a recorded flight and compares its fixes with those it gave then."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from ..core.console import debug_option, say
from ..core.devices import DEVICES
from ..core.errors import InputError
from ..core.files import atomic_file, check_output, sha256_file

if TYPE_CHECKING:
    from ..core.engine import Engine
    from ..tilepacks.reader import Pack
    from .intrinsics import Lens
    from .log_read import LogReader
    from .log_replay import Comparison, Recorded

_PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class _Plan:
    """With what a flight is rerun."""

    pack: Path
    encoder: Path | None
    device: str
    threads: int | None
    level_m: float | None
    start: str | None
    single: bool
    diagnostics: bool
    lens: Lens


@click.command("replay")
@click.argument("log", type=_PATH)
@click.option("--pack", type=_PATH, help="Try another pack.")
@click.option("--encoder", type=_PATH, help="Try another encoder; default: that of the flight.")
@click.option("--device", type=click.Choice(DEVICES), help="Try another device.")
@click.option("--threads", type=click.IntRange(min=1), help="Try another number of threads.")
@click.option("--level", metavar="M|auto", help="Try tiles this wide, or of any width.")
@click.option("--start", metavar="LAT,LON,RADIUS_M|none", help="Try another start, or none.")
@click.option("--single/--tracked", default=None, help="Try each frame by itself, or over time.")
@click.option("--hfov", type=float, metavar="DEG", help="Try another field of view.")
@click.option("--intrinsics", type=_PATH, help="Try another calibration.")
@click.option("--other-model", is_flag=True, help="Allow an encoder that was trained otherwise.")
@click.option("--out", type=_PATH, help="Write the fixes of the replay, one JSON per line.")
@click.option("--overwrite", is_flag=True, help="Replace an --out file that exists.")
@debug_option
def replay(
    log: Path,
    pack: Path | None,
    encoder: Path | None,
    device: str | None,
    threads: int | None,
    level: str | None,
    start: str | None,
    single: bool | None,
    hfov: float | None,
    intrinsics: Path | None,
    other_model: bool,
    out: Path | None,
    overwrite: bool,
) -> int:
    """Rerun a recorded flight and compare its fixes with those it gave.

    LOG is the folder of a flight that s4g-run --log-dir wrote. With other options than the
    flight's, what would have been is set beside what was. Exit code 1: the fixes differ although
    everything is as it was.

    \b
    Example:
      s4g-run replay logs/flight-0007
      s4g-run replay logs/flight-0007 --pack summer.s4gpack --out tried.jsonl
    """
    if out is not None:
        check_output(out, overwrite)
    from .cli_open import open_lens
    from .log_read import open_log

    reader = open_log(log)
    plan = _recorded_plan(reader)
    asked = replace(
        plan,
        pack=pack or plan.pack,
        encoder=encoder or plan.encoder,
        device=device or plan.device,
        threads=threads or plan.threads,
        level_m=plan.level_m if level is None else _level(level),
        start=plan.start if start is None else _start(start),
        single=plan.single if single is None else single,
        lens=plan.lens if hfov is None and intrinsics is None else open_lens(hfov, intrinsics),
    )
    if asked.single and asked.start is not None:
        raise InputError(f"--start {asked.start}: with --single no frame comes first; give none")
    tries = asked != replace(plan, pack=asked.pack, encoder=asked.encoder)
    with ExitStack() as stack:
        opened, engine = _open(stack, asked, reader, other_model, pack is not None)
        tries = _tell_differences(opened, engine, reader) or tries
        recorded, comparison = _rerun(opened, engine, asked, reader, out, overwrite)
    for fault in reader.faults:
        say(f"note: {fault}; read up to there")
    return _report(reader, recorded, comparison, tries)


def _recorded_plan(reader: LogReader) -> _Plan:
    """Return what the flight was flown with."""
    flight = reader.flight
    options = flight.options
    with contextlib.suppress(KeyError, TypeError, ValueError):
        level, threads, start = options["level"], options["threads"], options["start"]
        encoder, device = options["encoder"], options["device"]
        numbers = all(v is None or isinstance(v, (int, float)) for v in (level, threads))
        texts = all(v is None or isinstance(v, str) for v in (start, encoder))
        if numbers and texts and device in DEVICES:
            return _Plan(
                Path(flight.pack_path),
                None if encoder is None else Path(encoder),
                device,
                None if threads is None else max(int(threads), 1),
                None if level is None else float(level),
                start,
                bool(options["single"]),
                bool(options["diagnostics"]),
                flight.lens,
            )
    raise InputError(f"{reader.path}: its options are not of this format; the log is damaged")


def _level(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        level_m = float(text)
    except ValueError:
        level_m = math.nan
    if not 0 < level_m < math.inf:
        raise InputError(f"--level {text}: expected metres above 0, or auto")
    return level_m


def _start(text: str) -> str | None:
    from .cli_open import parse_start

    if text == "none":
        return None
    parse_start(text)
    return text


def _open(
    stack: ExitStack, plan: _Plan, reader: LogReader, other_model: bool, other_pack: bool
) -> tuple[Pack, Engine]:
    """Open pack and encoder; refuse those that the flight did not have and nobody asked for."""
    from .cli_log import pack_identity
    from .cli_open import open_pack_and_engine

    flight = reader.flight
    if not plan.pack.is_file() and not other_pack:
        raise InputError(f"{plan.pack}: the flight's pack is no longer there; pass --pack FILE")
    pack, engine = open_pack_and_engine(
        stack, plan.pack, None, plan.encoder, plan.device, plan.threads
    )
    if engine.spec.model_id != flight.model_id and not other_model:
        raise InputError(
            f"{engine.name}: is encoder {engine.spec.model_id[:12]}, the flight's was "
            f"{flight.model_id[:12]}; pass --other-model to try it all the same"
        )
    if pack_identity(pack) != flight.pack_sha256 and not other_pack:
        raise InputError(
            f"{plan.pack}: is not the pack of the flight any more; pass it as --pack to try it"
        )
    return pack, engine


def _tell_differences(pack: Pack, engine: Engine, reader: LogReader) -> bool:
    """Say what is not as it was in flight; tell whether pack, encoder or back end is another."""
    from .cli_log import pack_identity, versions
    from .log_format import printable

    flight, path = reader.flight, Path(engine.name)
    other_pack = pack_identity(pack) != flight.pack_sha256
    if other_pack:
        say(printable(f"note: {pack.path} is another pack than the flight's, {flight.pack_path}"))
    other_encoder = path.is_file() and flight.encoder_sha256 not in (None, sha256_file(path))
    if other_encoder:
        then = flight.encoder_path
        say(printable(f"note: {path} is another file than the flight's encoder, {then}"))
    if engine.backend != flight.backend:
        say(printable(f"note: runs on {engine.backend}, the flight on {flight.backend}"))
    now = versions()
    for name, version in flight.versions.items():
        if now.get(name) != version and name != "python":
            say(printable(f"note: {name} is {now.get(name)}, then {version}"))
    return other_pack or other_encoder or engine.backend != flight.backend


def _rerun(
    pack: Pack,
    engine: Engine,
    plan: _Plan,
    reader: LogReader,
    out: Path | None,
    overwrite: bool,
) -> tuple[Recorded, Comparison]:
    import json

    from .cli_open import parse_start
    from .log_replay import Comparison, Recorded
    from .pipeline import FixMaker, Localiser, run_frames
    from .tracker import Tracker

    recorded, comparison = Recorded(reader), Comparison(pack.frame)
    with ExitStack() as stack:
        file: IO[str] | None = None
        if out is not None:
            temporary = stack.enter_context(atomic_file(out, overwrite))
            file = stack.enter_context(temporary.open("w", encoding="utf-8"))
        localiser = Localiser(pack, engine, plan.lens, plan.level_m, live=reader.flight.live)
        maker: FixMaker | Tracker
        if plan.single:
            maker = FixMaker(pack, plan.diagnostics)
        else:
            begin = None if plan.start is None else parse_start(plan.start)
            maker = Tracker(pack, begin, plan.diagnostics)
            stack.callback(maker.close)
        results = stack.enter_context(closing(run_frames(recorded, recorded, localiser, maker)))
        for fix, _ in results:
            assert recorded.step is not None
            line = fix.to_json()
            if file is not None:
                file.write(line + "\n")
            then = recorded.step.step.fix
            comparison.add(then, fix, json.loads(line), recorded.inexact is None)
    return recorded, comparison


def _report(reader: LogReader, recorded: Recorded, found: Comparison, tries: bool) -> int:
    """Print what came out; return the exit code."""
    if found.pairs == 0:
        raise InputError(f"{reader.path}: holds no frame that can be rerun")
    click.echo(f"recorded: {_counts(found.recorded)}")
    click.echo(f"replayed: {_counts(found.replayed)}")
    if found.apart_m:
        middle, most = statistics.median(found.apart_m), max(found.apart_m)
        click.echo(
            f"positions in both: {len(found.apart_m)}; apart {middle:.2f} m (median), {most:.2f} m "
            "(most)"
        )
    click.echo(f"{found.same} of {found.pairs} fixes are the same")
    if recorded.left_out:
        click.echo(f"{recorded.left_out} frames without a picture were left out")
    if recorded.inexact is not None:
        click.echo(f"not exact: {recorded.inexact}")
    if found.first is not None:
        click.echo(f"first difference: {found.first}")
    return int(found.first is not None and found.first_is_exact and not tries)


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.most_common())
