"""The line editor of a chat: history, completion, several lines, the status line below.

prompt_toolkit runs its own asyncio loop in a worker thread while trio goes on. This file knows
what a `ChatSession` shows and completes; it carries nothing out.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style

from gptnode.cli.commands import complete
from gptnode.cli.render import Screen
from gptnode.cli.session import ChatSession
from gptnode.cli.views import status_line

__all__ = ["ChatPrompt", "NoLine", "history_path", "open_history"]

STYLE = Style.from_dict(
    {
        "prompt": "bold",
        "bottom-toolbar": "noreverse ansibrightblack",
        "continuation": "ansibrightblack",
    }
)

REFRESH_S = 1.0
"""How often the status line is drawn again while nobody types."""


class NoLine(enum.Enum):
    """Why the prompt gave no line."""

    INTERRUPTED = "Ctrl-C"
    END = "Ctrl-D, or the terminal is gone"


def history_path(environment: dict[str, str] | os._Environ[str]) -> Path:
    """Where the history of prompts lives: ``$XDG_STATE_HOME/gptnode/history``."""
    state = environment.get("XDG_STATE_HOME") or ""
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "gptnode" / "history"


def open_history(path: Path, report: Callable[[str], None]) -> History:
    """The history in ``path``, readable by its owner alone; in memory if that can't be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        report(f"no history is kept: {path}: {error.strerror or error}")
        return InMemoryHistory()
    return FileHistory(path)


class _CommandCompleter(Completer):
    """The completions of `commands.complete`, as prompt_toolkit wants them."""

    def __init__(self, session: ChatSession) -> None:
        self._session = session

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        """Completions of the text left of the cursor."""
        for candidate in complete(document.text_before_cursor, self._session):
            yield Completion(
                candidate.text,
                start_position=-candidate.replaces,
                display_meta=candidate.help or None,
            )


class ChatPrompt:
    """Reads one line (or several) at a time from a person."""

    def __init__(
        self,
        session: ChatSession,
        screen: Screen,
        history: History,
        keyboard: Input,
        output: Output | None = None,
    ) -> None:
        """``keyboard`` is the input that `stop_on_keys` watches between two prompts."""
        self._screen = screen
        self._editor: PromptSession[str] = PromptSession(
            message=[("class:prompt", "> ")],
            history=history,
            completer=_CommandCompleter(session),
            complete_in_thread=False,
            multiline=True,
            prompt_continuation=[("class:continuation", "· ")],
            key_bindings=_bindings(),
            bottom_toolbar=lambda: status_line(session),
            refresh_interval=REFRESH_S,
            style=STYLE,
            input=keyboard,
            output=output,
            enable_history_search=False,
        )

    async def read(self) -> str | NoLine:
        """The next prompt or command, without the white space around it.

        *Cancellation*: ends the editor first, so that the terminal is as it was.
        """
        line: str | NoLine = NoLine.END
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_when_cancelled)
            line = await trio.to_thread.run_sync(self._read_in_thread)
            nursery.cancel_scope.cancel()
        return line

    def _read_in_thread(self) -> str | NoLine:
        """Runs the editor; exceptions become values, because trio has no use for them."""
        with self._lines_above():
            try:
                return self._editor.prompt().strip()
            except KeyboardInterrupt:
                return NoLine.INTERRUPTED
            except EOFError:
                return NoLine.END

    async def _leave_when_cancelled(self) -> None:
        """Ends the editor when this task is cancelled while it runs."""
        try:
            await trio.sleep_forever()
        finally:
            self._in_loop(self._leave)

    def _leave(self) -> None:
        """Ends the editor, in its own thread."""
        if self._editor.app.is_running and not self._editor.app.is_done:
            self._editor.app.exit(exception=EOFError())

    def _in_loop(self, call: Callable[[], None]) -> bool:
        """Has the editor's thread call something; False if the editor doesn't run."""
        loop = self._editor.app.loop
        if loop is None or not self._editor.app.is_running:
            return False
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:
            # It ended between the question and the call.
            return False
        return True

    @contextmanager
    def _lines_above(self) -> Iterator[None]:
        """While the editor runs, lines of others are printed above it."""
        self._screen.above = self._print_above
        try:
            yield
        finally:
            self._screen.above = None

    def _print_above(self, text: str) -> None:
        """Prints a line above the editor (or just prints it, if the editor isn't there)."""

        def write() -> None:
            self._screen.out.write(f"{text}\n")
            self._screen.out.flush()

        def write_above() -> None:
            run_in_terminal(write)

        if not self._in_loop(write_above):
            write()


def _bindings() -> KeyBindings:
    """Enter sends, unless the line ends with a backslash; Alt-Enter adds a line."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _add_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
