"""Tensors to bytes and back: the only bridge between torch and the wire.

Between host and cuda they go through pinned memory, from which the device copies by itself; torch
keeps such memory for the next tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gptnode.errors import MismatchError
from gptnode.model.dtypes import FLOAT_DTYPES, dtype_name
from gptnode.node.scaled_rows import scale_down, scale_up
from gptnode.wire.messages import WireTensor
from gptnode.wire.tensor import SCALED

__all__ = ["check_hidden", "from_wire", "ids_from_wire", "ids_to_wire", "to_wire"]


def to_wire(hidden: Tensor, *, scaled: bool = False) -> WireTensor:
    """``hidden`` (B, T, D) as row-major bytes of its own dtype; shares memory where it can.

    The bytes are complete when it returns. On cuda that takes as long as the device needs for what
    it was asked before: best called in the lane, or for what came out of it.

    Args:
        hidden: Activations.
        scaled: Send them in 8 bit, with a scale for each row: for bf16 alone.
    """
    shape = tuple(hidden.shape)
    if scaled:
        numbers, scales = scale_down(hidden.detach())
        return WireTensor(SCALED, shape, b"".join((_bytes_of(numbers), _bytes_of(scales))))
    return WireTensor(dtype_name(hidden.dtype), shape, _bytes_of(hidden.detach()))


def from_wire(tensor: WireTensor, device: torch.device, *, scaled: bool = False) -> Tensor:
    """The tensor that was sent, on ``device``; its shape and size were checked by the wire.

    On the CPU it lies in the memory that it was received into, where that may be written to, and
    nothing is copied. On cuda the copy to the device may still be under way; work that is asked of
    the device after it waits for it.

    Args:
        tensor: Received, or made by ``to_wire``.
        device: Where it is to be.
        scaled: Whether it has to be in 8 bit, or else must not be.

    Raises:
        MismatchError: the peer sent whole numbers, which are no activations, or has another idea of
            ``scaled``.
    """
    if scaled is not (tensor.dtype == SCALED):
        agreed = "scaled int8" if scaled else "the model's own dtype"
        raise MismatchError(f"activations are {tensor.dtype}, agreed on was {agreed}")
    if scaled:
        n_numbers = math.prod(tensor.shape)
        numbers = _from_bytes(tensor.data[:n_numbers], tensor.shape, torch.int8, device)
        scales = _from_bytes(tensor.data[n_numbers:], tensor.shape[:-1], torch.float32, device)
        return scale_up(numbers, scales)
    dtype = FLOAT_DTYPES.get(tensor.dtype)
    if dtype is None:
        raise MismatchError(f"activations can't be {tensor.dtype}")
    return _from_bytes(tensor.data, tensor.shape, dtype, device)


def ids_to_wire(ids: Sequence[int], shape: tuple[int, ...]) -> WireTensor:
    """Token ids as i32 of ``shape``."""
    return WireTensor("i32", shape, np.array(ids, dtype="<i4").tobytes())


def ids_from_wire(tensor: WireTensor, vocab_size: int, who: str) -> list[int]:
    """All of the ids that were sent, whatever their shape.

    Raises:
        MismatchError: they aren't i32, or one is outside of the vocabulary.
    """
    if tensor.dtype != "i32":
        raise MismatchError(f"ids from {who} are {tensor.dtype} instead of i32")
    ids = np.frombuffer(tensor.data, dtype="<i4")
    if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
        raise MismatchError(f"ids from {who} are outside of the vocabulary of {vocab_size} tokens")
    found: list[int] = ids.tolist()
    return found


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


def _bytes_of(tensor: Tensor) -> memoryview:
    """Row-major."""
    return _on_host(tensor.contiguous()).view(-1).view(torch.uint8).numpy().data


def _from_bytes(
    data: bytes | memoryview, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A tensor of it: of the data itself where it can be, else of a copy."""
    if device.type == "cpu" and isinstance(data, memoryview) and not data.readonly:
        there = torch.frombuffer(data, dtype=dtype).view(shape)
        if there.data_ptr() % dtype.itemsize == 0:  # as kernels may expect
            return there
    pinned = device.type == "cuda"
    host = torch.empty(shape, dtype=dtype, pin_memory=pinned)
    host.view(-1).view(torch.uint8).numpy()[:] = np.frombuffer(data, dtype=np.uint8)
    return host.to(device, non_blocking=pinned)


def _on_host(tensor: Tensor) -> Tensor:
    """``tensor`` in memory of the CPU; itself if it is there."""
    if tensor.device.type != "cuda":
        return tensor.to("cpu")
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    # Not of the stream: another thread may ask the device for more meanwhile.
    torch.cuda.current_stream(tensor.device).record_event().synchronize()
    return host
