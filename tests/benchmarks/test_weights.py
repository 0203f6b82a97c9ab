from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.weights import CONFIG, Weights, block_bytes
from gptnode.errors import GptNodeError
from gptnode.model.config import ModelConfig


def test_only_tensors_of_blocks_count_and_all_files_do(tmp_path: Path) -> None:
    embedding = torch.zeros(10, 4)
    save_file(
        {"model.embed_tokens.weight": embedding, "model.layers.0.a": torch.zeros(3)},
        tmp_path / "1.safetensors",
    )
    save_file({"model.layers.1.b": torch.zeros(5, dtype=torch.int8)}, tmp_path / "2.safetensors")
    assert block_bytes(tmp_path) == 3 * 4 + 5


def test_the_configuration_is_one_that_gptnode_takes() -> None:
    config = ModelConfig.from_json(json.dumps(CONFIG))
    assert config.tie_embeddings
    assert config.context_tokens >= 16384 + 64  # the longest of the curve, and the steps after it


def test_forms_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    lines: list[str] = []
    weights = Weights(tmp_path, tmp_path / "no-python", lines.append)
    for folder in ("model-bf16", "model-int4", "gguf"):
        (tmp_path / folder).mkdir()
    (tmp_path / "model-bf16" / "config.json").write_text("{}")
    (tmp_path / "model-int4" / "config.json").write_text("{}")
    (tmp_path / "gguf" / "q4_0.gguf").write_text("")
    assert weights.folder("int4") == tmp_path / "model-int4"
    assert weights.gguf("int4") == tmp_path / "gguf" / "q4_0.gguf"
    assert lines == []


def test_a_missing_environment_of_the_rivals_is_named(tmp_path: Path) -> None:
    weights = Weights(tmp_path, tmp_path / "no-python", lambda line: None)
    (tmp_path / "model-bf16").mkdir()
    (tmp_path / "model-bf16" / "config.json").write_text("{}")
    with pytest.raises(GptNodeError, match="no-python"):
        weights.gguf("bf16")
