from __future__ import annotations

from typing import get_args

import pytest

from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    Failure,
    Feed,
    Message,
    Open,
    Ping,
    Pong,
    Relayed,
    Reply,
    Request,
    Stranded,
)
from gptnode.wire.states import (
    CLIENT_RECEIVES,
    CLIENT_SENDS,
    ENDED,
    REPLIES,
    REPLY_OF,
    SERVER_RECEIVES,
    SERVER_SENDS,
    State,
    Transitions,
)

TABLES = [CLIENT_SENDS, CLIENT_RECEIVES, SERVER_SENDS, SERVER_RECEIVES]


def test_each_message_is_said_by_one_side_alone_but_failure_by_both() -> None:
    client = {kind for _, kind in CLIENT_SENDS}
    server = {kind for _, kind in SERVER_SENDS}
    assert client & server == {Failure}
    assert client | server == set(get_args(Message))


def test_every_request_has_its_reply() -> None:
    assert set(REPLY_OF) == set(get_args(Request))
    assert frozenset(get_args(Reply)) == REPLIES


@pytest.mark.parametrize("table", TABLES)
def test_nothing_leads_out_of_an_end_but_the_failure_that_tells_a_violation(
    table: Transitions,
) -> None:
    out_of_ends = {(state, kind): to for (state, kind), to in table.items() if state in ENDED}
    assert set(out_of_ends.items()) <= {((State.BROKEN, Failure), State.FAILED)}


@pytest.mark.parametrize(("sends", "receives"), [(CLIENT_SENDS, SERVER_RECEIVES)])
def test_what_a_client_may_say_its_server_may_hear(
    sends: Transitions, receives: Transitions
) -> None:
    assert {pair: to for pair, to in sends.items() if pair[0] not in ENDED} == dict(receives)


def test_a_client_hears_all_that_a_server_says_and_late_answers() -> None:
    late = set(CLIENT_RECEIVES) - set(SERVER_SENDS)
    assert {pair: to for pair, to in SERVER_SENDS.items() if pair[0] not in ENDED}.items() <= (
        CLIENT_RECEIVES.items()
    )
    assert late == {(State.CLOSING, kind) for kind in (*REPLIES, Relayed, Arrived, Stranded, Pong)}


@pytest.mark.parametrize("state", set(State) - ENDED)
def test_every_living_state_can_fail_on_either_side(state: State) -> None:
    for table in TABLES:
        assert table[state, Failure] is State.FAILED


@pytest.mark.parametrize("state", [State.IDLE, State.OPENING, State.OPEN, State.FEEDING])
def test_a_client_can_close_from_every_state_before(state: State) -> None:
    assert CLIENT_SENDS[state, Close] is State.CLOSING


def test_only_open_and_feed_begin_and_only_closed_ends_cleanly() -> None:
    begins = {kind for (_, kind), to in CLIENT_SENDS.items() if to is State.OPENING}
    assert begins == {Open, Feed, Ping}
    assert [kind for (_, kind), to in SERVER_SENDS.items() if to is State.CLOSED] == [Closed]
