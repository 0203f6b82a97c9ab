"""The Python client over two real servers: from threads, asyncio and trio; and its page."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio

from gptnode import AsyncClient, Client
from gptnode.client import ServiceLimits
from gptnode.demo.swarm import LocalSwarm
from gptnode.errors import ContextError, MapError, ServiceBusyError, UsageError
from gptnode.node.status_file import read_status

from .conftest import DEADLINE_S, environment

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-from-python.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
ENDLESS: Any = {"prompt": "Once upon", "temperature": 100.0, "top_p": 1.0, "seed": 1}
"""Tokens at random, until the context is full: the small model's own answers are short."""
FREED_WITHIN_S = 1.0
LOOKED_AT_EVERY_S = 0.5


def over(swarm: LocalSwarm) -> dict[str, str]:
    return {"map": str(swarm.map_path), "identity": str(swarm.client_identity_path)}


@pytest.fixture(scope="module")
def client(two_servers: LocalSwarm) -> Iterator[Client]:
    with Client(**over(two_servers), threads=1) as client:  # type: ignore[arg-type]
        yield client


def sessions(swarm: LocalSwarm) -> list[int]:
    statuses = [read_status(server.place.identity_path) for server in swarm.servers]
    return [int(status["lent"]["sessions"]) for status in statuses]


def settled(swarm: LocalSwarm) -> list[int]:
    """The sessions that stay: others may just have ended."""
    before = sessions(swarm)
    while True:
        time.sleep(3 * LOOKED_AT_EVERY_S)
        now = sessions(swarm)
        if now == before:
            return now
        before = now


def within(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_question_is_answered(client: Client) -> None:
    reply = client.chat("Count to 5", temperature=0)
    assert str(reply) == reply.text == "1, 2, 3, 4, 5."
    assert reply.finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_conversation_finds_its_beginning_in_the_caches(client: Client) -> None:
    messages = [{"role": "user", "content": "Which colour is the sky?"}]
    first = client.chat(messages, temperature=0)
    messages += [
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And the grass?"},
    ]
    second = client.chat(messages, temperature=0, max_tokens=20)
    assert second.usage.reused_tokens >= first.usage.prompt_tokens


def test_a_stream_is_the_answer_piece_by_piece(client: Client) -> None:
    with client.stream("Count to 9", temperature=0) as stream:
        with pytest.raises(UsageError, match="isn't complete"):
            _ = stream.reply
        pieces = list(stream)
    assert len(pieces) > 3
    assert "".join(pieces) == stream.reply.text == client.chat("Count to 9", temperature=0).text


def test_settings_reach_the_sampler(client: Client) -> None:
    story = "Tell me a story"
    settings = {"temperature": 1.0, "seed": 7, "max_tokens": 20}
    first = client.chat(story, **settings)  # type: ignore[arg-type]
    assert first.text == client.chat(story, **settings).text  # type: ignore[arg-type]
    assert (first.finish_reason, first.usage.completion_tokens) == ("length", 20)
    reply = client.chat("Count to 9", temperature=0, stop="4", top_logprobs=2)
    assert reply.text == "1, 2, 3, "
    assert len(reply.logprobs) == reply.usage.completion_tokens
    assert all(len(found.top) == 2 and found.logprob <= 0 for found in reply.logprobs)
    completion = client.complete("Count to", max_tokens=3, temperature=0)
    assert completion.usage.completion_tokens == 3


def test_threads_share_a_client_and_each_has_its_own_answer(client: Client) -> None:
    alone = {n: client.chat(f"Count to {n}", temperature=0).text for n in range(2, 10)}
    with ThreadPoolExecutor(8) as pool:
        asked = {n: pool.submit(client.chat, f"Count to {n}", temperature=0) for n in alone}
        assert {n: reply.result().text for n, reply in asked.items()} == alone
    assert client.load().answering == 0


def test_closing_a_stream_early_frees_the_caches_of_every_peer(two_servers: LocalSwarm) -> None:
    before = settled(two_servers)
    with Client(**over(two_servers), threads=1, limits=ServiceLimits(max_idle=0)) as client:
        with client.stream_completion(**ENDLESS) as stream:
            next(stream)
            assert within(DEADLINE_S, lambda: sessions(two_servers) == [n + 1 for n in before])
        assert within(FREED_WITHIN_S + LOOKED_AT_EVERY_S, lambda: sessions(two_servers) == before)
        stream = client.stream_completion(**ENDLESS)
        next(stream)
        del stream  # nobody can read it any more
        gc.collect()
        assert within(DEADLINE_S, lambda: client.load().answering == 0)


def test_errors_are_gptnodes_own_and_the_client_goes_on(
    client: Client, two_servers: LocalSwarm, tmp_path: Path
) -> None:
    with pytest.raises(ContextError):
        client.chat("word " * 50_000)
    with pytest.raises(UsageError, match=r"messages\[1\]"):
        client.chat([{"role": "user", "content": "Hi"}, {"role": "king", "content": "Hi"}])
    with pytest.raises(UsageError, match="temperature"):
        client.chat("Hi", temperature=-1)
    assert client.chat("Count to 3", temperature=0).text == "1, 2, 3."
    with pytest.raises(MapError):
        Client(map=tmp_path / "none.json", identity=two_servers.client_identity_path)
    with pytest.raises(UsageError, match="identity"):
        Client(map=two_servers.map_path)
    with pytest.raises(UsageError, match="model_dir"):
        Client()


def test_more_than_may_wait_are_refused(two_servers: LocalSwarm) -> None:
    limits = ServiceLimits(max_contexts=1, max_waiting=0)
    with (
        Client(**over(two_servers), threads=1, limits=limits) as client,
        client.stream_completion(**ENDLESS) as stream,
    ):
        next(stream)
        with pytest.raises(ServiceBusyError) as caught:
            client.chat("Hi")
        assert caught.value.retry_after_s >= 1


def test_a_closed_client_says_so_to_everybody(two_servers: LocalSwarm) -> None:
    client = Client(**over(two_servers), threads=1)
    stream = client.stream_completion(**ENDLESS)
    next(stream)
    told: list[BaseException] = []

    def read() -> None:
        try:
            for _ in stream:
                pass
        except UsageError as error:
            told.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    client.close()
    reader.join(DEADLINE_S)
    assert "closed" in str(told[0])
    with pytest.raises(UsageError, match="closed"):
        client.chat("Hi")
    client.close()


def test_peers_and_route_are_shown(client: Client) -> None:
    client.chat("Count to 2", temperature=0)
    assert [peer.state for peer in client.peers()] == ["connected", "connected"]
    assert [str(hop.span) for hop in client.hops()] == ["0-3", "4-7"]
    client.reload()


def test_asyncio_asks_several_at_once_and_cancels(two_servers: LocalSwarm) -> None:
    async def main() -> None:
        async with AsyncClient(**over(two_servers), threads=1) as client:
            asked = [client.chat(f"Count to {n}", temperature=0) for n in range(2, 6)]
            texts = [reply.text for reply in await asyncio.gather(*asked)]
            assert texts == ["1, 2.", "1, 2, 3.", "1, 2, 3, 4.", "1, 2, 3, 4, 5."]
            async with client.stream("Count to 9", temperature=0) as stream:
                pieces = [piece async for piece in stream]
            assert "".join(pieces) == stream.reply.text
            with pytest.raises(TimeoutError):
                long = client.complete(**ENDLESS)
                await asyncio.wait_for(long, 0.5)
            while (await client.load()).answering:  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


async def test_trio_asks_several_at_once_and_cancels(two_servers: LocalSwarm) -> None:
    texts: dict[int, str] = {}

    async def ask(client: AsyncClient, number: int) -> None:
        texts[number] = (await client.chat(f"Count to {number}", temperature=0)).text

    with trio.fail_after(DEADLINE_S):
        async with AsyncClient(**over(two_servers), threads=1) as client:
            async with trio.open_nursery() as crowd:
                for number in (2, 3):
                    crowd.start_soon(ask, client, number)
            assert texts == {2: "1, 2.", 3: "1, 2, 3."}
            with trio.move_on_after(0.5) as scope:
                await client.complete(**ENDLESS)
            assert scope.cancelled_caught
            while (await client.load()).answering:  # noqa: ASYNC110 (it has no event)
                await trio.sleep(0.02)
            with pytest.raises(ContextError):
                await client.chat("word " * 50_000)


def test_ctrl_c_leaves_nothing_behind(two_servers: LocalSwarm, tmp_path: Path) -> None:
    before = settled(two_servers)
    program = f"""
import sys
from gptnode import Client
with Client(map={str(two_servers.map_path)!r}, identity={str(two_servers.client_identity_path)!r},
            threads=1) as client:
    for piece in client.stream_completion(**{ENDLESS!r}):
        print(piece, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert err.strip().endswith("KeyboardInterrupt")
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert within(FREED_WITHIN_S + LOOKED_AT_EVERY_S, lambda: sessions(two_servers) == before)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_page_run(two_servers: LocalSwarm, tmp_path: Path, number: int) -> None:
    shutil.copy(two_servers.client_identity_path, tmp_path / "laptop.key")
    (tmp_path / "laptop.key").chmod(0o600)
    (tmp_path / "swarm.json").write_text(two_servers.map_path.read_text())
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not done.stderr.strip()


def test_importing_gptnode_loads_no_torch() -> None:
    program = "import sys, gptnode; gptnode.Client; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.lower()) is False
