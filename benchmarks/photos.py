"""Localise real photos in the ways that `flights/compare.py` compares; print one table.

Three flights: Brighton Beach on an orthophoto of the same flight, Caliterra without attitude and
Seneca from a fixed wing in false colour, each of the latter's odd photos on a mosaic of its even
ones. Maps are of the same day: what is shown is real optics, real telemetry and how far apart
photos lie, no change of season. What is made is kept under `--out` by the hash of the code that
made it; fixes are made anew each time. Sets whose imagery is absent are left out and named.

\b
Examples:
    python benchmarks/photos.py --out /tmp/photos > photos.md
    python benchmarks/photos.py --out /tmp/photos --set caliterra --way filtered --plot /tmp/plots
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

# Their modules import each other by bare names.
sys.path[:0] = [str(Path(__file__).parent / name) for name in ("encoder", "flights")]
from kept import code_of, key_of  # noqa: E402
from making import Seen  # noqa: E402
from memo import MemoEngine  # noqa: E402
from photo_sets import SETS, PhotoSet, write_seen, write_truth  # noqa: E402
from table import Result, markdown, to_json  # noqa: E402
from ways import WAYS  # noqa: E402

from s4g.core.console import progress, run_command, say  # noqa: E402
from s4g.core.engine import Engine, load_engine  # noqa: E402
from s4g.core.files import atomic_folder, write_bytes, write_json  # noqa: E402
from s4g.runtime.plot import draw_track  # noqa: E402
from s4g.runtime.score import match_flight, read_fixes, read_truth  # noqa: E402
from s4g.tilepacks.build import build_pack  # noqa: E402
from s4g.tilepacks.options import BuildOptions  # noqa: E402
from s4g.tilepacks.plan import plan_pack  # noqa: E402
from s4g.tilepacks.reader import open_pack  # noqa: E402

_DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_PATH = click.Path(path_type=Path)
_QUALITY = 90  # of WebP: the maps are small
# What places photos and builds maps.
_CODE = (
    *(f"benchmarks/{name}.py" for name in ("photo_sets", "photo_mosaic")),
    *(
        f"benchmarks/encoder/{name}.py"
        for name in ("flight_block", "photo_conditions", "photo_poses", "registration")
    ),
    "tilepacks/build.py",
)
_SEEN, _TRUTH, _PACK, _ABOUT = "seen", "truth.csv", "map.s4gpack", "about.json"


@dataclass(frozen=True)
class Made:
    """A set as it lies in its folder; named as `Result` wants its scenario."""

    name: str
    title: str
    about: str
    alert_limit_m: float
    folder: Path


@click.command(help=__doc__)
@click.option("--out", required=True, type=_PATH, help="Folder for all that is made and kept.")
@click.option("--data", type=_PATH, envvar="S4G_DATA", help="Folder of real imagery.")
@click.option("--set", "names", multiple=True, type=click.Choice(list(SETS)), help="Only this one.")
@click.option("--way", "ways", multiple=True, type=click.Choice(list(WAYS)), help="Only this one.")
@click.option("--encoder", type=_PATH, help="Bundle or ONNX file; default: the embedded encoder.")
@click.option("--json", "json_path", type=_PATH, help="Write all figures here.")
@click.option("--plot", type=_PATH, help="Folder for a picture of each set and way.")
def cli(
    out: Path,
    data: Path | None,
    names: tuple[str, ...],
    ways: tuple[str, ...],
    encoder: Path | None,
    json_path: Path | None,
    plot: Path | None,
) -> None:
    """See above."""
    out.mkdir(parents=True, exist_ok=True)
    imagery = data or _DEFAULT_DATA
    results: list[Result] = []
    skipped: dict[str, str] = {}
    with closing(load_engine(encoder, "cpu", 1)) as engine:
        for name in names or SETS:
            needed = imagery / SETS[name][0]
            if not needed.is_dir():
                skipped[name] = f"no imagery {needed}; --data names the folder that holds it"
                continue
            made = make(name, imagery, out, engine)
            results += [localised(made, way, engine, plot) for way in ways or WAYS]
    if results:
        click.echo(caption(results))
        click.echo(markdown(results, skipped))
    if json_path is not None:
        write_json(json_path, to_json(results, skipped, {"encoder": engine.spec.model_id}), True)


def make(name: str, data: Path, out: Path, engine: Engine) -> Made:
    """Return a set, making map, frames, telemetry and truth where that was not done before."""
    folder = out / f"{name}-{key_of(code_of(*_CODE), engine.spec.model_id)}"
    if not folder.exists():
        say(f"{name}: placing its photos")
        chosen = SETS[name][1](data, name)
        with atomic_folder(folder) as fresh, closing(chosen.ground) as ground:
            write_seen(chosen, fresh / _SEEN)
            write_truth(chosen, fresh / _TRUTH)
            plan = plan_pack(ground, engine.spec, None, chosen.levels_m)
            options = BuildOptions(imagery_quality=_QUALITY, workers=1)
            say(f"{name}: packing {plan.count} tiles")
            build_pack([ground], engine, plan, fresh / _PACK, options, progress)
            write_json(fresh / _ABOUT, _about(chosen))
    return Made(folder=folder, **_read_about(folder / _ABOUT))


def localised(made: Made, way: str, engine: Engine, plot: Path | None) -> Result:
    """Localise the photos of a set in one way, and only then look at where they were taken."""
    fixes_path = made.folder / f"{way}.jsonl"
    with open_pack(made.folder / _PACK) as pack:
        with closing(MemoEngine(engine, made.folder / "embeddings.npz")) as remembering:
            found = WAYS[way](Seen(made.folder / _SEEN), pack, remembering)
            lines = [fix.to_json() for fix, _ in found]
        write_bytes(fixes_path, ("\n".join(lines) + "\n").encode(), overwrite=True)
        fixes, truth = read_fixes(fixes_path), read_truth(made.folder / _TRUTH)
        if plot is not None:
            plot.mkdir(parents=True, exist_ok=True)
            picture = draw_track(pack, fixes, truth)
            write_bytes(plot / f"{made.name}-{way}.png", picture, overwrite=True)
    return Result(made, way, match_flight(fixes, truth, made.alert_limit_m))


def caption(results: list[Result]) -> str:
    """Return what must be known to read the table."""
    sets = {result.scenario.name: (result.scenario, result) for result in results}
    lines = [
        "Real photos; in brackets the alert limit, one tile. No velocities; times by EXIF, in "
        "whole seconds.",
        "",
    ]
    for made, result in sets.values():
        lines.append(f"- **{made.title}**, {len(result.flight.frames)} photos: {made.about}.")
    return "\n".join(lines) + "\n"


def _about(chosen: PhotoSet) -> dict[str, Any]:
    names = ("name", "title", "about", "alert_limit_m")
    return {name: getattr(chosen, name) for name in names}


def _read_about(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    run_command(cli)
