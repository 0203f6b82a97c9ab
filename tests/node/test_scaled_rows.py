"""Rows in 8 bit are close to what they were, and rounded once, however often they travel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import LocalProtocolError, MismatchError
from gptnode.node.scaled_rows import as_travelled, scale_down, scale_up
from gptnode.node.tensors import check_hidden, from_wire, to_wire
from gptnode.wire.messages import WireTensor

CPU = torch.device("cpu")
FINITE_BF16 = [
    bits for bits in range(1 << 16) if (bits >> 7) & 0xFF != 0xFF
]  # every number that bf16 has


def of_bits(rows: list[list[int]]) -> torch.Tensor:
    """(1, T, D) in bf16, from the bits of each number."""
    return torch.from_numpy(np.array([rows], dtype=np.uint16).view(np.int16)).view(torch.bfloat16)


widths = st.shared(st.integers(1, 40), key="width")
any_rows = widths.flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from(FINITE_BF16), min_size=width, max_size=width),
        min_size=1,
        max_size=4,
    )
).map(of_bits)
usual_rows = st.builds(
    lambda seed, tokens, width, exponent: (
        torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    ).to(torch.bfloat16),
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.integers(1, 300),
    st.integers(-90, 100),
)


@given(any_rows | usual_rows)
def test_a_row_that_travelled_is_sent_on_as_the_same_bytes(hidden: torch.Tensor) -> None:
    sent = to_wire(hidden, scaled=True)
    arrived = from_wire(sent, CPU, scaled=True)
    assert torch.isfinite(arrived).all()
    again = to_wire(arrived, scaled=True)
    assert (again.shape, bytes(again.data)) == (sent.shape, bytes(sent.data))
    assert torch.equal(from_wire(again, CPU, scaled=True), arrived)
    assert torch.equal(as_travelled(hidden), arrived)


@pytest.mark.parametrize("first", range(0, len(FINITE_BF16), 8192))
def test_every_number_of_bf16_travels_beside_every_other_magnitude(first: int) -> None:
    numbers = of_bits([FINITE_BF16[first : first + 8192]])[0, 0]
    partners = 2.0 ** torch.arange(-126, 128, dtype=torch.float32)
    rows = torch.stack(
        [torch.stack([numbers, torch.full_like(numbers, float(p))], dim=-1) for p in partners]
    )
    q, scales = scale_down(rows)
    again, same = scale_down(scale_up(q, scales))
    assert torch.equal(again, q)
    assert torch.equal(same, scales)


@given(any_rows | usual_rows)
def test_the_largest_number_stays_and_the_others_are_off_by_half_a_scale(
    hidden: torch.Tensor,
) -> None:
    arrived, exact = as_travelled(hidden).double(), hidden.double()
    largest = exact.abs().amax(-1, keepdim=True)
    half = largest / 127 / 2
    rounding = arrived.abs() * 2.0**-8 + 2.0**-100
    assert bool(((arrived - exact).abs() <= half + rounding).all())
    kept = largest >= 2.0**-100
    assert torch.equal(arrived.abs().amax(-1, keepdim=True)[kept], largest[kept])


@given(usual_rows)
def test_each_row_is_as_if_it_travelled_alone(hidden: torch.Tensor) -> None:
    whole = as_travelled(hidden)
    for row in range(hidden.shape[1]):
        assert torch.equal(whole[:, row : row + 1], as_travelled(hidden[:, row : row + 1]))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused_where_they_arrive(wrong: float) -> None:
    hidden = torch.ones(1, 2, 8, dtype=torch.bfloat16)
    hidden[0, 1, 3] = wrong
    arrived = from_wire(to_wire(hidden, scaled=True), CPU, scaled=True)
    with pytest.raises(MismatchError, match="hold NaN or Inf"):
        check_hidden(arrived, (1, 2, 8), torch.bfloat16, "ben")


def test_the_bytes_are_the_numbers_and_behind_them_the_scales() -> None:
    hidden = torch.tensor([[[127.0, -127.0, 1.5], [0.0, -254.0, 2.0]]], dtype=torch.bfloat16)
    wire = to_wire(hidden, scaled=True)
    assert (wire.dtype, wire.shape) == ("int8", (1, 2, 3))
    assert np.frombuffer(wire.data[:6], np.int8).tolist() == [127, -127, 2, 0, -127, 1]
    assert np.frombuffer(wire.data[6:], "<f4").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("n_bytes", [0, 23, 24, 25, 31, 33])
def test_another_size_than_numbers_and_scales_is_refused(n_bytes: int) -> None:
    WireTensor("int8", (1, 2, 12), bytes(32))
    with pytest.raises(LocalProtocolError, match=r"has 32 bytes, not"):
        WireTensor("int8", (1, 2, 12), bytes(n_bytes))


def test_a_form_that_was_not_agreed_on_is_refused() -> None:
    hidden = torch.ones(1, 2, 8, dtype=torch.bfloat16)
    with pytest.raises(MismatchError, match="are int8, agreed on was the model's own dtype"):
        from_wire(to_wire(hidden, scaled=True), CPU)
    with pytest.raises(MismatchError, match="are bf16, agreed on was scaled int8"):
        from_wire(to_wire(hidden), CPU, scaled=True)
