from __future__ import annotations

from benchmarks.sides import PARTS, Figures, Times

HOP = {"peer": "anna", "queue_ms": 0.1, "compute_ms": 20, "serialise_ms": 0.2, "wire_ms": 0.3}
BENCH = {
    "prefill_tokens_per_s": 300.0,
    "decode_tokens_per_s": 20.0,
    "weight_bytes": 1000,
    "hops": [HOP],
    "client": {"queue_ms": 0.4, "compute_ms": 5.0, "serialise_ms": 0.0, "wire_ms": 0.0},
}


def test_a_bench_tells_rates_weights_and_where_the_time_goes() -> None:
    figures = Figures.of(BENCH, peak_bytes=7)
    assert figures == Figures(
        300.0,
        20.0,
        1000,
        (Times("client", (0.4, 5.0, 0.0, 0.0)), Times("anna", (0.1, 20.0, 0.2, 0.3))),
        7,
    )
    assert PARTS == ("queue", "compute", "serialise", "wire")


def test_a_rival_tells_rates_only() -> None:
    answer = {"prefill_tokens_per_s": 1, "decode_tokens_per_s": 2, "ids": [1]}
    assert Figures.of(answer) == Figures(1.0, 2.0)
