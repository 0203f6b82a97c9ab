"""What a client of this library is made with. Imports nothing that takes long."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from gptnode.errors import UsageError
from gptnode.node.config import ClientConfig, ServiceLimits

if TYPE_CHECKING:
    from gptnode.node.service import Service

__all__ = ["NodeOptions", "opening"]

WAIT_S = 30.0


class NodeOptions(TypedDict, total=False):
    """A node for this process: over the peers of a map, or with a model folder all by itself.

    ``map`` and ``identity``: files of a BlocksMap and of this node's identity. ``model_dir``: the
    model's folder; with a map it beats the path there. ``model``: its name in the map. ``dtype``:
    bf16, f16, f32, int8 or int4. ``device`` and ``threads``: where this node computes.
    ``context_tokens``: the longest context. ``wait_s``: how long an answer waits where some blocks
    have no live peer; 30 by default. ``verify``: the fraction of the peers' steps that a second one
    computes too. ``draft``: folder of a small model that guesses ahead. ``limits``: how many
    answers at once. ``report``: shows a line of progress or trouble; called on the node's thread.
    """

    map: str | PathLike[str] | None
    identity: str | PathLike[str] | None
    model_dir: str | PathLike[str] | None
    model: str | None
    dtype: str | None
    device: str
    threads: int | None
    context_tokens: int | None
    wait_s: float
    verify: float
    draft: str | PathLike[str] | None
    limits: ServiceLimits
    report: Callable[[str], None]


def opening(options: NodeOptions) -> Callable[[], AbstractAsyncContextManager[Service]]:
    """What opens a service with ``options``.

    Raises:
        UsageError: they don't go together.
    """
    if options.get("map") is None and options.get("model_dir") is None:
        raise UsageError("a client needs the file of a BlocksMap (map=) or a folder (model_dir=)")
    if options.get("map") is not None and options.get("identity") is None:
        raise UsageError("a client of a swarm needs the file of its identity (identity=)")
    config = ClientConfig(
        map_path=_path(options.get("map")),
        identity_path=_path(options.get("identity")),
        model_name=options.get("model"),
        model_dir=_path(options.get("model_dir")),
        dtype=options.get("dtype"),
        device=options.get("device", "cpu"),
        threads=options.get("threads"),
        context_tokens=options.get("context_tokens"),
        wait_s=options.get("wait_s", WAIT_S),
        verify=options.get("verify", 0.0),
        draft=_path(options.get("draft")),
    )
    limits = options.get("limits") or ServiceLimits()
    report = options.get("report") or _nobody

    def open_() -> AbstractAsyncContextManager[Service]:
        from gptnode.node.runtime import open_service  # with torch: on the node's thread

        return open_service(config, limits, report=report)

    return open_


def _path(path: str | PathLike[str] | None) -> Path | None:
    return Path(path) if path is not None else None


def _nobody(line: str) -> None:
    """Nobody reads it."""
