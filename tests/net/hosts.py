"""Hosts, handlers and reads that the tests of gptnode.net share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gptnode.net.host import Host, PeerStream, open_host
from gptnode.net.identity import Identity

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def new_identity() -> Identity:
    return Identity(Ed25519PrivateKey.generate())


def everyone(_: str) -> bool:
    return True


async def echo(stream: PeerStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def read_exactly(stream: PeerStream, n_bytes: int) -> bytes:
    parts = []
    while n_bytes:
        data = await stream.receive_some(n_bytes)
        if not data:
            raise EOFError
        parts.append(data)
        n_bytes -= len(data)
    return b"".join(parts)


async def read_all(stream: PeerStream) -> bytes:
    parts = []
    while data := await stream.receive_some():
        parts.append(data)
    return b"".join(parts)


async def round_trip(stream: PeerStream, data: bytes) -> bytes:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        return await read_exactly(stream, len(data))


@asynccontextmanager
async def server_and_client(handler=echo) -> AsyncIterator[tuple[Host, Host]]:  # type: ignore[no-untyped-def]
    """A listening host and one that is connected to it."""
    server_id, client_id = new_identity(), new_identity()
    async with (
        open_host(
            server_id, listen=LOOPBACK, allow={client_id.peer_id}.__contains__, handler=handler
        ) as server,
        open_host(client_id, allow={server_id.peer_id}.__contains__) as client,
    ):
        await client.connect(server.peer_id, server.addrs)
        yield server, client


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  (other tasks' state has no event)
            await trio.sleep(0.005)


def muxed_streams(host: Host) -> int:
    return sum(len(link._muxer.streams) for links in host._links.values() for link in links)
