"""The kernels against their definitions in torch, and what they promise about rows and threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptnode.model.native import binding
from gptnode.model.quantised import QuantisedWeight, empty_quantised, quantise, quantise_into
from gptnode.model.rope import rotate

BF16 = torch.bfloat16
KINDS = ["bf16", "int8", "int4"]
# Outputs and inputs: whole tiles, odd ones, fewer than a vector, several groups and a rest.
SHAPES = [(64, 256), (7, 96), (33, 200), (130, 1000), (1, 2), (5, 8192)]
# Against exact sums of the very weights: rounding of sums, and of activations beside integers.
TOLERANCE = {"bf16": 1e-5, "int8": 2e-4, "int4": 1e-2}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(BF16)


def weight_of(kind: str, shape: tuple[int, int], seed: int = 1) -> Tensor | QuantisedWeight:
    weight = random(*shape, seed=seed) * 0.02
    return weight if kind == "bf16" else quantise(weight, {"int8": 8, "int4": 4}[kind])


def products(kind: str, shape: tuple[int, int], x: Tensor, bias: Tensor | None = None) -> Tensor:
    weight = weight_of(kind, shape)
    return binding.head(binding.matrix(weight, bias), None, 0.0, x)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_their_definition(kind: str, shape: tuple[int, int], rows: int) -> None:
    weight, x, bias = weight_of(kind, shape), random(rows, shape[1]), random(shape[0], seed=2)
    wide = weight.dequantise(torch.float32) if isinstance(weight, QuantisedWeight) else weight
    expected = x.double() @ wide.double().T + bias.double()
    found = products(kind, shape, x, bias)
    assert (found - expected).norm() <= TOLERANCE[kind] * expected.norm()


# The second is longer than what the first cache holds of a row, so its sums are made in parts.
@pytest.mark.parametrize(("rows", "shape"), [(9, (130, 1000)), (30, (17, 9000))])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_to_the_bit_in_any_company_and_with_any_threads(
    kind: str, rows: int, shape: tuple[int, int]
) -> None:
    x = random(rows, shape[1])
    x[3] *= 1000  # a row of another magnitude must not coarsen the others
    together = products(kind, shape, x)
    alone = torch.cat([products(kind, shape, row[None]) for row in x])
    assert torch.equal(together, alone)
    for count in (1, 3):
        with threads(count):
            assert torch.equal(products(kind, shape, x), together)


@pytest.mark.parametrize(("kind", "limit"), [("int8", 0.01), ("int4", 0.10)])
@pytest.mark.parametrize("rows", [1, 16])
def test_outlier_channels_leave_the_others_their_digits(kind: str, limit: float, rows: int) -> None:
    """Gaussian weights and activations, one channel of a thousand 60 times as large."""
    weight = torch.randn(512, 4096, generator=torch.Generator().manual_seed(3)).to(BF16)
    x = torch.randn(rows, 4096, generator=torch.Generator().manual_seed(4))
    x[:, ::1000] *= 60
    x = x.to(BF16)
    expected = x.double() @ weight.double().T
    packed = quantise(weight, 8 if kind == "int8" else 4)
    found = binding.head(binding.matrix(packed), None, 0.0, x)
    assert (found - expected).norm() <= limit * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_never_hidden(kind: str, bad: float) -> None:
    x = random(3, 200)
    x[1, 150] = bad
    finite = products(kind, (33, 200), x).isfinite()
    assert finite[0].all() and finite[2].all()
    assert not finite[1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_zeros_give_zeros(kind: str) -> None:
    assert not products(kind, (33, 200), torch.zeros(2, 200, dtype=BF16)).any()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 300),
    bits=st.sampled_from([8, 4]),
    seed=st.integers(0, 2**31),
)
def test_integers_and_scales_are_those_of_the_reference(
    rows: int, width: int, bits: int, seed: int
) -> None:
    weight = random(rows, width, seed=seed) * 10.0 ** (seed % 9 - 6)
    weight[seed % rows, : width // 2] = 0
    found, expected = (empty_quantised((rows, width), bits, torch.device("cpu")) for _ in "ab")
    binding.quantise_into(weight, found, 0)
    quantise_into(weight, expected, 0)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.scales.view(torch.int16), expected.scales.view(torch.int16))
    written = binding.dequantise(found, torch.empty(rows, width, dtype=BF16))
    assert torch.equal(written, expected.dequantise())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(bits: int, bad: float) -> None:
    weight = random(3, 200)
    weight[1, 150] = bad
    with pytest.raises(ValueError, match="NaN or Inf"):
        binding.quantise_into(weight, empty_quantised((3, 200), bits, torch.device("cpu")), 0)


def test_the_norm_is_torchs_to_one_place() -> None:
    x, weight = random(17, 200) * 3, random(200, seed=5)
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
    expected = weight * wide.to(BF16)
    torch.testing.assert_close(binding.rmsnorm(x, weight, 1e-5), expected, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("width", [2, 16, 64, 80, 128])
def test_rotations_are_torchs_to_the_bit(width: int) -> None:
    x, angles = random(11, 6, width), torch.rand(11, 1, width) * 7
    cosines, sines = angles.cos().to(BF16), angles.sin().to(BF16)
    expected = rotate(x[None], cosines, sines)[0]
    assert torch.equal(binding.rotate(x.clone(), cosines, sines), expected)


def test_the_gate_is_torchs_to_one_place() -> None:
    gate, up = random(3, 5001) * 6, random(3, 5001, seed=6)
    gate[0, :4] = torch.tensor([0.0, -200.0, 200.0, 30000.0])
    expected = F.silu(gate) * up
    found = binding.silu_mul(gate.clone(), up)
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-30)


def test_what_would_be_read_past_its_end_is_refused() -> None:
    matrix = binding.matrix(random(4, 8))
    with pytest.raises(ValueError):
        binding.head(matrix, None, 0.0, random(1, 7))
    with pytest.raises(ValueError):
        binding.head(matrix, None, 0.0, random(1, 8).float())
    with pytest.raises(ValueError):
        binding.rotate(random(2, 1, 8), random(1, 8), random(2, 8))
    with pytest.raises(ValueError):
        binding.silu_mul(random(2, 8), random(2, 7))
    with pytest.raises(ValueError):
        binding.dequantise(quantise(random(2, 8), 8), torch.empty(2, 9, dtype=BF16))
    with pytest.raises(ValueError):
        binding.quantise_into(random(2, 8), empty_quantised((2, 8), 8, torch.device("cpu")), 1)
    with pytest.raises(ValueError):
        binding.matrix(random(8, 4).T)


@pytest.mark.parametrize(
    "heads", [(4, 4, 64), (8, 2, 64), (6, 2, 128), (5, 1, 16), (4, 2, 80), (6, 2, 24)]
)
@pytest.mark.parametrize(("tokens", "length"), [(1, 1), (1, 700), (40, 40), (33, 1100)])
def test_attention_is_its_definition(tokens: int, length: int, heads: tuple[int, int, int]) -> None:
    n_heads, n_kv_heads, width = heads
    queries = random(tokens, n_heads, width)
    keys, values = (random(length, n_kv_heads, width, seed=seed) for seed in (7, 8))
    q, k, v = (x.double().transpose(0, 1) for x in (queries, keys, values))
    k, v = (x.repeat_interleave(n_heads // n_kv_heads, 0) for x in (k, v))
    later = torch.ones(tokens, length).triu(length - tokens + 1).bool()
    scores = (q @ k.transpose(1, 2) / width**0.5).masked_fill(later, -torch.inf)
    expected = (scores.softmax(-1) @ v).transpose(0, 1)
    found = binding.attend(queries, keys, values)
    assert (found - expected).norm() <= 3e-3 * expected.norm()
    for count in (1, 3):
        with threads(count):
            assert torch.equal(binding.attend(queries, keys, values), found)
