"""The cluster service as functions of a request and a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore import Kind, RawEntry
from raftlog.errors import (
    InvalidRequest,
    MembershipRefused,
    NotCaughtUp,
    NotLeader,
    PermissionDenied,
    Unauthenticated,
)
from raftlog.pb.raftlog.v1 import cluster_pb2 as pb
from raftlog.server.call import Access, Call
from raftlog.server.cluster_service import NAME_BYTES_MAX, ClusterService
from tests.raftlog.fake_cluster_log import FakeClusterLog
from tests.raftlog.services import NOBODY, ROOT, STRANGER, NobodyLeads, run, shipped_access

PEER = Call("peer", is_peer=True)
ELSEWHERE = NotLeader("two", "two:8400")


class Leads:
    """Answers in the place of the leader."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def ask(self, refused: NotLeader, method: str, request: Any, response: Any, call: Call) -> Any:
        self.asked.append((refused, method, request, call))
        return response()

    async def relay(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing of the cluster is a stream")
        yield


class Only:
    """Lets everybody do one thing."""

    def __init__(self, action: str) -> None:
        self._action = action

    def require_subject(self, subject: str | None) -> None:
        pass

    def check(self, subject: str | None, object: str, action: str) -> None:
        if action != self._action:
            raise PermissionDenied(subject or "", action, object)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FakeClusterLog]:
    with FakeClusterLog(tmp_path / "log") as log:
        yield log


def service_of(log: FakeClusterLog, *, access: Access | None = None, leader: Any = None) -> ClusterService:
    return ClusterService(log, access or shipped_access(), leader or NobodyLeads())


JOIN = pb.JoinRequest(id="two", rpc_addr="two:8400", directory_id="d")
Asks = Callable[[ClusterService, Call], Any]

# The action that each needs, whether only the leader does it, and what it then does.
CALLS: dict[str, tuple[str, str | None, Any, Asks]] = {
    "Join": ("admin", "leader", ("join", "two", "two:8400", "d"), lambda s, c: s.join(JOIN, c)),
    "Leave": ("admin", "leader", ("leave", "two"), lambda s, c: s.leave(pb.LeaveRequest(id="two"), c)),
    "Promote": (
        "admin", "leader", ("promote", "two"), lambda s, c: s.promote(pb.PromoteRequest(id="two"), c)
    ),
    "TransferLeadership": (
        "admin", "leader", ("transfer", "two"),
        lambda s, c: s.transfer_leadership(pb.TransferLeadershipRequest(to="two"), c),
    ),
    "Truncate": (
        "admin", "leader", ("truncate", 5), lambda s, c: s.truncate(pb.TruncateRequest(lowest_offset=5), c)
    ),
    "CommitCursor": (
        "consume", "leader", ("commit_cursor", "g", 5),
        lambda s, c: s.commit_cursor(pb.CommitCursorRequest(group="g", offset=5), c),
    ),
    "TakeSnapshot": (
        "admin", None, ("snapshot",), lambda s, c: s.take_snapshot(pb.TakeSnapshotRequest(), c)
    ),
    "ListCursors": (
        "consume", None, ("read_index",),
        lambda s, c: s.list_cursors(pb.ListCursorsRequest(linearizable=True), c),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_each_method_needs_its_permission_and_does_what_it_says(log: FakeClusterLog, name: str) -> None:
    action, _, done, ask = CALLS[name]

    async def scenario() -> None:
        for caller, kind in ((STRANGER, Unauthenticated), (NOBODY, PermissionDenied)):
            with pytest.raises(kind):
                await ask(service_of(log), caller)
        others = {"admin": "consume", "consume": "admin"}
        with pytest.raises(PermissionDenied, match=f"not permitted to {action} to"):
            await ask(service_of(log, access=Only(others[action])), ROOT)
        assert log.asked == []
        await ask(service_of(log, access=Only(action)), ROOT)
        assert log.asked == [done]

    run(scenario())


@pytest.mark.parametrize("name", CALLS)
def test_what_only_the_leader_can_do_is_sent_on_to_it_and_nothing_else(
    log: FakeClusterLog, name: str
) -> None:
    _, where, done, ask = CALLS[name]
    log.elsewhere = ELSEWHERE
    leader = Leads()

    async def scenario() -> None:
        await ask(service_of(log, leader=leader), ROOT)

    run(scenario())
    if where == "leader":
        ((refused, method, _, call),) = leader.asked
        assert (refused, method, call) == (ELSEWHERE, f"/raftlog.v1.Cluster/{name}", ROOT)
    else:
        assert (leader.asked, log.asked) == ([], [done])


def test_a_server_may_bring_itself_in_and_do_nothing_else(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        answer = await service.join(JOIN, PEER)
        (member,) = answer.members
        assert (answer.cluster_id, member.id, member.rpc_addr) == ("cluster", "one", "one:8400")
        for name in CALLS.keys() - {"Join"}:
            with pytest.raises(PermissionDenied):
                await CALLS[name][3](service, PEER)

    run(scenario())
    assert log.asked == [("join", "two", "two:8400", "d")]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pb.JoinRequest(rpc_addr="two:8400"), "id: 1 to 255 bytes"),
        (pb.JoinRequest(id="two"), "rpc_addr: 1 to 255 bytes"),
        (pb.JoinRequest(id="two", rpc_addr="two"), "rpc_addr: 'two': not host:port"),
        (pb.JoinRequest(id="two", rpc_addr="two:port"), "port 'port' is not a number"),
        (pb.JoinRequest(id="n" * (NAME_BYTES_MAX + 1), rpc_addr="two:1"), "256 came"),
        (pb.LeaveRequest(), "id: "),
        (pb.PromoteRequest(), "id: "),
        (pb.CommitCursorRequest(), "group: "),
        (pb.CommitCursorRequest(group="é" * 128), "256 came"),
    ],
)
def test_a_request_without_a_name_or_address_that_can_be_used_is_invalid(
    log: FakeClusterLog, request_: Any, words: str
) -> None:
    methods = {
        pb.JoinRequest: "join", pb.LeaveRequest: "leave", pb.PromoteRequest: "promote",
        pb.CommitCursorRequest: "commit_cursor",
    }  # fmt: skip

    async def scenario() -> None:
        with pytest.raises(InvalidRequest) as caught:
            await getattr(service_of(log), methods[type(request_)])(request_, ROOT)
        assert words in str(caught.value)

    run(scenario())
    assert log.asked == []


def test_everybody_with_a_name_is_told_what_the_server_is_and_believes(log: FakeClusterLog) -> None:
    log.append(b"a")
    log.elsewhere = ELSEWHERE

    async def scenario() -> None:
        service = service_of(log)
        with pytest.raises(Unauthenticated):
            await service.get_status(pb.GetStatusRequest(), STRANGER)
        member = pb.Member(
            id="one", rpc_addr="one:8400", directory_id="directory", is_voter=True, is_leader=True
        )
        assert await service.get_status(pb.GetStatusRequest(), NOBODY) == pb.GetStatusResponse(
            node_id="one", cluster_id="cluster", directory_id="directory", role="leader", term=3,
            leader_id="one", first_index=2, last_index=9, commit_index=8, applied_index=7, snapshot_index=4,
            log_start=0, high_watermark=1, members=[member], configuration="voters one", engine="raft",
            format_version=1,
        )  # fmt: skip

    run(scenario())


def test_cursors_are_listed_by_group_all_or_one(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        service = service_of(log)
        for group, offset in (("b", 2), ("a", 1)):
            await service.commit_cursor(pb.CommitCursorRequest(group=group, offset=offset), ROOT)
        every = await service.list_cursors(pb.ListCursorsRequest(), ROOT)
        one = await service.list_cursors(pb.ListCursorsRequest(group="b"), ROOT)
        none = await service.list_cursors(pb.ListCursorsRequest(group="c"), ROOT)
        assert [(each.group, each.offset, each.time_ns) for each in every.cursors] == [
            ("a", 1, 5),
            ("b", 2, 5),
        ]
        assert [each.group for each in one.cursors] == ["b"]
        assert not none.cursors
        log.behind = True
        with pytest.raises(NotCaughtUp):
            await service.list_cursors(pb.ListCursorsRequest(linearizable=True), ROOT)

    run(scenario())


def test_who_takes_over_is_told(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        answer = await service_of(log).transfer_leadership(pb.TransferLeadershipRequest(), ROOT)
        assert answer.leader_id == "two"

    run(scenario())


@pytest.mark.parametrize(
    ("first", "end", "expected", "asked"),
    [
        (2, 7, [2, 3, 4, 5, 6], [2, 4, 6]),
        (3, 4, [3], [3]),
        (5, 9, [5, 6], [5, 7]),
        (9, 12, [], [9]),
        (4, 4, [], []),
    ],
)
def test_a_server_fetches_entries_to_the_end_or_up_to_what_is_missing(
    log: FakeClusterLog, first: int, end: int, expected: list[int], asked: list[int]
) -> None:
    log.held = [RawEntry(index, 3, Kind.COMMAND, b"%d" % index) for index in range(2, 7)]

    async def scenario() -> None:
        request = pb.FetchEntriesRequest(first_index=first, end_index=end)
        responses = [one async for one in service_of(log).fetch_entries(request, PEER)]
        found = [entry for one in responses for entry in one.entries]
        assert [(entry.index, entry.term, entry.kind, entry.data) for entry in found] == [
            (index, 3, Kind.COMMAND, b"%d" % index) for index in expected
        ]

    run(scenario())
    assert log.asked == [("entries", index) for index in asked]


def test_entries_are_for_servers_and_administrators(log: FakeClusterLog) -> None:
    async def scenario() -> None:
        request = pb.FetchEntriesRequest(first_index=2, end_index=3)
        for caller, kind in ((STRANGER, Unauthenticated), (NOBODY, PermissionDenied)):
            with pytest.raises(kind):
                await anext(service_of(log).fetch_entries(request, caller))
        assert [one async for one in service_of(log).fetch_entries(request, ROOT)] == []

    run(scenario())


def test_a_server_with_data_of_another_cluster_is_refused_and_nothing_changes(log: FakeClusterLog) -> None:
    request = pb.JoinRequest(id="two", rpc_addr="two:8400", cluster_id="another")

    with pytest.raises(MembershipRefused, match="has data of cluster another, this is cluster"):
        run(service_of(log).join(request, PEER))

    assert log.asked == []


def test_a_server_on_another_engine_is_refused_and_nothing_changes(log: FakeClusterLog) -> None:
    request = pb.JoinRequest(id="two", rpc_addr="two:8400", engine="pysyncobj")

    with pytest.raises(MembershipRefused, match="runs on the engine pysyncobj, this cluster on raft"):
        run(service_of(log).join(request, PEER))

    assert log.asked == []
