"""Who vouches for a pack: Ed25519 keys (RFC 8032), signing, checking.

A signature covers the header, the header holds the manifest's SHA-256, the manifest those of all
sections: 64 bytes vouch for every byte. It follows the content, which it does not change.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError, IntegrityError, S4GError
from ..core.files import atomic_file, check_output, write_bytes
from .format import Container, Seal, damaged, open_container

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# So that a signature of a pack can be taken for nothing else that the key signs.
_CONTEXT = b"s4g pack signature v1\n"
_COPY_BYTES = 1 << 20
_MAX_KEY_BYTES = 4096
KEY_SUFFIX, PUBLIC_SUFFIX = ".key", ".pub"


def make_keys(stem: Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Write a new private key (PKCS #8 PEM, for its owner alone) and its public key (PEM).

    Args:
        stem: path without suffix; `.key` and `.pub` are added.
        overwrite: replace existing keys.

    Returns:
        The two paths.

    Raises:
        InputError: one of them exists.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = (stem.with_name(stem.name + s) for s in (KEY_SUFFIX, PUBLIC_SUFFIX))
    check_output(private, overwrite)
    check_output(public, overwrite)
    key = Ed25519PrivateKey.generate()
    with atomic_file(private, overwrite) as temporary:
        # Closed to others from its first byte on.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
    text = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_bytes(public, text, overwrite)
    return private, public


def sign_pack(pack: Path, key: Path) -> str:
    """Verify a pack, sign it, and put the signed copy in its place; return the public key's id.

    A signature it had is replaced. The content is not changed.

    Raises:
        InputError: a file cannot be read, or is no private key.
        IntegrityError: the pack is damaged.
    """
    private = _private_key(key)
    container = open_container(pack)
    try:
        container.verify()
        public = private.public_key().public_bytes_raw()
        seal = Seal(public, private.sign(_CONTEXT + container.head))
    finally:
        container.close()
    content = pack.stat().st_size - (0 if container.seal is None else len(seal.encode()))
    with atomic_file(pack, overwrite=True) as temporary:
        with pack.open("rb") as old, temporary.open("wb") as new:
            while content:
                block = old.read(min(content, _COPY_BYTES))
                if not block:
                    raise S4GError(f"{pack}: was cut short while it was signed; sign it again")
                new.write(block)
                content -= len(block)
            new.write(seal.encode())
        # What will be flown is what was verified above.
        with closing(open_container(temporary)) as signed:
            check_signature(signed, public)
    return key_id(public)


def read_public_key(path: Path) -> bytes:
    """Return an Ed25519 public key of a PEM file, 32 bytes.

    Raises:
        InputError: the file cannot be read or is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read_key(path))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(
            f"{path}: no Ed25519 public key; give the {PUBLIC_SUFFIX} file of s4g-pack keygen"
        )
    return key.public_bytes_raw()


def check_signature(container: Container, trusted: bytes | None = None) -> str:
    """Check a pack's signature; return the id of the key that made it.

    Args:
        container: the pack.
        trusted: the public key that must have made it, 32 bytes; None: any.

    Raises:
        IntegrityError: there is none, it is of another key, or it is wrong.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    seal = container.seal
    if seal is None:
        raise IntegrityError(
            f"{container.path}: is not signed; sign it with s4g-pack sign, or do without "
            "--require-signature"
        )
    try:
        Ed25519PublicKey.from_public_bytes(seal.public_key).verify(
            seal.signature, _CONTEXT + container.head
        )
    except (InvalidSignature, ValueError):
        raise damaged(container.path, "its signature is wrong") from None
    if trusted is not None and seal.public_key != trusted:
        raise IntegrityError(
            f"{container.path}: signed by key {key_id(seal.public_key)}, not by "
            f"{key_id(trusted)}; use a pack from whom you trust"
        )
    return key_id(seal.public_key)


def key_id(public_key: bytes) -> str:
    """Return how people compare a public key (32 bytes): its first 16 hexadecimal digits."""
    return public_key.hex()[:16]


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_key(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path}: no Ed25519 private key without password; make one with s4g-pack keygen"
        )
    return key


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
