"""Both muxers: what streams promise doesn't depend on which one was agreed on."""

from __future__ import annotations

import pytest

from gptnode.net import handshake

OWN, YAMUX = "/gptnode/mux/1.0.0", "/yamux/1.0.0"


@pytest.fixture
def yamux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts made from now on know only what every libp2p node knows."""
    monkeypatch.setattr(handshake, "MUXERS", (YAMUX,))


@pytest.fixture(params=[OWN, YAMUX], ids=["own", "yamux"])
def each_muxer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs once with each."""
    monkeypatch.setattr(handshake, "MUXERS", (request.param,))
    return str(request.param)
