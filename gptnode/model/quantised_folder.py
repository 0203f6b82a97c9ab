"""A model folder written again with quantised matrices, so that nodes map it as it is.

What the matrices are like stands in `gptnode.model.quantised`; each shard becomes one of the same
name. Only one tensor is in memory at a time, and the new folder appears under its name when it is
complete.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from gptnode.errors import ModelFileError, UsageError
from gptnode.model.config import CONFIG_FILE, QUANT_METHOD, QUANT_VERSION, ModelConfig
from gptnode.model.dtypes import QUANTISED_BITS
from gptnode.model.json_fields import read_json_object
from gptnode.model.quantised import QuantisedWeight, group_size, padded_width
from gptnode.model.safetensors_file import TensorEntry
from gptnode.model.safetensors_writer import SafetensorsWriter, plan_file
from gptnode.model.weights import INDEX_FILE, SCALE_SUFFIX, WeightIndex, matrix_bits

__all__ = ["QuantisedFolder", "quantise_folder"]

CPU: Final = torch.device("cpu")
NOT_COPIED: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
"""Endings of files with weights; all others of the folder are small and belong to the model."""

NOT_LOADED: Final = "rotary_emb.inv_freq"
"""Old checkpoints hold the rotations' frequencies, which are told by the configuration."""


@dataclass(frozen=True, slots=True)
class QuantisedFolder:
    """What `quantise_folder` did. Sizes are those of the weights' files."""

    folder: Path
    dtype_name: str
    fingerprint: str
    source_fingerprint: str
    n_tensors: int
    n_quantised: int
    source_bytes: int
    n_bytes: int


def quantise_folder(
    source: Path,
    target: Path,
    dtype_name: str,
    report: Callable[[int, int], None],
    *,
    replace: bool = False,
) -> QuantisedFolder:
    """Write the model of ``source`` as ``target``, its matrices quantised.

    Tokenizer, chat template and what else lies there besides weights is copied. Norms and biases
    become bf16.

    Args:
        source: A Hugging Face folder with all of its shards, in bf16, f16 or f32.
        target: The folder to be written; its parents are made.
        dtype_name: ``int8`` or ``int4``.
        report: Called after each tensor with the bytes of the source that are done, and all bytes.
        replace: Whether ``target`` may be a model folder that is to be replaced.

    Raises:
        ModelError: a file of the source is missing, damaged or of an unsupported model.
        UsageError: the source is quantised already, or the target is in the way or can't be
            written. It is as it was then, after every other error too.
    """
    _check_target(source, target, replace=replace)
    config = ModelConfig.from_folder(source)
    if config.dtype in QUANTISED_BITS:
        raise UsageError(f"{source} is quantised already, to {config.dtype}")
    index = WeightIndex.open(source)
    source_fingerprint = index.fingerprint(config)
    try:
        with _new_folder(target.resolve()) as folder:
            shards = _plan(index, dtype_name, folder)
            _check_room(folder, sum(shard.n_bytes for shard in shards))
            _write_shards(index, dtype_name, shards, report)
            if index.source.name == INDEX_FILE:
                _write_index(folder, shards)
            _write_config(source, folder, dtype_name)
            _copy_others(source, folder)
            written = WeightIndex.open(folder)
            written.check_stored(dtype_name)
            fingerprint = written.fingerprint(ModelConfig.from_folder(folder))
    except OSError as error:
        raise UsageError(f"{target} can't be written ({error})") from error
    return QuantisedFolder(
        folder=target,
        dtype_name=dtype_name,
        fingerprint=fingerprint,
        source_fingerprint=source_fingerprint,
        n_tensors=sum(len(shard.names) for shard in shards),
        n_quantised=sum(len(shard.entries) - len(shard.names) for shard in shards),
        source_bytes=sum(entry.n_bytes for entry in index.entries.values()),
        n_bytes=sum(shard.n_bytes for shard in shards),
    )


def _check_target(source: Path, target: Path, *, replace: bool) -> None:
    """UsageError if ``target`` is in the way, or isn't one that may be replaced."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"{target} is a file")
    if source.resolve().is_relative_to(target.resolve()):
        raise UsageError(f"{target} holds the model itself; write to another folder")
    if any(target.iterdir()):
        if not replace:
            raise UsageError(f"{target} is not empty; --force replaces it")
        if not (target / CONFIG_FILE).is_file():
            raise UsageError(f"{target} is no model folder, so it is not replaced")


@dataclass(frozen=True, slots=True)
class _Shard:
    """One file to write: the tensors that go into it (``names``, without ``model.``) and where."""

    names: tuple[str, ...]
    entries: tuple[TensorEntry, ...]
    header: bytes

    @property
    def n_bytes(self) -> int:
        return sum(entry.n_bytes for entry in self.entries)


def _plan(index: WeightIndex, dtype_name: str, folder: Path) -> list[_Shard]:
    """The shards of the new folder; all tensors of the old one are checked by their headers."""
    by_file: dict[Path, list[str]] = {}
    for name, entry in index.entries.items():
        if not name.endswith(NOT_LOADED):
            by_file.setdefault(entry.file, []).append(name)
    shards = []
    for file, names in by_file.items():
        values, scales, floats = [], [], []
        for name in names:
            entry = index.entries[name]
            bits = matrix_bits(name, dtype_name)
            if bits is None:
                floats.append((entry.name, "BF16", index.entry(name, entry.shape).shape))
                continue
            rows, width = _matrix_shape(entry)
            index.matrix_entries(name, (rows, width))
            padded = padded_width(width)
            stored = "I8" if bits == 8 else "U8"
            values.append((entry.name, stored, (rows, padded * bits // 8)))
            scales.append((entry.name + SCALE_SUFFIX, "BF16", (rows, padded // group_size(bits))))
        # Rows of values are a multiple of 64 bytes: first in the file, they all begin at one.
        entries, header = plan_file(folder / file.name, [*values, *scales, *floats])
        shards.append(_Shard(tuple(names), entries, header))
    return shards


def _matrix_shape(entry: TensorEntry) -> tuple[int, int]:
    if len(entry.shape) != 2:
        raise ModelFileError(f"{entry.where} has shape {entry.shape}; a matrix was expected")
    return entry.shape[0], entry.shape[1]


def _write_shards(
    index: WeightIndex, dtype_name: str, shards: list[_Shard], report: Callable[[int, int], None]
) -> None:
    total = sum(index.entries[name].n_bytes for shard in shards for name in shard.names)
    done = 0
    report(done, total)
    for shard in shards:
        with SafetensorsWriter(shard.entries, shard.header) as writer:
            for name in shard.names:
                entry = index.entries[name]
                if matrix_bits(name, dtype_name) is None:
                    writer.write(entry.name, index.load(name, entry.shape, torch.bfloat16, CPU))
                else:
                    matrix = index.load_matrix(name, _matrix_shape(entry), dtype_name, CPU)
                    if not isinstance(matrix, QuantisedWeight):
                        raise TypeError(f"{entry.where} was not quantised")
                    writer.write(entry.name, matrix.values)
                    writer.write(entry.name + SCALE_SUFFIX, matrix.scales)
                done += entry.n_bytes
                report(done, total)


def _write_index(folder: Path, shards: list[_Shard]) -> None:
    weight_map = {entry.name: entry.file.name for shard in shards for entry in shard.entries}
    total = sum(shard.n_bytes for shard in shards)
    _write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_config(source: Path, folder: Path, dtype_name: str) -> None:
    """The source's config.json, which says what the tensors are now."""
    config = dict(read_json_object(source / CONFIG_FILE))
    config["dtype" if "dtype" in config else "torch_dtype"] = "bfloat16"
    config["quantization_config"] = {
        "quant_method": QUANT_METHOD,
        "bits": QUANTISED_BITS[dtype_name],
        "version": QUANT_VERSION,
    }
    _write_json(folder / CONFIG_FILE, config)


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy_others(source: Path, folder: Path) -> None:
    """Tokenizer, chat template, generation settings, licence: all but weights and config.json."""
    for file in sorted(source.iterdir()):
        own = file.name in (CONFIG_FILE, INDEX_FILE) or file.name.startswith(".")
        weights = file.suffix in NOT_COPIED or file.name.endswith(".index.json")
        if file.is_file() and not own and not weights:
            shutil.copyfile(file, folder / file.name)


def _check_room(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise UsageError(
            f"{folder.parent} has {free / 1e9:.2f} GB free, but the quantised model takes "
            f"{n_bytes / 1e9:.2f} GB"
        )


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place in the end; after an error it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    folder = target.with_name(f".{target.name}.{mark}.new")
    folder.mkdir()
    try:
        yield folder
        if target.exists():
            old = target.with_name(f".{target.name}.{mark}.old")
            target.rename(old)
            try:
                folder.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old)
        else:
            folder.rename(target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
