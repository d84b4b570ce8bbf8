from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError, IntegrityError
from s4g.tilepacks.format import (
    HEADER_BYTES,
    MAGIC,
    SEAL_BYTES,
    Container,
    Seal,
    encode_container,
    open_container,
)

SECTIONS = {"first": b"abc" * 30, "empty": b"", "last": bytes(range(200))}
DATA = b"".join(encode_container({"hello": [1, 2.5, "ä"]}, SECTIONS))
REMEDY = "; copy it again from where it was built, or rebuild it with s4g-pack"


def _write(folder: Path, data: bytes) -> Path:
    path = folder / "p.s4gpack"
    path.write_bytes(data)
    return path


def read_container(path: Path) -> Container:
    """Open a file and verify all of it."""
    container = open_container(path)
    container.verify()
    return container


def _sections(container: Container) -> dict[str, bytes]:
    return {name: bytes(container.section(name)) for name in container.names}


def _sealed(data: bytes) -> bytes:
    """Return the file with the header's hash made right again, as an attacker would."""
    head = data[: HEADER_BYTES - 32]
    return head + hashlib.sha256(head).digest() + data[HEADER_BYTES:]


def _with_manifest(text: bytes, tail: bytes = b"") -> bytes:
    """Return a file with any manifest, hashes right, total length right."""
    total = HEADER_BYTES + len(text) + len(tail)
    head = struct.pack(
        "<8sHHIQQQ32s24x", MAGIC, 3, 0, 0, total, HEADER_BYTES, len(text),
        hashlib.sha256(text).digest(),
    )  # fmt: skip
    return head + hashlib.sha256(head).digest() + text + tail


def test_container_survives_the_round_trip(tmp_path: Path) -> None:
    container = read_container(_write(tmp_path, DATA))
    assert container.manifest == {"hello": [1, 2.5, "ä"]}
    assert _sections(container) == SECTIONS


def test_sections_start_at_multiples_of_64(tmp_path: Path) -> None:
    assert DATA.index(SECTIONS["first"]) % 64 == DATA.index(SECTIONS["last"]) % 64 == 0


def test_offsets_are_those_of_the_specification() -> None:
    magic, major, minor, flags, total, offset, length, digest = struct.unpack_from(
        "<8sHHIQQQ32s", DATA
    )
    assert (magic, major, minor, flags) == (b"\x89S4GP\r\n\x1a", 3, 0, 0)
    assert (total, offset) == (len(DATA), 128)
    assert digest == hashlib.sha256(DATA[128 : 128 + length]).digest()
    assert DATA[96:128] == hashlib.sha256(DATA[:96]).digest()


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_altered_byte_is_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    data = bytearray(DATA)
    data[place] ^= change
    path = _write(tmp_path_factory.getbasetemp(), bytes(data))
    with pytest.raises(IntegrityError, match=f"^{re.escape(str(path))}: "):
        read_container(path)


@given(st.integers(0, len(DATA) - 1))
def test_any_truncation_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = _write(tmp_path_factory.getbasetemp(), DATA[:length])
    with pytest.raises(IntegrityError, match=f"^{re.escape(str(path))}: "):
        read_container(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty; build it again with s4g-pack"),
        (
            b"PK\x03\x04 a zip archive",
            r"not a pack of s4g (it starts with b'PK\x03\x04 a z'); give a .s4gpack file",
        ),
        (DATA[:50], "damaged or altered: it ends after 50 bytes, within the header" + REMEDY),
        (
            DATA + b"\0",
            f"damaged or altered: it has {len(DATA) + 1} bytes, its header says {len(DATA)}"
            + REMEDY,
        ),
        (
            DATA[:-1] + b"?",
            "damaged or altered: section last does not match its SHA-256" + REMEDY,
        ),
        (
            _sealed(DATA[:12] + b"\1" + DATA[13:]),
            "damaged or altered: a reserved field of the header is not zero" + REMEDY,
        ),
        (
            _sealed(DATA[:80] + b"\1" + DATA[81:]),
            "damaged or altered: a reserved field of the header is not zero" + REMEDY,
        ),
        (
            _sealed(DATA[:32] + struct.pack("<Q", 2**63) + DATA[40:]),
            f"damaged or altered: the header gives the manifest {2**63} bytes at 128" + REMEDY,
        ),
    ],
    ids=["empty", "zip", "short", "long", "section", "flags", "reserved", "giant manifest"],
)
def test_damaged_file_is_refused_with_its_reason(tmp_path: Path, data: bytes, message: str) -> None:
    path = _write(tmp_path, data)
    with pytest.raises(IntegrityError) as error:
        read_container(path)
    assert str(error.value) == f"{path}: {message}"


def test_file_of_a_later_major_version_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, _sealed(DATA[:8] + b"\4\0" + DATA[10:]))
    with pytest.raises(InputError) as error:
        read_container(path)
    assert str(error.value) == (f"{path}: pack format 4.0, this program reads 3.x; update s4g")


def test_file_of_an_earlier_major_version_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, _sealed(DATA[:8] + b"\1\0" + DATA[10:]))
    with pytest.raises(InputError) as error:
        read_container(path)
    assert str(error.value) == (
        f"{path}: pack format 1.0, this program reads 3.x; rebuild the pack with s4g-pack"
    )


def test_a_section_is_verified_when_it_is_used(tmp_path: Path) -> None:
    container = open_container(_write(tmp_path, DATA[:-1] + b"?"))
    assert bytes(container.section("first")) == SECTIONS["first"]
    with pytest.raises(IntegrityError, match="section last does not match its SHA-256"):
        container.section("last")


def test_a_file_that_is_cut_short_while_it_is_open_is_refused(tmp_path: Path) -> None:
    # In a process of its own: to read what is gone would end it (SIGBUS).
    path = _write(tmp_path, b"".join(encode_container({}, {"a": bytes(8192), "b": bytes(8192)})))
    code = (
        "import os, sys; from pathlib import Path\n"
        "from s4g.tilepacks.format import open_container\n"
        "container = open_container(Path(sys.argv[1]))\n"
        "container.section('a'); os.truncate(sys.argv[1], 4096)\n"
        "for name in 'ab':\n"
        "    try: container.section(name)\n"
        "    except Exception as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    told = (
        f"{path}: damaged or altered: it was cut short while it was open; a pack in use is "
        f"replaced by rename{REMEDY}\n"
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, 2 * told, "")


def test_what_was_read_stays_and_nothing_more_is_read_of_a_file_written_over(
    tmp_path: Path,
) -> None:
    path = _write(tmp_path, DATA)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    container = open_container(path)
    data, part = container.read("last"), container.part("first")
    assert data.readonly and bytes(part) == SECTIONS["first"]
    path.write_bytes(DATA[::-1])
    assert bytes(data) == SECTIONS["last"]
    told = "was written over while it was open; a file in use is replaced by rename (mv)"
    for read in (lambda: bytes(part), lambda: container.read("first")):
        with pytest.raises(IntegrityError) as error:
            read()
        assert str(error.value) == f"{path}: {told}"
    assert container.fate() == "was written over while it was open"


@pytest.mark.parametrize("use", ["section", "read", "part"])
def test_a_section_that_is_wrong_is_used_in_no_way(tmp_path: Path, use: str) -> None:
    container = open_container(_write(tmp_path, DATA[:-1] + b"?"))
    getattr(container, use)("first")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="section last does not match its SHA-256"):
            getattr(container, use)("last")


def test_a_missing_section_is_refused(tmp_path: Path) -> None:
    container = open_container(_write(tmp_path, DATA))
    assert container.length("other") == 0
    with pytest.raises(IntegrityError, match="section other is missing"):
        container.section("other")


def test_a_signature_may_follow_and_nothing_else(tmp_path: Path) -> None:
    seal = Seal(bytes(range(32)), bytes(range(64)))
    container = read_container(_write(tmp_path, DATA + seal.encode()))
    assert container.seal == seal
    assert read_container(_write(tmp_path, DATA)).seal is None
    for tail in (bytes(SEAL_BYTES), seal.encode()[:-1], seal.encode() + b"."):
        with pytest.raises(IntegrityError, match="damaged or altered"):
            read_container(_write(tmp_path, DATA + tail))


def test_file_of_a_later_minor_version_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path, _sealed(DATA[:10] + b"\7\0" + DATA[12:]))
    assert _sections(read_container(path)) == SECTIONS


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_container(tmp_path / "none.s4gpack")
    assert str(error.value) == (
        f"{tmp_path}/none.s4gpack: cannot be read (No such file or directory)"
    )


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r": cannot be read \(Is a directory\)$"):
        read_container(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "the manifest is not JSON"),
        (b"\xff", "the manifest is not JSON"),
        (b"[" * 100_000, "the manifest is not JSON"),
        (b'{"a":NaN}', "the manifest is not JSON"),
        (b"[]", "the manifest is not a JSON object"),
        (b"{}", "the manifest has no section table that can be"),
        (b'{"sections":[]}', "the manifest has no section table that can be"),
        (b'{"sections":[1]}', "an entry of the section table is incomplete"),
        (b'{"sections":[{"name":"a"}]}', "an entry of the section table is incomplete"),
    ],
    ids=["open", "bytes", "deep", "nan", "list", "none", "empty", "number", "part"],
)
def test_malicious_manifest_is_refused(tmp_path: Path, text: bytes, reason: str) -> None:
    path = _write(tmp_path, _with_manifest(text))
    with pytest.raises(IntegrityError) as error:
        read_container(path)
    assert str(error.value).startswith(f"{path}: damaged or altered: {reason}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"offset": -64}, "an entry of the section table holds values out of range"),
        ({"offset": 2**70}, "an entry of the section table holds values out of range"),
        ({"length": 1.5}, "an entry of the section table holds values out of range"),
        ({"name": 3}, "an entry of the section table holds values out of range"),
        ({"offset": 64}, "section a is not where it can be"),
        ({"length": 65}, "section a is not where it can be"),
        ({"length": 63}, "there are bytes after the last section"),
        ({"sha256": "00"}, "section a does not match its SHA-256"),
    ],
)
def test_impossible_section_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    body = b"x" * 64
    entry = {"name": "a", "offset": 0, "length": 64, "sha256": hashlib.sha256(body).hexdigest()}
    text = json.dumps({"sections": [{**entry, **change}]}).encode()
    padding = bytes(-(HEADER_BYTES + len(text)) % 64)
    path = _write(tmp_path, _with_manifest(text, padding + body))
    with pytest.raises(IntegrityError) as error:
        read_container(path)
    assert str(error.value) == f"{path}: damaged or altered: {reason}{REMEDY}"


def test_bytes_that_belong_to_no_section_are_refused(tmp_path: Path) -> None:
    body = b"x" * 64
    entry = {"name": "a", "offset": 0, "length": 64, "sha256": hashlib.sha256(body).hexdigest()}
    text = json.dumps({"sections": [entry]}).encode()
    padding = bytes(-(HEADER_BYTES + len(text)) % 64)
    path = _write(tmp_path, _with_manifest(text, padding + body + b"stowaway"))
    with pytest.raises(IntegrityError, match="there are bytes after the last section"):
        read_container(path)
    path = _write(tmp_path, _with_manifest(text, b"y" + padding[1:] + body))
    with pytest.raises(IntegrityError, match="the padding before section a is not zero"):
        read_container(path)
