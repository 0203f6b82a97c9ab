"""What a node needs of a model's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptnode.errors import MapError, MismatchError, ModelFileError, UsageError
from gptnode.model.dtypes import DTYPES
from gptnode.model.quantised_folder import quantise_folder
from gptnode.node.loading import folder_paths, open_device, open_entry, open_model
from gptnode.routing.blocks_map import BlocksMap, parse_blocks_map
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


@pytest.fixture
def weightless(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model's config.json, and nothing else."""
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    return tmp_path


def thin_map(folder: Path, *, head: bool = True, **model: str) -> BlocksMap:
    """One peer has it all, and perhaps clients the head."""
    peer = "12D3KooWA1bysjrTACSWqf6q172inxvwKHUxAnBtVgaVDKMxpZtx"
    document = {
        "models": [{"name": "m", "path": str(folder), **model}],
        "peers": [{"id": peer, "name": "anna", "addrs": ["/ip4/127.0.0.1/tcp/1"]}],
        "routes": [{"blocks": "0-3", "embed": True, "head": head, "peers": ["anna"]}],
    }
    return parse_blocks_map(json.dumps(document))


def test_a_client_whose_peers_have_both_ends_needs_no_weights_at_all(
    weightless: Path, tiny_model: Path
) -> None:
    fingerprint = open_model("m", folder_paths(tiny_model), None, CPU).key.fingerprint
    blocks_map = thin_map(weightless, fingerprint=fingerprint)
    source = open_entry(blocks_map.model(), blocks_map, None, dtype=None, device="cpu")
    assert source.key == open_model("m", folder_paths(tiny_model), None, CPU).key
    assert source.index.empty
    for load in (source.load_embedding, lambda: source.load_head(None)):
        with pytest.raises(ModelFileError, match="no weights are here, and tensor"):
            load()
    with pytest.raises(ModelFileError, match=r"tensor layers\.0\..* is needed"):
        source.load_blocks(Span(0, 1))


def test_without_weights_the_map_has_to_say_which_are_meant(weightless: Path) -> None:
    blocks_map = thin_map(weightless)
    with pytest.raises(MapError, match='add the model\'s "fingerprint"'):
        open_entry(blocks_map.model(), blocks_map, None, dtype=None, device="cpu")


def test_a_client_with_one_end_needs_weights(weightless: Path) -> None:
    blocks_map = thin_map(weightless, head=False, fingerprint="0" * 32)
    with pytest.raises(ModelFileError, match="neither"):
        open_entry(blocks_map.model(), blocks_map, None, dtype=None, device="cpu")


def test_weights_that_are_there_are_checked_all_the_same(tiny_model: Path) -> None:
    blocks_map = thin_map(tiny_model, fingerprint="0" * 32)
    with pytest.raises(MismatchError, match="fingerprint"):
        open_entry(blocks_map.model(), blocks_map, None, dtype=None, device="cpu")


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


@pytest.fixture(scope="module", params=["int8", "int4"])
def quantised(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model as `gptnode quantize` writes it; the folder has the dtype's name."""
    folder = tmp_path_factory.mktemp("quantised") / request.param
    quantise_folder(tiny_model, folder, request.param, lambda done, total: None)
    return folder


def test_a_quantised_folder_is_of_its_own_dtype_and_activations_are_bf16(quantised: Path) -> None:
    for dtype_name in (None, quantised.name):
        key = open_model("m", folder_paths(quantised), dtype_name, CPU).key
        assert key.dtype_name == quantised.name
        assert (key.dtype, key.activation_name) == (torch.bfloat16, "bf16")


def test_a_quantised_folder_computes_what_its_original_does_when_quantised_on_the_way(
    quantised: Path, tiny_model: Path
) -> None:
    results = []
    for folder in (quantised, tiny_model):
        source = open_model("m", folder_paths(folder), quantised.name, CPU)
        embedding, stack = source.load_embedding(), source.load_blocks(Span(0, 4))
        hidden = stack(embedding(torch.tensor([[5, 9, 11]])), stack.new_cache(4))
        results.append(source.load_head(embedding)(hidden))
    assert torch.equal(*results)


def test_a_quantised_folder_has_no_other_dtype(quantised: Path) -> None:
    for dtype_name in DTYPES.keys() - {quantised.name}:
        with pytest.raises(UsageError, match=f"to {quantised.name} and can't .* in {dtype_name};"):
            open_model("m", folder_paths(quantised), dtype_name, CPU)


def test_quantised_weights_under_another_config_are_refused(
    quantised: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for config, weights in ((tiny_model, quantised), (quantised, tiny_model)):
        folder = tmp_path / f"weights-of-{weights.name}"
        folder.mkdir()
        (folder / "config.json").write_bytes((config / "config.json").read_bytes())
        (folder / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes())
        with pytest.raises(ModelFileError, match=r"but config.json says that it is in"):
            open_model("m", folder_paths(folder), None, CPU)


def test_a_fingerprint_of_the_original_is_not_that_of_the_quantised_folder(
    quantised: Path, tiny_model: Path
) -> None:
    stated = open_model("m", folder_paths(tiny_model), None, CPU).key.fingerprint
    with pytest.raises(MismatchError, match=stated):
        open_model("m", folder_paths(quantised), None, CPU, fingerprint=stated)
