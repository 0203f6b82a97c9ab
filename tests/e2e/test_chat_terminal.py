"""`gptnode chat` as a process of its own on a pseudo-terminal, with a person's keys."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.name != "posix", reason="needs a pty")]

PATIENCE_S = 60
ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[ -/]*[0-~])")


def write_model(folder: Path) -> Path:
    """A random Llama, deep enough to take seconds for a whole context, that never ends a turn."""
    folder.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    vocab, d_model, d_ff, n_blocks = tokenizer.get_vocab_size(), 32, 48, 16
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    head = random(vocab, d_model)
    head[-2:] = 0  # a logit of 0 is never the greatest: no special token is ever sampled
    tensors = {
        "model.embed_tokens.weight": random(vocab, d_model),
        "model.norm.weight": torch.ones(d_model),
        "lm_head.weight": head,
    }
    for block in range(n_blocks):
        prefix = f"model.layers.{block}."
        shapes = {
            "self_attn.q_proj": (d_model, d_model),
            "self_attn.k_proj": (d_model, d_model),
            "self_attn.v_proj": (d_model, d_model),
            "self_attn.o_proj": (d_model, d_model),
            "mlp.gate_proj": (d_ff, d_model),
            "mlp.up_proj": (d_ff, d_model),
            "mlp.down_proj": (d_model, d_ff),
        }
        tensors |= {f"{prefix}{name}.weight": random(*shape) for name, shape in shapes.items()}
        tensors[f"{prefix}input_layernorm.weight"] = torch.ones(d_model)
        tensors[f"{prefix}post_attention_layernorm.weight"] = torch.ones(d_model)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": d_model,
        "intermediate_size": d_ff,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": vocab,
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "eos_token_id": vocab - 1,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (folder / "generation_config.json").write_text('{"do_sample": false}')
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "endless")


class TerminalChat:
    """The process and its terminal."""

    def __init__(self, model_dir: Path, state: Path) -> None:
        self.screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.modes_before = termios.tcgetattr(terminal)
        self.terminal = terminal
        self.seen = ""
        environment = {
            **os.environ,
            "TERM": "xterm-256color",
            "XDG_STATE_HOME": str(state),
            "OMP_NUM_THREADS": "1",
        }
        code = "from gptnode.cli.main import main; main()"
        options = ["--model-dir", str(model_dir), "--threads", "1", "--context-tokens", "16000"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "chat", *options],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> TerminalChat:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.screen)
        os.close(self.terminal)

    def type(self, keys: str) -> None:
        """Keys as a terminal sends them; what was seen before is forgotten."""
        self.seen = ""
        os.write(self.screen, keys.encode())

    def wait_for(self, *texts: str) -> str:
        """Reads until all of the texts have been seen, in any order, since the last `type`."""
        self._read_until(lambda: all(text in self.seen for text in texts), repr(texts))
        return self.seen

    def wait_for_text(self, n_chars: int) -> None:
        """Reads until that much has been seen."""
        self._read_until(lambda: len(self.seen) >= n_chars, f"{n_chars} characters")

    def wait_for_end(self) -> int:
        """The exit code."""
        self._read_until(lambda: self.process.poll() is not None, "the end")
        return self.process.wait()

    def _read_until(self, condition: Callable[[], bool], wanted: str) -> None:
        """Reads as a terminal does: it says where its cursor is, if asked."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited for {wanted}, saw {self.seen[-2000:]!r}"
            if not select.select([self.screen], [], [], 0.05)[0]:
                continue
            data = os.read(self.screen, 65536)
            if b"\x1b[6n" in data:
                os.write(self.screen, b"\x1b[1;1R")
            self.seen += ESCAPES.sub("", data.decode("utf-8", "replace"))

    @property
    def is_as_it_was(self) -> bool:
        """Whether the terminal's modes are those from before the chat."""
        return termios.tcgetattr(self.terminal) == self.modes_before


def ready(chat: TerminalChat) -> TerminalChat:
    """The same, once it can be typed into."""
    chat.wait_for("endless on this machine", "Ctrl-D ends the chat", "of 16000 tokens")
    return chat


@pytest.fixture(scope="module")
def chat(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TerminalChat]:
    """One for all tests that leave it running, with an empty context or not."""
    with TerminalChat(model_dir, tmp_path_factory.mktemp("state")) as running:
        yield ready(running)


@pytest.mark.parametrize("key", [" ", "\x03", None], ids=["space", "ctrl-c", "sigint"])
def test_an_answer_is_stopped_and_the_chat_goes_on(chat: TerminalChat, key: str | None) -> None:
    chat.type("Hi\r")
    chat.wait_for_text(200)
    if key is None:
        chat.process.send_signal(signal.SIGINT)
    else:
        chat.type(key)
    chat.wait_for("· stopped")
    chat.type("/stats\r")
    chat.wait_for("ended by you")


def test_a_chat_is_saved_cleared_and_loaded(chat: TerminalChat, tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    chat.type("/set max-tokens 20\r")
    chat.wait_for("max-tokens = 20")
    chat.type("Hi\r")
    chat.wait_for("that were 20 tokens")
    chat.type(f"/save {path}\r")
    chat.wait_for("· saved")
    assert path.is_file()
    chat.type("/clear\r")
    chat.wait_for("· the context is empty")
    chat.type(f"/load {tmp_path}/none\r")
    chat.wait_for("! ", "No such file")
    chat.type(f"/load {path}\r")
    chat.wait_for("· loaded")
    chat.type("/set max-tokens none\r")
    chat.wait_for("max-tokens = none")


def test_tab_completes_a_command(chat: TerminalChat) -> None:
    chat.type("/sta")
    chat.wait_for("/sta")
    chat.type("\t")
    chat.wait_for("ts")
    chat.type("\r")
    chat.wait_for("this chat ")


def test_sigterm_during_an_answer_leaves_the_terminal_as_it_was(
    model_dir: Path, tmp_path: Path
) -> None:
    with TerminalChat(model_dir, tmp_path) as chat:
        ready(chat).type("Hi\r")
        chat.wait_for_text(200)
        chat.process.terminate()
        assert chat.wait_for_end() == 143
        assert chat.is_as_it_was


def test_what_was_typed_is_in_the_history_of_the_next_chat(model_dir: Path, tmp_path: Path) -> None:
    with TerminalChat(model_dir, tmp_path) as first:
        ready(first).type("/set seed 42\r")
        first.wait_for("seed = 42")
        first.type("\x03")
        first.wait_for("Ctrl-C again")
        first.type("\x03")
        assert first.wait_for_end() == 0
        assert first.is_as_it_was
    assert (tmp_path / "gptnode" / "history").stat().st_mode & 0o777 == 0o600
    with TerminalChat(model_dir, tmp_path) as again:
        ready(again).type("\x1b[A")
        again.wait_for("/set seed 42")
        again.process.terminate()
        assert again.wait_for_end() == 143
        assert again.is_as_it_was
