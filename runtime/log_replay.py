"""A recorded flight as a source of frames and telemetry, and how its fixes compare."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..core.geo import LocalFrame
from .fix import Fix, Reason
from .frames import Frame, Outage
from .log_format import EXACT, LOSSY, PHOTO, FrameNote, printable
from .log_pixels import check_jpeg, unpack_pixels
from .log_read import LoggedStep, LogReader
from .telemetry_sample import Sample

_KEPT = (PHOTO, EXACT, LOSSY)


class Recorded:
    """Frames and telemetry out of a log: a `FrameSource` and the `Telemetry` that goes with it.

    Attributes:
        name: of the log.
        step: the one whose frame was handed out last.
        inexact: why and from which frame on the replay cannot be exact; None while it can.
        left_out: frames without a picture, which are not handed out.
    """

    dropped = 0
    count = None

    def __init__(self, log: LogReader) -> None:
        """Start before the first step."""
        self.name = str(log.path)
        self.step: LoggedStep | None = None
        self.inexact: str | None = None
        self.left_out = 0
        self._log = log

    def frames(self) -> Iterator[Frame | Outage]:
        """Yield what the flight's source yielded.

        Raises:
            InputError: a picture is damaged although its checksum fits.
        """
        expected = 0
        for one in self._log.steps():
            step, note = one.step, one.step.frame
            what = f"step {step.number}" if note is None else f"frame {note.index}"
            if step.number != expected:
                lost = step.number - expected
                self._give_up(f"{lost} steps before {what} are missing in the log")
            expected = step.number + 1
            self.step = one
            if note is None:
                assert step.t is not None
                yield Outage(step.t, time.monotonic(), "recorded")
                continue
            # A frame without telemetry is not looked at: it needs no picture.
            needed = isinstance(step.sample, Sample)
            if needed and (note.picture not in _KEPT or one.jpeg is None):
                self._give_up(f"the picture of {what} is missing in the log")
                self.left_out += 1
                continue
            if needed and (
                note.picture == LOSSY or (note.picture == EXACT and one.residual is None)
            ):
                self._give_up(f"the picture of {what} was recorded as a JPEG alone (--log-lossy)")
            yield self._frame(note, one, needed)

    def _give_up(self, why: str) -> None:
        if self.inexact is None:
            self.inexact = why

    def _frame(self, note: FrameNote, one: LoggedStep, needed: bool) -> Frame:
        encoded = decoded = None
        arrived_s = time.monotonic()
        size = note.width_px, note.height_px
        if needed and one.jpeg is not None:
            origin = f"{self.name}: frame {note.index}"
            if note.picture == PHOTO:
                check_jpeg(one.jpeg, *size, origin)
                encoded = one.jpeg
            else:
                decoded, exact = unpack_pixels(one.jpeg, one.residual, *size, origin)
                if not exact:
                    self._give_up(
                        f"this machine decodes the picture of frame {note.index} otherwise than "
                        "the one of the flight"
                    )
        return Frame(
            note.index,
            note.t,
            note.file,
            note.name,
            *size,
            arrived_s,
            decode_s=time.monotonic() - arrived_s,
            encoded=encoded,
            decoded=decoded,
        )

    def at(self, frame: Frame) -> Sample | Reason:
        """Return what telemetry said of the frame that was handed out last."""
        assert self.step is not None
        return self.step.step.sample

    def complaint(self) -> None:
        """Complain of nothing: what was recorded is what there was."""

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class Comparison:
    """Recorded and replayed fixes, one pair after the other.

    Attributes:
        ground: metres on the ground.
        pairs: how many there are.
        same: how many agree in all but their latency.
        first: the first that do not, one line.
        first_is_exact: whether the replay could still be exact there.
        recorded, replayed: how many fixes there are of each state.
        apart_m: metres between the positions, where both have one.
    """

    ground: LocalFrame
    pairs: int = 0
    same: int = 0
    first: str | None = None
    first_is_exact: bool = True
    recorded: Counter[str] = field(default_factory=Counter)
    replayed: Counter[str] = field(default_factory=Counter)
    apart_m: list[float] = field(default_factory=list)

    def add(
        self, recorded: dict[str, Any], replayed: Fix, made: dict[str, Any], exact: bool
    ) -> None:
        """Compare a pair.

        Args:
            recorded: the fix as it stands in the log.
            replayed: the fix of the replay.
            made: the same as a line of JSON would hold it.
            exact: whether nothing was missing so far.
        """
        self.pairs += 1
        self.recorded[str(recorded.get("state"))] += 1
        self.replayed[replayed.state.value] += 1
        # In the order of `fixes.jsonl`: the state before what follows from it.
        names = [name for name in {**made, **recorded} if name != "latency_ms"]
        differ = [name for name in names if recorded.get(name) != made.get(name)]
        self.same += not differ
        if differ and self.first is None:
            told = (f"{n} {_short(recorded.get(n))}, now {_short(made.get(n))}" for n in differ[:4])
            more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
            self.first = f"frame {replayed.frame}: {'; '.join(told)}{more}"
            self.first_is_exact = exact
        then, now = _place(recorded), _place(made)
        if then is None or now is None:
            return
        east_m, north_m = self.ground.to_local([then[0], now[0]], [then[1], now[1]])
        self.apart_m.append(math.hypot(east_m[1] - east_m[0], north_m[1] - north_m[0]))


def _place(fix: dict[str, Any]) -> tuple[float, float] | None:
    lat, lon = fix.get("lat"), fix.get("lon")
    if not isinstance(lat, float) or not isinstance(lon, float):
        return None
    return (lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 else None


def _short(value: Any) -> str:
    text = printable(str(value))
    return text if len(text) <= 40 else text[:37] + "..."
