"""Who gets in: the allow-list, other protocols, strangers, stock libp2p hosts."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from gptnode.errors import (
    NetworkError,
    PeerRefusedError,
)
from gptnode.net import handshake
from gptnode.net import host as host_module
from gptnode.net.host import PROTOCOL, Host, PeerStream, open_host
from gptnode.net.listener import MAX_HANDSHAKES
from gptnode.net.own_muxer import OwnMuxer
from gptnode.net.yamux_muxer import YamuxMuxer
from tests.net.hosts import (
    LOOPBACK,
    echo,
    everyone,
    new_identity,
    round_trip,
    server_and_client,
    until,
)


async def test_an_unlisted_dialer_is_refused_and_reaches_no_handler() -> None:
    handled: list[str] = []

    async def handler(stream: PeerStream) -> None:
        handled.append(stream.peer_id)

    asked: list[str] = []

    def nobody(peer_id: str) -> bool:
        asked.append(peer_id)
        return False

    stranger = new_identity()
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=nobody, handler=handler) as server,
        open_host(stranger, allow=everyone) as client,
    ):
        with pytest.raises(PeerRefusedError, match="refuses this node"):
            await client.connect(server.peer_id, server.addrs)
        assert asked == [stranger.peer_id]
        assert client.connected() == server.connected() == ()
        assert handled == []


async def test_a_peer_off_the_own_list_is_not_dialled() -> None:
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server,
        open_host(new_identity(), allow=lambda _: False) as client,
    ):
        with pytest.raises(PeerRefusedError, match="own BlocksMap"):
            await client.connect(server.peer_id, server.addrs)
        assert server.connected() == ()


async def test_a_peer_struck_off_the_list_loses_its_connection_at_its_next_stream() -> None:
    allowed = {(client_id := new_identity()).peer_id}
    async with (
        open_host(
            new_identity(), listen=LOOPBACK, allow=allowed.__contains__, handler=echo
        ) as server,
        open_host(client_id, allow=everyone) as client,
    ):
        await client.connect(server.peer_id, server.addrs)
        stream = await client.open_stream(server.peer_id)
        allowed.clear()
        with pytest.raises(NetworkError):
            await client.open_stream(server.peer_id)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(PeerRefusedError):
            await client.connect(server.peer_id, server.addrs)


async def test_disconnect_cuts_streams_and_their_handlers() -> None:
    cancelled = trio.Event()

    async def handler(stream: PeerStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with server_and_client(handler) as (server, client):
        stream = await client.open_stream(server.peer_id)
        await until(lambda: server.connected() == (client.peer_id,))
        await server.disconnect(client.peer_id)
        assert server.connected() == ()
        assert cancelled.is_set()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            await stream.receive_some()
        await client.connect(server.peer_id, server.addrs)
        await client.open_stream(server.peer_id)


def stock_host(*, sec_opt: dict) -> object:  # type: ignore[type-arg]
    key_pair = create_new_key_pair()
    return new_host(
        key_pair=key_pair,
        sec_opt={name: make(key_pair) for name, make in sec_opt.items()},
        muxer_opt={YAMUX: Yamux},
        negotiate_timeout=3,
    )


def stock_noise(key_pair: object) -> NoiseTransport:
    return NoiseTransport(key_pair, create_new_x25519_key_pair().private_key)


async def test_a_plaintext_dialer_gets_nowhere() -> None:
    handled: list[str] = []

    async def handler(stream: PeerStream) -> None:
        handled.append(stream.peer_id)

    stock = stock_host(sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport})
    async with open_host(
        new_identity(), listen=LOOPBACK, allow=everyone, handler=handler
    ) as server:
        async with stock.run(listen_addrs=[]):
            with pytest.raises(Exception, match="unable to connect"), trio.fail_after(20):
                await stock.connect(info_from_p2p_addr(Multiaddr(server.addrs[0])))
        assert server.connected() == ()
        assert handled == []


async def test_a_stock_libp2p_host_dials_us_and_talks() -> None:
    stock = stock_host(sec_opt={NOISE: stock_noise})
    stock_id = stock.get_id().to_base58()
    async with (
        open_host(
            new_identity(), listen=LOOPBACK, allow={stock_id}.__contains__, handler=echo
        ) as server,
        stock.run(listen_addrs=[]),
    ):
        await stock.connect(info_from_p2p_addr(Multiaddr(server.addrs[0])))
        stream = await stock.new_stream(ID.from_base58(server.peer_id), [PROTOCOL])
        data = os.urandom(1 << 20)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, data)
            while len(got) < len(data):
                got += await stream.read(65536)
        assert bytes(got) == data
        assert server.connected() == (stock_id,)
        await stream.close()
        await stock.close()  # leaving its block alone leaks the socket


async def test_we_dial_a_stock_libp2p_host_and_talk() -> None:
    stock = stock_host(sec_opt={NOISE: stock_noise})

    async def stock_echo(stream: object) -> None:
        while True:
            try:
                data = await stream.read(65536)  # type: ignore[attr-defined]
            except Exception:
                await stream.reset()  # type: ignore[attr-defined]
                return
            await stream.write(data)  # type: ignore[attr-defined]

    stock.set_stream_handler(PROTOCOL, stock_echo)
    async with (
        stock.run(listen_addrs=[Multiaddr(LOOPBACK[0])]),
        open_host(new_identity(), allow=everyone) as client,
    ):
        peer_id = stock.get_id().to_base58()
        await client.connect(peer_id, [str(one) for one in stock.get_addrs()])
        async with await client.open_stream(peer_id) as stream:
            data = os.urandom(200_000)
            assert await round_trip(stream, data) == data


async def test_a_stranger_that_announces_gigabytes_is_cut_off() -> None:
    async with server_and_client() as (server, client):
        port = int(server.addrs[0].split("/")[4])
        for nonsense in (
            b"\xff" * 9 + b"\x01",
            b"\x80\x80\x80\x80\x04",
            bytes(100_000),
            b"\x05GET \n",
        ):
            async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
                with trio.fail_after(5):
                    try:
                        await raw.send_all(nonsense)
                        while await raw.receive_some():
                            pass
                    except trio.BrokenResourceError:
                        pass
        async with await client.open_stream(server.peer_id) as stream:
            assert await round_trip(stream, b"x") == b"x"


async def test_idle_strangers_do_not_keep_a_listed_peer_out() -> None:
    async with server_and_client() as (server, client):
        await client.disconnect(server.peer_id)
        port = int(server.addrs[0].split("/")[4])
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(300)]
        await client.connect(server.peer_id, server.addrs, timeout_s=2.0)
        assert len(server.strangers()) <= MAX_HANDSHAKES
        for one in idle:
            await one.aclose()


async def test_the_ninth_connection_of_a_peer_ends_its_first() -> None:
    identity = new_identity()
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server,
        trio.open_nursery() as nursery,
    ):
        clients: list[Host] = []

        async def one() -> None:
            async with open_host(identity, allow=everyone) as client:
                await client.connect(server.peer_id, server.addrs)
                clients.append(client)
                await trio.sleep_forever()

        for n in range(1, host_module.MAX_LINKS_PER_PEER + 2):
            nursery.start_soon(one)
            await until(lambda n=n: len(clients) == n)
        await until(lambda: clients[0].connected() == ())
        assert all(client.connected() == (server.peer_id,) for client in clients[1:])
        nursery.cancel_scope.cancel()


async def never_read(_: PeerStream) -> None:
    await trio.sleep_forever()


async def test_a_peer_that_sends_past_its_window_is_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with server_and_client(never_read) as (server, client):
        stream = await client.open_stream(server.peer_id)
        stream._muxed.send_window = 1 << 30  # a peer that ignores what it was granted
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(20):
            await stream.send_all(bytes(16 << 20))
        await until(lambda: server.connected() == ())
    assert "more than its window" in caplog.text


async def test_a_yamux_peer_that_sends_past_its_window_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, yamux: None
) -> None:
    """Canary of a trap: stock Yamux only logs it, and buffered 600 MiB on one stream."""
    monkeypatch.setattr("gptnode.net.yamux_muxer.BUFFERED_LIMIT_BYTES", 1 << 20)
    async with server_and_client(never_read) as (server, client):
        stream = await client.open_stream(server.peer_id)
        stream._muxed.send_window = 1 << 30
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(20):
            await stream.send_all(bytes(16 << 20))
        await until(lambda: server.connected() == ())


async def test_two_nodes_agree_on_their_own_muxer() -> None:
    async with server_and_client() as (server, client):
        await until(lambda: server.connected() == (client.peer_id,))
        for host in (server, client):
            [link] = host.links()
            assert isinstance(link._muxer, OwnMuxer)


async def test_a_node_that_knows_only_yamux_is_met_halfway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old_id, new_id = new_identity(), new_identity()
    async with open_host(new_id, listen=LOOPBACK, allow=everyone, handler=echo) as new:
        monkeypatch.setattr(handshake, "MUXERS", ("/yamux/1.0.0",))
        async with open_host(old_id, listen=LOOPBACK, allow=everyone, handler=echo) as old:
            for one, other in ((old, new), (new, old)):
                await one.connect(other.peer_id, other.addrs)
                [link] = one.links()
                assert isinstance(link._muxer, YamuxMuxer)
                async with await one.open_stream(other.peer_id) as stream:
                    data = os.urandom(300_000)
                    assert await round_trip(stream, data) == data
                await one.disconnect(other.peer_id)
                await until(lambda other=other: other.connected() == ())
