"""A client: everything that a chat, or another front end, needs of a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gptnode.errors import MapError, UsageError
from gptnode.model.config import ModelConfig
from gptnode.node.answer import Answering, AnswerSettings
from gptnode.node.generator import Generator
from gptnode.node.loading import ModelSource
from gptnode.node.map_watch import MapWatch
from gptnode.node.swarm import HopView, PeerView, Swarm
from gptnode.node.verify import VerifyTally
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map
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
        self._map_path = map_path
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
        if self._map_path is None:
            raise UsageError(
                "there is no BlocksMap to reload: this chat runs on this machine alone"
            )
        self._use(read_blocks_map(self._map_path), fresh=True)

    async def follow_map(self) -> None:
        """Take each edit of the map while this runs, between two tokens; for ever.

        A map that is wrong is reported, and changes nothing.
        """
        if self._map_path is None:
            return
        broken = False
        async for found in MapWatch(self._map_path, self.blocks_map):
            try:
                if isinstance(found, MapError):
                    raise found
                if broken and found == self.blocks_map:
                    self._swarm.say("the BlocksMap is as it was again")
                self._use(found)
            except MapError as error:
                self._swarm.say(f"{error.detail}; the BlocksMap in force stays")
                broken = True
            else:
                broken = False

    def _use(self, blocks_map: BlocksMap, *, fresh: bool = False) -> None:
        """Take ``blocks_map`` if it is one for this model."""
        blocks_map.model(self.model_name)
        blocks_map.check_blocks(self.model_name, self.model_config.n_blocks)
        self._swarm.use_map(blocks_map, fresh=fresh)

    async def forget(self) -> None:
        """Drop all caches, here and on the peers."""
        await self._generator.forget()
