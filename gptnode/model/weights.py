"""A model folder's tensors: found by name, loaded one by one, told apart by a fingerprint.

Opening reads headers only. Loading maps each tensor that is asked for, and no other: its bytes
come from the page cache when they are first used, and in the file's own dtype they are never
copied. Knows files and names; what the tensors are for is the business of `gptnode.model.shard`.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from gptnode.errors import ModelFileError, UnsupportedModelError
from gptnode.model.config import ModelConfig
from gptnode.model.dtypes import SAFETENSORS_DTYPES
from gptnode.model.json_fields import JsonFields, read_json_object
from gptnode.model.safetensors_file import TensorEntry, read_safetensors_header

__all__ = ["WeightIndex"]

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"
SAMPLE_BYTES: Final = 64
NOT_COMPUTED: Final = frozenset({"bos_id", "eos_ids", "dtype", "max_positions", "vocab_size"})
"""Fields of ModelConfig that the fingerprint leaves out: text, or told by the tensors."""


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
    def open(cls, path: Path) -> WeightIndex:
        """Read the headers of the model in ``path``.

        Args:
            path: A folder with model.safetensors or model.safetensors.index.json and its shards,
                or one such file by any name.

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
                raise ModelFileError(f"{path}: neither {SINGLE_FILE} nor {INDEX_FILE} is there")
        listed, absent = (
            _read_index(path) if path.suffix == ".json" else (read_safetensors_header(path), {})
        )
        entries: dict[str, TensorEntry] = {}
        for entry in listed:
            name = entry.name.removeprefix("model.")
            if name in entries:
                raise ModelFileError(f"{entry.where} comes twice, with and without 'model.'")
            entries[name] = entry
        return cls(path, entries, absent)

    def __contains__(self, name: str) -> bool:
        """Whether the model has such a tensor, on this machine or not."""
        return name in self.entries or name in self.absent

    def names_under(self, prefix: str) -> tuple[str, ...]:
        """All names that begin with ``prefix``, sorted."""
        return tuple(sorted(name for name in self.entries if name.startswith(prefix)))

    def entry(self, name: str, shape: Iterable[int]) -> TensorEntry:
        """Where the tensor ``name`` lies, without touching it.

        Raises:
            ModelFileError: it is missing or has another shape than ``shape``.
            UnsupportedModelError: its dtype is none that weights may have.
        """
        found = self.entries.get(name)
        if name in self.absent:
            raise ModelFileError(f"{self.absent[name]}: no such file; tensor {name} is in it")
        if found is None:
            raise ModelFileError(f"{self.source}: tensor {name} is missing")
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
        return _map_tensor(self.entry(name, shape)).to(device=device, dtype=dtype)

    def fingerprint(self, config: ModelConfig) -> str:
        """32 hex digits that differ between models that would compute different numbers.

        Covers what the configuration makes the network compute, every tensor's name, dtype and
        shape, and three samples of its bytes; not how the tensors are spread over files, nor the
        dtype they are computed in. All shards have to be there. It tells models apart that were
        mixed up, it doesn't guard against forgery.

        Raises:
            ModelFileError: a file is missing, can't be read or is not what it was when opened.
        """
        for file in self.absent.values():
            raise ModelFileError(f"{file}: no such file; the fingerprint needs all of them")
        computed = {key: value for key, value in asdict(config).items() if key not in NOT_COMPUTED}
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps(computed, sort_keys=True).encode())
        by_file: dict[Path, list[TensorEntry]] = {}
        for entry in self.entries.values():
            by_file.setdefault(entry.file, []).append(entry)
        samples = {
            entry: sample
            for file, entries in by_file.items()
            for entry, sample in zip(entries, _sample(file, entries), strict=True)
        }
        for name, entry in sorted(self.entries.items()):
            digest.update(json.dumps([name, entry.dtype, entry.shape]).encode())
            digest.update(samples[entry])
        return digest.hexdigest()


def _read_index(path: Path) -> tuple[list[TensorEntry], dict[str, Path]]:
    """The tensors that an index of shards lists, and the files of those that aren't here.

    What else the shards hold is left out.
    """
    fields = JsonFields(read_json_object(path), str(path))
    weight_map = fields.raw("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelFileError(f"{fields.where('weight_map')} must be an object of tensor -> file")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".."):
            raise ModelFileError(
                f"{path}: tensor {name} must be in a file of the same folder, not {shard!r}"
            )
    present = {shard for shard in weight_map.values() if (path.parent / shard).exists()}
    found = {
        (shard, entry.name): entry
        for shard in sorted(present)
        for entry in read_safetensors_header(path.parent / shard)
    }
    here = [(shard, name) for name, shard in weight_map.items() if shard in present]
    for shard, name in here:
        if (shard, name) not in found:
            raise ModelFileError(f"{path.parent / shard}: tensor {name} is missing")
    absent = {
        name.removeprefix("model."): path.parent / shard
        for name, shard in weight_map.items()
        if shard not in present
    }
    return [found[each] for each in here], absent


def _map_tensor(entry: TensorEntry) -> Tensor:
    """The tensor as a mapping of just its own bytes, in its own dtype."""
    dtype = SAFETENSORS_DTYPES[entry.dtype]
    if entry.n_bytes == 0:
        return torch.empty(entry.shape, dtype=dtype)
    # Mappings begin at a page, tensors anywhere.
    before = entry.offset % mmap.ALLOCATIONGRANULARITY
    try:
        with entry.file.open("rb") as stream:
            pages = mmap.mmap(
                stream.fileno(),
                before + entry.n_bytes,
                access=mmap.ACCESS_COPY,
                offset=entry.offset - before,
            )
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{entry.where} can't be mapped ({error})") from error
    count = math.prod(entry.shape)
    if before % dtype.itemsize:
        # A header of odd length: kernels want elements to be aligned.
        aligned = bytearray(memoryview(pages)[before:])
        return torch.frombuffer(aligned, dtype=dtype, count=count).view(entry.shape)
    return torch.frombuffer(pages, dtype=dtype, count=count, offset=before).view(entry.shape)


def _sample(file: Path, entries: list[TensorEntry]) -> list[bytes]:
    """The first, middle and last bytes of each tensor, read without mapping the file."""
    samples = []
    try:
        with file.open("rb", buffering=0) as stream:
            for entry in entries:
                size = min(SAMPLE_BYTES, entry.n_bytes)
                parts = []
                for start in (0, (entry.n_bytes - size) // 2, entry.n_bytes - size):
                    stream.seek(entry.offset + start)
                    parts.append(stream.read(size))
                sample = b"".join(parts)
                if len(sample) != 3 * size:
                    raise ModelFileError(f"{entry.where} has become shorter")
                samples.append(sample)
    except OSError as error:
        raise ModelFileError(f"{file}: can't be read ({error})") from error
    return samples
