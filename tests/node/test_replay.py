"""What a pipeline keeps of its steps, and what it lets go of."""

from __future__ import annotations

import torch

from gptnode.node.replay import Replay, ReplayLog


def hidden(*rows: int) -> torch.Tensor:
    """(1, T, 2) in f32, 8 bytes a row."""
    return torch.tensor([[[float(row), -float(row)] for row in rows]])


def log_of_a_prompt_and_three_tokens(**options: int) -> ReplayLog:
    """Four tokens in one step, then three alone; hops begin at blocks 2 and 4."""
    log = ReplayLog(**options)
    log.record(0, (10, 11, 12, 13), {2: hidden(0, 1, 2, 3), 4: hidden(20, 21, 22, 23)})
    for position in (4, 5, 6):
        log.record(position, (10 + position,), {2: hidden(position), 4: hidden(20 + position)})
    return log


def shape_of(replays: list[Replay]) -> list[tuple[int, list[int]]]:
    return [(replay.position, replay.ids) for replay in replays]


def test_steps_are_given_again_in_the_chunks_that_they_were() -> None:
    replays = log_of_a_prompt_and_three_tokens().replays(2)
    assert shape_of(replays) == [(0, [10, 11, 12, 13]), (4, [14]), (5, [15]), (6, [16])]
    assert torch.equal(replays[0].hidden, hidden(0, 1, 2, 3))  # type: ignore[arg-type]
    assert torch.equal(replays[3].hidden, hidden(6))  # type: ignore[arg-type]


def test_tokens_alone_are_joined_where_a_row_is_the_same_in_company() -> None:
    replays = log_of_a_prompt_and_three_tokens().replays(4, max_rows=2)
    assert shape_of(replays) == [(0, [10, 11, 12, 13]), (4, [14, 15]), (6, [16])]
    assert torch.equal(replays[1].hidden, hidden(24, 25))  # type: ignore[arg-type]


def test_at_block_0_the_ids_are_what_is_given_again() -> None:
    log = ReplayLog()
    log.record(0, (7, 8), {0: hidden(1, 2)})
    assert [replay.hidden for replay in log.replays(0)] == [None]
    assert log.held_bytes == 0


def test_a_step_that_is_taken_back_in_part_is_given_again_in_its_old_shape() -> None:
    log = log_of_a_prompt_and_three_tokens()
    log.cut(2)
    log.record(2, (50,), {2: hidden(50), 4: hidden(51)})
    assert shape_of(log.replays(2)) == [(0, [10, 11, 12, 13]), (2, [50])]


def test_steps_that_are_taken_back_give_their_memory_back() -> None:
    log = log_of_a_prompt_and_three_tokens()
    assert log.held_bytes == 7 * 2 * 8
    log.cut(5)
    assert log.held_bytes == 5 * 2 * 8
    log.cut(0)
    assert (len(log), log.held_bytes) == (0, 0)


def test_the_source_is_the_last_hop_before_that_is_known_for_all_steps() -> None:
    log = log_of_a_prompt_and_three_tokens()
    assert [log.source(block) for block in (0, 1, 2, 3, 4, 5)] == [0, 0, 2, 2, 4, 4]
    log.record(7, (17,), {2: hidden(7)})
    assert [log.source(block) for block in (2, 4, 5)] == [2, 2, 2]


def test_what_is_kept_for_hops_that_are_gone_is_let_go() -> None:
    log = log_of_a_prompt_and_three_tokens()
    log.keep({4, 6})
    assert log.held_bytes == 7 * 8
    assert (log.source(3), log.source(5)) == (0, 4)


def test_a_replay_fills_the_hops_within_it_step_by_step() -> None:
    log = log_of_a_prompt_and_three_tokens()
    for replay in log.replays(2, max_rows=32):
        rows = [30 + replay.position + i for i in range(len(replay.ids))]
        log.fill(replay, 3, hidden(*rows))
    assert log.source(3) == 3
    assert [replay.hidden.tolist() for replay in log.replays(3)] == [  # type: ignore[union-attr]
        hidden(30, 31, 32, 33).tolist(),
        hidden(34).tolist(),
        hidden(35).tolist(),
        hidden(36).tolist(),
    ]


def test_filling_a_hop_twice_holds_its_memory_once() -> None:
    log = log_of_a_prompt_and_three_tokens()
    before = log.held_bytes
    for replay in log.replays(2):
        log.fill(replay, 4, hidden(*replay.ids))
    assert log.held_bytes == before


def test_beyond_its_limit_it_holds_the_ids_alone_until_it_begins_anew() -> None:
    log = log_of_a_prompt_and_three_tokens(limit_bytes=100)
    assert (log.over, log.held_bytes) == (True, 0)
    assert log.source(4) == 0
    assert shape_of(log.replays(0)) == [(0, [10, 11, 12, 13]), (4, [14]), (5, [15]), (6, [16])]
    log.cut(3)
    assert log.over
    log.cut(0)
    assert not log.over


def test_what_was_given_is_kept_though_its_memory_is_used_again() -> None:
    log = ReplayLog()
    reused = hidden(1)
    log.record(0, (5,), {2: reused})
    reused.fill_(99)
    assert torch.equal(log.replays(2)[0].hidden, hidden(1))  # type: ignore[arg-type]
