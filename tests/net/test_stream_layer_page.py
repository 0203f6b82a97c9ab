"""The reference page of the stream layer is right about bytes, limits and times."""

from __future__ import annotations

import re
from pathlib import Path

from gptnode.net import own_muxer
from gptnode.net.handshake import MUXERS
from gptnode.net.mux_frames import (
    HEADER_BYTES,
    MAX_CREDIT_BYTES,
    MAX_DATA_BYTES,
    MAX_STREAM_ID,
    EndCode,
    FrameReader,
    Kind,
)
from gptnode.net.mux_limits import FIRST_WINDOW_BYTES, MuxLimits
from gptnode.net.noise_records import MAX_PLAIN_BYTES
from tests.net.mux_pair import Pair, Side

PAGE = (Path(__file__).parents[2] / "docs/reference/stream-layer.md").read_text(encoding="utf-8")


def example() -> str:
    """The page's example, as this code writes it."""
    pair = Pair()
    sides = {"dialler": pair.dialler, "listener": pair.listener}
    lines: list[str] = []

    def say(who: str) -> None:
        data = sides[who].batch()
        other: Side = pair.listener if who == "dialler" else pair.dialler
        other.state.receive(data)
        names = []
        for frame in FrameReader().feed(data):
            end = HEADER_BYTES + len(frame.data)
            names.append(f"{who} {frame.kind.name}\n    {data[:end].hex()}")
            data = data[end:]
        lines.extend(names)

    ours = pair.dialler.state.open()
    pair.dialler.send(ours, b"hello")
    say("dialler")
    theirs = pair.listener.accepted[0]
    say("listener")
    pair.dialler.state.ping()
    pair.dialler.state.close(ours)
    say("dialler")
    pair.listener.send(theirs, b"hi")
    say("listener")
    pair.listener.state.close(theirs)
    say("listener")
    second = pair.listener.state.open()
    say("listener")
    pair.listener.state.reset(second)
    pair.listener.state.leave(EndCode.LEAVING)
    say("listener")
    return "\n".join(lines)


def test_the_example_is_what_this_code_sends() -> None:
    [block] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert block.strip() == example().strip()


def test_all_kinds_and_end_codes_are_in_the_tables() -> None:
    rows = dict(re.findall(r"^\| (\d) \| ([A-Z]+) \|", PAGE, re.MULTILINE))
    assert rows == {str(int(kind)): kind.name for kind in Kind}
    [goaway] = re.findall(r"^\| 8 \|.*$", PAGE, re.MULTILINE)
    assert all(f" {int(code)} " in goaway for code in EndCode)


def test_the_limits_are_those_of_the_code() -> None:
    limits = MuxLimits()
    for number in (
        MAX_DATA_BYTES,
        MAX_CREDIT_BYTES,
        MAX_STREAM_ID,
        FIRST_WINDOW_BYTES,
        MAX_PLAIN_BYTES,
        limits.quantum_bytes,
        limits.batch_bytes,
    ):
        assert f"{number:,}" in PAGE
    for words in (
        f"At most {limits.max_streams} streams",
        f"each of the {2 * limits.max_streams} streams",
        f"grants a stream {limits.window_bytes >> 20} MiB",
        f"{limits.max_unread_bytes >> 20} MiB",
        f"{limits.max_control_bytes >> 10} KiB of answers",
        f"nothing arrived for {own_muxer.PING_AFTER_S:g} s",
        f"arrives for {own_muxer.PONG_WITHIN_S:g} s more",
    ):
        assert words in PAGE.replace("\n", " ")
    assert limits.batch_bytes <= MAX_DATA_BYTES
    assert MUXERS == ("/gptnode/mux/1.0.0", "/yamux/1.0.0")
    assert all(f"`{name}`" in PAGE for name in MUXERS)
