"""A grounds file: the imagery of a recipe's `[[ground]]` entries, cut, split and WebP-coded.

It trains where neither the data folder nor a reader of its formats is. A safetensors file whose
tensors are encoded pictures: `K.D.R.C` is tile row R, column C of ground K at date D, WebP;
`K.valid` the valid pixels, packed bits deflated, absent where all are valid. What they are is
JSON in the header.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import InputError, IntegrityError
from ..core.files import atomic_file, check_output
from ..core.images import encode_rgb
from ..core.tile_image import picture_size
from .ground_imagery import Image, Imagery, read_imagery
from .recipe import GroundConfig

LOSSLESS = 101  # as OpenCV spells it for WebP

_KEY = "s4g_grounds"
_VERSION = 1
_TILE_PX = 4096  # WebP ends at 16383; small tiles are also decoded side by side
_MAX_SIDE_PX = 1 << 18
_MAX_PIXELS = 1 << 34  # over all grounds and dates: 48 GiB once decoded
_THREADS = 16
# What decides on the pixels and their split; the rest may change without preparing anew.
_SETTINGS = (
    "kind", "files", "split", "split_value", "positions", "gsd_m", "read_gsd_m", "zoom",
)  # fmt: skip

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Entry:
    """One ground as the header describes it."""

    source: int
    name: str
    gsd_m: float
    width_px: int
    height_px: int
    dates: int
    validates: bool
    all_valid: bool

    def tiles(self) -> Iterator[tuple[str, tuple[slice, slice]]]:
        """Yield the rest of each tile's name and what it covers, for one date."""
        for row, top in enumerate(range(0, self.height_px, _TILE_PX)):
            for column, left in enumerate(range(0, self.width_px, _TILE_PX)):
                bottom = min(top + _TILE_PX, self.height_px)
                right = min(left + _TILE_PX, self.width_px)
                yield f"{row}.{column}", (slice(top, bottom), slice(left, right))

    def tensors(self, number: int) -> list[str]:
        """Return the names of the tensors that hold the ground."""
        names = [f"{number}.{d}.{tile}" for d in range(self.dates) for tile, _ in self.tiles()]
        return names if self.all_valid else [*names, f"{number}.valid"]


def write_grounds_file(
    path: Path,
    configs: Sequence[GroundConfig],
    data: Path,
    quality: int,
    overwrite: bool,
    tick: Callable[[], None],
) -> tuple[int, int]:
    """Write the imagery of all sources but procedural worlds, which are made at every start.

    Args:
        path: the file.
        configs: a recipe's sources.
        data: the data folder.
        quality: of WebP, 1 to 100, or LOSSLESS.
        overwrite: replace an existing file.
        tick: is called as each source is done.

    Returns:
        How many grounds there are, and how many of them are held out.

    Raises:
        InputError: the sources are all procedural, imagery is missing or unreadable, or the file
            exists and `overwrite` is false.
    """
    from safetensors.numpy import save

    check_output(path, overwrite)
    if all(config.kind == "landscape" for config in configs):
        raise InputError(
            "the recipe has procedural worlds alone, which are made at every start; there is "
            "nothing to prepare"
        )
    blobs: dict[str, Bytes] = {}
    entries: list[_Entry] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for source, config in enumerate(configs):
            pieces = iter(()) if config.kind == "landscape" else read_imagery(config, data)
            for piece in pieces:
                entry = _describe(piece, source)
                names = entry.tensors(len(entries))
                tiles = [image[cut] for image in piece.images for _, cut in entry.tiles()]
                encoded = list(pool.map(lambda tile: encode_rgb(tile, ".webp", quality), tiles))
                if not entry.all_valid:
                    encoded.append(zlib.compress(np.packbits(piece.valid).tobytes(), 9))
                for name, blob in zip(names, encoded, strict=True):
                    blobs[name] = np.frombuffer(blob, np.uint8)
                entries.append(entry)
            tick()
    header = {
        "version": _VERSION,
        "sha256": _digest(blobs),
        "sources": [{**_settings(c), "credit": c.credit} for c in configs],
        "grounds": [dataclasses.asdict(entry) for entry in entries],
    }
    content = save(blobs, {_KEY: json.dumps(header, ensure_ascii=False)})
    with atomic_file(path, overwrite) as temporary:
        temporary.write_bytes(content)
    return len(entries), sum(entry.validates for entry in entries)


def read_grounds_file(path: Path, configs: Sequence[GroundConfig]) -> list[list[Imagery]]:
    """Return the imagery of each source, in order; procedural worlds have none.

    Sources are found by their settings: weights and credits may have changed since, the order
    as well, and the file may hold more than the recipe uses.

    Raises:
        InputError: no such file, no grounds file, of another version, or without one of the
            sources.
        IntegrityError: the file is damaged or does not hold what its header says.
    """
    header, blobs = _open(path)
    try:
        entries = [_entry(table) for table in header["grounds"]]
        sources = [dict(table) for table in header["sources"]]
        digest = header["sha256"]
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, "its header is not as s4g-train prepare writes it") from None
    pixels = sum(e.width_px * e.height_px * e.dates for e in entries)
    if pixels > _MAX_PIXELS:
        raise _damaged(path, f"it claims {pixels:,} pixels, more than {_MAX_PIXELS:,}")
    if sorted(blobs) != sorted(n for k, entry in enumerate(entries) for n in entry.tensors(k)):
        raise _damaged(path, "it holds other pictures than its header lists")
    if _digest(blobs) != digest:
        raise _damaged(path, "its pictures are not those of its checksum")
    wanted = [
        None if config.kind == "landscape" else _find(config, sources, path) for config in configs
    ]
    taken = [k for k, entry in enumerate(entries) if entry.source in wanted]
    with ThreadPoolExecutor(_THREADS) as pool:
        pieces = pool.map(lambda k: _decode(k, entries[k], blobs, path), taken)
        made = list(zip((entries[k].source for k in taken), pieces, strict=True))
    return [[piece for source, piece in made if source == place] for place in wanted]


def _describe(piece: Imagery, source: int) -> _Entry:
    height, width = piece.valid.shape
    return _Entry(
        source,
        piece.name,
        piece.gsd_m,
        width,
        height,
        len(piece.images),
        piece.validates,
        bool(piece.valid.all()),
    )


def _settings(config: GroundConfig) -> dict[str, Any]:
    """Return the settings that decide on the imagery, as JSON gives them back."""
    values = {name: getattr(config, name) for name in _SETTINGS}
    return {**values, "files": list(config.files)}


def _find(config: GroundConfig, sources: list[dict[str, Any]], path: Path) -> int:
    wanted = _settings(config)
    for number, source in enumerate(sources):
        if all(source.get(name) == value for name, value in wanted.items()):
            return number
    files = ", ".join(config.files)
    remedy = "prepare it anew with s4g-train prepare"
    for source in sources:
        if source.get("kind") == config.kind and source.get("files") == wanted["files"]:
            name = next(n for n in _SETTINGS if source.get(n) != wanted[n])
            raise InputError(
                f"{path}: was prepared with {name} = {source.get(name)!r} for {files}, the recipe "
                f"says {wanted[name]!r}; {remedy}"
            )
    raise InputError(f"{path}: holds no {config.kind} of {files}, which the recipe needs; {remedy}")


def _digest(blobs: Mapping[str, Bytes]) -> str:
    digest = hashlib.sha256()
    for name, blob in sorted(blobs.items()):
        digest.update(f"{name}:{len(blob)};".encode())
        digest.update(blob.tobytes())
    return digest.hexdigest()


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Bytes]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"--grounds {path}: no such file; make it with s4g-train prepare")
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise InputError(
                    f"--grounds {path}: holds no prepared imagery; make it with s4g-train prepare"
                )
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            if any(s.get_dtype() != "U8" or len(s.get_shape()) != 1 for s in slices.values()):
                raise _damaged(path, "it holds tensors that are no encoded pictures")
            blobs = {name: file.get_tensor(name) for name in slices}
    except SafetensorError as error:
        raise _damaged(path, f"not a safetensors file ({error})") from None
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    if header.get("version") != _VERSION:
        raise InputError(
            f"--grounds {path}: has version {header.get('version')!r}, this s4g reads {_VERSION}; "
            "prepare it anew with s4g-train prepare"
        )
    return header, blobs


def _entry(table: Mapping[str, Any]) -> _Entry:
    """Return an entry of the header, every value checked.

    Raises:
        KeyError, TypeError, ValueError: it is not as `write_grounds_file` writes it.
    """
    entry = _Entry(**table)
    kinds = {"int": int, "str": str, "float": float, "bool": bool}
    for field in dataclasses.fields(entry):
        if type(getattr(entry, field.name)) is not kinds[str(field.type)]:
            raise TypeError(field.name)
    sides = (entry.width_px, entry.height_px)
    if not (all(1 <= side <= _MAX_SIDE_PX for side in sides) and 1 <= entry.dates <= 1000):
        raise ValueError(entry.name)
    if not (math.isfinite(entry.gsd_m) and entry.gsd_m > 0 and entry.source >= 0):
        raise ValueError(entry.name)
    return entry


def _decode(number: int, entry: _Entry, blobs: Mapping[str, Bytes], path: Path) -> Imagery:
    shape = (entry.height_px, entry.width_px)
    images = tuple(np.empty((*shape, 3), np.uint8) for _ in range(entry.dates))
    for date, image in enumerate(images):
        for tile, cut in entry.tiles():
            name = f"{number}.{date}.{tile}"
            image[cut] = _decode_tile(
                blobs[name], image[cut].shape, f"{name} of {entry.name}", path
            )
    valid = np.ones(shape, np.bool_)
    if not entry.all_valid:
        size = (valid.size + 7) // 8
        try:
            bits = zlib.decompressobj().decompress(blobs[f"{number}.valid"].tobytes(), size)
        except zlib.error:
            bits = b""
        if len(bits) != size:
            raise _damaged(path, f"the valid pixels of {entry.name} cannot be unpacked")
        flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=valid.size)
        valid = flat.reshape(shape).astype(np.bool_)
    return Imagery(entry.name, entry.gsd_m, images, valid, entry.validates)


def _decode_tile(blob: Bytes, shape: tuple[int, ...], what: str, path: Path) -> Image:
    data = blob.tobytes()
    size = picture_size(data)  # before anything is decoded: the header bounds the memory
    image = None
    if size == (shape[1], shape[0]):
        try:
            image = cv2.imdecode(blob, cv2.IMREAD_COLOR_RGB)
        except cv2.error:
            image = None
    if image is None or image.shape != shape:
        raise _damaged(path, f"picture {what} cannot be decoded to {shape[1]}x{shape[0]} px")
    return np.asarray(image, np.uint8)


def _damaged(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        f"--grounds {path}: {what}; copy it again or prepare it anew with s4g-train prepare"
    )
