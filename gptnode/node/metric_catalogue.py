"""Every metric that a node can show: its name, its labels and what it says, in one place.

Names follow Prometheus's conventions: base units, `_total` for what only grows. Labels are bounded:
names of models and peers of the BlocksMap, and words of this file; never the id of a stranger.
Knows no Prometheus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CATALOGUE", "Described", "Reading"]

STEP_BUCKETS_S: Final = (
    *(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 10.0, 60.0),
)
"""From a fraction of a millisecond (the wire on one machine) to a long prompt on a slow peer."""

ANSWER_BUCKETS_S: Final = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)

BATCH_BUCKETS: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
"""A batch has 32 rows at most."""


@dataclass(frozen=True, slots=True)
class Described:
    """One metric. A counter's name ends in `_total`, also here; ``buckets`` are a histogram's."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that is read when somebody looks; ``labels`` in the order of the metric's own."""

    metric: Described
    value: float
    labels: tuple[str, ...] = ()


# -- any node --------------------------------------------------------------------------------------

NODE_INFO: Final = Described(
    "gptnode_node_info",
    "gauge",
    "Always 1; the labels say which node this is: its peer ID (empty without one) and its version.",
    ("peer_id", "version"),
)
CONNECTIONS: Final = Described(
    "gptnode_connections", "gauge", "Authenticated connections with peers and clients, either way."
)
RECEIVED_BYTES: Final = Described(
    "gptnode_received_bytes_total",
    "counter",
    "Bytes that came over connections with peers and clients, encryption included.",
)
SENT_BYTES: Final = Described(
    "gptnode_sent_bytes_total",
    "counter",
    "Bytes that went over connections with peers and clients, encryption included.",
)
REFUSED_PEERS: Final = Described(
    "gptnode_refused_peers_total",
    "counter",
    "Connections of peers that proved their ID and aren't in the BlocksMap.",
)
MAP_EDITS: Final = Described(
    "gptnode_map_edits_total",
    "counter",
    "Edits of the BlocksMap while this node ran, by what came of them: taken or rejected.",
    ("outcome",),
)

# -- a server --------------------------------------------------------------------------------------

READY: Final = Described(
    "gptnode_server_ready", "gauge", "1 while /readyz says that the server is ready, else 0."
)
BLOCKS_LOADED: Final = Described(
    "gptnode_server_blocks_loaded",
    "gauge",
    "Blocks of the model that clients can open now.",
    ("model",),
)
SESSIONS: Final = Described("gptnode_server_sessions", "gauge", "Sessions that are open now.")
SESSIONS_LIMIT: Final = Described(
    "gptnode_server_sessions_limit", "gauge", "Sessions that there may be (--max-sessions)."
)
KV_BYTES: Final = Described(
    "gptnode_server_kv_bytes", "gauge", "Cache memory that open sessions have reserved."
)
KV_LIMIT_BYTES: Final = Described(
    "gptnode_server_kv_limit_bytes", "gauge", "Cache memory that there may be (--kv-memory)."
)
PEER_SESSIONS: Final = Described(
    "gptnode_server_peer_sessions",
    "gauge",
    "Open sessions of one peer or client of the BlocksMap; those without any are left out.",
    ("peer",),
)
SESSIONS_OPENED: Final = Described(
    "gptnode_server_sessions_opened_total", "counter", "Sessions that were opened.", ("model",)
)
SESSIONS_REFUSED: Final = Described(
    "gptnode_server_sessions_refused_total",
    "counter",
    "Sessions that were not opened, by the code that the client was told, such as busy or loading.",
    ("reason",),
)
SESSIONS_ENDED: Final = Described(
    "gptnode_server_sessions_ended_total",
    "counter",
    "Open sessions that ended: closed by the client, going_away (handed over to other peers),"
    " lost with the connection, failed here, or with the code that the client was told.",
    ("how",),
)
SERVER_TOKENS: Final = Described(
    "gptnode_server_tokens_total",
    "counter",
    "Tokens that went through this server's blocks. Phase decode: in steps of 32 tokens or fewer,"
    " guessed ones included; prefill: in longer ones.",
    ("model", "phase"),
)
SERVER_STEP_SECONDS: Final = Described(
    "gptnode_server_step_seconds",
    "histogram",
    "Time of a step on this server: queue (waiting for its turn) and compute.",
    ("model", "phase", "part"),
    STEP_BUCKETS_S,
)
BATCH_STEPS: Final = Described(
    "gptnode_server_batch_steps",
    "histogram",
    "Steps of different sessions that were computed as one batch.",
    (),
    BATCH_BUCKETS,
)
BATCH_ROWS: Final = Described(
    "gptnode_server_batch_rows",
    "histogram",
    "Tokens in such a batch.",
    (),
    BATCH_BUCKETS,
)

# -- a client, or a server of an API ---------------------------------------------------------------

PROMPT_TOKENS: Final = Described(
    "gptnode_client_prompt_tokens_total",
    "counter",
    "Tokens of prompts that were answered.",
    ("model",),
)
REUSED_TOKENS: Final = Described(
    "gptnode_client_reused_tokens_total",
    "counter",
    "Those of them that the caches held already.",
    ("model",),
)
COMPLETION_TOKENS: Final = Described(
    "gptnode_client_completion_tokens_total", "counter", "Tokens of answers.", ("model",)
)
GUESSED_TOKENS: Final = Described(
    "gptnode_client_guessed_tokens_total", "counter", "Tokens that were guessed ahead.", ("model",)
)
ACCEPTED_TOKENS: Final = Described(
    "gptnode_client_accepted_tokens_total", "counter", "Those of them that were right.", ("model",)
)
REFILLED_TOKENS: Final = Described(
    "gptnode_client_refilled_tokens_total",
    "counter",
    "Tokens that hops were given again because their blocks had moved to another peer.",
    ("model",),
)
ANSWERS: Final = Described(
    "gptnode_client_answers_total",
    "counter",
    "Answers, by what ended them: end, stop, length, context, cancelled or failed.",
    ("model", "reason"),
)
FIRST_TOKEN_SECONDS: Final = Described(
    "gptnode_client_first_token_seconds",
    "histogram",
    "From a prompt to the first token of its answer.",
    ("model",),
    ANSWER_BUCKETS_S,
)
TOKEN_SECONDS: Final = Described(
    "gptnode_client_token_seconds",
    "histogram",
    "Time of each further token; next to nothing for one that was guessed.",
    ("model",),
    STEP_BUCKETS_S,
)
HOP_SECONDS: Final = Described(
    "gptnode_client_hop_seconds",
    "histogram",
    "Where the time of a prompt (phase prefill) or of a token (decode) went at one hop: queue,"
    " compute, serialise, wire.",
    ("peer", "phase", "part"),
    STEP_BUCKETS_S,
)
OWN_SECONDS: Final = Described(
    "gptnode_client_own_seconds",
    "histogram",
    "The client's own part in it: compute (embedding, head, sampling) and queue, which has opening"
    " sessions and failed attempts in it.",
    ("phase", "part"),
    STEP_BUCKETS_S,
)
FAILOVERS: Final = Described(
    "gptnode_client_failovers_total",
    "counter",
    "Hops in use that failed, by peer and cause: lost, down, busy, slow or wrong.",
    ("peer", "cause"),
)
OPEN_FAILURES: Final = Described(
    "gptnode_client_open_failures_total",
    "counter",
    "Sessions that could not be opened, by peer and cause.",
    ("peer", "cause"),
)
REROUTES: Final = Described(
    "gptnode_client_reroutes_total",
    "counter",
    "Routes that were made again, because of a failure or of a map_edit.",
    ("cause",),
)
SERVICE_ANSWERING: Final = Described(
    "gptnode_service_answering", "gauge", "Requests that are being answered."
)
SERVICE_WAITING: Final = Described(
    "gptnode_service_waiting", "gauge", "Requests that wait for their turn."
)
SERVICE_IDLE: Final = Described(
    "gptnode_service_idle_contexts",
    "gauge",
    "Contexts that are kept with their caches, for conversations that go on.",
)
SERVICE_KV_BYTES: Final = Described(
    "gptnode_service_own_kv_bytes", "gauge", "Memory of the caches of this node's own blocks."
)

CATALOGUE: Final = tuple(one for one in dict(globals()).values() if isinstance(one, Described))
"""All of them, in the order of this file."""
