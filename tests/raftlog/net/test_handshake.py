from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from raftlog.engine import NodeId
from raftlog.net.connection import HANDSHAKE_BYTES_MAX
from raftlog.net.handshake import (
    HandshakeFailed,
    Hello,
    Identity,
    Lane,
    Welcome,
    introduction,
    why_refuse_hello,
    why_refuse_welcome,
)

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")


def says(node: NodeId, **more: Any) -> dict[str, Any]:
    identity = Identity(cluster_id="c", directory_id=f"directory of {node}", address=f"{node}:8400")
    return introduction(node, identity, members_version=5) | more


def hello(**more: Any) -> Hello:
    return Hello(**{**says(N1), "to": N2, "lane": Lane.BULK, **more})


OWN = Welcome(**says(N2))


def refusal(known_directory: str = "", **more: Any) -> str | None:
    return why_refuse_hello(OWN, hello(**more), known_directory=known_directory)


# ── bytes ──


def test_an_introduction_comes_back_as_it_was() -> None:
    assert Hello.from_bytes(memoryview(hello().to_bytes())) == hello()
    assert Welcome.from_bytes(memoryview(OWN.to_bytes())) == OWN


def test_what_a_later_version_adds_is_left_out() -> None:
    content = json.loads(hello().to_bytes()) | {"new": [1]}

    assert Hello.from_bytes(memoryview(json.dumps(content).encode())) == hello()


WRONG_VALUES: list[tuple[str, Any]] = [
    ("node", 1), ("node", None), ("node", "a\nb"), ("address", "a" * 301), ("protocol", "1"), ("protocol", True),
    ("protocol", -1), ("format_max", 2**63), ("lane", "fast"), ("lane", []), ("members_version", 1.5),
]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{}", b"[]", b"1", b"\xff\xfe", b"[" * 4000, hello().to_bytes()[:-1]),
        *(json.dumps(json.loads(hello().to_bytes()) | {key: value}).encode() for key, value in WRONG_VALUES),
    ],
)
def test_what_is_no_introduction_is_refused_and_raises_nothing_else(data: bytes) -> None:
    with pytest.raises(HandshakeFailed, match="not an introduction"):
        Hello.from_bytes(memoryview(data))


def test_the_longest_names_fit_into_a_frame() -> None:
    long = hello(
        node="n" * 63, to="m" * 63, cluster_id="c" * 64, directory_id="d" * 64, address="h" * 253 + ":65535"
    )

    assert len(long.to_bytes()) < HANDSHAKE_BYTES_MAX


# ── whether two servers go together ──


def test_a_member_is_welcome() -> None:
    assert refusal(known_directory="directory of n1") is None


def test_one_of_whom_nothing_is_known_is_welcome() -> None:
    assert refusal() is None


def test_one_that_looks_for_another_is_told_who_this_is() -> None:
    assert refusal(to="n3") == "this is n2, not n3, which n1 looks for"


def test_one_of_another_cluster_is_refused() -> None:
    assert refusal(cluster_id="d") == "n1 is of cluster 'd', n2 of 'c'"


def test_a_new_server_speaks_with_any_cluster_that_calls_it() -> None:
    own = replace(OWN, cluster_id="")

    assert why_refuse_hello(own, hello(), known_directory="") is None
    assert why_refuse_hello(own, hello(cluster_id=""), known_directory="") == "n1 is of cluster '', n2 of ''"


def test_one_without_a_cluster_is_refused() -> None:
    assert refusal(cluster_id="") == "n1 is of cluster '', n2 of 'c'"


def test_one_with_this_servers_own_name_is_refused() -> None:
    assert refusal(node="n2") == "n2 got a connection from itself, or another server has its name"


def test_one_that_speaks_another_protocol_is_refused() -> None:
    assert refusal(protocol=2) == "n1 speaks version 2 of the protocol, n2 version 1"


def test_one_that_knows_no_common_format_is_refused() -> None:
    assert refusal(format_min=2, format_max=3) == "n1 knows formats 2 to 3, n2 1 to 1"
    assert refusal(format_min=1, format_max=3) is None


def test_a_replaced_disk_is_refused() -> None:
    assert refusal(known_directory="old") == (
        "n1 has a replaced disk: its directory is 'directory of n1', that of the member 'old'; join it again"
    )


@pytest.mark.parametrize(("theirs", "is_refused"), [(4, True), (5, True), (6, False)])
def test_of_two_lists_of_members_the_newer_one_is_right(theirs: int, is_refused: bool) -> None:
    assert (refusal(known_directory="old", members_version=theirs) is not None) == is_refused


def test_an_answer_from_another_than_the_one_dialled_is_refused() -> None:
    own = hello()

    assert why_refuse_welcome(own, OWN, N2, known_directory="directory of n2") is None
    assert why_refuse_welcome(own, OWN, N3, known_directory="") == "n2:8400 is n2, not n3"
    assert "replaced disk" in str(why_refuse_welcome(own, OWN, N2, known_directory="old"))
    assert why_refuse_welcome(own, replace(OWN, cluster_id="d"), N2, known_directory="") is not None
