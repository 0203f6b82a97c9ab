"""Multiaddrs: what is read, what is refused, and which addresses a node is reached at."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import NetworkError
from gptnode.net.addresses import Endpoint, parse_endpoint, reachable_addrs

PEER = "12D3KooWB1aoz75uE4TAjzs7xHesNcjKrvDmnLvPxxnETzNQqjoM"


@pytest.mark.parametrize(
    ("addr", "endpoint"),
    [
        ("/ip4/127.0.0.1/tcp/4001", Endpoint("ip4", "127.0.0.1", 4001)),
        (f"/ip4/10.0.0.7/tcp/1/p2p/{PEER}", Endpoint("ip4", "10.0.0.7", 1, PEER)),
        ("/ip6/::1/tcp/0", Endpoint("ip6", "::1", 0)),
        ("/ip6/FE80:0::1/tcp/65535", Endpoint("ip6", "fe80::1", 65535)),
        ("/dns/anna.example.org/tcp/4001", Endpoint("dns", "anna.example.org", 4001)),
        ("/dns4/anna/tcp/4001", Endpoint("dns4", "anna", 4001)),
    ],
)
def test_endpoints_are_read(addr: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(addr) == endpoint


@pytest.mark.parametrize(
    "addr",
    [
        "",
        "/",
        "anna:4001",
        "http://anna:4001/",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/tcp",
        "/ip4/127.0.0.1/tcp/",
        "/ip4/127.0.0.1/tcp/-1",
        "/ip4/127.0.0.1/tcp/65536",
        "/ip4/127.0.0.1/tcp/\u0664\u0665",
        "/ip4/256.0.0.1/tcp/1",
        "/ip4/::1/tcp/1",
        "/ip6/127.0.0.1/tcp/1",
        "/ip4/127.0.0.1/udp/1/quic-v1",
        "/ip4/127.0.0.1/tcp/1/ws",
        "/ip4/127.0.0.1/tcp/1/p2p",
        f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit",
        "/dns/-/tcp/1",
        "/dns/two words/tcp/1",
        "/unix/tmp/tcp/1",
    ],
)
def test_other_addresses_are_refused_by_name(addr: str) -> None:
    with pytest.raises(NetworkError) as caught:
        parse_endpoint(addr)
    assert repr(addr) in caught.value.detail


@given(st.text())
def test_any_text_is_an_endpoint_or_a_network_error(text: str) -> None:
    try:
        parse_endpoint(text)
    except NetworkError:
        pass


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_endpoint_survives_being_written(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    addr = f"/ip{ip.version}/{ip}/tcp/{port}"
    endpoint = parse_endpoint(addr)
    assert parse_endpoint(str(endpoint)) == endpoint
    assert endpoint.port == port


def test_a_bound_address_is_reached_as_it_is() -> None:
    bound = parse_endpoint("/ip4/127.0.0.1/tcp/4001")
    assert reachable_addrs(bound, PEER) == (f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}",)


@pytest.mark.parametrize(
    ("wildcard", "loopback"), [("/ip4/0.0.0.0", "127.0.0.1"), ("/ip6/::", "::1")]
)
def test_a_wildcard_is_reached_at_the_interfaces_and_last_at_loopback(
    wildcard: str, loopback: str
) -> None:
    addrs = reachable_addrs(parse_endpoint(f"{wildcard}/tcp/4001"), PEER)
    hosts = [parse_endpoint(addr).host for addr in addrs]
    assert hosts[-1] == loopback
    assert len(set(hosts)) == len(hosts)
    assert not any(ipaddress.ip_address(host).is_unspecified for host in hosts)
    assert not any(ipaddress.ip_address(host).is_loopback for host in hosts[:-1])
