"""`gptnode demo`: a swarm on this machine, then a chat over it.

The chat is the one of `gptnode chat`; servers and their end are `gptnode.demo.swarm`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
import trio

from gptnode.cli.chat_options import ChatOptions, chat_options

__all__ = ["demo_command"]


@click.command("demo")
@click.option(
    "--peers",
    default=2,
    show_default=True,
    metavar="N",
    help="How many server processes share the model's 8 blocks.",
)
@chat_options
def demo_command(peers: int, **chat: Any) -> None:
    """Start a swarm of servers on this machine and chat over it.

    Each server is a `gptnode serve` process with its own identity and its own share of the bundled
    model's blocks; they and the chat talk over loopback as they would between machines. The servers
    end with the chat.
    """
    options = ChatOptions(**chat)

    from gptnode.cli.signals import TERMINATED, until_terminated

    async def swarm_and_chat() -> None:
        await _demo(peers, options)

    if trio.run(until_terminated, swarm_and_chat):
        sys.exit(TERMINATED)


async def _demo(peers: int, options: ChatOptions) -> None:
    """The swarm for as long as the chat lasts."""
    from gptnode.cli.chat import run_chat
    from gptnode.cli.render import Screen
    from gptnode.demo.swarm import local_swarm
    from gptnode.node.config import ClientConfig
    from gptnode.node.nursery import background_nursery

    screen = Screen(verbose=options.verbose)
    async with background_nursery() as nursery:
        # torch and libp2p take seconds to import: as many as the servers need to get ready.
        imported = trio.Event()
        nursery.start_soon(_import_node, imported)
        async with local_swarm(peers, report=screen.status) as swarm:
            await imported.wait()
            config = ClientConfig(
                map_path=swarm.map_path,
                identity_path=swarm.client_identity_path,
                # One thread, as the servers: on one machine they would be in each other's way.
                threads=1,
            )
            await run_chat(config, options)


async def _import_node(done: trio.Event) -> None:
    """Imports what the chat will need, in a thread."""
    await trio.to_thread.run_sync(importlib.import_module, "gptnode.node.runtime")
    done.set()
