"""Tensors cross the wire without loss, and what can't be right is refused."""

from __future__ import annotations

import pytest
import torch

from gptnode.errors import MismatchError
from gptnode.node.tensors import check_hidden, from_wire, to_wire
from gptnode.wire.messages import WireTensor

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def random_hidden(dtype: torch.dtype = torch.float32, tokens: int = 3) -> torch.Tensor:
    return torch.randn(1, tokens, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tokens", [1, 3])
def test_a_tensor_comes_back_as_it_was(dtype: torch.dtype, tokens: int) -> None:
    hidden = random_hidden(dtype, tokens)
    back = from_wire(to_wire(hidden), CPU)
    assert back.dtype == dtype
    assert torch.equal(back, hidden)


def test_bytes_are_row_major_whatever_the_layout_was() -> None:
    turned = random_hidden().transpose(1, 2)
    assert to_wire(turned).data == to_wire(turned.contiguous()).data
    assert to_wire(turned).shape == (1, 8, 3)


def test_sending_from_the_cpu_copies_nothing() -> None:
    hidden = random_hidden()
    wire = to_wire(hidden)
    hidden.zero_()
    assert not from_wire(wire, CPU).any()


def test_what_was_received_may_be_written_to_and_the_frame_stays_as_it_was() -> None:
    frame = bytes(to_wire(random_hidden()).data)
    wire = WireTensor("f32", (1, 3, 8), memoryview(frame))
    from_wire(wire, CPU).zero_()
    assert torch.equal(from_wire(wire, CPU), random_hidden())


@pytest.mark.parametrize("scaled", [False, True])
def test_what_was_received_into_memory_of_its_own_lies_there(scaled: bool) -> None:
    hidden = random_hidden(torch.bfloat16)
    sent = to_wire(hidden, scaled=scaled)
    frame = bytearray(sent.data)
    arrived = from_wire(WireTensor(sent.dtype, (1, 3, 8), memoryview(frame)), CPU, scaled=scaled)
    again = arrived.clone()
    frame[:2] = bytes(2)
    assert torch.equal(arrived, again) is scaled  # it was made of the frame, or lies in it


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("offset", range(8))
def test_memory_that_numbers_can_not_lie_in_is_copied(dtype: torch.dtype, offset: int) -> None:
    hidden = random_hidden(dtype)
    data = bytes(to_wire(hidden).data)
    frame = memoryview(bytearray(bytes(offset) + data))[offset:]
    name = {torch.bfloat16: "bf16", torch.float32: "f32"}[dtype]
    arrived = from_wire(WireTensor(name, (1, 3, 8), frame), CPU)
    assert torch.equal(arrived, hidden)
    frame[:4] = bytes(4)
    aligned = offset % dtype.itemsize == 0
    assert (not arrived[0, 0, 0]) is aligned


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(wrong: float) -> None:
    hidden = random_hidden()
    check_hidden(hidden, (1, 3, 8), torch.float32, "ben")
    hidden[0, 2, 7] = wrong
    with pytest.raises(MismatchError, match="activations from ben hold NaN or Inf"):
        check_hidden(hidden, (1, 3, 8), torch.float32, "ben")


def test_another_shape_or_dtype_is_refused() -> None:
    for hidden in (random_hidden(tokens=2), random_hidden(torch.bfloat16)):
        with pytest.raises(MismatchError, match=r"activations from ben are .* instead of f32"):
            check_hidden(hidden, (1, 3, 8), torch.float32, "ben")


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_tensor_on_cuda_comes_back_as_it_was_however_busy_the_device_is(
    dtype: torch.dtype,
) -> None:
    device, busy = torch.device("cuda"), torch.randn(4096, 4096, device="cuda")
    for seed in range(20):
        hidden = torch.full((1, 512, 4096), float(seed), dtype=dtype)
        there = from_wire(to_wire(hidden), device)
        busy = busy @ busy / 64
        assert torch.equal(from_wire(to_wire(there + 1), CPU), hidden + 1)


def test_whole_numbers_from_a_peer_are_no_activations() -> None:
    """The wire lets them through (a later version may carry ids); nothing here can mean them."""
    with pytest.raises(MismatchError, match="i32"):
        from_wire(WireTensor("i32", (1, 1, 4), bytes(16)), CPU)
