"""What telemetry says about one frame, and whether it says anything about any of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..core.camera import Attitude
from .fix import Reason
from .frames import Frame


@dataclass(frozen=True)
class Sample:
    """Telemetry at the moment of one frame.

    Attributes:
        attitude: of the camera, with its height above ground; 0 stands for what is unknown.
        t: seconds on the frames' clock, None where unknown.
        vel_n_mps: ground speed north, None where unknown.
        vel_e_mps: ground speed east, None where unknown.
        hfov_deg: horizontal field of view, where the telemetry knows it.
        yaw_known: whether `attitude.yaw_deg` was told.
        tilt_known: whether `attitude.pitch_deg` and `attitude.roll_deg` were told.
        agl_known: whether `attitude.agl_m` was told.
        age_s: seconds between the frame and the nearest row of attitude; 0 for photos.
    """

    attitude: Attitude
    t: float | None = None
    vel_n_mps: float | None = None
    vel_e_mps: float | None = None
    hfov_deg: float | None = None
    yaw_known: bool = True
    tilt_known: bool = True
    agl_known: bool = True
    age_s: float = 0.0


class Telemetry(Protocol):
    """Where attitude and height come from."""

    def at(self, frame: Frame) -> Sample | Reason:
        """Return the sample of a frame, or NO_TELEMETRY where nothing is known at its time.

        Raises:
            InputError: frames of this kind cannot be looked up at all (a video in a table of
                file names), or the frame's own pose is damaged.
        """
        ...

    def complaint(self) -> str | None:
        """Return one line that says why no frame so far was covered; None where one was."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


class Coverage:
    """Counts which frames a telemetry knew something about."""

    def __init__(self) -> None:
        """Start with no frame."""
        self._frames = self._covered = 0
        self._first_s: float | None = None
        self._last_s: float | None = None

    def note(self, frame: Frame, known: bool) -> None:
        """Remember one frame."""
        self._frames += 1
        self._covered += known
        if frame.t is not None:
            self._first_s = frame.t if self._first_s is None else min(self._first_s, frame.t)
            self._last_s = frame.t if self._last_s is None else max(self._last_s, frame.t)

    @property
    def is_empty(self) -> bool:
        """Whether there were frames and not one was covered."""
        return self._frames > 0 and self._covered == 0

    def clocks(self, name: str, rows_s: tuple[float, float], remedy: str) -> str | None:
        """Return the line for a telemetry whose rows lie elsewhere in time, else None.

        Args:
            name: what to call the telemetry.
            rows_s: times of its first and last row, on the frames' clock.
            remedy: what to do about it.
        """
        if not self.is_empty or self._first_s is None or self._last_s is None:
            return None
        return (
            f"{name}: covers no frame: its rows run from {rows_s[0]:.3f} to {rows_s[1]:.3f} s, "
            f"the frames from {self._first_s:.3f} to {self._last_s:.3f} s; {remedy}"
        )
