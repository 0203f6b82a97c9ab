"""The dtypes that gptnode computes in, under every name that files, options and torch give them.

One table, so that a new dtype is one line. ``int8`` and ``int4`` name the weights: activations and
caches are bf16 then. It knows nothing of how tensors are stored or sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch

__all__ = [
    "DTYPES",
    "FLOAT_DTYPES",
    "HF_DTYPES",
    "QUANTISED_BITS",
    "SAFETENSORS_DTYPES",
    "STORED_BITS",
    "STORED_DTYPES",
    "activation_name",
    "dtype_name",
]

FLOAT_DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
)
"""gptnode's name -> torch dtype of activations as they travel, and of weights that are floats."""

QUANTISED_BITS: Final[Mapping[str, int]] = MappingProxyType({"int8": 8, "int4": 4})
"""gptnode's name -> bits of a weight, for the dtypes that `gptnode.model.quantised` stores."""

DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {**FLOAT_DTYPES, **dict.fromkeys(QUANTISED_BITS, torch.bfloat16)}
)
"""gptnode's name -> torch dtype of activations and caches; also the names in the BlocksMap, in
options and in the protocol's Open."""

HF_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
)
"""The name in a Hugging Face config.json -> gptnode's name."""

SAFETENSORS_DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
)
"""The name in a safetensors header -> torch dtype, for weights that are floats."""

STORED_BITS: Final[Mapping[str, int]] = MappingProxyType({"I8": 8, "U8": 4})
"""The name in a safetensors header -> bits of a weight, for quantised matrices (U8: two a byte)."""

STORED_DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {**SAFETENSORS_DTYPES, "I8": torch.int8, "U8": torch.uint8}
)
"""The name in a safetensors header -> torch dtype, for all that a model folder may hold."""


def dtype_name(dtype: torch.dtype) -> str:
    """gptnode's name of ``dtype``.

    Raises:
        ValueError: gptnode doesn't compute in it.
    """
    for name, known in FLOAT_DTYPES.items():
        if known == dtype:
            return name
    raise ValueError(f"gptnode has no name for {dtype}")


def activation_name(name: str) -> str:
    """The name of the dtype of activations and caches under the dtype ``name`` of a model.

    Raises:
        KeyError: there is no such dtype.
    """
    return dtype_name(DTYPES[name])
