"""From a TCP connection to streams with an authenticated peer: Noise, then a muxer, nothing else.

multistream-select agrees on `/noise`, Noise XX proves both keys, the allow-list is asked, then
multistream-select agrees on a muxer inside the encryption: gptnode's own, or `/yamux/1.0.0` with
nodes that don't have it. No other security protocol or muxer is offered or taken, so there is
nothing to be talked down to: what is offered in the encryption nobody else can change. But for the
own muxer the bytes are those of any libp2p node (https://github.com/libp2p/specs/tree/master/noise,
.../connections, .../yamux).

Knows keys and one connection. Knows no addresses, no host, no lifetimes: the caller gives a
deadline and closes the socket of a handshake that failed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX

from gptnode.net.identity import Identity
from gptnode.net.muxer import Muxer
from gptnode.net.noise_connection import NoiseConnection
from gptnode.net.own_muxer import PROTOCOL_ID as OWN_MUX
from gptnode.net.own_muxer import OwnMuxer
from gptnode.net.socket_connection import SocketConnection
from gptnode.net.stream import PeerStream
from gptnode.net.yamux_muxer import YamuxMuxer

__all__ = [
    "MUXERS",
    "HandshakeError",
    "Handshaker",
    "NotAllowedError",
    "RefusedError",
    "UnknownProtocolError",
    "WrongPeerError",
    "agree_on_protocol",
    "answer_protocol",
]

# In order of preference.
MUXERS = (OWN_MUX, str(YAMUX))
# multistream-select counts in whole seconds; callers have deadlines of their own above it.
NEGOTIATE_S = 3
# Protocol names are short; a stream may not say more before one is agreed on.
NEGOTIATE_BYTES = 1024


class HandshakeError(Exception):
    """The other side doesn't speak our protocols, hung up or sent nonsense: see the text."""


class WrongPeerError(HandshakeError):
    """Another peer answered than the one that was asked for; the text is its peer id."""


class NotAllowedError(HandshakeError):
    """Our own allow-list doesn't have the peer; the text is its peer id."""


class RefusedError(HandshakeError):
    """The other side hung up the moment it knew who we are."""


class UnknownProtocolError(HandshakeError):
    """The peer doesn't offer the protocol on streams."""


class _AllowListNoise(NoiseTransport):  # type: ignore[misc]
    """Noise that ends with HandshakeFailure unless the authenticated peer is allowed."""

    def __init__(self, identity: Identity, allow: Callable[[str], bool]) -> None:
        super().__init__(
            create_new_key_pair(identity.private_bytes()),
            create_new_x25519_key_pair().private_key,
        )
        self._allow = allow

    async def secure_inbound(self, conn: SocketConnection) -> NoiseConnection:
        return self._admit(await super().secure_inbound(conn), conn)

    async def secure_outbound(self, conn: SocketConnection, peer_id: ID) -> NoiseConnection:
        return self._admit(await super().secure_outbound(conn, peer_id), conn)

    def _admit(self, secured: SecureSession, raw: SocketConnection) -> NoiseConnection:
        peer_id = secured.get_remote_peer().to_base58()
        if not self._allow(peer_id):
            raise _NotOnListError(peer_id)
        return NoiseConnection(secured, raw)


class _NotOnListError(HandshakeFailure):  # type: ignore[misc]
    pass


class Handshaker:
    """Makes connections out of sockets for one identity, for peers that ``allow`` says True to."""

    def __init__(self, identity: Identity, allow: Callable[[str], bool]) -> None:
        """``allow`` gets authenticated peer ids only, and is asked at every connection."""
        _quiet_libp2p()
        self._noise = _AllowListNoise(identity, allow)
        self._client = MultiselectClient()
        self._noise_server = Multiselect({NOISE: None})
        self._muxers = [TProtocol(name) for name in MUXERS]
        self._muxer_server = Multiselect(dict.fromkeys(self._muxers))

    async def dial(self, raw: SocketConnection, peer_id: str) -> Muxer:
        """The initiator's side, towards ``peer_id``. Raises HandshakeError or one of its kinds."""
        try:
            chosen = await self._client.select_one_of(
                [NOISE], MultiselectCommunicator(raw), NEGOTIATE_S
            )
        except Exception as error:
            raise HandshakeError(
                f"no libp2p node with Noise answers there ({_words(error)})"
            ) from error
        _must_be(chosen, NOISE)
        try:
            secured = await self._noise.secure_outbound(raw, ID.from_base58(peer_id))
        except PeerIDMismatchesPubkey as error:
            raise WrongPeerError(_id_in(error)) from error
        except _NotOnListError as error:
            raise NotAllowedError(str(error)) from error
        except Exception as error:
            raise HandshakeError(f"the Noise handshake failed ({_words(error)})") from error
        try:
            chosen = await self._client.select_one_of(
                self._muxers, MultiselectCommunicator(secured), NEGOTIATE_S
            )
        except Exception as error:
            if any(isinstance(one, ConnectionClosedError) for one in _chain(error)):
                raise RefusedError("it hung up once it knew who calls") from error
            raise HandshakeError(f"no agreement on a muxer ({_words(error)})") from error
        return self._muxer(chosen, secured, raw)

    async def answer(self, raw: SocketConnection) -> Muxer:
        """The responder's side. Raises HandshakeError or one of its kinds."""
        try:
            chosen, _ = await self._noise_server.negotiate(
                MultiselectCommunicator(raw), NEGOTIATE_S
            )
            _must_be(chosen, NOISE)
            secured = await self._noise.secure_inbound(raw)
            chosen, _ = await self._muxer_server.negotiate(
                MultiselectCommunicator(secured), NEGOTIATE_S
            )
        except _NotOnListError as error:
            raise NotAllowedError(str(error)) from error
        except HandshakeError:
            raise
        except Exception as error:
            raise HandshakeError(_words(error)) from error
        return self._muxer(chosen, secured, raw)

    def _muxer(self, chosen: object, secured: NoiseConnection, raw: SocketConnection) -> Muxer:
        _must_be(chosen, *self._muxers)
        if str(chosen) == OWN_MUX:
            return OwnMuxer(secured, secured.get_remote_peer(), is_initiator=raw.is_initiator)
        raw.start_outbox()
        return YamuxMuxer(secured, raw)


async def agree_on_protocol(stream: PeerStream, protocol: str) -> None:
    """The opener's side of multistream-select on a stream, or HandshakeError of some kind."""
    try:
        chosen = await MultiselectClient().select_one_of(
            [TProtocol(protocol)], MultiselectCommunicator(_Negotiation(stream)), NEGOTIATE_S
        )
    except Exception as error:
        if "protocol not supported" in str(error):  # the library raises no class of its own here
            raise UnknownProtocolError(f"it doesn't offer {protocol}") from error
        raise HandshakeError(_words(error)) from error
    _must_be(chosen, protocol)


async def answer_protocol(stream: PeerStream, protocol: str | None) -> None:
    """The other side: wait for ``protocol``, decline all else, or raise HandshakeError.

    With None everything is declined, until the peer gives up (HandshakeError then).
    """
    offered = {} if protocol is None else {TProtocol(protocol): None}
    try:
        chosen, _ = await Multiselect(offered).negotiate(
            MultiselectCommunicator(_Negotiation(stream)), NEGOTIATE_S
        )
    except Exception as error:
        raise HandshakeError(_words(error)) from error
    _must_be(chosen, str(protocol))


class _Negotiation:
    """A PeerStream as multistream-select reads it, for a bounded number of bytes."""

    def __init__(self, stream: PeerStream) -> None:
        self._stream = stream
        self._left = NEGOTIATE_BYTES

    async def read(self, n: int | None = None) -> bytes:
        wanted = 1 if n is None else n
        self._left -= wanted
        if self._left < 0:
            raise ConnectionClosedError("it talks too much before a protocol is agreed on")
        parts = []
        while wanted:
            try:
                data = await self._stream.receive_some(wanted)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionClosedError("the stream was reset") from error
            if not data:
                raise ConnectionClosedError("the stream was closed")
            parts.append(data)
            wanted -= len(data)
        return b"".join(parts)

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError("the stream was reset") from error


def _must_be(chosen: object, *offered: str) -> None:
    """What was negotiated is what was offered: a check of the library, not of the peer."""
    if str(chosen) not in offered:
        raise HandshakeError(f"negotiated {chosen!r} where {', '.join(offered)} was offered")


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and len(chain) < 10:
        chain.append(error)
        error = error.__cause__
    return chain


def _words(error: BaseException) -> str:
    """The innermost words of an error of the library, for a person who knows networks."""
    for one in reversed(_chain(error)):
        if str(one).strip():
            return " ".join(str(one).split())
    return type(error).__name__


def _id_in(error: Exception) -> str:
    """The peer id that answered, out of libp2p's words (it gives no other access to it)."""
    return str(error).rpartition("remote_peer_id_from_pubkey=")[2] or "unknown"


def _quiet_libp2p() -> None:
    """Keep the library's warnings off the terminal: logging prints to stderr for want of a handler.

    What matters of them reaches users as our own errors. LIBP2P_DEBUG (the library's own switch) or
    a handler of the application's own on the logger "libp2p" shows them.
    """
    logger: Any = logging.getLogger("libp2p")
    if "LIBP2P_DEBUG" not in os.environ and not logger.handlers:
        logger.addHandler(logging.NullHandler())
