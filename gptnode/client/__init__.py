"""gptnode from Python: clients for plain threads, asyncio and trio."""

from gptnode.client.async_client import AsyncClient, AsyncTextStream
from gptnode.client.options import NodeOptions
from gptnode.client.replies import Messages, Reply, Settings, Usage
from gptnode.client.sync_client import Client, TextStream
from gptnode.node.config import ServiceLimits

__all__ = [
    "AsyncClient",
    "AsyncTextStream",
    "Client",
    "Messages",
    "NodeOptions",
    "Reply",
    "ServiceLimits",
    "Settings",
    "TextStream",
    "Usage",
]
