"""A whole server in this process, over real connections: its map and its clients change."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from gptnode.errors import MapError, NetworkError, PeerRefusedError, StreamLostError
from gptnode.net.client_channel import ClientChannel
from gptnode.net.host import Host, open_host
from gptnode.net.identity import Identity, create_identity, load_identity
from gptnode.node.budget import KVBudget
from gptnode.node.config import ServeConfig
from gptnode.node.loading import ModelSource
from gptnode.node.serving import ReadyInfo, serve, stream_slots
from gptnode.node.status_file import read_status, status_path
from gptnode.span import Span
from gptnode.wire.limits import chunk_bytes

from .test_block_server import D, hidden, open_for, step

IN_FORCE_S = 2.0
"""How long an edit may take."""


@dataclass
class Place:
    """Files of a server and its clients."""

    folder: Path
    model: Path
    ids: dict[str, Identity] = field(default_factory=dict)

    @property
    def config(self) -> ServeConfig:
        return ServeConfig(
            map_path=self.folder / "map.json",
            identity_path=self.folder / "anna.key",
            listen=("/ip4/127.0.0.1/tcp/0",),
            threads=1,
        )

    def write_map(self, clients: list[str], **changes: Any) -> None:
        document = {
            "models": [{"name": "tiny", "path": str(self.model), "dtype": "f32"}],
            "peers": [
                {"name": name, "id": self.ids[name].peer_id, "addrs": ["/ip4/127.0.0.1/tcp/1"]}
                for name in ("anna", "ben")
            ],
            "routes": [
                {"blocks": "0-3", "peers": ["ben"]},
                {"blocks": "0-1", "peers": ["anna"]},
            ],
            "clients": [{"id": self.ids[name].peer_id, "name": name} for name in clients],
        }
        self.config.map_path.write_text(json.dumps(document | changes))


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Place:
    place = Place(tmp_path, tiny_model)
    for name in ("anna", "ben", "laptop", "phone"):
        place.ids[name] = create_identity(tmp_path / f"{name}.key")
    place.write_map(["laptop"])
    return place


@asynccontextmanager
async def serving(config: ServeConfig) -> AsyncIterator[tuple[ReadyInfo, trio.Event, trio.Event]]:
    """A server that is ready, the event that makes it leave, and that of its end."""
    told: list[ReadyInfo] = []
    is_ready, leave, ended = trio.Event(), trio.Event(), trio.Event()

    def ready(info: ReadyInfo) -> None:
        told.append(info)
        is_ready.set()

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await serve(config, ready=ready, leave=leave)
            ended.set()

        nursery.start_soon(run)
        with trio.fail_after(20):
            await is_ready.wait()
        yield told[0], leave, ended
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def dialler(place: Place, name: str) -> AsyncIterator[Host]:
    async with open_host(place.ids[name], allow=lambda _: True) as host:
        yield host


@asynccontextmanager
async def session(
    host: Host, info: ReadyInfo, source: ModelSource, span: Span = Span(0, 2)
) -> AsyncIterator[ClientChannel]:
    channel = ClientChannel(await host.open_stream(info.peer_id))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        try:
            opened = await channel.request(open_for(source, span), timeout_s=5)
            channel.raise_limit(chunk_bytes(opened.max_chunk_tokens, D, "f32"))
            yield channel
        finally:
            await channel.aclose()


async def gets_in(host: Host, info: ReadyInfo) -> bool:
    try:
        await host.connect(info.peer_id, info.addrs)
    except PeerRefusedError:
        return False
    return True


async def until_in_force(condition) -> None:  # type: ignore[no-untyped-def]
    """Wait for what an edit should bring about; an error if it takes longer than promised."""
    with trio.fail_after(IN_FORCE_S):
        while not await condition():  # noqa: ASYNC110  (no event tells it)
            await trio.sleep(0.02)


async def test_a_client_that_is_added_to_the_map_gets_in_without_a_restart(place: Place) -> None:
    async with serving(place.config) as (info, *_), dialler(place, "phone") as phone:
        assert not await gets_in(phone, info)
        place.write_map(["laptop", "phone"])
        await until_in_force(lambda: gets_in(phone, info))
        assert phone.connected() == (info.peer_id,)


async def test_a_client_that_is_removed_is_cut_off_in_the_middle_of_its_session(
    place: Place, source: ModelSource
) -> None:
    place.write_map(["laptop", "phone"])
    async with (
        serving(place.config) as (info, *_),
        dialler(place, "laptop") as laptop,
        dialler(place, "phone") as phone,
    ):
        assert await gets_in(laptop, info)
        assert await gets_in(phone, info)
        async with (
            session(laptop, info, source) as stays,
            session(phone, info, source) as goes,
        ):
            await step(stays, 0, hidden(2))
            await step(goes, 0, hidden(2))
            place.write_map(["laptop"])

            async def is_gone() -> bool:
                await trio.lowlevel.checkpoint()
                return goes.lost is not None

            await until_in_force(is_gone)
            assert not await gets_in(phone, info)
            await step(stays, 2, hidden(1))


async def test_new_blocks_are_served_without_a_restart_and_sessions_go_on(
    place: Place, source: ModelSource
) -> None:
    routes = [{"blocks": "0-3", "peers": ["ben", "anna"]}]
    async with serving(place.config) as (info, *_), dialler(place, "laptop") as laptop:
        assert info.blocks == (("tiny", (Span(0, 2),)),)
        await laptop.connect(info.peer_id, info.addrs)
        async with session(laptop, info, source) as channel:
            await step(channel, 0, hidden(2))
            place.write_map(["laptop"], routes=routes)

            async def can_open_all() -> bool:
                try:
                    async with session(laptop, info, source, Span(0, 4)) as whole:
                        await step(whole, 0, hidden(1))
                except ExceptionGroup:
                    return False
                return True

            await until_in_force(can_open_all)
            await step(channel, 2, hidden(1))


@pytest.mark.parametrize(
    "broken",
    [
        '{"models": [',
        '{"models": [{"name": "tiny"}], "peers": [], "routes": []}',
        "routes past the model's end",
        None,
    ],
    ids=["no JSON", "no peers", "too many blocks", "no file"],
)
async def test_a_broken_edit_is_reported_and_changes_nothing(
    place: Place, source: ModelSource, broken: str | None
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(place.config) as (info, *_), dialler(place, "laptop") as laptop:
            await laptop.connect(info.peer_id, info.addrs)
            async with session(laptop, info, source) as channel:
                if broken is None:
                    place.config.map_path.unlink()
                elif broken.startswith("routes"):
                    place.write_map([], routes=[{"blocks": "0-9", "peers": ["anna"]}])
                else:
                    place.config.map_path.write_text(broken)

                async def is_told() -> bool:
                    await trio.lowlevel.checkpoint()
                    return bool(read_status(place.config.identity_path)["problems"])

                await until_in_force(is_told)
                await trio.sleep(0.6)
                await step(channel, 0, hidden(1))
                assert await gets_in(laptop, info)
                place.write_map(["laptop"])

                async def is_well() -> bool:
                    return not await is_told()

                await until_in_force(is_well)
    told = [event for event in logs if event["log_level"] == "error"]
    assert len(told) == 1
    assert "map.json" in told[0]["reason"]


async def test_leaving_hands_sessions_over_within_five_seconds(
    place: Place, source: ModelSource
) -> None:
    async with dialler(place, "laptop") as laptop:
        with trio.fail_after(30):
            async with serving(place.config) as (info, leave, ended):
                await laptop.connect(info.peer_id, info.addrs)
                async with session(laptop, info, source) as channel:
                    await step(channel, 0, hidden(2))
                    began = trio.current_time()
                    leave.set()
                    with pytest.raises(StreamLostError, match="shutting down"):
                        while True:
                            await step(channel, 2, hidden(1))
                with trio.fail_at(began + 5):
                    await ended.wait()
                assert not status_path(place.config.identity_path).exists()
                with pytest.raises(NetworkError):
                    await laptop.connect(info.peer_id, info.addrs)


async def test_the_status_names_who_is_here_and_who_was_turned_away(
    place: Place, source: ModelSource
) -> None:
    async with (
        serving(place.config) as (info, *_),
        dialler(place, "laptop") as laptop,
        dialler(place, "phone") as phone,
    ):
        await laptop.connect(info.peer_id, info.addrs)
        async with session(laptop, info, source):
            assert not await gets_in(phone, info)
            assert not await gets_in(phone, info)

            async def is_written() -> bool:
                await trio.lowlevel.checkpoint()
                status = read_status(place.config.identity_path)
                return bool(status["connected"]) and status["connected"][0]["sessions"] == 1

            await until_in_force(is_written)
            await trio.sleep(0.6)
            status = read_status(place.config.identity_path)
    assert status["peer_id"] == load_identity(place.config.identity_path).peer_id
    assert status["state"] == "serving"
    assert status["blocks"] == {"tiny": ["0-1"]}
    (connected,) = status["connected"]
    assert (connected["id"], connected["name"], connected["role"]) == (
        place.ids["laptop"].peer_id,
        "laptop",
        "client",
    )
    assert connected["kv_bytes"] > 0
    assert status["lent"] == {"sessions": 1, "kv_bytes": connected["kv_bytes"]}
    (refused,) = status["refused"]
    assert (refused["id"], refused["count"]) == (place.ids["phone"].peer_id, 2)
    assert refused["last"].endswith("Z")


async def test_a_folder_that_can_not_be_written_to_does_not_keep_a_server_from_serving(
    place: Place, source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gptnode.node.status_file.replace_file", full)
    with structlog.testing.capture_logs() as logs:
        async with serving(place.config) as (info, *_), dialler(place, "laptop") as laptop:
            await laptop.connect(info.peer_id, info.addrs)
            async with session(laptop, info, source) as channel:
                await trio.sleep(1.2)
                await step(channel, 0, hidden(1))
    warnings = [event for event in logs if event["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "No space left" in warnings[0]["reason"]


async def test_a_server_that_can_not_serve_its_map_does_not_start(place: Place) -> None:
    place.write_map([], routes=[{"blocks": "0-3", "peers": ["ben"]}])
    with pytest.raises(MapError, match="none gives blocks to this node"):
        await serve(place.config, ready=lambda _: None)


def test_another_server_may_feed_all_sessions_whoever_they_belong_to() -> None:
    slots = stream_slots(KVBudget(1 << 20, 64, max_peer_sessions=32))
    clients = [f"client {number % 2}" for number in range(64)]
    assert all(slots.take(peer_id) for peer_id in (*clients, *["anna"] * 64))
