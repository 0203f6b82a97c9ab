"""Our logits against transformers' on tiny random models, for every architecture we claim."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.tiny import (
    Reference,
    load_parts,
    random_ids,
    random_reference,
    tensors_of,
    tiny_config,
    write_folder,
)

MAX_ABS = 1e-4


def rope(kind: str, **fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **fields}}


ROPES = {
    "default": rope("default"),
    "large-theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    "linear": rope("linear", factor=4.0),
    "dynamic": rope("dynamic", factor=2.0),
    "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=16),
    "yarn-attention-factor": rope(
        "yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.3
    ),
    "yarn-mscale": rope(
        "yarn",
        factor=4.0,
        original_max_position_embeddings=16,
        mscale=1.2,
        mscale_all_dim=0.7,
    ),
    "yarn-betas-untruncated": rope(
        "yarn",
        factor=4.0,
        original_max_position_embeddings=40,
        beta_fast=4.0,
        beta_slow=0.5,
        truncate=False,
    ),
    "llama3": rope(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=32,
    ),
}
SHAPES = {
    "multi-head": {"num_key_value_heads": 4},
    "grouped-query": {"num_key_value_heads": 2},
    "multi-query": {"num_key_value_heads": 1},
    "attention-bias": {"attention_bias": True},
    "mlp-bias": {"mlp_bias": True},
    "tied": {"tie_word_embeddings": True},
    "wide-heads": {"head_dim": 24},
    "one-block": {"num_hidden_layers": 1},
}


def compare(folder: Path, config: dict[str, Any], schedule: list[int]) -> float:
    """Largest difference of any logit of any position over steps of these lengths."""
    reference = random_reference(config)
    parts = load_parts(write_folder(folder, config, tensors_of(reference)))
    theirs, caches, worst = Reference(reference), parts.caches(), 0.0
    ids = random_ids(sum(schedule))
    for step in ids.split(schedule, dim=1):
        difference = parts.all_logits(step, caches) - theirs.logits(step)
        worst = max(worst, difference.abs().max().item())
    if os.environ.get("GPTNODE_SHOW_PARITY"):
        print(f"\nmax abs {worst:.1e}")
    return worst


@pytest.mark.parametrize("name", ROPES)
def test_prefill_and_decode_equal_transformers_for_every_scaling(name: str, tmp_path: Path) -> None:
    config = tiny_config(**ROPES[name])
    assert compare(tmp_path, config, [37, 1, 1, 1, 5, 1]) < MAX_ABS


@pytest.mark.parametrize("name", SHAPES)
def test_prefill_and_decode_equal_transformers_for_every_shape(name: str, tmp_path: Path) -> None:
    config = tiny_config(**SHAPES[name])
    assert compare(tmp_path, config, [20, 1, 1, 7, 1]) < MAX_ABS


def test_dynamic_scaling_equals_transformers_past_the_original_length(tmp_path: Path) -> None:
    config = tiny_config(max_position_embeddings=16, **ROPES["dynamic"])
    assert compare(tmp_path / "grown", config, [12, 1, 1, 1, 1, 1, 1, 9, 1]) < MAX_ABS
    assert compare(tmp_path / "at once", config, [50, 1, 1]) < MAX_ABS


@pytest.mark.parametrize("name", [name for name in ROPES if name != "default"])
def test_the_scaling_under_test_changes_the_logits(name: str, tmp_path: Path) -> None:
    """Else a scaling that is ignored on both sides would pass for one that is equal."""
    ids = random_ids(80)
    reference = tensors_of(random_reference(tiny_config()))
    plain = load_parts(write_folder(tmp_path / "plain", tiny_config(), reference))
    config = tiny_config(**ROPES[name])
    scaled = load_parts(write_folder(tmp_path / "scaled", config, reference))
    ours, other = scaled.logits(ids, scaled.caches()), plain.logits(ids, plain.caches())
    assert (ours - other).abs().max() > 100 * MAX_ABS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_f32_as_transformers_is(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    config = tiny_config(**ROPES["llama3"])
    reference = random_reference(config)
    half = {name: tensor.to(dtype) for name, tensor in tensors_of(reference).items()}
    folder = write_folder(tmp_path, config, half)
    reference.load_state_dict(half)
    ids = random_ids(40)
    exact = Reference(reference).logits(ids)
    theirs = Reference(reference.to(dtype)).logits(ids)
    parts = load_parts(folder, dtype=dtype)
    ours = parts.all_logits(ids, parts.caches())
    their_error, our_error = (theirs - exact).abs().mean(), (ours - exact).abs().mean()
    assert our_error < 1.5 * their_error
    assert (ours - exact).abs().max() < (0.5 if dtype == torch.bfloat16 else 0.06)


def test_the_old_spelling_of_a_config_gives_the_same_network(tmp_path: Path) -> None:
    new = tiny_config(**ROPES["yarn"])
    old = {key: value for key, value in new.items() if key not in ("rope_parameters", "dtype")}
    old |= {
        "rope_theta": 10_000.0,
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        "torch_dtype": "float32",
    }
    tensors = tensors_of(random_reference(new))
    ids = random_ids(30)
    answers = []
    for name, config in (("new", new), ("old", old)):
        parts = load_parts(write_folder(tmp_path / name, config, tensors))
        answers.append((parts.logits(ids, parts.caches()), parts.index.fingerprint(parts.config)))
    assert torch.equal(answers[0][0], answers[1][0])
    assert answers[0][1] == answers[1][1]


def test_a_changed_default_dtype_changes_nothing(tmp_path: Path) -> None:
    config = tiny_config(**ROPES["llama3"])
    parts = load_parts(write_folder(tmp_path, config, tensors_of(random_reference(config))))
    ids = random_ids(12)
    before = parts.logits(ids, parts.caches())
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        again = load_parts(tmp_path)
        after = again.logits(ids, again.caches())
    finally:
        torch.set_default_dtype(default)
    assert after.dtype == torch.float32
    assert torch.equal(before, after)
