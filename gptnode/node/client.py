"""A client: everything that a chat, or another front end, needs of a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from gptnode.model.config import ModelConfig
from gptnode.node.answer import Answering, AnswerSettings
from gptnode.node.generator import Generator
from gptnode.node.loading import ModelSource
from gptnode.node.map_taking import MapTaker
from gptnode.node.swarm import HopView, PeerView, Swarm
from gptnode.node.verify import VerifyTally
from gptnode.routing.blocks_map import BlocksMap
from gptnode.text.template import ChatTemplate
from gptnode.text.tokenizer import Tokenizer

__all__ = ["Client"]


class Client:
    """One context at a time over one model; made by ``runtime.open_client``."""

    def __init__(
        self,
        source: ModelSource,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        default_stop: tuple[str | tuple[int, ...], ...],
        generator: Generator,
        swarm: Swarm,
        *,
        map_path: Path | None,
        peer_id: str | None,
    ) -> None:
        """Every part is ready to be used."""
        self.tokenizer = tokenizer
        self.template = template
        self.default_stop = default_stop
        self.peer_id = peer_id
        self._source = source
        self._generator = generator
        self._swarm = swarm
        self._map = MapTaker(
            map_path,
            source.key.name,
            source.config.n_blocks,
            swarm,
            swarm.say,
            meter=swarm.meter,
        )
        self._end_ids = tokenizer.eos_ids | frozenset(source.config.eos_ids)

    @property
    def model_name(self) -> str:
        """What the swarm calls the model."""
        return self._source.key.name

    @property
    def fingerprint(self) -> str:
        """Of weights and configuration: 32 hex characters."""
        return self._source.key.fingerprint

    @property
    def dtype_name(self) -> str:
        """Of weights and activations."""
        return self._source.key.dtype_name

    @property
    def model_folder(self) -> Path:
        """Where the model's files are on this machine."""
        return self._source.paths.folder

    @property
    def model_config(self) -> ModelConfig:
        """The model's own numbers."""
        return self._source.config

    @property
    def blocks_map(self) -> BlocksMap | None:
        """The map in force; None when all blocks are local."""
        return self._swarm.blocks_map

    @property
    def context_limit_tokens(self) -> int:
        """The most tokens that prompt and answer may have together."""
        return self._generator.max_tokens

    @property
    def prefilled_tokens(self) -> int:
        """How far the prompt in work has gone through the blocks."""
        return self._generator.prefilled_tokens

    @property
    def guesses(self) -> tuple[int, int] | None:
        """Tokens that were guessed ahead, and those that were right; None without guesses."""
        speculation = self._generator.speculation
        return (speculation.guessed, speculation.right) if speculation is not None else None

    @property
    def drafted(self) -> tuple[int, int] | None:
        """Of the `guesses`, those of the draft model; None where it has made none."""
        speculation = self._generator.speculation
        if speculation is None or not speculation.drafted:
            return None
        return (speculation.drafted, speculation.drafted_right)

    @property
    def verified(self) -> VerifyTally | None:
        """How many steps of peers others have computed too; None where none are to be."""
        verifier = self._swarm.verifier
        return verifier.tally if verifier.on else None

    def answer(self, ids: Sequence[int], settings: AnswerSettings) -> Answering:
        """Answer the prompt ``ids``. One answer at a time.

        Raises:
            ContextError: the prompt leaves no room for an answer.
        """
        return Answering(self._generator, self.tokenizer, self._end_ids, ids, settings)

    def hops(self) -> tuple[HopView, ...]:
        """The route in use or, before the first token, the one that would be."""
        return self._swarm.hops()

    def peers(self) -> tuple[PeerView, ...]:
        """All peers of the map."""
        return self._swarm.peers()

    async def connect(self, peer_id: str, addr: str) -> None:
        """Dial a peer at an address that the map doesn't have.

        Raises:
            NetworkError: it can't be reached or refuses.
        """
        await self._swarm.connect(peer_id, addr)

    async def reload(self) -> None:
        """Read the map again; the next token takes the new route.

        Raises:
            MapError: the file is wrong; the old map stays in force.
            UsageError: there is no map.
        """
        await trio.lowlevel.checkpoint()
        self._map.reload()

    async def follow_map(self) -> None:
        """Take each edit of the map while this runs, between two tokens; for ever."""
        await self._map.follow()

    async def forget(self) -> None:
        """Drop all caches, here and on the peers."""
        await self._generator.forget()
