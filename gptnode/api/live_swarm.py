"""The swarm as it is now, as JSON for a page that draws it.

However many look, a snapshot is made at most four times a second: it is made when somebody asks for
one and the last one is older than that. Nothing runs while nobody looks. Knows no HTTP.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gptnode.routing.blocks_map import BlocksMap

if TYPE_CHECKING:  # they bring torch along
    from gptnode.model.config import ModelConfig
    from gptnode.node.events import SwarmEvent
    from gptnode.node.swarm_views import HopView, PeerView

__all__ = ["INTERVAL_S", "LiveSwarm", "LoadLike", "ServiceLike"]

INTERVAL_S = 0.25
MAX_EVENTS = 50


class LoadLike(Protocol):
    """What this file reads of a ``ServiceLoad``."""

    @property
    def answering(self) -> int:
        """Contexts that answer."""

    @property
    def waiting(self) -> int:
        """Those that wait for their turn."""

    @property
    def idle(self) -> int:
        """Contexts that are kept with their caches."""

    @property
    def own_kv_bytes(self) -> int:
        """Of this node's caches."""

    @property
    def answers(self) -> int:
        """So far."""

    @property
    def prompt_tokens(self) -> int:
        """So far."""

    @property
    def completion_tokens(self) -> int:
        """So far."""

    @property
    def reused_tokens(self) -> int:
        """Of the prompts, found in caches."""

    @property
    def tokens_per_s(self) -> float:
        """Of the last seconds."""


class ServiceLike(Protocol):
    """What the picture and the map need of ``gptnode.node.service.Service``."""

    @property
    def model_name(self) -> str:
        """What the swarm calls the model."""

    @property
    def fingerprint(self) -> str:
        """Of weights and configuration."""

    @property
    def dtype_name(self) -> str:
        """Of weights and activations."""

    @property
    def model_config(self) -> ModelConfig:
        """The model's own numbers."""

    @property
    def peer_id(self) -> str | None:
        """This node's; None where it has no network."""

    @property
    def context_limit_tokens(self) -> int:
        """Prompt and answer together."""

    @property
    def blocks_map(self) -> BlocksMap | None:
        """The map in force."""

    @property
    def map_path(self) -> Path | None:
        """Its file."""

    def hops(self) -> tuple[HopView, ...]:
        """The route as it is now."""

    def peers(self) -> tuple[PeerView, ...]:
        """All peers of the map."""

    def load(self) -> LoadLike:
        """How much there is to do."""

    def events(self) -> tuple[SwarmEvent, ...]:
        """The last things that happened, oldest first."""


class LiveSwarm:
    """Snapshots of one service; all viewers share them."""

    def __init__(
        self,
        service: ServiceLike,
        *,
        read_only_map: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``read_only_map``: the page shows the map's text and doesn't offer to change it."""
        self._service = service
        self._read_only_map = read_only_map
        self._clock = clock
        self._made_s = -INTERVAL_S
        self._text = ""
        self._version = 0
        self._map_in_force = service.blocks_map
        self._map_version = 1

    def latest(self) -> tuple[int, str]:
        """A number that grows with each change, and the snapshot as JSON in one line."""
        now_s = self._clock()
        if now_s - self._made_s >= INTERVAL_S:
            text = json.dumps(self.snapshot(), ensure_ascii=False, separators=(",", ":"))
            self._made_s = now_s
            if text != self._text:
                self._text = text
                self._version += 1
        return self._version, self._text

    def snapshot(self) -> dict[str, Any]:
        """Everything that the page shows, as it is at this moment."""
        service, load = self._service, self._service.load()
        if service.blocks_map != self._map_in_force:
            self._map_in_force = service.blocks_map
            self._map_version += 1
        map_path = service.map_path
        hops = service.hops()
        trips = {hop.peer_id: hop.round_trip_s for hop in hops}
        return {
            "model": {
                "name": service.model_name,
                "n_blocks": service.model_config.n_blocks,
                "dtype": service.dtype_name,
                "fingerprint": service.fingerprint,
                "context_tokens": service.context_limit_tokens,
            },
            "peer_id": service.peer_id,
            "hops": [_hop(hop) for hop in hops],
            "peers": [_peer(peer, trips.get(peer.peer_id)) for peer in service.peers()],
            "load": {
                "answering": load.answering,
                "waiting": load.waiting,
                "idle": load.idle,
                "own_kv_bytes": load.own_kv_bytes,
                "answers": load.answers,
                "prompt_tokens": load.prompt_tokens,
                "completion_tokens": load.completion_tokens,
                "reused_tokens": load.reused_tokens,
                "tokens_per_s": round(load.tokens_per_s, 1),
            },
            "events": [
                {"number": event.number, "at_s": round(event.at_s, 1), "text": event.text}
                for event in service.events()[-MAX_EVENTS:]
            ],
            "map": None
            if map_path is None
            else {
                "name": map_path.name,
                "version": self._map_version,
                "editable": not self._read_only_map,
            },
        }


def _hop(hop: HopView) -> dict[str, Any]:
    return {
        "label": hop.label,
        "peer_id": hop.peer_id,
        "start": hop.span.start,
        "stop": hop.span.stop,
        "embed": hop.ends.embed,
        "head": hop.ends.head,
        "state": hop.state,
        "round_trip_ms": _milliseconds(hop.round_trip_s),
        "replicas": list(hop.replicas),
    }


def _peer(peer: PeerView, hop_round_trip_s: float | None) -> dict[str, Any]:
    """The round trip is that of its hop where the peer itself has none."""
    known_s = peer.round_trip_s if peer.round_trip_s is not None else hop_round_trip_s
    return {
        "label": peer.label,
        "peer_id": peer.peer_id,
        "addrs": list(peer.addrs),
        "spans": [[span.start, span.stop] for span in peer.spans],
        "state": peer.state,
        "round_trip_ms": _milliseconds(known_s),
    }


def _milliseconds(seconds: float | None) -> float | None:
    """Two digits that count: more of them would change with every look."""
    return None if seconds is None else float(f"{1000 * seconds:.2g}")
