"""Every error that gptnode raises on purpose, and what a person should do about it.

The class says what kind of thing went wrong: its docstring is the advice that a user reads after
the detail, and its branch decides the exit code. ::

    GptNodeError                1
    ├── UsageError              2   a command or option that can't be carried out as given
    ├── MapError                3   the BlocksMap file
    ├── ModelError              4   the model folder
    │   ├── ModelFileError
    │   └── UnsupportedModelError
    ├── TextError               5   tokenizer, chat template, stop sequences
    ├── IdentityError           6   the identity file
    ├── NetworkError            7   peers and the way to them
    │   ├── PeerUnreachableError
    │   ├── PeerRefusedError
    │   ├── PeerBusyError
    │   ├── StreamLostError
    │   └── PeerTimeoutError
    ├── ProtocolError           8   a peer that breaks the protocol, or answers for something else
    │   ├── LocalProtocolError
    │   ├── RemoteProtocolError
    │   └── MismatchError
    ├── RouteError              9   no live peer for some blocks
    ├── ContextError           10   the token context and its length
    │   └── ContextFileError        the file that it is saved to or loaded from
    └── ServiceBusyError       11   as many answers wait already as may wait
"""

from __future__ import annotations

import copy
import inspect
from typing import ClassVar, Self

__all__ = [
    "ContextError",
    "ContextFileError",
    "GptNodeError",
    "IdentityError",
    "LocalProtocolError",
    "MapError",
    "MismatchError",
    "ModelError",
    "ModelFileError",
    "NetworkError",
    "PeerBusyError",
    "PeerRefusedError",
    "PeerTimeoutError",
    "PeerUnreachableError",
    "ProtocolError",
    "RemoteProtocolError",
    "RouteError",
    "ServiceBusyError",
    "StreamLostError",
    "TextError",
    "UnsupportedModelError",
    "UsageError",
]


class GptNodeError(Exception):
    """Run the command again with --debug to see where it happened."""

    exit_code: ClassVar[int] = 1

    def __init__(self, detail: str) -> None:
        """``detail`` says what is wrong with what, in one line, without a final stop."""
        super().__init__(detail)
        self.detail = detail

    @property
    def advice(self) -> str:
        """What to do next, as one line: the docstring of the class."""
        return " ".join(inspect.cleandoc(type(self).__doc__ or "").split())

    def for_user(self) -> str:
        """Detail and advice in one line."""
        stop = "" if self.detail.endswith(("?", "!", ".")) else "."
        return f"{self.detail}{stop} {self.advice}"

    def about(self, subject: str) -> Self:
        """The same error with ``subject`` before its detail."""
        other = copy.copy(self)
        other.detail = f"{subject}: {self.detail}"
        other.args = (other.detail,)
        return other


class UsageError(GptNodeError):
    """See --help, or /help in a chat."""

    exit_code = 2


class MapError(GptNodeError):
    """Mend the BlocksMap there; `gptnode map check FILE` tells whether it is right."""

    exit_code = 3


class ModelError(GptNodeError):
    """Check that the model folder is complete and that the BlocksMap names the right one."""

    exit_code = 4


class ModelFileError(ModelError):
    """Copy the file again from where it came from: it is damaged, or of another model."""


class UnsupportedModelError(ModelError):
    """Use a Llama model in Hugging Face form: config.json beside safetensors files."""


class TextError(GptNodeError):
    """Check tokenizer.json and tokenizer_config.json, or name a template in the BlocksMap."""

    exit_code = 5


class IdentityError(GptNodeError):
    """`gptnode id --identity FILE` creates or shows one; only its owner may read the file."""

    exit_code = 6


class NetworkError(GptNodeError):
    """Check the network between the machines, then try again."""

    exit_code = 7


class PeerUnreachableError(NetworkError):
    """Check that `gptnode serve` runs there and that its address in the BlocksMap is right."""


class PeerRefusedError(NetworkError):
    """Add this node's peer id to `clients` in the BlocksMap of that peer, or route around it."""


class PeerBusyError(NetworkError):
    """The peer is full or still loading: try again shortly, or add a replica to the BlocksMap."""

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        """``retry_after_s`` is the peer's own estimate."""
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class StreamLostError(NetworkError):
    """The peer went away in the middle of its work: the chat can go on over another one."""


class PeerTimeoutError(NetworkError):
    """The peer is silent: it may be frozen, overloaded or unplugged."""


class ProtocolError(GptNodeError):
    """Check that all nodes of the swarm run the same version of gptnode."""

    exit_code = 8


class LocalProtocolError(ProtocolError):
    """This node tried to send what the protocol doesn't allow: please report it as a bug."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol doesn't allow; its connection was closed."""


class MismatchError(ProtocolError):
    """All nodes of a swarm need the same model files, the same dtype and the same BlocksMap."""


class RouteError(GptNodeError):
    """Start the missing peers, or edit the BlocksMap to route around them and use /reload."""

    exit_code = 9


class ContextError(GptNodeError):
    """/clear starts an empty context; /undo takes back the last turn."""

    exit_code = 10


class ContextFileError(ContextError):
    """The chat and its files are as they were; name another file, or mend this one."""


class ServiceBusyError(GptNodeError):
    """Ask again in a while, or allow more answers at once or more that wait."""

    exit_code = 11

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        """``retry_after_s``: when there may be room, by how long answers took lately."""
        super().__init__(detail)
        self.retry_after_s = retry_after_s
