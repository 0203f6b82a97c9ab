from __future__ import annotations

import pytest

from gptnode.api.config import Address, ApiConfig, parse_address
from gptnode.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000)),
        ("localhost:0", Address("127.0.0.1", 0)),
        ("[::1]:9000", Address("::1", 9000)),
        (":8000", Address("0.0.0.0", 8000)),
        ("*:8000", Address("0.0.0.0", 8000)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "8000",
        "127.0.0.1",
        "127.0.0.1:x",
        "::1:80",
        "a.example:80",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "[127.0.0.1]:80",
        "",
    ],
)
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(UsageError, match="--listen"):
        parse_address(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1"])
def test_a_network_takes_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="--token-file"):
        ApiConfig(address=Address(host, 8000))
    ApiConfig(address=Address(host, 8000), token="x" * 16)


def test_a_short_token_is_none() -> None:
    with pytest.raises(UsageError, match="16 characters"):
        ApiConfig(token="x" * 15)


@pytest.mark.parametrize("origin", ["*", "chat.example", "https://a.example/", "https://*.example"])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(UsageError, match="--allow-origin"):
        ApiConfig(origins=frozenset({origin}))
    ApiConfig(origins=frozenset({"https://a.example:8443", "http://[::1]:3000"}))


@pytest.mark.parametrize("host", ["*", "https://a.example", "a.example/", ""])
def test_a_host_is_a_name(host: str) -> None:
    with pytest.raises(UsageError, match="--allow-host"):
        ApiConfig(hosts=frozenset({host}))
    ApiConfig(hosts=frozenset({"a.example", "a.example:8443"}))


def test_the_token_is_not_in_the_repr() -> None:
    assert "sesame-sesame-sesame" not in repr(ApiConfig(token="sesame-sesame-sesame"))


def test_an_address_is_written_as_in_a_url() -> None:
    assert str(Address("::1", 80)) == "[::1]:80"
    assert str(Address("127.0.0.1", 80)) == "127.0.0.1:80"
