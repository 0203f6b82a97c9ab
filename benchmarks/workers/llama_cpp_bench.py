"""llama_cpp_bench.py FILE.gguf: prefill and greedy decode with llama.cpp, as one line of JSON.

Runs in the rivals' environment. Loads, warms up with the whole prompt and a few steps, forgets
them, then measures. A step is what a chat does: compute, fetch the logits, take the greatest.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from pathlib import Path

import llama_cpp  # type: ignore[import-not-found]
import numpy as np

FIRST_ID = 300
WARM_UP_STEPS = 4
LIBRARIES = Path(llama_cpp.__file__).parent / "lib"


def library(name: str) -> ctypes.CDLL:
    """One of llama.cpp's own shared libraries."""
    path = next(path for path in LIBRARIES.iterdir() if path.stem == f"lib{name}")
    return ctypes.CDLL(str(path))


def use_servers(endpoints: list[str]) -> None:
    """Make llama.cpp's RPC servers at HOST:PORT devices that layers can be put on."""
    ggml, rpc = library("ggml"), library("ggml-rpc")
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    rpc.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    for endpoint in endpoints:
        registry = rpc.ggml_backend_rpc_add_server(endpoint.encode())
        if not registry:
            raise SystemExit(f"no RPC server at {endpoint}")
        ggml.ggml_backend_register(registry)


class Model:
    """llama.cpp over one GGUF file."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Load it; all layers go to the servers if there are any."""
        self._llama = llama_cpp.Llama(
            options.model,
            n_ctx=options.prompt_tokens + options.tokens + WARM_UP_STEPS,
            n_threads=options.threads,
            n_threads_batch=options.threads,
            n_batch=512,
            n_gpu_layers=-1 if options.rpc else 0,
            flash_attn=True,  # as llama.cpp itself chooses; prompts are faster with it
            verbose=False,
        )

    def next_id(self, ids: list[int]) -> int:
        """The likeliest id after ``ids``, which follow what went before."""
        self._llama.eval(ids)
        # Fetching waits for the result: with servers, eval alone returns before it is there.
        logits = self._llama._ctx.get_logits()
        return int(np.ctypeslib.as_array(logits, shape=(self._llama.n_vocab(),)).argmax())

    def forget(self) -> None:
        """Begin a new context."""
        self._llama.reset()


def measure(model: Model, prompt: list[int], tokens: int) -> tuple[float, list[float], list[int]]:
    """Seconds for the prompt, seconds for each step after it, and the ids that came out."""
    model.forget()
    start = time.perf_counter()
    ids = [model.next_id(prompt)]
    prefill_s = time.perf_counter() - start
    steps_s = []
    for _ in range(tokens):
        start = time.perf_counter()
        ids.append(model.next_id(ids[-1:]))
        steps_s.append(time.perf_counter() - start)
    return prefill_s, steps_s, ids


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rpc", action="append", default=[], metavar="HOST:PORT")
    options = parser.parse_args()
    use_servers(options.rpc)
    model = Model(options)
    prompt = list(range(FIRST_ID, FIRST_ID + options.prompt_tokens))
    measure(model, prompt, WARM_UP_STEPS)
    prefill_s, steps_s, ids = measure(model, prompt, options.tokens)
    print(
        json.dumps(
            {
                "prefill_tokens_per_s": len(prompt) / prefill_s,
                "decode_tokens_per_s": 1 / statistics.median(steps_s),
                "ids": ids,
            }
        )
    )


if __name__ == "__main__":
    main()
