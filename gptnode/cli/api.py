"""`gptnode api`: an OpenAI-compatible server over a swarm, until somebody stops it.

Standard output gets one line, ``ready URL ...``, once requests are answered; logs go to stderr.
"""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from gptnode.cli.api_token import create_token as make_token
from gptnode.cli.api_token import read_token
from gptnode.cli.client_options import client_config, client_options
from gptnode.cli.logs import log_options, set_up_logs
from gptnode.cli.options import byte_size
from gptnode.cli.settings import ChatSettings, model_defaults
from gptnode.cli.traces import open_traces, traces_option
from gptnode.errors import UsageError

if TYPE_CHECKING:
    from gptnode.api.config import ApiConfig, Defaults
    from gptnode.node.config import ClientConfig
    from gptnode.node.meter import Meter
    from gptnode.node.service import ServiceLimits

__all__ = ["api_command", "api_defaults"]


EXAMPLES = """\b
Examples:
  gptnode api --map swarm.json --identity laptop.key
  gptnode api --model-dir ~/models/my-llama --listen 127.0.0.1:9000
  gptnode api --map swarm.json --listen 0.0.0.0:8000 --token-file api.token --create-token
"""


@click.command("api", epilog=EXAMPLES)
@client_options
@click.option(
    "--listen",
    default="127.0.0.1:8000",
    show_default=True,
    metavar="ADDRESS:PORT",
    envvar="GPTNODE_API_LISTEN",
    show_envvar=True,
    help="Listen there. Everything but loopback takes a token.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Answer only who sends the token in FILE (Authorization: Bearer TOKEN).  [env var for the"
    " token itself: GPTNODE_API_TOKEN]",
)
@click.option("--create-token", is_flag=True, help="Make FILE with a new token if it isn't there.")
@click.option(
    "--token",
    hidden=True,
    envvar="GPTNODE_API_TOKEN",
    help="The token itself; for the environment, since others see command lines.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME[:PORT]",
    help="A name that this server is reached by, besides its addresses; may be given several"
    " times.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of that site use this server, e.g. https://chat.example.org; may be given"
    " several times.",
)
@click.option(
    "--edit-map/--read-only-map",
    "edit_map",
    default=None,
    help="Whether the web page may change the BlocksMap.  [default: only on loopback]",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Speak TLS, with this certificate chain (PEM).",
)
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE", help="The certificate's key (PEM)."
)
@click.option(
    "--max-answers",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Answers computed at the same time; more wait for their turn.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    metavar="N",
    help="Answers that wait; more get 429.",
)
@click.option(
    "--max-idle",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    metavar="N",
    help="Conversations whose caches are kept after an answer.",
)
@click.option(
    "--idle-s",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="S",
    help="For how long.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Longest answer that may be asked for.  [default: as the context allows]",
)
@click.option(
    "--max-body",
    callback=byte_size,
    default="8MiB",
    show_default=True,
    metavar="SIZE",
    help="Largest request.",
)
@traces_option
@log_options
def api_command(
    listen: str,
    token_file: Path | None,
    create_token: bool,
    token: str | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    edit_map: bool | None,
    certificate: Path | None,
    key: Path | None,
    max_answers: int,
    max_waiting: int,
    max_idle: int,
    idle_s: float,
    max_tokens: int | None,
    max_body: int,
    traces: str | None,
    log_level: str,
    log_format: str,
    **client: Any,
) -> None:
    """Answer requests in the form of OpenAI's API, over a swarm or on this machine alone.

    Any program that knows that API can use it: chat completions, text completions and models are
    under http://127.0.0.1:8000/v1, a web page is at http://127.0.0.1:8000/.

    Prints one line on standard output once it answers:

        ready URL model=NAME

    After SIGTERM or Ctrl-C no more requests are taken, and answers that run have 20 seconds to end.
    A second signal ends them at once. Settings that a request doesn't give are the model's own
    (generation_config.json), else temperature 1 and top-p 1.
    """
    # Imported here for the sake of `gptnode api --help`.
    from gptnode.api.config import ApiConfig, ApiLimits, parse_address
    from gptnode.node.service import ServiceLimits

    if create_token and token_file is None:
        raise UsageError("--create-token needs --token-file FILE: it says where the token goes")
    address = parse_address(listen)
    config = ApiConfig(
        address=address,
        token=_token(token_file, token, create=create_token),
        hosts=frozenset(name.lower() for name in allow_host),
        origins=frozenset(origin.lower().rstrip("/") for origin in allow_origin),
        certificate=certificate,
        key=key,
        read_only_map=not (address.is_loopback if edit_map is None else edit_map),
        limits=ApiLimits(max_body_bytes=max_body, max_answer_tokens=max_tokens),
    )
    limits = ServiceLimits(
        max_contexts=max_answers, max_waiting=max_waiting, max_idle=max_idle, idle_s=idle_s
    )
    set_up_logs(log_level, log_format)
    with open_traces(traces) as spans:
        trio.run(_serve_until_stopped, client_config(**client), config, limits, spans)


def _token(path: Path | None, given: str | None, *, create: bool) -> str | None:
    """The token that was asked for: a file beats the environment."""
    if path is not None:
        return make_token(path) if create else read_token(path)
    return (given or "").strip() or None


async def _serve_until_stopped(
    client: ClientConfig, config: ApiConfig, limits: ServiceLimits, traces: Meter
) -> None:
    """Serves until a signal; the second one ends everything at once."""
    import structlog

    from gptnode.api.serving import bind, serve_api
    from gptnode.cli.signals import call_on_signals
    from gptnode.node.metrics import Metrics
    from gptnode.node.nursery import background_nursery
    from gptnode.node.runtime import open_service

    log = structlog.get_logger("gptnode.api")
    leave = trio.Event()
    metrics = Metrics(traces=traces)
    with trio.CancelScope() as everything:

        def stop() -> None:
            if leave.is_set():
                everything.cancel()
            leave.set()

        async with background_nursery() as nursery:
            await nursery.start(call_on_signals, stop, signal.SIGTERM, signal.SIGINT)
            with closing(bind(config.address)) as bound:
                port = int(bound.getsockname()[1])
                config = replace(config, address=replace(config.address, port=port))
                async with open_service(client, limits, report=log.info, meter=metrics) as service:
                    config = replace(config, defaults=api_defaults(service.model_folder))

                    def ready() -> None:
                        scheme = "http" if config.certificate is None else "https"
                        url = f"{scheme}://{config.address}/v1"
                        click.echo(f"ready {url} model={service.model_name}")
                        log.info("answering", url=url, model=service.model_name)

                    await serve_api(
                        service, config, bound, ready=ready, leave=leave, metrics=metrics
                    )
            log.info("stopped")


def api_defaults(folder: Path) -> Defaults:
    """Sampling as the model's own files want it; OpenAI's where they don't say."""
    from gptnode.api.config import Defaults

    wanted = model_defaults(folder)
    if wanted == ChatSettings():
        return Defaults()
    return Defaults(
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        top_k=wanted.top_k,
        min_p=wanted.min_p,
        repetition_penalty=wanted.repetition_penalty,
    )
