from __future__ import annotations

import itertools
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gptnode.errors import LocalProtocolError, RemoteProtocolError, StreamLostError
from gptnode.wire.codec import encode
from gptnode.wire.connection import ClientConnection, ServerConnection
from gptnode.wire.frames import encode_frame
from gptnode.wire.limits import DEFAULT_LIMITS, Limits
from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    ErrorCode,
    Failure,
    Fed,
    Feed,
    Forward,
    Forwarding,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
    Relay,
    Relayed,
    Step,
    Stepped,
    Stranded,
    Trace,
    Truncate,
    Truncated,
)
from gptnode.wire.states import (
    CLIENT_RECEIVES,
    CLIENT_SENDS,
    ENDED,
    REPLIES,
    SERVER_RECEIVES,
    SERVER_SENDS,
    State,
)
from tests.wire.pair import (
    LIMIT_BYTES,
    OPEN,
    OPENED,
    SPAN,
    ConnectionPair,
    opened_pair,
    step,
    stepped,
    tensor,
)
from tests.wire.strategies import messages

FAILURE = Failure(ErrorCode.BUSY, "full", 2.0)
SAMPLES: dict[type[Message], Message] = {
    type(message): message
    for message in (
        OPEN,
        OPENED,
        step(),
        stepped(),
        Truncate(3),
        Truncated(3),
        Ping(1),
        Pong(1),
        Close(),
        Closed(),
        FAILURE,
        Forward(1, "ben", "k"),
        Forwarding(),
        Feed("k"),
        Fed(16),
        Relay(1, 0, tensor()),
        Relayed(1),
        Arrived(1, 0, tensor(), ()),
        Stranded(1, "why"),
    )
}
DUE: dict[type[Message], Message] = {
    Stepped: step(),
    Truncated: Truncate(3),
    Forwarding: Forward(1, "ben", "k"),
}
"""What has to be asked before such a reply may come."""


def bytes_of(*said: Message) -> bytes:
    """What a peer that keeps no rules writes."""
    return b"".join(b"".join(encode_frame(*encode(message))) for message in said)


def pair_in(state: State, *, feeds: bool = False) -> ConnectionPair:
    """A pair whose sides both are in ``state``, nothing due but what the state implies."""
    pair = ConnectionPair()
    if state is State.IDLE:
        return pair
    if state is State.OPENING:
        pair.client_says(Feed("k") if feeds else OPEN)
        return pair
    if state is State.FEEDING:
        pair.client_says(Feed("k"))
        pair.server.raise_limit(LIMIT_BYTES)
        pair.server_says(Fed(16))
        pair.client.raise_limit(LIMIT_BYTES)
        return pair
    pair = opened_pair()
    if state in (State.CLOSING, State.CLOSED):
        pair.client_says(Close())
    if state is State.CLOSED:
        pair.server_says(Closed())
    if state is State.FAILED:
        pair.server_says(FAILURE)
    if state is State.BROKEN:
        for side in (pair.client, pair.server):
            with pytest.raises(RemoteProtocolError):
                list(side.receive(bytes(8)))
    assert pair.client.state is pair.server.state is state
    return pair


def pair_with_due(state: State, kind: type[Message]) -> ConnectionPair:
    """A pair in ``state``; a message of ``kind``, if it answers, is due there."""
    pair = pair_in(state, feeds=kind is Fed)
    if kind is Relayed and state in (State.OPEN, State.FEEDING):
        pair.client_says(relay())
    if state is State.OPEN:
        pair.client_says(*([DUE[kind]] if kind in DUE else []))
    if kind is Arrived and state is State.OPEN:
        pair.client.expect_arrival()
    if kind is Pong and state in (State.OPENING, State.OPEN, State.FEEDING):
        pair.client_says(Ping(1))
    return pair


def test_a_whole_session() -> None:
    pair = ConnectionPair()
    assert pair.client_says(OPEN) == [OPEN]
    assert pair.client_says(Ping(1)) == [Ping(1)]
    assert pair.server_says(Pong(1)) == [Pong(1)]
    pair.server.raise_limit(LIMIT_BYTES)
    assert pair.server_says(OPENED) == [OPENED]
    pair.client.raise_limit(LIMIT_BYTES)
    assert pair.client_says(step(0), step(1)) == [step(0), step(1)]
    assert pair.server_says(stepped(0)) == [stepped(0)]
    assert pair.client_says(Truncate(1)) == [Truncate(1)]
    assert pair.server_says(stepped(1), Truncated(1)) == [stepped(1), Truncated(1)]
    assert pair.client_says(Close()) == [Close()]
    assert pair.server_says(Closed()) == [Closed()]
    assert pair.client.state is pair.server.state is State.CLOSED
    pair.client.receive_eof()
    pair.server.receive_eof()


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_what_may_be_sent_when_is_just_what_the_tables_say(
    state: State, kind: type[Message]
) -> None:
    for side, table in (("client", CLIENT_SENDS), ("server", SERVER_SENDS)):
        pair = pair_with_due(state, kind)
        connection = getattr(pair, side)
        assert connection.can_send(kind) == ((state, kind) in table)
        before = (connection.state, connection.in_flight, connection.pings_in_flight)
        if (state, kind) in table:
            assert connection.send(SAMPLES[kind])
            assert connection.state is table[state, kind]
        else:
            with pytest.raises(LocalProtocolError, match=state.value):
                connection.send(SAMPLES[kind])
            assert (connection.state, connection.in_flight, connection.pings_in_flight) == before


@pytest.mark.parametrize("state", set(State) - ENDED)
@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_what_may_be_received_when_is_just_what_the_tables_say(
    state: State, kind: type[Message]
) -> None:
    for side, table in (("client", CLIENT_RECEIVES), ("server", SERVER_RECEIVES)):
        pair = pair_with_due(state, kind)
        connection = getattr(pair, side)
        allowed = (state, kind) in table
        if state is State.CLOSING and kind in {*REPLIES, Arrived, Pong, Relayed}:
            allowed = False  # allowed by the table, but none is due here
        if allowed:
            assert list(connection.receive(bytes_of(SAMPLES[kind]))) == [SAMPLES[kind]]
            assert connection.state is table[state, kind]
        else:
            with pytest.raises(RemoteProtocolError):
                list(connection.receive(bytes_of(SAMPLES[kind])))
            assert connection.state is State.BROKEN
            assert connection.in_flight == 0


@pytest.mark.parametrize("state", ENDED)
def test_what_follows_the_end_is_not_looked_at(state: State) -> None:
    pair = pair_in(state)
    for side in (pair.client, pair.server):
        assert list(side.receive(b"rubbish" * 100)) == []
        assert side.state is state
        side.receive_eof()


def test_what_follows_the_end_in_the_same_read_is_not_looked_at() -> None:
    pair = opened_pair()
    assert list(pair.client.receive(bytes_of(FAILURE) + b"\xff" * 50)) == [FAILURE]
    assert pair.client.state is State.FAILED


@pytest.mark.parametrize("state", [State.IDLE, State.OPENING, State.OPEN, State.FEEDING])
def test_eof_before_the_end_is_a_loss_for_both(state: State) -> None:
    pair = pair_in(state)
    for side in (pair.client, pair.server):
        with pytest.raises(StreamLostError, match="between messages"):
            side.receive_eof()


def test_eof_inside_a_message_is_a_loss_that_says_so() -> None:
    pair = opened_pair()
    assert list(pair.client.receive(bytes_of(Closed())[:-1])) == []
    with pytest.raises(StreamLostError, match="inside a message"):
        pair.client.receive_eof()


def test_eof_after_close_is_a_loss_for_the_client_alone() -> None:
    pair = pair_in(State.CLOSING)
    pair.server.receive_eof()
    with pytest.raises(StreamLostError):
        pair.client.receive_eof()


def test_replies_that_crossed_with_close_are_let_in() -> None:
    pair = opened_pair()
    pair.client_says(step(), Truncate(0), Ping(4), Ping(5))
    late = b"".join(b"".join(pair.server.send(said)) for said in (stepped(), Pong(4)))
    pair.client_says(Close())
    assert pair.server.in_flight == pair.server.pings_in_flight == 0
    assert list(pair.client.receive(late)) == [stepped(), Pong(4)]
    assert pair.server_says(Closed()) == [Closed()]


def test_opened_that_crossed_with_close_is_let_in() -> None:
    pair = pair_in(State.OPENING)
    late = b"".join(pair.server.send(OPENED))
    pair.client_says(Close())
    assert list(pair.client.receive(late)) == [OPENED]
    assert pair.client.state is State.CLOSING


def test_more_requests_than_may_be_in_flight_are_refused_on_both_sides() -> None:
    pair = opened_pair(Limits(max_in_flight=2))
    pair.client_says(step(0), Truncate(0))
    with pytest.raises(LocalProtocolError, match="2 requests"):
        pair.client.send(step(1))
    pair.server_says(stepped(0))
    pair.client_says(step(1))
    with pytest.raises(RemoteProtocolError, match="2 requests"):
        list(pair.server.receive(bytes_of(step(2))))


def test_more_pings_than_may_be_in_flight_are_refused_on_both_sides() -> None:
    pair = opened_pair(Limits(max_pings=1))
    pair.client_says(Ping(1))
    with pytest.raises(LocalProtocolError, match="1 ping"):
        pair.client.send(Ping(2))
    with pytest.raises(RemoteProtocolError, match="1 ping"):
        list(pair.server.receive(bytes_of(Ping(2))))


def test_replies_come_in_the_order_of_their_requests() -> None:
    pair = opened_pair()
    pair.client_says(step(), Truncate(0))
    with pytest.raises(LocalProtocolError, match="due is stepped"):
        pair.server.send(Truncated(0))
    with pytest.raises(RemoteProtocolError, match="due is stepped"):
        list(pair.client.receive(bytes_of(Truncated(0))))


def test_a_reply_that_nobody_asked_for_is_a_violation() -> None:
    pair = opened_pair()
    with pytest.raises(LocalProtocolError, match="due is none"):
        pair.server.send(stepped())
    with pytest.raises(RemoteProtocolError, match="due is none"):
        list(pair.client.receive(bytes_of(stepped())))


def test_a_pong_names_the_oldest_ping() -> None:
    pair = opened_pair()
    pair.client_says(Ping(1), Ping(2))
    with pytest.raises(LocalProtocolError, match="oldest ping"):
        pair.server.send(Pong(2))
    with pytest.raises(RemoteProtocolError, match="oldest ping"):
        list(pair.client.receive(bytes_of(Pong(2))))


def test_a_tensor_above_the_raised_limit_is_refused_on_both_sides() -> None:
    pair = opened_pair()
    most = LIMIT_BYTES // 4
    assert pair.client_says(step(0, most))
    with pytest.raises(LocalProtocolError, match="too large to be sent"):
        pair.client.send(step(1, most + 1))
    with pytest.raises(RemoteProtocolError, match="tensor of 4100 bytes"):
        list(pair.server.receive(bytes_of(step(1, most + 1))))


def test_a_head_above_the_limit_is_refused_on_both_sides() -> None:
    pair = ConnectionPair(Limits(max_head_bytes=40))
    with pytest.raises(LocalProtocolError, match="too large to be sent"):
        pair.client.send(OPEN)
    assert pair.client.state is State.IDLE
    with pytest.raises(RemoteProtocolError, match="40 are let in"):
        list(pair.server.receive(bytes_of(OPEN)))


def relay(ticket: int = 1) -> Relay:
    return Relay(ticket, 0, tensor())


def arrived(ticket: int = 1) -> Arrived:
    return Arrived(ticket, 0, tensor(), (Trace(SPAN, 7, 0.0, 0.5),))


def test_a_ring_step_is_acknowledged_here_and_arrives_there() -> None:
    first, last = opened_pair(), opened_pair()
    assert first.client_says(Forward(1, "ben", "k"), relay()) == [Forward(1, "ben", "k"), relay()]
    last.client.expect_arrival()
    assert first.server_says(Forwarding(), Relayed(1)) == [Forwarding(), Relayed(1)]
    assert last.server_says(arrived()) == [arrived()]
    assert first.client.in_flight == last.client.in_flight == 0


@pytest.mark.parametrize("feeds", [True, False])
def test_relays_need_room_and_are_given_it_by_the_handful(feeds: bool) -> None:
    pair = pair_in(State.FEEDING if feeds else State.OPEN)
    most = DEFAULT_LIMITS.max_in_flight
    assert pair.client_says(*map(relay, range(1, most + 1)))
    with pytest.raises(LocalProtocolError, match=f"{most} relays"):
        pair.client.send(relay(99))
    with pytest.raises(RemoteProtocolError, match=f"{most} relays"):
        list(pair.server.receive(bytes_of(relay(99))))
    pair = pair_in(State.FEEDING if feeds else State.OPEN)
    pair.client_says(*map(relay, range(1, most + 1)))
    assert pair.server_says(Relayed(3)) == [Relayed(3)]
    assert pair.client.relays_in_flight == pair.server.relays_in_flight == most - 3
    assert pair.client_says(relay(9), relay(10), relay(11))
    with pytest.raises(RemoteProtocolError, match=f"not {most + 1}"):
        list(pair.client.receive(bytes_of(Relayed(most + 1))))


def test_what_arrives_does_not_disturb_the_order_of_replies() -> None:
    pair = opened_pair()
    pair.client.expect_arrival()
    pair.client_says(step(), Truncate(1))
    assert pair.server_says(arrived(), stepped(), Truncated(1)) == [
        arrived(),
        stepped(),
        Truncated(1),
    ]


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_more_arrivals_than_were_expected_are_a_violation(expected: int) -> None:
    pair = opened_pair()
    for _ in range(expected):
        pair.client.expect_arrival()
    for _ in range(expected):
        assert pair.server_says(arrived())
    with pytest.raises(RemoteProtocolError, match="ring"):
        pair.server_says(arrived())


def test_nothing_is_expected_of_a_session_that_is_not_open() -> None:
    with pytest.raises(LocalProtocolError, match="idle"):
        ClientConnection().expect_arrival()


def test_a_feeder_may_relay_and_nothing_else() -> None:
    pair = ConnectionPair()
    pair.client_says(Feed("k"))
    pair.server.raise_limit(LIMIT_BYTES)
    pair.server_says(Fed(16))
    pair.client.raise_limit(LIMIT_BYTES)
    assert pair.client_says(relay(), Ping(3)) == [relay(), Ping(3)]
    assert pair.server_says(Relayed(1), Pong(3)) == [Relayed(1), Pong(3)]
    for message in (step(), Truncate(0), Forward(1, "ben", "k"), Feed("k"), OPEN):
        with pytest.raises(LocalProtocolError, match="feeding"):
            pair.client.send(message)
    for reply in (stepped(), arrived(), Stranded(1, "why"), OPENED):
        with pytest.raises(LocalProtocolError, match="feeding"):
            pair.server.send(reply)
    assert pair.client_says(Close()) == [Close()]
    assert pair.server_says(Closed()) == [Closed()]


def test_a_feeder_gets_no_tensor_in_before_it_is_fed() -> None:
    server = ServerConnection()
    list(server.receive(bytes_of(Feed("k"))))
    with pytest.raises(RemoteProtocolError, match="0 are let in"):
        list(server.receive(bytes_of(relay())))


def test_no_tensor_reaches_the_server_before_open() -> None:
    server = ServerConnection()
    with pytest.raises(RemoteProtocolError, match="0 are let in"):
        list(server.receive(bytes_of(step())))


def test_the_limit_cannot_be_raised_before_open() -> None:
    for side in (ClientConnection(), ServerConnection()):
        with pytest.raises(LocalProtocolError, match="before Open"):
            side.raise_limit(10)
        assert side.max_payload_bytes == 0


def test_messages_before_a_violation_in_the_same_read_are_delivered_first() -> None:
    pair = opened_pair()
    received = pair.server.receive(bytes_of(step(), Ping(1)) + bytes(8))
    assert [next(received), next(received)] == [step(), Ping(1)]
    with pytest.raises(RemoteProtocolError):
        next(received)
    assert pair.server.ended


def test_a_violation_can_still_be_told_to_the_peer() -> None:
    pair = pair_in(State.BROKEN)
    other = opened_pair()
    told = b"".join(pair.server.send(Failure(ErrorCode.PROTOCOL, "rubbish")))
    assert list(other.client.receive(told)) == [Failure(ErrorCode.PROTOCOL, "rubbish")]
    assert pair.server.state is State.FAILED


def test_the_payload_is_sent_without_a_copy() -> None:
    pair = opened_pair()
    message = step(0, 100)
    assert pair.client.send(message)[1] is message.hidden.data


def test_half_a_message_is_all_that_is_held() -> None:
    pair = opened_pair()
    data = bytes_of(step(), step())
    assert list(pair.server.receive(data[:-3])) == [step()]
    assert pair.server.buffered_bytes == len(bytes_of(step())) - 3


SESSION = [OPEN, Ping(1), Truncate(0), step(0), step(1, 20), Ping(2), Close()]


def received_in_chunks(data: bytes, at: list[int]) -> tuple[list[Message], str]:
    """What a server that opened after the first message makes of ``data``, cut at ``at``."""
    server = ServerConnection()
    found: list[Message] = []
    edges = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    try:
        for start, stop in itertools.pairwise(edges):
            for message in server.receive(data[start:stop]):
                found.append(message)
                if isinstance(message, Open):
                    server.raise_limit(LIMIT_BYTES)
                    server.send(OPENED)
    except RemoteProtocolError as error:
        return found, str(error)
    return found, ""


@given(st.lists(st.integers(0, 5000), max_size=20), st.booleans())
def test_any_cut_of_the_stream_gives_the_same_messages(at: list[int], spoilt: bool) -> None:
    data = bytes_of(*SESSION[:-1]) + (b"\xff" * 40 if spoilt else bytes_of(Close()))
    found, trouble = received_in_chunks(data, at)
    assert found == (SESSION[:-1] if spoilt else SESSION)
    assert bool(trouble) == spoilt


def feed_anything(side: ClientConnection | ServerConnection, chunks: list[bytes]) -> None:
    """Whatever comes: messages or RemoteProtocolError, and nothing piles up."""
    try:
        for chunk in chunks:
            list(side.receive(chunk))
            assert side.in_flight <= DEFAULT_LIMITS.max_in_flight
            assert side.pings_in_flight <= DEFAULT_LIMITS.max_pings
        side.receive_eof()
    except RemoteProtocolError:
        assert side.state is State.BROKEN
    except StreamLostError:
        assert side.state not in ENDED


@given(st.lists(st.binary(max_size=100), max_size=6), st.sampled_from(sorted(State, key=str)))
def test_arbitrary_bytes_are_messages_or_a_remote_error(chunks: list[bytes], state: State) -> None:
    pair = pair_in(state)
    feed_anything(pair.client, chunks)
    feed_anything(pair.server, chunks)


@given(st.lists(messages, max_size=5), st.sampled_from(sorted(State, key=str)))
def test_arbitrary_messages_are_let_in_or_a_remote_error(said: list[Message], state: State) -> None:
    pair = pair_in(state)
    chunks = [bytes_of(message) for message in said]
    feed_anything(pair.client, chunks)
    feed_anything(pair.server, chunks)


@given(st.data())
def test_a_flipped_byte_never_gets_past_as_another_error(data: st.DataObject) -> None:
    said = bytearray(bytes_of(step(), Ping(1), Truncate(3)))
    said[data.draw(st.integers(0, len(said) - 1))] ^= data.draw(st.integers(1, 255))
    feed_anything(opened_pair().server, [bytes(said)])


class SessionMachine(RuleBasedStateMachine):
    """A client and a server that keep the rules never find fault with each other.

    Bytes are under way for as long as hypothesis likes and arrive in pieces of any size, so that
    messages cross in every way. ``unanswered`` mirrors what the server owes.
    """

    LIMITS = Limits(max_in_flight=3, max_pings=2)

    @initialize()
    def begin(self) -> None:
        self.client = ClientConnection(self.LIMITS)
        self.server = ServerConnection(self.LIMITS)
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.asked: list[Message] = []
        self.heard: list[Message] = []
        self.answered: list[Message] = []
        self.replies: list[Message] = []
        self.owed: deque[Message] = deque()
        self.pings: deque[int] = deque()
        self.nonce = 0

    def client_sends(self, message: Message) -> None:
        self.to_server += b"".join(self.client.send(message))
        self.asked.append(message)

    def server_sends(self, message: Message) -> None:
        self.to_client += b"".join(self.server.send(message))
        self.answered.append(message)

    @precondition(lambda self: self.client.state is State.IDLE)
    @rule()
    def client_opens(self) -> None:
        self.client_sends(OPEN)

    @precondition(
        lambda self: self.client.state is State.OPEN and self.client.in_flight < 3
        # A client raises its limit once Opened came.
    )
    @rule(position=st.integers(0, 9), truncates=st.booleans())
    def client_asks(self, position: int, truncates: bool) -> None:
        self.client_sends(Truncate(position) if truncates else step(position))

    @precondition(lambda self: self.client.can_send(Ping) and self.client.pings_in_flight < 2)
    @rule()
    def client_pings(self) -> None:
        self.nonce += 1
        self.client_sends(Ping(self.nonce))

    @precondition(lambda self: self.client.can_send(Close))
    @rule(really=st.integers(0, 5))
    def client_closes(self, really: int) -> None:
        if really == 0:
            self.client_sends(Close())

    @precondition(lambda self: bool(self.owed) and self.server.state is not State.CLOSING)
    @rule()
    def server_answers(self) -> None:
        request = self.owed.popleft()
        match request:
            case Open():
                self.server.raise_limit(LIMIT_BYTES)
                self.server_sends(OPENED)
            case Step():
                self.server_sends(stepped(request.position))
            case Truncate():
                self.server_sends(Truncated(request.length))

    @precondition(lambda self: bool(self.pings))
    @rule()
    def server_pongs(self) -> None:
        self.server_sends(Pong(self.pings.popleft()))

    @precondition(lambda self: self.server.state is State.CLOSING)
    @rule()
    def server_confirms_the_end(self) -> None:
        self.server_sends(Closed())

    @rule(client_says_it=st.booleans(), really=st.integers(0, 15))
    def one_side_fails(self, client_says_it: bool, really: int) -> None:
        if really == 0 and client_says_it and self.client.can_send(Failure):
            self.client_sends(FAILURE)
        elif really == 0 and not client_says_it and self.server.can_send(Failure):
            self.server_sends(FAILURE)
            self.owed.clear()
            self.pings.clear()

    @rule(n=st.integers(1, 400))
    def server_hears(self, n: int) -> None:
        data, self.to_server = self.to_server[:n], self.to_server[n:]
        for message in self.server.receive(bytes(data)):
            self.heard.append(message)
            match message:
                case Open() | Step() | Truncate():
                    self.owed.append(message)
                case Ping():
                    self.pings.append(message.nonce)
                case _:
                    self.owed.clear()
                    self.pings.clear()

    @rule(n=st.integers(1, 400))
    def client_hears(self, n: int) -> None:
        data, self.to_client = self.to_client[:n], self.to_client[n:]
        for message in self.client.receive(bytes(data)):
            self.replies.append(message)
            if isinstance(message, Opened):
                self.client.raise_limit(LIMIT_BYTES)

    @invariant()
    def what_was_heard_is_what_was_said(self) -> None:
        if hasattr(self, "client"):
            assert self.heard == self.asked[: len(self.heard)]
            assert self.replies == self.answered[: len(self.replies)]

    @invariant()
    def little_is_in_flight(self) -> None:
        if hasattr(self, "client"):
            for side in (self.client, self.server):
                assert side.in_flight <= 3
                assert side.pings_in_flight <= 2
                assert side.buffered_bytes < 400

    @invariant()
    def nobody_is_broken(self) -> None:
        if hasattr(self, "client"):
            assert State.BROKEN not in (self.client.state, self.server.state)

    @invariant()
    def both_agree_when_nothing_is_under_way(self) -> None:
        if hasattr(self, "client") and not self.to_server and not self.to_client:
            if State.FAILED not in (self.client.state, self.server.state):
                assert self.client.state is self.server.state
            if self.client.state is not State.CLOSING and not self.client.ended:
                assert self.client.in_flight == self.server.in_flight
                assert self.client.pings_in_flight == self.server.pings_in_flight


SessionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestSession = SessionMachine.TestCase
