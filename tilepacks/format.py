"""The container: a fixed header, a JSON manifest, sections; a SHA-256 over every byte.

Byte by byte in docs/pack-format.md. Nothing here knows what the sections mean.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..core.errors import InputError, IntegrityError

# Like PNG's: a byte above 127, the name, and line ends that a transfer as text would change.
MAGIC = b"\x89S4GP\r\n\x1a"
MAJOR, MINOR = 1, 0
# Magic, major, minor, flags, file length, manifest offset and length, SHA-256 of the manifest,
# 24 bytes reserved; then the SHA-256 of all that.
_HEADER = struct.Struct("<8sHHIQQQ32s24x")
HEADER_BYTES = _HEADER.size + 32
_ALIGN = 64
_MAX_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True)
class Container:
    """A verified file: its manifest (still unparsed values) and the bytes of its sections."""

    manifest: dict[str, Any]
    sections: dict[str, bytes]


def encode_container(manifest: Mapping[str, Any], sections: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield the file's bytes in order; `manifest` gains the section table under `sections`.

    There must be at least one section. The same values give the same bytes.
    """
    # The table's offsets depend on the manifest's length and that on the offsets' digits: lay the
    # sections out relative to the manifest's end, which is padded to the alignment.
    table: list[dict[str, Any]] = []
    starts, end = [], 0
    for name, data in sections.items():
        start = _aligned(end)
        end = start + len(data)
        digest = hashlib.sha256(data).hexdigest()
        table.append({"name": name, "offset": start, "length": len(data), "sha256": digest})
        starts.append(start)
    text = json.dumps(
        {**manifest, "sections": table}, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode("ascii")
    written = HEADER_BYTES + len(text)
    base = _aligned(written)
    manifest_digest = hashlib.sha256(text).digest()
    head = _HEADER.pack(
        MAGIC, MAJOR, MINOR, 0, base + end, HEADER_BYTES, len(text), manifest_digest
    )
    yield head + hashlib.sha256(head).digest()
    yield text
    for start, data in zip(starts, sections.values(), strict=True):
        yield bytes(base + start - written)
        yield data
        written = base + start + len(data)


def read_container(path: Path) -> Container:
    """Read a file and verify every byte of it before anything is parsed.

    Raises:
        InputError: there is no such file, it cannot be read, or its format is too new.
        IntegrityError: it is no pack, or it is damaged, cut short or altered.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file, path.stat().st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def damaged(path: Path, reason: str) -> IntegrityError:
    """Return the error of a file that is not what its header promises."""
    return IntegrityError(
        f"{path}: damaged or altered: {reason}; copy it again from where it was built, or rebuild "
        "it with s4g-pack"
    )


def _read(path: Path, file: BinaryIO, size: int) -> Container:
    head = file.read(HEADER_BYTES)
    if not head:
        raise IntegrityError(f"{path}: the file is empty; build it again with s4g-pack")
    if head[: len(MAGIC)] != MAGIC[: len(head)]:
        raise IntegrityError(
            f"{path}: not a pack of s4g (it starts with {head[:8]!r}); give a .s4gpack file"
        )
    if len(head) < HEADER_BYTES:
        raise damaged(path, f"it ends after {len(head)} bytes, within the header")
    if hashlib.sha256(head[: _HEADER.size]).digest() != head[_HEADER.size :]:
        raise damaged(path, "the header does not match its SHA-256")
    _, major, minor, flags, total, offset, length, digest = _HEADER.unpack_from(head)
    if major != MAJOR:
        raise InputError(
            f"{path}: pack format {major}.{minor}, this program reads {MAJOR}.x; update s4g or "
            "rebuild the pack"
        )
    if flags or any(head[_HEADER.size - 24 : _HEADER.size]):
        raise damaged(path, "a reserved field of the header is not zero")
    if size != total:
        raise damaged(path, f"it has {size} bytes, its header says {total}")
    if offset != HEADER_BYTES or length > min(total - HEADER_BYTES, _MAX_MANIFEST_BYTES):
        raise damaged(path, f"the header gives the manifest {length} bytes at {offset}")
    text = file.read(length)
    if hashlib.sha256(text).digest() != digest:
        raise damaged(path, "the manifest does not match its SHA-256")
    manifest = _parse_manifest(path, text)
    sections = _read_sections(path, file, manifest.pop("sections", None), length, total)
    return Container(manifest, sections)


def _parse_manifest(path: Path, text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text.decode("ascii"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"the manifest is not JSON ({error})") from None
    if not isinstance(manifest, dict):
        raise damaged(path, "the manifest is not a JSON object")
    return manifest


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _read_sections(
    path: Path, file: BinaryIO, table: Any, manifest_bytes: int, total: int
) -> dict[str, bytes]:
    """Read sections in the order of the table; they and zero padding fill the file exactly."""
    base = _aligned(HEADER_BYTES + manifest_bytes)
    at = HEADER_BYTES + manifest_bytes
    sections: dict[str, bytes] = {}
    if not isinstance(table, list) or not table:
        raise damaged(path, "the manifest has no section table")
    for entry in table:
        name, start, length, digest = _entry(path, entry, total)
        if base + start != _aligned(at) or base + start + length > total or name in sections:
            raise damaged(path, f"section {name} is not where it can be")
        if any(file.read(base + start - at)):
            raise damaged(path, f"the padding before section {name} is not zero")
        data = file.read(length)
        if len(data) != length or hashlib.sha256(data).hexdigest() != digest:
            raise damaged(path, f"section {name} does not match its SHA-256")
        sections[name] = data
        at = base + start + length
    if at != total:
        raise damaged(path, "there are bytes after the last section")
    return sections


def _entry(path: Path, entry: Any, total: int) -> tuple[str, int, int, str]:
    try:
        name, start, length, digest = (entry[k] for k in ("name", "offset", "length", "sha256"))
    except (TypeError, KeyError):
        raise damaged(path, "an entry of the section table is incomplete") from None
    numbers_fit = all(type(v) is int and 0 <= v <= total for v in (start, length))
    if not (isinstance(name, str) and numbers_fit and isinstance(digest, str)):
        raise damaged(path, "an entry of the section table holds values out of range")
    return name, start, length, digest


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN
