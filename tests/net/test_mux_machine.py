"""Two sides that keep the rules, driven in any order: no byte is lost, mixed or held for ever.

And somebody on the line who doesn't keep them: then a side finds a violation, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gptnode.net.mux_frames import MuxViolationError
from gptnode.net.mux_limits import FIRST_WINDOW_BYTES, MuxLimits
from gptnode.net.mux_stream import MuxStream, StreamBrokenError
from gptnode.net.muxer import Outgoing
from tests.net.mux_pair import Pair, Side

LIMITS = MuxLimits(
    max_streams=3,
    window_bytes=100_000,
    max_unread_bytes=700_000,
    quantum_bytes=3_000,
    batch_bytes=10_000,
)


@dataclass
class End:
    """One end of a stream, and what was said and heard there."""

    stream: MuxStream
    said: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)
    outgoing: Outgoing | None = None
    closed: bool = False
    over: bool = False


class Streams(RuleBasedStateMachine):
    """The pair, its streams, and the bytes under way each way."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(LIMITS)
        self.sides = (self.pair.dialler, self.pair.listener)
        self.under_way = [bytearray(), bytearray()]  # towards the dialler, the listener
        self.ends: dict[tuple[int, int], End] = {}
        self.count = 0

    def side(self, number: int) -> Side:
        return self.sides[number]

    def adopt(self, number: int) -> None:
        """The streams that were opened towards this side."""
        while self.side(number).accepted:
            stream = self.side(number).accepted.pop(0)
            self.ends[number, stream.id] = End(stream)

    def pick(self, pick: int) -> tuple[int, End] | None:
        if not self.ends:
            return None
        key = sorted(self.ends)[pick % len(self.ends)]
        return key[0], self.ends[key]

    @rule(number=st.integers(0, 1))
    def open(self, number: int) -> None:
        try:
            stream = self.side(number).state.open()
        except StreamBrokenError:
            return
        self.ends[number, stream.id] = End(stream)

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 99), size=st.integers(1, 250_000))
    def send(self, pick: int, size: int) -> None:
        number, end = self.pick(pick)
        if end.stream.broken or end.closed or end.stream.outgoing is not None:
            return
        self.count += 1
        data = self.count.to_bytes(4, "big") * (size // 4 + 1)
        end.outgoing = Outgoing(data)
        end.said += data
        self.side(number).state.submit(end.stream, end.outgoing)

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 99), size=st.integers(1, 300_000))
    def read(self, pick: int, size: int) -> None:
        number, end = self.pick(pick)
        try:
            data = self.side(number).state.take(end.stream, size)
        except StreamBrokenError:
            end.over = True
            return
        end.over = data == b""
        end.heard += data or b""

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 99))
    def close(self, pick: int) -> None:
        number, end = self.pick(pick)
        if end.stream.outgoing is None:
            self.side(number).state.close(end.stream)
            end.closed = True

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 99))
    def reset(self, pick: int) -> None:
        number, end = self.pick(pick)
        self.side(number).state.reset(end.stream)

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 99))
    def withdraw(self, pick: int) -> None:
        number, end = self.pick(pick)
        if end.stream.outgoing is not None and end.outgoing is not None:
            self.side(number).state.withdraw(end.stream)
            del end.said[len(end.said) - end.outgoing.rest :]

    @rule(number=st.integers(0, 1))
    def ping(self, number: int) -> None:
        self.side(number).state.ping()

    @rule(number=st.integers(0, 1))
    def write_out(self, number: int) -> None:
        self.under_way[1 - number] += self.side(number).batch()

    @rule(number=st.integers(0, 1), size=st.integers(1, 30_000))
    def arrive(self, number: int, size: int) -> None:
        """Honest sides never find a violation, however the bytes are cut."""
        data = bytes(self.under_way[number][:size])
        del self.under_way[number][:size]
        self.side(number).state.receive(data)
        self.adopt(number)

    @invariant()
    def what_is_heard_was_said(self) -> None:
        for (number, stream_id), end in self.ends.items():
            other = self.ends.get((1 - number, stream_id))
            said = other.said if other is not None else b""
            assert said.startswith(end.heard)

    @invariant()
    def what_is_held_is_bounded(self) -> None:
        for side in self.sides:
            state = side.state
            assert state.granted_bytes == sum(one.window for one in state.streams.values())
            assert state.granted_bytes <= LIMITS.max_unread_bytes
            for stream in state.streams.values():
                assert stream.unread_bytes <= stream.window
                assert stream.recv_window + stream.unread_bytes <= stream.window
                assert stream.window in (FIRST_WINDOW_BYTES, LIMITS.window_bytes)

    def teardown(self) -> None:
        """Read on, and everything arrives: no credit was lost on the way."""
        for _ in range(400):
            for number in (0, 1):
                self.write_out(number)
            for number in (0, 1):
                self.arrive(number, 1 << 30)
            for number, end in [(key[0], end) for key, end in self.ends.items()]:
                try:
                    end.heard += self.side(number).state.take(end.stream, 1 << 30) or b""
                except StreamBrokenError:
                    continue
        for (number, stream_id), end in self.ends.items():
            if end.stream.broken is None:
                assert end.stream.outgoing is None
                other = self.ends.get((1 - number, stream_id))
                assert end.heard == (other.said if other is not None else b"")
        for side in self.sides:
            broken = sum(one.unread_bytes for one in side.state.streams.values())
            assert broken == 0


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@settings(deadline=None)
@given(st.data())
def test_a_meddled_line_gives_violations_and_nothing_else(data: st.DataObject) -> None:
    pair = Pair(LIMITS)
    ours, _ = pair.open()
    pair.dialler.send(ours, bytes(range(200)))
    pair.dialler.state.ping()
    wire = bytearray(pair.dialler.batch())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wire) - 1))
        how = data.draw(st.sampled_from(["flip", "drop", "insert"]))
        if how == "flip":
            wire[at] ^= data.draw(st.integers(1, 255))
        elif how == "drop":
            del wire[at : at + data.draw(st.integers(1, 8))]
        else:
            wire[at:at] = data.draw(st.binary(min_size=1, max_size=30))
        if not wire:
            break
    try:
        pair.listener.state.receive(bytes(wire))
    except MuxViolationError:
        pass
    assert pair.listener.state.unread_bytes <= len(wire)
