from __future__ import annotations

import base64
import re
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError, IntegrityError
from s4g.tilepacks.format import SEAL_BYTES, encode_container, open_container
from s4g.tilepacks.signature import (
    check_signature,
    key_id,
    make_keys,
    read_public_key,
    sign_pack,
)

DATA = b"".join(encode_container({"a": 1}, {"first": b"abc" * 30, "last": bytes(200)}))

# A key made for this test, of a curve (secp112r1) that the library does not know.
_FOREIGN = (
    "304e020100301006072a8648ce3d020106052b8104000604373035020101040ec7ab46e0e59a8b9c"
    "b40f8f9eeb38a120031e000445c680e65c86463a1884b721a3ad746123d1bb0d4aa29122a71d02b9"
)
_FOREIGN_PUBLIC = (
    "3032301006072a8648ce3d020106052b81040006031e000445c680e65c86463a1884b721a3ad7461"
    "23d1bb0d4aa29122a71d02b9"
)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path / "ops")


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    path = tmp_path / "p.s4gpack"
    path.write_bytes(DATA)
    return path


def test_a_signed_pack_is_known_by_its_key(pack: Path, keys: tuple[Path, Path]) -> None:
    found = sign_pack(pack, keys[0])
    public = read_public_key(keys[1])
    assert check_signature(open_container(pack), public) == found == key_id(public)


def test_signing_changes_no_byte_of_the_content(pack: Path, keys: tuple[Path, Path]) -> None:
    sign_pack(pack, keys[0])
    assert pack.read_bytes()[:-SEAL_BYTES] == DATA


def test_signing_again_replaces_the_signature(
    tmp_path: Path, pack: Path, keys: tuple[Path, Path]
) -> None:
    sign_pack(pack, keys[0])
    other = make_keys(tmp_path / "other")
    sign_pack(pack, other[0])
    assert len(pack.read_bytes()) == len(DATA) + SEAL_BYTES
    check_signature(open_container(pack), read_public_key(other[1]))


def test_the_private_key_is_for_its_owner_alone(keys: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600


def test_a_pack_of_another_key_is_refused(
    tmp_path: Path, pack: Path, keys: tuple[Path, Path]
) -> None:
    signed = sign_pack(pack, keys[0])
    other = read_public_key(make_keys(tmp_path / "other")[1])
    with pytest.raises(IntegrityError) as error:
        check_signature(open_container(pack), other)
    assert str(error.value) == (
        f"{pack}: signed by key {signed}, not by {key_id(other)}; use a pack from whom you trust"
    )


def test_a_pack_without_signature_is_refused(pack: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(IntegrityError) as error:
        check_signature(open_container(pack), read_public_key(keys[1]))
    assert str(error.value) == (
        f"{pack}: is not signed; sign it with s4g-pack sign, or do without --require-signature"
    )


@pytest.mark.parametrize("place", [-1, -64, -65, -96])
def test_an_altered_signature_is_refused(pack: Path, keys: tuple[Path, Path], place: int) -> None:
    sign_pack(pack, keys[0])
    data = bytearray(pack.read_bytes())
    data[place] ^= 1
    pack.write_bytes(data)
    with pytest.raises(IntegrityError, match="its signature is wrong"):
        check_signature(open_container(pack))


def test_a_signature_of_another_pack_is_refused(
    tmp_path: Path, pack: Path, keys: tuple[Path, Path]
) -> None:
    sign_pack(pack, keys[0])
    other = tmp_path / "other.s4gpack"
    content = b"".join(encode_container({"a": 2}, {"first": b"abc"}))
    other.write_bytes(content + pack.read_bytes()[-SEAL_BYTES:])
    with pytest.raises(IntegrityError, match="its signature is wrong"):
        check_signature(open_container(other))


def test_a_damaged_pack_is_not_signed(pack: Path, keys: tuple[Path, Path]) -> None:
    damaged = DATA[:-1] + b"?"
    pack.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="section last does not match its SHA-256"):
        sign_pack(pack, keys[0])
    assert pack.read_bytes() == damaged


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nx\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, pack: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        sign_pack(pack, path)
    assert str(error.value) == (
        f"{path}: no Ed25519 private key without password; make one with s4g-pack keygen"
    )
    with pytest.raises(InputError) as error:
        read_public_key(path)
    assert str(error.value) == (
        f"{path}: no Ed25519 public key; give the .pub file of s4g-pack keygen"
    )


def test_the_two_keys_are_not_taken_for_each_other(pack: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="no Ed25519 private key"):
        sign_pack(pack, keys[1])
    with pytest.raises(InputError, match="no Ed25519 public key"):
        read_public_key(keys[0])


@given(st.data())
def test_no_byte_of_a_signed_pack_can_be_altered(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("signed")
    path, (private, public) = folder / "p.s4gpack", make_keys(folder / "ops")
    path.write_bytes(DATA)
    sign_pack(path, private)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
    with pytest.raises(IntegrityError, match=f"^{re.escape(str(path))}: ") as error:
        container = open_container(path)
        check_signature(container, read_public_key(public))
        container.verify()
    assert "\n" not in str(error.value)


def test_content_of_an_attacker_with_right_hashes_is_refused(
    pack: Path, keys: tuple[Path, Path]
) -> None:
    sign_pack(pack, keys[0])
    seal = pack.read_bytes()[-SEAL_BYTES:]
    altered = b"".join(encode_container({"a": 1}, {"first": b"abd" * 30, "last": bytes(200)}))
    pack.write_bytes(altered + seal)
    open_container(pack).verify()
    with pytest.raises(IntegrityError, match="its signature is wrong"):
        check_signature(open_container(pack), read_public_key(keys[1]))


def _pem(label: str, der: str) -> bytes:
    body = base64.b64encode(bytes.fromhex(der)).decode()
    return f"-----BEGIN {label} KEY-----\n{body}\n-----END {label} KEY-----\n".encode()


@pytest.mark.parametrize("kind", ["rsa", "password", "unknown"])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, pack: Path, kind: str) -> None:
    secret: serialization.KeySerializationEncryption = serialization.NoEncryption()
    key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey = ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    elif kind == "password":
        secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    text = key.private_bytes(serialization.Encoding.PEM, form, secret)
    if kind == "unknown":
        text = _pem("PRIVATE", _FOREIGN)
    path = tmp_path / "x.key"
    path.write_bytes(text)
    with pytest.raises(InputError) as error:
        sign_pack(pack, path)
    assert str(error.value) == (
        f"{path}: no Ed25519 private key without password; make one with s4g-pack keygen"
    )
    assert pack.read_bytes() == DATA


def test_a_public_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pub"
    path.write_bytes(_pem("PUBLIC", _FOREIGN_PUBLIC))
    with pytest.raises(InputError) as error:
        read_public_key(path)
    assert str(error.value) == (
        f"{path}: no Ed25519 public key; give the .pub file of s4g-pack keygen"
    )


def test_a_missing_key_is_refused(tmp_path: Path, pack: Path) -> None:
    with pytest.raises(InputError) as error:
        sign_pack(pack, tmp_path / "none.key")
    assert str(error.value) == (f"{tmp_path}/none.key: cannot be read (No such file or directory)")


def test_keys_are_not_overwritten(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    before = keys[0].read_bytes()
    with pytest.raises(InputError, match="already exists; pass --overwrite"):
        make_keys(tmp_path / "ops")
    assert keys[0].read_bytes() == before
    make_keys(tmp_path / "ops", overwrite=True)
    assert keys[0].read_bytes() != before
