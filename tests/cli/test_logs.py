"""The logs of a server: one line an event, in either form, safe for a terminal."""

from __future__ import annotations

import io
import json
import logging
from datetime import datetime

import pytest
import structlog

from gptnode.cli.logs import set_up_logs
from tests.cli.log_state import logging_as_before  # noqa: F401

pytestmark = pytest.mark.usefixtures("logging_as_before")


def lines(level: str = "info", log_format: str = "text") -> io.StringIO:
    stream = io.StringIO()
    set_up_logs(level, log_format, stream)
    return stream


def test_an_event_is_a_line_of_key_value_pairs_that_begins_with_an_iso_time() -> None:
    out = lines()
    structlog.get_logger("gptnode.node").bind(peer="anna").info("session open", tokens=7)
    line = out.getvalue()
    assert line.endswith('level=info logger=gptnode.node event="session open" peer=anna tokens=7\n')
    time = line.split()[0].removeprefix("timestamp=")
    assert datetime.fromisoformat(time).tzinfo is not None


def test_json_has_the_same_as_one_object_a_line() -> None:
    out = lines(log_format="json")
    structlog.get_logger("gptnode.node").warning("refused", peer="x\ny", code=3)
    (line,) = out.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp")
    assert event == {
        "event": "refused",
        "level": "warning",
        "logger": "gptnode.node",
        "peer": "x\ny",
        "code": 3,
    }


def test_what_is_logged_the_classic_way_takes_the_same_form() -> None:
    out = lines()
    logging.getLogger("gptnode.net").info("refused %s from %s", "ben", "10.0.0.1")
    assert 'logger=gptnode.net event="refused ben from 10.0.0.1"' in out.getvalue()


def test_events_below_the_level_are_left_out() -> None:
    out = lines(level="warning")
    structlog.get_logger("gptnode.node").info("small")
    logging.getLogger("gptnode.net").info("small")
    assert out.getvalue() == ""
    structlog.get_logger("gptnode.node").warning("large")
    assert "large" in out.getvalue()


def test_control_characters_never_reach_the_terminal_and_a_line_stays_a_line() -> None:
    out = lines()
    structlog.get_logger("gptnode.node").info("lost", reason="\x1b[2Jgone\r\nforged event=x")
    text = out.getvalue()
    assert "gone" in text
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_is_logged_with_its_traceback_in_one_line(log_format: str) -> None:
    out = lines(log_format=log_format)
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        logging.getLogger("gptnode.net").exception("it failed")
        structlog.get_logger("gptnode.node").exception("it failed too")
    first, second = out.getvalue().splitlines()
    for line in (first, second):
        assert "Traceback" in line
        assert "ZeroDivisionError: oh" in line


def test_the_warnings_of_libp2p_are_shown_with_debug_only() -> None:
    out = lines()
    logging.getLogger("libp2p.something").error("noise")
    assert out.getvalue() == ""
    out = lines(level="debug")
    logging.getLogger("libp2p.something").warning("noise")
    assert "noise" in out.getvalue()
