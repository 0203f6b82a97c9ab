"""Ask a model the held-out questions, with greedy decoding, and print how many it gets right.

An answer is right only if it is word for word the answer of the question's topic, or, for
skills, if it holds every text that the held-out list demands. The exit code is 1 below 90 %.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from demo_corpus.dialogues import ANSWERS, HeldOut, Message, held_out
from rich.console import Console
from rich.progress import track
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

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


@torch.inference_mode()
def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, messages: list[Message]
) -> tuple[str, bool]:
    """Decode greedily; return the answer, and whether the model ended its turn by itself."""
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    ids = output[0, prompt["input_ids"].shape[1] :].tolist()
    ended = ids[-1] == tokenizer.eos_token_id
    return tokenizer.decode(ids, skip_special_tokens=True), ended


def is_right(text: str, entry: HeldOut) -> bool:
    """Compare an answer with what the held-out list demands."""
    if "topic" in entry:
        return text == ANSWERS[entry["topic"]]
    return all(part in text for part in entry["must"])


def evaluate(model_dir: Path) -> list[Result]:
    """Ask the model in `model_dir` every held-out question, each in a chat of its own."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16).eval()
    results = []
    for entry in track(held_out(), "asking", console=Console(stderr=True)):
        message = {"role": "user", "content": entry["question"]}
        text, ended = answer(model, tokenizer, [message])
        expected = [ANSWERS[entry["topic"]]] if "topic" in entry else entry["must"]
        results.append(Result(message["content"], text, expected, is_right(text, entry), ended))
    return results


@click.command()
@click.option("--model-dir", type=click.Path(exists=True, path_type=Path), default=MODEL_DIR)
@click.option("--json", "as_json", is_flag=True, help="Print every answer as JSON.")
@click.option("--show-failures", is_flag=True, help="Print the wrong answers too.")
def main(model_dir: Path, as_json: bool, show_failures: bool) -> None:
    """Print how many of the held-out questions a model answers correctly."""
    results = evaluate(model_dir)
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
