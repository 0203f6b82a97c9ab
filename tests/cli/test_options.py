"""Options that commands share: sizes, addresses, and where the identity is by default."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gptnode.cli.options import byte_size, default_identity_path, host_and_port


@click.command()
@click.option("--size", callback=byte_size, default="2GiB")
def sized(size: int) -> None:
    click.echo(size)


def parse(text: str) -> int:
    result = CliRunner().invoke(sized, ["--size", text], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.stdout)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1", 1),
        ("512MiB", 512 << 20),
        ("2GiB", 2 << 30),
        ("2 gib", 2 << 30),
        ("2g", 2 << 30),
        ("1.5GB", 1_500_000_000),
        ("3kB", 3000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert parse(text) == n_bytes


@pytest.mark.parametrize("text", ["", "0", "0GiB", "-1", "1e9", "GiB", "2 GiBs", "2XB", "nan"])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no size"):
        parse(text)


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    context = click.Context(sized)
    try:
        assert byte_size(context, sized.params[0], text) >= 1
    except click.BadParameter:
        pass


def test_the_identity_is_in_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / ".config" / "gptnode" / "identity.key"
    assert default_identity_path({}) == expected
    assert default_identity_path({"XDG_CONFIG_HOME": ""}) == expected
    assert default_identity_path({"XDG_CONFIG_HOME": "relative/path"}) == expected
    other = default_identity_path({"XDG_CONFIG_HOME": "/somewhere"})
    assert other == Path("/somewhere/gptnode/identity.key")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9100", ("::1", 9100)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        (None, None),
    ],
)
def test_addresses_are_host_and_port(text: str | None, address: tuple[str, int] | None) -> None:
    assert host_and_port(click.Context(sized), sized.params[0], text) == address


@pytest.mark.parametrize(
    "text", ["", "9100", ":9100", "host", "host:", "h:65536", "::1:9100", "a b:1"]
)
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"127\.0\.0\.1:9100"):
        host_and_port(click.Context(sized), sized.params[0], text)
