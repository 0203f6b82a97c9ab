"""Ask a model the held-out questions, with greedy decoding, and print how many it gets right.

An answer is right only if it is word for word the answer of the question's topic, or, for
skills, if it holds every text that the held-out list demands. The exit code is 1 below 90 %.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import trio
from demo_corpus.dialogues import ANSWERS, HeldOut, held_out
from rich.console import Console
from rich.progress import track

from gptnode.model.sampler import Sampling
from gptnode.node.answer import Answer, AnswerSettings
from gptnode.node.client import Client
from gptnode.node.config import ClientConfig
from gptnode.node.runtime import open_client
from gptnode.text.conversation import Conversation

MODEL_DIR = Path(__file__).resolve().parent.parent / "gptnode" / "demo" / "model"
MAX_NEW_TOKENS = 160
PASS_MARK = 0.90


@dataclass(frozen=True)
class Result:
    """What a model answered to one held-out question."""

    question: str
    answer: str
    expected: list[str]
    right: bool
    ended: bool


def is_right(text: str, entry: HeldOut) -> bool:
    """Compare an answer with what the held-out list demands."""
    if "topic" in entry:
        return text == ANSWERS[entry["topic"]]
    return all(part in text for part in entry["must"])


async def answer(client: Client, question: str) -> Answer:
    """Answer greedily, in a chat of its own."""
    prompt = Conversation(client.tokenizer, client.template).ask(question)
    settings = AnswerSettings(Sampling(temperature=0.0), MAX_NEW_TOKENS, client.default_stop)
    answering = client.answer(prompt, settings)
    async for _ in answering:
        pass
    return answering.result()


async def evaluate(model_dir: Path) -> list[Result]:
    """Ask the model in `model_dir` every held-out question, as `gptnode chat` would."""
    results = []
    async with open_client(
        ClientConfig(model_dir=model_dir, threads=1), report=lambda line: None
    ) as client:
        for entry in track(held_out(), "asking", console=Console(stderr=True)):
            given = await answer(client, entry["question"])
            expected = [ANSWERS[entry["topic"]]] if "topic" in entry else entry["must"]
            right = is_right(given.text, entry)
            ended = given.stop_reason == "end"
            results.append(Result(entry["question"], given.text, expected, right, ended))
    return results


@click.command()
@click.option("--model-dir", type=click.Path(exists=True, path_type=Path), default=MODEL_DIR)
@click.option("--json", "as_json", is_flag=True, help="Print every answer as JSON.")
@click.option("--show-failures", is_flag=True, help="Print the wrong answers too.")
def main(model_dir: Path, as_json: bool, show_failures: bool) -> None:
    """Print how many of the held-out questions a model answers correctly."""
    results = trio.run(evaluate, model_dir)
    right = sum(result.right for result in results)
    ended = sum(result.ended for result in results)
    if as_json:
        report = {
            "right": right,
            "ended": ended,
            "total": len(results),
            "results": [asdict(result) for result in results],
        }
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for result in results:
            if show_failures and not (result.right and result.ended):
                print(f"asked:    {result.question}\nanswered: {result.answer}")
                print(f"expected: {' ... '.join(result.expected)}\n")
        share = right / len(results)
        print(f"right: {right} of {len(results)} ({share:.1%})")
        print(f"ended the turn: {ended} of {len(results)}")
    sys.exit(right / len(results) < PASS_MARK)


if __name__ == "__main__":
    main()
