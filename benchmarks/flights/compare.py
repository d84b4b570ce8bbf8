"""Fly every scenario, localise each flight in several ways, print the table.

A scenario is a TOML file of scenarios/ (README.md tells what is in it). Ground, packs, flights,
embeddings and fixes are kept under the hash of all they were made from, code included: a second run
makes only what a change concerns. Scenarios whose imagery is absent are left out and named.

\b
Examples:
    python benchmarks/flights/compare.py --out /tmp/flights --json flights.json > flights.md
    python benchmarks/flights/compare.py --out /tmp/flights --scenario kidnap --way filtered
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
import numpy as np
from grounds import MAP, ground_key, missing_data, open_date
from kept import code_of, key_of
from making import Seen, flight_key, make_flight
from memo import MemoEngine
from scenario import Scenario, read_scenario, scenario_files
from table import Result, markdown, to_json
from ways import WAYS, run_key

from s4g.core.console import progress, run_command, say
from s4g.core.engine import Engine, load_engine
from s4g.core.errors import InputError
from s4g.core.files import atomic_folder, write_bytes, write_json
from s4g.core.geo import LocalFrame
from s4g.core.sources import open_ground
from s4g.core.spec import check_same_encoder
from s4g.runtime.plot import draw_track
from s4g.runtime.score import match_flight, read_fixes, read_truth, stage_table
from s4g.tilepacks.area import Area
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import Pack, open_pack

_DEFAULT_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
_PATH = click.Path(path_type=Path)
_QUALITY = 75  # of WebP, as s4g-pack has it


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all scenarios share: imagery, the folder of what is kept, and the encoder."""

    data: Path
    out: Path
    engine: Engine


@click.command(help=__doc__)
@click.option("--out", required=True, type=_PATH, help="Folder for all that is made and kept.")
@click.option("--data", type=_PATH, envvar="S4G_DATA", help="Folder of real imagery.")
@click.option(
    "--set",
    "set_name",
    type=click.Choice(["scenarios", "calibration"]),
    default="scenarios",
    show_default=True,
    help="The test, or flights over other ground to choose the runtime's constants by.",
)
@click.option("--scenario", "names", multiple=True, help="Only this one; repeatable.")
@click.option("--way", "ways", multiple=True, type=click.Choice(list(WAYS)), help="Only this one.")
@click.option("--encoder", type=_PATH, help="Bundle or ONNX file; default: the embedded encoder.")
@click.option("--json", "json_path", type=_PATH, help="Write all figures here.")
@click.option("--plot", type=_PATH, help="Folder for a picture of each flight and way.")
@click.option("--make-only", is_flag=True, help="Make ground, packs and flights; localise nothing.")
@click.option("--again", is_flag=True, help="Localise again also where nothing has changed.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def cli(
    out: Path,
    data: Path | None,
    set_name: str,
    names: tuple[str, ...],
    ways: tuple[str, ...],
    encoder: Path | None,
    json_path: Path | None,
    plot: Path | None,
    make_only: bool,
    again: bool,
    threads: int,
) -> None:
    """See above."""
    files = scenario_files(Path(__file__).parent / set_name)
    for name in names:
        if name not in files:
            raise InputError(f"--scenario {name}: no such file; there are {', '.join(files)}")
    scenarios = [read_scenario(files[name]) for name in names or files]
    for kind in ("grounds", "packs", "flights", "embeddings", "fixes"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    results: list[Result] = []
    skipped: dict[str, str] = {}
    with closing(load_engine(encoder, "cpu", threads)) as engine:
        setting = Setting(data or _DEFAULT_DATA, out, engine)
        for scenario in scenarios:
            reason = missing_data(scenario, setting.data)
            if reason is not None:
                skipped[scenario.title] = reason
                say(f"{scenario.name}: left out: {reason}")
                continue
            results += _fly(
                setting, scenario, () if make_only else ways or tuple(WAYS), again, plot
            )
        about = _about(engine)
    say(f"{time.monotonic() - began_s:.0f} s")
    if results:
        click.echo(markdown(results, skipped))
    if json_path is not None:
        write_json(json_path, to_json(results, skipped, about), overwrite=True)


def _fly(
    setting: Setting, scenario: Scenario, ways: tuple[str, ...], again: bool, plot: Path | None
) -> list[Result]:
    """Make what a scenario needs and localise its flight in each way."""
    with progress(f"flying {scenario.name}", 0, "frames") as advance:
        seen, truth_csv = make_flight(scenario, setting.data, setting.out, advance)
    results = []
    with open_pack(made_pack(setting, scenario)) as pack:
        check_same_encoder(str(pack.path), pack.spec, setting.engine.name, setting.engine.spec)
        for way in ways:
            fixes_path = localised(setting, scenario, seen, pack, way, again)
            # Only here, after the fixes are written, is a true position looked at.
            truth, fixes = read_truth(truth_csv), read_fixes(fixes_path)
            results.append(
                Result(scenario, way, match_flight(fixes, truth, scenario.alert_limit_m))
            )
            if plot is not None:
                plot.mkdir(parents=True, exist_ok=True)
                picture = draw_track(pack, fixes, truth)
                write_bytes(plot / f"{scenario.name}-{way}.png", picture, overwrite=True)
    return results


def made_pack(setting: Setting, scenario: Scenario) -> Path:
    """Return a scenario's pack, building it where that was not done before."""
    config = scenario.pack
    area = _mapped_area(scenario, setting.data)
    made_of = ground_key(scenario, setting.data), config, setting.engine.spec.model_id
    rings = None if area is None else area.rings
    key = key_of(*made_of, rings, code_of("tilepacks/build.py"))
    path = setting.out / "packs" / f"{key}.s4gpack"
    if path.exists():
        return path
    with closing(open_date(scenario, MAP, setting.data, setting.out)) as ground:
        bbox = None
        if config.part_m is not None:
            bbox = LocalFrame(*ground.bounds.center).wgs84_bounds(*config.part_m)
        plan = plan_pack(ground, setting.engine.spec, bbox, config.levels_m, area=area)
        options = BuildOptions(imagery_quality=_QUALITY if config.imagery else None, workers=1)
        say(f"{scenario.name}: packing {plan.count} tiles")
        build_pack([ground], setting.engine, plan, path, options, progress)
    return path


def _mapped_area(scenario: Scenario, data: Path) -> Area | None:
    """Return the ground of a folder's rasters, so that nothing is looked for between them."""
    if scenario.rasters is None or not (data / scenario.rasters.map).is_dir():
        return None
    boxes = []
    for path in sorted((data / scenario.rasters.map).glob("*.tif")):
        with closing(open_ground(str(path))) as ground:
            boxes.append(ground.bounds)
    corners = [
        ((b.west, b.south), (b.east, b.south), (b.east, b.north), (b.west, b.north)) for b in boxes
    ]
    lat = (min(box.south for box in boxes) + max(box.north for box in boxes)) / 2
    lon = (min(box.west for box in boxes) + max(box.east for box in boxes)) / 2
    return Area(scenario.rasters.map, tuple((ring,) for ring in corners), 0.0, LocalFrame(lat, lon))


def localised(
    setting: Setting, scenario: Scenario, seen: Seen, pack: Pack, way: str, again: bool
) -> Path:
    """Return the fixes of a flight in one way, running it where that was not done before."""
    flight, model_id = flight_key(scenario, setting.data), setting.engine.spec.model_id
    key = key_of(flight, run_key(way, pack))
    folder = setting.out / "fixes" / key
    if folder.exists() and not again:
        return folder / "fixes.jsonl"
    pack.verify()
    memory = setting.out / "embeddings" / f"{model_id[:16]}-{flight}.npz"
    lines, stages = [], []
    with ExitStack() as stack:
        engine = stack.enter_context(closing(MemoEngine(setting.engine, memory)))
        count = sum(1 for _ in seen.frames.iterdir())
        advance = stack.enter_context(progress(f"{scenario.name}: {way}", count, "frames"))
        for fix, times in WAYS[way](seen, pack, engine):
            lines.append(fix.to_json())
            if times:
                stages.append(times)
            advance(1)
    with atomic_folder(folder, overwrite=again) as made:
        (made / "fixes.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        about = {"scenario": scenario.name, "way": way, "stages": stage_table(stages)}
        (made / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return folder / "fixes.jsonl"


def _about(engine: Engine) -> dict[str, Any]:
    return {
        "encoder": engine.spec.model_id,
        "machine": platform.processor() or platform.machine(),
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    run_command(cli)
