"""One process and a swarm in turn, in slices of a few tokens: prints seconds as JSON.

    python benchmarks/workers/split_and_whole.py DIR MAP IDENTITY THREADS PROMPT_TOKENS TOKENS

A machine whose memory gets faster and slower within seconds shows nothing by runs that follow each
other. Here both sides live in one process and take turns: prefills of the same prompt, then slices
of SLICE tokens, so that each pair saw the same machine.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from gptnode.model.sampler import Sampler, Sampling
from gptnode.node.config import ClientConfig
from gptnode.node.generator import Generator
from gptnode.node.opened_model import find_model
from gptnode.node.runtime import open_engine

SLICE = 8
PREFILLS = 4


class Side:
    """A generator, and the context that it decodes."""

    def __init__(self, generator: Generator, vocab_size: int, prompt_tokens: int) -> None:
        """Nothing is computed yet."""
        self.prefill_s: list[float] = []
        self.decode_s: list[float] = []
        self._generator = generator
        self._sampler = Sampler(Sampling(temperature=0.0))
        self._prompt = random.Random(0).choices(range(vocab_size), k=prompt_tokens)
        self._ids = list(self._prompt)

    async def prefill(self) -> None:
        """The whole prompt into empty caches."""
        await self._generator.start_over()
        began_s = time.perf_counter()
        self._ids = [*self._prompt, await self._generator.next_token(self._prompt, self._sampler)]
        self.prefill_s.append(time.perf_counter() - began_s)

    async def decode(self) -> None:
        """A slice; its median step counts."""
        steps = []
        for _ in range(SLICE):
            began_s = time.perf_counter()
            self._ids.append(await self._generator.next_token(self._ids, self._sampler))
            steps.append(time.perf_counter() - began_s)
        self.decode_s.append(statistics.median(steps))


async def main() -> None:
    """See the module's docstring."""
    folder, map_path, identity, threads, prompt_tokens, tokens = sys.argv[1:]
    whole = ClientConfig(model_dir=Path(folder), threads=int(threads), speculate=False)
    split = ClientConfig(
        speculate=False, map_path=Path(map_path), identity_path=Path(identity), threads=int(threads)
    )
    async with AsyncExitStack() as stack:
        sides = []
        for config in (whole, split):
            model = find_model(config)
            engine = await stack.enter_async_context(
                open_engine(model, config, report=lambda line: None)
            )
            side = Side(engine.generator, model.source.config.vocab_size, int(prompt_tokens))
            await side.prefill()
            await side.decode()
            sides.append(side)
        for side in sides:
            side.prefill_s.clear()
            side.decode_s.clear()
        for _ in range(PREFILLS):
            for side in sides:
                await side.prefill()
        for _ in range(max(1, int(tokens) // SLICE)):
            for side in sides:
                await side.decode()
        alone, over = sides
        print(
            json.dumps(
                {
                    "prefill": {"whole": alone.prefill_s, "split": over.prefill_s},
                    "decode": {"whole": alone.decode_s, "split": over.decode_s},
                }
            )
        )


if __name__ == "__main__":
    trio.run(main)
