"""A server over mutual TLS: what its clients see of it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import logstore
from logstore.encode import encode_batch
from logstore.frame import wire_frame
from raftlog import AsyncClient, TlsFiles
from raftlog.agent import Agent
from raftlog.client.connection import open_channel, stub_of
from raftlog.client.failures import CallFailed
from raftlog.errors import IdentityError, ListenError, PolicyError
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server import acl
from raftlog.wire.status_details import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, find_detail
from tests.raftlog.serving import CALL_S_MAX, client_of, config_of, run, serving, status_of, stub

IDLE_TAILS = 100
IDLE_S = 1.0
IDLE_CPU_S_MAX = 0.01  # of IDLE_S, server and clients together


def produce(value: bytes) -> pb.ProduceRequest:
    return pb.ProduceRequest(record=pb.Record(value=value))


def frame_of(*values: bytes) -> bytes:
    return wire_frame(encode_batch(list(values)))


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    pairs: Any = error.trailing_metadata()
    return dict(pairs)


# ── status codes ────────────────────────────────────────────────────────────────────────────────────


def test_out_of_range_tells_what_the_log_holds(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, stub(agent, certificates) as log:
            await log.ProduceBatch(pb.ProduceBatchRequest(batch=frame_of(b"a", b"b")))

            for call in (
                log.Consume(pb.ConsumeRequest(offset=7)),
                log.ConsumeBatches(pb.ConsumeBatchesRequest(offset=7)),
            ):
                error = await status_of(call)

                assert error.code() is grpc.StatusCode.OUT_OF_RANGE
                assert error.details() == "offset 7 is outside of the log, which holds 0 to before 2"
                details = metadata_of(error)[STATUS_DETAILS_KEY]
                assert find_detail(details, pb.OffsetRange) == pb.OffsetRange(offset=7, start=0, end=2)
                status = pb.ErrorStatus.FromString(details)
                assert (status.code, status.message) == (11, error.details())

    run(scenario())


@pytest.mark.parametrize("name", ["record", "batch", "empty", "stream"])
def test_what_is_too_large_or_no_batch_is_an_invalid_argument(
    tmp_path: Path, certificates: Path, name: str
) -> None:
    async def scenario() -> None:
        limits = {"record_bytes_max": 1000, "batch_bytes_max": 2000}
        async with serving(tmp_path, certificates, **limits) as agent, stub(agent, certificates) as log:
            calls = {
                "record": lambda: log.Produce(produce(bytes(1001))),
                "batch": lambda: log.ProduceBatch(pb.ProduceBatchRequest(batch=frame_of(*[bytes(900)] * 3))),
                "empty": lambda: log.ProduceBatch(pb.ProduceBatchRequest()),
                "stream": lambda: log.ProduceStream(iter([produce(bytes(1001))])),
            }
            error = await status_of(calls[name]())
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert (await log.Produce(produce(b"next"))).offset == 0

    run(scenario())


def test_overload_tells_when_to_try_again(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(tmp_path, certificates, queue_bytes_max=1, sync="always") as agent,
            stub(agent, certificates) as log,
        ):
            calls = [log.Produce(produce(bytes(1000))) for _ in range(50)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)

            errors = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
            assert errors
            assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert {metadata_of(error)[RETRY_PUSHBACK_KEY] for error in errors} == {"100"}
            assert (await log.Produce(produce(b"later"))).offset == 50 - len(errors)

    run(scenario())


def test_further_calls_than_the_limit_are_refused(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates, calls_max=1) as agent, stub(agent, certificates) as log:
            tail = log.ConsumeStream(pb.ConsumeRequest())
            await log_has_begun(agent, "ConsumeStream")
            error = await status_of(log.GetServers(pb.GetServersRequest()))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            tail.cancel()

    run(scenario())


async def log_has_begun(agent: Agent, method: str, count: int = 1) -> None:
    deadline = time.monotonic() + CALL_S_MAX
    labels = {"method": method}
    while agent.metrics.registry.get_sample_value("raftlog_calls_in_progress", labels) != count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_nobody_is_denied_by_name_and_a_client_without_tls_is_not_heard(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent:
            async with stub(agent, certificates, "nobody-client") as log:
                denied = {
                    "produce": log.Produce(produce(b"x")), "consume": log.ConsumeStream(pb.ConsumeRequest())
                }  # fmt: skip
                for action, call in denied.items():
                    error = await status_of(call)
                    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                    assert error.details() == f"nobody not permitted to {action} to *"
            async with open_channel(agent.rpc_address, None) as channel:
                call = stub_of(channel).GetServers(pb.GetServersRequest(), timeout=CALL_S_MAX)
                assert (await status_of(call)).code() is grpc.StatusCode.UNAVAILABLE

    run(scenario())


def test_a_certificate_without_a_common_name_is_unauthenticated(tmp_path: Path, certificates: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.load_pem_x509_certificate((certificates / "ca.pem").read_bytes())
    authority_key = load_pem_private_key((certificates / "ca-key.pem").read_bytes(), None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder(
            authority.subject, x509.Name([]), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(authority.not_valid_before_utc)
        .not_valid_after(authority.not_valid_after_utc)
        .sign(authority_key, hashes.SHA256())
    )
    shutil.copy(certificates / "ca.pem", tmp_path)
    (tmp_path / "unnamed.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "unnamed-key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, stub(agent, tmp_path, "unnamed") as log:
            for call in (log.GetServers(pb.GetServersRequest()), log.Produce(produce(b"x"))):
                assert (await status_of(call)).code() is grpc.StatusCode.UNAUTHENTICATED

    run(scenario())


def test_an_error_of_ours_is_internal_and_says_nothing_of_its_cause(
    tmp_path: Path,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(log: logstore.Log, offset: int) -> logstore.Record:
        raise KeyError("a secret")

    monkeypatch.setattr(logstore.Log, "read", broken)

    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, stub(agent, certificates) as log:
            await log.Produce(produce(b"x"))
            error = await status_of(log.Consume(pb.ConsumeRequest()))
            assert error.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in (error.details() or "")

    run(scenario())
    assert [record.levelname for record in caplog.records if "call failed" in record.message] == ["ERROR"]


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [0, 1, 500])
def test_half_close_ends_a_produce_stream_well(tmp_path: Path, certificates: Path, count: int) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, stub(agent, certificates) as log:
            call = log.ProduceStream(iter([produce(b"x")] * count))
            assert [response.offset async for response in call] == list(range(count))
            assert await call.code() is grpc.StatusCode.OK

    run(scenario())


def test_a_deadline_ends_a_tail(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, stub(agent, certificates) as log:
            error = await status_of(log.ConsumeStream(pb.ConsumeRequest(), timeout=0.1))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await log_has_begun(agent, "ConsumeStream", 0)

    run(scenario())


def test_a_hundred_tails_wake_at_once_and_cost_nothing_while_idle(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, stub(agent, certificates) as log:
            tails = [log.ConsumeStream(pb.ConsumeRequest()) for _ in range(IDLE_TAILS)]
            await log_has_begun(agent, "ConsumeStream", IDLE_TAILS)
            await log.Produce(produce(b"first"))
            for tail in tails:
                assert (await tail.read()).record.value == b"first"

            costs = []
            for _ in range(3):
                before = time.process_time()
                await asyncio.sleep(IDLE_S)  # not for a condition: what nothing costs can only be timed
                costs.append(time.process_time() - before)
            assert min(costs) < IDLE_CPU_S_MAX

            await log.Produce(produce(b"second"))
            for tail in tails:
                assert (await tail.read()).record.value == b"second"
                tail.cancel()

    run(scenario())


# ── proglog's clients ───────────────────────────────────────────────────────────────────────────────


def proglog_messages() -> dict[str, Any]:
    """The messages of proglog's log.v1, from its field numbers; nothing of ours is used."""
    bytes_, uint64, uint32, string, bool_, message = 12, 4, 13, 9, 8, 11
    fields: dict[str, list[tuple[str, int, int, str]]] = {
        "Record": [
            ("value", 1, bytes_, ""),
            ("offset", 2, uint64, ""),
            ("term", 3, uint64, ""),
            ("type", 4, uint32, ""),
        ],
        "ProduceRequest": [("record", 1, message, "Record")],
        "ProduceResponse": [("offset", 1, uint64, "")],
        "ConsumeRequest": [("offset", 1, uint64, "")],
        "ConsumeResponse": [("record", 2, message, "Record")],
        "GetServersRequest": [],
        "Server": [("id", 1, string, ""), ("rpc_addr", 2, string, ""), ("is_leader", 3, bool_, "")],
        "GetServersResponse": [("servers", 1, message, "Server")],
    }
    file = descriptor_pb2.FileDescriptorProto(name="api/v1/log.proto", package="log.v1", syntax="proto3")
    for name, columns in fields.items():
        described = file.message_type.add(name=name)
        for field, number, kind, of in columns:
            label = 3 if field == "servers" else 1
            type_name = f".log.v1.{of}" if of else None
            described.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"log.v1.{name}")) for name in fields
    }


def test_a_client_of_proglog_produces_consumes_and_lists_servers(tmp_path: Path, certificates: Path) -> None:
    its = proglog_messages()

    def method(channel: grpc.aio.Channel, kind: str, name: str, request: str, response: str) -> Any:
        return getattr(channel, kind)(
            f"/log.v1.Log/{name}",
            request_serializer=its[request].SerializeToString,
            response_deserializer=its[response].FromString,
        )

    def request_of(value: bytes) -> Any:
        return its["ProduceRequest"](record=its["Record"](value=value, offset=9, term=9, type=9))

    async def scenario() -> None:
        tls = TlsFiles.in_folder(certificates, "root-client")
        async with serving(tmp_path, certificates) as agent, open_channel(agent.rpc_address, tls) as channel:
            produce_one = method(channel, "unary_unary", "Produce", "ProduceRequest", "ProduceResponse")
            consume_one = method(channel, "unary_unary", "Consume", "ConsumeRequest", "ConsumeResponse")
            produce_many = method(
                channel, "stream_stream", "ProduceStream", "ProduceRequest", "ProduceResponse"
            )
            consume_many = method(
                channel, "unary_stream", "ConsumeStream", "ConsumeRequest", "ConsumeResponse"
            )
            servers = method(channel, "unary_unary", "GetServers", "GetServersRequest", "GetServersResponse")

            assert await produce_one(request_of(b"0")) == its["ProduceResponse"](offset=0)
            answers = [one.offset async for one in produce_many(iter([request_of(b"1"), request_of(b"2")]))]
            assert answers == [1, 2]
            one = await consume_one(its["ConsumeRequest"](offset=1))
            assert (one.record.value, one.record.offset, one.record.term, one.record.type) == (b"1", 1, 1, 0)
            tail = consume_many(its["ConsumeRequest"](offset=1))
            assert [(await tail.read()).record.value for _ in range(2)] == [b"1", b"2"]
            tail.cancel()
            (server,) = (await servers(its["GetServersRequest"]())).servers
            assert (server.id, server.rpc_addr, server.is_leader) == ("one", agent.rpc_address, True)

    run(scenario())


def test_tools_can_ask_the_server_what_it_offers(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        tls = TlsFiles.in_folder(certificates, "root-client")
        async with serving(tmp_path, certificates) as agent, open_channel(agent.rpc_address, tls) as channel:
            ask = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="log.v1.Log")
            (answer,) = [one async for one in ask(iter([asked]), timeout=CALL_S_MAX)]
            file = descriptor_pb2.FileDescriptorProto.FromString(
                answer.file_descriptor_response.file_descriptor_proto[0]
            )
            assert [service.name for service in file.service] == ["Log"]

    run(scenario())


# ── health, certificates, policy ────────────────────────────────────────────────────────────────────


async def health_of(channel: grpc.aio.Channel) -> int:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return int((await check(health_pb2.HealthCheckRequest(), timeout=CALL_S_MAX)).status)


def test_a_log_that_refuses_writes_is_not_serving(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(tmp_path, certificates, health_port=0, sync="always") as agent,
            grpc.aio.insecure_channel(f"127.0.0.1:{agent.health_port}") as probe,
            stub(agent, certificates) as log,
        ):
            assert await health_of(probe) == health_pb2.HealthCheckResponse.SERVING
            await log.Produce(produce(b"kept"))
            with pytest.MonkeyPatch.context() as broken:
                broken.setattr("logstore.filesystem.OsFile.sync", fail)
                error = await status_of(log.Produce(produce(b"lost")))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert metadata_of(error)[RETRY_PUSHBACK_KEY] == "5000"
            deadline = time.monotonic() + CALL_S_MAX
            while await health_of(probe) != health_pb2.HealthCheckResponse.NOT_SERVING:
                assert time.monotonic() < deadline
            assert (await log.Consume(pb.ConsumeRequest())).record.value == b"kept"

    with pytest.raises(logstore.LogPoisoned):  # what closing the log has to say
        run(scenario())


def fail(_: object) -> None:
    raise OSError(5, "the disk failed")


def test_a_renewed_certificate_is_taken_up_by_the_next_connection(tmp_path: Path, certificates: Path) -> None:
    mine = tmp_path / "certs"
    shutil.copytree(certificates, mine)

    async def scenario() -> None:
        async with serving(tmp_path, mine) as agent:
            async with client_of(agent, certificates) as client:
                await client.append(b"old")
            init_folder(mine, CertificatePlan(), force=True)
            async with client_of(agent, mine) as client:
                assert await client.append(b"new") == 1

    run(scenario())


def test_a_changed_policy_holds_without_a_restart(tmp_path: Path, certificates: Path) -> None:
    policy = tmp_path / "policy.csv"
    shutil.copy(acl.POLICY_FILE, policy)

    async def scenario() -> None:
        async with (
            serving(tmp_path, certificates, acl_policy_file=str(policy)) as agent,
            stub(agent, certificates, "nobody-client") as log,
        ):
            error = await status_of(log.Produce(produce(b"x")))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            changed = tmp_path / "changed.csv"
            changed.write_text("p, nobody, *, produce\n")
            os.replace(changed, policy)
            deadline = time.monotonic() + CALL_S_MAX
            while True:
                try:
                    assert (await log.Produce(produce(b"x"))).offset == 0
                    return
                except grpc.aio.AioRpcError:
                    assert time.monotonic() < deadline

    run(scenario())


# ── starting and stopping ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", ["rpc-port", "health-port", "admin-port"])
def test_a_port_in_use_is_named_and_nothing_stays_open(tmp_path: Path, certificates: Path, key: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "a", certificates) as agent:
            settings = {key.replace("-", "_"): agent.rpc_port}
            with pytest.raises(ListenError) as caught:
                await Agent(config_of(tmp_path / "b", certificates, **settings)).__aenter__()
            address = f"127.0.0.1:{agent.rpc_port}"
            assert str(caught.value) == f"{key}: cannot listen on {address}: Address already in use"
        async with serving(tmp_path / "b", certificates):
            pass  # its log was let go

    run(scenario())


def test_a_second_server_on_the_same_data_says_who_has_them(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates):
            with pytest.raises(IdentityError, match=f"process {os.getpid()}"):
                await Agent(config_of(tmp_path, certificates)).__aenter__()

    run(scenario())


def test_a_policy_that_cannot_be_used_stops_the_start(tmp_path: Path, certificates: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(PolicyError):
            await Agent(config_of(tmp_path, certificates, acl_policy_file="/nowhere")).__aenter__()
        async with serving(tmp_path, certificates):
            pass

    run(scenario())


def test_a_stop_ends_streams_and_keeps_every_record_that_was_answered(
    tmp_path: Path, certificates: Path
) -> None:
    answered: list[int] = []
    config = config_of(tmp_path, certificates, sync="always", stop_grace_ms=60_000)

    async def endless() -> AsyncIterator[pb.ProduceRequest]:
        while True:
            yield produce(b"x")
            await asyncio.sleep(0)

    async def scenario() -> None:
        agent = await Agent(config).__aenter__()
        async with stub(agent, certificates) as log:
            tail = asyncio.ensure_future(status_of(log.ConsumeStream(pb.ConsumeRequest())))
            idle = log.ProduceBatchStream()
            await idle.write(pb.ProduceBatchRequest(batch=frame_of(b"idle")))
            answered.append((await idle.read()).first_offset)
            busy = log.ProduceStream(endless())
            answered.extend([(await busy.read()).offset for _ in range(10)])
            stopping = asyncio.ensure_future(agent.stop())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while (response := await busy.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    answered.append(response.offset)
                await busy
            # INTERNAL: what grpc's own client makes of it if it was about to send
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
            assert (await tail).code() is grpc.StatusCode.UNAVAILABLE
            assert await idle.code() is grpc.StatusCode.UNAVAILABLE
            await stopping

    run(scenario())
    with logstore.Log(f"{config.data_dir}/log", read_only=True) as log:
        assert answered == list(range(len(answered)))
        assert log.end >= len(answered)


def test_what_comes_after_the_end_of_the_log_is_refused_and_does_not_wait(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent:
            _, stored = agent.log.begin_append([b"before"])
            assert await stored == 0
        with pytest.raises(logstore.LogClosed):
            agent.log.begin_append([b"after"])

    run(scenario())


async def until_stored(client: AsyncClient, value: bytes) -> int:
    """The offset of the record; tries again while the server has no place for a connection."""
    while True:
        try:
            return await client.append(value)
        except CallFailed:
            await asyncio.sleep(0.05)


def test_connections_that_say_nothing_hold_a_place_only_so_long(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftlog.net.listener.FIRST_BYTE_S_MAX", 0.2)

    async def scenario() -> None:
        async with serving(tmp_path, certificates, connections_max=4) as agent:
            with ExitStack() as silent:
                for _ in range(8):
                    silent.enter_context(socket.create_connection(("127.0.0.1", agent.rpc_port)))
                async with client_of(agent, certificates) as client:
                    assert await until_stored(client, b"heard") == 0

    run(scenario())


@pytest.mark.parametrize(
    ("bind_addr", "words"),
    [("127.0.0.1:0", "everybody on this machine"), ("0.0.0.0:0", "everybody who can reach this machine")],
)
def test_no_security_is_warned_of(
    tmp_path: Path, certificates: Path, caplog: pytest.LogCaptureFixture, bind_addr: str, words: str
) -> None:
    async def scenario() -> None:
        off = dict.fromkeys(("server_tls_cert_file", "server_tls_key_file", "server_tls_ca_file"))
        async with (
            serving(tmp_path, certificates, insecure=True, bind_addr=bind_addr, **off) as agent,
            open_channel(f"127.0.0.1:{agent.rpc_port}", None) as channel,
        ):
            assert (await stub_of(channel).Produce(produce(b"x"))).offset == 0

    caplog.set_level(logging.WARNING)
    run(scenario())
    assert any(words in record.message for record in caplog.records if "insecure" in record.message)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "127.0.0.1:{port}"),
        ({"bind_addr": "0.0.0.0:0"}, "here:{port}"),
        ({"bind_addr": "[::]:0"}, "here:{port}"),
        ({"rpc_advertise_addr": "log-0.example.com:443"}, "log-0.example.com:443"),
    ],
)
def test_clients_are_told_an_address_that_they_can_use(
    tmp_path: Path,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    expected: str,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")

    async def scenario() -> None:
        async with serving(tmp_path, certificates, **settings) as agent:
            tls = TlsFiles.in_folder(certificates, "root-client")
            async with open_channel(f"localhost:{agent.rpc_port}", tls) as channel:
                answer = await stub_of(channel).GetServers(pb.GetServersRequest(), timeout=CALL_S_MAX)
            (server,) = answer.servers
            assert server.rpc_addr == expected.format(port=agent.rpc_port)

    run(scenario())


def test_the_metrics_tell_who_leads_and_how_far_the_log_is_committed(
    tmp_path: Path, certificates: Path
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, certificates) as agent, client_of(agent, certificates) as client:
            await client.append(b"x")

            def value(name: str) -> float | None:
                return agent.metrics.registry.get_sample_value(f"raftlog_raft_{name}")

            last = agent.log.status().last_index
            while value("commit_index") != last:
                await asyncio.sleep(0.01)
            assert (value("leads"), value("has_leader"), value("term")) == (1, 1, 1)
            assert value("last_index") == value("applied_index") == last

    run(scenario())
