"""A draft model: a small model, all of it on this node, that guesses what a large one will say.

It needs the large one's vocabulary and nothing else of it. What it says is never shown: it only
decides which tokens are computed together. It guesses with the very random numbers that the tokens
themselves will be drawn with, so that two models that agree on the chances agree on the token.

Its cache follows the ids, as all caches do. It works in this node's compute lane, a token at a
time, so that nobody waits long for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gptnode.errors import GptNodeError, ModelError
from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.sampler import Sampler
from gptnode.model.shard import BlockStack, Embedding, Head
from gptnode.node.compute import ComputeLane
from gptnode.node.loading import ModelSource, folder_paths, open_model
from gptnode.node.speculation import Speculation, common_prefix
from gptnode.node.step_work import rewind
from gptnode.routing.entries import ModelPaths
from gptnode.span import Span
from gptnode.text.tokenizer import Tokenizer

__all__ = ["DraftModel", "Drafter", "find_draft", "give_draft", "load_draft"]

READ_TOKENS = 32
"""Of a context, at once: others wait for the lane."""


@dataclass(frozen=True, slots=True)
class DraftModel:
    """The weights, for any number of contexts, and the lane that they are computed in."""

    name: str
    config: ModelConfig
    embedding: Embedding
    blocks: BlockStack
    head: Head
    lane: ComputeLane

    @property
    def weight_bytes(self) -> int:
        """Of all parts."""
        return self.embedding.weight_bytes + self.blocks.weight_bytes + self.head.weight_bytes


def find_draft(
    asked: Path | None, mapped: Path | None, model: ModelSource, report: Callable[[str], None]
) -> ModelSource | None:
    """The draft model for ``model``, in its own dtype; None without one.

    Args:
        asked: Its folder, in Hugging Face form with a tokenizer.json; beats the map's.
        mapped: The folder that the map names. Not every node has to have it.
        model: The large model.
        report: Shows a line about what may be a mistake.

    Raises:
        ModelError: its tokens are others, a file is missing or damaged, or the architecture isn't
            supported.
        TextError: one of the two tokenizers is missing or damaged.
    """
    folder = asked if asked is not None else mapped
    if folder is None:
        return None
    if not folder.is_dir():
        problem = f"{folder}: no such folder with a draft model"
        if asked is not None:
            raise ModelError(problem)
        report(f"{problem}, so there is none")
        return None
    paths = folder_paths(folder)
    _check_vocabulary(paths, model.paths.tokenizer)
    draft = open_model(folder.resolve().name, paths, None, model.device)
    if _weights(draft.config) >= _weights(model.config):
        report(f"{folder}: the draft model is no smaller than the model, so it hardly saves time")
    return draft


async def load_draft(source: ModelSource, lane: ComputeLane) -> DraftModel:
    """All of its weights.

    Raises:
        ModelError: a tensor is missing or not what its config.json implies.
    """

    def load() -> DraftModel:
        embedding = source.load_embedding()
        blocks = source.load_blocks(Span(0, source.config.n_blocks))
        head = source.load_head(embedding)
        return DraftModel(source.key.name, source.config, embedding, blocks, head, lane)

    return (await lane.run(load)).value


def give_draft(
    speculation: Speculation,
    draft: DraftModel,
    model: ModelConfig,
    max_tokens: int,
    report: Callable[[str], None],
) -> None:
    """Let ``draft`` guess in a context of at most ``max_tokens`` of ``model``."""
    speculation.draft_with(Drafter(draft, max_tokens, model.vocab_size, report))


class Drafter:
    """The guesses of a draft model for one context.

    What it has read is ``_line``: ids that it was given and, behind the first ``_given`` of them,
    its own guesses. The cache holds what belongs to the first ``_held``.

    Error handling: a draft model that fails is said to, once, and guesses no more: answers go on.

    Resource handling: the cache is made with the first guess; `forget` frees it.
    """

    def __init__(
        self,
        model: DraftModel,
        max_tokens: int,
        vocab_size: int,
        report: Callable[[str], None],
    ) -> None:
        """A context without tokens.

        Args:
            model: The weights.
            max_tokens: The longest context; where the model isn't made for it, it stops before.
            vocab_size: Of the large model: ids from there on are never guessed.
            report: Shows a line of trouble.
        """
        self._model = model
        self._lane = model.lane
        self._max_tokens = min(max_tokens, model.config.context_tokens)
        self._vocab_size = vocab_size
        self._report = report
        self._failed = False
        self._cache: KVCache | None = None
        self._line: list[int] = []
        self._given = 0
        self._held = 0
        self._sampler: Sampler | None = None

    def behind(self, ids: Sequence[int]) -> int:
        """See ``DraftSource``."""
        return len(ids) - min(self._held, common_prefix(self._line, ids))

    async def follow(self, ids: Sequence[int]) -> None:
        """See ``DraftSource``; ids for which there is no room are left out."""
        ids = ids[: self._max_tokens]
        self._take(ids, self._sampler)
        try:
            while not self._failed and len(ids) - self._held > 1:
                await self._read(min(self._held + READ_TOKENS, len(ids) - 1))
        except GptNodeError as error:
            self._fail(error)

    async def draft(
        self, ids: Sequence[int], most: int, sampler: Sampler, *, drawn: int = 0
    ) -> list[int]:
        """See ``DraftSource``."""
        end = min(len(ids) + most, self._max_tokens)
        if self._failed or end <= len(ids):
            return []
        self._take(ids, sampler)
        draws = sampler.ahead(drawn + len(self._line) - len(ids))
        try:
            while len(self._line) < end:
                await self._guess(draws)
        except GptNodeError as error:
            self._fail(error)
        return self._line[len(ids) : end]

    def forget(self) -> None:
        """See ``DraftSource``; in the lane, as work that was cancelled may still be writing."""
        if self._cache is not None:
            self._lane.run_soon(self._cache.close)
        self._cache = None
        self._line, self._given, self._held = [], 0, 0

    def _take(self, ids: Sequence[int], sampler: Sampler | None) -> None:
        """Let the line be ``ids``, and the guesses behind them if they are still good."""
        keep = common_prefix(self._line, ids)
        guessed = keep == len(ids) >= self._given and sampler is self._sampler
        if not guessed:
            self._line[keep:] = ids[keep:]
            self._held = min(self._held, keep)
        self._given = len(ids)
        self._sampler = sampler

    async def _read(self, end: int) -> None:
        """Compute the tokens of the line up to ``end``, which have to be read anyway."""
        start, tokens = self._held, self._line[self._held : end]
        await self._lane.run(partial(self._forward, tokens, start))
        self._held = end

    async def _guess(self, draws: Sampler) -> None:
        """One guess more at the end of the line."""
        while len(self._line) - self._held > READ_TOKENS:
            await self._read(self._held + READ_TOKENS)
        start = min(self._held, len(self._line) - 1)  # a token is read again to know what follows
        tokens, context = self._line[start:], list(self._line)

        def compute() -> int:
            logits = self._model.head(self._forward(tokens, start))[0]
            return draws.sample(logits[: self._vocab_size], context)

        token = (await self._lane.run(compute)).value
        self._held = len(self._line)
        self._line.append(token)

    def _forward(self, ids: Sequence[int], position: int) -> Tensor:
        """In the lane: hidden states (1, T, D) of ``ids`` at ``position``."""
        if self._cache is None:
            self._cache = self._model.blocks.new_cache(self._max_tokens)
        rewind(self._cache, position)
        ids_there = torch.tensor([ids], device=self._model.blocks.device)
        return self._model.blocks(self._model.embedding(ids_there), self._cache)

    def _fail(self, error: GptNodeError) -> None:
        self._failed = True
        self.forget()
        self._report(f"the draft model guesses no more: {error.detail}")


def _weights(config: ModelConfig) -> int:
    """About how many a model of that form has."""
    heads = (2 * config.n_heads + 2 * config.n_kv_heads) * config.head_dim
    block = config.d_model * (heads + 3 * config.d_ff)
    return config.n_blocks * block + config.vocab_size * config.d_model


def _check_vocabulary(draft: ModelPaths, tokenizer: Path) -> None:
    """ModelError unless both tokenizers have the same tokens under the same ids."""
    ours = Tokenizer.from_file(tokenizer).vocabulary()
    theirs = Tokenizer.from_file(draft.tokenizer).vocabulary()
    if ours == theirs:
        return
    where = f"{draft.folder}: the draft model's tokens aren't those of the model"
    if len(ours) != len(theirs):
        raise ModelError(f"{where}: it has {len(theirs)}, the model {len(ours)}")
    token = min((t for t in ours if ours[t] != theirs.get(t)), key=lambda t: ours[t])
    other = theirs.get(token)
    raise ModelError(
        f"{where}: {token!r} is {ours[token]} there, "
        + ("and no token of the draft model's" if other is None else f"and {other} here")
    )
