"""`gptnode batch` over a swarm of real processes, killed and started again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gptnode.demo.bundled import MODEL_NAME
from gptnode.demo.swarm import LocalSwarm

from .conftest import DEADLINE_S, environment, gptnode

QUESTIONS = 60


def request(number: int, **body: Any) -> dict[str, Any]:
    """A question, greedily answered."""
    return {
        "custom_id": f"question-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": f"Count to {number % 9 + 2}"}],
            "temperature": 0,
            "max_tokens": 60,
            **body,
        },
    }


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(request(n)) + "\n" for n in range(QUESTIONS)))
    return path


def over(swarm: LocalSwarm, questions: Path, out: Path) -> list[str]:
    return [
        *("batch", str(questions), str(out)),
        *("--map", str(swarm.map_path), "--identity", str(swarm.client_identity_path)),
        *("--concurrency", "4", "--json"),
    ]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_that_was_killed_goes_on_and_ends_as_if_nothing_had_happened(
    two_servers: LocalSwarm, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    partial = tmp_path / "answers.jsonl.partial"
    command = [sys.executable, "-m", "gptnode", *over(two_servers, questions, out)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + DEADLINE_S
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not out.exists()
    kept = partial.read_bytes().count(b"\n")
    with partial.open("ab") as file:
        file.write(b'{"line": 60, "digest": "00')  # as a crash in the middle of a write leaves it
    done = gptnode(*over(two_servers, questions, out))
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert (summary["requests"], summary["answered"], summary["failed"]) == (QUESTIONS,) * 2 + (0,)
    assert kept <= summary["done_before"] < QUESTIONS
    results = lines_of(out)
    assert [result["custom_id"] for result in results] == [
        f"question-{number}" for number in range(QUESTIONS)
    ]
    texts = [result["response"]["body"]["choices"][0]["message"]["content"] for result in results]
    assert texts == [texts[number % 9] for number in range(QUESTIONS)], "as if each were alone"
    assert len(set(texts)) == 9
    assert not partial.exists()


def test_a_request_that_is_wrong_costs_no_other_and_tells_why(
    two_servers: LocalSwarm, tmp_path: Path
) -> None:
    questions, out = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    completion = {
        "custom_id": "completion",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": MODEL_NAME, "prompt": "Once", "max_tokens": 4, "n": 2},
    }
    lines = [
        json.dumps(request(1)),
        "{broken",
        json.dumps(request(2, temperature=-1)),
        json.dumps({**request(3), "url": "/v1/images"}),
        json.dumps(request(4, model="another")),
        json.dumps(completion),
    ]
    questions.write_text("\n".join(lines))
    done = gptnode(*over(two_servers, questions, out))
    assert done.code == 1, done.err
    assert json.loads(done.out)["failed"] == 4
    results = lines_of(out)
    statuses = [result["response"]["status_code"] for result in results]
    assert statuses == [200, 400, 400, 404, 404, 200]
    assert [result["error"] is None for result in results] == [status == 200 for status in statuses]
    assert results[2]["response"]["body"]["error"]["param"] == "temperature"
    assert len(results[5]["response"]["body"]["choices"]) == 2


def test_without_peers_the_batch_stops_and_keeps_what_it_has(
    two_servers: LocalSwarm, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    text = two_servers.map_path.read_text()
    lonely = tmp_path / "map.json"
    data = json.loads(text)
    for peer in data["peers"]:
        peer["addrs"] = ["/ip4/127.0.0.1/tcp/9"]
    lonely.write_text(json.dumps(data))
    command = over(two_servers, questions, out)
    command[command.index("--map") + 1] = str(lonely)
    done = gptnode(*command, "--wait-s", "0")
    assert done.code in (7, 9)
    assert "0 of 60 requests are done and kept" in done.err
    assert not out.exists()


def test_a_batch_can_be_watched_by_metrics_and_traces(
    two_servers: LocalSwarm, tmp_path: Path
) -> None:
    questions, out, traces = tmp_path / "q.jsonl", tmp_path / "a.jsonl", tmp_path / "t.jsonl"
    questions.write_text("".join(json.dumps(request(n)) + "\n" for n in range(2)))
    watched = ("--metrics", "127.0.0.1:0", "--traces", traces)
    done = gptnode(*over(two_servers, questions, out), *watched)
    assert done.code == 0, done.err
    assert "metrics at http://127.0.0.1:" in done.err
    assert sum("answer" in span["name"].split() for span in lines_of(traces)) == 2
