"""The parts of a model load alone, check what they load, and check what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptnode.errors import ContextError, ModelFileError
from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.parts import load_blocks, load_embedding, load_head
from gptnode.model.weights import WeightIndex
from gptnode.span import Span
from tests.model.tiny import (
    CPU,
    load_parts,
    random_ids,
    random_reference,
    tensors_of,
    tiny_config,
    write_folder,
)

F32 = torch.float32
SPAN = Span(1, 3)


def opened(
    folder: Path, tensors: dict[str, Tensor] | None = None, **changes: Any
) -> tuple[WeightIndex, ModelConfig]:
    config = tiny_config(**changes)
    if tensors is None:
        tensors = tensors_of(random_reference(config))
    write_folder(folder, config, tensors)
    return WeightIndex.open(folder), ModelConfig.from_folder(folder)


def test_blocks_load_without_the_tensors_of_others(tmp_path: Path) -> None:
    tensors = tensors_of(random_reference(tiny_config()))
    mine = {name: tensor for name, tensor in tensors.items() if ".1." in name or ".2." in name}
    index, config = opened(tmp_path, mine)
    stack = load_blocks(index, config, SPAN, "f32", CPU)
    assert stack.span == SPAN
    weight = stack.blocks[1].self_attn.q_proj.weight
    assert torch.equal(weight, tensors["model.layers.2.self_attn.q_proj.weight"])


def test_a_block_lacking_a_tensor_is_named(tmp_path: Path) -> None:
    tensors = tensors_of(random_reference(tiny_config()))
    del tensors["model.layers.2.mlp.down_proj.weight"]
    index, config = opened(tmp_path, tensors)
    with pytest.raises(ModelFileError, match=r"tensor layers.2.mlp.down_proj.weight is missing"):
        load_blocks(index, config, SPAN, "f32", CPU)


def test_a_block_of_another_shape_is_named(tmp_path: Path) -> None:
    tensors = tensors_of(random_reference(tiny_config()))
    index, config = opened(tmp_path, tensors, intermediate_size=57)
    with pytest.raises(ModelFileError) as caught:
        load_blocks(index, config, SPAN, "f32", CPU)
    assert caught.value.detail == (
        f"{tmp_path / 'model.safetensors'}: tensor model.layers.1.mlp.gate_proj.weight has shape "
        "(56, 32), but config.json implies (57, 32)"
    )


def test_a_tensor_that_the_config_does_not_know_is_refused(tmp_path: Path) -> None:
    """A bias that config.json forgot would be left out, and the answers quietly wrong."""
    tensors = tensors_of(random_reference(tiny_config(attention_bias=True)))
    index, config = opened(tmp_path, tensors)
    with pytest.raises(ModelFileError, match=r"layers.1.self_attn.k_proj.bias has no place"):
        load_blocks(index, config, SPAN, "f32", CPU)


def test_rotations_that_old_checkpoints_hold_are_ignored(tmp_path: Path) -> None:
    tensors = tensors_of(random_reference(tiny_config()))
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    index, config = opened(tmp_path, tensors)
    load_blocks(index, config, SPAN, "f32", CPU)


def test_blocks_past_the_end_are_refused(tmp_path: Path) -> None:
    index, config = opened(tmp_path)
    with pytest.raises(ModelFileError, match="blocks 3-4 were asked for, but the model has 4"):
        load_blocks(index, config, Span(3, 5), F32, CPU)


@pytest.mark.parametrize("tie", [True, False])
def test_a_head_without_a_matrix_is_the_embedding(tie: bool, tmp_path: Path) -> None:
    tensors = tensors_of(random_reference(tiny_config(tie_word_embeddings=True)))
    index, config = opened(tmp_path, tensors, tie_word_embeddings=tie)
    embedding = load_embedding(index, config, "f32", CPU)
    alone = load_head(index, config, "f32", CPU)
    shared = load_head(index, config, "f32", CPU, tied=embedding)
    assert torch.equal(alone.weight, embedding.weight)
    assert shared.weight.data_ptr() == embedding.weight.data_ptr()


def test_a_matrix_beside_a_tied_head_is_ignored(tmp_path: Path) -> None:
    tensors = tensors_of(random_reference(tiny_config()))
    index, config = opened(tmp_path, tensors, tie_word_embeddings=True)
    head = load_head(index, config, "f32", CPU)
    assert torch.equal(head.weight, tensors["model.embed_tokens.weight"])


def test_an_untied_head_is_its_own_matrix_whatever_embedding_is_there(tmp_path: Path) -> None:
    index, config = opened(tmp_path)
    embedding = load_embedding(index, config, "f32", CPU)
    head = load_head(index, config, "f32", CPU, tied=embedding)
    assert not torch.equal(head.weight, embedding.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_f32_of_the_last_position(dtype: torch.dtype, tmp_path: Path) -> None:
    opened(tmp_path)
    parts = load_parts(tmp_path, dtype=dtype)
    hidden = parts.hidden(random_ids(5), parts.caches())
    logits = parts.head(hidden)
    assert (logits.dtype, tuple(logits.shape)) == (F32, (1, 97))
    assert torch.equal(logits, parts.head(hidden[:, -1:]))


@pytest.mark.parametrize("wrong", [-1, 97, 10**9])
def test_ids_outside_of_the_vocabulary_are_refused(wrong: int, tmp_path: Path) -> None:
    index, config = opened(tmp_path)
    embedding = load_embedding(index, config, "f32", CPU)
    with pytest.raises(ContextError, match=f"token {wrong} is outside of the vocabulary of 97"):
        embedding(torch.tensor([[3, wrong, 4]]))


def test_what_does_not_fit_the_stack_is_refused(tmp_path: Path) -> None:
    index, config = opened(tmp_path)
    stack = load_blocks(index, config, SPAN, "f32", CPU)
    cache = stack.new_cache(16)
    for wrong in (
        torch.zeros(1, 3, 31),
        torch.zeros(2, 3, 32),
        torch.zeros(1, 0, 32),
        torch.zeros(3, 32),
        torch.zeros(1, 3, 32, dtype=torch.bfloat16),
    ):
        with pytest.raises(ValueError, match="hidden states of"):
            stack(wrong, cache)
    with pytest.raises(ValueError, match="cache of blocks 0-1"):
        stack(torch.zeros(1, 3, 32), KVCache(config, Span(0, 2), 16, F32))
    with pytest.raises(ContextError, match="17 tokens don't fit in a context of 16"):
        stack(torch.zeros(1, 17, 32), cache)
    assert cache.length == 0


def test_rows_of_a_batch_are_computed_like_single_ones(tmp_path: Path) -> None:
    opened(tmp_path)
    parts = load_parts(tmp_path)
    stack, rows = parts.stacks[0], [random_ids(9, seed=seed) for seed in (1, 2, 3)]
    batch_cache = KVCache(parts.config, stack.span, 32, F32, batch=3)
    caches = [stack.new_cache(32) for _ in rows]
    for piece in (slice(0, 5), slice(5, 6), slice(6, 9)):
        together = stack(parts.embedding(torch.cat([row[:, piece] for row in rows])), batch_cache)
        alone = [
            stack(parts.embedding(row[:, piece]), cache)
            for row, cache in zip(rows, caches, strict=True)
        ]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_no_step_records_gradients(tmp_path: Path) -> None:
    opened(tmp_path)
    parts = load_parts(tmp_path)
    hidden = parts.hidden(random_ids(3), parts.caches())
    assert hidden.is_inference()
    assert parts.head(hidden).grad_fn is None
