"""The proxy that makes a wire longer."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptnode.demo.layout import free_ports

PROXY = Path(__file__).parents[2] / "benchmarks/workers/delay_proxy.py"
DELAY_MS = 60


@pytest.fixture
def port() -> Iterator[int]:
    """A port of the proxy, in front of a server that sends back what it gets."""
    (listen,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        pair = f"{listen}:{server.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, PROXY, str(DELAY_MS), pair], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield listen
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def test_bytes_arrive_in_order_and_late_both_ways(port: int) -> None:
    sent = bytes(range(256)) * 4000
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        began_s = time.monotonic()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert time.monotonic() - began_s >= 2 * DELAY_MS / 1000
        threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
        received = b""
        while len(received) < len(sent):
            received += client.recv(1 << 20)
    assert received == sent
