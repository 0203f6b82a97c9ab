"""Which addresses gptnode can dial."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from gptnode.net.addresses import parse_endpoint
from gptnode.routing.multiaddr import EXAMPLE, multiaddr_problem

from .ids import ANNA, BEN, UNHURRIED

RIGHT = [
    EXAMPLE,
    "/ip4/127.0.0.1/tcp/1",
    "/ip6/::1/tcp/65535",
    "/ip6/fd00::7/tcp/4001",
    "/dns/anna.example.org/tcp/4001",
    "/dns4/anna/tcp/4001",
    "/dns6/anna-2.example./tcp/4001",
    f"{EXAMPLE}/p2p/{ANNA}",
    f"/ip6/::1/tcp/4001/p2p/{ANNA}",
]


@pytest.mark.parametrize("addr", RIGHT)
def test_what_is_right_here_is_right_where_it_is_dialled(addr: str) -> None:
    assert multiaddr_problem(addr, ANNA) is None
    assert parse_endpoint(addr).port == int(addr.split("/")[4])
    assert str(Multiaddr(addr)) == addr


def test_names_with_underscores_pass_since_local_networks_have_them() -> None:
    assert multiaddr_problem("/dns/my_service/tcp/4001") is None
    assert parse_endpoint("/dns/my_service/tcp/4001").host == "my_service"


def test_the_older_name_of_p2p_is_understood() -> None:
    assert multiaddr_problem(f"{EXAMPLE}/ipfs/{ANNA}", ANNA) is None


@pytest.mark.parametrize(
    ("addr", "problem"),
    [
        ("", "does not begin with /"),
        ("192.168.1.10:4001", "does not begin with /"),
        ("/", "begins with /, not with /ip4"),
        ("/tcp/4001", "begins with /tcp, not with /ip4"),
        ("/ip4", "has no IPv4 address after /ip4/"),
        ("/ip4/192.168.1/tcp/4001", "has no IPv4 address after /ip4/"),
        ("/ip4/192.168.1.256/tcp/4001", "has no IPv4 address after /ip4/"),
        ("/ip4/::1/tcp/4001", "has no IPv4 address after /ip4/"),
        ("/ip6/127.0.0.1/tcp/4001", "has no IPv6 address after /ip6/"),
        ("/ip6/fe80::1%eth0/tcp/4001", "has no IPv6 address after /ip6/"),
        ("/ip4/0.0.0.0/tcp/4001", "has 0.0.0.0, where a node listens"),
        ("/ip6/::/tcp/4001", "has ::, where a node listens"),
        ("/dns//tcp/4001", "has no host name after /dns/"),
        ("/dns/an na/tcp/4001", "has no host name after /dns/"),
        ("/dns/-anna/tcp/4001", "has no host name after /dns/"),
        ("/dns/anna..org/tcp/4001", "has no host name after /dns/"),
        (f"/dns/{'a' * 64}/tcp/4001", "has no host name after /dns/"),
        (f"/dns/{'a.' * 127}org/tcp/4001", "has no host name after /dns/"),
        ("/ip4/127.0.0.1", "has nothing after the host"),
        ("/ip4/127.0.0.1/udp/4001/quic-v1", "has /udp after the host, and only /tcp"),
        ("/ip4/127.0.0.1/tcp", "has no port from 1 to 65535"),
        ("/ip4/127.0.0.1/tcp/", "has no port from 1 to 65535"),
        ("/ip4/127.0.0.1/tcp/0", "has no port from 1 to 65535"),
        ("/ip4/127.0.0.1/tcp/65536", "has no port from 1 to 65535"),
        ("/ip4/127.0.0.1/tcp/४००१", "has no port from 1 to 65535"),
        ("/ip4/127.0.0.1/tcp/-1", "has no port from 1 to 65535"),
        (f"{EXAMPLE}/", "goes on with / after the port"),
        (f"{EXAMPLE}/ws", "goes on with /ws after the port"),
        (f"{EXAMPLE}/p2p", "goes on with /p2p after the port"),
        (f"{EXAMPLE}/p2p/anna", "has a peer id after /p2p/ that is no multihash"),
        (f"{EXAMPLE}/p2p/{BEN}", f"ends with the peer id {BEN}, which is not this peer's"),
        (f"{EXAMPLE}/p2p/{ANNA}/p2p-circuit", "goes on with /p2p/"),
    ],
)
def test_what_is_wrong_is_said(addr: str, problem: str) -> None:
    assert (multiaddr_problem(addr, ANNA) or "").startswith(problem)


@UNHURRIED
@given(
    st.lists(
        st.sampled_from(["", "ip4", "dns", "tcp", "4001", "10.0.0.1", "::1", "p2p", ANNA, "é"])
        | st.text(max_size=5),
        max_size=8,
    )
)
def test_what_passes_can_be_dialled(parts: list[str]) -> None:
    addr = "/" + "/".join(parts)
    if multiaddr_problem(addr) is None:
        assert parse_endpoint(addr)
