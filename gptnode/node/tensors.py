"""Tensors to bytes and back: the only bridge between torch and the wire."""

from __future__ import annotations

import torch
from torch import Tensor

from gptnode.errors import MismatchError
from gptnode.model.dtypes import DTYPES, dtype_name
from gptnode.wire.messages import WireTensor

__all__ = ["check_hidden", "from_wire", "to_wire"]


def to_wire(hidden: Tensor) -> WireTensor:
    """``hidden`` (B, T, D) as row-major bytes of its own dtype; shares memory where it can."""
    flat = hidden.detach().to("cpu").contiguous().view(-1).view(torch.uint8)
    return WireTensor(dtype_name(hidden.dtype), tuple(hidden.shape), flat.numpy().data)


def from_wire(tensor: WireTensor, device: torch.device) -> Tensor:
    """The tensor that was sent, on ``device``; its shape and size were checked by the wire.

    The bytes are copied once: torch wants memory that it may write to, received frames are not.
    """
    data = torch.frombuffer(bytearray(tensor.data), dtype=DTYPES[tensor.dtype])
    return data.view(tensor.shape).to(device)


def check_hidden(hidden: Tensor, shape: tuple[int, int, int], dtype: torch.dtype, who: str) -> None:
    """Refuse activations that can't be right, before they reach a cache or a sampler.

    Raises:
        MismatchError: ``hidden`` is not of ``shape`` (B, T, D) and ``dtype``, or holds NaN or Inf.
    """
    if tuple(hidden.shape) != shape or hidden.dtype != dtype:
        raise MismatchError(
            f"activations from {who} are {dtype_name(hidden.dtype)} {tuple(hidden.shape)} "
            f"instead of {dtype_name(dtype)} {shape}"
        )
    if not bool(torch.isfinite(hidden).all()):
        raise MismatchError(f"activations from {who} hold NaN or Inf")
