"""Streams, windows and ends, without a clock or a socket; and peers that break the rules."""

from __future__ import annotations

import pytest

from gptnode.net.mux_frames import EndCode, Kind, MuxViolationError, header
from gptnode.net.mux_limits import FIRST_WINDOW_BYTES, MuxLimits
from gptnode.net.mux_stream import StreamBrokenError
from tests.net.mux_pair import Pair, Side

SMALL = MuxLimits(
    max_streams=4,
    window_bytes=128 * 1024,
    max_unread_bytes=1024 * 1024,
    max_control_bytes=2048,
    quantum_bytes=1000,
    batch_bytes=4000,
)


def read_all(side: Side, stream) -> bytes:  # type: ignore[no-untyped-def]
    data = b""
    while more := side.state.take(stream, 1 << 20):
        data += more
    return data


def test_what_one_side_sends_the_other_reads_with_both_ends() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    pair.dialler.send(ours, b"there")
    pair.settle()
    assert pair.listener.state.take(theirs, 3) == b"the"
    assert pair.listener.state.take(theirs, 100) == b"re"
    assert pair.listener.state.take(theirs, 100) is None
    pair.dialler.state.close(ours)
    pair.settle()
    assert pair.listener.state.take(theirs, 100) == b""
    pair.listener.send(theirs, b"and back")  # the other half is still open
    pair.settle()
    pair.listener.state.close(theirs)
    pair.settle()
    assert pair.dialler.state.take(ours, 100) == b"and back"
    assert pair.dialler.state.take(ours, 100) == b""
    for side in (pair.dialler, pair.listener):
        assert side.state.streams == {}
        assert side.state.granted_bytes == side.state.unread_bytes == 0


def test_a_sender_stops_at_the_window_and_goes_on_as_it_is_read() -> None:
    pair = Pair(SMALL)
    ours, theirs = pair.open()
    outgoing = pair.dialler.send(ours, bytes(300_000))
    pair.settle()
    assert theirs.unread_bytes == SMALL.window_bytes
    assert outgoing.rest == 300_000 - SMALL.window_bytes
    assert pair.listener.state.take(theirs, SMALL.window_bytes // 2) is not None
    pair.settle()
    assert theirs.unread_bytes == SMALL.window_bytes
    assert len(read_all(pair.listener, theirs)) == SMALL.window_bytes
    pair.settle()
    assert outgoing.rest == 0
    assert ours in pair.dialler.woken


def test_the_windows_of_all_streams_together_stay_below_the_limit() -> None:
    limits = MuxLimits(max_streams=8, window_bytes=1 << 20, max_unread_bytes=4 << 20)
    pair = Pair(limits)
    for _ in range(8):
        ours, _ = pair.open()
        pair.dialler.send(ours, bytes(2 << 20))
    pair.settle()
    windows = sorted(stream.window for stream in pair.listener.accepted)
    assert windows == [FIRST_WINDOW_BYTES] * 5 + [1 << 20] * 3
    assert pair.listener.state.unread_bytes == sum(windows) <= limits.max_unread_bytes


def test_streams_take_turns_of_a_quantum() -> None:
    pair = Pair(SMALL)
    streams = [pair.open()[0] for _ in range(3)]
    for stream in streams:
        pair.dialler.send(stream, bytes(50_000))
    batch = pair.dialler.state.next_batch()
    turns = [int.from_bytes(bytes(head[1:5]), "big") for head in batch[::2]]
    assert turns == [1, 3, 5, 1]
    assert [len(data) for data in batch[1::2]] == [1000] * 4


def test_what_is_not_data_goes_first() -> None:
    pair = Pair(SMALL)
    ours, _ = pair.open()
    pair.dialler.send(ours, bytes(50_000))
    pair.dialler.state.next_batch()
    assert pair.dialler.state.ping()
    assert pair.dialler.batch().startswith(header(Kind.PING, 0, 1))
    assert not pair.dialler.state.ping()  # one at a time


def test_a_stream_that_is_alone_sends_a_batch_in_one_frame() -> None:
    pair = Pair()
    ours, _ = pair.open()
    pair.dialler.send(ours, bytes(1 << 20))
    assert len(pair.dialler.state.next_batch()) == 2


def test_bytes_that_were_withdrawn_are_not_sent() -> None:
    pair = Pair(SMALL)
    ours, theirs = pair.open()
    outgoing = pair.dialler.send(ours, bytes(50_000))
    pair.listener.state.receive(pair.dialler.batch())
    pair.dialler.state.withdraw(ours)
    pair.settle()
    assert outgoing.begun
    assert outgoing.rest == 50_000 - theirs.unread_bytes > 0


def test_a_reset_ends_both_directions_and_what_was_under_way_is_passed_over() -> None:
    pair = Pair(SMALL)
    ours, theirs = pair.open()
    pair.dialler.send(ours, b"under way")
    under_way = pair.dialler.batch()
    pair.listener.state.reset(theirs)
    pair.listener.state.receive(under_way)
    pair.settle()
    assert pair.listener.state.unread_bytes == 0
    with pytest.raises(StreamBrokenError, match="the peer reset"):
        pair.dialler.state.take(ours, 1)
    with pytest.raises(StreamBrokenError, match="the peer reset"):
        pair.dialler.send(ours, b"x")
    assert pair.dialler.state.streams == pair.listener.state.streams == {}


def test_bytes_that_came_before_a_reset_are_read_first() -> None:
    pair = Pair(SMALL)
    ours, theirs = pair.open()
    pair.dialler.send(ours, b"last words")
    pair.settle()
    pair.dialler.state.reset(ours)
    pair.settle()
    assert pair.listener.state.take(theirs, 100) == b"last words"
    with pytest.raises(StreamBrokenError):
        pair.listener.state.take(theirs, 100)


def test_a_lost_connection_keeps_what_came_and_the_ends_that_came() -> None:
    pair = Pair(SMALL)
    (whole, theirs), (cut, other) = pair.open(), pair.open()
    for stream in (whole, cut):
        pair.dialler.send(stream, b"said")
    pair.settle()
    pair.dialler.state.close(whole)
    pair.settle()
    pair.listener.state.lose("gone")
    assert pair.listener.state.take(theirs, 9) == pair.listener.state.take(other, 9) == b"said"
    assert pair.listener.state.take(theirs, 9) == b""
    with pytest.raises(StreamBrokenError, match="gone"):
        pair.listener.state.take(other, 9)
    with pytest.raises(StreamBrokenError, match="gone"):
        pair.listener.state.open()


def test_streams_are_bounded_and_come_back() -> None:
    pair = Pair(SMALL)
    streams = [pair.open() for _ in range(SMALL.max_streams)]
    with pytest.raises(StreamBrokenError, match="too many"):
        pair.dialler.state.open()
    assert pair.listener.state.open() is not None  # the other's are counted apart
    pair.listener.state.reset(streams[0][1])
    pair.settle()
    pair.open()


def test_no_stream_is_opened_towards_a_peer_that_leaves() -> None:
    pair = Pair(SMALL)
    ours, theirs = pair.open()
    pair.listener.state.leave(EndCode.LEAVING)
    pair.settle()
    assert pair.dialler.state.peer_leaves is EndCode.LEAVING
    with pytest.raises(StreamBrokenError, match="about to leave"):
        pair.dialler.state.open()
    pair.dialler.send(ours, b"those there are go on")
    pair.settle()
    assert theirs.unread_bytes


def test_many_small_frames_take_about_their_bytes() -> None:
    pair = Pair()
    _, theirs = pair.open()
    for _ in range(1000):
        pair.listener.state.receive(header(Kind.DATA, 1, 1) + b"x")
    assert len(theirs._pieces) == 1


def test_a_few_bytes_do_not_keep_a_large_buffer_alive() -> None:
    pair = Pair()
    _, theirs = pair.open()
    large = bytearray(header(Kind.DATA, 1, 20) + b"x" * 20 + header(Kind.DATA, 1, 50_000))
    large += bytes(50_000)
    pair.listener.state.receive(large)
    small, rest = theirs._pieces
    assert isinstance(small, bytearray)
    assert isinstance(rest, memoryview)
    assert rest.obj is large


# -- violations ------------------------------------------------------------------------------------


def violation(data: bytes, limits: MuxLimits = SMALL) -> str:
    """What the listener says to ``data`` after one stream was opened."""
    pair = Pair(limits)
    pair.open()
    with pytest.raises(MuxViolationError) as caught:
        pair.listener.state.receive(data)
    return str(caught.value)


def test_more_than_the_window_is_a_violation() -> None:
    data = b"".join(header(Kind.DATA, 1, 64_000) + bytes(64_000) for _ in range(3))
    assert "more than its window" in violation(data)


def test_more_unread_bytes_than_the_connection_may_have_are_a_violation() -> None:
    """Streams that are over aren't counted by windows: their unread bytes are."""
    pair = Pair(MuxLimits(max_streams=2, max_unread_bytes=200_000))
    with pytest.raises(MuxViolationError, match="more than is read"):
        for _ in range(5):
            ours, _ = pair.open()
            pair.dialler.send(ours, bytes(60_000))
            pair.settle()
            pair.dialler.state.reset(ours)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (header(Kind.OPEN, 1, 0), "where 3 is next"),
        (header(Kind.OPEN, 5, 0), "where 3 is next"),
        (header(Kind.OPEN, 4, 0), "where 3 is next"),
        (header(Kind.DATA, 3, 1) + b"x", "wasn't opened"),
        (header(Kind.DATA, 2, 1) + b"x", "wasn't opened"),
        (header(Kind.WINDOW, 9, 1), "wasn't opened"),
        (header(Kind.RESET, 2, 0), "wasn't opened"),
        (header(Kind.CLOSE, 1, 0) * 2, "a second CLOSE"),
        (header(Kind.CLOSE, 1, 0) + header(Kind.DATA, 1, 1) + b"x", "DATA after CLOSE"),
        (header(Kind.WINDOW, 1, 2**31 - 1), "too much credit"),
        (header(Kind.PING, 0, 1) * 2, "before the last one was answered"),
        (header(Kind.PONG, 0, 1), "PONG without"),
        (b"".join(header(Kind.OPEN, 3 + 2 * n, 0) for n in range(4)), "too many streams"),
    ],
)
def test_a_frame_against_the_rules_is_a_violation(frame: bytes, words: str) -> None:
    assert words in violation(frame)


def test_a_peer_that_makes_work_and_reads_no_answer_is_cut_off() -> None:
    pair = Pair(SMALL)
    with pytest.raises(MuxViolationError, match="doesn't read"):
        for n in range(0, 1000):
            pair.listener.state.receive(header(Kind.OPEN, 1 + 2 * n, 0))
            pair.listener.state.reset(pair.listener.accepted[-1])
    assert n < 300
