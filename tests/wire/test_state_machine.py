"""A client and a server that keep the rules, and somebody on the wire who doesn't.

Bytes under way are flipped, dropped, doubled, or joined by others, and either direction may end at
any byte. Each side then gets messages, finds a violation, or sees a loss; nothing else, ever.
`scripts/fuzz.py states` runs it with as many seeds as one likes.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gptnode.errors import LocalProtocolError, RemoteProtocolError, StreamLostError
from gptnode.wire.codec import encode
from gptnode.wire.connection import ClientConnection, ServerConnection
from gptnode.wire.frames import encode_frame
from gptnode.wire.limits import Limits
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
    Stranded,
    Trace,
    Truncate,
    Truncated,
)
from gptnode.wire.states import State
from tests.wire.pair import LIMIT_BYTES, OPEN, OPENED, SPAN, step, stepped, tensor
from tests.wire.strategies import messages

LIMITS = Limits(max_in_flight=3, max_pings=2)
MOST_HELD_BYTES = LIMITS.max_head_bytes + LIMIT_BYTES + 8
BAD = Failure(ErrorCode.PROTOCOL, "nonsense")


class Way:
    """One direction: the bytes under way, what was said, what was heard."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.said: list[Message] = []
        self.heard: list[Message] = []
        self.touched = False
        self.over = False


class MeddledSession(RuleBasedStateMachine):
    """The pair, two ways, and what the server owes."""

    def __init__(self) -> None:
        super().__init__()
        self.client = ClientConnection(LIMITS)
        self.server = ServerConnection(LIMITS)
        self.up, self.down = Way(), Way()
        self.owed: deque[Message] = deque()
        self.pings: deque[int] = deque()
        self.expected = 0

    # -- the honest two ----------------------------------------------------------------------------

    def say(self, side: ClientConnection | ServerConnection, message: Message) -> None:
        way = self.up if side is self.client else self.down
        way.bytes += b"".join(side.send(message))
        way.said.append(message)

    @rule(
        message=st.sampled_from(
            [
                *(OPEN, OPEN, Feed("k"), step(0), step(3, 40), Truncate(1), Forward(1, "ben", "k")),
                *(Relay(1, 0, tensor()), Relay(2, 1, tensor()), Ping(1), Ping(2), Close(), BAD),
            ]
        )
    )
    def client_says(self, message: Message) -> None:
        before = self.client.state, self.client.in_flight, self.client.pings_in_flight
        full = 3 in (self.client.in_flight, self.client.relays_in_flight)
        full = full or self.client.pings_in_flight == 2
        may = self.client.can_send(type(message))
        try:
            self.say(self.client, message)
        except LocalProtocolError:
            assert full or not may
            assert before == (
                self.client.state,
                self.client.in_flight,
                self.client.pings_in_flight,
            )
        else:
            assert may

    @precondition(lambda self: self.owed and not self.server.ended)
    @rule()
    def server_answers(self) -> None:
        match request := self.owed.popleft():
            case Open():
                self.server.raise_limit(LIMIT_BYTES)
                self.say(self.server, OPENED)
            case Step():
                self.say(self.server, stepped(request.position))
            case Truncate():
                self.say(self.server, Truncated(request.length))
            case Forward():
                self.say(self.server, Forwarding())
            case Feed():
                self.server.raise_limit(LIMIT_BYTES)
                self.say(self.server, Fed(16))
            case Relay():
                self.say(self.server, Relayed(1))
            case Close():
                self.say(self.server, Closed())

    @precondition(lambda self: self.client.state is State.OPEN)
    @rule()
    def client_expects_an_arrival(self) -> None:
        self.client.expect_arrival()
        self.expected += 1

    @precondition(lambda self: self.expected and self.server.state is State.OPEN)
    @rule()
    def something_arrives(self) -> None:
        self.expected -= 1
        self.say(self.server, Arrived(1, 0, tensor(), (Trace(SPAN, 7, 0.0, 0.5),)))

    @precondition(lambda self: self.server.state is State.OPEN)
    @rule(ticket=st.integers(1, 2))
    def something_is_stranded(self, ticket: int) -> None:
        self.say(self.server, Stranded(ticket, "why"))

    @precondition(lambda self: self.pings and not self.server.ended)
    @rule()
    def server_pongs(self) -> None:
        self.say(self.server, Pong(self.pings.popleft()))

    @precondition(lambda self: self.server.can_send(Failure))
    @rule(really=st.integers(0, 9))
    def server_fails(self, really: int) -> None:
        if really == 0 or self.server.state is State.BROKEN:
            self.say(self.server, BAD)

    # -- the wire ----------------------------------------------------------------------------------

    @rule(upwards=st.booleans(), n=st.integers(1, 500))
    def some_bytes_arrive(self, upwards: bool, n: int) -> None:
        way = self.up if upwards else self.down
        data = bytes(way.bytes[:n])
        del way.bytes[:n]
        side = self.server if upwards else self.client
        was_over = side.ended
        try:
            for message in side.receive(data):
                assert not was_over
                way.heard.append(message)
                self.react(message)
        except RemoteProtocolError:
            # Lies upwards make an honest server say what the client never asked for.
            assert self.up.touched or self.down.touched, "fault was found without a lie"
            assert side.state is State.BROKEN
        if side is self.server and side.ended:
            self.owed.clear()
            self.pings.clear()

    def react(self, message: Message) -> None:
        match message:
            case Open() | Step() | Truncate() | Forward() | Feed() | Relay():
                self.owed.append(message)
            case Ping():
                self.pings.append(message.nonce)
            case Close():
                self.owed.clear()
                self.pings.clear()
                self.owed.append(message)
            case Opened() | Fed():
                self.client.raise_limit(LIMIT_BYTES)

    @rule(upwards=st.booleans(), rarely=st.integers(0, 7))
    def a_direction_ends(self, upwards: bool, rarely: int) -> None:
        way = self.up if upwards else self.down
        if rarely or way.over:
            return
        self.some_bytes_arrive(upwards, len(way.bytes))
        way.over = way.touched = True
        side = self.server if upwards else self.client
        fine = side.ended or (side is self.server and side.state is State.CLOSING)
        try:
            side.receive_eof()
        except StreamLostError:
            assert not fine
        else:
            assert fine

    @precondition(lambda self: self.up.bytes or self.down.bytes)
    @rule(data=st.data(), upwards=st.booleans())
    def bytes_are_changed(self, data: st.DataObject, upwards: bool) -> None:
        way = self.up if upwards else self.down
        if not way.bytes:
            return
        at = data.draw(st.integers(0, len(way.bytes) - 1))
        length = data.draw(st.integers(1, 40))
        match data.draw(st.sampled_from(["flip", "drop", "double"])):
            case "flip":
                way.bytes[at] ^= data.draw(st.integers(1, 255))
            case "drop":
                del way.bytes[at : at + length]
            case _:
                way.bytes[at:at] = way.bytes[at : at + length]
        way.touched = True

    @rule(message=messages, upwards=st.booleans(), rarely=st.integers(0, 3))
    def a_message_is_slipped_in(self, message: Message, upwards: bool, rarely: int) -> None:
        if rarely == 0:
            way = self.up if upwards else self.down
            way.bytes += b"".join(encode_frame(*encode(message)))
            way.touched = True

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def an_untouched_way_delivers_what_was_said(self) -> None:
        for way in (self.up, self.down):
            if not way.touched:
                assert way.heard == way.said[: len(way.heard)]

    @invariant()
    def little_is_held(self) -> None:
        for side in (self.client, self.server):
            assert side.in_flight <= LIMITS.max_in_flight
            assert side.pings_in_flight <= LIMITS.max_pings
            assert side.ended or side.buffered_bytes <= MOST_HELD_BYTES

    @invariant()
    def the_end_is_final(self) -> None:
        for side in (self.client, self.server):
            if side.ended:
                assert side.in_flight == side.pings_in_flight == 0
                assert list(side.receive(b"".join(encode_frame(*encode(BAD))))) == []
                assert not any(side.can_send(kind) for kind in (Open, Step, Ping, Close, Opened))


MeddledSession.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMeddledSession = MeddledSession.TestCase
