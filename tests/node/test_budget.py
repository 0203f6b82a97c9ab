"""What a server lends: in all and to one peer, reserved at open and given back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from gptnode.node.budget import KVBudget, Lent, Refusal
from gptnode.wire.messages import ErrorCode


def lend(stack: ExitStack, budget: KVBudget, n_bytes: int, peer_id: str) -> None:
    stack.enter_context(budget.lease(n_bytes, peer_id))


def refusal(budget: KVBudget, n_bytes: int, peer_id: str) -> Refusal:
    with pytest.raises(Refusal) as caught, budget.lease(n_bytes, peer_id):
        pass
    return caught.value


def test_what_ended_is_given_back_also_after_an_error() -> None:
    budget = KVBudget(100, 2)
    with pytest.raises(RuntimeError), budget.lease(60, "anna"):
        assert budget.total == budget.by_peer["anna"] == Lent(1, 60)
        raise RuntimeError
    assert budget.total == Lent()
    assert not budget.by_peer


def test_memory_of_all_together_is_bounded() -> None:
    budget = KVBudget(100, 9)
    with ExitStack() as stack:
        lend(stack, budget, 60, "anna")
        busy = refusal(budget, 41, "ben")
        assert busy.code is ErrorCode.BUSY
        assert busy.retry_after_s > 0
        lend(stack, budget, 40, "ben")
    lend(ExitStack(), budget, 100, "ben")


def test_sessions_of_all_together_are_bounded() -> None:
    budget = KVBudget(100, 2)
    with ExitStack() as stack:
        lend(stack, budget, 1, "anna")
        lend(stack, budget, 1, "ben")
        assert refusal(budget, 1, "cleo").code is ErrorCode.BUSY


def test_one_peer_can_not_have_the_sessions_of_all() -> None:
    budget = KVBudget(100, 4, max_peer_sessions=2)
    with ExitStack() as stack:
        lend(stack, budget, 1, "anna")
        lend(stack, budget, 1, "anna")
        busy = refusal(budget, 1, "anna")
        assert busy.code is ErrorCode.BUSY
        assert "2 sessions" in busy.message
        lend(stack, budget, 1, "ben")


def test_one_peer_can_not_have_the_memory_of_all() -> None:
    budget = KVBudget(100, 9, max_peer_bytes=50)
    with ExitStack() as stack:
        lend(stack, budget, 30, "anna")
        assert refusal(budget, 21, "anna").code is ErrorCode.BUSY
        lend(stack, budget, 20, "anna")
        lend(stack, budget, 50, "ben")


def test_what_could_never_fit_is_no_reason_to_come_back() -> None:
    budget = KVBudget(100 << 20, 9, max_peer_bytes=50 << 20)
    never = refusal(budget, 51 << 20, "anna")
    assert never.code is ErrorCode.TOO_LONG
    assert "50 MiB" in never.message


def test_limits_of_one_peer_above_those_of_all_mean_those_of_all() -> None:
    budget = KVBudget(100, 4, max_peer_bytes=1000, max_peer_sessions=10)
    assert (budget.max_peer_bytes, budget.max_peer_sessions) == (100, 4)
