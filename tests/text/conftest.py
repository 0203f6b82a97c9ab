"""Small tokenizers of the families that real models use, in model folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptnode.text.tokenizer import Tokenizer
from tests.text.makers import MARKS, byte_level_json, other_json, sentencepiece_json

Maker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Writes a model folder with a tokenizer.json and the other JSON files that are given."""

    def make(data: dict[str, Any], template: str | None = None, /, **files: Any) -> Path:
        folder = tmp_path_factory.mktemp("model")
        (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        return folder

    return make


NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="session")
def byte_level(make_folder: Maker) -> Tokenizer:
    """Byte-level BPE with every mark as a control token, BOS by the post-processor."""
    folder = make_folder(byte_level_json(MARKS, bos="<s>"), tokenizer_config=NAMES)
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="session")
def llama_2(make_folder: Maker) -> Tokenizer:
    """Llama 2's kind, as its legacy tokenizer.json has it."""
    return Tokenizer.from_folder(make_folder(sentencepiece_json(), tokenizer_config=NAMES))


@pytest.fixture(scope="session")
def llama_2_new(make_folder: Maker) -> Tokenizer:
    """Llama 2's kind in the newer form."""
    return Tokenizer.from_folder(
        make_folder(sentencepiece_json(legacy=False), tokenizer_config=NAMES)
    )


@pytest.fixture(scope="session")
def wordpiece(make_folder: Maker) -> Tokenizer:
    """A tokenizer whose tokens' texts depend on their neighbours."""
    return Tokenizer.from_folder(make_folder(other_json("wordpiece")))


@pytest.fixture(scope="session")
def metaspace(make_folder: Maker) -> Tokenizer:
    """SentencePiece without bytes, decoded by the library's Metaspace."""
    return Tokenizer.from_folder(make_folder(other_json("metaspace")))


@pytest.fixture(params=["byte_level", "llama_2", "llama_2_new"])
def any_family(request: pytest.FixtureRequest) -> Tokenizer:
    """Each of the families that stream byte by byte."""
    tokenizer = request.getfixturevalue(request.param)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer
