"""A client follows the file of its map."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from gptnode.errors import MapError
from gptnode.node.client import Client
from gptnode.node.meter import NO_METER
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map
from tests.routing.maps import own_form

IN_FORCE_WITHIN_S = 2.0


class RecordingSwarm:
    """Takes maps and lines."""

    def __init__(self, blocks_map: BlocksMap) -> None:
        self.blocks_map = blocks_map
        self.meter = NO_METER
        self.taken: list[tuple[BlocksMap, bool]] = []
        self.said: list[str] = []

    def use_map(self, blocks_map: BlocksMap, *, fresh: bool = False) -> None:
        self.blocks_map = blocks_map
        self.taken.append((blocks_map, fresh))

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "swarm.json"
    write(path, own_form())
    return path


@pytest.fixture
def swarm(path: Path) -> RecordingSwarm:
    return RecordingSwarm(read_blocks_map(path))


@pytest.fixture
def client(path: Path, swarm: RecordingSwarm) -> Client:
    """A chat with the model of that map, which has 16 blocks."""
    stub: Any = SimpleNamespace(
        key=SimpleNamespace(name="my-llama"), config=SimpleNamespace(n_blocks=16, eos_ids=())
    )
    words: Any = SimpleNamespace(eos_ids=frozenset())
    return Client(
        stub, words, cast(Any, None), (), cast(Any, None), cast(Any, swarm),
        map_path=path, peer_id=None,
    )  # fmt: skip


def write(path: Path, data: object) -> None:
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def without_ben_in_the_first_half() -> dict[str, Any]:
    data = own_form()
    data["routes"][0]["peers"] = ["anna"]
    return data


async def follow_until_in_force(client: Client) -> None:
    with trio.move_on_after(IN_FORCE_WITHIN_S):
        await client.follow_map()


async def test_an_edit_is_in_force_within_two_seconds(
    client: Client, swarm: RecordingSwarm, path: Path, autojump_clock: MockClock
) -> None:
    write(path, without_ben_in_the_first_half())
    await follow_until_in_force(client)
    assert swarm.taken == [(read_blocks_map(path), False)]
    assert swarm.said == []


async def test_a_broken_edit_is_reported_once_with_its_place_and_changes_nothing(
    client: Client, swarm: RecordingSwarm, path: Path, autojump_clock: MockClock
) -> None:
    data = own_form()
    data["routes"][1]["peers"] = ["nobody"]
    write(path, data)
    with trio.move_on_after(60):
        await client.follow_map()
    assert swarm.taken == []
    (line,) = swarm.said
    assert "routes[1].peers[0]" in line
    assert line.endswith("; the BlocksMap in force stays")


async def test_a_map_that_does_not_cover_the_model_changes_nothing(
    client: Client, swarm: RecordingSwarm, path: Path, autojump_clock: MockClock
) -> None:
    data = own_form()
    data["routes"] = [{"blocks": "0-7", "peers": ["anna"]}]
    write(path, data)
    await follow_until_in_force(client)
    assert swarm.taken == []
    assert "blocks 8-15" in swarm.said[0]
    write(path, without_ben_in_the_first_half())
    await follow_until_in_force(client)
    assert len(swarm.taken) == 1


async def test_a_map_without_the_model_changes_nothing(
    client: Client, swarm: RecordingSwarm, path: Path, autojump_clock: MockClock
) -> None:
    data = own_form()
    data["models"][0]["name"] = "other"
    data["routes"].pop()
    write(path, data)
    await follow_until_in_force(client)
    assert swarm.taken == []
    assert "my-llama" in swarm.said[0]


async def test_a_map_that_is_mended_says_so(
    client: Client, swarm: RecordingSwarm, path: Path, autojump_clock: MockClock, nursery: Any
) -> None:
    nursery.start_soon(client.follow_map)
    write(path, "{")
    await trio.sleep(IN_FORCE_WITHIN_S)
    write(path, own_form())
    await trio.sleep(IN_FORCE_WITHIN_S)
    assert [line.split(": ")[-1] for line in swarm.said][1:] == ["the BlocksMap is as it was again"]


async def test_reloading_asks_every_peer_anew(
    client: Client, swarm: RecordingSwarm, path: Path
) -> None:
    await client.reload()
    assert swarm.taken == [(read_blocks_map(path), True)]


async def test_reloading_a_wrong_map_is_an_error_and_changes_nothing(
    client: Client, swarm: RecordingSwarm, path: Path
) -> None:
    write(path, "{")
    with pytest.raises(MapError):
        await client.reload()
    assert swarm.taken == []
