from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import raftlog.net.stream_layer
from raftlog.engine import NodeId
from raftlog.net.connection import Connection
from raftlog.net.handshake import MESSAGE, REFUSAL, WELCOME, Hello, Identity, Lane, introduction
from raftlog.net.listener import Listener
from raftlog.net.peer_links import CLOSE_S_MAX, MIB, LinkLimits
from raftlog.net.stream_layer import StreamLayer
from raftlog.net.throttle import Throttle
from raftlog.raft.configuration import Configuration
from raftlog.raft.messages import (
    Append,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    Message,
    Snapshot,
    SnapshotChunk,
)

from .conftest import Run
from .nodes import DEADLINE_S, N1, N2, N3, Node, node, stream_layer, until

Members = dict[NodeId, tuple[str, str]]


def append(index: int, data: bytes = b"x") -> Append:
    return Append(1, index - 1, 1, [Entry(index, 1, EntryKind.RECORDS, data)], 0)


@asynccontextmanager
async def cluster(
    *names: NodeId, certificates: Path | None = None, **more: Any
) -> AsyncIterator[tuple[Node, ...]]:
    """Servers that know each other and are connected."""
    async with AsyncExitStack() as stack:
        layers = [await stack.enter_async_context(stream_layer(certificates)) for _ in names]
        members = {
            name: (layer.address, f"directory of {name}") for name, layer in zip(names, layers, strict=True)
        }
        nodes = [Node(name, layer, members, **more) for name, layer in zip(names, layers, strict=True)]
        for each in nodes:
            stack.push_async_callback(each.links.close)
        await until(lambda: all(is_connected(one, other) for one in nodes for other in nodes))
        yield tuple(nodes)


def is_connected(one: Node, other: Node) -> bool:
    return one is other or one.links.statistics()[other.name].is_connected


async def sent(one: Node, to: Node, message: Message) -> None:
    """Send it until it arrives: what was said while a connection was made anew is lost."""
    async with asyncio.timeout(20):
        while (one.name, message) not in to.received:
            one.links.send(to.name, message)
            await asyncio.sleep(0.01)


# ── messages ──


@pytest.mark.parametrize("is_tls", [True, False], ids=["tls", "plain"])
def test_three_servers_hear_each_other(run: Run, certificates: Path, is_tls: bool) -> None:
    async def scenario() -> None:
        async with cluster(N1, N2, N3, certificates=certificates if is_tls else None) as nodes:
            for one in nodes:
                for other in nodes:
                    if one is not other:
                        one.links.send(other.name, Heartbeat(1, 2, 3))
                        one.links.send(other.name, append(5))

            await until(lambda: all(len(each.received) == 4 for each in nodes))

            for each in nodes:
                others = [other.name for other in nodes if other is not each]
                assert sorted(sender for sender, _ in each.received) == sorted(others * 2)
                assert {type(message) for message in each.messages} == {Heartbeat, Append}
                assert each.unreachable == []

    run(scenario())


def test_messages_of_a_lane_arrive_in_order(run: Run, certificates: Path) -> None:
    async def scenario() -> None:
        async with cluster(N1, N2, certificates=certificates) as (one, two):
            for number in range(1, 201):
                one.links.send(N2, append(number, b"x" * (number * 997 % 50_000)))
                one.links.send(N2, Heartbeat(1, 0, number))
                if number % 20 == 0:
                    await asyncio.sleep(0)

            await until(lambda: len(two.received) == 400)

            rounds = [one.round for one in two.messages if isinstance(one, Heartbeat)]
            firsts = [one.prev_index + 1 for one in two.messages if isinstance(one, Append)]
            assert rounds == firsts == list(range(1, 201))

    run(scenario())


def bulk_from_one(two: Node) -> asyncio.Transport:
    """On which the second node gets entries of the first; while it is not read, the first has to wait."""
    return two.links._peers[N1].inbound[Lane.BULK]._transport


def test_a_heartbeat_does_not_wait_behind_data(run: Run) -> None:
    async def scenario() -> None:
        async with cluster(N1, N2) as (one, two):
            one.links.send(N2, append(1))
            await until(lambda: two.received)
            bulk_from_one(two).pause_reading()
            for index in range(2, 30):
                one.links.send(N2, append(index, b"x" * 1_000_000))

            one.links.send(N2, Heartbeat(1, 0, 1))
            await until(lambda: Heartbeat(1, 0, 1) in two.messages)
            assert len(two.received) < 30

            bulk_from_one(two).resume_reading()
            await until(lambda: len(two.received) == 30)

    run(scenario())


def test_what_does_not_fit_into_the_queue_is_dropped_and_told(run: Run) -> None:
    limits = LinkLimits(bulk_queue_bytes_max=1_000_000)

    async def scenario() -> None:
        async with cluster(N1, N2, limits=limits) as (one, two):
            for index in range(1, 6):  # within one turn of the loop nothing can leave
                one.links.send(N2, append(index, b"x" * 400_000))

            await until(lambda: len(two.received) == 2)

            assert one.unreachable == [N2]
            assert one.links.statistics()[N2].dropped == 3
            assert [each.prev_index for each in two.messages if isinstance(each, Append)] == [0, 1]

    run(scenario())


def test_a_message_longer_than_the_other_side_takes_is_not_sent(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    limits = LinkLimits(bulk_frame_bytes_max=1000)

    async def scenario() -> None:
        async with cluster(N1, N2, limits=limits) as (one, two):
            one.links.send(N2, append(1, b"x" * 1000))
            await until(lambda: one.unreachable == [N2])
            one.links.send(N2, append(1, b"x" * 900))
            await until(lambda: two.received)

            assert two.messages == [append(1, b"x" * 900)]

    run(scenario())
    assert "message dropped: it is too large to=n2 message=Append" in caplog.text


def test_a_server_that_nobody_knows_is_unreachable(run: Run) -> None:
    async def scenario() -> None:
        async with node(N1, {}) as one:
            one.links.send(N2, Heartbeat(1, 0, 1))
            assert one.unreachable == []  # not within the call

            await until(lambda: one.unreachable == [N2])

    run(scenario())


def test_the_throttle_holds_back_snapshots_and_catching_up_only(run: Run) -> None:
    clock = 0.0
    snapshot = Snapshot(5, 1, Configuration(voters=(N1, N2)), 3_000)
    chunk = SnapshotChunk(1, snapshot, 0, b"x" * 3_000, True)

    async def scenario() -> None:
        nonlocal clock
        async with cluster(N1, N2, throttle=Throttle(30_000, lambda: clock)) as (one, two):
            one.links.send(N2, append(1, b"x" * 100_000))
            one.links.send(N2, chunk)
            one.links.send(N2, append(2), is_catch_up=True)
            await until(lambda: len(two.received) == 2)
            one.links.send(N2, Heartbeat(1, 0, 1))
            await until(lambda: len(two.received) == 3)
            assert two.messages[1:] == [chunk, Heartbeat(1, 0, 1)]

            clock = 10.0
            await until(lambda: len(two.received) == 4)

    run(scenario())


# ── who is who ──


def test_a_new_server_answers_one_that_it_does_not_know(run: Run, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            node(N2, {}, certificates=certificates) as new,
            node(N1, {N2: (new.address, "directory of n2")}, certificates=certificates) as leader,
        ):
            await sent(leader, new, Heartbeat(1, 0, 1))
            await sent(new, leader, HeartbeatReply(1, 1))

    run(scenario())


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"cluster_id": "d"}, "n1 is of cluster 'd', n2 of 'c'"),
        ({"directory_id": "new"}, "n1 has a replaced disk: its directory is 'new', that of the member 'directory of n1'"),
        ({"format_min": 2, "format_max": 2}, "n1 knows formats 2 to 2, n2 1 to 1"),
    ],
    ids=["cluster", "directory", "format"],
)  # fmt: skip
def test_one_that_does_not_belong_here_is_refused_and_both_sides_say_why(
    run: Run, caplog: pytest.LogCaptureFixture, said: dict[str, Any], line: str
) -> None:
    async def scenario() -> None:
        async with (
            node(N2, {N1: ("127.0.0.1:1", "directory of n1")}) as two,
            node(N1, {N2: (two.address, "directory of n2")}, **said) as one,
        ):
            await until(lambda: f"refused by {two.address}: {line}" in caplog.text)
            one.links.send(N2, Heartbeat(1, 0, 1))
            await until(lambda: one.unreachable)

            assert two.received == []
            assert not one.links.statistics()[N2].is_connected

    run(scenario())
    refusals = [each.getMessage() for each in caplog.records if "of a server refused" in each.getMessage()]
    assert len(refusals) == 1  # not one per attempt
    assert f"node=n1 address=127.0.0.1 subject= reason={line}" in refusals[0]


def test_one_that_was_dialled_in_anothers_place_gets_nothing(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with node(N3, {}) as three, node(N1, {N2: (three.address, "")}) as one:
            await until(lambda: "this is n3, not n2, which n1 looks for" in caplog.text)
            one.links.send(N2, Heartbeat(1, 0, 1))
            await until(lambda: one.unreachable)

            assert three.received == []

    run(scenario())


def test_one_whose_disk_was_replaced_gets_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with node(N2, {}, directory_id="new") as two, node(N1, {N2: (two.address, "old")}) as one:
            await until(lambda: "n2 has a replaced disk: its directory is 'new'" in caplog.text)
            one.links.send(N2, Heartbeat(1, 0, 1))
            await until(lambda: one.unreachable)

            assert two.received == []

    run(scenario())


def test_a_server_does_not_speak_with_itself(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        listener = Listener("127.0.0.1", 0)
        async with stream_layer(None, listener=listener) as layer:
            one = Node(N1, layer, {N1: (layer.address, ""), N2: (layer.address, "")})
            await until(lambda: "this is n1, not n2, which n1 looks for" in caplog.text)

            assert list(one.links.statistics()) == [N2]

            await one.links.close()

    run(scenario())


def test_a_list_of_members_that_is_newer_is_believed(run: Run) -> None:
    async def scenario() -> None:
        async with node(N2, {N1: ("127.0.0.1:1", "old")}) as two, node(N1, {}) as one:
            two.links.set_members({N1: (one.address, "old")}, version=7)
            one.links.set_members({N2: (two.address, "directory of n2")}, version=8)

            await sent(one, two, Heartbeat(1, 0, 1))
            await sent(two, one, HeartbeatReply(1, 1))

    run(scenario())


def test_a_server_without_a_cluster_becomes_a_part_of_the_first_that_calls(run: Run) -> None:
    clusters: list[str] = []

    async def scenario() -> None:
        async with (
            node(N2, {}, cluster_id="", on_cluster=clusters.append) as new,
            node(N1, {N2: (new.address, "")}) as one,
        ):
            await sent(one, new, Heartbeat(1, 0, 1))
            async with node(N3, {N2: (new.address, "")}, cluster_id="d") as other:
                other.links.send(N2, Heartbeat(1, 0, 1))
                await until(lambda: other.unreachable)

            assert new.messages[0] == Heartbeat(1, 0, 1)
            assert {sender for sender, _ in new.received} == {N1}

    run(scenario())
    assert clusters == ["c"]


def test_the_common_format_is_the_lowest_of_all_members(run: Run) -> None:
    async def scenario() -> None:
        async with node(N2, {}, format_max=3) as two, node(N3, {}, format_max=2) as three:
            members = {N2: (two.address, ""), N3: (three.address, "")}
            async with node(N1, members, format_max=4) as one:
                assert one.links.format_version == 4

                await until(lambda: all(each.is_connected for each in one.links.statistics().values()))

                assert one.links.format_version == 2

    run(scenario())


# ── what changes ──


def test_a_member_that_comes_back_is_found_again(run: Run, certificates: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            two = await stack.enter_async_context(node(N2, {}, certificates=certificates))
            one = await stack.enter_async_context(
                node(N1, {N2: (two.address, "directory of n2")}, certificates=certificates)
            )
            await sent(one, two, append(1))
            port = int(two.address.rpartition(":")[2])
            await two.links.close()
            listener: Listener = two.layer._listener
            await listener.close()
            await until(lambda: not one.links.statistics()[N2].is_connected and N2 in one.unreachable)

            again = await stack.enter_async_context(node(N2, {}, certificates=certificates, port=port))

            await sent(one, again, append(2))
            await sent(one, again, Heartbeat(1, 0, 1))
            assert one.links.statistics()[N2].connects > 2

    run(scenario())


def test_a_member_with_a_new_address_is_found_there(run: Run) -> None:
    async def scenario() -> None:
        async with node(N2, {}) as old, node(N2, {}) as new, node(N1, {N2: (old.address, "")}) as one:
            await sent(one, old, Heartbeat(1, 0, 1))

            one.links.set_members({N1: (one.address, ""), N2: (new.address, "")}, version=1)

            await sent(one, new, Heartbeat(1, 0, 2))
            assert Heartbeat(1, 0, 2) not in old.messages

    run(scenario())


def test_one_that_is_no_member_any_more_gets_nothing(run: Run) -> None:
    async def scenario() -> None:
        async with cluster(N1, N2) as (one, two):
            one.links.set_members({N1: (one.address, "")}, version=1)
            two.links.set_members({N2: (two.address, "")}, version=1)
            one.links.send(N2, Heartbeat(1, 0, 1))
            await until(lambda: N2 in one.unreachable)

            assert two.received == []
            assert one.links.statistics() == {}

    run(scenario())


def test_a_member_whose_directory_changes_must_introduce_itself_again(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with cluster(N1, N2) as (one, two):
            one.links.set_members({N2: (two.address, "another")}, version=1)

            await until(lambda: "n2 has a replaced disk" in caplog.text)
            await until(lambda: not one.links.statistics()[N2].is_connected)

    run(scenario())


def test_statistics_tell_what_is_known_of_a_peer(run: Run) -> None:
    async def scenario() -> None:
        async with cluster(N1, N2) as (one, two):
            before = asyncio.get_running_loop().time()
            await sent(two, one, Heartbeat(1, 0, 1))

            of_two = one.links.statistics()[N2]

            assert (of_two.is_connected, of_two.queued_bytes, of_two.dropped, of_two.connects) == (
                True,
                0,
                0,
                1,
            )
            assert (of_two.format_min, of_two.format_max) == (1, 1)
            assert of_two.last_heard is not None and of_two.last_heard >= before

    run(scenario())


# ── hostile peers: they have a peer's certificate, or there is no TLS ──


@asynccontextmanager
async def guest(of: Node, lane: Lane = Lane.CONTROL, **more: Any) -> AsyncIterator[Any]:
    """A connection of one that has introduced itself as n9."""
    async with stream_layer(None) as layer:
        connection = await layer.dial(of.address, 10.0)
        identity = Identity(cluster_id="c", directory_id="d", address=layer.address)
        says = introduction(NodeId("n9"), identity, members_version=0)
        hello = Hello(**{**says, "to": of.name, "lane": lane, **more})
        connection.write_frame(1, hello.to_bytes())
        answer = await connection.next_frame()
        assert answer.type in (WELCOME, REFUSAL)
        yield connection
        connection.abort("done")


@pytest.mark.parametrize(
    ("type", "payload", "why"),
    [
        (MESSAGE, b"", "no bytes are no message"),
        (MESSAGE, b"\xff", "no message has the number 255"),
        (9, b"", "a frame of type 9"),
        (MESSAGE, b"x" * 70_000, ""),
    ],
)
def test_one_that_sends_nonsense_is_cut_off_and_others_are_not(
    run: Run, caplog: pytest.LogCaptureFixture, type: int, payload: bytes, why: str
) -> None:
    async def scenario() -> None:
        async with cluster(N1, N2) as (one, two), guest(one) as connection:
            connection.write_frame(type, payload)

            await connection.ended

            await sent(two, one, Heartbeat(1, 0, 1))
            assert [sender for sender, _ in one.received] == [N2] * len(one.received)
            assert why in caplog.text

    run(scenario())


@pytest.mark.parametrize("frame", [(1, b"no JSON"), (4, b"")])
def test_one_that_does_not_introduce_itself_is_cut_off(
    run: Run, caplog: pytest.LogCaptureFixture, frame: tuple[int, bytes]
) -> None:
    async def scenario() -> None:
        async with node(N1, {}) as one, stream_layer(None) as layer:
            connection = await layer.dial(one.address, 10.0)
            connection.write_frame(*frame)
            await connection.ended

            assert one.received == []

    run(scenario())
    assert "connection of a server refused address=127.0.0.1" in caplog.text


def test_a_second_connection_of_one_peer_takes_the_place_of_the_first(run: Run) -> None:
    async def scenario() -> None:
        async with node(N1, {}) as one, guest(one) as first, guest(one) as second:
            await first.ended
            assert second.is_open

            async with guest(one, Lane.BULK):  # of the other lane
                for _ in range(10):
                    await asyncio.sleep(0)
                assert second.is_open

    run(scenario())


def test_names_that_nobody_knows_do_not_fill_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftlog.net.peer_links.STRANGERS_MAX", 2)

    async def scenario() -> None:
        async with node(N1, {}) as one:
            for number in range(5):
                async with guest(one, node=f"stranger {number}"):
                    pass

            assert list(one.links.statistics()) == ["stranger 0", "stranger 1"]

    run(scenario())


def test_closing_ends_every_connection(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with cluster(N1, N2) as (one, two):
            one.links.send(N2, append(1))
            await until(lambda: two.received)

            await one.links.close()

            await until(lambda: not two.links.statistics()[N1].is_connected)
            one.links.send(N2, append(2))
            await until(lambda: one.unreachable)

    run(scenario())


# ── the end ──


@pytest.mark.parametrize("is_tls", [True, False], ids=["tls", "plain"])
def test_closing_returns_when_the_connections_have_ended(
    run: Run, certificates: Path, monkeypatch: pytest.MonkeyPatch, is_tls: bool
) -> None:
    taken: list[tuple[StreamLayer, Connection]] = []
    accept, dial = StreamLayer.accept, StreamLayer.dial

    async def noted_accept(layer: StreamLayer) -> Connection:
        taken.append((layer, await accept(layer)))
        return taken[-1][1]

    async def noted_dial(layer: StreamLayer, address: str, timeout: float) -> Connection:
        taken.append((layer, await dial(layer, address, timeout)))
        return taken[-1][1]

    monkeypatch.setattr(StreamLayer, "accept", noted_accept)
    monkeypatch.setattr(StreamLayer, "dial", noted_dial)

    async def scenario() -> None:
        async with cluster(N1, N2, certificates=certificates if is_tls else None) as (one, two):
            await sent(one, two, append(2))
            of_one = [connection for layer, connection in taken if layer is one.layer]

            await one.links.close()

            assert len(of_one) >= 3  # for control both ways, for bulk one way
            assert [connection for connection in of_one if not connection.ended.done()] == []

    run(scenario())


def test_closing_cuts_connections_to_who_does_not_listen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        raftlog.net.stream_layer, "UNACKNOWLEDGED_MS_MAX", 60_000
    )  # which would cut them, too

    async def scenario() -> None:
        async with cluster(N1, N2) as (one, two):
            await sent(one, two, append(2))
            bulk_from_one(two).pause_reading()
            while not one.links.statistics()[N2].queued_bytes:
                one.links.send(N2, append(3, bytes(MIB)))
                await asyncio.sleep(0.01)

            async with asyncio.timeout(CLOSE_S_MAX + DEADLINE_S):
                await one.links.close()

    run(scenario())
