"""Servers that send calls on to the leader, over mutual TLS."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from raftlog.client.connection import open_channel
from raftlog.errors import NotLeader, OutcomeUnknown, SequenceGap
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.net.tls import TlsFiles, server_credentials
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.pb.log.v1.log_pb2_grpc import LogStub
from raftlog.pb.raftlog.v1 import cluster_pb2
from raftlog.pb.raftlog.v1.cluster_pb2_grpc import ClusterStub
from raftlog.runtime.metrics import Metrics
from raftlog.server.call import Call
from raftlog.server.cluster_service import ClusterService
from raftlog.server.forwarding import RECONNECT_MS_MAX, Forwarder
from raftlog.server.grpc_binding import GrpcBinding
from raftlog.server.service import LogService
from raftlog.server.status import RefusedByLeader
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, find_detail
from tests.raftlog.fake_cluster_log import FakeClusterLog
from tests.raftlog.services import frame_of, produce, shipped_access
from tests.raftlog.serving import CALL_S_MAX, run, status_of

MESSAGE_BYTES_MAX = 1 << 24


class Seen:
    """Who asked for what, while the shipped policy decides."""

    def __init__(self) -> None:
        self.subjects: list[tuple[str | None, str]] = []
        self._access = shipped_access()

    def require_subject(self, subject: str | None) -> None:
        self._access.require_subject(subject)

    def check(self, subject: str | None, object: str, action: str) -> None:
        self.subjects.append((subject, action))
        self._access.check(subject, object, action)


class Node:
    """A server whose log is told who leads."""

    def __init__(self, log: FakeClusterLog, service: LogService, seen: Seen, address: str) -> None:
        self.log = log
        self.service = service
        self.seen = seen
        self.address = address


@asynccontextmanager
async def node(
    folder: Path, certificates: Path | None, *, peers: Path | None = None, port: int = 0
) -> AsyncIterator[Node]:
    """One that listens; with `peers` as the folder of its own certificate towards others."""
    async with AsyncExitStack() as parts:
        log = parts.enter_context(FakeClusterLog(folder))
        own = None if certificates is None else TlsFiles.in_folder(peers or certificates, "peer")
        leader = Forwarder(own, message_bytes_max=MESSAGE_BYTES_MAX)
        parts.push_async_callback(leader.close)
        seen = Seen()
        service = LogService(log, seen, leader, queue_bytes_max=1 << 20, unsent_bytes_max=1 << 20)
        binding = GrpcBinding(Metrics(), peer_names=frozenset(("peer",)))
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (binding.log_service(service), binding.cluster_service(ClusterService(log, seen, leader)))
        )
        if certificates is None:
            port = server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            files = TlsFiles.in_folder(certificates, "server")
            port = server.add_secure_port(f"127.0.0.1:{port}", server_credentials(files))
        await server.start()
        parts.push_async_callback(server.stop, None)
        yield Node(log, service, seen, f"127.0.0.1:{port}")


@asynccontextmanager
async def stubs(to: Node, certificates: Path, name: str = "root-client") -> AsyncIterator[tuple[Any, Any]]:
    """The methods of both services of a node."""
    async with open_channel(to.address, TlsFiles.in_folder(certificates, name)) as channel:
        stub: Any = LogStub
        cluster: Any = ClusterStub
        yield stub(channel), cluster(channel)


@asynccontextmanager
async def pair(tmp_path: Path, certificates: Path) -> AsyncIterator[tuple[Node, Node]]:
    """(leader, follower)."""
    async with (
        node(tmp_path / "leader", certificates) as leader,
        node(tmp_path / "follower", certificates) as follower,
    ):
        follower.log.elsewhere = NotLeader("leader", leader.address)
        yield leader, follower


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    pairs: Any = error.trailing_metadata()
    return dict(pairs)


def detail_of(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    return find_detail(metadata_of(error)[STATUS_DETAILS_KEY], kind)


async def end_of(stream: Any) -> grpc.aio.AioRpcError:
    """The error that ends a stream that was written and read."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            pass
    return caught.value


# ── what is sent on ─────────────────────────────────────────────────────────────────────────────────


def test_every_produce_at_a_follower_is_stored_by_the_leader_in_the_name_of_its_caller(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (log, cluster),
        ):
            assert (await log.Produce(produce(b"0"))).offset == 0
            batch = pb.ProduceBatchRequest(batch=frame_of(b"1", b"2"))
            assert (await log.ProduceBatch(batch)).end_offset == 3
            single = log.ProduceStream(iter([produce(b"3"), produce(b"4")]))
            assert [one.offset async for one in single] == [3, 4]
            batches = log.ProduceBatchStream(iter([batch, batch]))
            assert [one.first_offset async for one in batches] == [5, 7]
            await cluster.Promote(cluster_pb2.PromoteRequest(id="two"))

            assert [record.value for record in leader.log.scan()] == [
                b"0", b"1", b"2", b"3", b"4", b"1", b"2", b"1", b"2"
            ]  # fmt: skip
            assert follower.log.end == 0
            assert leader.log.asked == [("promote", "two")]
            assert {subject for subject, _ in leader.seen.subjects} == {"root"}

    run(scenario())


def test_who_wishes_is_told_who_leads_instead(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (log, cluster),
        ):
            asked = (("raftlog-no-forward", "1"),)
            for call in (
                log.Produce(produce(b"x"), metadata=asked),
                log.ProduceStream(iter([produce(b"x")]), metadata=asked),
                cluster.Leave(cluster_pb2.LeaveRequest(id="two"), metadata=asked),
            ):
                error = await status_of(call)
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
                expected = pb.NotLeader(leader_id="leader", leader_addr=leader.address)
                assert detail_of(error, pb.NotLeader) == expected
            assert leader.log.end == 0

    run(scenario())


def test_a_cluster_without_a_leader_says_when_to_try_again(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            node(tmp_path / "one", certificates) as one,
            stubs(one, certificates) as (log, _),
        ):
            one.log.elsewhere = NotLeader()
            for call in (log.Produce(produce(b"x")), log.ProduceBatchStream(iter([]))):
                error = await status_of(call)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert metadata_of(error)[RETRY_PUSHBACK_KEY] == "100"

    run(scenario())


def test_a_call_that_was_sent_on_goes_no_further(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (log, _),
        ):
            leader.log.elsewhere = NotLeader("follower", follower.address)  # each believes in the other
            error = await status_of(log.Produce(produce(b"x")))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            produces = [action for _, action in leader.seen.subjects]
            assert 1 <= len(produces) <= 3

    run(scenario())


def test_leadership_that_has_moved_is_followed(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (old, follower),
            node(tmp_path / "new", certificates) as new,
            stubs(follower, certificates) as (log, _),
        ):
            old.log.elsewhere = NotLeader("new", new.address)
            assert (await log.Produce(produce(b"x"))).offset == 0
            assert (new.log.end, old.log.end) == (1, 0)

    run(scenario())


def test_what_the_leader_refuses_is_told_as_the_leader_said_it(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (log, _),
        ):
            request = pb.ProduceRequest(record=pb.Record(value=b"x"), expected_offset=9)
            for call in (log.Produce(request), log.ProduceStream(iter([request]))):
                error = await status_of(call)
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert error.details() == "offset 9 was expected, the log ends at 0"
                assert detail_of(error, pb.ProduceRefused).reason == pb.ProduceRefused.EXPECTED_OFFSET
            leader.log.lost = OutcomeUnknown("deposed before a quorum had it")
            error = await status_of(log.Produce(produce(b"x")))
            assert (error.code(), error.details()) == (
                grpc.StatusCode.UNAVAILABLE,
                "deposed before a quorum had it",
            )

    run(scenario())


def test_a_refusal_while_more_is_being_sent_is_told_truly(tmp_path: Path, certificates: Path) -> None:
    async def endless() -> AsyncIterator[pb.ProduceRequest]:
        while True:
            yield produce(b"x")

    async def scenario() -> None:
        async with node(tmp_path / "leader", certificates) as leader:
            forwarder = Forwarder(TlsFiles.in_folder(certificates, "peer"), message_bytes_max=1 << 20)
            answers = forwarder.relay(
                NotLeader("leader", leader.address), "/log.v1.Log/ProduceStream", endless(), pb.ProduceResponse,
                Call("root"), readers=set(),
            )  # fmt: skip
            assert (await anext(answers)).offset == 0
            leader.log.lost = SequenceGap(5, 3)
            with pytest.raises(RefusedByLeader) as caught:
                async for _ in answers:
                    pass
            assert caught.value.status.code is grpc.StatusCode.FAILED_PRECONDITION
            await forwarder.close()

    run(scenario())


def test_a_leader_that_cannot_be_reached_leaves_the_outcome_unknown(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with (
            node(tmp_path / "follower", certificates) as follower,
            stubs(follower, certificates) as (log, _),
        ):
            async with node(tmp_path / "gone", certificates) as gone:
                follower.log.elsewhere = NotLeader("gone", gone.address)
            for call in (log.Produce(produce(b"x")), log.ProduceStream(iter([produce(b"x")]))):
                error = await status_of(call)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert "whether it is done is not known" in (error.details() or "")
                assert metadata_of(error)[RETRY_PUSHBACK_KEY] == "100"

    run(scenario())


def test_a_leader_that_is_back_at_its_address_is_found_again_soon(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            node(tmp_path / "follower", certificates) as follower,
            stubs(follower, certificates) as (log, _),
        ):
            async with node(tmp_path / "leader", certificates) as leader:
                follower.log.elsewhere = NotLeader("leader", leader.address)
                assert (await log.Produce(produce(b"x"))).offset == 0
            failed_until = asyncio.get_running_loop().time() + 2 * RECONNECT_MS_MAX / 1000
            while asyncio.get_running_loop().time() < failed_until:  # gRPC waits longer after each attempt
                await status_of(log.Produce(produce(b"x")))
                await asyncio.sleep(0.02)
            port = int(leader.address.rpartition(":")[2])
            async with node(tmp_path / "leader", certificates, port=port):
                await until_produced(log)

    run(scenario())


async def until_produced(log: Any) -> None:
    async with asyncio.timeout(CALL_S_MAX):
        while True:
            try:
                await log.Produce(produce(b"x"))
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)


def test_a_deadline_ends_the_call_to_the_leader_too(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (_, cluster),
        ):
            ended = asyncio.Event()

            async def hanging(id: str) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()

            leader.log.promote = hanging  # type: ignore[method-assign]
            call = cluster.Promote(cluster_pb2.PromoteRequest(id="two"), timeout=1.0)
            assert (await status_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await asyncio.wait_for(ended.wait(), CALL_S_MAX)

    run(scenario())


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_that_is_relayed_answers_before_its_end(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (log, _),
        ):
            stream = log.ProduceStream()
            for number in range(3):
                await stream.write(produce(b"x"))
                assert (await stream.read()).offset == number
            await stream.done_writing()
            assert await stream.code() is grpc.StatusCode.OK

    run(scenario())


def test_a_stream_whose_server_loses_the_lead_ends_with_who_leads(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, _),
            stubs(leader, certificates) as (log, _),
        ):
            stream = log.ProduceStream()
            await stream.write(produce(b"x"))
            assert (await stream.read()).offset == 0
            leader.log.elsewhere = NotLeader("new", "new:8400")
            await stream.write(produce(b"y"))
            error = await end_of(stream)
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert detail_of(error, pb.NotLeader).leader_id == "new"

    run(scenario())


def test_a_server_that_stops_ends_what_it_relays_once_all_is_answered(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (log, _),
        ):
            stream = log.ProduceStream()
            await stream.write(produce(b"x"))
            assert (await stream.read()).offset == 0
            follower.service.stop()
            error = await end_of(stream)
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    run(scenario())


def test_who_may_no_longer_produce_sends_nothing_more_through_a_relay(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (log, _),
        ):
            stream = log.ProduceStream()
            await stream.write(produce(b"x"))
            assert (await stream.read()).offset == 0
            follower.seen.check = refuse  # type: ignore[method-assign]
            await stream.write(produce(b"y"))
            assert (await end_of(stream)).code() is grpc.StatusCode.PERMISSION_DENIED
            assert leader.log.end == 1

    def refuse(subject: str | None, object: str, action: str) -> None:
        shipped_access().check("nobody", object, action)

    run(scenario())


def test_a_caller_that_goes_away_ends_the_relay(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates) as (log, _),
        ):
            stream = log.ProduceStream()
            await stream.write(produce(b"x"))
            await stream.read()
            stream.cancel()
            await until(lambda: not leader.service._readers and not follower.service._readers)

    run(scenario())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(CALL_S_MAX):
        while not condition():
            await asyncio.sleep(0.005)


# ── subjects and certificates ───────────────────────────────────────────────────────────────────────


def test_the_follower_asks_its_policy_first(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            pair(tmp_path, certificates) as (leader, follower),
            stubs(follower, certificates, "nobody-client") as (log, _),
        ):
            assert (await status_of(log.Produce(produce(b"x")))).code() is grpc.StatusCode.PERMISSION_DENIED
            assert leader.seen.subjects == []

    run(scenario())


def test_a_subject_in_the_metadata_is_believed_from_a_server_alone(
    tmp_path: Path, certificates: Path
) -> None:
    claim = (("raftlog-subject", "root"),)

    async def scenario() -> None:
        async with node(tmp_path / "one", certificates) as one:
            async with stubs(one, certificates, "nobody-client") as (log, _):
                error = await status_of(log.Produce(produce(b"x"), metadata=claim))
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            async with stubs(one, certificates, "peer") as (log, cluster):
                assert (await log.Produce(produce(b"x"), metadata=claim)).offset == 0
                named = (("raftlog-subject", "j%C3%B6rg %25"),)
                await status_of(log.Produce(produce(b"x"), metadata=named))
                await cluster.Join(cluster_pb2.JoinRequest(id="two", rpc_addr="two:1"))
            subjects = [subject for subject, _ in one.seen.subjects]
            assert subjects == ["nobody", "root", "jörg %"]  # a server that joins asks no policy

    run(scenario())


def test_a_renewed_certificate_is_proved_to_the_leader_with_the_next_call(
    tmp_path: Path, certificates: Path
) -> None:
    mine = tmp_path / "certs"
    shutil.copytree(certificates, mine)

    async def scenario() -> None:
        async with (
            node(tmp_path / "leader", mine) as leader,
            node(tmp_path / "follower", certificates, peers=mine) as follower,
            stubs(follower, certificates) as (log, _),
        ):
            follower.log.elsewhere = NotLeader("leader", leader.address)
            assert (await log.Produce(produce(b"old"))).offset == 0
            init_folder(mine, CertificatePlan(), force=True)  # another authority: old and new do not mix
            assert (await log.Produce(produce(b"new"))).offset == 1

    run(scenario())


def test_without_tls_calls_are_sent_on_as_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            node(tmp_path / "leader", None) as leader,
            node(tmp_path / "follower", None) as follower,
            open_channel(follower.address, None) as channel,
        ):
            for one in (leader, follower):
                one.seen.check = let_in  # type: ignore[method-assign]
            follower.log.elsewhere = NotLeader("leader", leader.address)
            stub: Any = LogStub
            assert (await stub(channel).Produce(produce(b"x"))).offset == 0
            assert leader.log.end == 1

    def let_in(subject: str | None, object: str, action: str) -> None:
        pass

    run(scenario())
