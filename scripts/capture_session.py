"""Draw docs/images/session.svg: what a terminal shows of a real chat over a real swarm.

Starts `gptnode demo` in tmux, types, waits for the answers, and draws the screen as it is. Run it
from the root of the repository; needs tmux.

    python scripts/capture_session.py
    python scripts/capture_session.py --peers 3 --ask "What is a hop?" --out /tmp/session.svg
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

ASK = ("What is a BlocksMap?", "How do I reroute around a failed peer?", "/map", "/stats")
READY = "ends the chat"
FONT_FACE = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # rich's point to a server on the web


class Terminal:
    """A tmux session of its own, on a server of its own; ends with the block."""

    def __init__(self, columns: int, rows: int) -> None:
        """The screen's size in characters."""
        self.columns, self.rows = columns, rows
        self._socket = f"gptnode-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Terminal:
        """Start a shell."""
        size = ["-x", str(self.columns), "-y", str(self.rows)]
        self._tmux("new-session", "-d", *size, "env", "PS1=$ ", "sh")
        self._tmux("set-option", "-g", "status", "off")
        return self

    def __exit__(self, *_: object) -> None:
        """End the shell and what it started."""
        self._tmux("kill-server")

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def screen(self, *, colours: bool = False) -> str:
        """What stands there now; with ANSI colours if asked for."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def wait_for(self, text: str, *, timeout_s: float = 90.0) -> None:
        """Wait until ``text`` is on the screen."""
        deadline_s = time.monotonic() + timeout_s
        while text not in self.screen():
            if time.monotonic() > deadline_s:
                raise click.ClickException(f"{text!r} didn't appear in {timeout_s:.0f} s")
            time.sleep(0.1)

    def wait_until_still(self, *, timeout_s: float = 90.0, still_s: float = 2.5) -> None:
        """Wait until nothing has changed for ``still_s`` seconds."""
        deadline_s = time.monotonic() + timeout_s
        before, since_s = "", time.monotonic()
        while time.monotonic() < deadline_s:
            now = self.screen()
            if now != before:
                before, since_s = now, time.monotonic()
            elif time.monotonic() - since_s > still_s and now.strip():
                return
            time.sleep(0.1)
        raise click.ClickException(f"the screen didn't come to rest in {timeout_s:.0f} s")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def draw(screen: str, columns: int, out: Path) -> None:
    """Write ``screen`` (ANSI) as an SVG picture of a terminal."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(screen.rstrip()))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(FONT_FACE.sub("", console.export_svg(title="gptnode")))


@click.command(help=__doc__)
@click.option("--peers", default=2, show_default=True, help="Servers in the swarm.")
@click.option("--ask", multiple=True, default=ASK, show_default=True, help="A line to type.")
@click.option("--columns", default=104, show_default=True)
@click.option("--rows", default=34, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("docs/images/session.svg"),
    show_default=True,
)
def main(peers: int, ask: tuple[str, ...], columns: int, rows: int, out: Path) -> None:
    """Run the session and draw it."""
    gptnode = Path(sys.executable).with_name("gptnode")
    with Terminal(columns, rows) as terminal:
        terminal.type(f"clear; PATH={gptnode.parent}:$PATH; clear")
        terminal.type(f"gptnode demo --peers {peers}")
        terminal.wait_for(READY)
        for line in ask:
            terminal.type(line)
            terminal.wait_until_still()
        draw(terminal.screen(colours=True), columns, out)
        terminal.type("/exit")
        terminal.wait_until_still(still_s=1.5)
    click.echo(f"drew {out}")


if __name__ == "__main__":
    main()
