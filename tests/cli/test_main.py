"""The command line as a whole: what is imported, where errors end, which exit code they give."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from gptnode import __version__, errors
from gptnode.cli import main as main_module
from gptnode.cli.failures import BROKEN_PIPE, BUG, INTERRUPTED
from gptnode.cli.main import COMMANDS, CommandSource, cli, main
from gptnode.errors import GptNodeError, MapError, NetworkError, UsageError

ERRORS: list[BaseException] = []


@click.command("boom")
@click.option("--number", type=int)
def boom_command(number: int | None) -> None:
    """Raises what a test put into ERRORS."""
    for error in ERRORS:
        raise error


@click.group("nest")
def nest_group() -> None:
    """Holds a command."""


nest_group.add_command(boom_command)


@pytest.fixture
def fails_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[BaseException], None]]:
    """Sets the error that `gptnode boom` and `gptnode nest boom` raise."""
    monkeypatch.delenv("GPTNODE_DEBUG", raising=False)
    monkeypatch.setitem(COMMANDS, "boom", CommandSource(__name__, "boom_command", "Fails."))
    monkeypatch.setitem(COMMANDS, "nest", CommandSource(__name__, "nest_group", "Has boom."))
    yield ERRORS.append
    ERRORS.clear()


def run(*argv: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as ending:
        main(argv)
    assert isinstance(ending.value.code, int)
    return ending.value.code


def error_classes() -> list[type[GptNodeError]]:
    return [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_an_error_is_one_line_with_detail_and_advice_and_its_own_exit_code(
    kind: type[GptNodeError],
    fails_with: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = kind("the frobnicator is upside down")
    fails_with(error)
    assert run("boom") == kind.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"gptnode: error: the frobnicator is upside down. {error.advice}\n"


def test_a_map_error_keeps_its_lines(
    fails_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(MapError("routes[0]: bad\nroutes[1]: worse"))
    assert run("boom") == 3
    assert capsys.readouterr().err.startswith(
        "gptnode: error: routes[0]: bad\nroutes[1]: worse. Mend"
    )


def test_control_characters_of_a_peer_never_reach_the_terminal(
    fails_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(NetworkError("peer says \x1b[31mhello\x07"))
    run("boom")
    err = capsys.readouterr().err
    assert "hello" in err
    assert "\x1b" not in err
    assert "\x07" not in err


def test_groups_around_a_single_error_are_taken_off(
    fails_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(ExceptionGroup("outer", [ExceptionGroup("inner", [UsageError("no such thing")])]))
    assert run("boom") == 2
    assert capsys.readouterr().err.startswith("gptnode: error: no such thing. ")


def test_an_unexpected_error_is_a_bug_in_one_line(
    fails_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(ZeroDivisionError("over\nthe moon"))
    assert run("boom") == BUG
    err = capsys.readouterr().err
    assert err.startswith("gptnode: bug: ZeroDivisionError: over. ")
    assert "--debug shows the traceback" in err
    assert err.count("\n") == 1


def test_a_bug_is_told_even_beside_an_expected_error(
    fails_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(ExceptionGroup("both", [UsageError("no such thing"), KeyError("x")]))
    assert run("boom") == BUG
    assert "KeyError" in capsys.readouterr().err


def test_a_keyboard_interrupt_is_quiet_and_gives_130(
    fails_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(KeyboardInterrupt())
    assert run("boom") == INTERRUPTED
    assert capsys.readouterr().err.strip() == ""


def test_a_keyboard_interrupt_in_a_group_is_one_too(
    fails_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(BaseExceptionGroup("", [KeyboardInterrupt(), UsageError("cut short")]))
    assert run("boom") == INTERRUPTED
    assert capsys.readouterr().err.strip() == ""


def test_an_end_of_file_error_is_not_taken_for_ctrl_c(
    fails_with: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(EOFError())
    assert run("boom") == BUG


def test_a_reader_that_left_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gptnode", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()  # long before an interpreter has started
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == BROKEN_PIPE


def test_a_broken_pipe_in_a_group_is_quiet(
    fails_with: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The real stdout must not be pointed elsewhere by a test.
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    fails_with(ExceptionGroup("", [BrokenPipeError()]))
    assert run("boom") == BROKEN_PIPE
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["--debug", "boom"],
        ["boom", "--debug"],
        ["--debug", "boom", "--debug"],
        ["nest", "boom", "--debug"],
        ["nest", "--debug", "boom"],
    ],
    ids=" ".join,
)
def test_debug_shows_the_traceback_wherever_it_stands(
    argv: list[str],
    fails_with: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fails_with(UsageError("no such thing"))
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("gptnode: error: no such thing. ")


def test_debug_can_be_set_in_the_environment(
    fails_with: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GPTNODE_DEBUG", "1")
    fails_with(UsageError("no such thing"))
    assert run("boom") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["--nonsense"], "--nonsense"),
        (["frobnicate"], "frobnicate"),
        (["boom", "--number", "many"], "many"),
        (["boom", "extra"], "extra"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    argv: list[str],
    what: str,
    fails_with: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("gptnode: error: ")
    assert what in err
    assert "--help" in err


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "Commands:" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert __version__ in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    for name, source in COMMANDS.items():
        assert name in out
        assert source.summary in " ".join(out.split())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_imported_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, "--help") == 0
    assert f"gptnode {name}" in capsys.readouterr().out


def test_the_commands_are_those_that_scripts_rely_on() -> None:
    assert {"id", "serve", "chat", "demo", "map"} <= set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["chat", "--help"],
        ["demo", "--help"],
        ["serve", "--help"],
        ["serve"],
        ["map", "--help"],
        ["map", "check", "no-such-file.json"],
        ["map", "show", "no-such-file.json"],
        ["id", "--identity", "IDENTITY", "--json"],
    ],
    ids=" ".join,
)
def test_neither_torch_nor_libp2p_is_imported_where_it_is_not_needed(
    argv: list[str], tmp_path: Path
) -> None:
    script = (
        "import sys\n"
        "from gptnode.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'libp2p', 'transformers', 'numpy'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    argv = [str(tmp_path / "node.key") if word == "IDENTITY" else word for word in argv]
    done = subprocess.run(
        [sys.executable, "-c", script, *argv], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gptnode", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout


def test_one_name_is_exported_for_the_script_and_one_for_the_reference() -> None:
    assert main_module.__all__ == ["cli", "main"]
