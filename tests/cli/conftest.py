"""A tiny real model with a byte tokenizer, and a client that answers what a test tells it to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import trio
from safetensors.torch import save_file
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers

from gptnode.cli.render import Screen
from gptnode.cli.session import ChatSession
from gptnode.cli.settings import ChatSettings
from gptnode.errors import GptNodeError
from gptnode.node.answer import Answer, AnswerSettings
from gptnode.node.client import Client
from gptnode.node.swarm import HopView, PeerView
from gptnode.span import Span
from gptnode.text.template import load_template
from gptnode.text.tokenizer import Tokenizer

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
    """A random Llama in f32 over that tokenizer; greedy unless asked otherwise."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    folder.mkdir(parents=True, exist_ok=True)
    vocab, d_model, d_ff, kv_width = write_tokenizer(folder), 32, 48, 16
    tensors = {
        "model.embed_tokens.weight": random(vocab, d_model),
        "model.norm.weight": torch.ones(d_model),
        "lm_head.weight": random(vocab, d_model),
    }
    for block in range(n_blocks):
        prefix = f"model.layers.{block}."
        tensors |= {
            prefix + "input_layernorm.weight": torch.ones(d_model),
            prefix + "post_attention_layernorm.weight": torch.ones(d_model),
            prefix + "self_attn.q_proj.weight": random(d_model, d_model),
            prefix + "self_attn.k_proj.weight": random(kv_width, d_model),
            prefix + "self_attn.v_proj.weight": random(kv_width, d_model),
            prefix + "self_attn.o_proj.weight": random(d_model, d_model),
            prefix + "mlp.gate_proj.weight": random(d_ff, d_model),
            prefix + "mlp.up_proj.weight": random(d_ff, d_model),
            prefix + "mlp.down_proj.weight": random(d_model, d_ff),
        }
    save_file(tensors, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": d_model,
        "intermediate_size": d_ff,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocab,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": vocab - 1,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
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
