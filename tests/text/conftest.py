"""Small tokenizers of the families that real models use, trained here on a few sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from gptnode.text.tokenizer import Tokenizer

CORPUS = [
    "Hello there, how are you today? I am fine, thank you very much.",
    "A BlocksMap says which peer runs which blocks of which model.",
    "The quick brown fox jumps over the lazy dog. 1234567890",
    "user assistant system instruction response Instruction: Response: User: Assistant:",
    "Schöne Grüße aus Köln, où êtes-vous?",
] * 4
MARKS = (
    "<s> </s> <|im_start|> <|im_end|> <|im_sep|> <|start_header_id|> <|end_header_id|> <|eot_id|> "
    "<start_of_turn> <end_of_turn> [INST] [/INST] <|user|> <|assistant|> <|system|> <|end|>"
).split()


def byte_level_json(specials: Sequence[str], *, bos: str | None = None) -> dict[str, Any]:
    """As GPT-2 and Llama 3; ``bos`` is put in front by the post-processor."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(CORPUS, trainer)
    library.add_special_tokens(list(specials))
    return with_bos(json.loads(library.to_str()), bos)


def sentencepiece_json(
    specials: Sequence[str] = (), *, bos: str | None = "<s>", legacy: bool = True
) -> dict[str, Any]:
    """As Llama 1 and 2: BPE over "▁" with a token for each byte.

    ``legacy`` puts a space before each stretch of text between control tokens, the newer form only
    before the first.
    """
    library = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
    if legacy:
        library.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    library.train_from_iterator(
        [line for line in CORPUS if line.isascii()],
        trainers.BpeTrainer(vocab_size=300, show_progress=False),
    )
    data = json.loads(library.to_str())
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learned = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    data["model"]["vocab"] = {token: place for place, token in enumerate([*first, *learned])}
    data["model"]["unk_token"] = "<unk>"
    whole = tokenizers.Tokenizer.from_str(json.dumps(data))
    whole.add_special_tokens(
        [AddedToken(t, normalized=False) for t in ["<unk>", "<s>", "</s>", *specials]]
    )
    return with_bos(json.loads(whole.to_str()), bos)


def other_json(kind: str) -> dict[str, Any]:
    """Decoders that belong to neither byte family."""
    if kind == "wordpiece":
        library = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=200, special_tokens=["[UNK]"], show_progress=False
        )
    else:
        library = tokenizers.Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        library.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False)
    library.train_from_iterator(CORPUS, trainer)
    data: dict[str, Any] = json.loads(library.to_str())
    return data


def with_bos(data: dict[str, Any], bos: str | None) -> dict[str, Any]:
    """Adds the post-processor that puts ``bos`` before each text."""
    if bos is not None:
        token_id = next(token["id"] for token in data["added_tokens"] if token["content"] == bos)
        data["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": bos, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [token_id], "tokens": [bos]}},
        }
    return data


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
