"""`gptnode bench` over two real servers: a hop each, and times that add up."""

from __future__ import annotations

from typing import Any

import pytest

from gptnode.demo.swarm import LocalSwarm

from .conftest import gptnode

PARTS = ("queue_ms", "compute_ms", "serialise_ms", "wire_ms")
ROUNDING_MS = 0.002
"""A dozen figures are rounded to 0.1 us each."""


def total_ms(found: dict[str, Any]) -> float:
    """All parts of all hops, and the client's own."""
    return sum(sum(row[part] for part in PARTS) for row in [*found["hops"], found["client"]])


@pytest.fixture(scope="module")
def found(two_servers: LocalSwarm) -> dict[str, Any]:
    """One prefill and one step: their medians are the times themselves."""
    return gptnode(
        *("bench", "--map", two_servers.map_path),
        *("--identity", two_servers.client_identity_path),
        *("--prompt-tokens", "300", "--tokens", "1", "--context", "310"),
        *("--threads", "1", "--json"),
    ).answer


def test_each_server_is_a_hop(found: dict[str, Any], two_servers: LocalSwarm) -> None:
    hops = [(hop["peer"], hop["peer_id"], hop["blocks"]) for hop in found["hops"]]
    places = [server.place for server in two_servers.servers]
    assert hops == [(place.name, place.peer_id, str(place.span)) for place in places]


def test_the_hops_add_up_to_the_step(found: dict[str, Any]) -> None:
    (step_ms,) = found["steps_ms"]
    assert found["step_ms"] == {"p50": step_ms, "p95": step_ms, "p99": step_ms}
    assert total_ms(found) == pytest.approx(step_ms, abs=ROUNDING_MS)
    assert found["decode_tokens_per_s"] == pytest.approx(1000 / step_ms, rel=0.001)


def test_the_hops_of_a_prefill_are_busy_at_the_same_time(found: dict[str, Any]) -> None:
    (prefill_ms,) = found["prefills_ms"]
    assert all(hop["compute_ms"] <= prefill_ms for hop in found["prefill"]["hops"])
    assert total_ms(found["prefill"]) >= prefill_ms - ROUNDING_MS
    assert found["ttft_s"] == pytest.approx(prefill_ms / 1000, abs=1e-6)
    assert found["prefill_tokens_per_s"] == pytest.approx(300_000 / prefill_ms, rel=0.001)


def test_every_hop_computed_and_was_reached_over_the_wire(found: dict[str, Any]) -> None:
    for hop in [*found["hops"], *found["prefill"]["hops"]]:
        assert hop["compute_ms"] > 0
        assert hop["serialise_ms"] > 0
        assert hop["wire_ms"] > 0


def test_this_process_holds_neither_blocks_nor_caches(found: dict[str, Any]) -> None:
    assert found["kv_bytes"] == 0
    assert 0 < found["weight_bytes"] < found["resident_bytes"]
