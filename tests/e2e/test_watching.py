"""Real servers, watched from outside: their pages, a chat's trace, `gptnode top` in a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.demo.layout import ServerPlace, SwarmLayout, lay_out_swarm
from gptnode.node import metric_catalogue as names
from gptnode.node.metric_catalogue import CATALOGUE, Described
from gptnode.node.status_file import read_status

from .conftest import DEADLINE_S, environment, gptnode

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[ -/]*[0-~])")
GREEDY = ("--temperature", "0", "--max-tokens", "24")


class Watched:
    """Two servers, each with half of the bundled model and with pages."""

    def __init__(self, layout: SwarmLayout) -> None:
        self.layout = layout
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, place: ServerPlace, stack: ExitStack) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "gptnode", "serve", "--map", str(self.layout.map_path),
             "--identity", str(place.identity_path), "--threads", "1",
             "--metrics", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
        )  # fmt: skip
        stack.enter_context(process)
        stack.callback(process.kill)
        self.processes[place.name] = process

    def url(self, place: ServerPlace) -> str:
        found = read_status(place.identity_path)["metrics"]
        assert isinstance(found, str)
        return found

    def value(
        self, place: ServerPlace, metric: Described, suffix: str = "", **labels: str
    ) -> float:
        with urlopen(self.url(place), timeout=DEADLINE_S) as page:
            text = page.read().decode()
        samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric.name + suffix and labels.items() <= sample.labels.items()
        ]
        return sum(sample.value for sample in samples)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    servers = Watched(lay_out_swarm(folder, 2, MODEL_NAME, bundled_model_folder()))
    with ExitStack() as stack:
        for place in servers.layout.servers:
            servers.start(place, stack)
        for process in servers.processes.values():
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready ")
        yield servers


def chat(watched: Watched, *more: str | Path) -> dict[str, object]:
    return gptnode(
        *("chat", "--map", watched.layout.map_path),
        *("--identity", watched.layout.client_identity_path),
        *("--prompt", "What is a BlocksMap?", "--json", *GREEDY, *more),
    ).answer


def test_a_servers_page_is_one_that_prometheus_reads_and_counts_what_a_chat_did(
    watched: Watched,
) -> None:
    before = {
        place.name: watched.value(place, names.SERVER_TOKENS) for place in watched.layout.servers
    }
    answer = chat(watched, "--no-speculation")
    tokens = len(answer["ids"]) + int(str(answer["prompt_tokens"]))  # type: ignore[arg-type]
    for place in watched.layout.servers:
        # The last token is sampled and not computed with.
        assert watched.value(place, names.SERVER_TOKENS) - before[place.name] == tokens - 1
        assert watched.value(place, names.SESSIONS_OPENED, model=MODEL_NAME) >= 1
        assert watched.value(place, names.SERVER_STEP_SECONDS, "_count", part="compute") > 0
        assert watched.value(place, names.READY) == 1
        assert watched.value(place, names.NODE_INFO, peer_id=place.peer_id) == 1
        with urlopen(watched.url(place), timeout=DEADLINE_S) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        known = {metric.name.removesuffix("_total") for metric in CATALOGUE}
        own = {f.name for f in families if f.name.startswith("gptnode_")}
        assert {name for name in own if not name.endswith("_created")} <= known


def test_a_client_that_is_not_in_the_map_is_counted_at_the_door(
    watched: Watched, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.key"
    assert gptnode("id", "--identity", stranger).code == 0
    refused = gptnode(
        *("chat", "--map", watched.layout.map_path, "--identity", stranger),
        *("--prompt", "Hello.", "--wait-s", "0", *GREEDY),
    )
    assert refused.code != 0
    assert sum(watched.value(place, names.REFUSED_PEERS) for place in watched.layout.servers) >= 1


def test_a_chat_over_two_peers_leaves_one_trace_with_a_span_for_each_hop(
    watched: Watched, tmp_path: Path
) -> None:
    path = tmp_path / "traces.jsonl"
    chat(watched, "--traces", path)
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    hops = [span["name"] for span in spans if span["name"].startswith("hop ")]
    assert sorted(hops) == sorted(2 * [f"hop {s.name} {s.span}" for s in watched.layout.servers])
    (root,) = (span for span in spans if span["parent_id"] is None)
    assert root["name"] == f"answer {MODEL_NAME}"


def test_top_shows_every_peer_from_any_machine_of_the_map_and_the_numbers_of_those_named(
    watched: Watched,
) -> None:
    anna, ben = watched.layout.servers
    done = gptnode(
        *("top", "--once", "--json", "--map", watched.layout.map_path, "--interval", "0.2"),
        *("--identity", watched.layout.client_identity_path, "--from", watched.url(ben)),
    )
    assert done.code == 0, done.err
    shown = {peer["label"]: peer for peer in json.loads(done.out)["peers"]}
    assert (shown[anna.name]["state"], shown[anna.name]["sessions"]) == ("reachable", None)
    assert (shown[ben.name]["state"], shown[ben.name]["sessions"]) == ("serving", 0)
    assert shown[ben.name]["tokens_per_s"] == 0
    for place in (anna, ben):
        assert shown[place.name]["blocks"] == str(place.span)
        assert 0 < shown[place.name]["round_trip_s"] < 1


def test_top_on_a_servers_own_machine_needs_no_options_but_its_identity(watched: Watched) -> None:
    anna, ben = watched.layout.servers
    done = gptnode("top", "--once", "--identity", anna.identity_path, "--interval", "0.2")
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.strip().startswith(anna.name))
    assert "serving" in line
    assert "0.0" in line  # its metrics are found through its status
    assert ben.name in done.out


@pytest.mark.skipif(os.name != "posix", reason="needs a pty")
@pytest.mark.parametrize("end", ["q", "\x03", signal.SIGTERM])
def test_top_is_live_in_a_terminal_and_leaves_it_as_it_was(
    watched: Watched, end: str | signal.Signals
) -> None:
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 110, 0, 0))
    modes = termios.tcgetattr(terminal)
    command = [
        *(sys.executable, "-m", "gptnode", "top", "--map", str(watched.layout.map_path)),
        *("--identity", str(watched.layout.client_identity_path), "--interval", "0.2"),
    ]
    raw = b""
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal,
        env=environment(TERM="xterm-256color"), start_new_session=True,
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + DEADLINE_S
            while ESCAPES.sub("", raw.decode("utf-8", "replace")).count("● reachable") < 6:
                assert time.monotonic() < deadline, raw[-2000:]
                if select.select([screen], [], [], 0.05)[0]:
                    raw += os.read(screen, 65536)
            if isinstance(end, str):
                os.write(screen, end.encode())
            else:
                process.send_signal(end)
            while process.poll() is None:
                assert time.monotonic() < deadline, raw[-2000:]
                if select.select([screen], [], [], 0.05)[0]:
                    raw += os.read(screen, 65536)
            while select.select([screen], [], [], 0.2)[0]:
                raw += os.read(screen, 65536)
            assert process.returncode == (0 if isinstance(end, str) else 143)
            assert termios.tcgetattr(terminal) == modes
        finally:
            process.kill()
            os.close(screen)
            os.close(terminal)
    text = raw.decode("utf-8", "replace")
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert text.rindex("\x1b[?1049l") > text.rindex("reachable")
    assert "q to leave" in text


def test_a_server_that_is_told_to_end_says_that_it_leaves_or_is_gone_and_top_shows_it_down(
    watched: Watched,
) -> None:
    place = watched.layout.servers[-1]
    url = watched.url(place).replace("/metrics", "/readyz")
    with urlopen(url, timeout=DEADLINE_S) as page:
        assert page.status == 200
    watched.processes[place.name].send_signal(signal.SIGTERM)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        assert time.monotonic() < deadline
        try:
            with urlopen(url, timeout=DEADLINE_S):
                continue
        except HTTPError as error:
            assert error.code == 503
            assert b"leaving" in error.read()
        except OSError:  # refused, or cut off in the middle
            break
    assert watched.processes[place.name].wait(DEADLINE_S) == 0
    done = gptnode(
        *("top", "--once", "--map", watched.layout.map_path, "--interval", "0.1"),
        *("--identity", watched.layout.client_identity_path),
    )
    assert "✗ down" in done.out
    assert "1 of 2 peers up" in done.out
