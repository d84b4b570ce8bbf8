"""Odometry and registration on the imagery, measured on the calibration flights.

The first table is of steps between frames: at the flights' own rate (57 m between frames) and over
the same countries at 1 to 30 frames a second, with ordinary sensors and with exact ones, which
leave the registration's own error; beside it the plain way, `cv2.phaseCorrelate` of successive
views. The second is of views on the pack's imagery, of another date and season: expected within 30
m of the truth, and expected at wrong places, where nothing must be found. Each way is given the
threshold with which it believes one of a thousand wrong places at most. Times are of one thread.

Example:
    OMP_NUM_THREADS=1 python benchmarks/registration.py --out /tmp/registration
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from brighton import command
from calibration_flights import FLIGHTS, simulate
from registration_views import RGB, SIDE_PX, View, read_views, render

from s4g.core.ground import GroundWindow
from s4g.runtime.odometry import Odometry
from s4g.runtime.registration import Registration
from s4g.tilepacks.reader import Pack, open_pack

Floats = npt.NDArray[np.float64]

# Rates, and how long a way over a country of 1.2 km keeps the frames to a few hundred.
RATES: dict[float, list[str]] = {
    1: ["--pattern", "lawnmower", "--spacing", "400", "--inset", "60"],
    3: ["--pattern", "line", "--inset", "60"],
    10: ["--pattern", "line", "--inset", "250"],
    30: ["--pattern", "line", "--inset", "400"],
}
EXACT_RATES = (1, 3)
COUNTRIES = (0, 1, 2)
OFF_M, REACH_M = 30.0, 40.0
# A view found further than this from where it is, is found wrongly.
FALSE_M = 5.0
# Views of changed ground: so much of them shows another place.
CHANGED = 0.2
WRONG_PER_VIEW = 6
# Response of `cv2.phaseCorrelate` from which on it is believed.
_RESPONSE = 0.1


@dataclass
class Steps:
    """What an odometry said of flights."""

    asked: int = 0
    error_m: list[Floats] = field(default_factory=list)
    sigma_m: list[float] = field(default_factory=list)
    way_m: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        """Return a line of the table."""
        error = np.array(self.error_m).reshape(-1, 2)
        size, way = np.linalg.norm(error, axis=1), np.maximum(self.way_m, 1e-3)
        sigma = np.array(self.sigma_m)
        wild = int((size > FALSE_M + 0.1 * way).sum())
        spread = float(np.sqrt(((error / sigma[:, None]) ** 2).mean()))
        return (
            f"{name:34s} {self.asked:6d} {len(size) / self.asked:8.1%} {np.mean(way):6.2f} "
            f"{np.median(size):7.3f} {np.percentile(size, 95):7.3f} {size.max():8.3f} "
            f"{np.median(size / way):7.2%} {wild:5d} {spread:6.2f} {np.median(self.ms):6.2f} "
            f"{np.percentile(self.ms, 95):6.2f}"
        )


STEPS_HEAD = (
    f"{'flights':34s} {'frames':>6s} {'believed':>8s} {'step m':>6s} {'error m':>7s} {'p95':>7s} "
    f"{'max':>8s} {'of way':>7s} {'wild':>5s} {'/sigma':>6s} {'ms p50':>6s} {'p95':>6s}"
)


def fly(views: list[View], steps: Steps, exact: bool, plain: bool) -> None:
    """Add the steps between a flight's views."""
    odometry, before = Odometry(), views[0]
    window = np.asarray(cv2.createHanningWindow((SIDE_PX, SIDE_PX), cv2.CV_32F), np.float32)
    by_time = {round(view.t, 3): view for view in views}
    for number, view in enumerate(views):
        started = time.process_time()
        if plain:
            step = _plain_step(before, view, window) if number else None
        else:
            agl_m = 0.0 if exact else view.agl_m
            found = odometry.step(view.t, view.picture, view.footprint_m, view.center_m, agl_m)
            step = None if found is None else (found.seconds, found.moved_m, found.sigma_m)
        steps.ms.append(1e3 * (time.process_time() - started))
        before = view
        steps.asked += number > 0
        if step is not None:
            seconds, moved_m, sigma_m = step
            true_m = view.drone_m - by_time[round(view.t - seconds, 3)].drone_m
            steps.error_m.append(moved_m - true_m)
            steps.sigma_m.append(sigma_m)
            steps.way_m.append(float(np.linalg.norm(true_m)))


def _plain_step(
    before: View, view: View, window: npt.NDArray[np.float32]
) -> tuple[float, Floats, float] | None:
    if before.footprint_m != view.footprint_m:
        return None
    greys = (cv2.cvtColor(v.picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for v in (view, before))
    (right, down), response = cv2.phaseCorrelate(*greys, window)
    if response < _RESPONSE:
        return None
    shift_m = np.array([right, -down]) * view.footprint_m / SIDE_PX
    return view.t - before.t, shift_m + before.center_m - view.center_m, 1.0


# A way to register: picture, window of the map (grey), in; right and down of the picture's first
# pixel, and how sure, out.
Answer = tuple[float, float, float]
Way = Callable[[RGB, RGB], Answer | None]


def grey_correlation(view: RGB, ground: RGB) -> Answer | None:
    """Normalised cross-correlation of grey levels, one peak against all others."""
    surface = cv2.matchTemplate(ground, view, cv2.TM_CCOEFF_NORMED)
    row, column = divmod(int(surface.argmax()), surface.shape[1])
    return float(column), float(row), float(surface[row, column])


def phase_correlation(view: RGB, ground: RGB) -> Answer | None:
    """Phase correlation of the view, laid into the middle of an even field, with the window."""
    field_px = (ground.shape[0] - SIDE_PX) // 2
    laid = cv2.copyMakeBorder(view, *(field_px,) * 4, cv2.BORDER_CONSTANT, value=int(view.mean()))
    window = np.asarray(cv2.createHanningWindow(ground.shape[::-1], cv2.CV_32F), np.float32)
    pair = laid.astype(np.float32), ground.astype(np.float32)
    (right, down), response = cv2.phaseCorrelate(*pair, window)
    return field_px + right, field_px + down, response


def features(detector: cv2.Feature2D, norm: int) -> Way:
    """Return the way of features, ratio test and a homography by MAGSAC; sure are its inliers."""

    def way(view: RGB, ground: RGB) -> Answer | None:
        (points, described), (there, known) = (
            detector.detectAndCompute(image, None)  # type: ignore[call-overload]
            for image in (view, ground)
        )
        if described is None or known is None or len(known) < 2:
            return None
        pairs = cv2.BFMatcher(norm).knnMatch(described, known, k=2)
        good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < 0.8 * p[1].distance]
        if len(good) < 4:
            return None
        source = np.array([points[m.queryIdx].pt for m in good], np.float32)
        target = np.array([there[m.trainIdx].pt for m in good], np.float32)
        homography, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 3.0)
        if homography is None:
            return None
        middle = homography @ [(SIDE_PX - 1) / 2, (SIDE_PX - 1) / 2, 1.0]
        column, row = middle[:2] / middle[2] - (SIDE_PX - 1) / 2
        return float(column), float(row), float(inliers.sum())

    return way


@dataclass
class Tries:
    """What a way to register found: error in metres and how sure, or None."""

    right: list[tuple[float, float] | None] = field(default_factory=list)
    changed: list[tuple[float, float] | None] = field(default_factory=list)
    wrong: list[tuple[float, float] | None] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    def row(self, name: str, least: float | None = None) -> str:
        """Return a line of the table; without `least` the threshold is chosen."""
        if least is None:
            sure = sorted((answer[1] for answer in self.wrong if answer), reverse=True)
            allowed = len(self.wrong) // 1000
            least = sure[allowed] if len(sure) > allowed else 0.0
        right, changed, wrong = (
            np.array([a[0] for a in tries if a and a[1] > least])
            for tries in (self.right, self.changed, self.wrong)
        )
        good = right[right <= FALSE_M] if (right <= FALSE_M).any() else np.array([np.nan])
        return (
            f"{name:28s} {(right <= FALSE_M).sum() / len(self.right):7.1%} "
            f"{(right > FALSE_M).sum():5d} {np.median(good):7.2f} {np.percentile(good, 95):6.2f} "
            f"{good.max():6.2f} {(changed <= FALSE_M).sum() / len(self.changed):8.1%} "
            f"{(changed > FALSE_M).sum():5d} {len(wrong):5d} of {len(self.wrong):5d} "
            f"{np.median(self.ms):7.2f} {np.percentile(self.ms, 95):7.2f}"
        )


TRIES_HEAD = (
    f"{'way':28s} {'found':>7s} {'false':>5s} {'error m':>7s} {'p95':>6s} {'max':>6s} "
    f"{'changed':>8s} {'false':>5s} {'at wrong places':>14s} {'ms p50':>7s} {'p95':>7s}"
)


class Trials:
    """Has every way look for the same views at the same places."""

    def __init__(self) -> None:
        """Start with no view."""
        self._ways: dict[str, Way] = {
            "grey, cross-correlation": grey_correlation,
            "grey, phase correlation": phase_correlation,
            "SIFT, MAGSAC": features(cv2.SIFT_create(), cv2.NORM_L2),
            "ORB, MAGSAC": features(cv2.ORB_create(1000), cv2.NORM_HAMMING),
        }
        self.tries = {name: Tries() for name in self._ways}
        self.ours = Tries()
        self.errors_sigma: list[Floats] = []
        self.drawing_ms: list[float] = []

    def add(
        self, pack: Pack, views: list[View], others: list[View], every: int, there: bool
    ) -> None:
        """Look for a flight's views in a pack, whose ground they show if `there`."""
        rng = np.random.default_rng(5)
        registered = Registration(pack)
        ground = pack.imagery()
        assert ground is not None
        west, south, east, north = pack.frame.local_bounds(pack.bounds)
        for number in range(0, len(views), every):
            view = views[number]
            true_m = np.array([float(v) for v in pack.frame.to_local(view.lat_deg, view.lon_deg)])
            places = rng.uniform((west + 60, south + 60), (east - 60, north - 60), (20, 2))
            far = np.abs(places - true_m).max(axis=1) > (200 if there else 0)
            away = places[far][:WRONG_PER_VIEW]
            inside = west + 40 < true_m[0] < east - 40 and south + 40 < true_m[1] < north - 40
            asked = [("wrong", view.picture, place) for place in away]
            if inside and there:
                near = true_m + rng.uniform(-OFF_M, OFF_M, 2)
                other = others[(number + len(others) // 2) % len(others)].picture
                asked.append(("right", view.picture, near))
                asked.append(("changed", _changed(view.picture, other, rng), near))
            for kind, picture, near in asked:
                self._ask(registered, kind, picture, view.footprint_m, near, true_m)
                gsd_m = view.footprint_m / SIDE_PX
                half_m = 128 * gsd_m
                window = GroundWindow(near[0] - half_m, near[1] + half_m, gsd_m, 256, 256)
                map_grey = _grey(ground.read(pack.frame, window).rgb)
                for name, way in self._ways.items():
                    started = time.process_time()
                    answer = way(_grey(picture), map_grey)
                    self.tries[name].ms.append(1e3 * (time.process_time() - started))
                    told = None
                    if answer is not None:
                        column, row, sure = answer
                        middle = np.array([column + 64, -row - 64]) * gsd_m
                        corner = np.array([window.west_m, window.north_m])
                        told = float(np.linalg.norm(corner + middle - true_m)), sure
                    getattr(self.tries[name], kind).append(told)
        ground.close()
        registered.close()

    def _ask(
        self,
        registered: Registration,
        kind: str,
        picture: RGB,
        footprint_m: float,
        near_m: Floats,
        true_m: Floats,
    ) -> None:
        """Ask the runtime's own way, twice: the first time it may have to draw the map."""
        taken = []
        for _ in range(2):
            started = time.process_time()
            found = registered.register(picture, footprint_m, near_m, REACH_M)
            taken.append(1e3 * (time.process_time() - started))
        self.drawing_ms.append(taken[0] - taken[1])
        self.ours.ms.append(taken[1])
        answer = None
        if found is not None:
            error_m = found.position_m - true_m
            answer = float(np.linalg.norm(error_m)), 1.0
            if kind == "right":
                self.errors_sigma.append(error_m / found.sigma_m)
        getattr(self.ours, kind).append(answer)


def _grey(rgb: RGB) -> RGB:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def _changed(picture: RGB, other: RGB, rng: np.random.Generator) -> RGB:
    """Return a picture of which a square shows another place."""
    side = round(SIDE_PX * CHANGED**0.5)
    row, column = (int(v) for v in rng.integers(0, SIDE_PX - side, 2))
    part = np.s_[row : row + side, column : column + side]
    result = picture.copy()
    result[part] = other[part]
    return result


def build(source: str, path: Path) -> Pack:
    """Return a pack that carries the imagery; its tiles are of no use here, so they are few."""
    if not path.exists():
        command(
            "s4g-pack", "--source", source, "--levels", "80", "--stride", "0.5", "--dims", "64",
            "--imagery", "--no-overview", "--out", str(path),
        )  # fmt: skip
    return open_pack(path)


def odometry_table(out: Path, own_rate: list[list[View]]) -> None:
    """Print the table of steps."""
    print(STEPS_HEAD)
    for plain in (False, True):
        title = "cv2.phaseCorrelate" if plain else "key views"
        steps = Steps()
        for views in own_rate:
            fly(views, steps, False, plain)
        print(steps.row(f"{title}, 0.35 Hz"), flush=True)
        for exact in (False, True):
            for rate, pattern in RATES.items():
                if exact and rate not in EXACT_RATES:
                    continue
                steps = Steps()
                for number in COUNTRIES:
                    folder = out / f"{number}-{rate:g}hz{'-exact' if exact else ''}"
                    views = read_views(render(FLIGHTS[number], folder, rate, pattern, exact))
                    fly(views, steps, exact, plain)
                kind = "exact sensors" if exact else "ordinary"
                print(steps.row(f"{title}, {rate:g} Hz, {kind}"), flush=True)


def registration_table(out: Path, flights: list[list[View]], every: int) -> None:
    """Print the table of views found on imagery."""
    trials = Trials()
    for number, flight in enumerate(FLIGHTS):
        pack = build(flight.packed, out / f"{number}.s4gpack")
        there = flight.name != "another country"
        trials.add(pack, flights[number], flights[number - 1], every, there)
        pack.close()
    print(TRIES_HEAD)
    print(trials.ours.row("gradient directions (ours)", 0.0))
    for name, tries in trials.tries.items():
        print(tries.row(name))
    spread = float(np.sqrt((np.array(trials.errors_sigma) ** 2).mean()))
    print(f"error / sigma per axis, rms: {spread:.2f}")
    print(f"drawing the map anew adds {np.median(trials.drawing_ms):.1f} ms")


def main() -> None:
    """Fly, register, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything written")
    parser.add_argument("--flights", type=Path, help="what calibration_flights.py wrote")
    parser.add_argument("--only", choices=("odometry", "registration"), help="one of the tables")
    parser.add_argument("--every", type=int, default=2, help="of how many views one is registered")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    out: Path = options.out
    flown: Path = options.flights or out
    views = []
    for number, flight in enumerate(FLIGHTS):
        folder = flown / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        simulate(flight, folder)
        views.append(read_views(folder / "flight"))
    if options.only != "registration":
        odometry_table(out, views)
    if options.only != "odometry":
        registration_table(out, views, options.every)


if __name__ == "__main__":
    main()
