"""Connections of those who keep no rules: nonsense before the handshake, downgrades, forged keys.

Each function makes one attempt and says how it ended. Nothing here is known to the server.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair, PrivateKey, PublicKey
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import Transport as NoiseTransport

from gptnode.net.identity import Identity
from gptnode.net.socket_connection import SocketConnection

__all__ = ["ForgedKey", "downgrade_outer", "malformed", "muxer_answer", "noise_as", "raw_socket"]

MULTISTREAM = "/multistream/1.0.0"
NOISE = "/noise"
LOOPBACK = "127.0.0.1"


def delimited(line: str) -> bytes:
    """A line as multistream-select writes it."""
    data = line.encode() + b"\n"
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(found) + bytes([number])


async def raw_socket(port: int) -> trio.SocketStream:
    """A TCP connection and no more."""
    return await trio.open_tcp_stream(LOOPBACK, port)


def _record(data: bytes) -> bytes:
    """As Noise frames it."""
    return struct.pack(">H", len(data)) + data


# -- nonsense --------------------------------------------------------------------------------------

HELLO = delimited(MULTISTREAM)
TO_NOISE = HELLO + delimited(NOISE)
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(190)

NONSENSE: tuple[Callable[[random.Random], list[bytes]], ...] = (
    lambda rng: [rng.randbytes(rng.randint(1, 2000))],
    lambda rng: [b"\xff" * 9 + b"\x01"],
    lambda rng: [b"\x80\x80\x80\x80\x04" + bytes(100)],
    lambda rng: [bytes(100_000)],
    lambda rng: [HELLO + rng.randbytes(200)],
    lambda rng: [HELLO, delimited("ls")],
    lambda rng: [HELLO, *(delimited(f"/x/{n}") for n in range(200))],
    lambda rng: [TO_NOISE, struct.pack(">H", 65_535) + rng.randbytes(40)],
    lambda rng: [TO_NOISE, struct.pack(">H", 32) + rng.randbytes(32), rng.randbytes(300)],
    lambda rng: [TO_NOISE, struct.pack(">H", 32) + bytes(32), struct.pack(">H", 200) + bytes(200)],
    lambda rng: [TO_NOISE, struct.pack(">H", 0)],
    lambda rng: [TO_NOISE, _record(rng.randbytes(32)), _record(rng.randbytes(168))],
    lambda rng: [TLS_HELLO],
    lambda rng: [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    lambda rng: [b"SSH-2.0-x\r\n"],
    lambda rng: [struct.pack(">BBHII", 0, 0, 1, 1, 65_536) * 50],
    lambda rng: [HELLO[:7]],
    lambda rng: [],
)  # fmt: skip


async def malformed(port: int, rng: random.Random, *, patience_s: float = 1.0) -> str:
    """One nonsensical connection; "hung up" if the server ended it, else "left"."""
    pieces = NONSENSE[rng.randrange(len(NONSENSE))](rng)
    drips, resets = rng.random() < 0.2, rng.random() < 0.3
    stream = await raw_socket(port)
    ended = "left"
    try:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(0.01 if drips else 0)
        with trio.move_on_after(patience_s):
            while await stream.receive_some(65_536):
                pass
            ended = "hung up"
    except trio.BrokenResourceError:
        ended = "hung up"
    finally:
        if resets:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
    return ended


# -- downgrades ------------------------------------------------------------------------------------


async def downgrade_outer(port: int, protocol: str) -> str:
    """Propose ``protocol`` in place of Noise; the server's answer, or "hung up"."""
    raw = SocketConnection(await raw_socket(port), is_initiator=True)
    try:
        with trio.fail_after(10):
            talk = MultiselectCommunicator(raw)
            await talk.write(MULTISTREAM)
            await talk.write(protocol)
            if (await talk.read()).strip() != MULTISTREAM:
                return "no multistream"
            return (await talk.read()).strip()
    except Exception:
        return "hung up"
    finally:
        raw.close_now()


async def muxer_answer(port: int, transport: NoiseTransport, server_id: str, protocol: str) -> str:
    """After Noise propose ``protocol`` as muxer; the server's answer, or "hung up"."""
    raw = SocketConnection(await raw_socket(port), is_initiator=True)
    try:
        with trio.fail_after(10):
            talk = MultiselectCommunicator(raw)
            await talk.write(MULTISTREAM)
            await talk.write(NOISE)
            await talk.read()
            if (await talk.read()).strip() != NOISE:
                return "no noise"
            secured = await transport.secure_outbound(raw, ID.from_base58(server_id))
            inside = MultiselectCommunicator(secured)
            await inside.write(MULTISTREAM)
            await inside.write(protocol)
            await inside.read()
            return (await inside.read()).strip()
    except Exception:
        return "hung up"
    finally:
        raw.close_now()


# -- forged keys -----------------------------------------------------------------------------------


class ForgedKey(PrivateKey):  # type: ignore[misc]
    """Says that its public key is another's; signs with its own key, or as it is told."""

    def __init__(self, own: PrivateKey, claimed: PublicKey, signature: bytes | None = None) -> None:
        """``signature`` is given for whatever is to be signed, if it isn't None."""
        self._own, self._claimed, self._signature = own, claimed, signature

    def to_bytes(self) -> bytes:
        """Its own."""
        return bytes(self._own.to_bytes())

    def get_type(self) -> object:
        """Of its own kind."""
        return self._own.get_type()

    def sign(self, data: bytes) -> bytes:
        """A signature that isn't the claimed key's for ``data``."""
        return self._signature if self._signature is not None else bytes(self._own.sign(data))

    def get_public_key(self) -> PublicKey:
        """The claimed one."""
        return self._claimed


def key_pair(identity: Identity) -> KeyPair:
    """libp2p's form of an identity."""
    return create_new_key_pair(identity.private_bytes())


def noise_as(
    own: Identity, claimed: Identity | None = None, *, replayed: bool = False
) -> NoiseTransport:
    """Noise of ``own``; with ``claimed``, in that one's name.

    ``replayed``: with a signature that ``claimed`` really made, for another Noise key, as anyone
    has whom ``claimed`` dialled once.
    """
    pair = key_pair(own)
    static = create_new_x25519_key_pair().private_key
    if claimed is None:
        return NoiseTransport(pair, static)
    victim = key_pair(claimed)
    signature = None
    if replayed:
        other = create_new_x25519_key_pair().public_key.to_bytes()
        signature = victim.private_key.sign(b"noise-libp2p-static-key:" + other)
    forged = ForgedKey(pair.private_key, victim.public_key, signature)
    return NoiseTransport(KeyPair(forged, victim.public_key), static)
