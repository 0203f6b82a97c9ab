"""Tiny random Llamas in Hugging Face folders, and transformers' own answer for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from gptnode.model.config import ModelConfig
from gptnode.model.dtypes import dtype_name
from gptnode.model.kv_cache import KVCache
from gptnode.model.parts import load_blocks, load_embedding, load_head
from gptnode.model.shard import BlockStack, Embedding, Head
from gptnode.model.weights import WeightIndex
from gptnode.span import Span

CPU = torch.device("cpu")
N_BLOCKS = 4


def tiny_config(**changes: Any) -> dict[str, Any]:
    """A config.json of the new spelling; ``changes`` are its fields."""
    return {
        "model_type": "llama",
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": N_BLOCKS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": False,
        "dtype": "float32",
        **changes,
    }


def random_reference(config: dict[str, Any], seed: int = 0) -> LlamaForCausalLM:
    """transformers' model with random weights that keep activations and logits of order 1."""
    kept = {key: value for key, value in config.items() if key not in ("model_type", "dtype")}
    torch.manual_seed(seed)
    reference = LlamaForCausalLM(LlamaConfig(**kept)).eval()
    with torch.no_grad():
        for name, tensor in reference.named_parameters():
            if "norm" in name:
                tensor.copy_(1 + 0.2 * torch.randn_like(tensor))
            elif name.endswith("bias"):
                tensor.copy_(0.3 * torch.randn_like(tensor))
            elif "embed" in name:
                tensor.copy_(torch.randn_like(tensor))
            else:
                tensor.copy_(torch.randn_like(tensor) * 1.5 / tensor.shape[1] ** 0.5)
    return reference


def tensors_of(reference: LlamaForCausalLM) -> dict[str, Tensor]:
    """What a checkpoint of it holds: a tied head is not written."""
    tensors = {name: tensor.contiguous() for name, tensor in reference.state_dict().items()}
    if reference.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    return tensors


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_shards(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], n_shards: int
) -> Path:
    """config.json, an index and shards among which the tensors are dealt out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weight_map = {}
    names = sorted(tensors)
    for number in range(n_shards):
        shard = f"model-{number + 1:05d}-of-{n_shards:05d}.safetensors"
        mine = names[number::n_shards]
        save_file({name: tensors[name] for name in mine}, folder / shard)
        weight_map |= dict.fromkeys(mine, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@dataclass
class Parts:
    """A whole model from one folder, its blocks cut at ``cuts``."""

    config: ModelConfig
    index: WeightIndex
    embedding: Embedding
    stacks: list[BlockStack]
    head: Head

    def caches(self, max_tokens: int = 128) -> list[KVCache]:
        return [stack.new_cache(max_tokens) for stack in self.stacks]

    def hidden(self, ids: Tensor, caches: list[KVCache]) -> Tensor:
        """(1, T) ids through all blocks: (1, T, D)."""
        hidden = self.embedding(ids)
        for stack, cache in zip(self.stacks, caches, strict=True):
            hidden = stack(hidden, cache)
        return hidden

    def logits(self, ids: Tensor, caches: list[KVCache]) -> Tensor:
        """(1, V) of the last position."""
        return self.head(self.hidden(ids, caches))

    def all_logits(self, ids: Tensor, caches: list[KVCache]) -> Tensor:
        """(T, V), of every position of the step."""
        hidden = self.hidden(ids, caches)
        return torch.cat([self.head(hidden[:, : t + 1]) for t in range(ids.shape[1])])


def load_parts(
    folder: Path,
    cuts: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> Parts:
    """The model in ``folder``, cut before each block of ``cuts``."""
    config = ModelConfig.from_folder(folder)
    index = WeightIndex.open(folder)
    edges = [0, *cuts, config.n_blocks]
    name = dtype_name(dtype)
    embedding = load_embedding(index, config, name, device)
    return Parts(
        config,
        index,
        embedding,
        [
            load_blocks(index, config, Span(start, stop), name, device)
            for start, stop in pairwise(edges)
        ],
        load_head(index, config, name, device, tied=embedding),
    )


class Reference:
    """transformers, generating with a cache: ``logits`` goes on where it stopped."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)

    def logits(self, ids: Tensor) -> Tensor:
        """(1, T) -> (T, V) in f32, of every position."""
        with torch.no_grad():
            out = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True)
        return out.logits[0].float()


def random_ids(tokens: int, vocab_size: int = 97, seed: int = 1) -> Tensor:
    """(1, T)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (1, tokens), generator=generator)
