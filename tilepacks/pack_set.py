"""A set of packs: a folder `NAME.s4gpacks` with an index, all packs on one grid and in one frame.

The index is a container like a pack's own (format.py), so that it is verified before it is parsed
and can be signed. It holds the hash of every pack's header, and a header that of everything else
in its file: whoever signs the index vouches for the set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.errors import InputError
from ..core.files import atomic_file
from ..core.geo import BBox, LocalFrame
from ..core.spec import EncoderSpec
from .entries import MAX_METRES, Entries
from .format import Container, damaged, encode_container, open_container
from .reader import Pack, open_pack
from .shards import MAX_SHARDS

INDEX = "index.s4gset"
SUFFIX = ".s4gpacks"
_KIND = "s4g pack set"
_MAX_BYTES = 1 << 60
_MAX_PACKS_BYTES = 16 << 20


@dataclass(frozen=True)
class SetLevel:
    """A level that packs of a set have: footprint and distance of its tiles, how many there are."""

    footprint_m: float
    stride_m: float
    tiles: int


@dataclass(frozen=True)
class SetPack:
    """A pack of a set.

    Attributes:
        file: its name in the set's folder.
        bounds: what it covers, WGS84.
        tiles: how many it has.
        bytes: its size.
        header_sha256: of its header, which vouches for all of it.
    """

    file: str
    bounds: BBox
    tiles: int
    bytes: int
    header_sha256: str


class PackSet:
    """An open set; made by `open_set`.

    Attributes:
        path: the folder.
        container: the index file.
        spec: contract of the encoder that all packs were built with.
        bounds: of all packs.
        frame: that all of them share.
        levels: finest first.
        packs: in the order of the index.
        tool: program and version that built it.
    """

    def __init__(self, path: Path, container: Container) -> None:
        """See `open_set`."""
        self.path, self.container = path, container
        try:
            self._read(Entries(container.manifest, ""))
        except ValueError as error:
            raise damaged(container.path, str(error)) from None

    def _read(self, entries: Entries) -> None:
        if entries.text("kind") != _KIND:
            raise ValueError("its manifest is not that of a pack set")
        self.tool = entries.text("tool")
        frame = entries.object("frame")
        self.frame = LocalFrame(
            frame.number("lat_deg", -90, 90), frame.number("lon_deg", -180, 180)
        )
        spec = json.dumps(entries.value("encoder", dict))
        self.spec = EncoderSpec.from_json(spec, str(self.container.path))
        self.bounds = _bounds(entries.object("bounds"))
        self.levels = tuple(
            _level(Entries(value, f"levels.{number}."))
            for number, value in enumerate(entries.value("levels", list))
        )
        if self.container.length("packs") > _MAX_PACKS_BYTES:
            raise ValueError("section packs lists no packs, or too many")
        try:
            rows = json.loads(bytes(self.container.section("packs")))
        except (ValueError, RecursionError):
            raise ValueError("section packs is not JSON") from None
        if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_SHARDS:
            raise ValueError("section packs lists no packs, or too many")
        self.packs = tuple(
            _pack(Entries(value, f"packs.{number}.")) for number, value in enumerate(rows)
        )
        if len({pack.file for pack in self.packs}) != len(self.packs):
            raise ValueError("section packs names a file twice")

    @property
    def tiles(self) -> int:
        """How many tiles all packs have."""
        return sum(pack.tiles for pack in self.packs)

    @property
    def strangers(self) -> tuple[Path, ...]:
        """What lies in the folder and is no part of the set, sorted."""
        own = {INDEX, *(pack.file for pack in self.packs)}
        return tuple(path for path in sorted(self.path.iterdir()) if path.name not in own)

    def meeting(self, bounds: BBox) -> tuple[SetPack, ...]:
        """Return the packs that have a part of a box."""
        return tuple(p for p in self.packs if p.bounds.intersection(bounds) is not None)

    def open(self, pack: SetPack) -> Pack:
        """Open one of its packs.

        Raises:
            InputError: the file is missing.
            IntegrityError: it is damaged, or not the one that the index names.
        """
        if not (self.path / pack.file).exists():
            raise InputError(
                f"{self.path / pack.file}: is missing, {INDEX} of its set names it; copy the set "
                "again, or rebuild it with s4g-pack --shard"
            )
        opened = open_pack(self.path / pack.file)
        head = hashlib.sha256(opened.container.head).hexdigest()
        if head != pack.header_sha256:
            opened.close()
            raise damaged(
                self.path / pack.file, f"it is not the pack that {INDEX} of its set names"
            )
        return opened

    def verify(self, advance: Callable[[int], None] = lambda steps: None) -> None:
        """Check every byte and every value of all packs; `advance` is told how many are done.

        Raises:
            InputError: a pack is missing.
            IntegrityError: one is damaged, altered, or not the one that the index names.
        """
        self.container.verify()
        for pack in self.packs:
            with self.open(pack) as opened:
                opened.verify()
                told = (pack.bounds, pack.tiles, self.frame, self.spec.model_id)
                found = (opened.bounds, _tiles(opened), opened.frame, opened.spec.model_id)
            if told != found:
                raise damaged(self.container.path, f"it tells of {pack.file} what is not so")
            advance(1)

    def close(self) -> None:
        """Let go of the index."""
        self.container.close()

    def __enter__(self) -> PackSet:
        """Return the set."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()


def is_set(path: Path) -> bool:
    """Return whether a path is that of a pack set: a folder with an index."""
    return (path / INDEX).is_file()


def open_set(path: Path) -> PackSet:
    """Open a pack set: verify its index; packs are verified when they are opened and used.

    Raises:
        InputError: there is no such set, or its format is too new.
        IntegrityError: the index is damaged or altered.
    """
    if not is_set(path):
        raise InputError(
            f"{path}: no pack set (a folder with {INDEX}); build one with s4g-pack --shard"
        )
    container = open_container(path / INDEX)
    try:
        return PackSet(path, container)
    except BaseException:
        container.close()
        raise


def write_index(folder: Path, names: Sequence[str]) -> tuple[float, ...]:
    """Write the index of the packs in a folder; return the footprints of their levels.

    Args:
        folder: where they lie.
        names: their files, at least one; of one build.

    Raises:
        IntegrityError: one of them is damaged.
        S4GError: the disk is full.
    """
    rows: list[SetPack] = []
    levels: dict[float, SetLevel] = {}
    for name in names:
        with open_pack(folder / name) as pack:
            head = hashlib.sha256(pack.container.head).hexdigest()
            tiles = _tiles(pack)
            size = (folder / name).stat().st_size
            rows.append(SetPack(name, pack.bounds, tiles, size, head))
            for level in pack.levels:
                before = levels.get(level.footprint_m)
                count = level.count + (0 if before is None else before.tiles)
                levels[level.footprint_m] = SetLevel(level.footprint_m, level.stride_m, count)
            spec, frame = pack.spec, pack.frame
    boxes = [row.bounds for row in rows]
    bounds = BBox(
        min(box.west for box in boxes),
        min(box.south for box in boxes),
        max(box.east for box in boxes),
        max(box.north for box in boxes),
    )
    manifest = {
        "kind": _KIND,
        "tool": f"s4g {__version__}",
        "encoder": json.loads(spec.to_json()),
        "frame": asdict(frame),
        "bounds": asdict(bounds),
        "levels": [asdict(levels[footprint]) for footprint in sorted(levels)],
    }
    section = json.dumps([asdict(row) for row in rows], separators=(",", ":")).encode("ascii")
    with atomic_file(folder / INDEX, overwrite=True) as temporary, temporary.open("wb") as file:
        for part in encode_container(manifest, {"packs": section}):
            file.write(part)
    return tuple(levels)


def _tiles(pack: Pack) -> int:
    return sum(level.count for level in pack.levels)


def _bounds(entries: Entries) -> BBox:
    sides = (entries.number(side, -180, 180) for side in ("west", "south", "east", "north"))
    try:
        return BBox(*sides)
    except InputError as error:
        raise ValueError(str(error)) from None


def _level(entries: Entries) -> SetLevel:
    return SetLevel(
        entries.number("footprint_m", 1e-3, MAX_METRES),
        entries.number("stride_m", 1e-6, MAX_METRES),
        entries.integer("tiles", 1, _MAX_BYTES),
    )


def _pack(entries: Entries) -> SetPack:
    name = entries.text("file")
    # Nothing but a name: an index must not lead out of its folder.
    if Path(name).name != name or not name.endswith(".s4gpack") or name.startswith("."):
        raise ValueError(f"its entry {name[:40]!r} is not the name of a pack")
    digest: Any = entries.text("header_sha256")
    return SetPack(
        name,
        _bounds(entries.object("bounds")),
        entries.integer("tiles", 1, _MAX_BYTES),
        entries.integer("bytes", 1, _MAX_BYTES),
        digest,
    )
