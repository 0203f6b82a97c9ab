"""Where the bundled model is. Reads no weights and needs no torch."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from gptnode.errors import ModelFileError

__all__ = ["MODEL_NAME", "bundled_model_folder", "count_blocks"]

MODEL_NAME = "gptnode-demo"
"""What the bundled model is called in a BlocksMap."""


def bundled_model_folder() -> Path:
    """The folder with the bundled model's config.json, weights and tokenizer.

    Raises:
        ModelFileError: the package was installed without it.
    """
    folder = Path(str(resources.files("gptnode.demo"))) / "model"
    if not (folder / "config.json").is_file():
        raise ModelFileError(f"{folder}: the bundled model is missing from this installation")
    return folder


def count_blocks(folder: Path) -> int:
    """How many Transformer blocks the model in ``folder`` has, out of its config.json.

    Raises:
        ModelFileError: the file can't be read or doesn't say.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {path}: {error}") from error
    n_blocks = config.get("num_hidden_layers") if isinstance(config, dict) else None
    if not isinstance(n_blocks, int) or n_blocks < 1:
        raise ModelFileError(f"{path}: num_hidden_layers is no whole number above 0")
    return n_blocks
