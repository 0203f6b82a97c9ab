"""What a client remembers of its peers' troubles."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from gptnode.errors import (
    MismatchError,
    PeerBusyError,
    PeerTimeoutError,
    PeerUnreachableError,
    StreamLostError,
)
from gptnode.node.health import DOWN_S, MAX_LOSSES, SLOW_S, PeerHealth, TroubleKind


async def test_a_peer_that_could_not_be_dialled_is_down_for_a_while(
    autojump_clock: MockClock,
) -> None:
    health = PeerHealth()
    health.note("anna", PeerUnreachableError("refused"), was_open=False)
    assert health.avoid(TroubleKind.DOWN) == {"anna"}
    await trio.sleep(DOWN_S + 1)
    assert health.avoid(TroubleKind.DOWN) == frozenset()


async def test_a_busy_peer_is_asked_again_when_it_said(autojump_clock: MockClock) -> None:
    health = PeerHealth()
    health.note("anna", PeerBusyError("loading", retry_after_s=2), was_open=False)
    assert health.avoid(TroubleKind.BUSY) == {"anna"}
    await trio.sleep(2.5)
    assert health.trouble("anna") is None


async def test_a_broken_session_alone_does_not_make_a_peer_down(autojump_clock: MockClock) -> None:
    health = PeerHealth()
    health.note("anna", StreamLostError("eof"), was_open=True)
    assert health.avoid(TroubleKind.DOWN) == frozenset()
    assert health.avoid(TroubleKind.LOST) == {"anna"}


async def test_a_peer_that_loses_session_after_session_is_down(autojump_clock: MockClock) -> None:
    health = PeerHealth()
    for _ in range(MAX_LOSSES):
        health.note("anna", StreamLostError("eof"), was_open=True)
    assert health.avoid(TroubleKind.DOWN) == {"anna"}


async def test_forgiving_gives_a_fresh_start(autojump_clock: MockClock) -> None:
    health = PeerHealth()
    health.note("anna", PeerUnreachableError("refused"), was_open=False)
    health.note("ben", PeerUnreachableError("refused"), was_open=False)
    health.forgive("anna")
    assert health.avoid(*TroubleKind) == {"ben"}
    health.forgive_all()
    assert health.avoid(*TroubleKind) == frozenset()


async def test_a_slow_peer_is_slow_for_a_minute(autojump_clock: MockClock) -> None:
    health = PeerHealth()
    health.note("anna", PeerTimeoutError("slow"), was_open=True, slow=True)
    await trio.sleep(SLOW_S - 1)
    assert health.avoid(TroubleKind.SLOW) == {"anna"}
    await trio.sleep(2)
    assert health.trouble("anna") is None


async def test_losses_of_long_ago_are_forgotten(autojump_clock: MockClock) -> None:
    health = PeerHealth()
    for _ in range(2 * MAX_LOSSES):
        health.note("anna", StreamLostError("eof"), was_open=True)
        await trio.sleep(DOWN_S + 1)
    health.note("anna", StreamLostError("eof"), was_open=True)
    assert health.avoid(TroubleKind.LOST) == {"anna"}


async def test_asking_again_forgives_who_was_gone_and_nobody_else(
    autojump_clock: MockClock,
) -> None:
    health = PeerHealth()
    health.note("anna", StreamLostError("eof"), was_open=True)
    health.note("ben", PeerUnreachableError("refused"), was_open=False)
    health.note("cleo", PeerBusyError("full", retry_after_s=9), was_open=False)
    health.note("dora", PeerTimeoutError("slow"), was_open=True, slow=True)
    health.ask_again()
    assert health.avoid(*TroubleKind) == {"cleo", "dora"}


async def test_a_peer_that_was_wrong_is_not_forgiven_by_time_or_by_need(
    autojump_clock: MockClock,
) -> None:
    health = PeerHealth()
    health.distrust("anna", MismatchError("wrong answers"))
    health.note("anna", StreamLostError("eof"), was_open=True)
    await trio.sleep(80_000)
    health.ask_again()
    health.forgive_all()
    assert health.avoid(TroubleKind.WRONG) == {"anna"}
    health.forgive_all(even_wrong=True)
    assert health.trouble("anna") is None
