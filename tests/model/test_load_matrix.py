"""Matrices from files: as floats, quantised on the way, or as the integers that lie there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptnode.errors import GptNodeError, ModelFileError, UnsupportedModelError
from gptnode.model import mapping
from gptnode.model.config import ModelConfig
from gptnode.model.dtypes import DTYPES
from gptnode.model.quantised import QuantisedWeight, quantise
from gptnode.model.weights import WeightIndex, matrix_bits
from tests.model.tiny import CPU, random_reference, tensors_of, tiny_config, write_folder

CONFIG = ModelConfig.from_json(tiny_config())
TENSORS = tensors_of(random_reference(tiny_config()))
NAME = "layers.1.mlp.up_proj.weight"
SHAPE = (56, 32)


def write_quantised(folder: Path, bits: int, **changes: Tensor | None) -> WeightIndex:
    """One matrix as `gptnode quantize` stores it, next to a norm; ``changes`` None: left out."""
    matrix = quantise(TENSORS["model." + NAME], bits)
    tensors = {
        "model." + NAME: matrix.values,
        "model." + NAME + "_scale": matrix.scales,
        "model.norm.weight": torch.ones(32, dtype=torch.bfloat16),
    }
    tensors |= {"model." + name.replace("__", "."): value for name, value in changes.items()}
    kept = {name: value for name, value in tensors.items() if value is not None}
    save_file(kept, folder / "model.safetensors")
    return WeightIndex.open(folder)


def problem_of(index: WeightIndex, dtype_name: str, kind: type[GptNodeError]) -> str:
    """The error of loading, without the file's name in front of it."""
    with pytest.raises(kind) as caught:
        index.load_matrix(NAME, SHAPE, dtype_name, CPU)
    file, _, problem = caught.value.detail.partition(": ")
    assert file.endswith("model.safetensors")
    return problem


@pytest.mark.parametrize("dtype_name", ["bf16", "f16", "f32"])
def test_a_matrix_of_floats_is_a_tensor_of_the_dtype(dtype_name: str, tmp_path: Path) -> None:
    index = WeightIndex.open(write_folder(tmp_path, tiny_config(), TENSORS))
    loaded = index.load_matrix(NAME, SHAPE, dtype_name, CPU)
    assert isinstance(loaded, Tensor)
    assert torch.equal(loaded, TENSORS["model." + NAME].to(DTYPES[dtype_name]))


@pytest.mark.parametrize("slice_bytes", [1, 1000, 10**9])
@pytest.mark.parametrize(("dtype_name", "bits"), [("int8", 8), ("int4", 4)])
@pytest.mark.parametrize("file_dtype", [torch.bfloat16, torch.float32])
def test_floats_are_quantised_while_they_are_read(
    file_dtype: torch.dtype,
    dtype_name: str,
    bits: int,
    slice_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mapping, "SLICE_BYTES", slice_bytes)
    tensors = {name: tensor.to(file_dtype) for name, tensor in TENSORS.items()}
    index = WeightIndex.open(write_folder(tmp_path, tiny_config(), tensors))
    loaded = index.load_matrix(NAME, SHAPE, dtype_name, CPU)
    assert_equal(loaded, quantise(tensors["model." + NAME], bits))


@pytest.mark.parametrize(("dtype_name", "bits"), [("int8", 8), ("int4", 4)])
def test_integers_are_loaded_as_they_lie_there(dtype_name: str, bits: int, tmp_path: Path) -> None:
    index = write_quantised(tmp_path, bits)
    loaded = index.load_matrix(NAME, SHAPE, dtype_name, CPU)
    assert_equal(loaded, quantise(TENSORS["model." + NAME], bits))


@pytest.mark.parametrize("bits", [8, 4])
def test_integers_and_scales_are_mapped_not_copied(bits: int, tmp_path: Path) -> None:
    """A mapping whose pages were not written to shows what becomes of the file."""
    index = write_quantised(tmp_path, bits)
    loaded = index.load_matrix(NAME, SHAPE, f"int{bits}", CPU)
    assert isinstance(loaded, QuantisedWeight)
    with (tmp_path / "model.safetensors").open("r+b") as stream:
        for name in (NAME, NAME + "_scale"):
            stream.seek(index.entries[name].offset)
            stream.write(b"\x11\x11")
    assert loaded.values.view(torch.uint8)[0, :2].tolist() == [0x11, 0x11]
    assert loaded.scales.view(torch.int16)[0, 0] == 0x1111


def test_weights_of_blocks_have_the_bits_that_were_asked_for_and_the_ends_have_8() -> None:
    assert [matrix_bits(NAME, name) for name in DTYPES] == [None, None, None, 8, 4]
    for name in ("embed_tokens.weight", "lm_head.weight"):
        assert [matrix_bits(name, dtype) for dtype in DTYPES] == [None, None, None, 8, 8]
    for name in ("norm.weight", "layers.0.input_layernorm.weight", "layers.0.mlp.up_proj.bias"):
        assert not any(matrix_bits(name, dtype) for dtype in DTYPES)


def test_scales_are_no_tensors_of_their_own(tmp_path: Path) -> None:
    index = write_quantised(tmp_path, 8, layers__2__x_scale=torch.ones(1))
    assert index.names_under("layers.") == (NAME, "layers.2.x_scale")
    assert NAME + "_scale" in index


@pytest.mark.parametrize(
    ("bits", "dtype_name", "problem"),
    [
        (8, "int4", f"tensor model.{NAME} is I8 (8 bit), not int4"),
        (4, "int8", f"tensor model.{NAME} is U8 (4 bit), not int8"),
        (4, "bf16", f"tensor model.{NAME} is U8 (4 bit), not bf16"),
    ],
)
def test_integers_that_the_dtype_does_not_mean_are_named(
    bits: int, dtype_name: str, problem: str, tmp_path: Path
) -> None:
    index = write_quantised(tmp_path, bits)
    assert problem_of(index, dtype_name, UnsupportedModelError) == problem


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        (NAME + "_scale", None, None),
        (
            NAME + "_scale",
            torch.ones(56, 1),
            f"tensor model.{NAME}_scale is F32, but scales are BF16",
        ),
        (
            NAME + "_scale",
            torch.ones(56, 4).bfloat16(),
            f"tensor model.{NAME}_scale has shape (56, 4), but a matrix of (56, 32) in 8 bit "
            "implies (56, 1)",
        ),
        (
            NAME,
            torch.ones(56, 32, dtype=torch.int8),
            f"tensor model.{NAME} has shape (56, 32), but a matrix of (56, 32) in 8 bit "
            "implies (56, 128)",
        ),
        (
            NAME,
            torch.ones(56 * 128, dtype=torch.int8),
            f"tensor model.{NAME} has shape (7168,), but a matrix of (56, 32) in 8 bit "
            "implies (56, 128)",
        ),
        (NAME, torch.ones(56, 32), f"tensor model.{NAME} is F32, but scales for it are there"),
        (
            NAME,
            torch.ones(56, 32, dtype=torch.int16),
            f"tensor model.{NAME} is I16; supported are BF16, F16, F32",
        ),
    ],
)
def test_what_is_wrong_with_a_quantised_matrix_is_named(
    name: str, tensor: Tensor | None, problem: str | None, tmp_path: Path
) -> None:
    index = write_quantised(tmp_path, 8, **{name: tensor})
    kind = UnsupportedModelError if problem is not None and "I16" in problem else ModelFileError
    found = problem_of(index, "int8", kind)
    assert found == (problem or f"tensor {NAME}_scale is missing")


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    broken = dict(TENSORS)
    broken["model." + NAME] = broken["model." + NAME].index_fill(0, torch.tensor([3]), torch.nan)
    index = WeightIndex.open(write_folder(tmp_path, tiny_config(), broken))
    problem = problem_of(index, "int4", ModelFileError)
    assert problem == f"tensor model.{NAME} can't be quantised: the weights hold NaN or Inf"


def test_a_matrix_of_another_shape_is_named_before_it_is_quantised(tmp_path: Path) -> None:
    index = WeightIndex.open(write_folder(tmp_path, tiny_config(), TENSORS))
    with pytest.raises(ModelFileError, match=r"shape \(56, 32\), but config.json implies \(9, 9\)"):
        index.load_matrix(NAME, (9, 9), "int8", CPU)


def test_a_folder_that_is_not_stored_as_its_config_says_is_refused(tmp_path: Path) -> None:
    floats = WeightIndex.open(write_folder(tmp_path, tiny_config(), TENSORS))
    floats.check_stored("f32")
    floats.check_stored("bf16")
    with pytest.raises(ModelFileError, match=r"is F32, but config.json says that it is in 8 bit"):
        floats.check_stored("int8")
    integers = write_quantised(tmp_path, 4)
    integers.check_stored("int4")
    with pytest.raises(ModelFileError, match=r"is U8 \(4 bit\), but .* says that it is in 8 bit"):
        integers.check_stored("int8")
    with pytest.raises(ModelFileError, match=r"is U8 \(4 bit\), but .* says that it is in bf16"):
        integers.check_stored("bf16")


@pytest.mark.parametrize("name", [NAME, NAME + "_scale"])
def test_the_fingerprint_covers_integers_and_scales(name: str, tmp_path: Path) -> None:
    before = write_quantised(tmp_path, 4).fingerprint(CONFIG)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model." + name].view(torch.uint8)[0, 0] ^= 1
    save_file(tensors, tmp_path / "model.safetensors")
    assert WeightIndex.open(tmp_path).fingerprint(CONFIG) != before


def assert_equal(found: Tensor | QuantisedWeight, expected: QuantisedWeight) -> None:
    assert isinstance(found, QuantisedWeight)
    assert found.shape == expected.shape
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.scales, expected.scales)
