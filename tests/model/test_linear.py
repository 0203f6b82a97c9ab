"""Linear layers over floats and integers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gptnode.model import linear
from gptnode.model.linear import Linear, Scratch
from gptnode.model.quantised import quantise


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("at_once", [1, 100 * 7, 2**23])
def test_products_are_those_of_the_written_out_weights_however_many_at_a_time(
    at_once: int, bits: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "WRITTEN_OUT", at_once)
    generator = torch.Generator().manual_seed(0)
    weight = quantise(torch.randn(33, 100, generator=generator), bits)
    x = torch.randn(2, 5, 100, generator=generator).to(torch.bfloat16)
    bias = torch.randn(33, generator=generator).to(torch.bfloat16) if biased else None
    found = Linear(weight, bias)(x, Scratch(), "any")
    expected = F.linear(x.float(), weight.dequantise(torch.float32))
    expected = expected if bias is None else expected + bias
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.05)


def test_products_are_made_in_memory_that_is_kept() -> None:
    scratch, layer = Scratch(), Linear(torch.eye(4))
    large = layer(torch.ones(8, 4), scratch, "any")
    small = layer(torch.full((2, 4), 3.0), scratch, "any")
    assert small.data_ptr() == large.data_ptr()
    assert small.tolist() == [[3.0] * 4] * 2
    assert layer(torch.ones(2, 4), scratch, "other").data_ptr() != large.data_ptr()
