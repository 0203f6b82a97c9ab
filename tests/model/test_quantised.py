"""Matrices of integers: exactly what the documented form says, and as accurate as it claims."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gptnode.model import quantised
from gptnode.model.quantised import (
    QuantisedWeight,
    empty_quantised,
    group_size,
    padded_width,
    quantise,
    quantise_into,
)

BITS = [8, 4]
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
numbers = st.floats(-1e4, 1e4, width=32).filter(lambda number: number == 0 or abs(number) > 1e-30)


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Small ones, of drawn numbers or of random ones over many magnitudes."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 300))
    if draw(st.booleans()):
        row = torch.tensor(draw(st.lists(numbers, min_size=1, max_size=40)))
        return row.repeat(rows, width // len(row) + 1)[:, :width].contiguous()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    plain = torch.randn(rows, width, generator=generator)
    return plain * 10.0 ** torch.randint(-8, 4, (rows, width), generator=generator)


def away_from_zero(number: Tensor) -> Tensor:
    """f32 -> bf16, the next one outwards if it isn't exact."""
    near = number.to(torch.bfloat16)
    if near.float().abs() >= number.abs():
        return near
    return torch.nextafter(near, torch.sign(near) * torch.tensor(torch.inf, dtype=torch.bfloat16))


def naive(weight: Tensor, bits: int) -> tuple[list[list[int]], list[list[float]]]:
    """Integers and scales of each row, group by group, element by element."""
    all_integers, all_scales = [], []
    for row in weight.float():
        padded = torch.cat([row, torch.zeros(padded_width(len(row)) - len(row))])
        integers, scales = [], []
        for group in padded.split(group_size(bits)):
            if bits == 8:
                scale = away_from_zero(max(abs(element) for element in group) / 127)
            else:
                least, most = min(group), max(group)
                scale = away_from_zero((most if most > -least else least) / -8)
            low, high = (-127, 127) if bits == 8 else (-8, 7)
            for element in group:
                # Python rounds halves to even, as the form demands.
                ratio = float(element / scale.float()) if scale else 0.0
                integers.append(min(max(round(ratio), low), high))
            scales.append(float(scale))
        all_integers.append(integers)
        all_scales.append(scales)
    return all_integers, all_scales


def unpacked(weight: QuantisedWeight) -> list[list[int]]:
    """The integers, read as the documentation of QuantisedWeight says, without torch."""
    if weight.bits == 8:
        return [[int(value) for value in row] for row in weight.values]
    rows = []
    for row in weight.values:
        integers: list[int] = []
        data = bytes(row.tolist())
        for start in range(0, len(data), 64):
            run = data[start : start + 64]
            integers += [byte % 16 - 8 for byte in run] + [byte // 16 - 8 for byte in run]
        rows.append(integers)
    return rows


@pytest.mark.parametrize("bits", BITS)
@given(weight=matrices())
def test_integers_and_scales_are_those_of_the_documented_form(weight: Tensor, bits: int) -> None:
    integers, scales = naive(weight, bits)
    found = quantise(weight, bits)
    assert found.scales.float().tolist() == scales
    assert unpacked(found) == integers


@pytest.mark.parametrize("bits", BITS)
@given(weight=matrices())
def test_a_weight_is_its_integer_times_its_scale(weight: Tensor, bits: int) -> None:
    found = quantise(weight, bits)
    integers = torch.tensor(unpacked(found), dtype=torch.float32)
    scales = found.scales.float().repeat_interleave(found.group, dim=1)
    wide = (integers * scales)[:, : weight.shape[1]]
    assert torch.equal(found.dequantise(torch.float32), wide)
    assert torch.equal(found.dequantise(), wide.to(torch.bfloat16))


@pytest.mark.parametrize("bits", BITS)
@given(weight=matrices())
def test_no_weight_is_off_by_more_than_half_a_scale(weight: Tensor, bits: int) -> None:
    found = quantise(weight, bits)
    scales = found.scales.float().repeat_interleave(found.group, dim=1)[:, : weight.shape[1]]
    off = (found.dequantise(torch.float32) - weight).abs()
    allowed = scales.abs() * 0.5001
    if bits == 4:
        # There is no +8: the largest of the other sign may be off by a whole scale.
        allowed = torch.where(weight * scales.sign() > 7.5 * scales.abs(), scales.abs(), allowed)
    assert bool((off <= allowed).all())


@pytest.mark.parametrize("bits", BITS)
@given(weight=matrices())
def test_padding_is_zero(weight: Tensor, bits: int) -> None:
    assert not any(any(row[weight.shape[1] :]) for row in unpacked(quantise(weight, bits)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bits", BITS)
@given(weight=matrices(), data=st.data())
def test_looked_up_rows_are_those_of_the_whole_matrix(
    weight: Tensor, bits: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    found = quantise(weight, bits)
    index = torch.tensor(
        [data.draw(st.lists(st.integers(0, len(weight) - 1), min_size=2, max_size=2))]
    )
    assert torch.equal(found.rows(index, dtype), found.dequantise(dtype)[index])


@pytest.mark.parametrize("bits", BITS)
def test_a_row_that_is_not_there_is_an_index_error(bits: int) -> None:
    with pytest.raises(IndexError):
        quantise(torch.ones(3, 4), bits).rows(torch.tensor([3]))


@pytest.mark.parametrize(("bits", "relative_error"), [(8, 0.01), (4, 0.10)])
@pytest.mark.parametrize("width", [2048, 8192, 2000])
def test_a_linear_layer_with_outlier_channels_is_within_its_error(
    bits: int, relative_error: float, width: int
) -> None:
    generator = torch.Generator().manual_seed(width)
    weight = (torch.randn(512, width, generator=generator) * 0.02).bfloat16()
    x = torch.randn(64, width, generator=generator)
    x[:, torch.randperm(width, generator=generator)[: width // 1000]] *= 60
    exact = x @ weight.float().T
    got = x @ quantise(weight, bits).dequantise(torch.float32).T
    assert (got - exact).norm() / exact.norm() <= relative_error


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bits", BITS)
def test_every_float_dtype_is_quantised_as_its_own_numbers(dtype: torch.dtype, bits: int) -> None:
    weight = torch.randn(5, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert_equal(quantise(weight, bits), quantise(weight.float(), bits))


@pytest.mark.parametrize("bits", BITS)
def test_a_matrix_that_is_taken_in_parts_is_the_same(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(37, 300, generator=torch.Generator().manual_seed(0))
    whole = quantise(weight, bits)
    wide = whole.dequantise()
    monkeypatch.setattr(quantised, "BLOCK_WEIGHTS", 5 * 384)
    assert_equal(quantise(weight, bits), whole)
    assert torch.equal(whole.dequantise(), wide)
    parts = empty_quantised((37, 300), bits, torch.device("cpu"))
    for first in (30, 0, 11):
        quantise_into(weight[first : {0: 11, 11: 30, 30: 37}[first]], parts, first)
    assert_equal(parts, whole)


@pytest.mark.parametrize("bits", BITS)
def test_sizes_are_those_of_the_form(bits: int) -> None:
    found = quantise(torch.ones(10, 300), bits)
    assert (found.bits, found.shape, found.group) == (bits, (10, 300), {8: 128, 4: 32}[bits])
    assert found.nbytes == 10 * 384 * bits // 8 + 10 * 384 // found.group * 2
    assert found.values.shape == (10, 384 * bits // 8)
    assert found.to(torch.device("cpu")) is found
    assert found.to(torch.device("meta")).values.device.type == "meta"


def test_weights_that_fit_a_scale_come_back_exactly() -> None:
    eight = torch.arange(-127, 129).remainder(255).sub(127).float().view(1, -1) * 0.25
    eight[0, 0] = eight[0, 128] = 127 * 0.25
    assert torch.equal(quantise(eight, 8).dequantise(torch.float32), eight)
    four = torch.arange(-8, 8).float().repeat(16).view(2, -1) * torch.tensor([[0.5], [-0.5]])
    assert torch.equal(quantise(four, 4).dequantise(torch.float32), four)


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("bits", BITS)
def test_groups_of_zeros_are_the_same_bits_whatever_their_sign(bits: int, zero: float) -> None:
    found = quantise(torch.full((2, 200), zero), bits)
    assert found.values.unique().tolist() == [0 if bits == 8 else 0x88]
    assert not found.scales.view(torch.int16).any()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(bits: int, bad: float) -> None:
    weight = torch.ones(3, 200)
    weight[1, 150] = bad
    with pytest.raises(ValueError, match="NaN or Inf"):
        quantise(weight, bits)


def test_what_is_no_matrix_of_floats_is_refused() -> None:
    with pytest.raises(ValueError, match="no matrix of floats"):
        quantise(torch.ones(3), 8)
    with pytest.raises(ValueError, match="no matrix of floats"):
        quantise(torch.ones(3, 3, dtype=torch.int8), 8)
    with pytest.raises(ValueError, match="3 bits; there are 8 and 4"):
        quantise(torch.ones(3, 3), 3)


@pytest.mark.parametrize(
    ("values", "scales", "problem"),
    [
        (torch.zeros(4, 128), torch.zeros(4, 1).bfloat16(), "neither int8 nor uint8"),
        (torch.zeros(4, 128, dtype=torch.int8), torch.zeros(4, 1), "not bfloat16"),
        (torch.zeros(4, 64, dtype=torch.int8), torch.zeros(4, 1).bfloat16(), "8 bit, which takes"),
        (torch.zeros(4, 64, dtype=torch.uint8), torch.zeros(4, 1).bfloat16(), "4 bit, which takes"),
        (torch.zeros(3, 128, dtype=torch.int8), torch.zeros(3, 1).bfloat16(), "8 bit, which takes"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(values: Tensor, scales: Tensor, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        QuantisedWeight(values, scales, (4, 100))


@pytest.mark.parametrize(("shape", "first"), [((3, 101), 0), ((3, 100), 2)])
def test_rows_that_do_not_fit_are_refused(shape: tuple[int, int], first: int) -> None:
    with pytest.raises(ValueError, match="in a matrix"):
        quantise_into(torch.ones(shape), quantise(torch.ones(4, 100), 8), first)


def assert_equal(found: QuantisedWeight, expected: QuantisedWeight) -> None:
    assert found.shape == expected.shape
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.scales, expected.scales)
