"""gptnode: run one language model on several ordinary machines, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptnode.client import AsyncClient, Client, ServiceLimits

__all__ = ["AsyncClient", "Client", "ServiceLimits", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The clients, imported when somebody asks for them: a server needs none."""
    if name in ("AsyncClient", "Client", "ServiceLimits"):
        from gptnode import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
