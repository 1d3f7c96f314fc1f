"""Another server's certificate, and what PySyncObj's own nodes would unpickle: nothing of it runs here."""

from __future__ import annotations

import asyncio
import os
import pickle
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from logstore import Config
from raftlog.engine import NodeId
from raftlog.net.connection import Connection
from raftlog.net.handshake import MESSAGE, PYSYNCOBJ_MESSAGE, Hello, Identity, Lane, introduction, say_hello
from raftlog.net.listener import Listener
from raftlog.net.stream_layer import StreamLayer
from raftlog.net.tls import TlsFiles
from raftlog.pysyncobj.codec import Change, decode, decode_change, encode, encode_change
from raftlog.wire.raft_messages import BadMessage
from tests.raftlog.pysyncobj.cluster import CLUSTER_ID, DEADLINE_S, Cluster


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._folder,)


def append(command: bytes, *, index: int = 2, term: int = 9) -> bytes:
    """An append_entries of one entry, as a leader of this term would send it."""
    message = {
        "type": "append_entries", "term": term, "commit_index": index, "prevLogIdx": index - 1, "prevLogTerm": 0,
        "entries": [(command, index, term)],
    }  # fmt: skip
    return b"".join(encode(message))


def messages(bomb: bytes) -> dict[str, bytes]:
    """By what they are, ways in which PySyncObj would come to unpickle this."""
    return {
        "a message as PySyncObj sends it": bomb,
        "a command": append(b"\0" + bomb),
        "a change of the membership": append(b"\2" + bomb),
        "a version of the code": append(b"\3" + bomb),
        "a forwarded command": bytes([6]) + bomb,
        "a dump": pack("<BQQQQI", 3, 9, 1, 0, 0, 0) + bomb,
    }


async def dial(layer: StreamLayer, address: str) -> Connection:
    """A connection as that of a server called n9."""
    connection = await layer.dial(address, DEADLINE_S)
    identity = Identity(cluster_id=CLUSTER_ID, directory_id="d9", address="127.0.0.1:1")
    own = introduction(NodeId("n9"), identity, members_version=0)
    await say_hello(connection, Hello(to="n1", lane=Lane.BULK, **own))
    connection.listen(lambda _: None, payload_bytes_max=0)
    return connection


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "gone off")))

    assert (tmp_path / "gone off").exists()


def test_nothing_from_the_network_is_unpickled(tmp_path: Path, certificates: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, certificates) as cluster:
            cluster.start_all(["n1"])
            log = await cluster.leader()
            tls = TlsFiles.in_folder(certificates, "peer")
            listener = Listener("127.0.0.1", 0)
            layer = StreamLayer(listener, tls, tls)
            bombs = messages(pickle.dumps(Bomb(tmp_path / "gone off"))).values()
            for kind, message in [(PYSYNCOBJ_MESSAGE, bomb) for bomb in bombs] + [
                (MESSAGE, b"of the engine raft")
            ]:
                connection = await dial(layer, cluster.address("n1"))
                connection.write_frame(kind, message)
                async with asyncio.timeout(DEADLINE_S):
                    await connection.ended

            assert await log.append(b"0") == 0
            await layer.close()
            await listener.close()

    asyncio.run(story())

    assert not (tmp_path / "gone off").exists()


@pytest.mark.parametrize("what", list(messages(b"")))
def test_messages_with_pickles_are_bad(what: str, tmp_path: Path) -> None:
    message = messages(pickle.dumps(Bomb(tmp_path / "gone off")))[what]

    with pytest.raises(BadMessage):
        decode(memoryview(message), Config())

    assert not (tmp_path / "gone off").exists()


@pytest.mark.parametrize("message", [
    {"type": "request_vote", "term": 3, "last_log_index": 5, "last_log_term": 2},
    {"type": "response_vote", "term": 3},
    {"type": "next_node_idx", "term": 3, "next_node_idx": 7, "reset": True, "success": False},
    {"type": "timeout_now", "term": 4},
    {
        "type": "append_entries", "term": 4, "commit_index": 5, "prevLogIdx": 5, "prevLogTerm": 2,
        "entries": [(b"\1", 6, 3), (encode_change(Change(True, NodeId("n4"), "127.0.0.1:4", "")), 7, 4)],
    },
], ids=lambda message: message["type"])  # fmt: skip
def test_messages_come_back_and_pieces_of_them_are_bad(message: dict[str, object]) -> None:
    data = b"".join(encode(message))

    assert decode(memoryview(data), Config()) == message
    for end in range(len(data)):
        with pytest.raises(BadMessage):
            decode(memoryview(data)[:end], Config())
    with pytest.raises(BadMessage):
        decode(memoryview(data + b"\0"), Config())


@pytest.mark.parametrize("command", [
    b"", b"\1", b"\2", b"\2{}", b"\2[]", b'\2{"adds": 1, "node": "n4", "address": "h:1", "directory_id": ""}',
    b'\2{"adds": true, "node": "", "address": "h:1", "directory_id": ""}',
    b'\2{"adds": true, "node": "n4", "address": "nowhere", "directory_id": ""}',
    b'\2{"adds": true, "node": ["n4"], "address": "h:1", "directory_id": ""}', b"\2" + b"[" * 4000,
    encode_change(Change(True, NodeId("n4"), "h:1", "x" * 301)), b"\2" + b" " * 5000,
])  # fmt: skip
def test_what_is_no_change_of_the_membership_is_bad(command: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_change(command)


@pytest.mark.parametrize("fields", [
    {"term": 2**63}, {"entries": [(b"\1", 3, 9)]}, {"entries": [(b"\1", 3, 1)]}, {"entries": [(b"\1\1", 3, 2)]},
    {"entries": [(b"\0" + b"no frame", 3, 2)]}, {"entries": [(b"", 3, 2)]},
])  # fmt: skip
def test_appends_that_no_leader_sends_are_bad(fields: dict[str, object]) -> None:
    message = {
        "type": "append_entries", "term": 2, "commit_index": 2, "prevLogIdx": 2, "prevLogTerm": 2, "entries": [],
        **fields,
    }  # fmt: skip

    with pytest.raises(BadMessage):
        decode(memoryview(b"".join(encode(message))), Config())
