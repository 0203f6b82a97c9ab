"""`gptnode bench`: options, what is printed, the picture, and what is refused before measuring."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from gptnode.cli.bench import bench_command
from gptnode.cli.bench_views import draw_report, report_json
from gptnode.errors import GptNodeError, IdentityError, MapError, ModelFileError, UsageError
from gptnode.node import bench as bench_module
from gptnode.node.bench import Advance, BenchPlan
from gptnode.node.bench_report import BenchReport
from gptnode.node.config import ClientConfig
from tests.bench_reports import two_hop_report
from tests.tiny_llama import write_tiny_llama

KEYS = [
    "model",
    "dtype",
    "device",
    "threads",
    "prompt_tokens",
    "tokens",
    "context_tokens",
    "users",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "ttft_s",
    "step_ms",
    "resident_bytes",
    "weight_bytes",
    "kv_bytes",
    "load_s",
    "hops",
    "client",
    "prefill",
    "steps_ms",
    "prefills_ms",
    "versions",
    "machine",
]
PICTURE = """\
tiny in bf16, 2 threads
Difference Engine, 1 core, 4.00 GiB; gptnode 0.1.0, torch 2.13.0, Python 3.11.7

                              tokens   tokens/s   p50 ms   p95 ms   p99 ms
──────────────────────────────────────────────────────────────────────────
prefill, to the first token      512     2560.0   200.00        -        -
decode, from 600 on                3       50.0    20.00    29.00    29.80

memory of this process: 300.0 MiB; its weights 1.50 GiB, its cache 0.0 MiB
weights loaded and sessions open after 1.25 s

where the time of a decode step goes (medians, ms)
hop      blocks   total   queue   compute   serialise    wire
────────────────────────────────────────────────────────────────────────────────────────────────────
anna        0-2   10.00   1.000     5.000       1.000   3.000   ░░█████████▒▒─────
ben           3   8.000   0.000     6.000       1.000   1.000                     ███████████▒▒─
client        -   2.000   0.400     1.600       0.000   0.000                                   ░███

where the time of the prefill goes (medians, ms)
hop      blocks   total   queue   compute   serialise    wire
────────────────────────────────────────────────────────────────────────────────────────────────────
anna        0-2   100.0   10.00     50.00       10.00   30.00   ░░█████████▒▒─────
ben           3   80.00   0.000     60.00       10.00   10.00                     ███████████▒▒─
client        -   20.00   4.000     16.00       0.000   0.000                                   ░███

░░ queue   ██ compute   ▒▒ serialise   ── wire
"""


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAP", "MODEL_DIR", "IDENTITY", "THREADS", "DEVICE"):
        monkeypatch.delenv(f"GPTNODE_{name}", raising=False)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and config.json alone."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "bare", 64, max_positions=128)


class FakeMeasure:
    """Stands where `measure` is; answers with a report of round numbers."""

    def __init__(self) -> None:
        self.asked: list[tuple[ClientConfig, BenchPlan]] = []
        self.report = two_hop_report()
        self.watched = False

    async def __call__(
        self,
        config: ClientConfig,
        plan: BenchPlan,
        *,
        report: Callable[[str], None],
        progress: Callable[[Advance], None] | None,
    ) -> BenchReport:
        self.asked.append((config, plan))
        self.watched = progress is not None
        report("dialling anna")
        if progress is not None:
            progress(Advance("decode", 3, 32))
        return self.report


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeMeasure:
    fake = FakeMeasure()
    monkeypatch.setattr(bench_module, "measure", fake)
    return fake


def run(*argv: str | Path) -> Result:
    return CliRunner().invoke(bench_command, list(map(str, argv)), catch_exceptions=False)


def error_of(*argv: str | Path) -> GptNodeError:
    with pytest.raises((GptNodeError, BaseExceptionGroup)) as failure:
        run(*argv)
    error: BaseException = failure.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, GptNodeError)
    return error


def drawn(report: BenchReport, *, encoding: str = "utf-8", width: int = 100) -> str:
    class Stream(StringIO):
        @property
        def encoding(self) -> str:  # type: ignore[override]
            return encoding

    stream = Stream()
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    for part in draw_report(report, console):
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


# --- a real measurement ---------------------------------------------------------------------------


def test_json_has_the_promised_keys(folder: Path) -> None:
    result = run(
        "--model-dir", folder, "--prompt-tokens", "20", "--tokens", "6", "--threads", "1", "--json"
    )
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    found = json.loads(result.stdout)
    assert list(found) == KEYS
    assert list(found["step_ms"]) == ["p50", "p95", "p99"]
    (hop,) = found["hops"]
    assert list(hop) == [
        *("peer", "peer_id", "blocks"),
        *("queue_ms", "compute_ms", "serialise_ms", "wire_ms"),
    ]
    assert (hop["peer"], hop["blocks"]) == ("local", "0-3")
    assert len(found["steps_ms"]) == found["tokens"] == 6
    assert list(found["versions"]) == ["gptnode", "torch", "python"]
    assert list(found["machine"]) == ["cpu", "cores", "memory_bytes"]


def test_without_json_stdout_has_the_report_and_stderr_nothing(folder: Path) -> None:
    result = run("--model-dir", folder, "--prompt-tokens", "20", "--tokens", "6", "--dtype", "bf16")
    assert result.exit_code == 0
    assert result.stdout.startswith("bare in bf16, ")
    assert result.stderr == ""


# --- what is shown --------------------------------------------------------------------------------


def test_a_report_is_drawn_with_its_bars_in_a_waterfall() -> None:
    assert drawn(two_hop_report()) == PICTURE


def test_several_runs_are_counted_and_have_percentiles() -> None:
    text = drawn(two_hop_report(steps_ms=[[10.0], [20.0]], prefills_ms=[100.0, 200.0]))
    assert re.search(r"prefill.* 2 x 512 .* 150\.00 +195\.00 +199\.00\n", text)
    assert re.search(r"decode.* 2 x 1 .* 15\.00 ", text)


def test_a_console_without_unicode_gets_ascii() -> None:
    text = drawn(two_hop_report(), encoding="ascii")
    assert text.isascii()
    assert "..#########==-----" in text


def test_a_narrow_terminal_loses_bars_and_no_numbers() -> None:
    text = drawn(two_hop_report(), width=64)
    assert max(map(len, text.splitlines()[5:])) <= 64
    assert re.search(r"anna +0-2 +10\.00 +1\.000 +5\.000 +1\.000 +3\.000", text)


def test_a_name_can_not_reach_the_terminal_with_an_escape_sequence() -> None:
    assert "\x1b" not in drawn(two_hop_report(label="a\x1b[2Jb"))


def test_json_has_milliseconds_and_whole_names() -> None:
    found = report_json(two_hop_report())
    assert found["decode_tokens_per_s"] == 50
    assert found["step_ms"] == {"p50": 20, "p95": 29, "p99": 29.8}
    assert found["ttft_s"] == 0.2
    assert found["steps_ms"] == [10, 20, 30]
    assert found["hops"] == [
        {
            "peer": "anna",
            "peer_id": "12D3KooWanna",
            "blocks": "0-2",
            "queue_ms": 1,
            "compute_ms": 5,
            "serialise_ms": 1,
            "wire_ms": 3,
        },
        {
            "peer": "ben",
            "peer_id": "12D3KooWben",
            "blocks": "3",
            "queue_ms": 0,
            "compute_ms": 6,
            "serialise_ms": 1,
            "wire_ms": 1,
        },
    ]


def test_a_terminal_gets_progress_on_stderr_and_json_stays_alone_on_stdout(
    fake: FakeMeasure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("--model-dir", "x", "--json")
    assert "dialling anna" in result.stderr
    assert re.search(r"decode.*3/32", result.stderr)
    assert list(json.loads(result.stdout)) == KEYS


def test_nothing_is_watched_where_stderr_is_no_terminal(fake: FakeMeasure) -> None:
    result = run("--model-dir", "x")
    assert result.stderr == ""
    assert not fake.watched


# --- options --------------------------------------------------------------------------------------


def test_the_options_are_what_is_measured(fake: FakeMeasure) -> None:
    run(
        *("--model-dir", "models/x", "--dtype", "f16", "--threads", "3", "--device", "cuda:1"),
        *("--prompt-tokens", "7", "--tokens", "8", "--context", "9", "--repeat", "2"),
    )
    assert fake.asked == [
        (
            ClientConfig(
                model_dir=Path("models/x"), dtype="f16", device="cuda:1", threads=3, speculate=False
            ),
            BenchPlan(prompt_tokens=7, tokens=8, context_tokens=9, repeat=2),
        )
    ]


def test_a_map_is_measured_as_the_client_of_an_identity(fake: FakeMeasure) -> None:
    run("--map", "map.json", "--identity", "laptop.key", "--model", "demo")
    ((config, plan),) = fake.asked
    assert config == ClientConfig(
        map_path=Path("map.json"),
        identity_path=Path("laptop.key"),
        model_name="demo",
        speculate=False,
    )
    assert plan == BenchPlan(prompt_tokens=512, tokens=32)


def test_a_folder_that_was_typed_beats_the_map_of_the_environment(
    fake: FakeMeasure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTNODE_MAP", "map.json")
    monkeypatch.setenv("GPTNODE_IDENTITY", "laptop.key")
    run("--model-dir", "models/x")
    assert fake.asked[0][0] == ClientConfig(model_dir=Path("models/x"), speculate=False)


def test_a_folder_of_the_environment_is_where_the_maps_model_is(
    fake: FakeMeasure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTNODE_MODEL_DIR", "models/x")
    run("--map", "map.json", "--identity", "laptop.key")
    assert fake.asked[0][0] == ClientConfig(
        map_path=Path("map.json"),
        identity_path=Path("laptop.key"),
        model_dir=Path("models/x"),
        speculate=False,
    )


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "--model-dir DIR, or --map FILE"),
        (["--model-dir", "x", "--map", "y"], "one of them"),
        (["--model-dir", "x", "--model", "y"], "--map"),
        (["--model-dir", "x", "--plot", "a.jpg"], r"\.svg or \.png"),
        (["--model-dir", "x", "--plot", "missing/a.svg"], "no folder missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_measured_is_a_usage_error(
    argv: list[str], named: str, fake: FakeMeasure
) -> None:
    error = error_of(*argv)
    assert type(error) is UsageError
    assert re.search(named, error.detail)
    assert not fake.asked


@pytest.mark.parametrize("option", ["--prompt-tokens", "--tokens", "--context", "--repeat"])
def test_nothing_can_not_be_measured(option: str, fake: FakeMeasure) -> None:
    result = run("--model-dir", "x", option, "0")
    assert result.exit_code == 2
    assert option in result.stderr
    assert not fake.asked


def test_a_file_that_is_not_there_is_an_error_of_its_kind(tmp_path: Path, folder: Path) -> None:
    missing = tmp_path / "missing"
    assert type(error_of("--model-dir", missing)) is ModelFileError
    assert type(error_of("--map", missing, "--identity", missing)) is MapError
    swarm = tmp_path / "map.json"
    peer = "12D3KooWNLjEvw9XN42H5quYWNFGQ9Y2qM3hRYv6rbtNgUZYtxuC"
    swarm.write_text(
        json.dumps(
            {
                "models": [{"name": "bare", "path": str(folder)}],
                "peers": [{"id": peer, "addrs": ["/ip4/127.0.0.1/tcp/4001"]}],
                "routes": [{"blocks": "0-3", "peers": [peer]}],
            }
        )
    )
    argv = ("--map", swarm, "--identity", missing, "--prompt-tokens", "9")
    assert type(error_of(*argv)) is IdentityError


def test_a_context_longer_than_the_models_is_a_usage_error(folder: Path) -> None:
    error = error_of("--model-dir", folder, "--prompt-tokens", "9", "--context", "120")
    assert type(error) is UsageError
    assert "152 tokens, the model allows 128" in error.detail


def test_help_has_examples_and_needs_no_torch() -> None:
    text = run("--help").stdout
    assert "  gptnode bench --map swarm.json --identity laptop.key --plot steps.svg\n" in text


# --- the picture ----------------------------------------------------------------------------------


def test_without_matplotlib_it_says_what_to_install_before_measuring(
    fake: FakeMeasure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    error = error_of("--model-dir", "x", "--plot", tmp_path / "a.svg")
    assert type(error) is UsageError
    assert "pip install 'gptnode[plot]'" in error.detail
    assert not fake.asked


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG")])
def test_the_picture_is_in_the_format_of_its_name(
    name: str, begins: bytes, fake: FakeMeasure, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    result = run("--model-dir", "x", "--json", "--plot", tmp_path / name)
    assert result.exit_code == 0
    assert list(json.loads(result.stdout)) == KEYS
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_the_picture_names_the_hops_the_parts_and_the_percentiles(
    fake: FakeMeasure, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    fake.report = two_hop_report(label="$anna_1$")
    run("--model-dir", "x", "--plot", tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for name in ("$anna_1$ 0-2", "ben 3", "client", "queue", "wire", "p99 29.80", "50.0 tokens/s"):
        assert name in text


def test_a_picture_that_can_not_be_written_is_told(fake: FakeMeasure, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "taken.svg").mkdir()
    error = error_of("--model-dir", "x", "--plot", tmp_path / "taken.svg")
    assert type(error) is UsageError
    assert not fake.asked
