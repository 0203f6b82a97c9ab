"""Compare what a model in 8 and 4 bits would say next with what it says in bf16.

For each held-out question the bf16 model answers greedily. Then every dtype reads the question and
that answer, token by token as in a chat, and is asked for the next token at each place. Printed is
how often it is the one of bf16. The exit code is 1 where a dtype misses its target.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from demo_corpus.dialogues import held_out
from rich.console import Console
from rich.progress import track

from gptnode.model.shard import BlockStack, Embedding, Head
from gptnode.node.loading import folder_paths, open_device, open_model
from gptnode.span import Span
from gptnode.text.conversation import Conversation
from gptnode.text.template import load_template
from gptnode.text.tokenizer import Tokenizer

MODEL_DIR = Path(__file__).resolve().parent.parent / "gptnode" / "demo" / "model"
MAX_NEW_TOKENS = 160
TARGETS = {"int8": 0.99, "int4": 0.97}


@dataclass(frozen=True)
class Answered:
    """The ids of a question, as the model reads it, and of the answer of bf16."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Agreement:
    """How often a dtype says the token of bf16; ``answers`` are those that agree throughout."""

    dtype: str
    agreeing: int
    tokens: int
    answers: int
    questions: int

    @property
    def share(self) -> float:
        """Part of the tokens that agree."""
        return self.agreeing / self.tokens

    def __str__(self) -> str:
        return (
            f"{self.dtype}: {self.agreeing} of {self.tokens} tokens ({self.share:.2%}, target "
            f"{TARGETS[self.dtype]:.0%}); {self.answers} of {self.questions} answers throughout"
        )


class Parts:
    """A whole model of one dtype on the CPU."""

    embedding: Embedding
    blocks: BlockStack
    head: Head

    def __init__(self, model_dir: Path, dtype: str) -> None:
        """Load all of it."""
        source = open_model("model", folder_paths(model_dir), dtype, open_device("cpu"))
        self.embedding = source.load_embedding()
        self.blocks = source.load_blocks(Span(0, source.config.n_blocks))
        self.head = source.load_head(self.embedding)
        self.eos_ids = source.config.eos_ids

    def predictions(self, prompt: list[int], answer: list[int] | None) -> Iterator[int]:
        """The most likely token after ``prompt``, and after each token of ``answer`` but the last.

        Without an answer its own tokens are taken, until an end of sequence.
        """
        cache = self.blocks.new_cache(len(prompt) + MAX_NEW_TOKENS)
        ids = prompt
        for place in range(MAX_NEW_TOKENS if answer is None else len(answer)):
            hidden = self.blocks(self.embedding(torch.tensor([ids])), cache)
            predicted = int(self.head(hidden).argmax())
            yield predicted
            if answer is None and predicted in self.eos_ids:
                return
            ids = [predicted if answer is None else answer[place]]


def answers_of_bf16(model_dir: Path) -> list[Answered]:
    """Ask every held-out question, each in a chat of its own."""
    tokenizer = Tokenizer.from_file(model_dir / "tokenizer.json")
    template = load_template(model_dir, tokenizer, None)
    parts = Parts(model_dir, "bf16")
    found = []
    for entry in track(held_out(), "asking in bf16", console=Console(stderr=True)):
        prompt = list(Conversation(tokenizer, template).ask(entry["question"]))
        found.append(Answered(prompt, list(parts.predictions(prompt, None))))
    return found


def agreement(model_dir: Path, dtype: str, answered: list[Answered]) -> Agreement:
    """Read all questions and answers in ``dtype``."""
    parts = Parts(model_dir, dtype)
    agreeing, throughout = 0, 0
    for one in track(answered, f"reading in {dtype}", console=Console(stderr=True)):
        same = sum(map(int.__eq__, parts.predictions(one.prompt, one.answer), one.answer))
        agreeing += same
        throughout += same == len(one.answer)
    tokens = sum(len(one.answer) for one in answered)
    return Agreement(dtype, agreeing, tokens, throughout, len(answered))


@click.command()
@click.option("--model-dir", type=click.Path(exists=True, path_type=Path), default=MODEL_DIR)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def main(model_dir: Path, threads: int, as_json: bool) -> None:
    """Print how often int8 and int4 say the next token that bf16 says."""
    torch.set_num_threads(threads)
    answered = answers_of_bf16(model_dir)
    found = [agreement(model_dir, dtype, answered) for dtype in TARGETS]
    if as_json:
        print(json.dumps({one.dtype: {**asdict(one), "share": one.share} for one in found}))
    else:
        for one in found:
            print(one)
    sys.exit(any(one.share < TARGETS[one.dtype] for one in found))


if __name__ == "__main__":
    main()
