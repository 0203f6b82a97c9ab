"""What `gptnode top` makes of what servers tell: rates, rows, the picture, and its options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from gptnode.cli import top as top_module
from gptnode.cli.top import top_command
from gptnode.cli.top_data import (
    PeerRow,
    Rates,
    Snapshot,
    Told,
    rows,
    told_by_metrics,
    told_by_status,
)
from gptnode.cli.top_view import draw
from gptnode.errors import IdentityError, UsageError
from gptnode.net.identity import create_identity
from gptnode.node import metric_catalogue as names
from gptnode.node.metric_catalogue import Reading
from gptnode.node.metrics import Metrics
from gptnode.node.reach import Reach
from gptnode.routing.blocks_map import BlocksMap, ModelEntry, PeerEntry, RouteEntry
from gptnode.span import Span

MAP = BlocksMap(
    models=(ModelEntry(name="demo"),),
    peers=(PeerEntry("anna", (), "anna"), PeerEntry("ben", (), "ben")),
    routes=(RouteEntry("demo", Span(0, 4), ("anna",)), RouteEntry("demo", Span(4, 8), ("ben",))),
)


def told(at_s: float = 0.0, **changes: Any) -> Told:
    fields = {"source": "s", "peer_id": "anna", "sessions": 1, "decoded": 0.0, "prefilled": 0.0}
    return Told(at_s=at_s, **(fields | changes))


# What servers tell


def page(*readings: Reading) -> str:
    metrics = Metrics()
    metrics.watch(lambda: [Reading(names.NODE_INFO, 1, ("anna", "0.1.0")), *readings])
    metrics.step("demo", 1, 0.1, 0.1)
    metrics.step("demo", 3, 0.1, 0.1)
    metrics.step("demo", 256, 0.1, 0.1)
    metrics.look()
    return metrics.render().body.decode()


def test_a_page_of_a_servers_metrics_is_read_as_it_was_written() -> None:
    found = told_by_metrics(
        page(
            Reading(names.READY, 1),
            Reading(names.BLOCKS_LOADED, 4, ("demo",)),
            Reading(names.SESSIONS, 2),
            Reading(names.SESSIONS_LIMIT, 64),
            Reading(names.KV_BYTES, 1 << 20),
            Reading(names.KV_LIMIT_BYTES, 1 << 30),
            Reading(names.REFUSED_PEERS, 7),
        ),
        "http://here",
        12.0,
    )
    assert found == Told(
        source="http://here",
        peer_id="anna",
        at_s=12.0,
        state="serving",
        blocks="4 of demo",
        sessions=2,
        sessions_limit=64,
        kv_bytes=1 << 20,
        kv_limit_bytes=1 << 30,
        decoded=4,
        prefilled=256,
        refused=7,
    )


def test_a_server_that_is_not_ready_and_an_api_are_told_apart() -> None:
    server = told_by_metrics(page(Reading(names.READY, 0), Reading(names.SESSIONS, 0)), "s", 0)
    assert (server.state, server.is_server) == ("not ready", True)
    api = told_by_metrics(
        page(Reading(names.SERVICE_ANSWERING, 3), Reading(names.SERVICE_WAITING, 1)), "s", 0
    )
    assert (api.answering, api.waiting, api.answered, api.is_server) == (3, 1, 0.0, False)


@pytest.mark.parametrize("text", ["", "<html>", "up 1\n"])
def test_a_page_of_something_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        told_by_metrics(text, "s", 0)


def test_the_file_of_an_older_server_without_limits_is_read_too() -> None:
    status = {
        "peer_id": "anna",
        "state": "loading",
        "blocks": {"demo": ["0-3", "6"]},
        "lent": {"sessions": 2, "kv_bytes": 5},
        "refused": [{}, {}],
        "problems": ["the map is broken"],
    }
    found = told_by_status(status, 3.0)
    assert (found.state, found.blocks, found.sessions_limit) == ("loading", "demo 0-3, 6", None)
    assert (found.refused, found.problems) == (2, ("the map is broken",))


# Rates


def test_a_rate_takes_two_looks_and_follows_the_last_seconds() -> None:
    rates = Rates()
    rates.note(told(0.0, decoded=1000.0))
    assert rates.of("s", "decoded") is None
    rates.note(told(2.0, decoded=1020.0))
    assert rates.of("s", "decoded") == 10
    for second in range(3, 20):
        rates.note(told(float(second), decoded=1020.0))
    assert rates.of("s", "decoded") == 0


def test_a_server_that_was_started_again_has_no_negative_rate() -> None:
    rates = Rates()
    rates.note(told(0.0, decoded=1000.0))
    rates.note(told(1.0, decoded=3.0))
    assert rates.of("s", "decoded") is None
    rates.note(told(2.0, decoded=8.0))
    assert rates.of("s", "decoded") == 5


def test_what_a_node_does_not_tell_has_no_rate() -> None:
    rates = Rates()
    for second in range(3):
        rates.note(told(float(second), answered=None))
    assert rates.of("s", "answered") is None
    assert rates.of("another", "decoded") is None


# Rows


def test_each_peer_of_the_map_has_a_row_with_what_is_known_of_it() -> None:
    reach = {"anna": Reach("reachable", 0.002), "ben": Reach("down", None, "connection refused")}
    peers, clients = rows(MAP, reach, [told(kv_bytes=9)], Rates())
    assert [(row.label, row.blocks, row.state) for row in peers] == [
        ("anna", "0-3", "reachable"),
        ("ben", "4-7", "down"),
    ]
    assert (peers[0].round_trip_s, peers[0].sessions, peers[0].kv_bytes) == (0.002, 1, 9)
    assert (peers[1].sessions, peers[1].reason) == (None, "connection refused")
    assert clients == ()


def test_a_servers_own_word_beats_what_the_network_says_and_the_first_source_the_second() -> None:
    reach = {"anna": Reach("reachable", 0.002)}
    sources = [told(state="loading", sessions=5), told(source="t", state="serving", sessions=6)]
    peers, _ = rows(MAP, reach, sources, Rates())
    assert (peers[0].state, peers[0].sessions) == ("loading", 5)


def test_a_rate_that_only_the_second_source_has_is_shown() -> None:
    rates = Rates()
    sources = [told(decoded=None, prefilled=None), told(source="t", at_s=0.0, decoded=0.0)]
    rates.note(sources[1])
    rates.note(told(source="t", at_s=1.0, decoded=7.0))
    peers, _ = rows(MAP, {}, sources, rates)
    assert peers[0].tokens_per_s == 7


def test_servers_and_apis_that_are_in_no_map_are_shown_too() -> None:
    api = told(source="http://api", peer_id="cleo", sessions=None, answering=2, waiting=0)
    server = told(peer_id="12D3KooWanonymous", blocks="4 of demo")
    peers, clients = rows(None, {}, [server, api], Rates())
    assert [(row.label, row.blocks) for row in peers] == [("…ooWanonymous", "4 of demo")]
    assert [(row.source, row.answering) for row in clients] == [("http://api", 2)]


# The picture


def snapshot(*peers: PeerRow, **changes: Any) -> Snapshot:
    fields = {"at_s": 0.0, "map": "m.json", "models": ("demo",), "clients": (), "problems": ()}
    return Snapshot(peers=peers, **(fields | changes))


def row(**changes: Any) -> PeerRow:
    fields = {
        "label": "anna",
        "peer_id": "12D3",
        "blocks": "0-3",
        "state": "serving",
        "round_trip_s": 0.00123,
        "sessions": 3,
        "sessions_limit": 64,
        "tokens_per_s": 41.26,
        "prompt_tokens_per_s": 310.0,
        "kv_bytes": 300 << 20,
        "kv_limit_bytes": 2 << 30,
        "reason": "",
    }
    return PeerRow(**(fields | changes))


def text(shown: Snapshot, width: int = 110, **options: Any) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(draw(shown, width, **options))
    return capture.get()


def test_a_row_says_all_that_is_known() -> None:
    shown = text(snapshot(row()))
    for part in ("anna", "0-3", "● serving", "1.2 ms", "3 / 64", "41.3", "310.0"):
        assert part in shown
    assert "300 MiB / 2 GiB" in shown
    assert "1 of 1 peers up" in shown


def test_what_is_not_known_is_a_dash_and_not_a_zero() -> None:
    unknown = {"round_trip_s", "sessions", "tokens_per_s", "prompt_tokens_per_s", "kv_bytes"}
    line = next(
        line
        for line in text(snapshot(row(**dict.fromkeys(unknown)))).splitlines()
        if "anna" in line
    )
    assert line.split()[-5:] == ["-"] * 5


def test_a_peer_that_is_down_is_marked_without_colour_and_its_reason_is_below() -> None:
    shown = text(snapshot(row(state="down", reason="connection refused"), problems=("no page",)))
    assert "✗ down" in shown
    assert "! anna: connection refused" in shown
    assert "! no page" in shown
    assert "0 of 1 peers up" in shown


@pytest.mark.parametrize("width", [80, 74, 60])
def test_a_narrow_terminal_gets_whole_numbers_and_no_line_that_is_too_long(width: int) -> None:
    shown = text(snapshot(row(), row(label="a-peer-with-quite-a-long-name")), width)
    assert max(len(line) for line in shown.splitlines()) <= width
    assert "1.2 ms" in shown
    assert "41.3" in shown
    assert ("300 MiB" in shown) == (width >= 74)
    assert "● serving" in shown


def test_foreign_text_can_neither_move_the_cursor_nor_use_markup() -> None:
    shown = text(snapshot(row(label="[red]\x1b[2Janna"), problems=("\x1b[31mno\npage",)))
    assert "\x1b" not in shown
    assert "[red]" in shown


def test_the_word_on_how_to_leave_is_for_live_pictures() -> None:
    assert "q to leave" in text(snapshot(), keys=True)
    assert "q to leave" not in text(snapshot())


# The command


def run(*argv: str | Path) -> BaseException | None:
    return CliRunner().invoke(top_command, [str(one) for one in argv]).exception


def test_without_a_terminal_it_wants_to_be_told_what_to_print(tmp_path: Path) -> None:
    error = run("--identity", tmp_path / "none.key")
    assert isinstance(error, UsageError)
    assert "--once" in str(error)


def test_without_anything_to_watch_it_says_what_to_name(tmp_path: Path) -> None:
    error = run("--once", "--identity", tmp_path / "none.key")
    assert isinstance(error, UsageError)
    assert "--map" in str(error)
    assert "--from" in str(error)


def test_a_source_that_is_no_url_is_a_usage_error() -> None:
    assert isinstance(run("--once", "--from", "file:///etc/passwd"), UsageError)


def test_a_map_takes_an_identity_to_knock_with(tmp_path: Path) -> None:
    anna = create_identity(tmp_path / "anna.key")
    (tmp_path / "map.json").write_text(
        '{"models": [{"name": "demo"}], "routes": [{"blocks": "0-3", "peers": ["anna"]}],'
        f' "peers": [{{"name": "anna", "id": "{anna.peer_id}",'
        ' "addrs": ["/ip4/127.0.0.1/tcp/1"]}]}'
    )
    argv = ("--once", "--map", tmp_path / "map.json", "--identity")
    assert isinstance(run(*argv, tmp_path / "none.key"), IdentityError)
    create_identity(tmp_path / "me.key")
    done = CliRunner().invoke(
        top_command, [*map(str, argv), str(tmp_path / "me.key"), "--interval", "0.1"]
    )
    assert done.exception is None
    assert "✗ down" in done.output


def test_it_needs_no_torch() -> None:
    code = (
        "import sys, gptnode.cli.top_sources, gptnode.cli.top_view, gptnode.cli.top,"
        " gptnode.node.reach; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
    assert top_module.__all__ == ["top_command"]
