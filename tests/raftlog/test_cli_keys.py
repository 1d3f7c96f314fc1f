"""`raftlog keys`, against a server of stand-ins."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from raftlog.cli import run
from raftlog.config_keys import parse_key
from raftlog.server.gossip_keys import key_id
from tests.raftlog.fake_cluster_log import FakeMember
from tests.raftlog.fake_membership import (
    Command,
    FakeCandidate,
    FakeKeyrings,
    FakeSource,
    Serve,
)

OLD, NEW, THIRD = b"o" * 16, b"n" * 32, b"t" * 24


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.mark.parametrize(("options", "size"), [((), 32), (("--bytes", "16"), 16), (("--bytes", "24"), 24)])
def test_a_key_is_made_without_a_server(
    capfd: pytest.CaptureFixture[str], options: tuple[str, ...], size: int
) -> None:
    made = []
    for _ in range(2):
        assert run(["keys", "generate", *options]) == 0
        made.append(capfd.readouterr().out)

    assert [len(parse_key(one)) for one in made] == [size, size]
    assert made[0] != made[1]


def test_a_key_has_one_of_three_sizes(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "generate", "--bytes", "20"]) == 2

    assert capfd.readouterr().err == "raftlog: --bytes is 20: a key has 16, 24 or 32\n"


def test_keys_are_listed_by_their_ids(serve: Serve, command: Command) -> None:
    serve(gossip=FakeKeyrings(one=[NEW, OLD], two=[NEW]))

    head, *rows = command("keys", "list").splitlines()
    found = json.loads(command("keys", "list", "--json"))

    assert head.split() == ["key", "members", "primary", "of"]
    expected = {key_id(OLD): "1 of 2 0 of 2", key_id(NEW): "2 of 2 2 of 2"}
    assert {row.split()[0]: " ".join(row.split()[1:]) for row in rows} == expected
    assert (found["members"], found["answers"], found["errors"]) == (2, 2, {})
    assert {"id": key_id(OLD), "members": 1, "primary_members": 0} in found["keys"]


def test_a_list_that_is_not_whole_says_so(serve: Serve, command: Command) -> None:
    gossip = FakeKeyrings(one=[NEW], two=[NEW])
    gossip.silent["list"] = {"two"}
    serve(gossip=gossip)

    assert command("keys", "list", code=1).splitlines()[-1] == "1 of 2 members answered"
    assert json.loads(command("keys", "list", "--json", code=1))["answers"] == 1


def test_a_key_comes_as_an_argument_from_stdin_from_a_file_or_by_its_id(
    serve: Serve, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gossip = FakeKeyrings(one=[OLD])
    serve(gossip=gossip)
    file = tmp_path / "keys"
    file.write_text(f"# the first counts\n{text_of(THIRD)}\n{text_of(OLD)}\n")
    file.chmod(0o600)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{text_of(NEW)}\n"))

    assert command("keys", "install", "-") == f"every member has the key {key_id(NEW)}: 1 of 1\n"
    command("keys", "install", "--file", str(file))
    command("keys", "install", text_of(THIRD))
    assert gossip.keyrings["one"] == [OLD, NEW, THIRD]

    assert (
        command("keys", "use", key_id(NEW)) == f"every member encrypts with the key {key_id(NEW)}: 1 of 1\n"
    )
    assert (
        command("keys", "remove", key_id(OLD)) == f"every member has removed the key {key_id(OLD)}: 1 of 1\n"
    )
    assert json.loads(command("keys", "remove", key_id(THIRD), "--json"))["key_id"] == key_id(THIRD)
    assert gossip.keyrings["one"] == [NEW]


def test_what_is_no_key_is_not_quoted(
    serve: Serve, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    gossip = FakeKeyrings(one=[OLD])
    serve(gossip=gossip)
    monkeypatch.setattr("sys.stdin", io.StringIO("c2VjcmV0\n"))
    six = "6 bytes, where 16, 24 or 32 are needed; `raftlog keys generate` makes one\n"

    command("keys", "install", "-", code=2, errors=f"raftlog: stdin: line or item 1: {six}")
    command("keys", "install", "c2VjcmV0", code=2, errors=f"raftlog: KEY: line or item 1: {six}")
    for arguments in ([], [text_of(NEW), "--file", "keys"]):
        command(
            "keys", "install", *arguments, code=2,
            errors="raftlog: which key? give KEY, the ID of one that members have, - for stdin, or --file FILE\n",
        )  # fmt: skip
    assert gossip.asked == []


def test_what_not_all_have_done_is_told_with_the_reasons(serve: Serve, command: Command) -> None:
    gossip = FakeKeyrings(one=[OLD], two=[OLD], three=[OLD])
    gossip.silent["install"] = {"two", "three"}
    serve(gossip=gossip)

    assert command("keys", "install", text_of(NEW), code=1) == (
        f"1 of 3 members answered\nnot every member has the key {key_id(NEW)} now; see to them, and run this again\n"
    )


def test_what_would_part_members_is_refused(serve: Serve, command: Command) -> None:
    gossip = FakeKeyrings(one=[OLD, NEW], two=[OLD])
    serve(gossip=gossip)

    command(
        "keys", "use", key_id(NEW), code=1,
        errors=f"raftlog: FAILED_PRECONDITION: 1 of 2 members are known to have the key {key_id(NEW)}: those without "
        "it would understand nobody; install it on all first, and see that all of them answer\n",
    )  # fmt: skip
    assert not gossip.hurt


def test_a_member_that_is_away_is_parted_from_the_others_only_if_that_is_wanted(
    serve: Serve, command: Command
) -> None:
    gossip = FakeKeyrings(one=[OLD, NEW])
    server = serve(gossip=gossip, source=FakeSource(FakeCandidate("two", status="failed")))
    server.log.members += (FakeMember("two", "two:8400"),)
    hint = (
        "raftlog: Start it, or remove it for good (`raftlog leave NAME`). Or give --without-absent: then, before it is "
        "started, put the new key into its --gossip-key-file and delete gossip-keys.json in its data directory\n"
    )

    command(
        "keys", "use", key_id(NEW), code=1,
        errors="raftlog: not there: two (failed): a server that misses the new key cannot come back by itself. "
        f"Nothing was changed.\n{hint}",
    )  # fmt: skip
    assert gossip.keyrings == {"one": [OLD, NEW]}
    command("keys", "use", key_id(NEW), "--without-absent")
    command(
        "keys", "remove", key_id(OLD), code=1,
        errors="raftlog: not there: two (failed): it may encrypt with this key when it comes back. "
        f"Nothing was changed.\n{hint}",
    )  # fmt: skip
    assert gossip.keyrings == {"one": [NEW, OLD]}
    command("keys", "remove", key_id(OLD), "--without-absent")
    assert gossip.keyrings == {"one": [NEW]}


# ── changing to another key ─────────────────────────────────────────────────────────────────────────


def test_members_change_to_a_new_key_and_understand_each_other_all_the_time(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    gossip = FakeKeyrings(one=[OLD], two=[OLD, THIRD], three=[OLD])
    serve(gossip=gossip)

    assert run(["keys", "rotate", "--insecure"]) == 0

    output, said = capfd.readouterr()
    new = parse_key(output)
    assert gossip.keyrings == {"one": [new], "two": [new], "three": [new]}
    assert not gossip.hurt
    removed = [f"3 of 3 members have removed the key {old}" for old in sorted((key_id(OLD), key_id(THIRD)))]
    assert said.splitlines() == [
        f"3 of 3 members have the key {key_id(new)}", "3 of 3 members encrypt with it", *removed,
    ]  # fmt: skip
    assert output.strip() not in said


@pytest.mark.parametrize(
    ("action", "keyrings", "words"),
    [
        ("list", ([OLD], [OLD]), "1 of 2 members answered when asked to say which keys there are"),
        ("install", ([OLD, NEW], [OLD]), f"1 of 2 members answered when asked to install {key_id(NEW)}"),
        ("use", ([NEW, OLD], [OLD, NEW]), f"1 of 2 members answered when asked to use {key_id(NEW)}"),
        ("remove", ([NEW], [NEW, OLD]), f"1 of 2 members answered when asked to remove {key_id(OLD)}"),
    ],
)  # fmt: skip
def test_it_stops_where_a_member_does_not_answer_and_goes_on_later(
    serve: Serve,
    capfd: pytest.CaptureFixture[str],
    action: str,
    keyrings: tuple[list[bytes], list[bytes]],
    words: str,
) -> None:
    gossip = FakeKeyrings(one=[OLD], two=[OLD])
    gossip.silent[action] = {"two"}
    serve(gossip=gossip)

    assert run(["keys", "rotate", text_of(NEW), "--insecure"]) == 1
    errors = capfd.readouterr().err.splitlines()
    assert f"raftlog: {words}" in errors
    assert errors[-1].startswith("raftlog: Stopped: ")
    assert (f"run `raftlog keys rotate {key_id(NEW)}` then" in errors[-1]) == (action != "list")
    assert (gossip.keyrings["one"], gossip.keyrings["two"]) == keyrings
    assert gossip.all_understand_each_other

    gossip.silent.clear()
    again = text_of(NEW) if action == "list" else key_id(NEW)
    assert run(["keys", "rotate", again, "--insecure"]) == 0
    assert gossip.keyrings == {"one": [NEW], "two": [NEW]}
    assert not gossip.hurt


def test_it_does_not_begin_while_a_member_is_away(serve: Serve, command: Command) -> None:
    gossip = FakeKeyrings(one=[OLD])
    source = FakeSource(FakeCandidate("one"), FakeCandidate("two", status="failed"))
    server = serve(gossip=gossip, source=source)
    server.log.members += (FakeMember("two", "two:8400"), FakeMember("three", "three:8400"))

    shown = command(
        "keys", "rotate", code=1,
        errors="raftlog: not there: three (not seen), two (failed): a server that misses the new key cannot come back by "
        "itself. Nothing was changed.\nraftlog: Start it, or remove it for good (`raftlog leave NAME`). Or give "
        "--without-absent: then, before it is started, put the new key into its --gossip-key-file and delete "
        "gossip-keys.json in its data directory\n",
    )  # fmt: skip
    assert shown == ""  # no key that nobody has
    assert gossip.keyrings == {"one": [OLD]}

    said = (
        f"1 of 1 members have the key {key_id(NEW)}\n1 of 1 members encrypt with it\n"
        f"1 of 1 members have removed the key {key_id(OLD)}\n"
    )
    command("keys", "rotate", text_of(NEW), "--without-absent", errors=said)
    assert gossip.keyrings == {"one": [NEW]}


def test_old_keys_stay_while_a_member_that_failed_meanwhile_may_use_them(
    serve: Serve, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gossip, source = FakeKeyrings(one=[OLD], two=[OLD]), FakeSource(FakeCandidate("two"))
    server = serve(gossip=gossip, source=source)
    server.log.members += (FakeMember("two", "two:8400"),)
    change = gossip.keys

    async def keys(action: str, key: bytes) -> Any:
        if action == "use":
            source.candidates[0] = FakeCandidate("two", status="failed")
        return await change(action, key)

    monkeypatch.setattr(gossip, "keys", keys)

    assert run(["keys", "rotate", text_of(NEW), "--insecure"]) == 1

    told = f"not there: two (failed): the old key stays until it is back; run `raftlog keys rotate {key_id(NEW)}` then."
    assert f"raftlog: {told}" in capfd.readouterr().err.splitlines()
    assert gossip.keyrings == {"one": [NEW, OLD], "two": [NEW, OLD]}
