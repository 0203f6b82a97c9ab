"""The identity file: who may read it, what is refused, and that the key stays in it."""

from __future__ import annotations

import os
import pickle
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gptnode.errors import IdentityError
from gptnode.net.identity import (
    Identity,
    create_identity,
    load_identity,
    load_or_create_identity,
    short_peer_id,
)

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX modes")


def pem(key: object, passphrase: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    return key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def private_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_a_created_identity_loads_again_with_the_same_peer_id(tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    created = create_identity(path)
    assert created.peer_id.startswith("12D3KooW")
    assert load_identity(path).peer_id == created.peer_id
    assert load_or_create_identity(path).peer_id == created.peer_id


@posix_only
def test_only_the_owner_may_read_file_and_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "node.pem"
    old_umask = os.umask(0)
    try:
        create_identity(path)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_but_the_file_is_left_in_the_folder(tmp_path: Path) -> None:
    create_identity(tmp_path / "node.pem")
    assert [one.name for one in tmp_path.iterdir()] == ["node.pem"]


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = private_file(tmp_path / "node.pem", b"precious")
    with pytest.raises(IdentityError, match="exists already"):
        create_identity(path)
    assert path.read_bytes() == b"precious"


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError, match="exists already"):
        create_identity(path)
    assert not (tmp_path / "elsewhere").exists()


def test_two_starts_at_once_agree_on_one_identity(tmp_path: Path) -> None:
    for round_ in range(10):
        path = tmp_path / f"{round_}.pem"
        with ThreadPoolExecutor(8) as pool:
            ids = {one.peer_id for one in pool.map(load_or_create_identity, [path] * 8)}
        assert ids == {load_identity(path).peer_id}


def test_without_hard_links_the_file_is_still_created_exclusively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "node.pem"
    assert create_identity(path).peer_id == load_identity(path).peer_id
    with pytest.raises(IdentityError, match="exists already"):
        create_identity(path)
    assert [one.name for one in tmp_path.iterdir()] == ["node.pem"]


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o601])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.pem"
    create_identity(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=r"chmod 600") as caught:
        load_identity(path)
    assert str(path) in caught.value.detail


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 68,
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"x" * 999,
    ],
)
def test_a_file_without_a_key_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = private_file(tmp_path / "node.pem", data)
    with pytest.raises(IdentityError, match="no private key") as caught:
        load_identity(path)
    assert str(path) in caught.value.detail


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    create_identity(path)
    whole = path.read_bytes()
    for length in range(len(whole) - 25):
        private_file(path, whole[:length])
        with pytest.raises(IdentityError):
            load_identity(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = private_file(tmp_path / "node.pem", pem(rsa.generate_private_key(65537, 2048)))
    with pytest.raises(IdentityError, match="Ed25519"):
        load_identity(path)


def test_a_key_behind_a_passphrase_is_refused(tmp_path: Path) -> None:
    path = private_file(tmp_path / "node.pem", pem(Ed25519PrivateKey.generate(), b"secret"))
    with pytest.raises(IdentityError, match="passphrase"):
        load_identity(path)


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="gptnode id --identity"):
        load_identity(tmp_path / "node.pem")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="plain file"):
        load_identity(tmp_path)
    with pytest.raises(IdentityError, match="exists already"):
        create_identity(tmp_path)


@posix_only
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(IdentityError, match="plain file"):
        load_identity(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="too large"):
        load_identity(path)


def test_a_folder_that_cannot_be_made_is_an_identity_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IdentityError, match="cannot create"):
        create_identity(tmp_path / "file" / "node.pem")


def test_the_key_is_in_no_representation(tmp_path: Path) -> None:
    identity = create_identity(tmp_path / "node.pem")
    secret = identity.private_bytes()
    for text in (repr(identity), str(identity), f"{identity}"):
        assert secret.hex() not in text
        assert repr(secret) not in text
    assert identity.peer_id in repr(identity)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(identity)


def test_the_peer_id_is_the_one_of_libp2p() -> None:
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    for _ in range(20):
        key = Ed25519PrivateKey.generate()
        theirs = ID.from_pubkey(create_new_key_pair(key.private_bytes_raw()).public_key)
        assert Identity(key).peer_id == theirs.to_base58()


def test_short_peer_ids_keep_what_differs() -> None:
    one, other = (Identity(Ed25519PrivateKey.generate()).peer_id for _ in range(2))
    assert short_peer_id(one) != short_peer_id(other)
    assert len(short_peer_id(one)) < 20
    assert short_peer_id("short") == "short"
