"""A model folder's tensors: found by name, loaded one by one, told apart by a fingerprint.

Opening reads headers only. Loading maps each tensor that is asked for, and no other: its bytes
come from the page cache when they are first used, and in the file's own dtype they are never
copied. Knows files and names; what the tensors are for is the business of `gptnode.model.shard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from gptnode.errors import ModelFileError, UnsupportedModelError
from gptnode.model.config import ModelConfig
from gptnode.model.dtypes import DTYPES, QUANTISED_BITS, SAFETENSORS_DTYPES, STORED_BITS
from gptnode.model.fingerprint import fingerprint_of
from gptnode.model.mapping import map_tensor, row_slices
from gptnode.model.native import binding as native
from gptnode.model.quantised import (
    QuantisedWeight,
    empty_quantised,
    group_size,
    padded_width,
    quantise_into,
)
from gptnode.model.safetensors_file import TensorEntry, read_safetensors_header
from gptnode.model.shard_index import read_shard_index

__all__ = ["SCALE_SUFFIX", "WeightIndex", "matrix_bits"]

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

SCALE_SUFFIX: Final = "_scale"
"""The scales of the quantised matrix X lie in a tensor of the name X with this behind it."""

ALWAYS_8_BIT: Final = ("embed_tokens.weight", "lm_head.weight")
"""A few wrong tokens cost more than these two matrices in 4 bit would save."""


class WeightIndex:
    """The tensors of one model, whatever files they lie in.

    ``entries`` maps names without a leading ``model.`` (``layers.0.mlp.up_proj.weight``,
    ``lm_head.weight``) to where the tensor lies: checkpoints come with and without it. ``absent``
    maps those whose shard isn't on this machine to the file that they would be in: a node needs
    the shards of its own tensors alone.

    Resource handling: no file is kept open; a loaded tensor keeps its own mapping. A file that
    is overwritten in place while a tensor of it is mapped changes that tensor, and one that is
    truncated ends the process: replace model files by renaming.
    """

    def __init__(
        self, source: Path, entries: Mapping[str, TensorEntry], absent: Mapping[str, Path]
    ) -> None:
        """Use ``open``; ``source`` is what errors name."""
        self.source = source
        self.entries: Mapping[str, TensorEntry] = MappingProxyType(dict(entries))
        self.absent: Mapping[str, Path] = MappingProxyType(dict(absent))

    @classmethod
    def open(cls, path: Path, *, may_lack: bool = False) -> WeightIndex:
        """Read the headers of the model in ``path``.

        Args:
            path: A folder with model.safetensors or model.safetensors.index.json and its shards,
                or one such file by any name.
            may_lack: Whether a folder with neither is one without weights.

        Raises:
            ModelFileError: a file is missing or damaged; the error names file and tensor.
        """
        if path.is_dir():
            single, index = path / SINGLE_FILE, path / INDEX_FILE
            if single.exists():
                path = single
            elif index.exists():
                path = index
            else:
                if may_lack:
                    return cls(path, {}, {})
                raise ModelFileError(f"{path}: neither {SINGLE_FILE} nor {INDEX_FILE} is there")
        listed, absent = (
            read_shard_index(path)
            if path.suffix == ".json"
            else (read_safetensors_header(path), {})
        )
        entries: dict[str, TensorEntry] = {}
        for entry in listed:
            name = entry.name.removeprefix("model.")
            if name in entries:
                raise ModelFileError(f"{entry.where} comes twice, with and without 'model.'")
            entries[name] = entry
        return cls(path, entries, absent)

    @property
    def empty(self) -> bool:
        """Whether there are no weights at all."""
        return not self.entries and not self.absent

    def __contains__(self, name: str) -> bool:
        """Whether the model has such a tensor, on this machine or not."""
        return name in self.entries or name in self.absent

    def names_under(self, prefix: str) -> tuple[str, ...]:
        """All names that begin with ``prefix``, sorted; scales go with their matrix's name."""
        return tuple(
            sorted(
                name
                for name in self.entries
                if name.startswith(prefix) and not self._is_scale(name)
            )
        )

    def entry(self, name: str, shape: Iterable[int]) -> TensorEntry:
        """Where the tensor of floats ``name`` lies, without touching it.

        Raises:
            ModelFileError: it is missing or has another shape than ``shape``.
            UnsupportedModelError: its dtype is none that floats may have.
        """
        found = self._found(name)
        if found.shape != tuple(shape):
            raise ModelFileError(
                f"{found.where} has shape {found.shape}, but config.json implies {tuple(shape)}"
            )
        if found.dtype not in SAFETENSORS_DTYPES:
            raise UnsupportedModelError(
                f"{found.where} is {found.dtype}; supported are {', '.join(SAFETENSORS_DTYPES)}"
            )
        return found

    def load(
        self, name: str, shape: Iterable[int], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """One tensor of ``dtype`` on ``device``.

        On the CPU and in the file's own dtype it is a mapping of the file; writing to it would
        change this process's copy alone. Else it is converted, and the source's pages let go.

        Raises:
            ModelFileError: it is missing, has another shape than ``shape``, or can't be read.
            UnsupportedModelError: its dtype is none that weights may have.
        """
        return map_tensor(self.entry(name, shape)).to(device=device, dtype=dtype)

    def matrix_entries(
        self, name: str, shape: tuple[int, int]
    ) -> tuple[TensorEntry, TensorEntry | None]:
        """Where the matrix ``name`` lies, and its scales if it is quantised, without touching them.

        Args:
            name: Of the matrix.
            shape: (N, K) as the network has it, without padding.

        Raises:
            ModelFileError: one is missing, or has another shape or dtype than such a matrix has.
            UnsupportedModelError: its dtype is none that weights may have.
        """
        found = self._found(name)
        bits = STORED_BITS.get(found.dtype)
        if bits is None:
            found = self.entry(name, shape)
            if name + SCALE_SUFFIX in self:
                raise ModelFileError(f"{found.where} is {found.dtype}, but scales for it are there")
            return found, None
        scales = self._found(name + SCALE_SUFFIX)
        rows, width = shape[0], padded_width(shape[1])
        due = (rows, width * bits // 8), (rows, width // group_size(bits))
        for entry, wanted in zip((found, scales), due, strict=True):
            if entry.shape != wanted:
                raise ModelFileError(
                    f"{entry.where} has shape {entry.shape}, but a matrix of {shape} in {bits} bit "
                    f"implies {wanted}"
                )
        if scales.dtype != "BF16":
            raise ModelFileError(f"{scales.where} is {scales.dtype}, but scales are BF16")
        return found, scales

    def load_matrix(
        self, name: str, shape: tuple[int, int], dtype_name: str, device: torch.device
    ) -> Tensor | QuantisedWeight:
        """The matrix ``name`` on ``device`` as the dtype ``dtype_name`` of a model has it.

        On the CPU, and as the file has it, it is a mapping. Floats are quantised on the way where
        ``dtype_name`` asks for that: a part at a time, so that no more than the result and 32 MiB
        of the file are in memory.

        Args:
            name: Of the matrix.
            shape: (N, K) as the network has it.
            dtype_name: ``bf16``, ``f16``, ``f32``, ``int8`` or ``int4``; see `matrix_bits`.
            device: Where it is needed.

        Returns:
            A tensor (N, K) for the first three, else a QuantisedWeight of this shape.

        Raises:
            ModelFileError: a tensor is missing, damaged, or not what such a matrix has.
            UnsupportedModelError: the file holds integers that ``dtype_name`` doesn't mean.
        """
        bits = matrix_bits(name, dtype_name)
        entry, scales = self.matrix_entries(name, shape)
        if scales is not None:
            if STORED_BITS[entry.dtype] != bits:
                raise UnsupportedModelError(f"{_stored_as(entry)}, not {dtype_name}")
            return QuantisedWeight(map_tensor(entry), map_tensor(scales), shape).to(device)
        if bits is None:
            return map_tensor(entry).to(device=device, dtype=DTYPES[dtype_name])
        result = empty_quantised(shape, bits, torch.device("cpu"))
        for first, part in row_slices(entry):
            try:
                weight = map_tensor(part)
                write = native.quantise_into if native.usable(weight) else quantise_into
                write(weight, result, first)
            except ValueError as error:
                raise ModelFileError(f"{entry.where} can't be quantised: {error}") from error
        return result.to(device)

    def check_stored(self, dtype_name: str) -> None:
        """Whether the tensors that are here are stored as config.json says, by their headers.

        Args:
            dtype_name: ``ModelConfig.dtype``: what config.json says.

        Raises:
            ModelFileError: a matrix is floats where it should be quantised, or the reverse.
        """
        for name, entry in self.entries.items():
            bits, stored = matrix_bits(name, dtype_name), STORED_BITS.get(entry.dtype)
            if bits != stored:
                said = f"in {bits} bit" if bits is not None else f"in {dtype_name}"
                raise ModelFileError(f"{_stored_as(entry)}, but config.json says that it is {said}")

    def fingerprint(self, config: ModelConfig) -> str:
        """32 hex digits that tell this model from others, see `fingerprint_of`.

        Raises:
            ModelFileError: a file is missing, can't be read or is not what it was when opened.
        """
        for file in self.absent.values():
            raise ModelFileError(f"{file}: no such file; the fingerprint needs all of them")
        return fingerprint_of(config, self.entries)

    def _found(self, name: str) -> TensorEntry:
        """Where a tensor lies, whatever it is; ModelFileError if it isn't here."""
        if name in self.absent:
            raise ModelFileError(f"{self.absent[name]}: no such file; tensor {name} is in it")
        if self.empty:
            raise ModelFileError(
                f"{self.source}: no weights are here, and tensor {name} is needed: put "
                f"{SINGLE_FILE} or {INDEX_FILE} and its files there"
            )
        if name not in self.entries:
            raise ModelFileError(f"{self.source}: tensor {name} is missing")
        return self.entries[name]

    def _is_scale(self, name: str) -> bool:
        """Whether it belongs to a quantised matrix of this model."""
        matrix = self.entries.get(name.removesuffix(SCALE_SUFFIX))
        return name.endswith(SCALE_SUFFIX) and matrix is not None and matrix.dtype in STORED_BITS


def matrix_bits(name: str, dtype_name: str) -> int | None:
    """In how many bits the tensor ``name`` (without ``model.``) is kept in a model of a dtype.

    None where it stays floats: all of ``bf16``, ``f16`` and ``f32``, and vectors (norms and
    biases, in bf16) of ``int8`` and ``int4``. Embedding and output matrix have 8 bit in both.
    """
    if dtype_name not in QUANTISED_BITS:
        return None
    if name in ALWAYS_8_BIT:
        return 8
    is_projection = name.startswith("layers.") and name.endswith("_proj.weight")
    return QUANTISED_BITS[dtype_name] if is_projection else None


def _stored_as(entry: TensorEntry) -> str:
    """The tensor and what it holds, as errors begin."""
    bits = STORED_BITS.get(entry.dtype)
    return f"{entry.where} is {entry.dtype}" + (f" ({bits} bit)" if bits is not None else "")
