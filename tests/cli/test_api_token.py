from __future__ import annotations

from pathlib import Path

import pytest

from gptnode.cli.api_token import create_token, read_token
from gptnode.errors import UsageError


def test_a_new_token_is_for_its_owner_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = create_token(path)
    assert len(token) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert create_token(path) == read_token(path) == token


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    create_token(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        read_token(path)


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff", b"a\x00b"])
def test_what_is_no_word_is_no_token(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="token"):
        read_token(path)


def test_a_missing_file_names_the_option_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--create-token"):
        read_token(tmp_path / "token")
    with pytest.raises(UsageError, match="can't be written"):
        create_token(tmp_path / "no" / "token")
