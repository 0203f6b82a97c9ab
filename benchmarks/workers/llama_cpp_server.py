"""llama_cpp_server.py PORT THREADS: one of llama.cpp's RPC servers on loopback.

Runs in the rivals' environment until it is ended. It can't say when it listens, so ``ready`` comes
before; a client dials until it is answered.
"""

from __future__ import annotations

import ctypes
import sys

from llama_cpp_bench import library  # type: ignore[import-not-found]  # a neighbour

CPU_DEVICE = 0


def main() -> None:
    """Serve the processor of this machine."""
    port, threads = map(int, sys.argv[1:3])
    ggml, rpc = library("ggml"), library("ggml-rpc")
    ggml.ggml_backend_load_all()
    ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    devices = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_type(CPU_DEVICE))
    rpc.ggml_backend_rpc_start_server.argtypes = [
        ctypes.c_char_p,  # endpoint
        ctypes.c_char_p,  # folder of its cache: none
        ctypes.c_size_t,  # threads
        ctypes.c_size_t,  # devices
        ctypes.c_void_p,
    ]
    print("ready", flush=True)
    sys.stdout = sys.stderr
    rpc.ggml_backend_rpc_start_server(f"127.0.0.1:{port}".encode(), None, threads, 1, devices)


if __name__ == "__main__":
    main()
