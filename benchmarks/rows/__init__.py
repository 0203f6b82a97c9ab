"""All rows, in the order of the table in the documentation."""

from __future__ import annotations

from benchmarks.bench import Row
from benchmarks.rows.batched import BATCHED
from benchmarks.rows.context_curve import CONTEXT_CURVE
from benchmarks.rows.decode import DECODE
from benchmarks.rows.echo import ECHO
from benchmarks.rows.latency import LATENCY
from benchmarks.rows.long_context import LONG_CONTEXT
from benchmarks.rows.many_peers import MANY_PEERS
from benchmarks.rows.many_users import MANY_USERS
from benchmarks.rows.memory import MEMORY
from benchmarks.rows.neighbours import NEIGHBOURS
from benchmarks.rows.pipelined_prefill import PIPELINED_PREFILL
from benchmarks.rows.prefill import PREFILL
from benchmarks.rows.start_up import START_UP
from benchmarks.rows.two_peers import TWO_PEERS
from benchmarks.rows.users import USERS

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (
    *DECODE,
    *PREFILL,
    TWO_PEERS,
    MANY_PEERS,
    PIPELINED_PREFILL,
    LONG_CONTEXT,
    START_UP,
    MEMORY,
    CONTEXT_CURVE,
    BATCHED,
    USERS,
    MANY_USERS,
    NEIGHBOURS,
    LATENCY,
    ECHO,
)
