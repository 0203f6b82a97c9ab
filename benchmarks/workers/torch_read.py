"""torch_read.py MIB THREADS PASSES: read_bandwidth.c for machines without a C compiler."""

from __future__ import annotations

import json
import sys
import time

import torch


def main() -> None:
    """Sum up a tensor of 64-bit numbers again and again."""
    mib, threads, passes = map(int, sys.argv[1:4])
    torch.set_num_threads(threads)
    buffer = torch.ones(mib << 17, dtype=torch.int64)
    rates = []
    for _ in range(passes + 1):
        start = time.perf_counter()
        buffer.sum()
        rates.append(buffer.nbytes / (time.perf_counter() - start))
    print(json.dumps({"bytes_per_s": {"torch sum of int64": rates[1:]}}))


if __name__ == "__main__":
    main()
