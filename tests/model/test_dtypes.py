"""One list of dtypes, wherever their names are written."""

from __future__ import annotations

import click
import torch

from gptnode.cli.options import dtype_option
from gptnode.model.dtypes import DTYPES, FLOAT_DTYPES, QUANTISED_BITS, activation_name, dtype_name
from gptnode.routing.both_forms import DTYPES as MAP_DTYPES
from gptnode.wire.messages import MODEL_DTYPES
from gptnode.wire.tensor import ITEMSIZE_BYTES


def test_maps_options_and_the_wire_know_the_same_dtypes() -> None:
    @click.command()
    @dtype_option
    def command(dtype: str | None) -> None:
        """Has the option."""

    kind = command.params[0].type
    assert isinstance(kind, click.Choice)
    assert set(kind.choices) == set(MAP_DTYPES) == set(MODEL_DTYPES) == set(DTYPES)


def test_activations_travel_in_a_dtype_of_the_wire_with_torch_own_size() -> None:
    for name, dtype in DTYPES.items():
        assert dtype_name(dtype) == activation_name(name)
        assert ITEMSIZE_BYTES[activation_name(name)] == dtype.itemsize


def test_quantised_models_compute_in_bf16() -> None:
    assert set(QUANTISED_BITS) == set(DTYPES) - set(FLOAT_DTYPES)
    assert {DTYPES[name] for name in QUANTISED_BITS} == {torch.bfloat16}
