"""What tells models apart that were mixed up: a digest of configuration, headers and samples.

Knows where tensors lie; which files they were found in is the business of `gptnode.model.weights`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from gptnode.model.config import ModelConfig
from gptnode.model.mapping import sample_tensors
from gptnode.model.safetensors_file import TensorEntry

__all__ = ["fingerprint_of"]

NOT_COMPUTED: Final = frozenset({"bos_id", "eos_ids", "dtype", "max_positions", "vocab_size"})
"""Fields of ModelConfig that the fingerprint leaves out: text, or told by the tensors."""

DIGEST_BYTES: Final = 16


def fingerprint_of(config: ModelConfig, entries: Mapping[str, TensorEntry]) -> str:
    """32 hex digits that differ between models that would compute different numbers.

    Covers what the configuration makes the network compute, every tensor's name, dtype and shape,
    and three samples of its bytes; not how the tensors are spread over files, nor the dtype they
    are computed in. It doesn't guard against forgery.

    Args:
        config: Of the model.
        entries: All tensors of the model, by their names without a leading ``model.``.

    Raises:
        ModelFileError: a file can't be read or is not what it was when opened.
    """
    computed = {key: value for key, value in asdict(config).items() if key not in NOT_COMPUTED}
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(json.dumps(computed, sort_keys=True).encode())
    by_file: dict[Path, list[TensorEntry]] = {}
    for entry in entries.values():
        by_file.setdefault(entry.file, []).append(entry)
    samples = {
        entry: sample
        for file, listed in by_file.items()
        for entry, sample in zip(listed, sample_tensors(file, listed), strict=True)
    }
    for name, entry in sorted(entries.items()):
        digest.update(json.dumps([name, entry.dtype, entry.shape]).encode())
        digest.update(samples[entry])
    return digest.hexdigest()
