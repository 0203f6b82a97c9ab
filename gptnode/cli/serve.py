"""`gptnode serve`: a block server until somebody stops it.

Standard output gets one line, ``ready ...``, once all blocks are served: scripts wait for it. Logs
go to stderr. What serving is stands in `gptnode.node`; here are options, signals and that line.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from gptnode.cli.logs import log_options, set_up_logs
from gptnode.cli.options import (
    byte_size,
    default_identity_path,
    device_option,
    dtype_option,
    host_and_port,
    identity_option,
    map_option,
    model_dir_option,
    optional_byte_size,
    threads_option,
)
from gptnode.errors import UsageError
from gptnode.net.identity import load_identity
from gptnode.node.config import ServeConfig
from gptnode.routing.blocks_map import read_blocks_map

if TYPE_CHECKING:
    from gptnode.node.serving import ReadyInfo

__all__ = ["ready_line", "serve_command"]

STDIN = 0
# Longest wait after SIGTERM until sessions are cut off; the rest takes a second more.
LEAVE_S = 4.0
STDIN_CHUNK_BYTES = 4096


@click.command("serve")
@map_option
@identity_option
@click.option(
    "--listen",
    multiple=True,
    metavar="MULTIADDR",
    envvar="GPTNODE_LISTEN",
    show_envvar=True,
    help="Listen here, e.g. /ip4/0.0.0.0/tcp/4001; may be given several times."
    "  [default: all interfaces, on the port that the BlocksMap has for this node]",
)
@model_dir_option
@device_option
@threads_option
@dtype_option
@click.option(
    "--max-sessions",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Chats served at the same time; more are told that this node is busy.",
)
@click.option(
    "--max-sessions-per-peer",
    "max_peer_sessions",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many of them one peer may have.  [default: half]",
)
@click.option(
    "--kv-memory",
    "kv_bytes",
    callback=byte_size,
    default="2GiB",
    show_default=True,
    metavar="SIZE",
    help="Memory for the keys and values of all chats together.",
)
@click.option(
    "--kv-memory-per-peer",
    "peer_kv_bytes",
    callback=optional_byte_size,
    metavar="SIZE",
    help="How much of it one peer may have.  [default: half]",
)
@click.option(
    "--metrics",
    callback=host_and_port,
    metavar="HOST:PORT",
    envvar="GPTNODE_METRICS",
    show_envvar=True,
    help="Serve /metrics (Prometheus), /healthz and /readyz over HTTP there, e.g. 127.0.0.1:9100."
    " Whoever reaches it may read it: keep it on loopback or a private network.",
)
@log_options
@click.option("--exit-with-stdin", is_flag=True, hidden=True, help="Stop when stdin ends.")
def serve_command(
    map_path: Path | None,
    identity_path: Path | None,
    listen: tuple[str, ...],
    model_dir: Path | None,
    device: str,
    threads: int | None,
    dtype: str | None,
    max_sessions: int,
    max_peer_sessions: int | None,
    kv_bytes: int,
    peer_kv_bytes: int | None,
    metrics: tuple[str, int] | None,
    log_level: str,
    log_format: str,
    exit_with_stdin: bool,
) -> None:
    """Serve the blocks that a BlocksMap gives to this node, until SIGTERM or Ctrl-C.

    Prints one line on standard output once it serves:

        ready peer=ID blocks=MODEL:0-15 addrs=MULTIADDR,...

    Only peers and clients of the BlocksMap are answered; `gptnode peers` shows who is there and who
    was turned away. The file is watched: an edit is in force within two seconds.

    After the signal sessions are handed over to other peers, and the server ends within 5 seconds.
    A second signal ends it at once.
    """
    if map_path is None:
        raise UsageError("`gptnode serve` needs a BlocksMap: --map FILE (or GPTNODE_MAP)")
    set_up_logs(log_level, log_format)
    config = ServeConfig(
        map_path=map_path,
        identity_path=identity_path or default_identity_path(),
        listen=listen,
        model_dir=model_dir,
        dtype=dtype,
        device=device,
        threads=threads,
        max_sessions=max_sessions,
        max_peer_sessions=max_peer_sessions,
        kv_bytes=kv_bytes,
        peer_kv_bytes=peer_kv_bytes,
        metrics=metrics,
    )
    trio.run(_serve_until_stopped, config, exit_with_stdin)


def ready_line(info: ReadyInfo) -> str:
    """The line that says what is served, and where."""
    blocks = ",".join(f"{model}:{span}" for model, spans in info.blocks for span in spans)
    return f"ready peer={info.peer_id} blocks={blocks} addrs={','.join(info.addrs)}"


async def _serve_until_stopped(config: ServeConfig, exit_with_stdin: bool) -> None:
    """Serves until a signal, or until stdin ends if that was asked for."""
    with ExitStack() as at_exit:
        async with trio.open_nursery() as nursery:
            leave = trio.Event()
            await nursery.start(_leave_on_signal, leave, at_exit)
            if exit_with_stdin:
                nursery.start_soon(_leave_with_stdin, leave)
            nursery.start_soon(_cut_off_late, leave, nursery.cancel_scope)
            # What is wrong with these files is said before torch is imported, which takes seconds.
            # A signal that comes meanwhile is kept.
            read_blocks_map(config.map_path)
            load_identity(config.identity_path)
            import structlog

            from gptnode.node.serving import serve

            log = structlog.get_logger("gptnode.cli")

            def ready(info: ReadyInfo) -> None:
                click.echo(ready_line(info))
                log.info("serving", peer=info.peer_id, addrs=" ".join(info.addrs))

            log.info("starting", map=str(config.map_path), identity=str(config.identity_path))
            await serve(config, ready=ready, leave=leave)
            nursery.cancel_scope.cancel()
        log.info("stopped")


async def _leave_on_signal(
    leave: trio.Event,
    at_exit: ExitStack,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Sets ``leave`` with the first signal; the next one ends the process on the spot."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _number in signals:
            break
    for number in (signal.SIGTERM, signal.SIGINT):
        at_exit.callback(signal.signal, number, signal.signal(number, signal.SIG_DFL))
    leave.set()


async def _cut_off_late(leave: trio.Event, scope: trio.CancelScope) -> None:
    """Cancels ``scope`` when leaving takes too long."""
    await leave.wait()
    await trio.sleep(LEAVE_S)
    scope.cancel()


async def _leave_with_stdin(leave: trio.Event) -> None:
    """Sets ``leave`` when whoever holds the other end of stdin is gone, however it died."""
    while await trio.to_thread.run_sync(os.read, STDIN, STDIN_CHUNK_BYTES, abandon_on_cancel=True):
        pass
    leave.set()
