"""Loads the parts of a model, each alone: no tensor of another part is touched.

Names and shapes are checked before the first tensor is mapped. Knows what a Llama checkpoint calls
its tensors; not what the parts do with them.
"""

from __future__ import annotations

import torch

from gptnode.errors import ModelFileError
from gptnode.model.config import ModelConfig
from gptnode.model.dtypes import DTYPES
from gptnode.model.layers import Block, RMSNorm, block_shapes
from gptnode.model.shard import BlockStack, Embedding, Head
from gptnode.model.weights import WeightIndex
from gptnode.span import Span

__all__ = ["load_blocks", "load_embedding", "load_head"]

EMBEDDING = "embed_tokens.weight"
NORM = "norm.weight"
HEAD = "lm_head.weight"


def load_embedding(
    index: WeightIndex, config: ModelConfig, dtype_name: str, device: torch.device
) -> Embedding:
    """The embedding of the model.

    Raises:
        ModelError: the tensor is missing or not what config.json implies.
    """
    shape = (config.vocab_size, config.d_model)
    return Embedding(index.load_matrix(EMBEDDING, shape, dtype_name, device))


def load_blocks(
    index: WeightIndex, config: ModelConfig, span: Span, dtype_name: str, device: torch.device
) -> BlockStack:
    """The blocks of ``span``; no other tensor is touched.

    Raises:
        ModelError: a tensor is missing, not what config.json implies, or unknown to a Llama.
    """
    if span.stop > config.n_blocks:
        raise ModelFileError(
            f"{index.source}: blocks {span} were asked for, but the model has {config.n_blocks}"
        )
    blocks = [_load_block(index, config, number, dtype_name, device) for number in span]
    return BlockStack(config, span, blocks, DTYPES[dtype_name], device)


def load_head(
    index: WeightIndex,
    config: ModelConfig,
    dtype_name: str,
    device: torch.device,
    *,
    tied: Embedding | None = None,
) -> Head:
    """The final norm and the output matrix, which is the embedding's where the model ties them.

    Args:
        index: The model's tensors.
        config: The model's configuration.
        dtype_name: Of the weights.
        device: Of the weights.
        tied: The model's embedding if it is loaded too: a tied head then shares its memory.

    Raises:
        ModelError: a tensor is missing or not what config.json implies.
    """
    dtype = DTYPES[dtype_name]
    norm = RMSNorm(index.load(NORM, (config.d_model,), dtype, device), config.norm_eps)
    is_tied = config.tie_embeddings or HEAD not in index
    if is_tied and tied is not None:
        return Head(norm, tied.weight, tied=True)
    name = EMBEDDING if is_tied else HEAD
    shape = (config.vocab_size, config.d_model)
    return Head(norm, index.load_matrix(name, shape, dtype_name, device))


def _load_block(
    index: WeightIndex, config: ModelConfig, number: int, dtype_name: str, device: torch.device
) -> Block:
    prefix = f"layers.{number}."
    shapes = block_shapes(config)
    matrices = {name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}
    vectors = {name: shape for name, shape in shapes.items() if len(shape) == 1}
    known = {*shapes, *(f"{name}_scale" for name in matrices), "self_attn.rotary_emb.inv_freq"}
    # A tensor that the config doesn't know of (a bias, a scale) would be silently left out.
    for name in index.names_under(prefix):
        if name.removeprefix(prefix) not in known:
            raise ModelFileError(
                f"{index.entries[name].where} has no place in the network of config.json"
            )
    # All of them are looked for before the first is loaded.
    for local, size in matrices.items():
        index.matrix_entries(prefix + local, size)
    for local, length in vectors.items():
        index.entry(prefix + local, length)
    dtype = DTYPES[dtype_name]
    return Block.of(
        config,
        {n: index.load_matrix(prefix + n, s, dtype_name, device) for n, s in matrices.items()},
        {n: index.load(prefix + n, s, dtype, device) for n, s in vectors.items()},
    )
