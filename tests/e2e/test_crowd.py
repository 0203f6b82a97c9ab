"""Eight answers at once over real servers, one of which dies in the middle of all of them."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gptnode import Client
from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder

from .conftest import DEADLINE_S
from .test_failover import network_of

ANSWERS = 8
TOKENS = 120


def at_random(number: int) -> dict[str, Any]:
    """A long answer of no sense: another one for each number, and always the same for one."""
    return {"temperature": 100.0, "top_p": 1.0, "seed": number, "max_tokens": TOKENS}


@pytest.mark.parametrize("trouble", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_server_that_is_lost_by_eight_answers_at_once_costs_none_of_them_a_token(
    tmp_path: Path, trouble: signal.Signals
) -> None:
    model = {"name": MODEL_NAME, "path": str(bundled_model_folder())}
    told: list[str] = []
    begun = threading.Semaphore(0)
    with (
        network_of(tmp_path, model, ("0-3", "4-7"), []) as network,
        Client(
            map=network.map_path, identity=network.key("chat"), threads=1, report=told.append
        ) as client,
    ):
        prompts = [f"Count to {number}" for number in range(ANSWERS)]
        alone = [
            client.complete(prompt, **at_random(number)).text
            for number, prompt in enumerate(prompts)
        ]

        def ask(number: int) -> str:
            with client.stream_completion(prompts[number], **at_random(number)) as stream:
                pieces = [next(stream)]
                begun.release()
                pieces += stream
            assert "".join(pieces) == stream.reply.text
            return stream.reply.text

        with ThreadPoolExecutor(ANSWERS) as pool:
            asked = [pool.submit(ask, number) for number in range(ANSWERS)]
            for _ in range(ANSWERS // 2):
                assert begun.acquire(timeout=DEADLINE_S)
            network.servers["ben"].send_signal(trouble)
            assert [each.result(DEADLINE_S) for each in asked] == alone
        assert {hop.label for hop in client.hops()} == {"anna", "cleo"}
        assert len([line for line in told if "cleo serves" in line]) <= 2
        network.servers["ben"].send_signal(signal.SIGKILL)
