"""`gptnode serve` around a server that is told what to do: options, the ready line, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import pytest
import trio
from click.testing import CliRunner, Result

from gptnode.cli import serve as serve_module
from gptnode.cli.serve import ready_line, serve_command
from gptnode.demo.layout import lay_out_swarm
from gptnode.errors import GptNodeError, IdentityError, MapError, UsageError
from gptnode.net.identity import create_identity
from gptnode.node import serving
from gptnode.node.config import ServeConfig
from gptnode.node.serving import ReadyInfo
from gptnode.span import Span
from tests.cli.log_state import logging_as_before  # noqa: F401

pytestmark = pytest.mark.usefixtures("logging_as_before")

INFO = ReadyInfo(
    "12D3KooWanna",
    ("/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWanna", "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWanna"),
    (("demo", (Span(0, 4), Span(6, 7))), ("other", (Span(0, 2),))),
)
LINE = (
    "ready peer=12D3KooWanna blocks=demo:0-3,demo:6,other:0-1"
    " addrs=/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWanna,/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWanna"
)

Serve = Callable[..., Awaitable[None]]


class FakeServer:
    """Stands where `serving.serve` is; serves until it is to leave, after doing ``then``."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then
        self.configs: list[ServeConfig] = []
        self.closed = False

    async def __call__(
        self, config: ServeConfig, *, ready: Callable[[ReadyInfo], None], leave: trio.Event
    ) -> None:
        self.configs.append(config)
        ready(INFO)
        self.then()
        await leave.wait()
        self.closed = True


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a map in map.json, an identity in node.key and as the user's own."""
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 4}')
    layout = lay_out_swarm(tmp_path, 1, "demo", tmp_path)
    layout.map_path.rename(tmp_path / "map.json")
    layout.servers[0].identity_path.rename(tmp_path / "node.key")
    create_identity(tmp_path / "config" / "gptnode" / "identity.key")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A server that gets SIGTERM as soon as it is ready."""
    fake = FakeServer(terminate)
    monkeypatch.setattr(serving, "serve", fake)
    for name in [name for name in os.environ if name.startswith("GPTNODE_")]:
        monkeypatch.delenv(name)
    return fake


def run(*argv: str) -> Result:
    return CliRunner().invoke(serve_command, argv, catch_exceptions=False)


def test_the_ready_line_names_the_peer_its_blocks_and_its_addresses() -> None:
    assert ready_line(INFO) == LINE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_server_and_the_exit_code_is_0(
    number: signal.Signals, server: FakeServer
) -> None:
    server.then = lambda: os.kill(os.getpid(), number)
    result = run("--map", "map.json")
    assert result.exit_code == 0
    assert server.closed


def test_stdout_has_the_ready_line_and_nothing_else(server: FakeServer) -> None:
    result = run("--map", "map.json", "--log-level", "debug")
    assert result.stdout == LINE + "\n"
    assert "serving" in result.stderr


def test_signals_do_afterwards_what_they_did_before(server: FakeServer) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run("--map", "map.json")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_options_are_what_the_server_is_told(server: FakeServer) -> None:
    run(
        *("--map", "map.json", "--identity", "node.key", "--model-dir", "models/x"),
        *("--listen", "/ip4/127.0.0.1/tcp/1", "--listen", "/ip6/::1/tcp/2"),
        *("--device", "cuda:1", "--threads", "3", "--dtype", "f16"),
        *("--max-sessions", "5", "--kv-memory", "512MiB"),
        *("--max-sessions-per-peer", "2", "--kv-memory-per-peer", "100MiB"),
        *("--metrics", "127.0.0.1:9100"),
    )
    assert server.configs == [
        ServeConfig(
            map_path=Path("map.json"),
            identity_path=Path("node.key"),
            listen=("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/2"),
            model_dir=Path("models/x"),
            dtype="f16",
            device="cuda:1",
            threads=3,
            max_sessions=5,
            max_peer_sessions=2,
            kv_bytes=512 << 20,
            peer_kv_bytes=100 << 20,
            metrics=("127.0.0.1", 9100),
        )
    ]


def test_an_option_beats_its_environment_variable(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTNODE_MAP", "map.json")
    monkeypatch.setenv("GPTNODE_THREADS", "7")
    monkeypatch.setenv("GPTNODE_LISTEN", "/ip4/127.0.0.1/tcp/1 /ip4/127.0.0.1/tcp/2")
    run("--threads", "1")
    (config,) = server.configs
    assert config.map_path == Path("map.json")
    assert config.threads == 1
    assert config.listen == ("/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2")


def test_the_identity_of_the_user_is_the_default(server: FakeServer, folder: Path) -> None:
    run("--map", "map.json")
    assert server.configs[0].identity_path == folder / "config" / "gptnode" / "identity.key"


@pytest.mark.parametrize(
    ("option", "kind"), [("--map", MapError), ("--identity", IdentityError)], ids=str
)
def test_a_file_that_is_not_there_is_told_before_anything_is_loaded(
    option: str, kind: type[GptNodeError], server: FakeServer
) -> None:
    with pytest.raises(BaseExceptionGroup) as failure:
        run("--map", "map.json", option, "missing")
    assert failure.group_contains(kind)
    assert not server.configs


def test_without_a_map_there_is_nothing_to_serve(server: FakeServer) -> None:
    with pytest.raises(UsageError, match="--map"):
        run()
    assert not server.configs


@pytest.mark.parametrize(
    "argv",
    [
        ["--threads", "0"],
        ["--max-sessions", "0"],
        ["--kv-memory", "lots"],
        ["--kv-memory-per-peer", "lots"],
        ["--max-sessions-per-peer", "0"],
        ["--dtype", "f8"],
        ["--log-level", "chatty"],
        ["--log-format", "xml"],
    ],
    ids=" ".join,
)
def test_a_value_out_of_range_is_a_usage_error(argv: list[str], server: FakeServer) -> None:
    result = run("--map", "map.json", *argv)
    assert result.exit_code == 2
    assert argv[0] in result.stderr
    assert not server.configs


def test_an_error_of_the_server_comes_out_with_its_own_class(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(config: ServeConfig, **_: object) -> None:
        raise MapError("routes: none gives blocks to this node")

    monkeypatch.setattr(serving, "serve", fails)
    with pytest.raises(BaseExceptionGroup) as failure:
        run("--map", "map.json")
    assert failure.group_contains(MapError)


def test_the_server_ends_when_its_stdin_does_if_that_was_asked_for(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.pipe()
    monkeypatch.setattr(serve_module, "STDIN", ours)
    os.write(theirs, b"what is written is not looked at")
    server.then = lambda: os.close(theirs)
    try:
        assert run("--map", "map.json", "--exit-with-stdin").exit_code == 0
    finally:
        os.close(ours)
    assert server.closed


def test_the_option_for_launchers_is_not_advertised() -> None:
    context = click.Context(serve_command, info_name="serve")
    assert "exit-with-stdin" not in serve_command.get_help(context)


STUBBORN_SERVER = """
import sys, types
import trio

serving = types.ModuleType("gptnode.node.serving")

async def serve(config, *, ready, leave):
    print("ready", flush=True)
    await leave.wait()
    print("closing", flush=True)
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

serving.serve = serve
sys.modules["gptnode.node.serving"] = serving
from gptnode.cli.main import main
main(["serve", "--map", "map.json"])
"""


def test_a_server_that_does_not_leave_in_time_is_cancelled(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[bool] = []

    async def stays(config: ServeConfig, **_: object) -> None:
        terminate()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(True)
            raise

    monkeypatch.setattr(serving, "serve", stays)
    monkeypatch.setattr(serve_module, "LEAVE_S", 0.1)
    assert run("--map", "map.json").exit_code == 0
    assert cancelled == [True]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_server_that_does_not_close(
    second: signal.Signals, folder: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN_SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "closing\n"
        process.send_signal(second)
        assert process.wait(timeout=20) == -second
