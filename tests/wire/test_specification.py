"""The reference page of the protocol is right about bytes, limits, states and codes."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from gptnode.span import Span
from gptnode.wire.codec import decode, encode, tag_of
from gptnode.wire.connection import ClientConnection, ServerConnection
from gptnode.wire.fields import MAX_ARRAY_ITEMS, MAX_MAP_FIELDS, MAX_TEXT_BYTES
from gptnode.wire.limits import DEFAULT_LIMITS
from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    Draw,
    ErrorCode,
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
    WireTensor,
)
from gptnode.wire.states import CLIENT_SENDS, ENDED, SERVER_SENDS, State
from gptnode.wire.tensor import MAX_TENSOR_BYTES

PAGE = (Path(__file__).parents[2] / "docs/reference/wire-protocol.md").read_text(encoding="utf-8")
SPAN = Span(0, 4)
SESSION: list[tuple[str, Message]] = [
    ("client", Open("tiny", "5eed", SPAN, 64, "f32")),
    ("server", Opened("5eed", SPAN, 7, 64, 32)),
    ("client", Step(0, WireTensor("f32", (1, 1, 2), struct.pack("<2f", 1.0, -2.0)))),
    ("client", Ping(1)),
    ("server", Pong(1)),
    (
        "server",
        Stepped(
            0,
            SPAN,
            "5eed",
            7,
            WireTensor("f32", (1, 1, 2), struct.pack("<2f", 0.5, 0.25)),
            0.0,
            0.5,
        ),
    ),
    ("client", Truncate(0)),
    ("server", Truncated(0)),
    ("client", Close()),
    ("server", Closed()),
]
TENSOR = WireTensor("f32", (1, 1, 2), struct.pack("<2f", 1.0, -2.0))
OF_RINGS: list[Message] = [
    Forward(1, "peer", "key"),
    Forwarding(),
    Feed("key"),
    Fed(32),
    Relay(1, 0, TENSOR),
    Relayed(1),
    Arrived(1, 0, TENSOR, (Trace(SPAN, 7, 0.0, 0.5),)),
    Stranded(1, "why"),
]


def example_of(session: list[tuple[str, Message]]) -> str:
    """The page's example, as this code writes it."""
    sides = {"client": ClientConnection(), "server": ServerConnection()}
    lines = []
    for who, message in session:
        data = b"".join(sides[who].send(message))
        other = sides["server" if who == "client" else "client"]
        assert list(other.receive(data)) == [message]
        if isinstance(message, Open):
            sides["server"].raise_limit(1024)
        if isinstance(message, Opened):
            sides["client"].raise_limit(1024)
        pieces = [data[start : start + 40].hex() for start in range(0, len(data), 40)]
        lines.append("\n    ".join([f"{who} {tag_of(message)}", *pieces]))
    return "\n".join(lines)


def blocks() -> list[str]:
    return re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)


def table(heading: str, nth: int = 0) -> list[list[str]]:
    """The rows of the ``nth`` table under a heading, without its own head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = [line.strip().strip("|").split("|") for line in tables[nth].splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_example_is_what_this_code_says() -> None:
    assert blocks()[0].strip() == example_of(SESSION)


def test_the_frame_in_pieces_is_the_first_of_the_example() -> None:
    pieces = "".join(re.split(r"  +", line.strip())[0] for line in blocks()[1].splitlines())
    data = bytes.fromhex(pieces.replace(" ", ""))
    assert list(ServerConnection().receive(data)) == [SESSION[0][1]]


@pytest.mark.parametrize(("column", "sends"), [(1, CLIENT_SENDS), (2, SERVER_SENDS)])
def test_the_table_of_states_is_that_of_the_code(
    column: int, sends: dict[tuple[State, type[Message]], State]
) -> None:
    said = {}
    for row in table("Order")[:5]:
        for entry in row[column].split(", "):
            tag, _, to = entry.partition(" → ")
            said[row[0], tag] = to or row[0]
    assert said == {
        (state.value, tag_of(kind)): to.value
        for (state, kind), to in sends.items()
        if state not in ENDED
    }


def test_every_message_stands_in_its_table_with_its_entries() -> None:
    rows = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in table("Messages")}
    said = {tag_of(message): message for message in (*(one for _, one in SESSION), *OF_RINGS)}
    for tag, message in said.items():
        entries = rows[tag]
        head, payload = encode(message)
        assert decode(head, memoryview(payload)) == message
        fields = set(message.__slots__)
        assert entries == fields
    assert set(rows) == set(said) | {"failure"}
    assert rows["failure"] == {"code", "message", "retry_after_s"}


def test_every_entry_of_a_draw_stands_in_its_table() -> None:
    entries = [name for row in table("Heads of peers") for name in re.findall(r"`(\w+)`", row[0])]
    assert entries == list(Draw.__slots__)


def test_every_code_stands_in_its_table() -> None:
    codes = [code for row in table("Ends and errors", 1) for code in re.findall(r"`(\w+)`", row[0])]
    assert sorted(codes) == sorted(ErrorCode)


@pytest.mark.parametrize(
    "said",
    [
        f"1 to {DEFAULT_LIMITS.max_head_bytes:,}",
        f"{MAX_TENSOR_BYTES:,} (64 MiB)",
        f"At most {DEFAULT_LIMITS.max_in_flight} may be",
        f"At most {DEFAULT_LIMITS.max_pings} may be",
        f"{MAX_TEXT_BYTES:,} bytes",
        f"arrays of at most {MAX_ARRAY_ITEMS} items",
        f"maps of at most {MAX_MAP_FIELDS} entries",
    ],
)
def test_the_limits_are_those_of_the_code(said: str) -> None:
    assert said in re.sub(r"\s+", " ", PAGE)
