"""A tiny real model with a byte tokenizer, and a client that answers what a test tells it to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers

from gptnode.cli.render import Screen
from gptnode.cli.session import ChatSession
from gptnode.cli.settings import ChatSettings
from gptnode.errors import GptNodeError
from gptnode.node.answer import Answer, AnswerSettings
from gptnode.node.client import Client
from gptnode.node.swarm import HopView, PeerView
from gptnode.node.verify import VerifyTally
from gptnode.span import Span
from gptnode.text.template import load_template
from gptnode.text.tokenizer import Tokenizer
from tests.tiny_llama import write_tiny_llama

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tokenizer(folder: Path) -> int:
    """A tokenizer with one token a byte and ChatML's specials; the size of its vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = HfTokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "bos_token": None, "chat_template": CHATML})
    )
    return tokenizer.get_vocab_size()


def write_model(folder: Path, *, n_blocks: int = 4) -> Path:
    """A random Llama over that tokenizer; greedy unless asked otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(folder)
    write_tiny_llama(
        folder, vocab_size, n_blocks=n_blocks, eos_id=vocab_size - 1, max_positions=2048
    )
    (folder / "generation_config.json").write_text('{"do_sample": false}')
    return folder


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


HANG = object()
"""In a script: the answer waits for ever."""


class ScriptedAnswering:
    """Yields the pieces of a script; raises the errors in it."""

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: int, script: Sequence[object]) -> None:
        self._tokenizer = tokenizer
        self._prompt_tokens = prompt_tokens
        self._script = list(script)
        self._text = ""
        self._ended = False

    def __aiter__(self) -> ScriptedAnswering:
        return self

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        if not self._script:
            self._ended = True
            raise StopAsyncIteration
        step = self._script.pop(0)
        if step is HANG:
            await trio.sleep_forever()
        if isinstance(step, GptNodeError):
            raise step
        assert isinstance(step, str)
        self._text += step
        return step

    def result(self) -> Answer:
        ids = tuple(self._tokenizer.encode(self._text + "<|im_end|>" * self._ended))
        reason = "end" if self._ended else "cancelled"
        return Answer(self._text, ids, self._prompt_tokens, len(ids), reason, 0.5, len(ids) / 10)


class ScriptedClient:
    """What a `Client` is to a chat; its answers are ``scripts``, one after the other."""

    model_name = "tiny"
    fingerprint = "0123456789abcdef" * 2
    context_limit_tokens = 1000
    default_stop = ("<|im_end|>",)
    prefilled_tokens = 0
    peer_id = None
    blocks_map = None
    verified: VerifyTally | None = None
    guesses: tuple[int, int] | None = None
    drafted: tuple[int, int] | None = None

    def __init__(self, folder: Path) -> None:
        self._words = HfTokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer = Tokenizer.from_folder(folder)
        self.template = load_template(folder, self.tokenizer, None)
        self.model_config = SimpleNamespace(n_blocks=8, vocab_size=self.tokenizer.vocab_size)
        self.scripts: list[Sequence[object]] = []
        self.prompts: list[str] = []
        self.asked: list[AnswerSettings] = []
        self.calls: list[object] = []
        self.failure: GptNodeError | None = None
        self.hop_views = (HopView("this node", None, Span(0, 8), "local", None, ()),)
        self.peer_views: tuple[PeerView, ...] = ()

    def text(self, ids: Sequence[int]) -> str:
        """The text of some ids, specials and all."""
        return str(self._words.decode(list(ids), skip_special_tokens=False))

    def answer(self, ids: Sequence[int], settings: AnswerSettings) -> ScriptedAnswering:
        self.prompts.append(self.text(ids))
        self.asked.append(settings)
        return ScriptedAnswering(self.tokenizer, len(ids), self.scripts.pop(0))

    def hops(self) -> tuple[HopView, ...]:
        return self.hop_views

    def peers(self) -> tuple[PeerView, ...]:
        return self.peer_views

    async def _call(self, *call: object) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.calls.append(call)

    async def connect(self, peer_id: str, addr: str) -> None:
        await self._call("connect", peer_id, addr)

    async def reload(self) -> None:
        await self._call("reload")

    async def forget(self) -> None:
        await self._call("forget")


@pytest.fixture
def client(model_dir: Path) -> ScriptedClient:
    """A client whose answers are scripted."""
    return ScriptedClient(model_dir)


@pytest.fixture
def session(client: ScriptedClient) -> ChatSession:
    """A chat over it."""
    return ChatSession(cast(Client, client), ChatSettings())


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal() -> Terminal:
    """What a person would see, as text with escape sequences."""
    return Terminal()


@pytest.fixture
def screen(terminal: Terminal) -> Screen:
    """An interactive screen without colour on ``terminal``."""
    return Screen(terminal, terminal, colour=False)


@pytest.fixture
def ask(session: ChatSession, client: ScriptedClient) -> Callable[..., object]:
    """Asks one question that is answered with the given pieces; returns what was shown."""

    async def ask_and_show(question: str, *script: object) -> str:
        client.scripts.append(script)
        shown: list[str] = []
        await session.ask(question, shown.append)
        return "".join(shown)

    return ask_and_show


@pytest.fixture
def hang() -> object:
    """In a script: the answer waits for ever."""
    return HANG
