"""Options of a connected socket that the kernel follows from then on."""

from __future__ import annotations

import contextlib
import socket

import trio

__all__ = ["find_vanished_peers", "keep_line_busy"]

# The kernel asks for more when it has less than this to send.
NOT_SENT_BYTES = 128 * 1024


def keep_line_busy(sock: trio.socket.SocketType) -> None:
    """Ask for more early: with trio's 16 KiB the line runs dry while the next is encrypted."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, NOT_SENT_BYTES)


def find_vanished_peers(sock: trio.socket.SocketType) -> None:
    """Let the kernel end a connection whose other machine is gone, after 20 to 25 s.

    A frozen process is not gone to the kernel: heartbeats in the sessions find that.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 20_000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
