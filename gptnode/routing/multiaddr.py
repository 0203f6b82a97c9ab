"""Whether a text is a multiaddr that gptnode can dial: TCP at an IP address or a name.

Syntax only (https://github.com/multiformats/multiaddr): no name is looked up, nothing is dialled.
"""

from __future__ import annotations

import ipaddress
import re

from gptnode.routing.peer_id import peer_id_problem

__all__ = ["EXAMPLE", "multiaddr_problem"]

EXAMPLE = "/ip4/192.168.1.10/tcp/4001"
NAMES = frozenset({"dns", "dns4", "dns6"})
HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
MAX_NAME_CHARS = 253


def multiaddr_problem(text: str, peer_id: str | None = None) -> str | None:
    """What keeps ``text`` from being an address of ``peer_id``, or None if it is one.

    Its forms are ``/ip4/HOST/tcp/PORT``, with ``ip6``, ``dns``, ``dns4`` or ``dns6`` for ``ip4``,
    and with ``/p2p/ID`` at the end where somebody wants to say it twice.
    """
    if not text.startswith("/"):
        return "does not begin with /"
    kind, host, transport, port, *rest = (*text[1:].split("/"), "", "", "")
    rest = rest[:-3] if len(rest) >= 3 else []
    problem = _host_problem(kind, host)
    if problem is not None:
        return problem
    if transport != "tcp":
        found = f"/{transport}" if transport else "nothing"
        return f"has {found} after the host, and only /tcp is spoken here"
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        return "has no port from 1 to 65535 after /tcp/"
    return _end_problem(rest, peer_id)


def _host_problem(kind: str, host: str) -> str | None:
    """What is wrong with ``/ip4/HOST``, ``/dns/HOST`` and so on."""
    if kind in ("ip4", "ip6"):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return f"has no IPv{kind[2]} address after /{kind}/"
        if address.version != int(kind[2]) or "%" in host:
            return f"has no IPv{kind[2]} address after /{kind}/"
        if address.is_unspecified:
            return f"has {host}, where a node listens, not an address that others can dial"
        return None
    if kind not in NAMES:
        return f"begins with /{kind}, not with /ip4, /ip6, /dns, /dns4 or /dns6"
    labels = host.removesuffix(".").split(".")
    if len(host) > MAX_NAME_CHARS or not all(HOST_LABEL.fullmatch(label) for label in labels):
        return f"has no host name after /{kind}/"
    return None


def _end_problem(rest: list[str], peer_id: str | None) -> str | None:
    """What is wrong with what follows the port."""
    if not rest:
        return None
    if len(rest) != 2 or rest[0] not in ("p2p", "ipfs"):
        return f"goes on with /{'/'.join(rest)} after the port, where only /p2p/ID may stand"
    problem = peer_id_problem(rest[1])
    if problem is not None:
        return f"has a peer id after /{rest[0]}/ that {problem}"
    if peer_id is not None and rest[1] != peer_id:
        return f"ends with the peer id {rest[1]}, which is not this peer's"
    return None
