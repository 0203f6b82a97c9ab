"""Which idle context goes on, and which has to go."""

from __future__ import annotations

from gptnode.node.idle_contexts import IdleContexts


class Holding:
    """A context that holds ids."""

    def __init__(self, *ids: int) -> None:
        self.cached_ids = list(ids)


def idle(*contexts: Holding, room: int = 8) -> IdleContexts[Holding]:
    found: IdleContexts[Holding] = IdleContexts(room)
    for context in contexts:
        assert found.put(context) is None
    return found


def test_a_conversation_that_goes_on_finds_its_context() -> None:
    other, own = Holding(1, 2, 9, 9), Holding(1, 2, 3, 4)
    contexts = idle(other, own)
    assert contexts.take([1, 2, 3, 4, 5, 6]) is own
    assert list(contexts) == [other]


def test_the_longest_beginning_wins_and_of_equals_the_one_that_was_used_longest_ago() -> None:
    short, first, second = Holding(1, 2), Holding(1, 2, 3), Holding(1, 2, 3)
    contexts = idle(short, first, second)
    assert contexts.take([1, 2, 3, 4]) is first
    assert contexts.take([1, 2, 3, 4]) is second
    assert contexts.take([1, 2, 3, 4]) is short
    assert contexts.take([1, 2, 3, 4]) is None


def test_a_long_conversation_is_not_taken_for_its_system_text_while_there_is_room() -> None:
    long = Holding(1, 2, 3, *range(10, 20))
    contexts = idle(long, room=2)
    assert contexts.take([1, 2, 3, 4, 5]) is None
    assert contexts.put(Holding(7)) is None
    assert contexts.take([1, 2, 3, 4, 5]) is long, "there is no room for one more"


def test_questions_that_share_a_long_beginning_take_turns_in_one_context() -> None:
    shared = Holding(*range(100), 500, 501)
    assert idle(shared).take([*range(100), 600, 601, 602]) is shared


def test_nothing_in_common_is_a_new_context_even_without_room() -> None:
    assert idle(Holding(1, 2), room=1).take([3, 4]) is None


def test_the_one_that_was_used_longest_ago_goes_when_it_is_full() -> None:
    first, second, third = Holding(1), Holding(2), Holding(3)
    contexts = idle(first, second, room=2)
    assert contexts.put(third) is first
    assert list(contexts) == [second, third]


def test_without_room_nothing_is_kept() -> None:
    context = Holding(1)
    contexts: IdleContexts[Holding] = IdleContexts(0)
    assert contexts.put(context) is context
    assert len(contexts) == 0


def test_the_first_that_is_unwanted_leaves() -> None:
    first, second = Holding(1), Holding(2)
    contexts = idle(first, second)
    assert contexts.pop(lambda context: context.cached_ids == [2]) is second
    assert contexts.pop(lambda context: context.cached_ids == [2]) is None
    assert contexts.pop() is first
