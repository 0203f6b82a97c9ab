"""From the paths of a model's files to a model whose parts can be loaded one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gptnode.errors import MapError, MismatchError, ModelFileError, UsageError
from gptnode.model.config import ModelConfig
from gptnode.model.dtypes import DTYPES, QUANTISED_BITS, activation_name
from gptnode.model.parts import load_blocks, load_embedding, load_head
from gptnode.model.shard import BlockStack, Embedding, Head
from gptnode.model.weights import WeightIndex
from gptnode.routing.blocks_map import BlocksMap
from gptnode.routing.entries import ModelEntry, ModelPaths
from gptnode.span import Span

__all__ = [
    "ModelKey",
    "ModelSource",
    "folder_paths",
    "open_device",
    "open_entry",
    "open_model",
    "with_activations",
]


@dataclass(frozen=True, slots=True)
class ModelKey:
    """What has to be the same on all nodes that compute one answer together.

    ``scaled``: whether a client has activations travel in 8 bit, with a scale for each row.
    """

    name: str
    fingerprint: str
    dtype_name: str
    d_model: int
    vocab_size: int
    scaled: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations and caches; of weights too, unless they are quantised."""
        return DTYPES[self.dtype_name]

    @property
    def activation_name(self) -> str:
        """The name of ``dtype``: what tensors between nodes are in."""
        return activation_name(self.dtype_name)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model folder that was opened: its headers are read, its weights are not."""

    key: ModelKey
    paths: ModelPaths
    config: ModelConfig
    index: WeightIndex
    device: torch.device

    def load_embedding(self) -> Embedding:
        """Token ids (B, T) -> (B, T, D)."""
        return load_embedding(self.index, self.config, self.key.dtype_name, self.device)

    def load_blocks(self, span: Span) -> BlockStack:
        """The blocks of ``span`` and no others."""
        return load_blocks(self.index, self.config, span, self.key.dtype_name, self.device)

    def load_head(self, embedding: Embedding | None) -> Head:
        """(B, T, D) -> logits (B, V) of the last position; shares an ``embedding`` that is tied."""
        return load_head(self.index, self.config, self.key.dtype_name, self.device, tied=embedding)


def open_device(name: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UsageError: torch doesn't know it or this machine doesn't have it.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"no device {name!r} on this machine") from error
    return device


def folder_paths(folder: Path) -> ModelPaths:
    """Where a folder in Hugging Face form has its files."""
    return ModelPaths(folder, None, folder / "config.json", folder / "tokenizer.json")


def open_entry(
    entry: ModelEntry,
    blocks_map: BlocksMap,
    model_dir: Path | None,
    *,
    dtype: str | None,
    device: str,
) -> ModelSource:
    """The model of the map, in ``model_dir`` or else the folder that the map names.

    Raises:
        MapError: nobody names a folder.
        GptNodeError: see `open_model`.
    """
    paths = folder_paths(model_dir) if model_dir is not None else blocks_map.model_paths(entry.name)
    if paths is None:
        raise MapError(f"the model {entry.name!r} has no path: add one, or give --model-dir")
    ends = blocks_map.ends(entry.name)
    return open_model(
        entry.name,
        paths,
        dtype or entry.dtype,
        open_device(device),
        fingerprint=entry.fingerprint,
        may_lack_weights=ends.embed and ends.head,
    )


def open_model(
    name: str,
    paths: ModelPaths,
    dtype_name: str | None,
    device: torch.device,
    *,
    fingerprint: str | None = None,
    may_lack_weights: bool = False,
) -> ModelSource:
    """Read the configuration and the tensor headers of a model.

    Args:
        name: What the swarm calls it.
        paths: Its files.
        dtype_name: ``bf16``, ``f16``, ``f32``, ``int8`` or ``int4``; the one the files were written
            in when None, which is the only one for files that are quantised.
        device: Where its parts will be loaded.
        fingerprint: The one that the map names. Files that are all there are checked against it;
            without it, they all have to be there.
        may_lack_weights: Whether a folder without weights is one whose model others compute.

    Raises:
        MismatchError: the files are not those that the map means.
        ModelError: a file is missing or damaged, or the architecture isn't supported.
    """
    if not paths.folder.is_dir():
        raise ModelFileError(f"{paths.folder}: no such model folder")
    config = ModelConfig.from_file(paths.config)
    index = WeightIndex.open(paths.weights or paths.folder, may_lack=may_lack_weights)
    if dtype_name is not None and dtype_name not in DTYPES:
        raise UsageError(f"no dtype {dtype_name!r}; there are {', '.join(DTYPES)}")
    if dtype_name not in (None, config.dtype) and config.dtype in QUANTISED_BITS:
        raise UsageError(
            f"{paths.folder} is quantised to {config.dtype} and can't be computed in {dtype_name}; "
            f"leave the dtype out, or take the model it was made from"
        )
    index.check_stored(config.dtype)
    known = _fingerprint(index, config, fingerprint)
    dtype_name = dtype_name or config.dtype
    key = ModelKey(name, known, dtype_name, config.d_model, config.vocab_size)
    return ModelSource(key, paths, config, index, device)


def with_activations(source: ModelSource, form: str | None) -> ModelSource:
    """``source`` for a client whose activations travel as ``int8``, or else as ``bf16``.

    Raises:
        UsageError: they are others, and travel as they are; with None all may be.
    """
    if form is not None and source.key.activation_name != "bf16":
        own = source.key.activation_name
        raise UsageError(
            f"the activations of {source.key.name} are {own} and travel so: leave --activations "
            "out, or compute in bf16, int8 or int4"
        )
    return replace(source, key=replace(source.key, scaled=form == "int8"))


def _fingerprint(index: WeightIndex, config: ModelConfig, stated: str | None) -> str:
    """The fingerprint of the files, or what the map states where some of them aren't here."""
    if index.empty:
        if stated is not None:
            return stated
        raise MapError(
            f"{index.source} has no weights, so the BlocksMap has to say which are meant: add the "
            'model\'s "fingerprint", as `gptnode fingerprint DIR` prints it where they are'
        )
    if index.absent:
        if stated is not None:
            return stated
        file = next(iter(index.absent.values()))
        raise ModelFileError(
            f"{file}: no such file; a node with some of the files only needs the model's "
            '"fingerprint" in the BlocksMap (`gptnode fingerprint DIR` where all of them are)'
        )
    found = index.fingerprint(config)
    if stated is not None and stated != found:
        raise MismatchError(f"{index.source} has the fingerprint {found}, the BlocksMap {stated}")
    return found
