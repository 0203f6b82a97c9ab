"""The dtypes that gptnode computes in, under every name that files, options and torch give them.

One table, so that a new dtype is one line. It knows nothing of how tensors are stored or sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch

__all__ = ["DTYPES", "HF_DTYPES", "SAFETENSORS_DTYPES", "dtype_name"]

DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
)
"""gptnode's name -> torch dtype; also the names in the BlocksMap, in options and on the wire."""

HF_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
)
"""The name in a Hugging Face config.json -> gptnode's name."""

SAFETENSORS_DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
)
"""The name in a safetensors header -> torch dtype, for those that weights may have."""


def dtype_name(dtype: torch.dtype) -> str:
    """gptnode's name of ``dtype``.

    Raises:
        ValueError: gptnode doesn't compute in it.
    """
    for name, known in DTYPES.items():
        if known == dtype:
            return name
    raise ValueError(f"gptnode has no name for {dtype}")
