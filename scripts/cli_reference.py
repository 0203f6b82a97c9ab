"""Writes docs/reference/cli.md from the commands themselves; ``--check``: is it current?"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from gptnode import errors
from gptnode.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"

HEAD = """\
# The command line

<!-- Written by scripts/cli_reference.py (`make docs`) from the commands: don't edit. -->

An option beats its environment variable, which beats the BlocksMap, which beats the model's own
`config.json`. `--debug` works with every command, before or after its name.
"""

EXIT_CODES = """\
## Exit codes

Every error is one line on standard error that says what is wrong and what to do.

| code | meaning | errors |
|---|---|---|
| 0 | done; a server ended after SIGTERM or Ctrl-C | |
"""

LAST_EXIT_CODES = """\
| 70 | a bug in gptnode; `--debug` shows the traceback | |
| 130 | Ctrl-C | |
| 141 | nobody reads the output any more | |
| 143 | a chat or a demo was ended by SIGTERM or SIGHUP | |
"""


def page() -> str:
    """The whole page."""
    context = click.Context(cli, info_name="gptnode")
    parts = [HEAD, *_commands(cli, context), EXIT_CODES + "".join(_codes()) + LAST_EXIT_CODES]
    return "\n".join(parts)


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    """A section for each command, depth first."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise LookupError(name)
        child = click.Context(command, info_name=name, parent=context)
        yield _section(command, child)
        if isinstance(command, click.Group):
            yield from _commands(command, child)


def _section(command: click.Command, context: click.Context) -> str:
    """One command: usage, what it does, its options."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    help_text = inspect.cleandoc(command.help or "").split("\f")[0].strip()
    lines = [f"## `{context.command_path}`", "", f"    {usage}", "", help_text, ""]
    rows = [
        record
        for param in command.get_params(context)
        if isinstance(param, click.Option) and not {"--debug", "--help"} & set(param.opts)
        if (record := param.get_help_record(context)) is not None
    ]
    if rows:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that doesn't end a table cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _codes() -> Iterator[str]:
    """A row for each exit code of the error tree, with its classes."""
    found: dict[int, list[str]] = {}
    for name in errors.__all__:
        found.setdefault(getattr(errors, name).exit_code, []).append(name)
    meanings = {
        1: "an error of no other kind",
        2: "a command or option that can't be carried out as given",
        3: "the BlocksMap file",
        4: "the model folder",
        5: "tokenizer, chat template, stop sequences",
        6: "the identity file",
        7: "peers and the way to them",
        8: "a peer that breaks the protocol, or answers for something else",
        9: "no live peer for some blocks",
        10: "the token context: its length, its CSV file",
        11: "this node answers as much as it may already",
    }
    for code, names in sorted(found.items()):
        yield f"| {code} | {meanings[code]} | {', '.join(f'`{name}`' for name in names)} |\n"


def main() -> int:
    """Write the page, or compare it; the exit code."""
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    wanted = page()
    if sys.argv[1:] == ["--check"]:
        if current != wanted:
            print(f"{PAGE.name} is not what the commands say: run `make docs`", file=sys.stderr)
            return 1
        return 0
    if sys.argv[1:]:
        print("usage: cli_reference.py [--check]", file=sys.stderr)
        return 2
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
