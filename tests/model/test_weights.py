"""Tensors found by name in one file or many, mapped alone, and told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptnode.errors import ModelFileError, UnsupportedModelError
from gptnode.model.config import ModelConfig
from gptnode.model.weights import WeightIndex
from tests.model.tiny import (
    CPU,
    random_reference,
    tensors_of,
    tiny_config,
    write_folder,
    write_shards,
)

CONFIG = ModelConfig.from_json(tiny_config())
TENSORS = tensors_of(random_reference(tiny_config()))
NAME = "layers.1.mlp.up_proj.weight"
SHAPE = (56, 32)


def fingerprint(folder: Path, config: ModelConfig = CONFIG) -> str:
    return WeightIndex.open(folder).fingerprint(config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "whole", tiny_config(), TENSORS)


def test_names_come_without_the_prefix_of_transformers(folder: Path, tmp_path: Path) -> None:
    bare = {name.removeprefix("model."): tensor for name, tensor in TENSORS.items()}
    other = write_folder(tmp_path / "bare", tiny_config(), bare)
    index = WeightIndex.open(folder)
    assert set(index.entries) == set(bare) == set(WeightIndex.open(other).entries)
    assert NAME in index
    assert torch.equal(index.load(NAME, SHAPE, torch.float32, CPU), bare[NAME])
    assert fingerprint(folder) == fingerprint(other)


def test_one_file_may_have_any_name(folder: Path) -> None:
    renamed = (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert NAME in WeightIndex.open(renamed)


@pytest.mark.parametrize("file_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_converted_to_the_dtype_asked_for(
    file_dtype: torch.dtype, dtype: torch.dtype, tmp_path: Path
) -> None:
    tensors = {name: tensor.to(file_dtype) for name, tensor in TENSORS.items()}
    index = WeightIndex.open(write_folder(tmp_path, tiny_config(), tensors))
    loaded = index.load(NAME, SHAPE, dtype, CPU)
    assert loaded.dtype == dtype
    assert torch.equal(loaded, tensors["model." + NAME].to(dtype))


def test_a_loaded_tensor_is_a_private_mapping(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    index = WeightIndex.open(folder)
    index.load(NAME, SHAPE, torch.float32, CPU).zero_()
    assert (folder / "model.safetensors").read_bytes() == before
    assert index.load(NAME, SHAPE, torch.float32, CPU).any()


@pytest.mark.parametrize("padding", range(1, 9))
def test_tensors_that_begin_at_any_byte_are_loaded(padding: int, tmp_path: Path) -> None:
    """The reference implementation pads its header; others need not."""
    tensor = torch.randn(3, 5)
    entry = {"dtype": "F32", "shape": [3, 5], "data_offsets": [0, 60]}
    header = json.dumps({"model.t": entry}).encode() + b" " * padding
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + tensor.numpy().tobytes())
    assert torch.equal(WeightIndex.open(path).load("t", (3, 5), torch.float32, CPU), tensor)


def test_an_empty_tensor_is_loaded(tmp_path: Path) -> None:
    save_file({"none": torch.zeros(0, 4), "some": torch.ones(2)}, tmp_path / "model.safetensors")
    assert WeightIndex.open(tmp_path).load("none", (0, 4), torch.float32, CPU).shape == (0, 4)


def test_shards_hold_the_same_tensors_and_the_same_fingerprint(
    folder: Path, tmp_path: Path
) -> None:
    for n_shards in (1, 2, 5):
        other = write_shards(tmp_path / str(n_shards), tiny_config(), TENSORS, n_shards)
        index = WeightIndex.open(other)
        for name in index.entries:
            original = TENSORS.get(f"model.{name}", TENSORS.get(name))
            assert original is not None
            loaded = index.load(name, original.shape, torch.float32, CPU)
            assert torch.equal(loaded, original)
        assert index.fingerprint(CONFIG) == fingerprint(folder)


def test_a_tensor_that_is_missing_or_has_another_shape_is_named(folder: Path) -> None:
    index = WeightIndex.open(folder)
    with pytest.raises(ModelFileError, match=r"model.safetensors: tensor layers.9.x is missing"):
        index.load("layers.9.x", (1,), torch.float32, CPU)
    with pytest.raises(ModelFileError) as caught:
        index.load(NAME, (56, 33), torch.float32, CPU)
    assert caught.value.detail == (
        f"{folder / 'model.safetensors'}: tensor model.{NAME} has shape (56, 32), "
        "but config.json implies (56, 33)"
    )


def test_a_dtype_that_weights_cannot_have_is_named(tmp_path: Path) -> None:
    save_file({"t": torch.zeros(4, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="tensor t is I8; supported are BF16, F16, F32"):
        WeightIndex.open(tmp_path).load("t", (4,), torch.float32, CPU)


def test_a_file_that_was_replaced_by_a_shorter_one_is_named(folder: Path) -> None:
    index = WeightIndex.open(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelFileError, match="has become shorter"):
        index.fingerprint(CONFIG)
    last = max(index.entries.values(), key=lambda entry: entry.offset)
    with pytest.raises(ModelFileError, match="can't be mapped"):
        index.load(last.name.removeprefix("model."), last.shape, torch.float32, CPU)


def test_a_file_that_has_gone_is_named(folder: Path) -> None:
    index = WeightIndex.open(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model\.safetensors: can't be read"):
        index.fingerprint(CONFIG)
    with pytest.raises(ModelFileError, match=f"tensor model.{NAME} can't be mapped"):
        index.load(NAME, SHAPE, torch.float32, CPU)


def test_a_node_needs_the_shards_of_its_own_tensors_alone(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, tiny_config(), TENSORS, 3)
    whole = WeightIndex.open(folder)
    shard = folder / "model-00002-of-00003.safetensors"
    shard.unlink()
    part = WeightIndex.open(folder)
    assert part.absent
    assert set(part.absent) | set(part.entries) == set(whole.entries)
    assert all(name in part for name in whole.entries)
    assert dict(part.entries) == {name: whole.entries[name] for name in part.entries}


def test_a_shard_that_is_needed_and_missing_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, tiny_config(), TENSORS, 3)
    shard = folder / "model-00002-of-00003.safetensors"
    shard.unlink()
    part = WeightIndex.open(folder)
    name = next(iter(part.absent))
    with pytest.raises(ModelFileError) as caught:
        part.entry(name, TENSORS["model." + name if "model." + name in TENSORS else name].shape)
    assert caught.value.detail == f"{shard}: no such file; tensor {name} is in it"
    with pytest.raises(ModelFileError) as caught:
        part.fingerprint(ModelConfig.from_folder(folder))
    assert caught.value.detail == f"{shard}: no such file; the fingerprint needs all of them"


def test_a_shard_without_a_tensor_of_the_index_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, tiny_config(), TENSORS, 2)
    shard = folder / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    name = sorted(tensors)[0]
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, shard)
    with pytest.raises(ModelFileError) as caught:
        WeightIndex.open(folder)
    assert caught.value.detail == f"{shard}: tensor {name} is missing"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "weight_map must be an object of tensor -> file"),
        ({"weight_map": []}, "weight_map must be an object of tensor -> file"),
        ({"weight_map": {"t": 3}}, "tensor t must be in a file of the same folder, not 3"),
        (
            {"weight_map": {"t": "../a"}},
            "tensor t must be in a file of the same folder, not '../a'",
        ),
        ({"weight_map": {"t": "/a"}}, "tensor t must be in a file of the same folder, not '/a'"),
        ({"weight_map": {"t": ".."}}, "tensor t must be in a file of the same folder, not '..'"),
        ({"weight_map": {"t": ""}}, "tensor t must be in a file of the same folder, not ''"),
    ],
)
def test_an_index_that_is_wrong_is_named(index: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(ModelFileError) as caught:
        WeightIndex.open(tmp_path)
    assert caught.value.detail == f"{path}: {message}"


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"neither model.safetensors nor model.safetensors.i"):
        WeightIndex.open(tmp_path)


def test_a_tensor_under_both_names_is_refused(tmp_path: Path) -> None:
    save_file({"model.t": torch.ones(1), "t": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"comes twice, with and without 'model\.'"):
        WeightIndex.open(tmp_path)


def test_the_fingerprint_is_32_hex_digits(folder: Path) -> None:
    assert len(fingerprint(folder)) == 32
    assert int(fingerprint(folder), 16) > 0


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_changed_byte_in_any_sample_changes_the_fingerprint(place: str, folder: Path) -> None:
    before = fingerprint(folder)
    entry = WeightIndex.open(folder).entries[NAME]
    shift = {"first": 0, "middle": entry.n_bytes // 2, "last": entry.n_bytes - 1}[place]
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[entry.offset + shift] ^= 1
    path.write_bytes(content)
    assert fingerprint(folder) != before


def test_another_dtype_or_tensor_changes_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in TENSORS.items()}
    fewer = {name: tensor for name, tensor in TENSORS.items() if name != "lm_head.weight"}
    prints = {fingerprint(folder)}
    for name, tensors in (("half", half), ("fewer", fewer)):
        prints.add(fingerprint(write_folder(tmp_path / name, tiny_config(), tensors)))
    assert len(prints) == 3


def test_only_what_is_computed_counts_in_the_fingerprint(folder: Path) -> None:
    plain = fingerprint(folder)
    rope = replace(CONFIG.rope, theta=20_000.0)
    assert fingerprint(folder, replace(CONFIG, rope=rope)) != plain
    assert fingerprint(folder, replace(CONFIG, norm_eps=1e-6)) != plain
    assert fingerprint(folder, replace(CONFIG, n_heads=8, head_dim=4)) != plain
    assert fingerprint(folder, replace(CONFIG, eos_ids=(5,), dtype="bf16", bos_id=1)) == plain
