"""Lines that take turns."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gptnode.node.fair_queue import FairQueue

Item = tuple[str, int]
LINES = "abcd"


def filled(*lines: str) -> FairQueue[Item]:
    fair: FairQueue[Item] = FairQueue()
    for number, line in enumerate(lines):
        fair.put(line, (line, number))
    return fair


def drained(fair: FairQueue[Item]) -> list[Item]:
    items = []
    while (item := fair.take()) is not None:
        items.append(item)
    return items


def test_a_long_line_does_not_keep_a_short_one_waiting() -> None:
    taken = "".join(line for line, _ in drained(filled(*"aaaaaab")))
    assert taken == "abaaaaa"


def test_what_does_not_fit_keeps_its_place() -> None:
    fair = filled(*"aabb")
    assert fair.take(lambda item: item[1] == 3) == ("b", 3)
    assert fair.take() == ("a", 0)
    assert fair.take() == ("b", 2)
    assert fair.take(lambda item: False) is None
    assert len(fair) == 1


@given(st.lists(st.sampled_from(LINES), max_size=60))
def test_everything_is_taken_once_and_in_the_order_of_its_line(lines: list[str]) -> None:
    fair = filled(*lines)
    assert len(fair) == len(lines)
    items = drained(fair)
    assert len(fair) == 0
    assert Counter(items) == Counter((line, number) for number, line in enumerate(lines))
    for line in LINES:
        numbers = [number for of, number in items if of == line]
        assert numbers == sorted(numbers)


@given(st.lists(st.sampled_from([*LINES, "take"]), max_size=80))
def test_who_stands_first_waits_for_at_most_one_item_of_each_other_line(events: list[str]) -> None:
    """Whatever comes meanwhile, and in whatever order."""
    fair: FairQueue[Item] = FairQueue()
    waiting: dict[str, int] = {}  # how many were served since somebody stood first there
    sizes: Counter[str] = Counter()
    for number, event in enumerate(events):
        if event != "take":
            fair.put(event, (event, number))
            sizes[event] += 1
            waiting.setdefault(event, 0)
            continue
        item = fair.take()
        assert (item is None) == (sizes.total() == 0)
        if item is None:
            continue
        line = item[0]
        sizes[line] -= 1
        del waiting[line]
        waiting = {other: served + 1 for other, served in waiting.items()}
        if sizes[line]:
            waiting[line] = 0
        assert all(served < len(LINES) for served in waiting.values())
