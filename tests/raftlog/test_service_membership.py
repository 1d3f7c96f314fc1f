"""What was found of servers, the autopilot, departing and keys of the gossip, as functions of a request and a call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftlog.errors import (
    InvalidRequest,
    MembershipRefused,
    NotLeader,
    NotSupported,
    PermissionDenied,
    Unauthenticated,
)
from raftlog.pb.raftlog.v1 import cluster_pb2 as pb
from raftlog.runtime.metrics import Metrics
from raftlog.server.call import Call
from raftlog.server.cluster_service import PATH, ClusterService
from raftlog.server.gossip_keys import GossipKeysService, key_id
from raftlog.server.grpc_binding import GrpcBinding
from raftlog.server.membership_service import MembershipService, known_servers
from tests.raftlog.fake_cluster_log import FakeMember, FakeStatus
from tests.raftlog.fake_membership import (
    NOW,
    FakeActionReport,
    FakeAutopilot,
    FakeCandidate,
    FakeKeyrings,
    FakeReport,
    FakeServerReport,
    FakeSource,
    FoundLog,
)
from tests.raftlog.services import NOBODY, ROOT, STRANGER, NobodyLeads, run, shipped_access

PEER = Call("peer", is_peer=True)
ELSEWHERE = NotLeader("two", "two:8400")
OLD, NEW = b"o" * 16, b"n" * 32


class Leads:
    """Answers in the place of the leader."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def ask(self, refused: NotLeader, method: str, request: Any, response: Any, call: Call) -> Any:
        self.asked.append((refused, method, request, call))
        return response()

    async def relay(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing of this is a stream")
        yield


class Departure:
    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FoundLog]:
    with FoundLog(tmp_path / "log") as log:
        yield log


def service_of(log: FoundLog, **more: Any) -> MembershipService:
    fixed: dict[str, Any] = {
        "source": FakeSource(), "autopilot": FakeAutopilot(), "depart": Departure(), "clock": lambda: NOW,
    }  # fmt: skip
    leader = more.pop("leader", None) or NobodyLeads()
    return MembershipService(log, shipped_access(), leader, **{**fixed, **more})


def keys_of(gossip: FakeKeyrings | None) -> GossipKeysService:
    return GossipKeysService(shipped_access(), gossip=gossip)


def change(action: str, **more: Any) -> pb.ChangeGossipKeysRequest:
    return pb.ChangeGossipKeysRequest(action=action, **more)


# ── who may ─────────────────────────────────────────────────────────────────────────────────────────

Asks = Callable[[FoundLog, Call], Any]
CALLS: dict[str, tuple[str | None, Asks]] = {  # the action that each needs; None: a name is enough
    "ListMembers": (None, lambda log, call: service_of(log).list_members(pb.ListMembersRequest(), call)),
    "GetAutopilot": (None, lambda log, call: service_of(log).get_autopilot(pb.GetAutopilotRequest(), call)),
    "SetAutopilot": (
        "admin", lambda log, call: service_of(log).set_autopilot(pb.SetAutopilotRequest(mode="off"), call)
    ),
    "Depart": ("admin", lambda log, call: service_of(log).depart(pb.DepartRequest(id="one"), call)),
    "ChangeGossipKeys": (
        "admin", lambda log, call: keys_of(FakeKeyrings(one=[OLD])).change_gossip_keys(change("list"), call)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_each_method_needs_its_permission(log: FoundLog, name: str) -> None:
    action, ask = CALLS[name]

    async def scenario() -> None:
        with pytest.raises(Unauthenticated):
            await ask(log, STRANGER)
        if action is None:
            await ask(log, NOBODY)
        else:
            with pytest.raises(PermissionDenied, match=f"not permitted to {action} to"):
                await ask(log, NOBODY)
        await ask(log, ROOT)

    run(scenario())


def test_every_method_of_the_cluster_service_is_bound_once(log: FoundLog) -> None:
    binding = GrpcBinding(Metrics(), peer_names=frozenset())
    handlers = (
        binding.cluster_service(ClusterService(log, shipped_access(), NobodyLeads())),
        binding.membership_service(service_of(log), keys_of(None)),
    )

    for method in pb.DESCRIPTOR.services_by_name["Cluster"].methods_by_name:
        call: Any = SimpleNamespace(method=f"{PATH}{method}")
        assert [handler.service(call) is not None for handler in handlers].count(True) == 1, method


# ── members ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_found_stands_beside_what_raft_knows(log: FoundLog) -> None:
    candidate = FakeCandidate(
        "one", "one:8400", "directory", gossip_address="10.0.0.1:8401", since=NOW - 90
    )  # fmt: skip

    async def scenario() -> None:
        answer = await service_of(log, source=FakeSource(candidate)).list_members(
            pb.ListMembersRequest(), NOBODY
        )
        assert answer == pb.ListMembersResponse(
            node_id="one", cluster_id="cluster",
            servers=[pb.KnownServer(
                name="one", rpc_addr="one:8400", gossip_addr="10.0.0.1:8401", status="alive", status_s=90.0,
                raft_role="leader", version="0.1.0", directory_id="directory", cluster_id="cluster",
            )],
        )  # fmt: skip

    run(scenario())


TWO = FakeMember("two", "two:8400", "d2")
LEARNER = TWO._replace(is_voter=False)
GOSSIPS = FakeCandidate("two", "two:8400", "d2")


@pytest.mark.parametrize(
    ("member", "candidate", "role", "remarks"),
    [
        (TWO, GOSSIPS, "voter", []),
        (LEARNER, GOSSIPS, "learner", []),
        (TWO, GOSSIPS._replace(address="", directory_id="", cluster_id=""), "voter", []),
        (TWO, None, "voter", ["a member, not found by discovery"]),
        (TWO, GOSSIPS._replace(status="failed"), "voter", ["failed, still counts for the quorum"]),
        (LEARNER, GOSSIPS._replace(status="failed"), "learner", ["failed"]),
        (TWO, GOSSIPS._replace(status="left"), "voter", ["left, still a member"]),
        (TWO, GOSSIPS._replace(status="leaving"), "voter", ["leaving, still a member"]),
        (TWO, GOSSIPS._replace(cluster_id="b"), "voter", ["says it is of cluster b"]),
        (TWO, GOSSIPS._replace(address="new:1"), "voter", ["says it is at new:1"]),
        (TWO, GOSSIPS._replace(directory_id="d3"), "voter", ["has another data directory than when it became a member"]),
        (TWO._replace(directory_id=""), GOSSIPS, "voter", []),
        (None, GOSSIPS, "", ["not a member"]),
        (None, GOSSIPS._replace(role="joining"), "", ["not a member yet: it waits to be let in"]),
        (None, GOSSIPS._replace(cluster_id="b"), "", ["of another cluster: b"]),
        (None, GOSSIPS._replace(address=""), "", ["no server of raftlog: it tells no rpc_addr"]),
        (None, GOSSIPS._replace(status="left"), "", []),
        (None, GOSSIPS._replace(status="failed", cluster_id="b"), "", []),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_remarked(
    member: FakeMember | None, candidate: FakeCandidate | None, role: str, remarks: list[str]
) -> None:
    own = FakeStatus().members[0]
    status = FakeStatus(members=(own, member) if member else (own,))

    found = known_servers([candidate] if candidate else [], status, now=NOW)

    (two,) = (one for one in found if one.name == "two")
    assert (two.raft_role, list(two.remarks)) == (role, remarks)
    assert two.rpc_addr == (member or candidate or TWO).address
    assert [list(one.remarks) for one in found if one.name == "one"] == [
        []
    ]  # the asked server need not find itself


def test_a_server_that_dns_has_found_is_the_member_at_its_address() -> None:
    status = FakeStatus(members=(TWO,))
    candidates = [
        FakeCandidate("", "two:8400", cluster_id=""),
        FakeCandidate("", "three:8400", cluster_id=""),
    ]

    found = known_servers(candidates, status, now=NOW)

    assert [(one.name, one.rpc_addr, one.raft_role, list(one.remarks)) for one in found] == [
        ("", "three:8400", "", ["not a member"]),
        ("two", "two:8400", "voter", []),
    ]


def test_two_servers_that_say_they_have_one_name_are_both_listed() -> None:
    found = known_servers(
        [FakeCandidate("x", "b:1"), FakeCandidate("x", "a:1")], FakeStatus(members=()), now=NOW
    )

    assert [(one.name, one.rpc_addr) for one in found] == [("x", "a:1"), ("x", "b:1")]


def test_how_long_is_not_told_where_it_is_not_known_and_never_negative() -> None:
    candidates = [FakeCandidate("a", since=0.0), FakeCandidate("b", since=NOW + 1)]

    assert [one.status_s for one in known_servers(candidates, FakeStatus(members=()), now=NOW)] == [0.0, 0.0]


def test_a_server_that_does_not_look_for_others_says_so(log: FoundLog) -> None:
    with pytest.raises(
        NotSupported, match=r"does not look for others \(discovery is off\): `raftlog servers`"
    ):
        run(service_of(log, source=None).list_members(pb.ListMembersRequest(), ROOT))


# ── the autopilot ───────────────────────────────────────────────────────────────────────────────────


def test_what_the_autopilot_thinks_is_told_whole(log: FoundLog) -> None:
    report = FakeReport(
        mode="advise", is_healthy=False, failure_tolerance=0, voters_max=5,
        servers=(
            FakeServerReport("one", "one:8400", is_leader=True, last_contact_s=0.0),
            FakeServerReport("two", status="", is_voter=False, is_healthy=False, last_contact_s=None,
                             trailing_entries=None, reason="why"),
        ),
        advice=("first", "then"), last_actions=(FakeActionReport(5, "did", "failed"),),
    )  # fmt: skip

    async def scenario() -> None:
        answer = await service_of(log, autopilot=FakeAutopilot(report)).get_autopilot(
            pb.GetAutopilotRequest(), NOBODY
        )
        one, two = answer.servers
        assert (answer.mode, answer.is_leader, answer.is_healthy) == ("advise", True, False)
        assert (answer.failure_tolerance, answer.voters_max, list(answer.advice)) == (0, 5, ["first", "then"])
        assert list(answer.last_actions) == [pb.AutopilotAction(time_ns=5, text="did", error="failed")]
        assert one == pb.AutopilotServer(
            name="one", rpc_addr="one:8400", status="alive", is_member=True, is_voter=True, is_leader=True,
            is_healthy=True, healthy_since_s=60.0, last_contact_s=0.0, trailing_entries=0,
        )  # fmt: skip
        assert (two.HasField("last_contact_s"), two.HasField("trailing_entries"), two.reason) == (
            False,
            False,
            "why",
        )

    run(scenario())


def test_the_leader_is_asked_what_its_autopilot_thinks(log: FoundLog) -> None:
    leader = Leads()
    follower = FakeAutopilot(FakeReport(is_leader=False))
    service = service_of(log, autopilot=follower, leader=leader)

    async def scenario() -> None:
        just_elected = await service.get_autopilot(pb.GetAutopilotRequest(), ROOT)
        assert (just_elected.mode, just_elected.is_leader, leader.asked) == ("act", False, [])
        log.elsewhere = follower.elsewhere = ELSEWHERE
        await service.get_autopilot(pb.GetAutopilotRequest(), ROOT)
        await service.set_autopilot(pb.SetAutopilotRequest(mode="off"), ROOT)

    run(scenario())
    assert [(refused, method) for refused, method, *_ in leader.asked] == [
        (ELSEWHERE, "/raftlog.v1.Cluster/GetAutopilot"), (ELSEWHERE, "/raftlog.v1.Cluster/SetAutopilot"),
    ]  # fmt: skip
    assert follower.now.mode == "act"


@pytest.mark.parametrize("mode", ["act", "advise", "off"])
def test_the_autopilot_is_switched(log: FoundLog, mode: str) -> None:
    autopilot = FakeAutopilot(FakeReport(mode="?"))

    run(service_of(log, autopilot=autopilot).set_autopilot(pb.SetAutopilotRequest(mode=mode), ROOT))

    assert autopilot.now.mode == mode


@pytest.mark.parametrize("mode", ["", "on", "ACT"])
def test_another_mode_is_refused(log: FoundLog, mode: str) -> None:
    autopilot = FakeAutopilot()

    with pytest.raises(InvalidRequest, match=f"mode: '{mode}' is none of act, advise, off"):
        run(service_of(log, autopilot=autopilot).set_autopilot(pb.SetAutopilotRequest(mode=mode), ROOT))

    assert autopilot.now.mode == "act"


def test_an_engine_without_an_autopilot_says_so(log: FoundLog) -> None:
    service = service_of(log, autopilot=None)

    for asking in (
        service.get_autopilot(pb.GetAutopilotRequest(), ROOT),
        service.set_autopilot(pb.SetAutopilotRequest(mode="act"), ROOT),
    ):
        with pytest.raises(NotSupported, match="no autopilot: members are changed by hand"):
            run(asking)


# ── departing ───────────────────────────────────────────────────────────────────────────────────────


def test_a_removed_server_departs_when_an_administrator_or_another_server_says_so(log: FoundLog) -> None:
    departure = Departure()
    service = service_of(log, depart=departure)

    async def scenario() -> None:
        for call in (ROOT, PEER):
            await service.depart(pb.DepartRequest(id="one"), call)

    run(scenario())
    assert departure.count == 2


@pytest.mark.parametrize(
    ("name", "words"), [("", "id: 1 to 255 bytes"), ("two", "id: this server is one, not two")]
)
def test_a_server_does_not_depart_in_the_place_of_another(log: FoundLog, name: str, words: str) -> None:
    departure = Departure()

    with pytest.raises(InvalidRequest, match=words):
        run(service_of(log, depart=departure).depart(pb.DepartRequest(id=name), ROOT))

    assert departure.count == 0


# ── keys of the gossip ──────────────────────────────────────────────────────────────────────────────


def test_keys_are_listed_by_their_ids_and_never_told() -> None:
    gossip = FakeKeyrings(one=[OLD, NEW], two=[NEW, OLD], three=[OLD])
    gossip.silent["list"] = {"three"}

    async def scenario() -> None:
        answer = await keys_of(gossip).change_gossip_keys(change("list"), ROOT)
        assert (answer.members, answer.answers, dict(answer.errors)) == (3, 2, {})
        assert {one.id: (one.members, one.primary_members) for one in answer.keys} == {
            hashlib.sha256(OLD).hexdigest()[:16]: (2, 1),
            hashlib.sha256(NEW).hexdigest()[:16]: (2, 1),
        }

    run(scenario())


def test_a_key_is_installed_used_and_removed_by_itself_or_by_its_id() -> None:
    gossip = FakeKeyrings(one=[OLD], two=[OLD])
    service = keys_of(gossip)

    async def scenario() -> None:
        await service.change_gossip_keys(change("install", key=NEW), ROOT)
        assert gossip.keyrings == {"one": [OLD, NEW], "two": [OLD, NEW]}
        await service.change_gossip_keys(change("use", key_id=key_id(NEW)), ROOT)
        assert gossip.keyrings == {"one": [NEW, OLD], "two": [NEW, OLD]}
        await service.change_gossip_keys(change("remove", key_id=key_id(OLD)), ROOT)
        assert gossip.keyrings == {"one": [NEW], "two": [NEW]}

    run(scenario())
    assert not gossip.hurt


def test_a_key_is_not_used_before_all_have_it() -> None:
    gossip = FakeKeyrings(one=[OLD, NEW], two=[OLD])

    with pytest.raises(
        MembershipRefused, match="1 of 2 members are known to have the key [0-9a-f]{16}: .* install it"
    ):
        run(keys_of(gossip).change_gossip_keys(change("use", key=NEW), ROOT))

    assert gossip.keyrings == {"one": [OLD, NEW], "two": [OLD]}


def test_a_key_that_one_encrypts_with_is_not_removed() -> None:
    gossip = FakeKeyrings(one=[NEW, OLD], two=[OLD, NEW])

    with pytest.raises(MembershipRefused, match="1 of 2 members still encrypt with the key"):
        run(keys_of(gossip).change_gossip_keys(change("remove", key=OLD), ROOT))

    assert gossip.keyrings["one"] == [NEW, OLD]


def test_a_key_is_not_removed_while_it_is_unknown_who_encrypts_with_it() -> None:
    gossip = FakeKeyrings(one=[NEW, OLD], two=[OLD, NEW])
    gossip.silent["list"] = {"two"}

    with pytest.raises(MembershipRefused, match="1 of 2 members answered: the others may still encrypt"):
        run(keys_of(gossip).change_gossip_keys(change("remove", key=OLD), ROOT))

    assert gossip.keyrings["one"] == [NEW, OLD]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (change("", key=NEW), "action: '' is none of list, install, use, remove"),
        (change("list", key=NEW), "list takes no key"),
        (change("use"), "take either a key or the id of one"),
        (change("use", key=NEW, key_id="a"), "take either a key or the id of one"),
        (change("install", key=b"short"), "key: 16, 24 or 32 bytes are needed, 5 came"),
        (
            change("use", key_id="abc"),
            "key_id: none of the 1 members that answered has a key with the id abc",
        ),
    ],
)
def test_a_request_for_no_key_is_invalid(request_: pb.ChangeGossipKeysRequest, words: str) -> None:
    gossip = FakeKeyrings(one=[OLD])

    with pytest.raises(InvalidRequest) as caught:
        run(keys_of(gossip).change_gossip_keys(request_, ROOT))

    assert words in str(caught.value)
    assert gossip.keyrings == {"one": [OLD]}


def test_no_error_quotes_a_key() -> None:
    secret = b"secret secret 16"
    gossip = FakeKeyrings(one=[OLD], two=[secret])

    for action in ("use", "remove"):
        with pytest.raises(MembershipRefused) as caught:
            run(keys_of(gossip).change_gossip_keys(change(action, key=secret), ROOT))
        assert "secret" not in str(caught.value)
        assert secret.hex() not in str(caught.value)


def test_a_server_that_does_not_gossip_has_no_keys() -> None:
    with pytest.raises(NotSupported, match=r"does not gossip, so there are no keys"):
        run(keys_of(None).change_gossip_keys(change("list"), ROOT))


@pytest.mark.parametrize("request_", [change("list"), change("install", key=NEW)])
def test_gossip_that_is_not_encrypted_has_no_keys(request_: pb.ChangeGossipKeysRequest) -> None:
    gossip = FakeKeyrings(one=[])

    with pytest.raises(
        MembershipRefused, match="not encrypted, so there are no keys: start all servers with"
    ):
        run(keys_of(gossip).change_gossip_keys(request_, ROOT))

    assert gossip.asked == []


def test_what_another_program_calls_a_key_is_no_key_of_ours() -> None:
    class Garbled(FakeKeyrings):
        async def keys(self, action: str, key: bytes) -> Any:
            return (await super().keys(action, key))._replace(keys={"?": 1}, primary_keys={"?": 1})

    with pytest.raises(MembershipRefused, match="0 of 1 members are known to have"):
        run(keys_of(Garbled(one=[OLD])).change_gossip_keys(change("use", key=NEW), ROOT))
