"""Four peers at growing distances: tokens a second as a star, as a ring, and with guesses.

Each server is reached through a proxy that holds every byte back for a while, both ways, so every
link has that delay: from the client to a server, and from server to server. A token through N hops
takes 2N delays in a star, and N + 1 in a ring.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench, Row
from benchmarks.processes import run_json
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import Figures, gptnode_bench
from benchmarks.swarm import FarSwarm, far_swarm
from gptnode.demo.bundled import bundled_model_folder

__all__ = ["LATENCY"]

NAME = "latency"
DTYPE = "bf16"
N_SERVERS = 4
DELAYS_MS = (0, 5, 10, 25, 50)
JUDGED_MS = 25
OF_THE_LIMIT = 0.90
WITH_GUESSES = 2.0
WORKER = Path(__file__).resolve().parent.parent / "workers" / "repeated_question.py"


def measure_latency(bench: Bench) -> Outcome:
    """All delays, in turn, over the model of the other rows; guesses over the bundled one."""
    threads = bench.settings.threads
    rates: dict[tuple[str, int], list[float]] = {}
    compute_s: list[float] = []
    with far_swarm(bench.weights.folder(DTYPE), N_SERVERS, threads) as swarm:
        for delay_ms in DELAYS_MS:
            with swarm.wires(delay_ms):
                ring = partial(gptnode_bench, bench, swarm.where)
                star = partial(gptnode_bench, bench, (*swarm.where, "--star"))
                found = bench.in_turn({f"star, {delay_ms} ms": star, f"ring, {delay_ms} ms": ring})
            for shape in ("star", "ring"):
                runs = found[f"{shape}, {delay_ms} ms"]
                rates[shape, delay_ms] = [run.decode_tokens_per_s for run in runs]
                compute_s += [_compute_s(run) for run in runs]
    with far_swarm(bundled_model_folder(), N_SERVERS, threads) as swarm:
        for delay_ms in DELAYS_MS:
            with swarm.wires(delay_ms):
                plain = partial(_asked_again, bench, swarm, "--no-speculation")
                guessed = partial(_asked_again, bench, swarm)
                sides = {f"again, {delay_ms} ms": plain, f"again, guessed, {delay_ms} ms": guessed}
                found_again = bench.in_turn(sides)
            rates["again", delay_ms] = found_again[f"again, {delay_ms} ms"]
            rates["again, guessed", delay_ms] = found_again[f"again, guessed, {delay_ms} ms"]
    outcome = _outcome(rates, median(compute_s))
    _draw(bench.results / f"{NAME}.svg", rates)
    return outcome


def _compute_s(run: Figures) -> float:
    """What client and hops computed for a token, in seconds: all that no route can save."""
    return sum(times.parts_ms[1] for times in run.times) / 1000


def _asked_again(bench: Bench, swarm: FarSwarm, *options: str) -> float:
    _, map_path, _, identity = swarm.where
    threads = str(bench.settings.threads)
    answer = run_json([sys.executable, WORKER, map_path, identity, threads, *options])
    return float(answer["tokens_per_s"])


def _outcome(rates: dict[tuple[str, int], list[float]], compute_s: float) -> Outcome:
    ring_limit = 1 / (compute_s + (N_SERVERS + 1) * JUDGED_MS / 1000)
    star_limit = 1 / (compute_s + 2 * N_SERVERS * JUDGED_MS / 1000)
    far_limit = 1 / ((N_SERVERS + 1) * JUDGED_MS / 1000)
    ring, star, guessed = (
        tuple(rates[shape, JUDGED_MS]) for shape in ("ring", "star", "again, guessed")
    )
    at = f"at {JUDGED_MS} ms"
    return Outcome(
        tuple(
            Series(f"{shape}, {delay_ms} ms one way", "tokens/s", tuple(values))
            for (shape, delay_ms), values in rates.items()
        ),
        (
            Finding(
                f"ring {at} / its limit",
                "x",
                tuple(rate / ring_limit for rate in ring),
                Target(OF_THE_LIMIT),
            ),
            Finding(f"star {at} / its limit", "x", tuple(rate / star_limit for rate in star)),
            Finding(
                f"ring with guesses, text that repeats, {at} / a ring's limit without computing",
                "x",
                tuple(rate / far_limit for rate in guessed),
                Target(WITH_GUESSES),
            ),
        ),
        (
            f"{N_SERVERS} servers; star and ring: {DTYPE}, token ids at random, nothing guessed",
            "again: the bundled model, asked the same a second time",
            f"a token takes {1000 * compute_s:.1f} ms of computing on client and servers together",
        ),
    )


def _draw(path: Path, rates: dict[tuple[str, int], list[float]]) -> None:
    """Tokens a second over the round trip of a link."""
    from matplotlib.figure import Figure as Picture  # an extra: only where a picture is wanted

    picture = Picture(figsize=(8, 4.5), layout="constrained")
    axes = picture.subplots()
    labels = {
        "star": "star, 1.24 B",
        "ring": "ring, 1.24 B",
        "again": "ring, bundled model",
        "again, guessed": "ring with guesses, bundled model",
    }
    for (shape, label), marker in zip(labels.items(), "osD^", strict=True):
        points = [(2 * d, median(v)) for (s, d), v in rates.items() if s == shape]
        axes.plot(*zip(*points, strict=True), marker=marker, label=label)
    axes.set(
        xlabel="round trip of every link, ms",
        ylabel="tokens/s",
        yscale="log",
        title=f"{N_SERVERS} peers, decoding for one user",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path)


LATENCY = Row(
    NAME, "four peers as a star, as a ring and with guesses, at growing distances", measure_latency
)
