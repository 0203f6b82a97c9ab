"""`gptnode quantize` without its command line: what the new folder holds, and when it appears."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gptnode.errors import GptNodeError, ModelFileError, UnsupportedModelError, UsageError
from gptnode.model import mapping
from gptnode.model.config import ModelConfig
from gptnode.model.quantised import QuantisedWeight, quantise
from gptnode.model.quantised_folder import QuantisedFolder, quantise_folder
from gptnode.model.weights import WeightIndex, matrix_bits
from tests.model.tiny import (
    CPU,
    random_reference,
    tensors_of,
    tiny_config,
    write_folder,
    write_shards,
)

BIASED = tiny_config(attention_bias=True)
TENSORS = tensors_of(random_reference(BIASED))
COPIED = {
    "tokenizer.json": "{}",
    "tokenizer_config.json": '{"a": 1}',
    "chat_template.jinja": "{{ x }}",
    "generation_config.json": '{"eos_token_id": 3}',
    "LICENSE": "as you like it",
}
LEFT_BEHIND = ("pytorch_model.bin", "model.gguf", ".gitattributes", "pytorch_model.bin.index.json")


@pytest.fixture(params=[1, 3])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A biased model in f32, in one file and in three, with all that lies beside weights."""
    if request.param == 1:
        folder = write_folder(tmp_path / "source", BIASED, TENSORS)
    else:
        folder = write_shards(tmp_path / "source", BIASED, TENSORS, request.param)
    for name, text in COPIED.items():
        (folder / name).write_text(text)
    for name in LEFT_BEHIND:
        (folder / name).write_text("large")
    (folder / "original").mkdir()
    return folder


def run(source: Path, target: Path, dtype_name: str = "int8", **options: bool) -> QuantisedFolder:
    return quantise_folder(source, target, dtype_name, lambda done, total: None, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("dtype_name", "bits"), [("int8", 8), ("int4", 4)])
def test_matrices_are_quantised_and_all_else_is_bf16(
    dtype_name: str, bits: int, source: Path, tmp_path: Path
) -> None:
    done = run(source, tmp_path / "out", dtype_name)
    found: dict[str, Tensor] = {}
    for file in (tmp_path / "out").glob("*.safetensors"):
        found |= load_file(file)
    expected = {}
    for name, tensor in TENSORS.items():
        kept = matrix_bits(name.removeprefix("model."), dtype_name)
        if kept is None:
            expected[name] = tensor.to(torch.bfloat16)
        else:
            matrix = quantise(tensor, kept)
            expected |= {name: matrix.values, name + "_scale": matrix.scales}
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert done.n_tensors == len(TENSORS)
    assert done.n_quantised == 2 + 7 * 4
    assert done.n_bytes == sum(tensor.nbytes for tensor in found.values())
    assert done.source_bytes == sum(tensor.nbytes for tensor in TENSORS.values())


@pytest.mark.parametrize("dtype_name", ["int8", "int4"])
def test_the_new_folder_loads_as_the_old_one_does_when_it_is_quantised_on_the_way(
    dtype_name: str, source: Path, tmp_path: Path
) -> None:
    done = run(source, tmp_path / "out", dtype_name)
    config = ModelConfig.from_folder(tmp_path / "out")
    assert config.dtype == dtype_name
    assert config.eos_ids == ModelConfig.from_folder(source).eos_ids == (3,)
    old, new = WeightIndex.open(source), WeightIndex.open(tmp_path / "out")
    assert new.fingerprint(config) == done.fingerprint != done.source_fingerprint
    assert done.source_fingerprint == old.fingerprint(ModelConfig.from_folder(source))
    for name in old.entries:
        shape = old.entries[name].shape
        if matrix_bits(name, dtype_name) is None:
            loaded = [index.load(name, shape, torch.bfloat16, CPU) for index in (old, new)]
            assert torch.equal(*loaded)
        else:
            first, second = (
                index.load_matrix(name, shape, dtype_name, CPU) for index in (old, new)
            )
            assert isinstance(first, QuantisedWeight)
            assert isinstance(second, QuantisedWeight)
            assert torch.equal(first.values, second.values)
            assert torch.equal(first.scales, second.scales)


def test_what_belongs_to_the_model_is_copied_and_other_weights_are_not(
    source: Path, tmp_path: Path
) -> None:
    run(source, tmp_path / "out")
    weights = {file.name for file in source.glob("model*") if file.suffix != ".gguf"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *COPIED,
        *weights,
        "config.json",
    }
    for name, text in COPIED.items():
        assert (tmp_path / "out" / name).read_text() == text


def test_config_json_is_the_old_one_with_what_has_changed(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", "int4")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {
        **BIASED,
        "dtype": "bfloat16",
        "quantization_config": {"quant_method": "gptnode", "bits": 4, "version": 1},
    }


def test_matrices_begin_at_cache_lines(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", "int4")
    entries = WeightIndex.open(tmp_path / "out").entries
    assert all(entry.offset % 64 == 0 for entry in entries.values() if entry.dtype in ("I8", "U8"))


def test_progress_counts_the_bytes_of_the_source_up_to_all_of_them(
    source: Path, tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []
    done = quantise_folder(
        source, tmp_path / "out", "int8", lambda n_bytes, total: calls.append((n_bytes, total))
    )
    counts = [n_bytes for n_bytes, _ in calls]
    assert counts == sorted(set(counts))
    assert {total for _, total in calls} == {done.source_bytes}
    assert (counts[0], counts[-1]) == (0, done.source_bytes)


def test_frequencies_that_old_checkpoints_hold_are_left_out(tmp_path: Path) -> None:
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    folder = write_folder(tmp_path / "source", BIASED, TENSORS | frequencies)
    assert run(folder, tmp_path / "out").n_tensors == len(TENSORS)


def test_a_folder_that_is_not_empty_is_left_alone_unless_it_is_a_model_to_be_replaced(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    run(source, target, "int8")  # an empty folder is no obstacle
    before = contents(target)
    with pytest.raises(UsageError, match=r"out is not empty; --force replaces it"):
        run(source, target, "int4")
    assert contents(target) == before
    (target / "stale.txt").write_text("old")
    run(source, target, "int4", replace=True)
    assert ModelConfig.from_folder(target).dtype == "int4"
    assert not (target / "stale.txt").exists()


def test_only_a_model_folder_is_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("miaow")
    with pytest.raises(UsageError, match="is no model folder, so it is not replaced"):
        run(source, tmp_path / "photos", replace=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        run(source, tmp_path / "file", replace=True)
    for target in (source, tmp_path):
        with pytest.raises(UsageError, match="holds the model itself"):
            run(source, target, replace=True)
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "miaow"
    assert WeightIndex.open(source).entries


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The model in one file."""
    return write_folder(tmp_path / "whole", BIASED, TENSORS)


def test_a_quantised_folder_is_not_quantised_again(whole: Path, tmp_path: Path) -> None:
    run(whole, tmp_path / "out", "int8")
    with pytest.raises(UsageError, match="out is quantised already, to int8"):
        run(tmp_path / "out", tmp_path / "again", "int4")


@pytest.mark.parametrize("exists", [False, True])
def test_an_error_on_the_way_leaves_everything_as_it_was(
    exists: bool, whole: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    if exists:
        run(whole, place / "out", "int8")
    before = contents(place)
    broken = dict(TENSORS)
    broken["model.layers.3.mlp.down_proj.weight"] = torch.full((32, 56), torch.nan)
    write_folder(whole, BIASED, broken)
    with pytest.raises(ModelFileError, match=r"down_proj\.weight can't be quantised"):
        run(whole, place / "out", "int4", replace=exists)
    assert contents(place) == before
    assert [file.name for file in place.iterdir()] == (["out"] if exists else [])


def test_an_interrupt_leaves_nothing_behind(whole: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantise_folder(whole, tmp_path / "place" / "out", "int8", interrupt)
    assert list((tmp_path / "place").iterdir()) == []


def test_the_new_folder_appears_when_it_is_complete(whole: Path, tmp_path: Path) -> None:
    seen = []
    quantise_folder(
        whole, tmp_path / "out", "int8", lambda *_: seen.append((tmp_path / "out").exists())
    )
    assert not any(seen)
    assert WeightIndex.open(tmp_path / "out").entries


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk)
    with pytest.raises(UsageError, match=r"has 0.00 GB free, but the quantised model takes"):
        run(whole, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_a_usage_error(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="can't be written"):
        run(whole, tmp_path / "file" / "out")


def _drop_shard(folder: Path) -> None:
    (folder / "model-00002-of-00003.safetensors").unlink()


def _cut_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _integers(folder: Path) -> None:
    write_folder(folder, BIASED, {"model.layers.0.mlp.up_proj.weight": torch.ones(4).int()})


def _vector(folder: Path) -> None:
    write_folder(folder, BIASED, {"model.layers.0.mlp.up_proj.weight": torch.ones(4)})


@pytest.mark.parametrize(
    ("damage", "kind", "problem"),
    [
        (_drop_shard, ModelFileError, "00002-of-00003.safetensors: no such file"),
        (_cut_config, ModelFileError, "config.json: not valid JSON"),
        (_integers, ModelFileError, "up_proj.weight has shape"),
        (_vector, ModelFileError, "a matrix was expected"),
    ],
)
def test_a_damaged_source_is_named(
    damage: object, kind: type[GptNodeError], problem: str, tmp_path: Path
) -> None:
    folder = write_shards(tmp_path / "source", BIASED, TENSORS, 3)
    assert callable(damage)
    damage(folder)
    with pytest.raises(kind, match=problem):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tensors_of_a_dtype_that_weights_cannot_have_are_named(tmp_path: Path) -> None:
    odd = TENSORS | {"model.norm.weight": torch.ones(32, dtype=torch.int32)}
    with pytest.raises(UnsupportedModelError, match=r"norm.weight is I32"):
        run(write_folder(tmp_path / "source", BIASED, odd), tmp_path / "out")


NODE = """
import json, sys
from pathlib import Path
import psutil
from gptnode.model.quantised_folder import quantise_folder

resident = psutil.Process().memory_info
seen = []
quantise_folder(
    Path(sys.argv[1]), Path(sys.argv[2]), "int4", lambda done, total: seen.append(resident().rss)
)
print(json.dumps(seen))
"""


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """24 matrices of 8 MB in bf16, 2.25 MB in 4 bit: the last 16 of them are 134 and 36 MB."""
    config = tiny_config(hidden_size=2048, intermediate_size=2048, num_hidden_layers=8)
    names = [
        f"model.layers.{block}.mlp.{kind}_proj.weight"
        for block in range(8)
        for kind in ("gate", "up", "down")
    ]
    matrix = torch.ones(2048, 2048, dtype=torch.bfloat16)
    folder = write_folder(tmp_path / "source", config, {name: matrix.clone() for name in names})
    done = subprocess.run(
        [sys.executable, "-c", NODE, str(folder), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    resident = json.loads(done.stdout)
    assert len(resident) == 25
    assert max(resident[9:]) - max(resident[:9]) < 25 * 10**6


@pytest.fixture(autouse=True)
def _slices_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tiny matrices are taken in parts too."""
    monkeypatch.setattr(mapping, "SLICE_BYTES", 1000)
