"""transformers_bench.py DIR: prefill and greedy decode with Hugging Face transformers, as JSON.

Runs in the rivals' environment. The same way as llama_cpp_bench.py: load, warm up, forget, measure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from transformers import AutoModelForCausalLM

FIRST_ID = 300
WARM_UP_STEPS = 4


def measure(
    model: torch.nn.Module, prompt: torch.Tensor, tokens: int
) -> tuple[float, list[float], list[int]]:
    """Seconds for the prompt (1, T), seconds for each step after it, and the ids."""
    start = time.perf_counter()
    out = model(prompt, use_cache=True, logits_to_keep=1)
    ids = [int(out.logits[0, -1].argmax())]
    prefill_s = time.perf_counter() - start
    steps_s = []
    for _ in range(tokens):
        start = time.perf_counter()
        last = torch.tensor([ids[-1:]])
        out = model(last, past_key_values=out.past_key_values, use_cache=True)
        ids.append(int(out.logits[0, -1].argmax()))
        steps_s.append(time.perf_counter() - start)
    return prefill_s, steps_s, ids


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).eval()
    prompt = torch.arange(FIRST_ID, FIRST_ID + options.prompt_tokens)[None]
    measure(model, prompt, WARM_UP_STEPS)
    prefill_s, steps_s, ids = measure(model, prompt, options.tokens)
    print(
        json.dumps(
            {
                "prefill_tokens_per_s": prompt.shape[1] / prefill_s,
                "decode_tokens_per_s": 1 / statistics.median(steps_s),
                "ids": ids,
            }
        )
    )


if __name__ == "__main__":
    main()
