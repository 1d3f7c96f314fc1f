"""Keys that gossip is encrypted with, as they lie in files."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from raftlog.config_keys import FILE_BYTES_MAX, is_private, parse_key, parse_keys, read_keys
from raftlog.errors import ConfigError

ONE, TWO, THREE = bytes(16), b"t" * 24, b"\xff" * 32


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file as it should be."""
    path = tmp_path / "keys"
    path.write_text(f"{text_of(ONE)}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("key", [ONE, TWO, THREE])
def test_a_key_is_base64_of_16_24_or_32_bytes(key: bytes) -> None:
    assert parse_key(f" {text_of(key)}\n") == key


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "0 bytes, where 16, 24 or 32 are needed"),
        (text_of(bytes(15)), "15 bytes, where"),
        (text_of(bytes(33)), "33 bytes, where"),
        ("AAAA AAAA", "not base64"),
        ("pässword", "not base64"),
        ("-_-_" * 8, "not base64"),
    ],
)
def test_what_is_no_key_is_refused_and_not_quoted(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}.*`raftlog keys generate` makes one$") as caught:
        parse_key(text)

    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"{text_of(TWO)}\n{text_of(ONE)}\n",
        f"# the newest first\r\n\r\n  {text_of(TWO)}  \r\n{text_of(ONE)}\r\n{text_of(TWO)}",
        json.dumps([text_of(TWO), text_of(ONE)], indent=2),
    ],
)
def test_keys_are_lines_or_the_list_of_serf_and_the_first_stays_first(text: str) -> None:
    assert parse_keys(text) == (TWO, ONE)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no key;"),
        ("# nothing\n\n", "no key;"),
        ("[]", "no key;"),
        ("[", "begins as a JSON list and is none"),
        ("[1]", "the JSON list holds something else than texts"),
        (f"# a\n{text_of(ONE)}\nc2VjcmV0", "line or item 3: 6 bytes"),
        (json.dumps([text_of(ONE), "?"]), "line or item 2: not base64"),
    ],
)
def test_what_holds_no_keys_says_where_and_why(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="^" + problem.replace("[", r"\[")) as caught:
        parse_keys(text)

    assert "c2VjcmV0" not in str(caught.value)


def test_a_file_for_its_owner_alone_is_read(keys: Path) -> None:
    assert read_keys(str(keys)) == (ONE,)

    keys.chmod(0o400)
    assert read_keys(str(keys)) == (ONE,)


@pytest.mark.parametrize("mode", [0o640, 0o610, 0o604, 0o602, 0o620, 0o666])
def test_a_file_that_others_may_use_is_refused(keys: Path, mode: int) -> None:
    keys.chmod(mode)

    with pytest.raises(ConfigError) as caught:
        read_keys(str(keys))

    assert caught.value.problems == (
        f"{keys}: others may read or write these keys (mode {mode:04o}): chmod 600 {keys}",
    )


@pytest.mark.parametrize(
    ("mode", "owner", "user", "expected"),
    [
        (0o600, 7, 7, True),
        (0o640, 7, 7, False),
        (0o640, 0, 7, True),  # as a secret in a pod
        (0o440, 0, 7, True),
        (0o660, 0, 7, False),
        (0o650, 0, 7, False),
        (0o444, 0, 7, False),
        (0o640, 0, 0, False),
        (0o640, 8, 7, False),
    ],
)
def test_the_group_may_read_only_what_root_keeps_for_somebody_else(
    mode: int, owner: int, user: int, expected: bool
) -> None:
    assert is_private(mode, owner=owner, user=user) is expected


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no key; `raftlog keys generate` makes one"),
        (b"\xff\xfe", "not text: keys are written in base64"),
        (b"#" * FILE_BYTES_MAX, "no key; `raftlog keys generate` makes one"),
        (b"#" * (FILE_BYTES_MAX + 1), f"larger than {FILE_BYTES_MAX} bytes: not a file of keys"),
    ],
)
def test_a_file_that_holds_no_keys_is_named(keys: Path, data: bytes, problem: str) -> None:
    keys.write_bytes(data)

    with pytest.raises(ConfigError) as caught:
        read_keys(str(keys))

    assert caught.value.problems == (f"{keys}: {problem}",)


def test_a_folder_is_no_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}: Is a directory$"):
        read_keys(str(tmp_path))
