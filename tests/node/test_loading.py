"""What a node needs of a model's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptnode.errors import MismatchError, ModelFileError, UsageError
from gptnode.node.loading import folder_paths, open_device, open_model
from gptnode.span import Span

CPU = torch.device("cpu")


@pytest.fixture
def sharded(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with each block in a shard of its own, embedding and head in another."""
    tensors = load_file(tiny_model / "model.safetensors")
    shards: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        place = f"block-{name.split('.')[2]}" if ".layers." in name else "ends"
        shards.setdefault(f"{place}.safetensors", {})[name] = tensor
    for file, held in shards.items():
        save_file(held, tmp_path / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    return tmp_path


def test_a_client_that_holds_no_blocks_needs_no_block_weights(sharded: Path) -> None:
    fingerprint = open_model("m", folder_paths(sharded), None, CPU).key.fingerprint
    for block in sharded.glob("block-*.safetensors"):
        block.unlink()
    source = open_model("m", folder_paths(sharded), None, CPU, fingerprint=fingerprint)
    assert source.key.fingerprint == fingerprint
    hidden = source.load_embedding()(torch.tensor([[5]]))
    assert source.load_head(source.load_embedding())(hidden).shape == (1, 64)
    with pytest.raises(ModelFileError, match=r"block-1\.safetensors: no such file"):
        source.load_blocks(Span(1, 2))


def test_a_server_needs_the_shards_of_its_own_blocks_alone(sharded: Path) -> None:
    whole = open_model("m", folder_paths(sharded), None, CPU)
    hidden = torch.randn(1, 3, 32)
    stack = whole.load_blocks(Span(2, 4))
    expected = stack(hidden, stack.new_cache(4))
    for file in ("block-0.safetensors", "block-1.safetensors", "ends.safetensors"):
        (sharded / file).unlink()
    part = open_model(
        "m", folder_paths(sharded), None, CPU, fingerprint=whole.key.fingerprint
    ).load_blocks(Span(2, 4))
    assert torch.equal(part(hidden, part.new_cache(4)), expected)


def test_some_of_the_files_without_a_fingerprint_is_an_error_that_says_how(sharded: Path) -> None:
    (sharded / "block-0.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"gptnode fingerprint DIR"):
        open_model("m", folder_paths(sharded), None, CPU)


def test_other_files_than_the_map_means_are_refused(tiny_model: Path) -> None:
    with pytest.raises(MismatchError, match="0" * 32):
        open_model("m", folder_paths(tiny_model), None, CPU, fingerprint="0" * 32)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="nowhere"):
        open_model("m", folder_paths(tmp_path / "nowhere"), None, CPU)


@pytest.mark.parametrize("name", ["gpu9", "cuda:99"])
def test_a_device_that_is_not_there_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        open_device(name)


def test_a_dtype_that_does_not_exist_is_a_usage_error(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="bf16"):
        open_model("m", folder_paths(tiny_model), "fp64", CPU)
