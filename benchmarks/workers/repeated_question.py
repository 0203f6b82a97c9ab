"""A question that was answered before, asked again: text that repeats itself. Prints JSON.

    python benchmarks/workers/repeated_question.py MAP IDENTITY THREADS [--no-speculation]

The second answer is measured: it repeats the first, as an edited file or a summary repeats most of
what it is made of.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from gptnode.model.sampler import Sampling
from gptnode.node.answer import AnswerSettings
from gptnode.node.config import ClientConfig
from gptnode.node.runtime import open_client
from gptnode.text.conversation import Conversation

QUESTION = "Tell me a story about a lighthouse."
MAX_TOKENS = 160


async def main() -> None:
    """See the module's docstring."""
    map_path, identity, threads, *options = sys.argv[1:]
    config = ClientConfig(
        map_path=Path(map_path),
        identity_path=Path(identity),
        threads=int(threads),
        speculate="--no-speculation" not in options,
    )
    async with open_client(config, report=lambda line: None) as client:
        conversation = Conversation(client.tokenizer, client.template)
        for _ in range(2):
            ids = conversation.ask(QUESTION)
            answering = client.answer(ids, AnswerSettings(Sampling(temperature=0.0), MAX_TOKENS))
            async for _text in answering:
                pass
            answer = answering.result()
            conversation.answered(answer.ids, answer.text)
        print(
            json.dumps(
                {
                    "tokens_per_s": answer.tokens_per_s,
                    "tokens": answer.completion_tokens,
                    "guesses": client.guesses,
                }
            )
        )


if __name__ == "__main__":
    trio.run(main)
