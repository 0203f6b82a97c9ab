"""What a node is told when it starts: frozen, typed, parsed once by the command line.

An option beats its environment variable, which beats the BlocksMap's entry for the model, which
beats the model's own config.json. Nothing below the command line reads the environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptnode.errors import UsageError

__all__ = [
    "DEFAULT_CONTEXT_TOKENS",
    "PREFILL_CHUNK_TOKENS",
    "ClientConfig",
    "ServeConfig",
    "ServiceLimits",
]

DEFAULT_CONTEXT_TOKENS = 4096
"""Length of a context when nobody asks for another and the model allows it."""

PREFILL_CHUNK_TOKENS = 256
"""Tokens of a prompt that go through the blocks at once. The same for every route, because only
the same chunks give the same bits (matrix products round by shape)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """A client: with a map it computes over the swarm, with a folder alone all by itself.

    ``wait_s``: how long an answer waits where some blocks have no live peer; may be infinite.
    ``verify``: the fraction of the peers' steps that others compute too, to compare; 0 to 1.
    ``rings``: whether peers hand on to each other; else each of them answers this node.
    ``speculate``: whether tokens are guessed ahead, which changes none of them.
    ``activations``: ``int8`` has them travel in 8 bit; ``bf16`` and None as they are computed.
    ``draft``: the folder of a small model that guesses them; beats the one of the map.
    """

    map_path: Path | None = None
    identity_path: Path | None = None
    model_name: str | None = None
    model_dir: Path | None = None
    dtype: str | None = None
    template: str | None = None
    device: str = "cpu"
    threads: int | None = None
    context_tokens: int | None = None
    wait_s: float = 0.0
    verify: float = 0.0
    rings: bool = True
    speculate: bool = True
    draft: Path | None = None
    activations: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """How much a service takes on.

    ``max_contexts`` answer at once and ``max_waiting`` wait for their turn, the rest is refused.
    ``max_idle`` contexts are kept with their caches for conversations that go on, each for
    ``idle_s`` at most.

    Raises:
        UsageError: a value is out of its range.
    """

    max_contexts: int = 32
    max_waiting: int = 64
    max_idle: int = 8
    idle_s: float = 300.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_contexts < 1:
            raise UsageError(f"answers at once must be 1 or more, not {self.max_contexts}")
        if self.max_waiting < 0 or self.max_idle < 0 or not self.idle_s >= 0:
            raise UsageError("limits of a service must be 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """A block server: it serves the blocks that the map gives to its peer id.

    ``max_peer_sessions`` and ``peer_kv_bytes`` are what one peer may have of ``max_sessions`` and
    ``kv_bytes``; half of them when None. ``metrics`` is host and port of the pages by which
    machines watch the server; None for none.
    """

    map_path: Path
    identity_path: Path
    listen: tuple[str, ...] = ()
    model_dir: Path | None = None
    dtype: str | None = None
    device: str = "cpu"
    threads: int | None = None
    max_sessions: int = 64
    max_peer_sessions: int | None = None
    kv_bytes: int = 2 << 30
    peer_kv_bytes: int | None = None
    metrics: tuple[str, int] | None = None
