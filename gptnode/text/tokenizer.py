"""Text to token ids and back, whole or as it streams.

Wraps the `tokenizers` library and the small JSON files that lie beside a tokenizer.json. Knows no
chat and no model: what a BOS is good for and what ends an answer is decided elsewhere.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

from gptnode.errors import TextError
from gptnode.text.model_files import read_json_object, read_text
from gptnode.text.token_bytes import TokenBytes, token_bytes_of

__all__ = ["StreamDecoder", "Tokenizer"]

# A character takes at most four tokens; more in doubt is text that will never become valid.
MAX_TOKENS_IN_DOUBT = 16
REPLACEMENT = "\ufffd"


class Tokenizer:
    """One model's tokenizer. Made by `from_folder` or `from_file`; doesn't change afterwards.

    Attributes:
        vocab_size: One more than the largest id.
        bos_id, bos_token: What begins a text, as id and as text; None if the model has none.
        eos_token: What ends a text, as text.
        eos_ids: All ids that end an answer.
        special_ids: Ids that are control tokens: `decode` leaves them out.
        wants_bos: Whether the model was trained to see BOS at the start.
        for_grammars: What `gptnode.text.grammar` has made of it, once it has.
    """

    def __init__(
        self, library: tokenizers.Tokenizer, settings: Mapping[str, object], eos_ids: frozenset[int]
    ) -> None:
        """``settings`` are those of tokenizer_config.json; see `from_folder`."""
        self.for_grammars: tuple[frozenset[int], Any] | None = None
        # A tokenizer.json may carry the settings of somebody's training run.
        library.no_truncation()
        library.no_padding()
        self._library = library
        added = library.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self.vocab_size = max(library.get_vocab().values(), default=-1) + 1
        self.bos_token = _token_text(settings.get("bos_token"))
        self.eos_token = _token_text(settings.get("eos_token"))
        self.bos_id = self.id_of(self.bos_token) if self.bos_token else None
        eos_id = self.id_of(self.eos_token) if self.eos_token else None
        self.eos_ids = eos_ids if eos_id is None else eos_ids | {eos_id}
        decoder = library.decoder
        # Its pickled state is the same JSON that tokenizer.json has for it.
        self._token_bytes = token_bytes_of(json.loads(decoder.__getstate__()) if decoder else None)
        self._pieces: dict[int, bytes] = {}
        front = next(iter(library.encode("a", add_special_tokens=True).ids), None)
        if self.bos_id is None and front in self.special_ids and front is not None:
            self.bos_id, self.bos_token = front, self._added[front]
        asked = settings.get("add_bos_token")
        wants = asked if isinstance(asked, bool) else front == self.bos_id
        self.wants_bos = wants and self.bos_id is not None
        newline = self._encode("\n")
        after_newline = self._encode("\nx")
        self._adds_prefix = after_newline[: len(newline)] == newline and after_newline[
            len(newline) :
        ] != self._encode("x")

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a model folder in Hugging Face form.

        tokenizer_config.json, special_tokens_map.json, generation_config.json and config.json are
        read if they are there; the ids that end an answer are the union of what they say.

        Raises:
            TextError: tokenizer.json is missing, or one of the files is not what it should be.
        """
        return cls.from_file(folder / "tokenizer.json")

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """The tokenizer in ``path``, a tokenizer.json, with what lies beside it.

        Raises:
            TextError: as `from_folder`.
        """
        text = read_text(path)
        if text is None:
            raise TextError(f"{path} is missing")
        with _library_errors(f"{path} is not a tokenizer"):
            library = tokenizers.Tokenizer.from_str(text)
        folder = path.parent
        settings = read_json_object(folder / "special_tokens_map.json")
        settings |= read_json_object(folder / "tokenizer_config.json")
        config = read_json_object(folder / "config.json")
        generation = read_json_object(folder / "generation_config.json")
        eos_ids = {
            *_ids(config.get("eos_token_id"), folder / "config.json"),
            *_ids(generation.get("eos_token_id"), folder / "generation_config.json"),
        }
        bos_ids = _ids(config.get("bos_token_id"), folder / "config.json")
        if not _token_text(settings.get("bos_token")) and bos_ids:
            settings["bos_token"] = library.id_to_token(bos_ids[0])
        if not _token_text(settings.get("eos_token")) and eos_ids:
            settings["eos_token"] = library.id_to_token(min(eos_ids))
        with _library_errors(f"{path} can't be used"):
            return cls(library, settings, frozenset(eos_ids))

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``: control tokens written in it are recognised, none are added."""
        return self._encode(text)

    def encode_continuation(self, text: str, last_token: str = "") -> list[int]:
        """The ids of ``text`` as it stands behind other text, which ends with ``last_token``.

        Some tokenizers put a space before a text, some control tokens swallow the white space
        behind them. So ``text`` is encoded behind the control token that it follows, or else behind
        a line feed, as transformers does it; what stands before is then taken away.
        """
        before = last_token or ("\n" if self._adds_prefix else "")
        front = self._encode(before)
        ids = self._encode(before + text)
        return ids[len(front) :] if ids[: len(front)] == front else self._encode(text)

    def decode(self, ids: Iterable[int], *, keep_special: bool = False) -> str:
        """The text of ``ids``; bytes that are not UTF-8 become U+FFFD, unknown ids nothing."""
        if self._token_bytes is None:
            known = [i for i in ids if 0 <= i < self.vocab_size]
            with _library_errors("the tokenizer can't decode"):
                return self._library.decode(known, skip_special_tokens=not keep_special)
        data = b"".join(
            self.piece(i) if keep_special or i not in self.special_ids else b"" for i in ids
        )
        text = data.decode("utf-8", "replace")
        strip = self._token_bytes.strip_spaces
        return text[min(strip, len(text) - len(text.lstrip(" "))) :]

    def piece(self, token_id: int) -> bytes:
        """The bytes of one token, control tokens with their text; none for an unknown id."""
        known = self._pieces.get(token_id)
        if known is not None:
            return known
        data = b""
        if 0 <= token_id < self.vocab_size:
            added = self._added.get(token_id)
            token = added if added is not None else self._library.id_to_token(token_id)
            rules = self._token_bytes or TokenBytes(str.encode, str.encode)
            if token is not None:
                data = (rules.model_token if added is None else rules.added_token)(token)
        self._pieces[token_id] = data
        return data

    @property
    def streams_bytes(self) -> bool:
        """Whether text is the concatenation of the tokens' bytes."""
        return self._token_bytes is not None

    @property
    def strip_spaces(self) -> int:
        """How many spaces `decode` takes away at the start."""
        return self._token_bytes.strip_spaces if self._token_bytes else 0

    def as_json(self) -> str:
        """All of it, as tokenizer.json has it."""
        return self._library.to_str()

    def vocabulary(self) -> dict[str, int]:
        """All tokens with their ids, control tokens too."""
        return self._library.get_vocab(with_added_tokens=True)

    def id_of(self, token: str) -> int | None:
        """The id of the token that is written ``token`` in the vocabulary, or None."""
        return self._library.token_to_id(token)

    def __contains__(self, token: object) -> bool:
        """Whether ``token`` is written so in the vocabulary."""
        return isinstance(token, str) and self.id_of(token) is not None

    def special_id(self, text: str) -> int | None:
        """The id of the control token ``text``; None if it is ordinary text."""
        token_id = self.id_of(text)
        return token_id if token_id in self.special_ids else None

    @property
    def added_texts(self) -> tuple[str, ...]:
        """The texts of all added tokens, control tokens among them."""
        return tuple(self._added.values())

    def _encode(self, text: str) -> list[int]:
        """Lone surrogates, as a terminal may deliver them, are no text."""
        clean = text.encode("utf-8", "replace").decode()
        with _library_errors("the tokenizer can't encode"):
            ids: list[int] = self._library.encode(clean, add_special_tokens=False).ids
        return ids


class StreamDecoder:
    """Turns ids into text one by one, and never shows half a character.

    What `push` and `flush` return is, put together, `Tokenizer.decode` of all the ids. For the
    byte families of `token_bytes` that is exact and a token costs its own bytes. For other decoders
    a short window is decoded again with each token, as text-generation-inference does it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Starts before the first token of a text."""
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strip_spaces
        self._shown_ids: list[int] = []
        self._new_ids: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that ``token_id`` makes complete; empty for control tokens."""
        if token_id in self._tokenizer.special_ids:
            return ""
        if self._tokenizer.streams_bytes:
            return self._utf8.decode(self._stripped(self._tokenizer.piece(token_id)))
        self._new_ids.append(token_id)
        return self._window(at_end=len(self._new_ids) >= MAX_TOKENS_IN_DOUBT)

    def flush(self) -> str:
        """Ends the text: what remains, half characters as U+FFFD. Starts anew."""
        if self._tokenizer.streams_bytes:
            rest = self._utf8.decode(b"", final=True)
        else:
            rest = self._window(at_end=True)
        self._utf8.reset()
        self._strip = self._tokenizer.strip_spaces
        self._shown_ids, self._new_ids = [], []
        return rest

    def _stripped(self, data: bytes) -> bytes:
        """``data`` without the spaces that the decoder strips at the start of a text."""
        while self._strip and data:
            if not data.startswith(b" "):
                self._strip = 0
                break
            data = data[1:]
            self._strip -= 1
        return data

    def _window(self, *, at_end: bool) -> str:
        """New text of a decoder that must see the tokens before to decode the next."""
        before = self._tokenizer.decode(self._shown_ids)
        text = self._tokenizer.decode(self._shown_ids + self._new_ids)
        if not at_end and (len(text) <= len(before) or text.endswith(REPLACEMENT)):
            return ""
        self._shown_ids, self._new_ids = self._new_ids, []
        return text[len(before) :]


@contextmanager
def _library_errors(detail: str) -> Iterator[None]:
    """Turns what the library raises into a TextError: bare Exceptions, and panics of Rust.

    It loads files that it then can't run; a panic is no Exception and has no importable class.
    """
    try:
        yield
    except TextError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise TextError(f"{detail}: {_one_line(str(error))}") from error


def _token_text(value: object) -> str | None:
    """A token as tokenizer_config.json names it: its text, or an object with it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _ids(value: object, path: Path) -> Sequence[int]:
    """An id, a list of ids or nothing, as config.json has them."""
    values: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(item, bool) or not isinstance(item, int) for item in values):
        raise TextError(f"{path} names token ids that are not integers: {_one_line(repr(value))}")
    return values


def _one_line(text: str) -> str:
    """``text`` on one line, cut to a length that an error message bears."""
    return " ".join(text.split())[:200]
