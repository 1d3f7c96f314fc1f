from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from raftlog.net.gossip.keyring_file import FILE_BYTES_MAX, load_keyring, save_keyring
from raftlog.serf.codec.keyring import Keyring

ONE, OTHER = bytes(16), bytes(range(32))


def test_a_keyring_is_kept_for_its_owner_only_and_comes_back_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    save_keyring(path, Keyring([ONE]).to_json())
    save_keyring(path, Keyring([OTHER, ONE]).to_json())

    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())[1] == "AAAAAAAAAAAAAAAAAAAAAA=="
    kept = load_keyring(path)
    assert kept is not None
    assert kept.keys == (OTHER, ONE)
    assert os.listdir(tmp_path) == ["keys.json"]


@pytest.mark.parametrize("content", [None, "[]"], ids=["no file", "no keys"])
def test_where_no_key_is_kept_there_is_no_keyring(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)

    assert load_keyring(path) is None


@pytest.mark.parametrize(
    "content",
    [b"no json", b'["not base64!"]', b'["AAAA"]', b"\xff\xfe", b" " * (FILE_BYTES_MAX + 1)],
    ids=["text", "no base64", "short", "no utf-8", "large"],
)
def test_what_is_no_keyring_is_said_with_its_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(ValueError, match=str(path)):
        load_keyring(path)


def test_a_keyring_that_everybody_may_read_is_used_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(Keyring([ONE]).to_json())
    path.chmod(0o644)

    with caplog.at_level(logging.WARNING):
        assert load_keyring(path) is not None

    assert [record.getMessage() for record in caplog.records] == [
        f"gossip keys are readable by others path={path} mode=644"
    ]


def test_what_cannot_be_kept_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    save_keyring(path, Keyring([ONE]).to_json())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_keyring(path, Keyring([OTHER]).to_json())

    kept = load_keyring(path)
    assert kept is not None
    assert kept.keys == (ONE,)
    assert os.listdir(tmp_path) == ["keys.json"]
