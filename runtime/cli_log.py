"""`s4g-run --log-dir`: a record of the flight, from which it can be rerun."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.console import overheard, say
from ..core.errors import InputError
from ..core.files import sha256_file, why_not_written
from .cli_part import Options, Part, Running

if TYPE_CHECKING:
    from .log_disk import RecorderOptions
    from .log_format import Flight
    from .log_record import Recorder
    from .observe import Observer

_F = TypeVar("_F", bound=Callable[..., Any])
_MB = 1_000_000
_LEAST_MB, _CAP_MB = 32, 8000
# Of the command's options those that decide what the fixes are, or tell where a flight came from.
_RECORDED = (
    "level",
    "start",
    "single",
    "diagnostics",
    "threads",
    "device",
    "encoder",
    "mount",
    "telemetry",
    "telemetry_offset",
    "max_age",
    "latency_ms",
    "rate",
)
LIBRARIES = ("numpy", "cv2", "onnxruntime")


class _Log:
    def add_options(self, command: _F) -> _F:
        for option in reversed(
            (
                click.option(
                    "--log-dir",
                    type=click.Path(path_type=Path),
                    metavar="DIR",
                    help="Record the flight in this folder: frames, telemetry, fixes, what was "
                    "said; s4g-run replay reruns it (docs/logs.md).",
                ),
                click.option(
                    "--log-cap",
                    type=click.IntRange(min=_LEAST_MB),
                    default=_CAP_MB,
                    show_default=True,
                    metavar="MB",
                    help="Size of that folder; the oldest files go first.",
                ),
                click.option(
                    "--log-frames",
                    default="every",
                    show_default=True,
                    metavar="every|HZ|none",
                    help="Which pictures are recorded; a replay needs every one.",
                ),
                click.option(
                    "--log-lossy",
                    is_flag=True,
                    help="Record a camera's frames as JPEG alone: a fraction of the space, but a "
                    "replay is no longer exact.",
                ),
            )
        ):
            command = option(command)
        return command

    def is_asked_for(self, options: Options) -> bool:
        return options["log_dir"] is not None

    def check(self, options: Options) -> None:
        frames_hz = _frames_hz(options["log_frames"])
        folder = options["log_dir"]
        if folder is None:
            if options["log_lossy"] or frames_hz != math.inf or options["log_cap"] != _CAP_MB:
                raise InputError("--log-…: nothing is recorded; add --log-dir DIR")
            return
        for module in ("mcap", "zstandard"):
            if find_spec(module) is None:
                raise InputError(f"--log-dir {folder}: needs {module}; pip install 's4g[outputs]'")

    def open(self, stack: ExitStack, running: Running) -> Sequence[Observer]:
        folder = running.options["log_dir"]
        if folder is None:
            return ()
        from .log_disk import RecorderOptions
        from .log_folder import locked, new_flight
        from .log_record import Recorder

        options = RecorderOptions(
            folder.absolute(),
            running.options["log_cap"] * _MB,
            _frames_hz(running.options["log_frames"]),
            not running.options["log_lossy"],
        )
        try:
            _make_folder(folder)
            stack.enter_context(locked(folder))
            number = new_flight(folder)
            recorder = Recorder(options, _describe(running, number))
        except OSError as error:
            raise InputError(f"--log-dir {folder}: cannot write {why_not_written(error)}") from None
        stack.callback(recorder.close)
        stack.enter_context(_ending(recorder))
        stack.enter_context(overheard(recorder.note))
        _tell(folder, number, options)
        return (recorder,)


def _frames_hz(text: str) -> float:
    """Return pictures a second that `--log-frames` asks for."""
    if text in ("every", "none"):
        return math.inf if text == "every" else 0.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"--log-frames {text}: expected every, none, or pictures a second")
    return value


def _make_folder(folder: Path) -> None:
    if not folder.exists() and not folder.parent.is_dir():
        raise InputError(
            f"--log-dir {folder}: the folder {folder.parent} does not exist; create it first"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--log-dir {folder}: is a file; give the name of a folder")
    folder.mkdir(exist_ok=True)


def _tell(folder: Path, number: int, options: RecorderOptions) -> None:
    import shutil

    from .log_folder import flight_folder, flights_of, segments_of

    flights = flights_of(folder).items()
    used = sum(one.size for flight, path in flights for one in segments_of(flight, path))
    room = shutil.disk_usage(folder).free + used
    say(f"flight log: {flight_folder(folder, number)}")
    if room < options.cap_bytes:
        say(
            f"note: --log-cap {options.cap_bytes // _MB}: the disk has room for {room // _MB} MB; "
            "once it is full nothing more is recorded"
        )


@contextlib.contextmanager
def _ending(recorder: Recorder) -> Iterator[None]:
    """Note what ended a flight that did not end by itself."""
    try:
        yield
    except BaseException as error:
        text = " ".join(str(error).split())
        recorder.note(f"ended by {type(error).__name__}{': ' * bool(text)}{text}", level=4)
        raise


def versions() -> dict[str, str]:
    """Return the versions of what decides the last digit of a fix."""
    from importlib import import_module

    from .. import __version__

    found = {"s4g": __version__, "python": platform.python_version()}
    found["machine"] = f"{platform.machine()} {platform.system()}"
    for name in LIBRARIES:
        found[name] = str(getattr(import_module(name), "__version__", ""))
    return found


def _describe(running: Running, number: int) -> Flight:
    from .camera_open import public_name
    from .log_format import Flight

    pack, engine = running.pack, running.engine
    given = click.get_current_context().params
    options = {name: given.get(name) for name in _RECORDED}
    options["camera"] = running.source.name
    for name, value in options.items():
        if isinstance(value, Path):
            options[name] = str(value.absolute())
        elif isinstance(value, str):
            options[name] = public_name(value)
    encoder = Path(engine.name)
    return Flight(
        flight=number,
        segment=1,
        first_step=0,
        lens=running.lens,
        live=running.is_live,
        pack_path=str(pack.path.absolute()),
        pack_sha256=pack_identity(pack),
        encoder_path=str(encoder.absolute()),
        encoder_sha256=sha256_file(encoder) if encoder.is_file() else None,
        model_id=engine.spec.model_id,
        backend=engine.backend,
        options=options,
        versions=versions(),
        started_utc_s=time.time(),
    )


def pack_identity(pack: Any) -> str:
    """Return the SHA-256 that a pack's header ends with; it vouches for all that follows."""
    return bytes(pack.container.head[-32:]).hex()


PART: Part = _Log()
