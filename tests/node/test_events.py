"""What happened, told once."""

from __future__ import annotations

from gptnode.node.events import MAX_EVENT_CHARS, MAX_EVENTS, EventLog


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_what_several_contexts_notice_is_told_once_and_later_again() -> None:
    told: list[str] = []
    clock = Clock()
    log = EventLog(told.append, clock=clock)
    log.say("ben is gone")
    log.say("the map was edited")
    clock.now_s += 5
    log.say("ben is gone")
    assert told == ["ben is gone", "the map was edited"]
    clock.now_s += 6
    log.say("ben is gone")
    assert told[2:] == ["ben is gone"]
    assert [(event.number, event.at_s) for event in log.events()] == [
        (1, 1000.0),
        (2, 1000.0),
        (3, 1011.0),
    ]


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    told: list[str] = []
    clock = Clock()
    log = EventLog(told.append, clock=clock)
    log.say("ben is gone")
    clock.now_s -= 3600
    log.say("ben is gone")
    assert len(told) == 2


def test_the_last_lines_are_kept_with_numbers_that_never_come_twice() -> None:
    log = EventLog(lambda line: None)
    for number in range(MAX_EVENTS + 10):
        log.say(f"line {number}")
    events = log.events()
    assert len(events) == MAX_EVENTS
    assert (events[0].number, events[-1].number) == (11, MAX_EVENTS + 10)


def test_a_line_without_end_is_cut() -> None:
    log = EventLog(lambda line: None)
    log.say("x" * 10_000)
    assert len(log.events()[0].text) == MAX_EVENT_CHARS
