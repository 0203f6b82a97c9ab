from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import ContextFileError
from gptnode.text import context_file
from gptnode.text.context_file import load_context, save_context
from tests.text.makers import UNHURRIED

FINGERPRINT = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


def loaded(path: Path, text: str | bytes, vocab_size: int = 1000) -> tuple[int, ...]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_context(path, vocab_size, FINGERPRINT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.csv"


class TestSaving:
    @UNHURRIED
    @given(ids=st.lists(st.integers(0, 200_000), min_size=1, max_size=200), name=st.text())
    def test_what_was_saved_loads(self, path: Path, ids: list[int], name: str) -> None:
        save_context(path, ids, FINGERPRINT, name)
        assert load_context(path, 200_001, FINGERPRINT) == tuple(ids)

    def test_the_file_says_of_which_model_it_is(self, path: Path) -> None:
        save_context(path, [*range(30)], FINGERPRINT, "my\nmodel")
        first, second, third, row, rest, end = path.read_text().split("\n")
        assert [first, second, third] == [
            "# gptnode context",
            "# model: my model",
            f"# fingerprint: {FINGERPRINT}",
        ]
        assert row == ",".join(map(str, range(24)))
        assert (rest, end) == ("24,25,26,27,28,29", "")

    def test_a_new_file_is_the_owners_alone_and_an_old_one_keeps_its_permissions(
        self, path: Path
    ) -> None:
        save_context(path, [1], FINGERPRINT, "m")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        save_context(path, [2], FINGERPRINT, "m")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_a_symbolic_link_stays_one(self, path: Path) -> None:
        link = path.with_name("link.csv")
        link.symlink_to(path)
        save_context(link, [5], FINGERPRINT, "m")
        assert link.is_symlink()
        assert load_context(path, 10, FINGERPRINT) == (5,)

    @pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
    def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(
        self, path: Path, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_context(path, [1, 2], FINGERPRINT, "m")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        if step == "replace":
            monkeypatch.setattr(Path, "replace", full)
        else:
            monkeypatch.setattr(os, step, full)
        with pytest.raises(ContextFileError, match=r"chat\.csv can't be written: No space left"):
            save_context(path, [3], FINGERPRINT, "m")
        monkeypatch.undo()
        assert load_context(path, 10, FINGERPRINT) == (1, 2)
        assert os.listdir(path.parent) == ["chat.csv"]  # noqa: PTH208

    def test_an_interruption_leaves_no_temporary_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(_: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_context(path, [3], FINGERPRINT, "m")
        assert list(path.parent.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("missing/chat.csv", "No such file or directory"),
            ("folder", "it is not a file"),
            ("x" * 300, "File name too long"),
            ("a\0b", "null"),
        ],
    )
    def test_the_reason_is_named(self, tmp_path: Path, name: str, reason: str) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(ContextFileError, match=reason):
            save_context(tmp_path / name, [1], FINGERPRINT, "m")
        assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]

    def test_an_empty_context_is_not_saved(self, path: Path) -> None:
        with pytest.raises(ContextFileError, match="nothing to save"):
            save_context(path, [], FINGERPRINT, "m")
        assert not path.exists()


class TestLoading:
    @pytest.mark.parametrize(
        "text",
        [
            "1,2,3",
            "1,2,3\n",
            " 1 , 2,\t3\r\n",
            "1,\n2,\n\n3,\n",
            "\ufeff1,2\n# a remark\n3",
            "# fingerprint: " + FINGERPRINT.upper() + "\n1,2,3",
            "001,2,3",
        ],
    )
    def test_forgiving_forms_load(self, path: Path, text: str) -> None:
        assert loaded(path, text) == (1, 2, 3)

    @pytest.mark.parametrize(
        ("text", "detail"),
        [
            ("1,2\n3, x4,5", "line 2, column 4: 'x4' is not a token id"),
            ("1,-2", "line 1, column 3: '-2' is not a token id"),
            ("1,2.0", "line 1, column 3: '2.0' is not a token id"),
            ("1,٣", "line 1, column 3: '٣' is not a token id"),
            ("1,²", "line 1, column 3: '²' is not a token id"),
            ("1,,2", "line 1, column 3: a token id is missing"),
            (",", "line 1, column 1: a token id is missing"),
            ("7,1000", "line 1, column 3: 1000 is not in the vocabulary of 1000 tokens"),
            ("9" * 5000, "line 1, column 1: 99999999999999999999 is not in the vocabulary"),
            ("id,id", "line 1, column 1: 'id' is not a token id"),
            ("", "holds no token ids"),
            ("# gptnode context\n\n", "holds no token ids"),
            (b"\x80abc", "is not a text file: byte 0 is not UTF-8"),
        ],
    )
    def test_the_place_of_an_error_is_named(
        self, path: Path, text: str | bytes, detail: str
    ) -> None:
        with pytest.raises(ContextFileError) as caught:
            loaded(path, text)
        assert detail in caught.value.detail
        assert "chat.csv" in caught.value.detail
        assert "\n" not in caught.value.detail

    def test_a_context_of_another_model_is_refused_by_name(self, path: Path) -> None:
        save_context(path, [1], OTHER, "llama-8b")
        with pytest.raises(ContextFileError, match=f"'llama-8b' with fingerprint '{OTHER}'"):
            load_context(path, 10, FINGERPRINT)
        assert load_context(path, 10, None) == (1,)

    def test_a_file_that_is_too_large_is_refused(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(context_file, "MAX_FILE_BYTES", 10)
        assert loaded(path, "1,2,3,4,56") == (1, 2, 3, 4, 56)
        with pytest.raises(ContextFileError, match="more than"):
            loaded(path, "1,2,3,4,567")

    def test_what_is_no_file_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for name, reason in [("pipe", "not a file"), ("none", "No such file"), ("a\0b", "null")]:
            with pytest.raises(ContextFileError, match=reason):
                load_context(tmp_path / name, 10, FINGERPRINT)

    @UNHURRIED
    @given(
        data=st.one_of(
            st.binary(), st.text(alphabet="0123456789,\n #:fingerprtmodel-+_.").map(str.encode)
        )
    )
    def test_garbage_is_never_another_error(self, path: Path, data: bytes) -> None:
        try:
            ids = loaded(path, data, vocab_size=50)
        except ContextFileError as error:
            assert "\n" not in error.detail
        else:
            assert ids
            assert all(0 <= token_id < 50 for token_id in ids)
