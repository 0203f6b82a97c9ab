"""How a model asks to be sampled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptnode.model.own_sampling import own_sampling
from gptnode.model.sampler import Sampling

PLAIN = Sampling()


def asks_for(folder: Path, **wishes: Any) -> Sampling:
    (folder / "generation_config.json").write_text(json.dumps(wishes))
    return own_sampling(folder)


def test_a_model_that_does_not_say_gets_gptnodes_own(tmp_path: Path) -> None:
    assert own_sampling(tmp_path) == PLAIN
    assert asks_for(tmp_path, temperature=0.2) == PLAIN
    (tmp_path / "generation_config.json").write_text("[1]")
    assert own_sampling(tmp_path) == PLAIN


def test_a_model_may_ask_for_the_likeliest_token(tmp_path: Path) -> None:
    assert asks_for(tmp_path, do_sample=False, temperature=0.6).greedy


def test_a_model_may_ask_for_values_of_its_own(tmp_path: Path) -> None:
    found = asks_for(tmp_path, do_sample=True, temperature=0.6, top_k=50, top_p=0.9)
    assert found == Sampling(temperature=0.6, top_k=50, top_p=0.9)
    assert asks_for(tmp_path, do_sample=True) == Sampling(temperature=1.0, top_p=1.0)


@pytest.mark.parametrize(
    "wish",
    [{"top_p": 7}, {"temperature": "hot"}, {"top_k": True}, {"min_p": None}, {"top_k": 1e999}],
)
def test_a_wish_that_makes_no_sense_is_left_out(tmp_path: Path, wish: dict[str, Any]) -> None:
    assert asks_for(tmp_path, do_sample=True, **wish) == Sampling(temperature=1.0, top_p=1.0)
