"""What could come next while a command is typed: files, settings, peers.

Pure functions of a `ChatSession` and the text so far; prompt_toolkit comes in `prompt`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptnode.cli.settings import SETTINGS, shown

if TYPE_CHECKING:
    from gptnode.cli.session import ChatSession

__all__ = ["Candidate", "complete_path", "complete_peer", "complete_setting"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One completion: ``text`` replaces the last ``replaces`` characters."""

    text: str
    replaces: int
    help: str = ""


def complete_path(session: ChatSession, typed: str) -> Iterator[Candidate]:
    """Files and folders that go on from ``typed``; hidden ones only after a dot."""
    head, tail = os.path.split(typed)
    folder = Path(head or ".").expanduser()
    try:
        entries = sorted((entry.name, entry.is_dir()) for entry in os.scandir(folder))
    except OSError:
        return
    for name, is_folder in entries:
        if name.startswith(tail) and (tail.startswith(".") or not name.startswith(".")):
            yield Candidate(name + ("/" if is_folder else ""), len(tail))


def complete_setting(session: ChatSession, typed: str) -> Iterator[Candidate]:
    """Names of settings, then the value that is set now and an example."""
    name, space, value = typed.partition(" ")
    for setting in SETTINGS:
        if not space and setting.name.startswith(name):
            yield Candidate(setting.name, len(name), setting.help)
        elif space and setting.name == name:
            now = shown(session.settings, setting)
            for text in dict.fromkeys((now, setting.example)):
                if text.startswith(value):
                    yield Candidate(text, len(value), "now" if text == now else "for example")


def complete_peer(session: ChatSession, typed: str) -> Iterator[Candidate]:
    """Ids of the map's peers, then their addresses."""
    peer_id, space, addr = typed.partition(" ")
    for peer in session.client.peers():
        if not space and peer.peer_id is not None and peer.peer_id.startswith(peer_id):
            yield Candidate(peer.peer_id, len(peer_id), peer.label)
        elif space and peer.peer_id == peer_id:
            yield from (Candidate(a, len(addr)) for a in peer.addrs if a.startswith(addr))
