"""Tensors to bytes and back: the only bridge between torch and the wire.

Between host and cuda they go through pinned memory, from which the device copies by itself; torch
keeps such memory for the next tensor.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gptnode.errors import MismatchError
from gptnode.model.dtypes import DTYPES, dtype_name
from gptnode.wire.messages import WireTensor

__all__ = ["check_hidden", "from_wire", "to_wire"]


def to_wire(hidden: Tensor) -> WireTensor:
    """``hidden`` (B, T, D) as row-major bytes of its own dtype; shares memory where it can.

    The bytes are complete when it returns. On cuda that takes as long as the device needs for what
    it was asked before: best called in the lane, or for what came out of it.
    """
    flat = _on_host(hidden.detach().contiguous()).view(-1).view(torch.uint8)
    return WireTensor(dtype_name(hidden.dtype), tuple(hidden.shape), flat.numpy().data)


def from_wire(tensor: WireTensor, device: torch.device) -> Tensor:
    """The tensor that was sent, on ``device``; its shape and size were checked by the wire.

    The bytes are copied once on this side: torch wants memory that it may write to, received frames
    are not. On cuda the copy to the device may still be under way; work that is asked of the device
    after it waits for it.

    Raises:
        MismatchError: the peer sent whole numbers, which are no activations.
    """
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise MismatchError(f"activations can't be {tensor.dtype}")
    pinned = device.type == "cuda"
    host = torch.empty(tensor.shape, dtype=dtype, pin_memory=pinned)
    host.view(-1).view(torch.uint8).numpy()[:] = np.frombuffer(tensor.data, dtype=np.uint8)
    return host.to(device, non_blocking=pinned)


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


def _on_host(tensor: Tensor) -> Tensor:
    """``tensor`` in memory of the CPU; itself if it is there."""
    if tensor.device.type != "cuda":
        return tensor.to("cpu")
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    # Not of the stream: another thread may ask the device for more meanwhile.
    torch.cuda.current_stream(tensor.device).record_event().synchronize()
    return host
