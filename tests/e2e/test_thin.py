"""A client with nothing but a tokenizer, over real processes that have embedding and head."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder

from .conftest import DEADLINE_S, environment, gptnode
from .test_failover import NAMES, Network, free_ports

TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
SAMPLED = [
    *("--temperature", "0.9", "--top-k", "50", "--top-p", "0.9", "--min-p", "0.01"),
    *("--repetition-penalty", "1.1", "--seed", "5"),
]


@dataclass
class ThinNetwork(Network):
    """A network whose servers and client have maps of their own: other folders, the same model."""

    thin_folder: Path = Path()

    @property
    def client_map(self) -> Path:
        return self.folder / "client.json"

    def write_map(self, first: list[str], second: list[str]) -> None:
        """The servers' map, with the ends on peers, and the client's with another folder."""
        super().write_map(first, second)
        document: dict[str, Any] = json.loads(self.map_path.read_text())
        document["routes"][0]["embed"] = document["routes"][1]["head"] = True
        self.map_path.write_text(json.dumps(document))
        document["models"][0]["path"] = str(self.thin_folder)
        self.client_map.write_text(json.dumps(document))

    def chat(self, *more: str) -> list[str]:
        return [
            *("chat", "--map", str(self.client_map), "--identity", str(self.key("chat"))),
            *("--threads", "1", *self.prompt, *more),
        ]


@pytest.fixture
def thin(tmp_path: Path) -> Iterator[ThinNetwork]:
    """anna has embedding and first half, ben and cleo the second half and the head."""
    folder, fat = tmp_path / "tokenizer-only", bundled_model_folder()
    folder.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(fat / name, folder)
    done = gptnode("fingerprint", fat)
    model = {"name": MODEL_NAME, "path": str(fat), "fingerprint": done.out.strip()}
    with ExitStack() as stack, free_ports(len(NAMES)) as ports:
        network = ThinNetwork(
            tmp_path, model, ("0-3", "4-7"), ["--prompt", "Tell me a story."], stack,
            thin_folder=folder,
        )  # fmt: skip
        for name in (*NAMES, "chat"):
            named = gptnode("id", "--identity", network.key(name), "--json")
            network.ids[name] = json.loads(named.out)["peer_id"]
        for name, port in zip(NAMES, ports, strict=True):
            network.addrs[name] = f"/ip4/127.0.0.1/tcp/{port}"
        network.write_map(["anna"], ["ben", "cleo"])
        network.start(*NAMES)
        yield network


def on_one_machine(*options: str) -> str:
    done = gptnode(
        *("chat", "--model-dir", bundled_model_folder(), "--threads", "1"),
        *("--prompt", "Tell me a story.", *options),
    )
    assert done.code == 0, done.err
    return done.out


def test_a_folder_without_weights_is_enough_and_the_tokens_are_the_same(thin: ThinNetwork) -> None:
    for options in (["--temperature", "0"], SAMPLED, [*SAMPLED, "--star"]):
        done = gptnode(*thin.chat(*options))
        assert done.code == 0, done.err
        assert done.out == on_one_machine(*(one for one in options if one != "--star"))
    refused = gptnode(*thin.chat("--verify", "0.5"))
    assert refused.code == 2
    assert "takes both on this node" in refused.err
    assert not list(thin.thin_folder.glob("*.safetensors"))


@pytest.mark.parametrize("options", [["--temperature", "0"], SAMPLED], ids=["greedy", "sampled"])
def test_the_peer_with_the_head_is_killed_mid_answer_and_no_token_is_another(
    thin: ThinNetwork, options: list[str]
) -> None:
    expected = on_one_machine(*options)
    thin.prompt += options
    assert thin.disturbed(lambda: thin.servers["ben"].send_signal(signal.SIGKILL)) == expected
    (line,) = [line for line in thin.said().splitlines() if "ben (blocks 4-7): " in line]
    assert line.endswith("; cleo serves blocks 4-7")


def test_a_chat_that_could_load_weights_maps_none(thin: ThinNetwork) -> None:
    """With the servers' own map, whose folder has them all."""
    chat = subprocess.Popen(
        [sys.executable, "-m", "gptnode", "chat", "--map", str(thin.map_path), "--identity",
         str(thin.key("chat")), *thin.prompt, "--temperature", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    looks, mapped = 0, set[str]()
    deadline_s = time.monotonic() + DEADLINE_S
    with chat:
        while chat.poll() is None and time.monotonic() < deadline_s:
            try:
                paths = [one.path for one in psutil.Process(chat.pid).memory_maps()]
            except psutil.Error:
                break  # it has ended meanwhile
            looks += any("libtorch" in path for path in paths)
            mapped |= {path for path in paths if path.endswith(".safetensors")}
            time.sleep(0.02)
        assert chat.wait(DEADLINE_S) == 0
    assert looks > 5
    assert mapped == set()
