"""How a model asks to be sampled: its generation_config.json, read with forbearance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from gptnode.errors import UsageError
from gptnode.model.sampler import Sampling

__all__ = ["own_sampling"]

WISHES = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def own_sampling(folder: Path) -> Sampling:
    """What ``generation_config.json`` in ``folder`` asks for; gptnode's own values without one.

    ``"do_sample": false`` is greedy; ``true`` takes the file's values, and else all tokens at
    temperature 1. A value out of range is left out: an answer should not fail for a wish.
    """
    try:
        wishes = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Sampling()
    if not isinstance(wishes, dict) or not isinstance(wishes.get("do_sample"), bool):
        return Sampling()
    if not wishes["do_sample"]:
        return Sampling(temperature=0.0, top_p=1.0)
    found = Sampling(temperature=1.0, top_p=1.0)
    for name in WISHES:
        value = wishes.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        try:
            asked: dict[str, Any] = {name: int(value) if name == "top_k" else float(value)}
            found = replace(found, **asked)
        except (UsageError, OverflowError, ValueError):  # int() of infinity and of NaN
            continue
    return found
