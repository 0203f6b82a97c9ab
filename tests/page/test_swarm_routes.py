from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from starlette.applications import Starlette

from gptnode.api.app import make_app
from gptnode.api.config import ApiConfig
from gptnode.api.swarm_routes import MAX_VIEWERS, routes
from tests.routing.ids import BEN

from .fakes import MAP, FakeService, edited, fake_service

SWAPPED = MAP.replace('["ben", "cleo"]', '["cleo", "ben"]')


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    return fake_service(tmp_path)


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8000"
    )


@pytest.fixture
async def client(service: FakeService) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(Starlette(routes=routes(service))) as client:
        yield client


class Viewer:
    """One who looks at the events; reads what was sent."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self.gone = trio.Event()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.text = ""

    async def run(self) -> None:
        scope = {
            "type": "http", "method": "GET", "path": "/api/swarm/events", "headers": [],
            "query_string": b"", "asgi": {"version": "3.0"},
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message["headers"])
        else:
            self.text += message["body"].decode()

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        lines = [line for line in self.text.splitlines() if line.startswith("data: ")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_a_snapshot_says_who_computes_what_and_how_they_are(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    service.log.say("ben was lost; cleo serves blocks 4-7")
    service.states[BEN] = "lost"
    response = await client.get("/api/swarm")
    assert response.headers["cache-control"] == "no-store"
    found = response.json()
    assert [(hop["label"], hop["start"], hop["stop"]) for hop in found["hops"]] == [
        ("anna", 0, 4),
        ("cleo", 4, 8),
    ]
    assert found["hops"][0]["round_trip_ms"] == 1.2
    peers = {peer["label"]: peer for peer in found["peers"]}
    assert peers["ben"]["state"] == "lost"
    assert peers["cleo"]["spans"] == [[0, 8]]
    assert peers["cleo"]["round_trip_ms"] == 1.2  # of its hop
    assert found["load"]["tokens_per_s"] == 12.3
    assert [event["text"] for event in found["events"]] == ["ben was lost; cleo serves blocks 4-7"]
    assert found["map"] == {"name": "swarm.json", "version": 1, "editable": True}


async def test_a_node_without_a_map_shows_itself_and_offers_none() -> None:
    service = FakeService(None)
    async with client_of(Starlette(routes=routes(service))) as client:
        assert (await client.get("/api/swarm")).json()["map"] is None
        assert (await client.get("/api/map")).status_code == 404


async def test_events_tell_changes_and_are_silent_between_them(
    service: FakeService, autojump_clock: trio.testing.MockClock
) -> None:
    viewer = Viewer(Starlette(routes=routes(service)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer.run)
        await trio.sleep(5)
        assert viewer.headers[b"content-type"].startswith(b"text/event-stream")
        assert len(viewer.snapshots) == 1
        assert "still here" not in viewer.text
        service.answering(1)
        # The clock of the snapshots is the machine's: let it go on.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gptnode.api.live_swarm.INTERVAL_S", 0.0)
            await trio.sleep(1)
        assert [one["load"]["answering"] for one in viewer.snapshots] == [0, 1]
        await trio.sleep(20)
        assert viewer.text.endswith(": still here\n\n")
        viewer.gone.set()


async def test_many_viewers_share_one_look(
    service: FakeService, autojump_clock: trio.testing.MockClock
) -> None:
    app = Starlette(routes=routes(service))
    viewers = [Viewer(app) for _ in range(20)]
    async with trio.open_nursery() as nursery:
        for viewer in viewers:
            nursery.start_soon(viewer.run)
        await trio.sleep(0.1)
        assert all(viewer.snapshots for viewer in viewers)
        assert service.looks <= 2
        nursery.cancel_scope.cancel()


async def test_viewers_beyond_the_limit_are_asked_to_come_back_and_those_who_left_make_room(
    service: FakeService, autojump_clock: trio.testing.MockClock
) -> None:
    app = Starlette(routes=routes(service))
    viewers = [Viewer(app) for _ in range(MAX_VIEWERS)]
    async with trio.open_nursery() as nursery:
        for viewer in viewers:
            nursery.start_soon(viewer.run)
        await trio.sleep(0.1)
        late = Viewer(app)
        await late.run()
        assert (late.status, late.headers[b"retry-after"]) == (503, b"5")
        viewers[0].gone.set()
        await trio.sleep(1)
        later = Viewer(app)
        nursery.start_soon(later.run)
        await trio.sleep(1)
        assert later.status == 200
        nursery.cancel_scope.cancel()


async def test_the_map_is_read_edited_and_the_new_route_told(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    read = await client.get("/api/map")
    body = read.json()
    assert (body["text"], body["ok"], body["name"]) == (MAP, True, "swarm.json")
    tag = read.headers["etag"]
    done = await client.put("/api/map", content=SWAPPED, headers={"if-match": tag})
    assert done.status_code == 200
    assert [hop["label"] for hop in done.json()["before"]] == ["anna", "ben"]
    assert [hop["label"] for hop in done.json()["after"]] == ["anna", "cleo"]
    assert service.map_path is not None
    assert service.map_path.read_text() == SWAPPED
    service.follow()
    again = await client.get("/api/map")
    assert again.headers["etag"] == done.headers["etag"] != tag


async def test_the_version_of_the_map_grows_when_another_one_is_in_force(
    service: FakeService, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.api.live_swarm.INTERVAL_S", 0.0)
    assert (await client.get("/api/swarm")).json()["map"]["version"] == 1
    assert service.map_path is not None
    service.map_path.write_text(SWAPPED)
    service.follow()
    assert (await client.get("/api/swarm")).json()["map"]["version"] == 2


async def test_a_wrong_map_is_refused_with_path_and_line_and_nothing_is_written(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    wrong = MAP.replace('["ben", ', '["bn", ')
    checked = await client.post("/api/map/check", content=wrong)
    assert checked.status_code == 200
    (problem,) = checked.json()["problems"]
    assert (problem["path"], problem["line"], problem["column"]) == ("routes[1].peers[0]", 10, 33)
    put = await client.put("/api/map", content=wrong, headers={"if-match": "*"})
    assert put.status_code == 422
    assert put.json()["error"]["message"].startswith("line 10: routes[1].peers[0]: no peer")
    assert put.json()["problems"] == [problem]
    assert service.map_path is not None
    assert service.map_path.read_text() == MAP


async def test_an_edit_must_say_of_which_version_it_is(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    assert (await client.put("/api/map", content=SWAPPED)).status_code == 428
    stale = await client.put("/api/map", content=SWAPPED, headers={"if-match": '"stale"'})
    assert stale.status_code == 412
    assert stale.headers["etag"] == (await client.get("/api/map")).headers["etag"]
    assert service.map_path is not None
    assert service.map_path.read_text() == MAP


async def test_bodies_that_are_too_large_or_no_text_are_refused(client: httpx.AsyncClient) -> None:
    large = await client.post("/api/map/check", content=b" " * (4 * 2**20 + 1))
    assert large.status_code == 413
    assert (await client.post("/api/map/check", content=b"\xff")).status_code == 400


async def test_a_file_that_is_gone_is_told(service: FakeService, client: httpx.AsyncClient) -> None:
    assert service.map_path is not None
    service.map_path.unlink()
    response = await client.get("/api/map")
    assert response.status_code == 409
    assert "no such file" in response.json()["error"]["message"]


async def test_a_read_only_map_can_be_looked_at_and_checked(service: FakeService) -> None:
    config = ApiConfig(read_only_map=True)
    async with client_of(make_app(service, config)) as client:  # type: ignore[arg-type]
        assert (await client.get("/api/swarm")).json()["map"]["editable"] is False
        assert (await client.get("/api/map")).json()["text"] == MAP
        assert (await client.post("/api/map/check", content=SWAPPED)).json()["ok"]
        put = await client.put("/api/map", content=SWAPPED, headers={"if-match": "*"})
        assert put.status_code == 405
    assert service.map_path is not None
    assert service.map_path.read_text() == MAP


async def test_with_a_token_the_page_is_open_and_the_swarm_is_not(service: FakeService) -> None:
    config = ApiConfig(token="t" * 32)
    async with client_of(make_app(service, config)) as client:  # type: ignore[arg-type]
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/page/app.js")).status_code == 200
        for path in ("/api/swarm", "/api/swarm/events", "/api/map"):
            assert (await client.get(path)).status_code == 401
        assert (await client.put("/api/map", content=SWAPPED)).status_code == 401
        given = {"authorization": f"Bearer {'t' * 32}"}
        assert (await client.get("/api/swarm", headers=given)).status_code == 200


async def test_what_a_map_says_comes_out_as_it_went_in(tmp_path: Path) -> None:
    def rename(data: dict[str, Any]) -> None:
        data["peers"][0]["name"] = "Ännå 🦙"
        data["routes"][0]["peers"][0] = "Ännå 🦙"

    service = fake_service(tmp_path, edited(rename))
    async with client_of(Starlette(routes=routes(service))) as client:
        assert (await client.get("/api/swarm")).json()["hops"][0]["label"] == "Ännå 🦙"
        body = (await client.get("/api/map")).json()
        place = body["orders"][0]["peers"][0]
        assert body["text"][place["start"] : place["stop"]] == '"\\u00c4nn\\u00e5 \\ud83e\\udd99"'
