"""batched_rows.py DIR: steps of several rows through gptnode's blocks, as one line of JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from gptnode.model.shard import BlockStack
from gptnode.node.loading import folder_paths, open_device, open_model
from gptnode.span import Span

CONTEXT_TOKENS = 128
WARM_UP_STEPS = 3


def step_ms(stack: BlockStack, rows: int, tokens: int) -> float:
    """The median step of ``rows`` contexts with a cache each, joined as a server joins them."""
    room = CONTEXT_TOKENS + WARM_UP_STEPS + tokens
    generator = torch.Generator().manual_seed(rows)

    def hidden(length: int) -> torch.Tensor:
        shape = (1, length, stack.config.d_model)
        return torch.randn(shape, generator=generator).to(stack.dtype)

    caches = [stack.new_cache(room) for _ in range(rows)]
    for cache in caches:
        stack(hidden(CONTEXT_TOKENS), cache)
    times_ms = []
    for _ in range(WARM_UP_STEPS + tokens):
        steps = [(hidden(1), cache) for cache in caches]
        start = time.perf_counter()
        stack.batch(steps)
        times_ms.append(1000 * (time.perf_counter() - start))
    for cache in caches:
        cache.close()
    return statistics.median(times_ms[WARM_UP_STEPS:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", required=True, metavar="N,N,...")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source = open_model("bench", folder_paths(options.model), None, open_device("cpu"))
    stack = source.load_blocks(Span(0, source.config.n_blocks))
    widths = [int(part) for part in options.rows.split(",")]
    print(json.dumps({"step_ms": [step_ms(stack, rows, options.tokens) for rows in widths]}))


if __name__ == "__main__":
    main()
