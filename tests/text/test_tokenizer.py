from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import TextError
from gptnode.text.tokenizer import StreamDecoder, Tokenizer, _library_errors
from tests.text.conftest import Maker
from tests.text.makers import UNHURRIED, byte_level_json, other_json, sentencepiece_json

EMOJI = "a 👩‍👩‍👧 b 🇩🇪 ç 漢字 👍🏽"


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = StreamDecoder(tokenizer)
    return [decoder.push(token_id) for token_id in ids] + [decoder.flush()]


def library(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizer._library


class TestEncoding:
    def test_bos_is_never_added(self, any_family: Tokenizer) -> None:
        assert any_family.wants_bos
        assert any_family.bos_id not in any_family.encode("Hello")

    def test_a_control_token_in_the_text_is_recognised(self, any_family: Tokenizer) -> None:
        assert any_family.special_id("</s>") in any_family.encode("Hello</s>")

    def test_lone_surrogates_do_not_raise(self, any_family: Tokenizer) -> None:
        assert any_family.decode(any_family.encode("a\udcffb")) == "a?b"

    def test_truncation_and_padding_of_a_training_run_are_off(self, tmp_path: Path) -> None:
        data = byte_level_json(["<s>"])
        saved = tokenizers.Tokenizer.from_str(json.dumps(data))
        saved.enable_truncation(4)
        saved.enable_padding(length=64)
        saved.save(str(tmp_path / "tokenizer.json"))
        tokenizer = Tokenizer.from_folder(tmp_path)
        text = "Hello there, how are you today?"
        assert tokenizer.decode(tokenizer.encode(text)) == text

    @UNHURRIED
    @given(text=st.text())
    def test_text_survives_the_round_trip(self, any_family: Tokenizer, text: str) -> None:
        # "▁" is how SentencePiece spells a space: it comes back as one. "<" begins marks.
        text = "x" + text.replace("▁", "").replace("<", "")
        assert any_family.decode(any_family.encode(text)) == text


class TestContinuation:
    def test_no_space_is_put_before_text_that_continues(self, llama_2: Tokenizer) -> None:
        ids = [*llama_2.encode("Hello"), *llama_2.encode_continuation(" there")]
        assert llama_2.decode(ids) == "Hello there"
        ids = [*llama_2.encode("Hel"), *llama_2.encode_continuation("lo")]
        assert llama_2.decode(ids) == "Hello"

    @pytest.mark.parametrize("text", ["\n[INST] x", " x", "x", "\n\n"])
    def test_it_is_encoded_as_behind_the_control_token(
        self, any_family: Tokenizer, text: str
    ) -> None:
        whole = any_family.encode("Hello</s>" + text)
        ids = [*any_family.encode("Hello</s>"), *any_family.encode_continuation(text, "</s>")]
        assert ids == whole


class TestDecoding:
    @UNHURRIED
    @given(text=st.text(max_size=60))
    def test_it_agrees_with_the_library_on_text(self, any_family: Tokenizer, text: str) -> None:
        ids = any_family.encode(text)
        assert any_family.decode(ids) == library(any_family).decode(ids)

    def test_control_tokens_are_left_out_unless_asked_for(self, any_family: Tokenizer) -> None:
        ids = any_family.encode("Hello</s>")
        assert any_family.decode(ids) == "Hello"
        assert any_family.decode(ids, keep_special=True) == "Hello</s>"

    def test_unknown_ids_are_nothing(self, any_family: Tokenizer) -> None:
        assert any_family.decode([any_family.vocab_size, -1, 10**9]) == ""

    def test_an_added_token_that_is_not_special_is_text(self, tmp_path: Path) -> None:
        saved = tokenizers.Tokenizer.from_str(json.dumps(byte_level_json([])))
        saved.add_tokens(["<think>", " ▁é"])
        saved.save(str(tmp_path / "tokenizer.json"))
        tokenizer = Tokenizer.from_folder(tmp_path)
        ids = tokenizer.encode("<think>a ▁é")
        assert len(ids) == 3
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids) == "<think>a ▁é"


class TestStreaming:
    @UNHURRIED
    @given(data=st.data())
    def test_pieces_make_up_the_whole(self, any_family: Tokenizer, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.integers(0, any_family.vocab_size)))
        assert "".join(streamed(any_family, ids)) == any_family.decode(ids)

    @UNHURRIED
    @given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\ufffd")))
    def test_valid_text_never_shows_half_a_character(
        self, any_family: Tokenizer, text: str
    ) -> None:
        pieces = streamed(any_family, any_family.encode(text))
        assert not any("\ufffd" in piece for piece in pieces)

    def test_an_emoji_over_several_tokens_appears_with_its_last(
        self, any_family: Tokenizer
    ) -> None:
        ids = any_family.encode(EMOJI)
        assert len(ids) > len(EMOJI)
        pieces = streamed(any_family, ids)
        assert "".join(pieces) == EMOJI
        assert pieces[-1] == ""

    def test_half_a_character_at_the_end_is_flushed_as_a_replacement(
        self, any_family: Tokenizer
    ) -> None:
        ids = any_family.encode("é👍")[:-1]
        pieces = streamed(any_family, ids)
        assert pieces[-1] == "\ufffd"
        assert "".join(pieces) == any_family.decode(ids)

    def test_invalid_bytes_do_not_hold_back_what_follows(self, byte_level: Tokenizer) -> None:
        stray = byte_level.encode("👍")[1]
        pieces = streamed(byte_level, [stray, *byte_level.encode("ok")])
        assert "".join(pieces[:-1]) == "\ufffdok"

    def test_the_space_before_the_first_word_is_stripped_once(self, llama_2: Tokenizer) -> None:
        ids = llama_2.encode("Hello there")
        assert llama_2.piece(ids[0]).startswith(b" ")
        assert "".join(streamed(llama_2, ids)) == "Hello there"
        assert "".join(streamed(llama_2, llama_2.encode("  two"))) == "  two"

    def test_a_decoder_can_be_used_again_after_a_flush(self, llama_2: Tokenizer) -> None:
        decoder = StreamDecoder(llama_2)
        ids = llama_2.encode("Hello")
        texts = ["".join([*map(decoder.push, ids), decoder.flush()]) for _ in range(2)]
        assert texts == ["Hello", "Hello"]

    @pytest.mark.parametrize("name", ["wordpiece", "metaspace"])
    def test_other_decoders_stream_the_same_text(
        self, name: str, request: pytest.FixtureRequest
    ) -> None:
        tokenizer: Tokenizer = request.getfixturevalue(name)
        assert not tokenizer.streams_bytes
        ids = tokenizer.encode("Hello there, how are you today? I am fine. The lazy dog " * 20)
        pieces = streamed(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids)
        assert sum(map(bool, pieces)) > len(ids) / 2

    def test_other_decoders_decode_a_bounded_window(
        self, wordpiece: Tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lengths: list[int] = []
        decode = Tokenizer.decode

        def counting(self: Tokenizer, ids: list[int], **options: bool) -> str:
            lengths.append(len(ids))
            return decode(self, ids, **options)

        monkeypatch.setattr(Tokenizer, "decode", counting)
        ids = wordpiece.encode("Hello there, how are you " * 50)
        streamed(wordpiece, ids)
        assert max(lengths) <= 4
        lengths.clear()
        streamed(wordpiece, [wordpiece.vocab_size + 5] * 300)
        assert max(lengths) <= 40

    def test_memory_does_not_grow_with_the_text(self, byte_level: Tokenizer) -> None:
        ids = byte_level.encode("Hello there 👍 ")
        decoder = StreamDecoder(byte_level)
        for token_id in ids:
            decoder.push(token_id)
        tracemalloc.start()
        try:
            for _ in range(2000):
                for token_id in ids:
                    decoder.push(token_id)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 20_000


class TestFolder:
    def test_end_ids_are_the_union_of_all_files(self, make_folder: Maker) -> None:
        data = byte_level_json(["<s>", "</s>", "<|eot_id|>", "<|eom_id|>"])
        ids = {token["content"]: token["id"] for token in data["added_tokens"]}
        folder = make_folder(
            data,
            tokenizer_config={"eos_token": {"content": "</s>"}},
            config={"eos_token_id": ids["<|eom_id|>"]},
            generation_config={"eos_token_id": [ids["<|eot_id|>"], ids["<|eom_id|>"]]},
        )
        tokenizer = Tokenizer.from_folder(folder)
        assert tokenizer.eos_ids == {ids["</s>"], ids["<|eot_id|>"], ids["<|eom_id|>"]}
        assert tokenizer.eos_token == "</s>"

    def test_bos_is_named_as_text_or_object_or_by_config(self, make_folder: Maker) -> None:
        data = byte_level_json(["<s>"])
        bos_id = data["added_tokens"][0]["id"]
        for files in (
            {"tokenizer_config": {"bos_token": "<s>"}},
            {"tokenizer_config": {"bos_token": {"content": "<s>"}}},
            {"special_tokens_map": {"bos_token": "<s>"}},
            {"config": {"bos_token_id": bos_id}},
        ):
            tokenizer = Tokenizer.from_folder(make_folder(data, **files))
            assert (tokenizer.bos_token, tokenizer.bos_id) == ("<s>", bos_id)
            assert not tokenizer.wants_bos

    def test_bos_is_wanted_by_post_processor_or_setting(self, make_folder: Maker) -> None:
        names = {"bos_token": "<s>"}
        processed = byte_level_json(["<s>"], bos="<s>")
        bare = byte_level_json(["<s>"])

        def wants(data: object, **config: object) -> bool:
            return Tokenizer.from_folder(make_folder(data, tokenizer_config=config)).wants_bos

        assert wants(processed, **names)
        assert wants(processed)
        assert not wants(processed, **names, add_bos_token=False)
        assert wants(bare, **names, add_bos_token=True)
        assert not wants(bare, add_bos_token=True)

    def test_a_file_alone_is_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "my-tokenizer.json"
        path.write_text(json.dumps(sentencepiece_json()))
        tokenizer = Tokenizer.from_file(path)
        assert tokenizer.bos_token == "<s>"
        assert tokenizer.vocab_size == len(tokenizers.Tokenizer.from_file(str(path)).get_vocab())

    @pytest.mark.parametrize(
        ("files", "named"),
        [
            ({}, "tokenizer.json is missing"),
            ({"tokenizer.json": b"{}"}, "tokenizer.json is not a tokenizer"),
            ({"tokenizer.json": b"\xff\xfe"}, "tokenizer.json is not UTF-8 at byte 0"),
            (
                {"tokenizer.json": None, "tokenizer_config.json": b"{"},
                "tokenizer_config.json is not JSON",
            ),
            ({"tokenizer.json": None, "config.json": b"[1]"}, "config.json holds a JSON list"),
            (
                {"tokenizer.json": None, "config.json": b'{"eos_token_id": "x"}'},
                "config.json names token ids",
            ),
            (
                {"tokenizer.json": None, "generation_config.json": b'{"eos_token_id": [true]}'},
                "generation_config.json",
            ),
        ],
    )
    def test_a_bad_file_is_named(
        self, tmp_path: Path, files: dict[str, bytes | None], named: str
    ) -> None:
        for name, content in files.items():
            (tmp_path / name).write_bytes(
                json.dumps(byte_level_json([])).encode() if content is None else content
            )
        with pytest.raises(TextError, match=named) as caught:
            Tokenizer.from_folder(tmp_path)
        assert "\n" not in caught.value.detail

    def test_a_folder_in_the_place_of_the_file_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").mkdir()
        with pytest.raises(TextError, match="can't be read: Is a directory"):
            Tokenizer.from_folder(tmp_path)

    def test_what_the_library_loads_but_cant_run_is_an_error(self, tmp_path: Path) -> None:
        data = other_json("wordpiece")
        del data["model"]["vocab"]["[UNK]"]
        data["added_tokens"] = []
        (tmp_path / "tokenizer.json").write_text(json.dumps(data))
        with pytest.raises(TextError, match=r"\[UNK\]"):
            Tokenizer.from_folder(tmp_path).encode("Hello é👍")

    def test_a_panic_of_the_library_is_an_error_and_an_interruption_is_not(self) -> None:
        panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
        with (
            pytest.raises(TextError, match="can't encode: out of range"),
            _library_errors("can't encode"),
        ):
            raise panic("out of\nrange")
        with pytest.raises(KeyboardInterrupt), _library_errors("can't encode"):
            raise KeyboardInterrupt
