"""The kernels as functions of tensors: bf16 activations on the CPU, weights in bf16, int8 or int4.

Everything is checked before a pointer leaves Python; the functions release the GIL while they
compute and use as many threads as torch would. Knows matrices and rows, no blocks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import torch
from torch import Tensor

from gptnode.model.quantised import QuantisedWeight

kernels: Any
try:
    kernels = import_module("gptnode.model.native._kernels")
except ImportError:  # not compiled on this machine
    kernels = None

available: bool = kernels is not None

__all__ = [
    "MAX_HEAD_DIM",
    "MAX_ROWS",
    "attend",
    "attends",
    "available",
    "bf16_pointer",
    "dequantise",
    "head",
    "instructions",
    "kernels",
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

MAX_HEAD_DIM: Final = 256
MAX_SHARED: Final = 16  # query heads that share keys: what the kernels have room for on their stack

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
    return str(kernels.ffi.string(kernels.lib.gpt_instructions()).decode())


def use_plain(yes: bool) -> None:
    """Let plain C do everything, for the whole process: for tests of what other machines run."""
    kernels.lib.gpt_use_plain(yes)


def bf16_pointer(tensor: Tensor) -> Handle:
    """Its address as the kernels take it; the tensor has to live as long.

    Raises:
        ValueError: it isn't bf16 on the CPU, or has gaps.
    """
    if not usable(tensor):
        raise ValueError(f"the kernels take no {tensor.dtype} on {tensor.device}")
    return kernels.ffi.cast("uint16_t *", tensor.data_ptr())


def matrix(weight: Tensor | QuantisedWeight, bias: Tensor | None = None) -> Handle:
    """A ``gpt_matrix`` over ``weight`` (N, K) and ``bias`` (N); both have to live as long.

    Raises:
        ValueError: the kernels can't take them.
    """
    ffi, lib = kernels.ffi, kernels.lib
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
    failed = kernels.lib.gpt_head(
        weight,
        bf16_pointer(norm) if norm is not None else kernels.ffi.NULL,
        eps,
        bf16_pointer(_fitting(hidden, weight.k)),
        hidden.shape[0],
        kernels.ffi.cast("float *", result.data_ptr()),
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError
    return result


def rmsnorm(x: Tensor, norm: Tensor, eps: float) -> Tensor:
    """(..., width) bf16 -> the same, normed."""
    width = norm.shape[0]
    result = torch.empty_like(_fitting(x, width))
    kernels.lib.gpt_rmsnorm(
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
    if width > MAX_HEAD_DIM:
        raise ValueError(f"heads of {width} channels; the kernels turn up to {MAX_HEAD_DIM}")
    if cosines.numel() != tokens * width or sines.numel() != tokens * width:
        raise ValueError(f"{cosines.numel()} cosines for {tokens} rows of {width}")
    kernels.lib.gpt_rotate(
        bf16_pointer(x),
        bf16_pointer(cosines),
        bf16_pointer(sines),
        tokens,
        heads,
        width,
        torch.get_num_threads(),
    )
    return x


def attends(n_heads: int, n_kv_heads: int, head_dim: int) -> bool:
    """Whether the kernels can attend with so many heads of such a width."""
    return head_dim <= MAX_HEAD_DIM and head_dim % 2 == 0 and n_heads // n_kv_heads <= MAX_SHARED


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of the last T tokens of a context over all S of it, in f32 inside.

    Args:
        queries: (T, n_heads, head_dim), rotated.
        keys: (S, n_kv_heads, head_dim), rotated; S >= T.
        values: Like ``keys``.

    Returns:
        (T, n_heads, head_dim).
    """
    (tokens, n_heads, width), (length, n_kv_heads, _) = queries.shape, keys.shape
    fits = keys.shape == values.shape and keys.shape[2] == width and tokens <= length
    if not fits or not attends(n_heads, n_kv_heads, width):
        raise ValueError(f"queries {tuple(queries.shape)} for keys {tuple(keys.shape)}")
    result = torch.empty_like(queries)
    shape = {"n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": width}
    failed = kernels.lib.gpt_attention(
        kernels.ffi.new("gpt_shape *", shape),
        bf16_pointer(queries),
        bf16_pointer(keys),
        bf16_pointer(values),
        length,
        tokens,
        bf16_pointer(result),
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError
    return result


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """``gate`` = silu(gate) * up, in place; both of one shape."""
    if gate.shape != up.shape:
        raise ValueError(f"gate {tuple(gate.shape)} and up {tuple(up.shape)}")
    kernels.lib.gpt_silu_mul(
        bf16_pointer(gate), bf16_pointer(up), gate.numel(), torch.get_num_threads()
    )
    return gate


def dequantise(weight: QuantisedWeight, result: Tensor) -> Tensor:
    """Write ``weight`` (N, K) into ``result``, bf16 of the same shape."""
    if tuple(result.shape) != weight.shape:
        raise ValueError(f"{weight.shape} into {tuple(result.shape)}")
    kernels.lib.gpt_dequantise(matrix(weight), bf16_pointer(result), torch.get_num_threads())
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
    kernels.lib.gpt_quantise(bf16_pointer(weight), matrix(part), torch.get_num_threads())
    if not part.scales.isfinite().all():
        raise ValueError("the weights hold NaN or Inf")


def _fitting(x: Tensor, width: int) -> Tensor:
    if x.shape[-1] != width:
        raise ValueError(f"rows of {x.shape[-1]} for a matrix of {width}")
    return x
