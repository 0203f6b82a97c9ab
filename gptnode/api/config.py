"""What the API is told when it starts: where it listens, who may ask, and how much of it.

Frozen and typed; parsed once by the command line. Nothing here reads files or the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from gptnode.errors import UsageError

__all__ = ["Address", "ApiConfig", "ApiLimits", "Defaults", "parse_address"]

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
MIN_TOKEN_CHARS = 16
HOST = re.compile(r"[a-z0-9_.-]+(:[0-9]{1,5})?")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9_.:\[\]-]+")  # of browsers' extensions, too


@dataclass(frozen=True, slots=True)
class Address:
    """A host to listen on, as an IP literal without brackets, and a TCP port (0: any)."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ip_address(self.host).is_loopback

    def __str__(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Sampling where a request doesn't say: OpenAI's values, unless the model has its own."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """What one request, and all together, may cost.

    ``max_requests``: requests at once, waiting ones included; more get 429. How many of them are
    computed at once is the service's business. ``max_choices``: answers of one request, prompts
    times ``n``. ``max_answer_tokens`` None: as far as the context reaches. ``body_timeout_s``: for
    the whole body to arrive. ``status_patience_s``: how long a stream's headers wait for the first
    token, so that an error can still be a status. ``stalled_s``: how long a client may not read.
    """

    max_body_bytes: int = 8 << 20
    body_timeout_s: float = 30.0
    max_requests: int = 256
    max_messages: int = 4096
    max_choices: int = 16
    max_tools: int = 128
    max_answer_tokens: int | None = None
    status_patience_s: float = 3.0
    keep_alive_s: float = 10.0
    stalled_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """An API server.

    ``token`` None asks nobody for one, and is for loopback only. ``hosts`` are names besides IP
    addresses that this server is reached by; ``origins`` are those of web pages elsewhere that may
    use it. ``graceful_s``: how long answers may go on after SIGTERM. ``read_only_map``: the web
    page shows the BlocksMap and can't change it.

    Raises:
        UsageError: it would be open to the network without a token, or the token is short.
    """

    address: Address = Address("127.0.0.1", 8000)
    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    certificate: Path | None = None
    key: Path | None = None
    graceful_s: float = 20.0
    read_only_map: bool = False
    limits: ApiLimits = ApiLimits()
    defaults: Defaults = Defaults()

    def __post_init__(self) -> None:
        """Refuse what isn't safe."""
        if self.token is None and not self.address.is_loopback:
            raise UsageError(
                f"whoever reaches {self.address} could use the swarm: give a token with"
                " --token-file FILE (--create-token makes one), or listen on 127.0.0.1"
            )
        if self.token is not None and len(self.token) < MIN_TOKEN_CHARS:
            raise UsageError(f"the token has fewer than {MIN_TOKEN_CHARS} characters")
        for origin in self.origins:
            if ORIGIN.fullmatch(origin) is None:
                raise UsageError(
                    f"--allow-origin {origin}: an origin is a scheme and a host, such as"
                    " https://chat.example.org"
                )
        for host in self.hosts:
            if HOST.fullmatch(host) is None:
                raise UsageError(f"--allow-host {host}: a name is such as swarm.example.org")
        if (self.certificate is None) != (self.key is None):
            raise UsageError("TLS takes both --certificate and --key")

    def knows_host(self, host: str) -> bool:
        """Whether ``host``, as a Host header has it, means this server.

        On loopback: one of its own names, with its port. Elsewhere: any IP address (a page that
        rebinds its name can't have one), ``localhost``, and the names that were given.
        """
        name, port = _split_port(host.lower())
        if self.names_host(host):
            return True
        if self.address.is_loopback:
            own = 443 if self.certificate is not None else 80
            return name in {*LOOPBACK_NAMES, _bracketed(self.address.host)} and (
                port == str(self.address.port) or (not port and self.address.port == own)
            )
        return name == "localhost" or _is_ip(name)

    def names_host(self, host: str) -> bool:
        """Whether ``host`` is one of the names that were given, with or without its port."""
        return not self.hosts.isdisjoint({host.lower(), _split_port(host.lower())[0]})

    def own_origins(self, host: str, scheme: str) -> frozenset[str]:
        """The origins of this server's own page, asked for at ``host``.

        A name that was given may be that of a proxy, which speaks TLS in this server's place.
        """
        schemes = {scheme, "https"} if self.names_host(host) else {scheme}
        return frozenset(f"{each}://{host}".lower() for each in schemes)


def parse_address(text: str) -> Address:
    """``127.0.0.1:8000``, ``[::1]:8000``, ``localhost:8000`` or ``:8000`` (all interfaces).

    Raises:
        UsageError: it is none of them.
    """
    name, port = _split_port(text.strip())
    name = {"": "0.0.0.0", "localhost": "127.0.0.1", "*": "0.0.0.0"}.get(name, name)
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not port.isascii() or not port.isdigit() or int(port) > 65535 or not _is_ip(name):
        raise UsageError(f"--listen takes an IP address and a port, such as 127.0.0.1:8000: {text}")
    return Address(bare, int(port))


def _split_port(host: str) -> tuple[str, str]:
    """Name and port of ``name:port`` or ``[v6]:port``; the port is empty if there is none."""
    if host.startswith("["):
        name, bracket, port = host.partition("]")
        return name + bracket, port.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_ip(name: str) -> bool:
    """Whether ``name`` is an IP literal, version 6 in brackets."""
    version_6 = name.startswith("[") and name.endswith("]")
    try:
        found = ip_address(name[1:-1] if version_6 else name)
    except ValueError:
        return False
    return (found.version == 6) == version_6
