"""The ways to find a position that are compared; each sees frames, telemetry, lens and pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing

from kept import code_of, key_of
from making import Seen
from memo import MemoEngine
from sift import imagery_key, sift_code, sift_fixes

from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.frames import Frame, PhotoFiles
from s4g.runtime.intrinsics import Lens, read_intrinsics
from s4g.runtime.pipeline import Finding, Fixer, FixMaker, Localiser, run_frames
from s4g.runtime.tables import read_csv_rows
from s4g.runtime.telemetry import Sample, read_telemetry
from s4g.runtime.tracker import Start, Tracker
from s4g.tilepacks.reader import Pack

Fixes = Iterator[tuple[Fix, dict[str, float]]]


class ClockedPhotos(PhotoFiles):
    """The frames of a flight, each at its time on the camera's clock."""

    def __init__(self, seen: Seen) -> None:
        """List the frames."""
        super().__init__(seen.frames)
        _, rows = read_csv_rows(seen.clock)
        self._t = {row["file"]: float(row["t"]) for row in rows}

    def frames(self) -> Iterator[Frame]:
        """Yield the frames."""
        for frame in super().frames():
            assert frame.file is not None
            yield dataclasses.replace(frame, t=self._t[frame.file])


class TopTile(FixMaker):
    """What published systems do: the best tile of the frame is where it is, always."""

    def fix(self, frame: Frame, sample: Sample, finding: Finding) -> Fix:
        """Return the centre of the tile most like the middle patch, less the patch's offset."""
        if finding.evidence is None or finding.plan is None:
            reason = finding.reason or Reason.AMBIGUOUS
            return Fix(frame.index, frame.t, State.NO_FIX, frame.file, reason)
        place_m = finding.evidence.tiles_m[0, 0] - finding.evidence.offsets_m[0]
        lat, lon = (float(v) for v in self._pack.frame.to_wgs84(*place_m))
        return Fix(
            frame.index,
            frame.t,
            State.TRACK,
            frame.file,
            lat=lat,
            lon=lon,
            score=float(finding.evidence.scores[0, 0]),
            anchor_age_s=0.0,
            source="visual",
        )


def filtered(seen: Seen, pack: Pack, engine: MemoEngine) -> Fixes:
    """Yield what `s4g-run` gives by default."""
    start = None if seen.start is None else Start(*seen.start)
    return _product(seen, pack, engine, Localiser(pack, engine, _lens(seen)), Tracker(pack, start))


def single(seen: Seen, pack: Pack, engine: MemoEngine) -> Fixes:
    """Yield what `s4g-run` gives frame by frame."""
    return _product(seen, pack, engine, Localiser(pack, engine, _lens(seen)), FixMaker(pack))


def top1(seen: Seen, pack: Pack, engine: MemoEngine) -> Fixes:
    """Yield the best tile of one patch as large as the frame holds."""
    localiser = Localiser(pack, engine, _lens(seen), max_patches=1)
    return _product(seen, pack, engine, localiser, TopTile(pack))


def sift(seen: Seen, pack: Pack, engine: MemoEngine) -> Fixes:
    """Yield positions by SIFT and RANSAC against the pack's imagery."""
    telemetry = read_telemetry(seen.telemetry)
    return sift_fixes(ClockedPhotos(seen), telemetry, read_intrinsics(seen.camera), pack)


WAYS: dict[str, Callable[[Seen, Pack, MemoEngine], Fixes]] = {
    "filtered": filtered,
    "single": single,
    "top1": top1,
    "sift": sift,
}
_CODE = {
    "filtered": ("runtime/pipeline.py", "runtime/tracker.py", "runtime/telemetry_csv.py"),
    "single": ("runtime/pipeline.py", "runtime/telemetry_csv.py"),
    "top1": ("runtime/pipeline.py", "runtime/telemetry_csv.py"),
}


def run_key(way: str, pack: Pack) -> str:
    """Return a hash of what a way's fixes depend on besides the flight: pack, encoder, code."""
    if way == "sift":
        return key_of(way, imagery_key(pack), sift_code())
    ours = code_of("benchmarks/flights/ways.py", follow=False)
    # The name of a pack is the hash of what it was made from.
    return key_of(way, pack.path.stem, pack.spec.model_id, ours, code_of(*_CODE[way]))


def _lens(seen: Seen) -> Lens:
    return Lens(None, read_intrinsics(seen.camera))


def _product(
    seen: Seen, pack: Pack, engine: MemoEngine, localiser: Localiser, maker: Fixer
) -> Fixes:
    engine.settle()  # warming up owes nothing
    with closing(ClockedPhotos(seen)) as source:
        for fix, stages in run_frames(source, read_telemetry(seen.telemetry), localiser, maker):
            owed_ms = engine.settle() * 1e3
            if fix.latency_ms is not None:
                fix = dataclasses.replace(fix, latency_ms=fix.latency_ms + owed_ms)
            yield fix, {name: ms + owed_ms * (name == "embed") for name, ms in stages.items()}
