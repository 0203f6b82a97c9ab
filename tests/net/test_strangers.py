"""Those at the door are remembered, within bounds, and can be seen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count

import pytest
import trio

from gptnode.errors import PeerRefusedError
from gptnode.net.host import PeerStream, open_host
from gptnode.net.strangers import RefusedPeer, RefusedPeers
from tests.net.hosts import LOOPBACK, echo, everyone, new_identity, server_and_client, until


def ticking() -> Iterator[float]:
    return map(float, count(1))


def test_who_comes_again_is_counted_and_comes_first() -> None:
    times = ticking()
    refused = RefusedPeers(clock=lambda: next(times))
    refused.note("anna", "10.0.0.1:1")
    refused.note("ben", "10.0.0.2:1")
    refused.note("anna", "10.0.0.1:2")
    assert refused.latest_first() == (
        RefusedPeer("anna", "10.0.0.1:2", 2, 1.0, 3.0),
        RefusedPeer("ben", "10.0.0.2:1", 1, 2.0, 2.0),
    )


def test_the_list_is_bounded_and_keeps_the_latest() -> None:
    refused = RefusedPeers(3)
    for number in range(1000):
        refused.note(str(number), "")
        refused.note("again", "")
    assert [one.peer_id for one in refused.latest_first()] == ["again", "999", "998"]


def test_who_was_let_in_is_forgotten() -> None:
    refused = RefusedPeers()
    refused.note("anna", "")
    refused.forget("anna")
    refused.forget("nobody")
    assert refused.latest_first() == ()


def test_who_keeps_knocking_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptnode.net")
    refused = RefusedPeers()
    for _ in range(500):
        refused.note("anna", "10.0.0.1:1")
    assert len(caplog.records) == 3


async def test_a_refused_dialer_is_remembered_with_its_address_and_how_often() -> None:
    handled: list[str] = []

    async def handler(stream: PeerStream) -> None:
        handled.append(stream.peer_id)

    stranger = new_identity()
    async with (
        open_host(
            new_identity(), listen=LOOPBACK, allow=lambda _: False, handler=handler
        ) as server,
        open_host(stranger, allow=everyone) as client,
    ):
        for _ in range(2):
            with pytest.raises(PeerRefusedError):
                await client.connect(server.peer_id, server.addrs)
        (known,) = server.refused.latest_first()
        assert (known.peer_id, known.count) == (stranger.peer_id, 2)
        assert known.addr.startswith("127.0.0.1:")
        assert server.links() == ()
        assert handled == []


async def test_a_connection_is_pending_until_it_has_proved_who_it_is() -> None:
    async with server_and_client() as (server, client):
        assert server.strangers() == ()
        port = int(server.addrs[0].split("/")[4])
        async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
            await until(lambda: len(server.strangers()) == 1)
            own_port = raw.socket.getsockname()[1]
            assert server.strangers()[0].addr == f"127.0.0.1:{own_port}"
        await until(lambda: server.strangers() == ())
        assert [link.peer_id for link in server.links()] == [client.peer_id]
        assert server.links()[0].addr.startswith("127.0.0.1:")


async def test_a_peer_struck_off_during_its_handshake_gets_no_stream() -> None:
    asked = 0

    def only_once(_: str) -> bool:
        nonlocal asked
        asked += 1
        return asked == 1

    handled: list[str] = []

    async def handler(stream: PeerStream) -> None:
        handled.append(stream.peer_id)
        await echo(stream)

    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=only_once, handler=handler) as server,
        open_host(new_identity(), allow=everyone) as client,
    ):
        await client.connect(server.peer_id, server.addrs)
        await until(lambda: client.connected() == ())
        assert server.connected() == ()
        assert handled == []
        assert asked == 2
