"""Those who may not come in, and those who may and lie: nobody gets further than its due."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gptnode.errors import NetworkError, PeerRefusedError, RemoteProtocolError
from gptnode.net.handshake import Handshaker
from gptnode.net.host import PeerStream, open_host
from gptnode.net.identity import Identity
from gptnode.net.socket_connection import SocketConnection
from gptnode.span import Span
from gptnode.wire.codec import decode
from gptnode.wire.frames import FrameDecoder
from gptnode.wire.limits import DEFAULT_LIMITS
from gptnode.wire.messages import (
    ErrorCode,
    Failure,
    Message,
    Opened,
    Ping,
    Step,
    Stepped,
    Truncate,
    WireTensor,
)
from proof.honest import Caller, Target
from proof.hostile import downgrade_outer, muxer_answer, noise_as, raw_socket
from proof.mutations import bytes_of
from proof.report import Row
from proof.swarm import Server

__all__ = ["downgrades", "forged_ids", "forged_sessions"]

YAMUX, MPLEX = "/yamux/1.0.0", "/mplex/6.7.0"
OUTER = ("/plaintext/2.0.0", "/plaintext/1.0.0", "/secio/1.0.0", "/tls/1.0.0", "/tls/1.0", MPLEX,
         YAMUX, "/quic-v1", "/ipfs/id/1.0.0", "/gptnode/1.0.0", "/noise/2")  # fmt: skip
WAIT_S = 10.0


def stranger() -> Identity:
    """In no map."""
    return Identity(Ed25519PrivateKey.generate())


async def downgrades(server: Server, caller: Caller, count: int) -> Row:
    """Weaker protocols in place of Noise and of Yamux, by strangers and by a listed peer."""
    row = Row("downgrade attempts", 0)
    target = caller.target
    opened = _sessions(server)
    for _ in range(count):
        for protocol in OUTER:
            answer = await downgrade_outer(target.port, protocol)
            row.count += 1
            row.require(answer == "na", f"{protocol} in place of Noise: {answer!r}")
        for protocol in (MPLEX, "/plaintext/2.0.0", "/yamux/0.0.1", "/gptnode/1.0.0"):
            answer = await muxer_answer(
                target.port, noise_as(caller.identity), target.peer_id, protocol
            )
            row.count += 1
            row.require(answer == "na", f"{protocol} in place of Yamux: {answer!r}")
    # The same way with the right protocol works: the attempts failed for the right reason.
    answer = await muxer_answer(target.port, noise_as(caller.identity), target.peer_id, YAMUX)
    row.require(answer == YAMUX, f"an honest dialer got {answer!r}")
    row.require(_sessions(server) == opened, "a session was opened")
    return row


async def forged_ids(server: Server, caller: Caller, count: int) -> Row:
    """Unlisted peers, peers in a listed one's name, a handshake that is said again."""
    row = Row("unlisted and forged peers", 0)
    target = caller.target
    opened = _sessions(server)
    for _ in range(count):
        for name, attempt in _ATTEMPTS.items():
            row.count += 1
            ended = await attempt(target, caller.identity)
            row.require(ended == "refused", f"{name}: {ended}")
    row.require(_sessions(server) == opened, "a session was opened")
    return row


async def _unlisted(target: Target, listed: Identity) -> str:
    async with open_host(stranger(), allow=lambda _: True) as host:
        try:
            await host.connect(target.peer_id, [target.addr], timeout_s=WAIT_S)
        except PeerRefusedError:
            return "refused"
        except NetworkError as error:
            return str(error)
    return "let in"


async def _unlisted_in_a_hurry(target: Target, listed: Identity) -> str:
    """Doesn't wait for any answer: says Yamux, a stream, the protocol and Open at once."""
    raw = SocketConnection(await raw_socket(target.port), is_initiator=True)
    handshaker = Handshaker(stranger(), lambda _: True)
    try:
        with trio.move_on_after(WAIT_S):
            try:
                muxer = await handshaker.dial(raw, target.peer_id)
            except Exception:
                return "refused" if await _is_cut(raw) else "still connected"
            return f"let in: {muxer}"
    finally:
        raw.close_now()
    return "no end"


async def _is_cut(raw: SocketConnection) -> bool:
    """Whether the other side ended the connection, whatever it still gets to hear."""
    try:
        while True:
            await raw.write(bytes(100))
            if not await raw.read(1):
                return True
    except Exception:
        return True


async def _in_anothers_name(target: Target, listed: Identity) -> str:
    return _refused(
        await muxer_answer(target.port, noise_as(stranger(), listed), target.peer_id, YAMUX)
    )


async def _with_anothers_signature(target: Target, listed: Identity) -> str:
    transport = noise_as(stranger(), listed, replayed=True)
    return _refused(await muxer_answer(target.port, transport, target.peer_id, YAMUX))


async def _right_but_unlisted(target: Target, listed: Identity) -> str:
    """A stock libp2p dialer that keeps all rules, with a key of its own."""
    return _refused(await muxer_answer(target.port, noise_as(stranger()), target.peer_id, YAMUX))


async def _replayed(target: Target, listed: Identity) -> str:
    """Every byte that a listed peer said on its way in, said again."""
    said = await _recorded(target, listed)
    stream = await raw_socket(target.port)
    try:
        with trio.move_on_after(WAIT_S):
            heard = b""
            for piece in said:
                await stream.send_all(piece)
                await trio.sleep(0.02)
            while data := await stream.receive_some(65_536):
                heard += data
            return "refused"
    except trio.BrokenResourceError:
        return "refused"
    finally:
        stream.socket.close()
    return "still connected"


async def _recorded(target: Target, listed: Identity) -> list[bytes]:
    """What a listed peer sends to connect, open a session and take a step."""
    said: list[bytes] = []
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def between(dialer: trio.SocketStream) -> None:
        server = await raw_socket(target.port)

        async def carry(source: trio.SocketStream, sink: trio.SocketStream, *, keep: bool) -> None:
            try:
                while data := await source.receive_some(65_536):
                    if keep:
                        said.append(bytes(data))
                    await sink.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            sink.socket.close()

        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: carry(dialer, server, keep=True))
            nursery.start_soon(lambda: carry(server, dialer, keep=False))

    through = replace(target, addr=f"/ip4/127.0.0.1/tcp/{port}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, between, listeners)
        caller = Caller(listed, through)
        async with caller.host() as host:
            await host.connect(target.peer_id, [through.addr], timeout_s=WAIT_S)
        nursery.cancel_scope.cancel()
    return said


def _refused(answer: str) -> str:
    return "refused" if answer == "hung up" else f"got {answer!r}"


_ATTEMPTS: dict[str, Callable[[Target, Identity], Awaitable[str]]] = {
    "an unlisted peer": _unlisted,
    "an unlisted peer that talks on": _unlisted_in_a_hurry,
    "a listed peer's id, signed by another key": _in_anothers_name,
    "a listed peer's id, with an old signature of its own": _with_anothers_signature,
    "an unlisted stock libp2p node": _right_but_unlisted,
    "a listed peer's handshake said again": _replayed,
}


# -- listed peers that lie -------------------------------------------------------------------------


async def forged_sessions(server: Server, liar: Caller, honest: Caller, count: int) -> Row:
    """Sessions that were never opened, or are another's; the honest one computes on, unharmed."""
    row = Row("forged sessions", 0)
    target = liar.target
    async with honest.host() as host, liar.host() as lying:
        for one in (host, lying):
            await one.connect(target.peer_id, [target.addr], timeout_s=WAIT_S)
        async with honest.session(host) as (channel, opened):
            await channel.request(target.step(0, 5), timeout_s=WAIT_S)
            expected = await channel.request(target.step(5), timeout_s=WAIT_S)
            for _ in range(count):
                for name, said, code in _lies(target, opened):
                    stream = await lying.open_stream(target.peer_id)
                    heard = await _heard(stream, said)
                    row.count += 1
                    last = heard[-1] if heard else None
                    fine = isinstance(last, Failure) and last.code is code
                    row.require(fine, f"{name}: {last}")
                    computed = sum(isinstance(one, Stepped) for one in heard)
                    right = sum(isinstance(one, Step) for one in said[:-1])
                    row.require(computed == right, f"{name}: computed {computed} steps")
                again = await channel.request(target.step(5), timeout_s=WAIT_S)
                same = bytes(again.hidden.data) == bytes(expected.hidden.data)
                row.require(same, "the honest session computes something else")
                row.require(again.epoch == opened.epoch, "the honest session changed its epoch")
    return row


def _lies(target: Target, opened: Opened) -> Iterable[tuple[str, list[Message], ErrorCode]]:
    """Name, messages, and the code of the Failure that is due."""
    ask, wide = target.open, target.d_model
    nan = WireTensor("f32", (1, 1, wide), b"\xff\xff\xff\x7f" * wide)
    other = Stepped(0, ask.span, ask.fingerprint, opened.epoch, nan, 0.0, 0.0)
    code = ErrorCode
    yield "a step of nobody's session", [target.step(5)], code.PROTOCOL
    yield "a truncation of nobody's session", [Truncate(0)], code.PROTOCOL
    yield "a ping of nobody's session", [Ping(1)], code.PROTOCOL
    yield "a server's word", [replace(opened)], code.PROTOCOL
    yield "a server's result", [ask, other], code.PROTOCOL
    yield "opened twice", [ask, ask], code.PROTOCOL
    yield "another's position", [ask, target.step(5)], code.BAD_POSITION
    yield "other weights", [replace(ask, fingerprint="0" * 32)], code.MISMATCH
    yield "another dtype", [replace(ask, dtype="bf16")], code.MISMATCH
    yield "other blocks", [replace(ask, span=Span(0, 64))], code.NO_SPAN
    yield "an embedding elsewhere", [replace(ask, embed=True)], code.NO_SPAN
    yield "a head elsewhere", [replace(ask, head=True)], code.NO_SPAN
    yield "another model", [replace(ask, model="other")], code.NO_MODEL
    yield "numbers that are none", [ask, Step(0, nan)], code.BAD_TENSOR
    yield (
        "the wrong width",
        [ask, Step(0, WireTensor("f32", (1, 1, 8), bytes(32)))],
        code.BAD_TENSOR,
    )
    yield (
        "the wrong rank",
        [ask, Step(0, WireTensor("f32", (wide,), bytes(4 * wide)))],
        code.BAD_TENSOR,
    )
    yield (
        "the wrong kind of number",
        [ask, Step(0, WireTensor("i32", (1, 1, wide), bytes(4 * wide)))],
        code.BAD_TENSOR,
    )
    yield "too long for its session", [ask, target.step(0, 64), target.step(64)], code.TOO_LONG


async def _heard(stream: PeerStream, said: list[Message]) -> list[Message]:
    """What the server says until it ends the stream; each message waits for what comes before."""
    decoder = FrameDecoder(DEFAULT_LIMITS)
    decoder.raise_limit(DEFAULT_LIMITS.max_payload_bytes)
    heard: list[Message] = []
    try:
        with trio.fail_after(WAIT_S):
            for message in said:
                await stream.send_all(bytes_of(message))
                if message is not said[-1]:
                    await _next(stream, decoder, heard)
            while not heard or not isinstance(heard[-1], Failure):
                await _next(stream, decoder, heard)
    except (trio.BrokenResourceError, EOFError, RemoteProtocolError, trio.TooSlowError):
        pass
    await stream.reset()
    return heard


async def _next(stream: PeerStream, decoder: FrameDecoder, heard: list[Message]) -> None:
    """Read until one more message came."""
    before = len(heard)
    while len(heard) == before:
        data = await stream.receive_some()
        if not data:
            raise EOFError
        decoder.feed(data)
        while (frame := decoder.next_frame()) is not None:
            heard.append(decode(frame.head, frame.payload))


def _sessions(server: Server) -> int:
    """How many sessions its log says were opened."""
    return server.log_path.read_text(errors="replace").count("session opened")
