"""The kernels as functions of tensors: bf16 activations on the CPU, weights in bf16, int8 or int4.

Everything is checked before a pointer leaves Python; the functions release the GIL while they
compute and use as many threads as torch would. Knows matrices and rows, no blocks.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from gptnode.model.quantised import QuantisedWeight

try:
    from gptnode.model.native import _kernels

    available = True
except ImportError:  # not compiled on this machine
    _kernels = None  # type: ignore[assignment]
    available = False

__all__ = [
    "MAX_ROWS",
    "available",
    "bf16_pointer",
    "dequantise",
    "head",
    "instructions",
    "matrix",
    "quantise_into",
    "rmsnorm",
    "rotate",
    "silu_mul",
    "usable",
    "use_plain",
]

MAX_ROWS: Final = 32
"""The most rows that a step of the kernels takes; more are the business of matrix products."""

Handle = Any  # what cffi calls CData


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels can take these: compiled, and all bf16 on the CPU, without gaps."""
    return available and all(
        t.dtype == torch.bfloat16 and t.device.type == "cpu" and t.is_contiguous() for t in tensors
    )


def instructions() -> str:
    """Which instructions the kernels use on this machine; "torch" where there are no kernels."""
    if not available:
        return "torch"
    return str(_kernels.ffi.string(_kernels.lib.gpt_instructions()).decode())


def use_plain(yes: bool) -> None:
    """Let plain C do everything, for the whole process: for tests of what other machines run."""
    _kernels.lib.gpt_use_plain(yes)


def bf16_pointer(tensor: Tensor) -> Handle:
    """Its address as the kernels take it; the tensor has to live as long.

    Raises:
        ValueError: it isn't bf16 on the CPU, or has gaps.
    """
    if not usable(tensor):
        raise ValueError(f"the kernels take no {tensor.dtype} on {tensor.device}")
    return _kernels.ffi.cast("uint16_t *", tensor.data_ptr())


def matrix(weight: Tensor | QuantisedWeight, bias: Tensor | None = None) -> Handle:
    """A ``gpt_matrix`` over ``weight`` (N, K) and ``bias`` (N); both have to live as long.

    Raises:
        ValueError: the kernels can't take them.
    """
    ffi, lib = _kernels.ffi, _kernels.lib
    pointer = ffi.new("gpt_matrix *")
    pointer.n, pointer.k = weight.shape
    if isinstance(weight, QuantisedWeight):
        pointer.kind = lib.GPT_INT8 if weight.bits == 8 else lib.GPT_INT4
        pointer.stride = weight.scales.shape[1] * weight.group
        if not weight.values.is_contiguous() or weight.values.device.type != "cpu":
            raise ValueError("the kernels take no such integers")
        pointer.values = ffi.cast("void *", weight.values.data_ptr())
        pointer.scales = bf16_pointer(weight.scales)
    else:
        pointer.kind = lib.GPT_BF16
        pointer.stride = weight.shape[1]
        pointer.values = bf16_pointer(weight)
    if bias is not None:
        pointer.bias = bf16_pointer(bias)
    return pointer


def head(weight: Handle, norm: Tensor | None, eps: float, hidden: Tensor) -> Tensor:
    """``hidden`` (T, K) bf16, normed if ``norm`` (K) is given -> its products (T, N) in f32."""
    result = torch.empty((hidden.shape[0], weight.n), dtype=torch.float32)
    failed = _kernels.lib.gpt_head(
        weight,
        bf16_pointer(norm) if norm is not None else _kernels.ffi.NULL,
        eps,
        bf16_pointer(_fitting(hidden, weight.k)),
        hidden.shape[0],
        _kernels.ffi.cast("float *", result.data_ptr()),
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError
    return result


def rmsnorm(x: Tensor, norm: Tensor, eps: float) -> Tensor:
    """(..., width) bf16 -> the same, normed."""
    width = norm.shape[0]
    result = torch.empty_like(_fitting(x, width))
    _kernels.lib.gpt_rmsnorm(
        bf16_pointer(x),
        bf16_pointer(norm),
        eps,
        x.numel() // width,
        width,
        bf16_pointer(result),
        torch.get_num_threads(),
    )
    return result


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn ``x`` (T, H, head_dim) in place by the angles (T, head_dim) of its rows."""
    tokens, heads, width = x.shape
    if cosines.numel() != tokens * width or sines.numel() != tokens * width:
        raise ValueError(f"{cosines.numel()} cosines for {tokens} rows of {width}")
    _kernels.lib.gpt_rotate(
        bf16_pointer(x),
        bf16_pointer(cosines),
        bf16_pointer(sines),
        tokens,
        heads,
        width,
        torch.get_num_threads(),
    )
    return x


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """``gate`` = silu(gate) * up, in place; both of one shape."""
    if gate.shape != up.shape:
        raise ValueError(f"gate {tuple(gate.shape)} and up {tuple(up.shape)}")
    _kernels.lib.gpt_silu_mul(
        bf16_pointer(gate), bf16_pointer(up), gate.numel(), torch.get_num_threads()
    )
    return gate


def dequantise(weight: QuantisedWeight, result: Tensor) -> Tensor:
    """Write ``weight`` (N, K) into ``result``, bf16 of the same shape."""
    if tuple(result.shape) != weight.shape:
        raise ValueError(f"{weight.shape} into {tuple(result.shape)}")
    _kernels.lib.gpt_dequantise(matrix(weight), bf16_pointer(result), torch.get_num_threads())
    return result


def quantise_into(weight: Tensor, result: QuantisedWeight, first: int) -> None:
    """Write ``weight`` (n, K) in bf16 as rows ``first`` to ``first + n`` of ``result``.

    The same integers and scales as `gptnode.model.quantised.quantise_into`, many times as fast.

    Raises:
        ValueError: the weights hold NaN or Inf, or don't fit.
    """
    last = first + weight.shape[0]
    if weight.shape[1] != result.shape[1] or not 0 <= first <= last <= result.shape[0]:
        raise ValueError(f"{tuple(weight.shape)} from row {first} on in a matrix {result.shape}")
    part = QuantisedWeight(
        result.values[first:last], result.scales[first:last], (last - first, result.shape[1])
    )
    _kernels.lib.gpt_quantise(bf16_pointer(weight), matrix(part), torch.get_num_threads())
    if not part.scales.isfinite().all():
        raise ValueError("the weights hold NaN or Inf")


def _fitting(x: Tensor, width: int) -> Tensor:
    if x.shape[-1] != width:
        raise ValueError(f"rows of {x.shape[-1]} for a matrix of {width}")
    return x
