"""A node's identity: one Ed25519 key in one file that only its owner may read.

The file is PKCS #8 PEM, as `openssl genpkey -algorithm ed25519` writes it: people and secret
scanners know it for a private key at sight, any tool can read or make one, and it outlives the
library that happens to carry our connections (py-libp2p's own form isn't the specification's).

Knows files and keys. Knows no sockets, and doesn't import libp2p, whose import takes a third of a
second: the peer id is computed here (https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gptnode.errors import IdentityError

__all__ = [
    "Identity",
    "create_identity",
    "load_identity",
    "load_or_create_identity",
    "short_peer_id",
]

# A PEM of an Ed25519 key has about 120 bytes; comments may stand before it.
MAX_FILE_BYTES = 16 * 1024

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# identity multihash of 36 bytes: a protobuf with key type 1 (Ed25519) and 32 bytes of public key
_PEER_ID_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])


class Identity:
    """Who this node is: ``peer_id`` for everyone, the private key for the handshake alone.

    The key is in no ``repr``, ``str``, pickle or log line.
    """

    __slots__ = ("_key", "peer_id")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Take the key; ``peer_id`` follows from it ("12D3KooW...")."""
        self._key = key
        raw = key.public_key().public_bytes_raw()
        self.peer_id: str = _base58(_PEER_ID_PREFIX + raw)

    def private_bytes(self) -> bytes:
        """The 32 secret bytes. Only ``gptnode.net`` asks for them, to sign the Noise handshake."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"

    def __reduce__(self) -> str:
        raise TypeError("an identity is never pickled: it holds a private key")


def short_peer_id(peer_id: str) -> str:
    """A peer id short enough for a message; they all begin alike, so the end tells them apart."""
    return peer_id if len(peer_id) <= 16 else f"{peer_id[:8]}…{peer_id[-6:]}"


def create_identity(path: Path) -> Identity:
    """Make a key and write it to a new file, or raise IdentityError and leave nothing behind.

    The file appears whole or not at all (written beside, synced, linked), with mode 0600 from its
    first byte. Missing folders are made with mode 0700. An existing file is never overwritten.
    """
    path = Path(path)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"cannot create {path.parent}: {_reason(error)}") from error
    try:
        if path.is_symlink() or path.exists():
            raise FileExistsError
        _write_new(path, pem)
    except FileExistsError:
        raise IdentityError(
            f"{path} exists already and an identity is never overwritten: move it away first"
        ) from None
    except OSError as error:
        raise IdentityError(f"cannot create {path}: {_reason(error)}") from error
    return Identity(key)


def load_identity(path: Path) -> Identity:
    """Read the key in ``path``.

    Raises IdentityError, with what to do, where the file is missing, not a plain file, readable or
    writable by others than its owner, too large, or no unencrypted Ed25519 key.
    """
    path = Path(path)
    try:
        data = _read_private(path)
    except FileNotFoundError:
        raise IdentityError(
            f"{path} does not exist: `gptnode id --identity {path}` creates it"
        ) from None
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {_reason(error)}") from error
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise IdentityError(f"{path} is protected by a passphrase: use a key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        # The parser's own words may quote what it read.
        raise IdentityError(
            f"{path} holds no private key in PEM form: restore it from a backup, or move it away"
            " and create a new identity"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path} holds a key of another kind: a node needs an Ed25519 key")
    return Identity(key)


def load_or_create_identity(path: Path) -> Identity:
    """The identity in ``path``, made first if there is no such file (two starts at once agree)."""
    path = Path(path)
    if not (path.is_symlink() or path.exists()):
        try:
            return create_identity(path)
        except IdentityError:
            if not path.exists():
                raise
    return load_identity(path)


def _write_new(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; FileExistsError if there is one, then it is left alone."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        _write_exclusively(beside, data)
        try:
            os.link(beside, path)  # unlike a rename, refuses to replace what has come up meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: nearly as good
            _write_exclusively(path, data)
    finally:
        beside.unlink(missing_ok=True)
    if os.name != "nt":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write_exclusively(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _read_private(path: Path) -> bytes:
    """The bytes of ``path``, judged by the open file and not by its name: no gap between them."""
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise IdentityError(f"{path} is not a plain file: name the identity file itself")
        if os.name != "nt" and status.st_mode & 0o077:
            raise IdentityError(
                f"{path} may be read or changed by other users (mode {status.st_mode & 0o777:04o}):"
                f" `chmod 600 {path}`, and create a new identity if someone may have read it"
            )
        if status.st_size > MAX_FILE_BYTES:
            raise IdentityError(
                f"{path} is too large for an identity ({status.st_size:,} bytes):"
                " name the right file"
            )
        return os.read(fd, MAX_FILE_BYTES)
    finally:
        os.close(fd)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


def _base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_BASE58[digit])
    leading_zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * leading_zeros + "".join(reversed(digits))
