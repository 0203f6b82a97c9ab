"""Two `gptnode serve` processes on loopback against one process; llama.cpp's own split likewise."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench, Row
from benchmarks.processes import ServerProcess, run_json, server_process
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import PARTS, Figures, gptnode_bench, llama_cpp
from benchmarks.stats import ratios
from benchmarks.swarm import Swarm, running_swarm
from gptnode.demo.layout import free_ports
from gptnode.errors import PeerUnreachableError

__all__ = ["TWO_PEERS"]

DTYPE = "bf16"
N_SERVERS = 2
SPLIT = "gptnode, two servers"
KEPT = 0.95
WORKERS = Path(__file__).resolve().parent.parent / "workers"
SERVER = WORKERS / "llama_cpp_server.py"
IN_TURN = WORKERS / "split_and_whole.py"
DIAL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Slices:
    """Prefills and slices of decoding in turn, in seconds: pairs that saw the same machine."""

    whole_s: dict[str, tuple[float, ...]]
    split_s: dict[str, tuple[float, ...]]

    def kept(self, what: str) -> float:
        """The median over the pairs of one process' time to that over two servers."""
        return median(ratios(self.whole_s[what], self.split_s[what]))


@dataclass(frozen=True, slots=True)
class LlamaServers:
    """llama.cpp's RPC servers; ``endpoints`` are their HOST:PORT."""

    servers: tuple[ServerProcess, ...]
    endpoints: tuple[str, ...]


class IdleWatch:
    """One process, and how busy the servers were that had nothing to do meanwhile."""

    def __init__(self, bench: Bench, servers: tuple[ServerProcess, ...]) -> None:
        """``servers`` serve, and nobody uses them."""
        self._bench = bench
        self._servers = servers
        self.percent: list[float] = []

    def __call__(self) -> Figures:
        """Measure one process that has all blocks."""
        used_s, started = self._used_s(), time.perf_counter()
        figures = gptnode_bench(self._bench, ("--model-dir", self._bench.weights.folder(DTYPE)))
        elapsed_s = time.perf_counter() - started
        self.percent.append(100 * (self._used_s() - used_s) / elapsed_s)
        return figures

    def _used_s(self) -> float:
        return sum(server.cpu_s for server in self._servers)


def measure_two_peers(bench: Bench) -> Outcome:
    """Alternating runs, through the servers and without them."""
    settings = bench.settings
    with (
        running_swarm(bench.weights.folder(DTYPE), N_SERVERS, settings.threads) as swarm,
        _llama_servers(bench) as theirs,
    ):
        alone = IdleWatch(bench, (*swarm.servers, *theirs.servers))
        sides: dict[str, Callable[[], Figures]] = {
            "gptnode, one process": alone,
            SPLIT: lambda: gptnode_bench(bench, swarm.where),
            "llama.cpp, one process": lambda: llama_cpp(bench, DTYPE),
            "llama.cpp, two servers": lambda: llama_cpp(bench, DTYPE, servers=theirs.endpoints),
        }
        slices = bench.in_turn({"gptnode, slices in turn": lambda: _slices(bench, swarm)})
        found = bench.in_turn(sides)
    pairs = slices["gptnode, slices in turn"]
    decode = {name: tuple(f.decode_tokens_per_s for f in each) for name, each in found.items()}
    prefill = {name: tuple(f.prefill_tokens_per_s for f in each) for name, each in found.items()}

    def kept(rates: dict[str, tuple[float, ...]], side: str) -> tuple[float, ...]:
        return ratios(rates[f"{side}, two servers"], rates[f"{side}, one process"])

    target = Target(KEPT)
    return Outcome(
        (
            *(Series(f"decode: {name}", "tokens/s", values) for name, values in decode.items()),
            *(Series(f"prefill: {name}", "tokens/s", values) for name, values in prefill.items()),
            *_waterfall(found[SPLIT]),
            Series("all servers while idle", "% of a core", tuple(alone.percent)),
        ),
        (
            *(
                Finding(
                    f"{what}, two servers / one process, in turn",
                    "x",
                    tuple(pair.kept(what) for pair in pairs),
                    target,
                )
                for what in ("decode", "prefill")
            ),
            Finding("decode, two servers / one process", "x", kept(decode, "gptnode")),
            Finding("prefill, two servers / one process", "x", kept(prefill, "gptnode")),
            Finding(
                "llama.cpp: decode, two RPC servers / one process", "x", kept(decode, "llama.cpp")
            ),
            Finding(
                "llama.cpp: prefill, two RPC servers / one process", "x", kept(prefill, "llama.cpp")
            ),
        ),
        (
            f"all in {DTYPE}; the client holds embedding and head, the servers eight blocks each",
            "in turn: both in one process, prefill by prefill and eight tokens by eight tokens",
        ),
    )


def _slices(bench: Bench, swarm: Swarm) -> Slices:
    settings, folder = bench.settings, bench.weights.folder(DTYPE)
    _, map_path, _, identity = swarm.where
    numbers = (settings.threads, settings.prompt_tokens, settings.tokens)
    answer = run_json([sys.executable, IN_TURN, folder, map_path, identity, *map(str, numbers)])
    return Slices(
        *(
            {what: tuple(answer[what][side]) for what in ("prefill", "decode")}
            for side in ("whole", "split")
        )
    )


def _waterfall(rounds: list[Figures]) -> Iterator[Series]:
    """Where a decode step through the servers spends its time."""
    for at_once in zip(*(figures.times for figures in rounds), strict=True):
        columns = zip(*(each.parts_ms for each in at_once), strict=True)
        for part, values in zip(PARTS, columns, strict=True):
            if any(values):
                yield Series(f"a step: {at_once[0].name}, {part}", "ms", values)


@contextmanager
def _llama_servers(bench: Bench) -> Iterator[LlamaServers]:
    """llama.cpp's RPC servers, which are ended with the block."""
    ports = free_ports(N_SERVERS)
    python, threads = bench.weights.rivals_python, str(bench.settings.threads)
    with ExitStack() as stack:
        servers = tuple(
            stack.enter_context(server_process([python, SERVER, str(port), threads]))
            for port in ports
        )
        for port in ports:
            _wait_until_listening(port)
        yield LlamaServers(servers, tuple(f"127.0.0.1:{port}" for port in ports))


def _wait_until_listening(port: int) -> None:
    """Dials until somebody answers.

    Raises:
        PeerUnreachableError: nobody did in time.
    """
    deadline = time.monotonic() + DIAL_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as dialling:
            if not dialling.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    raise PeerUnreachableError(f"llama.cpp's RPC server on port {port} doesn't listen")


TWO_PEERS = Row(
    "two-peers",
    "decode and prefill through two servers on loopback against one process",
    measure_two_peers,
    rivals=True,
)
