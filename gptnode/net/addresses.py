"""Addresses of TCP endpoints: reading multiaddrs, and telling where a node or its peer is reached.

Knows text and the machine's interfaces; of a socket, whose other end it has. Knows no libp2p.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

import psutil
import trio

from gptnode.errors import NetworkError

__all__ = ["Endpoint", "host_port_text", "other_end", "parse_endpoint", "reachable_addrs"]

_DNS = ("dns", "dns4", "dns6")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_FORMS = "write /ip4/192.168.1.7/tcp/4001, /ip6/.../tcp/4001 or /dns/name/tcp/4001"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One TCP endpoint."""

    kind: str  # "ip4", "ip6", "dns", "dns4", "dns6"
    host: str
    port: int
    peer_id: str | None = None

    def __str__(self) -> str:
        """As a multiaddr, without the peer id."""
        return f"/{self.kind}/{self.host}/tcp/{self.port}"

    @property
    def is_name(self) -> bool:
        """Whether the host is a name that has to be looked up."""
        return self.kind in _DNS


def parse_endpoint(addr: str) -> Endpoint:
    """Read "/ip4/1.2.3.4/tcp/4001[/p2p/12D3...]" and its ip6 and dns kin, or raise NetworkError."""
    parts = addr.split("/")
    if (
        len(parts) not in (5, 7)
        or parts[0]
        or (len(parts) == 7 and parts[5] not in ("p2p", "ipfs"))
    ):
        raise NetworkError(f"{addr!r} is no address that gptnode can use: {_FORMS}")
    _, kind, host, transport, port = parts[:5]
    if transport != "tcp":
        raise NetworkError(f"{addr!r} is not over TCP: {_FORMS}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise NetworkError(f"{addr!r} has no port from 0 to 65535 after /tcp/")
    if kind in ("ip4", "ip6"):
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            ip = None
        if ip is None or ip.version != int(kind[2]):
            raise NetworkError(f"{addr!r} has no IPv{kind[2]} address after /{kind}/")
        host = str(ip)
    elif kind not in _DNS or not _HOST_NAME.fullmatch(host):
        raise NetworkError(f"{addr!r} is no address that gptnode can use: {_FORMS}")
    return Endpoint(kind, host, int(port), parts[6] if len(parts) == 7 else None)


def reachable_addrs(bound: Endpoint, peer_id: str) -> tuple[str, ...]:
    """The multiaddrs, with peer id, at which others reach a node that listens on ``bound``.

    A wildcard (0.0.0.0, ::) becomes the addresses of the interfaces that are up, loopback last;
    link-local ones, which mean nothing on another machine, are left out.
    """
    ip = ipaddress.ip_address(bound.host)
    hosts = _interface_hosts(bound.kind) if ip.is_unspecified else (str(ip),)
    return tuple(f"/{bound.kind}/{host}/tcp/{bound.port}/p2p/{peer_id}" for host in hosts)


def other_end(connected: trio.socket.SocketType) -> tuple[str, int] | None:
    """Host and port of a socket's other end, for IPv4 and IPv6; None when it is gone already."""
    try:
        host, port = connected.getpeername()[:2]
    except OSError:
        return None
    return str(host), int(port)


def host_port_text(host: str, port: int) -> str:
    """``HOST:PORT``, for people, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _interface_hosts(kind: str) -> tuple[str, ...]:
    family = socket.AF_INET if kind == "ip4" else socket.AF_INET6
    up = {name for name, status in psutil.net_if_stats().items() if status.isup}
    found = {
        ipaddress.ip_address(one.address.partition("%")[0])
        for name, addresses in psutil.net_if_addrs().items()
        if name in up
        for one in addresses
        if one.family == family
    }
    loopback = "127.0.0.1" if kind == "ip4" else "::1"
    outside = sorted(
        (ip for ip in found if not (ip.is_loopback or ip.is_link_local)), key=lambda ip: ip.packed
    )
    return (*map(str, outside), loopback)
