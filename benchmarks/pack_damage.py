"""Damage packs by the thousand: each copy must be refused or harmless, in little memory.

Four small packs are built: one with a graph, shared vectors, variants, projection and overview, the
same one signed, a plain one, and one with imagery. Copies of them are cut, flipped, overwritten, or
altered with all hashes made right again, and each is opened, prepared, searched and verified in a
child process with a memory limit. A copy's number and the seed make the same copy again, so that
`--only NUMBER --keep FOLDER` brings a bad one back. Linux only: peaks of memory are read in /proc.

Example:
    python benchmarks/pack_damage.py --packs 10000
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import hashlib
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s4g.core.errors import InputError
from s4g.core.ground import GroundWindow
from s4g.core.sources import open_ground
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.format import open_container
from s4g.tilepacks.info import pack_info, pack_text
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import Pack, open_pack
from s4g.tilepacks.signature import check_signature, make_keys, read_public_key, sign_pack

sys.path.insert(0, str(Path(__file__).parent))
from pack_damaging import KINDS, PLAIN, Base, damage, odd_picture

Rng = np.random.Generator
_SOURCE, _LEVELS_M = "landscape:seed=5,size_m=600", (80.0, 160.0)
_PX, _POOLED, _DIM, _DIMS = 64, 8, 64, 32
_CHILD_COPIES, _SAMPLE = 1000, 50
_START_S = 60.0  # for a child to come up, and to make a copy before it is used


class Pooled:
    """An encoder that needs no file: mean colours of 8 x 8 cells, mixed at random."""

    name, backend = "pooled", "numpy"

    def __init__(self) -> None:
        """Draw the mixture."""
        self.spec = EncoderSpec(
            "00" * 32, "pooled", _PX, (0.5,) * 3, (0.25,) * 3, _DIM, (), 0.5, 4.0, True, 0.1
        )
        self._mix = np.random.default_rng(7).standard_normal((3 * _POOLED**2, _DIM))

    def embed(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return (B, D) float32 of images (B, 64, 64, 3)."""
        cells = images.reshape(-1, _POOLED, _PX // _POOLED, _POOLED, _PX // _POOLED, 3)
        means = cells.mean(axis=(2, 4)).reshape(len(images), -1)
        found = (means - 0.9 * means.mean(axis=1, keepdims=True)) @ self._mix
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found.astype(np.float32)

    def close(self) -> None:
        """Nothing to release."""


# ---- what is done with a copy ------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a copy.

    Attributes:
        kind: how it was damaged.
        end: `open`, `used`, `verify` (refused then), `harmless`, `other` (answers) or `crash`.
        fault: what must not be, or empty.
        mb: memory it took at most.
        ms: time it took.
    """

    kind: str
    end: str
    fault: str = ""
    mb: float = 0.0
    ms: float = 0.0


def use(path: Path, trusted: bytes | None) -> tuple[str, str, str]:
    """Do with a pack all that anybody does; return how it ended, its answers, and any fault."""
    ends, faults = [], []
    answers = hashlib.sha256()

    def tried(end: str, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except InputError as error:
            ends.append(end)
            text = str(error)
            if not (text.startswith(f"{path}: ") and text.isprintable()):
                faults.append(f"{end}: not one line that names the file: {text[:200]!r}")
        except Exception as error:  # what is not ours is what is looked for
            ends.append(end)
            faults.append(f"{end}: {type(error).__name__}: {str(error)[:200]}")
        return None

    pack: Pack | None = tried("open", lambda: open_pack(path))
    if pack is None:
        return "open", "", "; ".join(faults)
    with pack:
        tried("used", lambda: pack_text(pack_info(pack)).encode())
        dim = pack.spec.embedding_dim
        queries = np.random.default_rng(0).standard_normal((4, dim)).astype(np.float32)
        steps: list[Callable[[], Any]] = [pack.prepare, lambda: (pack.east_m, pack.north_m)]
        for level in range(len(pack.levels)):
            steps += [
                functools.partial(pack.search, queries, level, 10),
                functools.partial(pack.search_within, queries, level, 0.0, 0.0, 60.0),
                functools.partial(pack.detail, level),
                functools.partial(pack.variants, level),
            ]
        for step in [*steps, pack.overview, lambda: _look(pack)]:
            found = tried("used", step)
            for part in found if isinstance(found, tuple) else (found,):
                answers.update(part if isinstance(part, np.ndarray) else repr(part).encode())
        tried("verify", pack.verify)
        if trusted is not None:
            tried("verify", lambda: check_signature(pack.container, trusted))
    return (ends or ["accepted"])[0], answers.hexdigest(), "; ".join(faults)


def _look(pack: Pack) -> Any:
    """Return a piece of a pack's imagery, if it has any."""
    if (ground := pack.imagery()) is None:
        return None
    with contextlib.closing(ground):
        return ground.read(pack.frame, GroundWindow(-50.0, 50.0, 0.5, 200, 200)).rgb


def worker(folder: Path, seed: int, numbers: range, memory_mb: int) -> None:
    """Use copies one after the other, and print what became of each."""
    faulthandler.enable()
    warnings.simplefilter("error")
    bases = _read_bases(folder)
    for base in bases:  # everything is loaded that any copy may need
        _write(folder, base.data)
        use(folder / "copy.s4gpack", base.trusted)
    odd_picture(bases[0].data, np.random.default_rng(0))
    size = _status_kb("VmSize") * 1024
    for number in numbers:
        kind, base, data = damage(bases, seed, number)
        path = _write(folder, data)
        resource.setrlimit(resource.RLIMIT_AS, (size + (memory_mb << 20), resource.RLIM_INFINITY))
        Path("/proc/self/clear_refs").write_text("5")
        before, start = _status_kb("VmRSS"), time.perf_counter()
        end, answers, fault = use(path, base.trusted)
        ms = 1e3 * (time.perf_counter() - start)
        mb = (_status_kb("VmHWM") - before) / 1024
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        if end == "accepted":
            end = "harmless" if answers == base.answers else "other"
        if end == "other" and (kind in PLAIN or base.trusted is not None):
            fault = "accepted, and answers otherwise"
        if mb > memory_mb:
            fault = f"took {mb:.0f} MB; {fault}"
        print(json.dumps([number, kind, end, fault, mb, ms]), flush=True)


def _status_kb(key: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0])


def _write(folder: Path, data: bytes) -> Path:
    path = folder / "copy.s4gpack"
    path.unlink(missing_ok=True)  # an old copy that is still mapped must not be cut short
    path.write_bytes(data)
    return path


# ---- the whole run -----------------------------------------------------------------------------


def make_bases(folder: Path) -> None:
    """Build the packs, and keep them with their answers."""
    encoder, path = Pooled(), folder / "copy.s4gpack"
    ground = open_ground(_SOURCE)
    plan = plan_pack(ground, encoder.spec, None, _LEVELS_M, 0.125)
    private, public = make_keys(folder / "ops")
    everything = BuildOptions(dims=_DIMS, graph_min_vectors=60)
    options = {
        "whole": everything,
        "signed": everything,
        "plain": BuildOptions(dims=_DIM, overview=False),
        "imagery": BuildOptions(dims=_DIM, overview=False, imagery_quality=20),
    }
    told = {}
    for name, chosen in options.items():
        layers = [ground, ground] if chosen is everything else [ground]
        build_pack(layers, encoder, plan, path, chosen, overwrite=True)
        trusted = None
        if name == "signed":
            sign_pack(path, private)
            trusted = read_public_key(public)
        end, told[name], fault = use(path, trusted)
        if (end, fault) != ("accepted", ""):
            raise SystemExit(f"the {name} pack itself is refused: {end} {fault}")
        with open_pack(path) as pack:
            parts = sorted({key.split(".")[-1] for key in pack.section_bytes})
            tiles = sum(level.count for level in pack.levels)
        print(f"{name}: {path.stat().st_size} bytes, {tiles} tiles; {', '.join(parts)}")
        path.rename(folder / f"{name}.base")
    ground.close()
    (folder / "answers.json").write_text(json.dumps(told))


def _read_bases(folder: Path) -> list[Base]:
    told = json.loads((folder / "answers.json").read_text())
    bases = []
    for name, answers in told.items():
        path = folder / f"{name}.base"
        with contextlib.closing(open_container(path)) as container:
            sections = {key: bytes(container.section(key)) for key in container.names}
            seal = b"" if container.seal is None else container.seal.encode()
            trusted = read_public_key(folder / "ops.pub") if seal else None
            data = path.read_bytes()
            bases.append(Base(data, container.manifest, sections, seal, trusted, answers))
    return bases


def run(
    folder: Path, seed: int, numbers: range, memory_mb: int, seconds: float, keep: Path | None
) -> list[Outcome]:
    """Let children use the copies; where one dies or hangs, the next goes on behind that copy."""
    outcomes: list[Outcome] = []
    kinds = list(KINDS)
    while numbers:
        part = numbers[:_CHILD_COPIES]
        arguments = [str(folder), str(seed), str(part.start), str(part.stop), str(memory_mb)]
        with (folder / "stderr").open("w") as errors:
            child = subprocess.Popen(
                [sys.executable, __file__, "--worker", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            done = 0
            for line in _lines(child, seconds):
                number, *values = json.loads(line)
                outcomes.append(Outcome(*values))
                done += 1
                if outcomes[-1].ms > 1e3 * seconds:
                    values[2] = f"took {outcomes[-1].ms:.0f} ms"
                    outcomes[-1] = Outcome(*values)
                if outcomes[-1].fault:
                    # What the child works on by now is another copy: this one is made anew.
                    _keep(keep, folder, seed, number, outcomes[-1])
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(1)
            child.kill()
            code = child.wait()
        if code == 1:
            raise SystemExit(f"this program failed: {(folder / 'stderr').read_text()}")
        numbers = numbers[done:]
        if done < len(part):
            lines = (folder / "stderr").read_text().strip().splitlines() or ["no word"]
            told = next((line for line in lines if line.startswith("Fatal")), lines[-1])
            why = f"signal {-code}: {told}" if code != -9 else f"no answer in {seconds:g} s"
            outcomes.append(Outcome(kinds[numbers.start % len(kinds)], "crash", why))
            _keep(keep, folder, seed, numbers.start, outcomes[-1])
            numbers = numbers[1:]
        print(f"\r{len(outcomes)} copies", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return outcomes


def _lines(child: subprocess.Popen[bytes], seconds: float) -> Iterator[bytes]:
    """Yield what a child prints until it ends, or says nothing for too long."""
    assert child.stdout is not None
    kept, limit = b"", _START_S
    while select.select([child.stdout], [], [], limit)[0]:
        if not (read := os.read(child.stdout.fileno(), 1 << 16)):
            return
        *lines, kept = (kept + read).split(b"\n")
        yield from lines
        limit = seconds + 5  # the copy is made, and then used


def _keep(keep: Path | None, folder: Path, seed: int, number: int, outcome: Outcome) -> None:
    print(f"\rcopy {number} ({outcome.kind}, {outcome.end}): {outcome.fault}", flush=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        data = damage(_read_bases(folder), seed, number)[2]
        (keep / f"{number}-{outcome.kind.replace(' ', '-')}.s4gpack").write_bytes(data)


def check_command(folder: Path, seed: int, outcomes: list[Outcome]) -> int:
    """Give some refused copies to s4g-pack; return how often its answer was not one line."""
    program, bases, wrong = Path(sys.executable).with_name("s4g-pack"), _read_bases(folder), 0
    ends = ("open", "used", "verify")
    refused = [n for n, found in enumerate(outcomes) if found.end in ends and not found.fault]
    rng = np.random.default_rng(seed)
    for number in rng.permutation(refused)[:_SAMPLE].tolist():
        kind, base, data = damage(bases, seed, number)
        path = _write(folder, data)
        # A signature is only asked for where a key is given.
        key = ["--key", str(folder / "ops.pub")] if base.trusted is not None else []
        commands = [["verify", str(path), *key]]
        if outcomes[number].end == "open":
            commands.append(["info", str(path)])
        for command in commands:
            done = subprocess.run([program, *command], capture_output=True, text=True)
            lines = done.stderr.splitlines()
            one = len(lines) == 1 and lines[0].startswith(f"error: {path}: ")
            if done.returncode != 2 or done.stdout or not one:
                wrong += 1
                print(f"copy {number} ({kind}): s4g-pack {command[0]} exits {done.returncode}: "
                      f"{(done.stdout + done.stderr)[:300]!r}")  # fmt: skip
    return wrong


def print_table(outcomes: list[Outcome]) -> None:
    """Print a row for each kind of damage."""
    ends = ("open", "used", "verify", "harmless", "other", "crash")
    print(f"{'':<14}{'':>7}{'refused':>9}{'':>8}{'by':>8}{'':>10}{'other':>9}{'':>9}{'':>8}"
          f"{'most':>8}{'slowest':>9}{'median':>8}")  # fmt: skip
    print(f"{'kind':<14}{'copies':>7}{'at open':>9}{'in use':>8}{'verify':>8}{'harmless':>10}"
          f"{'answers':>9}{'crashes':>9}{'faults':>8}{'MB':>8}{'ms':>9}{'ms':>8}")  # fmt: skip
    for kind in [*KINDS, "all"]:
        rows = [found for found in outcomes if kind in (found.kind, "all")]
        if not rows:
            continue
        counts = [sum(found.end == end for found in rows) for end in ends]
        faults = sum(bool(found.fault) and found.end != "crash" for found in rows)
        ms = [found.ms for found in rows]
        print(f"{kind:<14}{len(rows):>7}{counts[0]:>9}{counts[1]:>8}{counts[2]:>8}{counts[3]:>10}"
              f"{counts[4]:>9}{counts[5]:>9}{faults:>8}{max(found.mb for found in rows):>8.0f}"
              f"{max(ms):>9.0f}{np.median(ms):>8.1f}")  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-mb", type=int, default=256, help="that a copy may take")
    parser.add_argument("--seconds", type=float, default=10.0, help="that a copy may take")
    parser.add_argument("--only", type=int, help="number of one copy to make and use")
    parser.add_argument("--keep", type=Path, help="folder for copies with faults")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        folder, seed, start, stop, memory_mb = options.worker
        worker(Path(folder), int(seed), range(int(start), int(stop)), int(memory_mb))
        return
    numbers = range(options.packs)
    if options.only is not None:
        numbers = range(options.only, options.only + 1)
    with tempfile.TemporaryDirectory() as name:
        make_bases(Path(name))
        began = time.perf_counter()
        limits = options.memory_mb, options.seconds, options.keep
        outcomes = run(Path(name), options.seed, numbers, *limits)
        print_table(outcomes)
        print(f"{len(outcomes)} copies in {time.perf_counter() - began:.0f} s")
        wrong = 0
        if options.only is None:
            wrong = check_command(Path(name), options.seed, outcomes)
            print(f"s4g-pack refuses in one line: {wrong} of the sample did not")
    if wrong or any(found.fault for found in outcomes):
        raise SystemExit("a copy was neither refused nor harmless, or took too much")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
