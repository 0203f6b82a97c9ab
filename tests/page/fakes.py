"""A service that answers nothing and says what a test wants about its swarm."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gptnode.node.events import EventLog, SwarmEvent
from gptnode.node.service import ServiceLoad
from gptnode.node.swarm_views import HopView, PeerView
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map
from gptnode.routing.route import plan_route
from gptnode.text.tokenizer import Tokenizer
from tests.api.scripted import TOKENIZER
from tests.routing.ids import ANNA, BEN, CLEO, LAPTOP

MODEL = "tiny"
N_BLOCKS = 8
MAP = f"""{{
  "models": [{{"name": "{MODEL}", "path": "/nowhere"}}],
  "peers": [
    {{"name": "anna", "id": "{ANNA}", "addrs": ["/ip4/10.0.0.1/tcp/4001"]}},
    {{"name": "ben", "id": "{BEN}", "addrs": ["/ip4/10.0.0.2/tcp/4001"]}},
    {{"name": "cleo", "id": "{CLEO}", "addrs": ["/ip4/10.0.0.3/tcp/4001"]}}
  ],
  "routes": [
    {{"blocks": "0-3", "peers": ["anna", "cleo"]}},
    {{"blocks": "4-7", "peers": ["ben", "cleo"]}}
  ],
  "clients": ["{LAPTOP}"]
}}
"""


@dataclass
class FakeService:
    """Of the map in a file; nothing follows the file by itself."""

    map_path: Path | None
    blocks_map: BlocksMap | None = None
    states: dict[str, str] = field(default_factory=dict)
    round_trip_s: float | None = 0.001234
    looks: int = 0
    log: EventLog = field(default_factory=lambda: EventLog(lambda line: None))
    now: ServiceLoad = field(
        default_factory=lambda: ServiceLoad(
            answering=0, waiting=0, idle=2, own_kv_bytes=0, answers=5, prompt_tokens=50,
            completion_tokens=70, reused_tokens=3, tokens_per_s=12.345,
        )
    )  # fmt: skip
    model_name: str = MODEL
    fingerprint: str = "f" * 32
    dtype_name: str = "bf16"
    peer_id: str | None = LAPTOP
    context_limit_tokens: int = 2048
    model_config: Any = field(default_factory=lambda: SimpleNamespace(n_blocks=N_BLOCKS))
    tokenizer: Tokenizer = TOKENIZER

    def follow(self) -> None:
        """As the service does by itself within half a second."""
        assert self.map_path is not None
        self.blocks_map = read_blocks_map(self.map_path)

    def answering(self, count: int) -> None:
        self.now = replace(self.now, answering=count)

    def load(self) -> ServiceLoad:
        self.looks += 1
        return self.now

    def events(self) -> tuple[SwarmEvent, ...]:
        return self.log.events()

    def hops(self) -> tuple[HopView, ...]:
        if self.blocks_map is None:
            return ()
        down = [peer for peer, state in self.states.items() if state == "lost"]
        return tuple(
            HopView(
                self._label(hop.peer_ids[0]),
                hop.peer_ids[0],
                hop.span,
                self.states.get(hop.peer_ids[0], "connected"),
                self.round_trip_s,
                tuple(map(self._label, hop.peer_ids[1:])),
            )
            for hop in plan_route(self.blocks_map, MODEL, N_BLOCKS, down=down).hops
        )

    def peers(self) -> tuple[PeerView, ...]:
        if self.blocks_map is None:
            return ()
        return tuple(
            PeerView(
                peer.label,
                peer.id,
                peer.addrs,
                self.blocks_map.spans_of(peer.id, MODEL),
                self.states.get(peer.id, "connected"),
                None,
            )
            for peer in self.blocks_map.peers
        )

    def _label(self, peer_id: str) -> str:
        assert self.blocks_map is not None
        entry = self.blocks_map.peer(peer_id)
        return entry.label if entry is not None else peer_id


def fake_service(folder: Path, text: str = MAP) -> FakeService:
    """Over a map file in ``folder``, which it has read."""
    path = folder / "swarm.json"
    path.write_text(text)
    service = FakeService(path)
    service.follow()
    return service


def edited(change: Any) -> str:
    """The map with ``change`` made to it as data."""
    data = json.loads(MAP)
    change(data)
    return json.dumps(data, indent=2)
