from __future__ import annotations

import json
from random import Random

import pytest

from raftlog.engine import NodeId
from raftlog.raft.configuration import NODE_NAME_CHARACTERS_MAX, Configuration
from raftlog.wire.configurations import (
    CONFIGURATION_BYTES_MAX,
    BadConfiguration,
    configuration_from_bytes,
    configuration_to_bytes,
)

SEED = 20_140_814
N1, N2, N3, N4, N5 = (NodeId(f"n{number}") for number in range(1, 6))
JOINT = Configuration((N2, N5), (N1, N2, N3), (N4,), (N3,), auto_leave=True)


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(),
        Configuration((N1,)),
        Configuration((N1, N2, N3), learners=(N4,)),
        JOINT,
        Configuration((NodeId("knoten-ü"), NodeId("名"))),
        Configuration((NodeId("n" * NODE_NAME_CHARACTERS_MAX),)),
    ],
)
def test_configuration_comes_back_from_its_bytes(configuration: Configuration) -> None:
    assert configuration_from_bytes(configuration_to_bytes(configuration)) == configuration


def test_bytes_are_json_with_sorted_keys_and_no_spaces() -> None:
    assert configuration_to_bytes(Configuration((N1, N2), learners=(N3,))) == (
        b'{"auto_leave":false,"learners":["n3"],"learners_next":[],"outgoing":[],"voters":["n1","n2"]}'
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"voters": ["n5", "n2"]}, "do not ascend"),
        ({"voters": ["n2", "n2"]}, "do not ascend"),
        ({"voters": "n2"}, "a list of names"),
        ({"voters": None}, "a list of names"),
        ({"voters": [2]}, "1 to 63 characters"),
        ({"voters": [""]}, "1 to 63 characters"),
        ({"voters": ["n" * 64]}, "1 to 63 characters"),
        ({"voters": ["n 2"]}, "printable"),
        ({"voters": ["\ud800"]}, "printable"),
        ({"learners": ["n1"]}, "learns and votes"),
        ({"learners": ["n2"]}, "learns and votes"),
        ({"learners_next": ["n4"]}, "outgoing voters"),
        ({"learners_next": ["n2"]}, "outgoing voters"),
        ({"auto_leave": 1}, "true or false"),
        ({"outgoing": [], "learners_next": []}, "joint configuration to leave"),
        ({"more": []}, "has the keys"),
    ],
)
def test_what_a_configuration_cannot_be_is_refused(change: dict[str, object], reason: str) -> None:
    content = {**json.loads(configuration_to_bytes(JOINT)), **change}
    data = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()

    with pytest.raises(BadConfiguration, match=reason):
        configuration_from_bytes(data)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"voters":["n1"]}', b"1" * 5_000]
)
def test_bytes_that_are_something_else_are_refused(data: bytes) -> None:
    with pytest.raises(BadConfiguration):
        configuration_from_bytes(data)


def test_another_form_of_the_same_configuration_is_refused() -> None:
    data = configuration_to_bytes(JOINT)
    content = json.loads(data)

    for other in (json.dumps(content).encode(), data + b" ", data.decode().encode("utf-16"), b"{" + data[1:]):
        if other != data:
            with pytest.raises(BadConfiguration):
                configuration_from_bytes(other)


def test_more_bytes_than_a_configuration_may_have_are_not_parsed() -> None:
    with pytest.raises(BadConfiguration, match="at most"):
        configuration_from_bytes(b" " * (CONFIGURATION_BYTES_MAX + 1))


def test_changed_bytes_are_another_configuration_or_none() -> None:
    """One form per configuration: no two texts mean the same."""
    print(f"seed {SEED}")
    rng, data = Random(SEED), configuration_to_bytes(JOINT)

    for _ in range(2_000):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] = rng.randrange(256)
        try:
            found = configuration_from_bytes(bytes(changed))
        except BadConfiguration:
            continue
        assert (found == JOINT) == (changed == data)
