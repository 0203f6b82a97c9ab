"""A step in fixed memory gives what the ordinary path gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptnode.errors import ContextError
from gptnode.model.config import ModelConfig, RopeConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.native.blocks import NativeBlocks
from gptnode.model.parts import load_blocks
from gptnode.model.rope import Rope
from gptnode.model.shard import BlockStack
from gptnode.model.static_step import StaticStep, bucket_tokens, fixed_positions
from gptnode.model.weights import WeightIndex
from gptnode.span import Span
from tests.model.tiny import CPU, random_reference, tensors_of, tiny_config, write_folder

# Relative, of the norm. In bf16 either path is 1 to 2 % away from what f32 would give.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 3e-2}


@pytest.fixture
def torch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ordinary path of all devices, not that of the kernels, which round elsewhere."""
    monkeypatch.setattr(NativeBlocks, "supported", staticmethod(lambda *_: False))


def blocks_of(folder: Path, dtype_name: str = "f32", **changes: Any) -> BlockStack:
    """Two blocks of a tiny random Llama."""
    config = tiny_config(**changes)
    write_folder(folder, config, tensors_of(random_reference(config)))
    loaded = ModelConfig.from_folder(folder)
    return load_blocks(WeightIndex.open(folder), loaded, Span(1, 3), dtype_name, CPU)


def random_hidden(stack: BlockStack, tokens: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, tokens, stack.config.d_model, generator=generator).to(stack.dtype)


class Pair:
    """Two caches with the same tokens: one goes on in fixed memory, the other ordinarily."""

    def __init__(self, stack: BlockStack, max_tokens: int) -> None:
        self.stack = stack
        self.fixed, self.ordinary = (stack.new_cache(max_tokens) for _ in range(2))
        rope = Rope(stack.config.rope, stack.config.head_dim, CPU)
        self.step = StaticStep(stack.config, stack.blocks, rope, self.fixed, stack.dtype, CPU)

    def fill(self, length: int) -> None:
        """Both by the ordinary path."""
        hidden = random_hidden(self.stack, length - self.fixed.length, seed=length)
        self.stack(hidden, self.fixed)
        self.stack(hidden, self.ordinary)

    @torch.inference_mode()
    def decode(self) -> tuple[Tensor, Tensor]:
        """A token in both: (1, 1, D) from fixed memory, and the ordinary one."""
        position = self.fixed.length
        hidden = random_hidden(self.stack, 1, seed=position)
        self.fixed.wipe()
        self.fixed.claim(1)
        self.step.load(hidden, position)
        result = self.step.run(bucket_tokens(position + 1, self.fixed.max_tokens))
        self.fixed.advance(1)
        return result, self.stack(hidden, self.ordinary)

    def histories(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all blocks, as far as the contexts go."""

        def of(cache: KVCache) -> Tensor:
            return torch.stack([part[: cache.length] for pair in cache.regions() for part in pair])

        return of(self.fixed), of(self.ordinary)

    def agree(self) -> None:
        """Decode a token and compare it and the caches."""
        for ours, theirs in (self.decode(), self.histories()):
            distance = (ours.double() - theirs.double()).norm() / theirs.double().norm()
            assert float(distance) <= TOLERANCE[self.stack.dtype]


@pytest.mark.parametrize("dtype_name", ["f32", "bf16", "int8", "int4"])
def test_it_equals_the_ordinary_path_at_the_edges_of_every_bucket(
    dtype_name: str, torch_only: None, tmp_path: Path
) -> None:
    pair = Pair(blocks_of(tmp_path, dtype_name), max_tokens=1100)
    for length in (1, 254, 511, 1023, 1098):
        pair.fill(length)
        for _ in range(2):
            pair.agree()
    assert pair.fixed.length == 1100


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_it_equals_the_ordinary_path_for_all_heads_and_biases(
    kv_heads: int, biased: bool, torch_only: None, tmp_path: Path
) -> None:
    stack = blocks_of(
        tmp_path,
        num_key_value_heads=kv_heads,
        attention_bias=biased,
        mlp_bias=biased,
        head_dim=16,
    )
    pair = Pair(stack, max_tokens=300)
    pair.fill(255)
    for _ in range(3):
        pair.agree()


def test_it_equals_the_kernels_of_this_machine(tmp_path: Path) -> None:
    pair = Pair(blocks_of(tmp_path, "bf16"), max_tokens=64)
    pair.fill(40)
    for _ in range(3):
        pair.agree()


def test_the_first_token_of_a_context_needs_no_history(tmp_path: Path) -> None:
    Pair(blocks_of(tmp_path), max_tokens=5).agree()


def test_scaled_rotations_come_from_the_table_too(tmp_path: Path) -> None:
    rope = {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    pair = Pair(blocks_of(tmp_path, rope_parameters=rope), max_tokens=64)
    pair.fill(30)
    pair.agree()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_a_failed_step_left_behind_the_context_is_not_read(
    poison: float, tmp_path: Path
) -> None:
    stack = blocks_of(tmp_path)
    pair = Pair(stack, max_tokens=64)
    pair.fill(8)
    bad = torch.full((1, 20, stack.config.d_model), poison)
    stack(bad, pair.fixed)  # as a prompt whose numbers were refused afterwards
    pair.fixed.truncate(8)
    pair.agree()


def test_running_it_twice_changes_nothing(tmp_path: Path) -> None:
    pair = Pair(blocks_of(tmp_path), max_tokens=32)
    pair.fill(7)
    first, _ = pair.decode()
    with torch.inference_mode():
        assert torch.equal(pair.step.run(32), first)
    pair.agree()


@pytest.mark.parametrize(
    ("length", "max_tokens", "bucket"),
    [
        (1, 8192, 256),
        (256, 8192, 256),
        (257, 8192, 512),
        (4096, 8192, 4096),
        (4097, 8192, 8192),
        (4097, 5000, 5000),
        (10, 100, 100),
    ],
)
def test_a_bucket_is_a_power_of_two_that_the_cache_has(
    length: int, max_tokens: int, bucket: int
) -> None:
    assert bucket_tokens(length, max_tokens) == bucket


def test_a_bucket_holds_its_context_whatever_its_length() -> None:
    assert all(n <= bucket_tokens(n, 3000) <= max(256, 2 * n) for n in range(1, 3001))


@pytest.mark.parametrize("kind", ["default", "linear", "yarn", "llama3"])
def test_only_dynamic_scaling_has_rotations_that_change(kind: str) -> None:
    rope = RopeConfig(kind, original_max_positions=16)
    assert fixed_positions(rope, 64) == 64
    assert fixed_positions(replace(rope, kind="dynamic"), 64) == 16


def test_a_position_without_a_rotation_or_a_place_is_refused(tmp_path: Path) -> None:
    stack = blocks_of(tmp_path)
    step = Pair(stack, max_tokens=16).step
    for position in (-1, 16):
        with pytest.raises(ValueError, match=f"position {position} of 16"):
            step.load(random_hidden(stack, 1, 0), position)


def test_a_cache_of_several_rows_is_refused(tmp_path: Path) -> None:
    stack = blocks_of(tmp_path)
    cache = KVCache(stack.config, stack.span, 16, stack.dtype, batch=2)
    rope = Rope(stack.config.rope, stack.config.head_dim, CPU)
    with pytest.raises(ValueError, match="2 rows"):
        StaticStep(stack.config, stack.blocks, rope, cache, stack.dtype, CPU)


def test_a_full_cache_stops_it_before_it_writes(tmp_path: Path) -> None:
    pair = Pair(blocks_of(tmp_path), max_tokens=6)
    pair.fill(6)
    with pytest.raises(ContextError, match="7 tokens don't fit"):
        pair.decode()
