"""Dialling: one peer at its addresses in turn, and words for why none of them works.

Knows addresses, deadlines and handshakes. Knows no host and no links.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from gptnode.errors import NetworkError, PeerRefusedError, PeerUnreachableError
from gptnode.net.addresses import parse_endpoint
from gptnode.net.handshake import HandshakeError, Handshaker, RefusedError, WrongPeerError
from gptnode.net.identity import short_peer_id
from gptnode.net.muxer import Muxer
from gptnode.net.socket_connection import SocketConnection

__all__ = ["dial_first", "os_reason"]


async def dial_first(
    handshaker: Handshaker, peer_id: str, addrs: Sequence[str], deadline: float
) -> tuple[SocketConnection, Muxer]:
    """A connection to ``peer_id`` at the first of ``addrs`` that works; the caller owns it.

    Each address gets an equal part of the time left until ``deadline`` (trio's clock). Raises
    PeerRefusedError where one hung up once it knew us, else PeerUnreachableError; either has the
    reason of every address.
    """
    failures: list[str] = []
    refused = False
    for index, addr in enumerate(addrs):
        budget_s = max(0.0, deadline - trio.current_time()) / (len(addrs) - index)
        try:
            with trio.fail_after(budget_s):
                return await _dial(handshaker, peer_id, addr)
        except trio.TooSlowError:
            failures.append(f"at {addr}: timed out after {budget_s:.1f} s")
        except RefusedError as error:
            refused = True
            failures.append(f"at {addr}: {error}")
        except WrongPeerError as error:
            failures.append(f"at {addr}: another peer answers there, {error}")
        except HandshakeError as error:
            failures.append(f"at {addr}: {error}")
        except OSError as error:
            failures.append(f"at {addr}: {os_reason(error)}")
        except NetworkError as error:  # an address that can't be read
            failures.append(error.detail)
    if refused:
        raise PeerRefusedError(f"{short_peer_id(peer_id)} refuses this node: {'; '.join(failures)}")
    raise PeerUnreachableError(f"cannot reach {short_peer_id(peer_id)} {'; '.join(failures)}")


async def _dial(handshaker: Handshaker, peer_id: str, addr: str) -> tuple[SocketConnection, Muxer]:
    endpoint = parse_endpoint(addr)
    if endpoint.peer_id not in (None, peer_id):
        raise WrongPeerError(f"as the address itself says: {endpoint.peer_id}")
    stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    raw = SocketConnection(stream, is_initiator=True)
    try:
        return raw, await handshaker.dial(raw, peer_id)
    except BaseException:
        raw.close_now()
        raise


def os_reason(error: OSError) -> str:
    """Why a socket call failed, in the kernel's words, also out of trio's collected attempts."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup) and cause.exceptions:
        cause = cause.exceptions[0]
    first = cause if isinstance(cause, OSError) else error
    if first.errno is not None and first.errno > 0:  # trio writes words of its own into strerror
        return os.strerror(first.errno).lower()
    return (first.strerror or str(first) or type(first).__name__).lower()
