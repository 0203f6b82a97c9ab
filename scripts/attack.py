"""Attack a real `gptnode serve` on loopback, and see that listed peers are served all the same.

    python scripts/attack.py                                     # the counts of the proof
    python scripts/attack.py --scale 0.02                        # a fiftieth of them
    python scripts/attack.py --only floods --seed 7 --json

The seed is printed first. The exit code is 1 where something didn't hold: somebody got in, a
listed peer waited for more than 2 s, or descriptors, threads or memory weren't given back.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path

import click
import trio

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from proof.crowds import (  # noqa: E402
    idle_connections,
    malformed_connections,
    many_connections,
    many_sessions,
)
from proof.ending import stoppable  # noqa: E402
from proof.floods import floods  # noqa: E402
from proof.honest import Caller, find_target  # noqa: E402
from proof.intruders import downgrades, forged_ids, forged_sessions  # noqa: E402
from proof.report import Row, print_rows  # noqa: E402
from proof.swarm import Swarm  # noqa: E402

from gptnode.net.identity import load_identity  # noqa: E402

KINDS = ("malformed", "idle", "floods", "connections", "sessions", "downgrades", "ids", "forged")
WARM_UP = 20


@click.command()
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Just these kinds.")
@click.option("--scale", type=click.FloatRange(0.0, 10.0), default=1.0, show_default=True)
@click.option("--seed", type=int, help="Of an earlier run, to repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(only: tuple[str, ...], scale: float, seed: int | None, as_json: bool) -> None:
    """Attack one server in all the ways that are known here."""
    chosen = secrets.randbits(32) if seed is None else seed
    click.echo(f"attacks at {scale:g} of the full counts, seed {chosen}", err=True)
    with (
        stoppable(),
        tempfile.TemporaryDirectory(prefix="gptnode-attack-") as name,
        Swarm(Path(name), {"anna": "0-7"}, clients=("honest", "listed")) as swarm,
    ):
        rows = trio.run(attack, swarm, only or KINDS, scale, chosen)
    print_rows(rows, chosen, as_json=as_json)
    sys.exit(0 if all(row.holds for row in rows) else 1)


async def attack(swarm: Swarm, kinds: tuple[str, ...], scale: float, seed: int) -> list[Row]:
    """The rows, one after another; each must leave the server as it was."""
    server = swarm.servers["anna"]
    target = find_target(server.peer_id, server.addr)
    honest, listed = (
        Caller(load_identity(swarm.keys[name]), target) for name in ("honest", "listed")
    )

    def count(full: int) -> int:
        return max(1, round(full * scale))

    async with honest.host() as host:  # what a server needs once, it takes with the first ones
        await host.connect(target.peer_id, [target.addr])
        for _ in range(WARM_UP):
            await honest.served_s(host)
    rows: list[Row] = []
    for kind in kinds:
        click.echo(f"{kind} ...", err=True)
        match kind:
            case "malformed":
                rows.append(await malformed_connections(server, honest, count(1000), seed))
            case "idle":
                rows.append(await idle_connections(server, honest, count(1000), 2 + 6 * scale))
            case "floods":
                rows += await floods(server, listed, honest, 0.5 + 9.5 * scale)
            case "connections":
                rows.append(await many_connections(server, honest, count(5000)))
            case "sessions":
                rows.append(await many_sessions(server, honest, count(1000)))
            case "downgrades":
                rows.append(await downgrades(server, listed, count(10)))
            case "ids":
                rows.append(await forged_ids(server, listed, count(10)))
            case _:
                rows.append(await forged_sessions(server, listed, honest, count(10)))
        if not server.alive:
            break
    return rows


if __name__ == "__main__":
    main()
