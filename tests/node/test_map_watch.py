"""Watching a map: each edit once, however the file was changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gptnode.errors import MapError
from gptnode.node.map_watch import MapWatch
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map
from tests.routing.maps import own_form

IN_FORCE_WITHIN_S = 2.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A right map."""
    path = tmp_path / "swarm.json"
    write(path, own_form())
    return path


def write(path: Path, data: Any) -> None:
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def dates(path: Path) -> tuple[int, int, int]:
    """Size, and the two dates that can be set."""
    found = path.stat()
    return found.st_size, found.st_atime_ns, found.st_mtime_ns


def remove(path: Path) -> None:
    path.unlink()


def renamed(name: str) -> dict[str, Any]:
    """The map with another name for its first model; as long as before for six letters."""
    data = own_form()
    data["models"][0]["name"] = name
    for route in data["routes"]:
        route.pop("model", None)
    return data


async def next_edit(watch: MapWatch) -> BlocksMap | MapError:
    with trio.fail_after(IN_FORCE_WITHIN_S):
        return await anext(watch)


async def silent(watch: MapWatch) -> bool:
    with trio.move_on_after(60):
        await anext(watch)
        return False
    return True


def model_of(found: BlocksMap | MapError) -> str:
    assert isinstance(found, BlocksMap), found
    return found.models[0].name


async def test_the_first_content_is_news_when_no_map_is_in_force(
    path: Path, autojump_clock: MockClock
) -> None:
    watch = MapWatch(path)
    assert await next_edit(watch) == read_blocks_map(path)
    assert await silent(watch)


async def test_the_map_in_force_is_no_news_but_an_edit_since_it_was_read_is(
    path: Path, autojump_clock: MockClock
) -> None:
    in_force = read_blocks_map(path)
    assert await silent(MapWatch(path, in_force))
    write(path, renamed("other"))
    assert model_of(await next_edit(MapWatch(path, in_force))) == "other"


async def test_an_edit_comes_out_once(path: Path, autojump_clock: MockClock) -> None:
    watch = MapWatch(path, read_blocks_map(path))
    write(path, renamed("other"))
    assert model_of(await next_edit(watch)) == "other"
    assert await silent(watch)


async def test_an_edit_of_the_same_size_and_date_is_seen(
    path: Path, autojump_clock: MockClock
) -> None:
    write(path, renamed("first"))
    before = dates(path)
    watch = MapWatch(path, read_blocks_map(path))
    assert await silent(watch)
    write(path, renamed("other"))
    os.utime(path, ns=before[1:])
    assert dates(path) == before
    assert model_of(await next_edit(watch)) == "other"


async def test_a_file_that_was_replaced_is_seen(path: Path, autojump_clock: MockClock) -> None:
    watch = MapWatch(path, read_blocks_map(path))
    write(path.with_suffix(".new"), renamed("other"))
    path.with_suffix(".new").replace(path)
    assert model_of(await next_edit(watch)) == "other"


async def test_other_white_space_is_no_edit(path: Path, autojump_clock: MockClock) -> None:
    watch = MapWatch(path, read_blocks_map(path))
    write(path, json.dumps(own_form(), indent=4) + "\n\n")
    assert await silent(watch)


async def test_a_broken_edit_comes_out_once_with_its_json_path(
    path: Path, autojump_clock: MockClock
) -> None:
    watch = MapWatch(path, read_blocks_map(path))
    data = own_form()
    data["routes"][1]["peers"] = ["nobody"]
    write(path, data)
    found = await next_edit(watch)
    assert isinstance(found, MapError)
    assert "swarm.json: routes[1].peers[0]" in found.detail
    assert await silent(watch)
    write(path, json.dumps(data, indent=1))  # touched, and wrong as before
    assert await silent(watch)


async def test_a_map_that_comes_back_after_a_broken_edit_comes_out(
    path: Path, autojump_clock: MockClock
) -> None:
    in_force = read_blocks_map(path)
    watch = MapWatch(path, in_force)
    write(path, "{")
    assert isinstance(await next_edit(watch), MapError)
    write(path, own_form())
    assert await next_edit(watch) == in_force


async def test_a_missing_file_is_an_error_and_no_end(path: Path, autojump_clock: MockClock) -> None:
    watch = MapWatch(path, read_blocks_map(path))
    remove(path)
    found = await next_edit(watch)
    assert isinstance(found, MapError)
    assert "no such file" in found.detail
    assert await silent(watch)
    write(path, renamed("other"))
    assert model_of(await next_edit(watch)) == "other"


async def test_a_file_that_is_broken_for_a_moment_is_not_reported(
    path: Path, autojump_clock: MockClock
) -> None:
    watch = MapWatch(path, read_blocks_map(path), interval_s=0.5)
    write(path, json.dumps(renamed("other"))[:40])
    with trio.move_on_after(0.7):  # one look
        await anext(watch)
        pytest.fail("half a file was reported")
    write(path, renamed("other"))
    assert model_of(await next_edit(watch)) == "other"


async def test_a_pipe_is_not_read_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert await silent(MapWatch(pipe))
