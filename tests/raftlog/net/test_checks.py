"""A server is who it is said to be: found out over mutual TLS, without making links."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from raftlog.engine import NodeId
from raftlog.net.handshake import HandshakeFailed
from raftlog.net.stream_layer import Unreachable
from raftlog.raft.messages import Heartbeat
from tests.raftlog.net.nodes import N1, N2, N3, node, until

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("is_tls", [True, False], ids=["tls", "plain"])
def test_a_server_of_this_cluster_says_who_it_is(run: Run, certificates: Path, is_tls: bool) -> None:
    async def scenario() -> None:
        certs = certificates if is_tls else None
        async with node(N1, {}, certificates=certs) as one, node(N2, {}, certificates=certs) as two:
            welcome = await one.links.check(N2, two.address, "directory of n2")

            assert (welcome.node, welcome.directory_id, welcome.address) == (
                N2, "directory of n2", two.address
            )  # fmt: skip
            assert one.links.statistics() == two.links.statistics() == {}  # nobody is a peer by that

    run(scenario())


def test_a_new_server_is_of_the_cluster_that_checks_it(run: Run) -> None:
    async def scenario() -> None:
        clusters: list[str] = []
        async with node(N1, {}) as one, node(N2, {}, cluster_id="", on_cluster=clusters.append) as two:
            assert (await one.links.check(N2, two.address)).cluster_id == "c"

            assert clusters == ["c"]

    run(scenario())


def test_to_ask_who_is_there_makes_a_new_server_no_member(run: Run) -> None:
    async def scenario() -> None:
        clusters: list[str] = []
        async with node(N1, {}) as one, node(N2, {}, cluster_id="", on_cluster=clusters.append) as two:
            welcome = await one.links.identify(two.address)

            assert (welcome.node, welcome.cluster_id, clusters) == (N2, "", [])

    run(scenario())


@pytest.mark.parametrize(
    ("wanted", "directory", "says", "reason"),
    [
        (N3, "", {}, "this is n2, not n3"),
        (N2, "another", {}, "has directory 'directory of n2', not 'another'"),
        (N2, "", {"cluster_id": "other"}, "of cluster"),
    ],
)
def test_another_than_was_wanted_is_refused(
    run: Run, wanted: NodeId, directory: str, says: dict[str, Any], reason: str
) -> None:
    async def scenario() -> None:
        async with node(N1, {}) as one, node(N2, {}, **says) as two:
            with pytest.raises(HandshakeFailed, match=reason):
                await one.links.check(wanted, two.address, directory)

    run(scenario())


def test_who_is_not_there_cannot_be_checked(run: Run) -> None:
    async def scenario() -> None:
        async with node(N1, {}) as one:
            with pytest.raises(Unreachable):
                await one.links.check(N2, "127.0.0.1:1")

    run(scenario())


def test_a_check_of_a_member_leaves_its_links_as_they_are(run: Run) -> None:
    async def scenario() -> None:
        async with node(N1, {}) as one, node(N2, {N1: (one.address, "")}) as two:
            one.links.set_members({N2: (two.address, "")})
            await until(lambda: one.links.statistics()[N2].is_connected)
            one.links.send(N2, Heartbeat(1, 0, 1))
            await until(lambda: two.received)

            await one.links.check(N2, two.address)
            one.links.send(N2, Heartbeat(1, 0, 2))
            await until(lambda: len(two.received) == 2)

            assert one.links.statistics()[N2].connects == 1

    run(scenario())
