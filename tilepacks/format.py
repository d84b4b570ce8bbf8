"""The container: a fixed header, a JSON manifest, sections; a SHA-256 over every byte.

Byte by byte in docs/pack-format.md. Nothing here knows what the sections mean. Header and manifest
are verified when a file is opened, a section when it is first used. Tools map sections, which takes
no memory; who must outlive whatever becomes of the file reads them.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, IntegrityError
from ..core.open_file import FilePart, OpenFile

# Like PNG's: a byte above 127, the name, and line ends that a transfer as text would change.
MAGIC = b"\x89S4GP\r\n\x1a"
MAJOR, MINOR = 3, 0
# Magic, major, minor, flags, file length, manifest offset and length, SHA-256 of the manifest,
# 24 bytes reserved; then the SHA-256 of all that.
_HEADER = struct.Struct("<8sHHIQQQ32s24x")
HEADER_BYTES = _HEADER.size + 32
# What may follow the last section: magic, public key, signature (signature.py).
SEAL_MAGIC = b"S4GSIG\r\n"
_SEAL = struct.Struct("<8s32s64s")
SEAL_BYTES = _SEAL.size
_ALIGN = 64
_MAX_MANIFEST_BYTES = 16 << 20
MAX_SECTIONS = 4096
_MAX_NAME = 64
_HASHED_BYTES = 1 << 20  # at once

Buffer = bytes | memoryview


@dataclass(frozen=True)
class Seal:
    """A signature as the file carries it: who signed is not known before it is checked.

    Attributes:
        public_key: Ed25519, 32 bytes.
        signature: 64 bytes, over the header and with it over every byte of the content.
    """

    public_key: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return the bytes that follow the last section."""
        return _SEAL.pack(SEAL_MAGIC, self.public_key, self.signature)


@dataclass(frozen=True)
class _Entry:
    start: int  # from the file's first byte
    length: int
    sha256: str


class Container:
    """An open file; close it when none of its sections is used any more.

    Attributes:
        path: the file.
        head: its header, 128 bytes.
        manifest: its values, verified but not interpreted.
        seal: the signature it carries, unchecked, or None.
    """

    def __init__(self, file: OpenFile, data: Buffer) -> None:
        """See `open_container`; `data` is the file, mapped."""
        path = self.path = file.path
        self._file: OpenFile | None = file
        self._view = memoryview(data)
        self._lock = threading.Lock()
        self._verified: set[str] = set()
        self.head, self.manifest, self._entries, self.seal = _parse(path, self._view)

    @property
    def names(self) -> tuple[str, ...]:
        """The sections' names, in file order."""
        return tuple(self._entries)

    def length(self, name: str) -> int:
        """Return how many bytes a section has; 0 for one that is not there."""
        entry = self._entries.get(name)
        return 0 if entry is None else entry.length

    def section(self, name: str) -> memoryview:
        """Return a section's bytes, not copied, verified when they are asked for first.

        Raises:
            IntegrityError: it is missing, or does not match its SHA-256, or the file was cut short.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise damaged(self.path, f"section {name} is missing")
        self._check_length()
        view = self._view[entry.start : entry.start + entry.length]
        with self._lock:
            if name not in self._verified:
                self._check(name, hashlib.sha256(view))
        return view

    def read(self, name: str) -> memoryview:
        """Return a section's bytes in memory of their own, verified there: they stay as they are.

        Raises:
            IntegrityError: as `section`, or the file was written over since it was opened.
        """
        part = self._part(name)
        data = memoryview(bytearray(len(part)))
        part.read_into(data)
        with self._lock:
            self._check(name, hashlib.sha256(data))
        return data.toreadonly()

    def part(self, name: str) -> FilePart:
        """Return a section to be read piece by piece, verified when it is asked for first.

        Raises:
            IntegrityError: as `read`; so may what is read from it.
        """
        part = self._part(name)
        with self._lock:
            if name not in self._verified:
                digest, block = hashlib.sha256(), memoryview(bytearray(_HASHED_BYTES))
                for start in range(0, len(part), _HASHED_BYTES):
                    piece = part[start : start + _HASHED_BYTES]
                    piece.read_into(block[: len(piece)])
                    digest.update(block[: len(piece)])
                self._check(name, digest)
        return part

    def fate(self) -> str | None:
        """Return what became of the file since it was opened, None while it is as it was."""
        return None if self._file is None else self._file.fate()

    def _part(self, name: str) -> FilePart:
        entry = self._entries.get(name)
        if entry is None or self._file is None:
            raise damaged(self.path, f"section {name} is missing")
        return FilePart(self._file, entry.start, entry.length)

    def _check(self, name: str, digest: hashlib._Hash) -> None:
        if digest.hexdigest() != self._entries[name].sha256:
            raise damaged(self.path, f"section {name} does not match its SHA-256")
        self._verified.add(name)

    def _check_length(self) -> None:
        """Refuse a file that was cut short since: to touch what is gone would end the process."""
        mapped = self._view.obj
        if isinstance(mapped, mmap.mmap) and mapped.size() < len(self._view):
            raise damaged(
                self.path, "it was cut short while it was open; a pack in use is replaced by rename"
            )

    def verify(self) -> None:
        """Verify every section that is not yet, known or not.

        Raises:
            IntegrityError: one does not match its SHA-256.
        """
        for name in self.names:
            self.part(name)

    def close(self) -> None:
        """Let go of the file; views of its sections keep it open until they are gone."""
        self._view.release()
        self._entries, self._file = {}, None


def open_container(path: Path) -> Container:
    """Map a file, and verify its header, its manifest and where its sections lie.

    Raises:
        InputError: there is no such file, it cannot be read, or its format is too new.
        IntegrityError: it is no pack, or its head is damaged, cut short or altered.
    """
    file = OpenFile(path)
    head = bytes(FilePart(file, 0, min(file.size, len(MAGIC))))
    if not head:
        raise IntegrityError(f"{path}: the file is empty; build it again with s4g-pack")
    if head != MAGIC[: len(head)]:
        raise _foreign(path, head)
    return Container(file, memoryview(file.map()))


def encode_container(
    manifest: Mapping[str, Any], sections: Mapping[str, Buffer]
) -> Iterator[Buffer]:
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


def damaged(path: Path, reason: str) -> IntegrityError:
    """Return the error of a file that is not what its header promises."""
    return IntegrityError(
        f"{path}: damaged or altered: {reason}; copy it again from where it was built, or rebuild "
        "it with s4g-pack"
    )


def _foreign(path: Path, head: bytes) -> IntegrityError:
    return IntegrityError(
        f"{path}: not a pack of s4g (it starts with {head[:8]!r}); give a .s4gpack file"
    )


def _parse(
    path: Path, view: memoryview
) -> tuple[bytes, dict[str, Any], dict[str, _Entry], Seal | None]:
    head = bytes(view[:HEADER_BYTES])
    if head[: len(MAGIC)] != MAGIC[: len(head)]:
        raise _foreign(path, head)
    if len(head) < HEADER_BYTES:
        raise damaged(path, f"it ends after {len(head)} bytes, within the header")
    if hashlib.sha256(head[: _HEADER.size]).digest() != head[_HEADER.size :]:
        raise damaged(path, "the header does not match its SHA-256")
    _, major, minor, flags, total, offset, length, digest = _HEADER.unpack_from(head)
    if major != MAJOR:
        raise InputError(
            f"{path}: pack format {major}.{minor}, this program reads {MAJOR}.x; "
            + ("update s4g" if major > MAJOR else "rebuild the pack with s4g-pack")
        )
    if flags or any(head[_HEADER.size - 24 : _HEADER.size]):
        raise damaged(path, "a reserved field of the header is not zero")
    seal = _read_seal(path, view, total)
    if offset != HEADER_BYTES or length > min(total - HEADER_BYTES, _MAX_MANIFEST_BYTES):
        raise damaged(path, f"the header gives the manifest {length} bytes at {offset}")
    text = bytes(view[offset : offset + length])
    if hashlib.sha256(text).digest() != digest:
        raise damaged(path, "the manifest does not match its SHA-256")
    manifest = _parse_manifest(path, text)
    entries = _lay_out(path, view, manifest.pop("sections", None), length, total)
    return head, manifest, entries, seal


def _read_seal(path: Path, view: memoryview, total: int) -> Seal | None:
    if len(view) == total:
        return None
    if len(view) != total + SEAL_BYTES:
        raise damaged(path, f"it has {len(view)} bytes, its header says {total}")
    magic, public_key, signature = _SEAL.unpack_from(view, total)
    if magic != SEAL_MAGIC:
        raise damaged(path, "what follows its content is no signature")
    return Seal(public_key, signature)


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


def _lay_out(
    path: Path, view: memoryview, table: Any, manifest_bytes: int, total: int
) -> dict[str, _Entry]:
    """Check that sections and zero padding, in the order of the table, fill the file exactly."""
    at = HEADER_BYTES + manifest_bytes
    base = _aligned(at)
    entries: dict[str, _Entry] = {}
    if not isinstance(table, list) or not 1 <= len(table) <= MAX_SECTIONS:
        raise damaged(path, "the manifest has no section table that can be")
    for row in table:
        name, start, length, digest = _row(path, row, total)
        if base + start != _aligned(at) or base + start + length > total or name in entries:
            raise damaged(path, f"section {name} is not where it can be")
        if any(view[at : base + start]):
            raise damaged(path, f"the padding before section {name} is not zero")
        entries[name] = _Entry(base + start, length, digest)
        at = base + start + length
    if at != total:
        raise damaged(path, "there are bytes after the last section")
    return entries


def _row(path: Path, row: Any, total: int) -> tuple[str, int, int, str]:
    try:
        name, start, length, digest = (row[k] for k in ("name", "offset", "length", "sha256"))
    except (TypeError, KeyError):
        raise damaged(path, "an entry of the section table is incomplete") from None
    numbers_fit = all(type(v) is int and 0 <= v <= total for v in (start, length))
    name_fits = isinstance(name, str) and len(name) <= _MAX_NAME and name.isprintable()
    if not (name_fits and numbers_fit and isinstance(digest, str)):
        raise damaged(path, "an entry of the section table holds values out of range")
    return name, start, length, digest


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN
