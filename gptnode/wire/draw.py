"""Draw: how the head of a peer is to draw the next tokens of a context.

It says all that decides which tokens those are, so that whoever gets it, first or again after a
failure, draws the same. Specification: docs/reference/wire-protocol.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gptnode.errors import LocalProtocolError
from gptnode.wire.checks import MAX_TOKENS, check_integer
from gptnode.wire.tensor import WireTensor

__all__ = ["MAX_GUESS", "Draw"]

MAX_GUESS = 64
"""Tokens of a guess at most."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Sampling parameters, the place in the seed's random numbers, and what else it depends on.

    ``temperature`` to ``seed`` mean what they mean in a chat. ``drawn`` random numbers of the seed
    were drawn before. The last ids of the step are ``guess``: a token is drawn before the first of
    them, and one more after each that was drawn. ``seen`` (n) i32 are the ids that the penalty
    counts for; None without any. It travels behind the step's own tensor.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    drawn: int = 0
    guess: tuple[int, ...] = ()
    seen: WireTensor | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        _check_number("temperature", self.temperature)
        check_integer("draw.top_k", self.top_k, most=MAX_TOKENS)
        _check_number("top_p", self.top_p, above=True, most=1.0)
        _check_number("min_p", self.min_p, most=1.0)
        _check_number("repetition_penalty", self.repetition_penalty, above=True)
        check_integer("draw.seed", self.seed)
        check_integer("draw.drawn", self.drawn, most=MAX_TOKENS)
        if type(self.guess) is not tuple or len(self.guess) > MAX_GUESS:
            raise LocalProtocolError(f"draw.guess must be at most {MAX_GUESS} ids")
        for token in self.guess:
            check_integer("draw.guess", token, most=MAX_TOKENS)
        if self.seen is not None and (
            type(self.seen) is not WireTensor
            or self.seen.dtype != "i32"
            or len(self.seen.shape) != 1
        ):
            raise LocalProtocolError("draw.seen must be ids in i32, in one dimension")


def _check_number(
    field: str, value: object, *, above: bool = False, most: float = math.inf
) -> None:
    """A finite float from 0 (``above`` 0) to ``most``, else LocalProtocolError."""
    if type(value) is not float:
        raise LocalProtocolError(f"draw.{field} must be a float, not {type(value).__name__}")
    if not (math.isfinite(value) and 0.0 <= value <= most) or (above and value == 0.0):
        raise LocalProtocolError(f"draw.{field} is out of its range: {value}")
