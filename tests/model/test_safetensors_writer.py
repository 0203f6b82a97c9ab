"""Files that are written tensor by tensor are what the reference implementation reads."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, load_file

from gptnode.model.dtypes import STORED_DTYPES
from gptnode.model.safetensors_file import read_safetensors_header
from gptnode.model.safetensors_writer import ALIGNMENT, SafetensorsWriter, plan_file

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
PLAN = [("b", "I8", (2, 64)), ("a", "BF16", (3,)), ("c", "F32", (1, 2))]


def tensor_of(dtype: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, shape, generator=generator).to(STORED_DTYPES[dtype])


@given(
    listed=st.dictionaries(
        st.text(max_size=20).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(sorted(STORED_DTYPES)), SHAPES),
        min_size=1,
        max_size=6,
    ),
    order=st.randoms(use_true_random=False),
)
def test_the_reference_implementation_reads_what_was_written(
    listed: dict[str, tuple[str, tuple[int, ...]]],
    order: Random,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tensors = {
        name: tensor_of(dtype, shape, seed)
        for seed, (name, (dtype, shape)) in enumerate(listed.items())
    }
    file = tmp_path_factory.mktemp("written") / "model.safetensors"
    entries, header = plan_file(file, [(name, *described) for name, described in listed.items()])
    names = list(tensors)
    order.shuffle(names)
    with SafetensorsWriter(entries, header) as writer:
        for name in names:
            writer.write(name, tensors[name])
    found = load(file.read_bytes())
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert set(read_safetensors_header(file)) == set(entries)


def test_the_first_tensor_begins_at_a_cache_line(tmp_path: Path) -> None:
    for length in range(1, 70):
        entries, header = plan_file(tmp_path / "f", [("n" * length, "I8", (4,))])
        assert entries[0].offset == len(header)
        assert len(header) % ALIGNMENT == 0


def test_a_tensor_that_was_not_planned_so_is_refused(tmp_path: Path) -> None:
    entries, header = plan_file(tmp_path / "f", PLAN)
    with SafetensorsWriter(entries, header) as writer:
        for name, dtype, shape in PLAN:
            writer.write(name, tensor_of(dtype, shape, 0))
        with pytest.raises(ValueError, match=r"f: tensor a is torch.bfloat16 \(4,\)"):
            writer.write("a", torch.zeros(4, dtype=torch.bfloat16))
        with pytest.raises(ValueError, match=r"tensor a is torch.float32"):
            writer.write("a", torch.zeros(3))
    assert set(load_file(tmp_path / "f")) == {"a", "b", "c"}


def test_a_tensor_that_was_forgotten_is_named(tmp_path: Path) -> None:
    entries, header = plan_file(tmp_path / "f", PLAN)
    with (
        pytest.raises(ValueError, match="never written: a, c"),
        SafetensorsWriter(entries, header) as writer,
    ):
        writer.write("b", tensor_of("I8", (2, 64), 0))


def test_an_error_in_the_block_is_the_one_that_is_raised(tmp_path: Path) -> None:
    entries, header = plan_file(tmp_path / "f", PLAN)
    with pytest.raises(KeyError, match="mine"), SafetensorsWriter(entries, header):
        raise KeyError("mine")
