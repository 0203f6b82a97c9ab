"""Small tokenizers of the families that real models use, trained here on a few sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tokenizers
from hypothesis import HealthCheck, settings
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

# Fixtures here don't change, and a busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CORPUS = [
    "Hello there, how are you today? I am fine, thank you very much.",
    "A BlocksMap says which peer runs which blocks of which model.",
    "The quick brown fox jumps over the lazy dog. 1234567890",
    "user assistant system instruction response Instruction: Response: User: Assistant:",
    "Schöne Grüße aus Köln, où êtes-vous?",
] * 4
MARKS = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
]


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
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [token_id], "tokens": [bos]}},
        }
    return data
