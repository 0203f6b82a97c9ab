"""The rows that a hop was given."""

from __future__ import annotations

import pytest
import torch

from gptnode.node.journal import Journal


def hidden(*rows: int) -> torch.Tensor:
    """(1, T, 2) in f32, 8 bytes a row."""
    return torch.tensor([[[float(row), -float(row)] for row in rows]])


def journal_of_a_prompt_and_three_tokens(**options: int) -> Journal:
    journal = Journal(**options)
    journal.record(0, hidden(0, 1, 2, 3))
    for position in (4, 5, 6):
        journal.record(position, hidden(position))
    return journal


@pytest.mark.parametrize("start", range(7))
@pytest.mark.parametrize("stop", range(1, 8))
def test_any_rows_can_be_had_again(start: int, stop: int) -> None:
    if start < stop:
        rows = journal_of_a_prompt_and_three_tokens().rows(start, stop)
        assert torch.equal(rows, hidden(*range(start, stop)))


@pytest.mark.parametrize("position", range(7))
def test_a_step_replaces_all_from_its_position_on(position: int) -> None:
    journal = journal_of_a_prompt_and_three_tokens()
    journal.record(position, hidden(50, 51))
    assert len(journal) == position + 2
    assert torch.equal(journal.rows(0, position + 2), hidden(*range(position), 50, 51))


@pytest.mark.parametrize("length", [0, 2, 4, 6, 7, 9])
def test_what_is_taken_back_is_gone(length: int) -> None:
    journal = journal_of_a_prompt_and_three_tokens()
    journal.cut(length)
    assert len(journal) == min(length, 7)
    if length:
        assert torch.equal(journal.rows(0, len(journal)), hidden(*range(len(journal))))


def test_what_was_given_is_kept_though_its_memory_is_used_again() -> None:
    journal = Journal()
    reused = hidden(1)
    journal.record(0, reused)
    reused.fill_(99)
    assert torch.equal(journal.rows(0, 1), hidden(1))


def test_beyond_its_limit_it_is_over_until_a_context_begins_anew() -> None:
    journal = journal_of_a_prompt_and_three_tokens(limit_bytes=6 * 8)
    assert (journal.over, len(journal)) == (True, 0)
    journal.record(7, hidden(7))
    assert (journal.over, len(journal)) == (True, 0)
    journal.record(0, hidden(1))
    assert (journal.over, len(journal)) == (False, 1)


def test_memory_that_was_given_back_can_be_used_again() -> None:
    journal = journal_of_a_prompt_and_three_tokens(limit_bytes=7 * 8)
    for _ in range(10):
        journal.cut(2)
        journal.record(2, hidden(2, 3, 4, 5, 6))
    assert not journal.over


def test_rows_after_a_gap_are_no_context() -> None:
    journal = journal_of_a_prompt_and_three_tokens()
    journal.record(8, hidden(8))
    assert journal.over
