"""`gptnode map`: exact transcripts, exit codes, and what goes to programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from gptnode.cli.main import main
from gptnode.cli.map import map_group
from gptnode.cli.map_picture import draw_map
from gptnode.errors import MapError
from gptnode.routing.blocks_map import (
    BlocksMap,
    ClientEntry,
    ModelEntry,
    PeerEntry,
    RouteEntry,
)
from gptnode.span import Span

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "blocksmap.example.json"
ANNA = "12D3KooWA1bysjrTACSWqf6q172inxvwKHUxAnBtVgaVDKMxpZtx"
BEN = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with swarm.json and the config of its model of four blocks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text('{"num_hidden_layers": 4}')
    write(anna_and_ben())
    return tmp_path


def anna_and_ben() -> dict[str, Any]:
    return {
        "models": [{"name": "tiny", "path": "tiny"}],
        "peers": [
            {"id": ANNA, "name": "anna", "addrs": ["/ip4/10.0.0.1/tcp/4001"]},
            {"id": BEN, "name": "ben", "addrs": ["/ip4/10.0.0.2/tcp/4001", "/dns/ben/tcp/1"]},
        ],
        "routes": [
            {"blocks": "0-1", "peers": ["anna", "ben"]},
            {"blocks": "2-3", "peers": ["ben"]},
        ],
        "clients": [{"id": BEN, "name": "ben"}],
    }


def write(data: object) -> None:
    Path("swarm.json").write_text(json.dumps(data))


def run(*args: str) -> Result:
    return CliRunner().invoke(map_group, args)


def test_check_passes_on_the_example() -> None:
    result = run("check", str(EXAMPLE))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == (
        f"ok: {EXAMPLE}: gptnode-demo, 8 blocks in 3 hops; 3 peers, 1 client"
    )


def test_check_of_a_right_map(folder: Path) -> None:
    result = run("check", "swarm.json")
    assert result.exit_code == 0
    assert result.stdout == (
        "warning: blocks 2-3 of tiny have no replica: only ben serves them\n"
        "ok: swarm.json: tiny, 4 blocks in 2 hops; 2 peers, 1 client\n"
    )


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"clients": []}, "no clients: only the peers themselves may chat"),
        (
            {"routes": [{"blocks": "0-3", "peers": ["ben"]}]},
            "peers[0]: anna serves no blocks",
        ),
        (
            {"models": [{"name": "tiny"}]},
            "tiny has no path: every node that serves it needs --model-dir",
        ),
        (
            {"models": [{"name": "tiny", "path": "/nowhere/x"}]},
            "no folder /nowhere/x on this machine, so the end of tiny isn't checked",
        ),
    ],
)
def test_check_warns_of_what_works_but_may_surprise(
    folder: Path, change: dict[str, object], warning: str
) -> None:
    write(anna_and_ben() | change)
    result = run("check", "swarm.json")
    assert result.exit_code == 0
    assert f"warning: {warning}\n" in result.stdout


@pytest.mark.parametrize(
    ("config", "warning"),
    [
        ("", "tiny/config.json can't be read as JSON"),
        ("\xff", "tiny/config.json can't be read as JSON"),
        ("[" * 100_000, "tiny/config.json can't be read as JSON"),
        ("[]", "tiny/config.json has no num_hidden_layers"),
        ('{"num_hidden_layers": "4"}', "tiny/config.json has no num_hidden_layers"),
        ('{"num_hidden_layers": true}', "tiny/config.json has no num_hidden_layers"),
        ('{"num_hidden_layers": 0}', "tiny/config.json has no num_hidden_layers"),
        (None, "no file tiny/config.json"),
    ],
)
def test_a_config_that_says_nothing_is_a_warning(
    folder: Path, config: str | None, warning: str
) -> None:
    path = folder / "tiny" / "config.json"
    if config is None:
        path.unlink()
    else:
        path.write_bytes(config.encode("latin-1"))
    result = run("check", "swarm.json")
    assert result.exit_code == 0
    assert f"warning: {warning}, so the end of tiny isn't checked\n" in result.stdout


def test_check_compares_with_the_model(folder: Path) -> None:
    (folder / "tiny" / "config.json").write_text('{"num_hidden_layers": 3}')
    result = run("check", "swarm.json")
    assert isinstance(result.exception, MapError)
    assert result.exception.detail == (
        'swarm.json: routes[1]: "tiny" has 3 blocks, so blocks 2-3 can\'t be served; write "2"'
    )
    (folder / "tiny" / "config.json").write_text('{"num_hidden_layers": 9}')
    result = run("check", "swarm.json")
    assert isinstance(result.exception, MapError)
    assert result.exception.detail == (
        'swarm.json: routes: nobody serves blocks 4-8 of "tiny" (it has 0-8); add a route with'
        ' "blocks": "4-8"'
    )


def test_check_lists_all_problems_and_exits_with_3(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = anna_and_ben()
    data["routes"][0]["peers"] = ["ann"]
    data["routes"][1]["blocks"] = "3-2"
    write(data)
    with pytest.raises(SystemExit) as caught:
        main(["map", "check", "swarm.json"])
    assert caught.value.code == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(
        "gptnode: error: swarm.json: 2 problems\n"
        '  routes[0].peers[0]: no peer is called "ann"; did you mean "anna"?\n'
        '  routes[1].blocks: "3-2" runs backwards; write "2-3"'
    )


def test_check_for_programs(folder: Path) -> None:
    result = run("check", "swarm.json", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "ok": True,
        "problems": [],
        "warnings": ["blocks 2-3 of tiny have no replica: only ben serves them"],
        "models": [
            {"name": "tiny", "n_blocks": 4, "hops": 2, "config_n_blocks": 4, "folder": "tiny"}
        ],
    }


def test_check_tells_programs_what_is_wrong(folder: Path) -> None:
    write(anna_and_ben() | {"routes": [{"blocks": 0, "peers": ["x"]}]})
    result = run("check", "swarm.json", "--json")
    assert isinstance(result.exception, MapError)
    assert json.loads(result.stdout) == {
        "ok": False,
        "problems": ['routes[0].peers[0]: no peer is called "x"; there are "anna", "ben"'],
        "warnings": [],
        "models": [],
    }


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_file_that_is_not_there_is_an_error_of_the_map(folder: Path, command: str) -> None:
    result = run(command, "none.json")
    assert isinstance(result.exception, MapError)
    assert result.exception.detail == "none.json: no such file"


def test_show_draws_a_table_a_picture_and_the_route(folder: Path) -> None:
    result = run("show", "swarm.json")
    assert result.exit_code == 0
    assert result.stdout == (
        """\
swarm.json: tiny, 4 blocks in 2 hops; 2 peers, 1 client

peer              addresses                blocks   role
───────────────────────────────────────────────────────────
anna              /ip4/10.0.0.1/tcp/4001   0-1      primary
12D3KooW…MxpZtx
ben               /ip4/10.0.0.2/tcp/4001   0-1      replica
12D3KooW…2NASuq   /dns/ben/tcp/1           2-3      primary

tiny: 4 blocks   █ first choice  ░ replica
      0   1   2   3
anna  ████████········
ben   ░░░░░░░░████████
route:
  1. blocks 0-1: anna, else ben
  2. blocks 2-3: ben, nobody else serves all of it

clients: ben
"""
    )


THIN = [
    {"blocks": "0-1", "embed": True, "peers": ["anna", "ben"]},
    {"blocks": "2-3", "head": True, "peers": ["ben"]},
]


def test_show_says_who_has_embedding_and_head(folder: Path) -> None:
    write(anna_and_ben() | {"routes": THIN})
    shown = run("show", "swarm.json").stdout
    assert "  1. embedding and blocks 0-1: anna, else ben\n" in shown
    assert "  2. blocks 2-3 and head: ben, nobody else serves all of it\n" in shown
    hops = json.loads(run("show", "swarm.json", "--json").stdout)["models"][0]["hops"]
    assert [(hop["embed"], hop["head"]) for hop in hops] == [(True, False), (False, True)]
    write(anna_and_ben() | {"routes": [{**THIN[0], "blocks": "0-3", "head": True}]})
    shown = run("show", "swarm.json").stdout
    assert "  1. embedding, blocks 0-3 and head: anna, else ben\n" in shown


def test_check_warns_where_clients_without_weights_lack_the_fingerprint(folder: Path) -> None:
    warning = "warning: tiny has no fingerprint: clients without its weights need it"
    write(anna_and_ben() | {"routes": THIN})
    assert warning in run("check", "swarm.json").stdout
    named = [{"name": "tiny", "path": "tiny", "fingerprint": "0" * 32}]
    write(anna_and_ben() | {"routes": THIN, "models": named})
    assert "fingerprint" not in run("check", "swarm.json").stdout
    write(anna_and_ben() | {"routes": [THIN[0], {**THIN[1], "head": False}]})
    assert "fingerprint" not in run("check", "swarm.json").stdout


def test_show_for_programs(folder: Path) -> None:
    found = json.loads(run("show", "swarm.json", "--json").stdout)
    assert found == {
        "models": [
            {
                "name": "tiny",
                "path": "tiny",
                "dtype": None,
                "template": None,
                "stop": [],
                "n_blocks": 4,
                "hops": [
                    {"blocks": "0-1", "peers": [ANNA, BEN], "embed": False, "head": False},
                    {"blocks": "2-3", "peers": [BEN], "embed": False, "head": False},
                ],
            }
        ],
        "peers": [
            {
                "id": ANNA,
                "name": "anna",
                "addrs": ["/ip4/10.0.0.1/tcp/4001"],
                "serves": [{"model": "tiny", "blocks": "0-1", "role": "primary"}],
            },
            {
                "id": BEN,
                "name": "ben",
                "addrs": ["/ip4/10.0.0.2/tcp/4001", "/dns/ben/tcp/1"],
                "serves": [
                    {"model": "tiny", "blocks": "0-1", "role": "replica"},
                    {"model": "tiny", "blocks": "2-3", "role": "primary"},
                ],
            },
        ],
        "clients": [{"id": BEN, "name": "ben"}],
    }


def test_show_works_for_the_other_form(folder: Path) -> None:
    write(
        {
            "self_peer_id": BEN,
            "models": [{"model_name": "idle"}],
            "peers": [{"peer_id": ANNA, "addr": "/ip4/10.0.0.1/tcp/1"}],
            "routes": [{"model_name": "tiny", "block_no": 0, "peer_id": ANNA}],
        }
    )
    lines = run("show", "swarm.json").stdout.splitlines()
    assert lines[0] == "swarm.json: idle, no routes; tiny, 1 block in 1 hop; 1 peer, 1 client"
    assert "idle: no routes" in lines
    assert "  1. block 0: 12D3KooW…MxpZtx, nobody else serves all of it" in lines


def test_a_name_is_never_taken_for_markup(folder: Path) -> None:
    data = anna_and_ben()
    data["peers"][0]["name"] = data["routes"][0]["peers"][0] = "[red]:smile:"
    write(data)
    assert "[red]:smile:  ████████········" in run("show", "swarm.json").stdout.splitlines()


def test_show_colours_a_terminal_and_says_the_same(folder: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "gptnode", "map", "show", "swarm.json"],
        stdout=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so instead of the end
                piece = b""
            if not piece:
                break
            shown += piece
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode().replace("\r\n", "\n")
    assert "\x1b[32m█" in text
    plain = [line.rstrip() for line in Text.from_ansi(text).plain.splitlines()]
    assert plain == run("show", "swarm.json").stdout.splitlines()


def large_map(n_blocks: int, n_peers: int) -> BlocksMap:
    """Peers with long names in two scripts, each with its share of the blocks."""
    ids = [f"peer-{n}" for n in range(n_peers)]
    cuts = [n_blocks * n // n_peers for n in range(n_peers + 1)]
    return BlocksMap(
        (ModelEntry("large"),),
        tuple(PeerEntry(one, (f"/dns/{'a' * 60}/tcp/1",), f"機械の名前-{one}-" * 3) for one in ids),
        tuple(
            RouteEntry("large", Span(cuts[n], cuts[n + 1]), (ids[n], ids[n - 1]))
            for n in range(n_peers)
        ),
        (ClientEntry("someone"),),
    )


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("n_blocks", [3, 16, 61, 126, 5000])
def test_the_picture_fits_its_width_whatever_the_model(width: int, n_blocks: int) -> None:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        for part in draw_map(large_map(n_blocks, 3), console):
            console.print(part)
    lines = capture.get().splitlines()
    assert max(cell_len(line) for line in lines) <= width
    bars = [line for line in lines if "·" in line]
    assert len(bars) == 3
    assert all("█" in bar and "░" in bar for bar in bars)


def test_a_block_that_is_too_small_for_a_character_is_seen_all_the_same() -> None:
    blocks_map = BlocksMap(
        (ModelEntry("m"),),
        (PeerEntry("a", (), "a"), PeerEntry("b", (), "b")),
        (RouteEntry("m", Span(500, 501), ("b",)), RouteEntry("m", Span(0, 1000), ("a",))),
    )
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        for part in draw_map(blocks_map, console):
            console.print(part)
    bars = [line for line in capture.get().splitlines() if line.startswith(("a  ", "b  "))][-2:]
    assert bars[0].count("█") + bars[0].count("░") == len(bars[0]) - 3
    assert bars[1].count("█") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_where_unicode_cannot_be_shown_ascii_is(folder: Path, encoding: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "gptnode", "map", "show", "swarm.json"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    ).stdout.decode("ascii")
    assert "\n12D3KooW~MxpZtx |" in shown
    assert "anna  ########........\n" in shown
    assert "ben   ++++++++########\n" in shown
