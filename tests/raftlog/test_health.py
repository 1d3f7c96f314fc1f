from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from raftlog.errors import ListenError
from raftlog.net.tls import TlsFiles, channel_credentials, server_credentials
from raftlog.server.health import (
    LOG_SERVICE,
    NOT_SERVING,
    SERVICE_UNKNOWN,
    SERVICES,
    SERVING,
    Health,
    Serving,
    add_reflection,
    start_health_server,
)

CALL_DEADLINE_S = 5.0


async def check(channel: grpc.aio.Channel, service: str) -> int:
    call = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = await call(health_pb2.HealthCheckRequest(service=service), timeout=CALL_DEADLINE_S)
    return int(answer.status)


async def watch(channel: grpc.aio.Channel, service: str) -> AsyncGenerator[int, None]:
    call = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest(service=service), timeout=CALL_DEADLINE_S)
    try:
        async for answer in call:
            yield int(answer.status)
    finally:
        call.cancel()


@asynccontextmanager
async def probing(health: Health) -> AsyncIterator[grpc.aio.Channel]:
    """A channel without certificate to the health port."""
    server = await start_health_server(health, host="127.0.0.1", port=0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel
    finally:
        await server.stop()


def serving() -> Health:
    health = Health()
    health.set_serving(True)
    return health


# ── the state ───────────────────────────────────────────────────────────────────────────────────────


def test_a_server_does_not_serve_until_somebody_says_so() -> None:
    assert Health().state == Serving(False, "starting")


def test_a_change_is_logged_once_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "raftlog.server.health")
    health = Health()

    health.set_serving(True)
    health.set_serving(True)
    health.set_serving(False, "disk failed")
    health.set_serving(False, "disk failed")
    health.set_serving(False, "stopping")

    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["serving", "not serving reason=disk failed", "not serving reason=stopping"]


def test_not_serving_needs_a_reason() -> None:
    with pytest.raises(AssertionError):
        Health().set_serving(False)


# ── the service ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("service", SERVICES)
def test_a_check_tells_the_truth_without_a_certificate(service: str) -> None:
    async def scenario() -> None:
        health = Health()
        async with probing(health) as channel:
            assert await check(channel, service) == NOT_SERVING
            health.set_serving(True)
            assert await check(channel, service) == SERVING
            health.set_serving(False, "disk failed")
            assert await check(channel, service) == NOT_SERVING

    asyncio.run(scenario())


def test_a_check_of_an_unknown_service_is_not_found() -> None:
    async def scenario() -> None:
        async with probing(serving()) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await check(channel, "log.v2.Log")
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    asyncio.run(scenario())


@pytest.mark.parametrize("service", SERVICES)
def test_a_watch_tells_the_status_and_each_change(service: str) -> None:
    async def scenario() -> None:
        health = Health()
        async with probing(health) as channel:
            statuses = watch(channel, service)
            assert await anext(statuses) == NOT_SERVING
            health.set_serving(True)
            assert await anext(statuses) == SERVING
            health.set_serving(False, "one")
            assert await anext(statuses) == NOT_SERVING
            health.set_serving(False, "two")  # the same to a watch
            health.set_serving(True)
            assert await anext(statuses) == SERVING

    asyncio.run(scenario())


def test_a_watch_of_an_unknown_service_says_so_and_stays_open() -> None:
    async def scenario() -> None:
        health = serving()
        async with probing(health) as channel:
            statuses = watch(channel, "log.v2.Log")
            assert await anext(statuses) == SERVICE_UNKNOWN
            health.set_serving(False, "stopping")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(statuses), timeout=0.05)

    asyncio.run(scenario())


def test_a_change_from_another_thread_reaches_a_watch() -> None:
    async def scenario() -> None:
        health = Health()
        async with probing(health) as channel:
            statuses = watch(channel, "")
            assert await anext(statuses) == NOT_SERVING
            thread = threading.Thread(target=health.set_serving, args=(True,))
            thread.start()
            assert await anext(statuses) == SERVING
            thread.join()

    asyncio.run(scenario())


def test_a_watch_that_ends_is_forgotten() -> None:
    async def scenario() -> None:
        health = serving()
        async with probing(health) as channel:
            statuses = watch(channel, "")
            assert await anext(statuses) == SERVING
            assert len(health._watchers) == 1
            await statuses.aclose()
            async with asyncio.timeout(CALL_DEADLINE_S):
                while health._watchers:
                    await asyncio.sleep(0.001)

    asyncio.run(scenario())


# ── ports ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_taken_port_is_named() -> None:
    async def scenario() -> None:
        first = await start_health_server(Health(), host="127.0.0.1", port=0)
        with pytest.raises(ListenError, match=rf"^health-port: cannot listen on 127\.0\.0\.1:{first.port}: "):
            await start_health_server(Health(), host="127.0.0.1", port=first.port)
        await first.stop()

    asyncio.run(scenario())


def test_a_stopped_server_gives_its_port_back() -> None:
    async def scenario() -> None:
        first = await start_health_server(Health(), host="127.0.0.1", port=0)
        await first.stop()
        second = await start_health_server(Health(), host="127.0.0.1", port=first.port)
        assert second.port == first.port
        await second.stop()

    asyncio.run(scenario())


def test_it_listens_on_ipv6() -> None:
    async def scenario() -> None:
        server = await start_health_server(serving(), host="::1", port=0)
        async with grpc.aio.insecure_channel(f"[::1]:{server.port}") as channel:
            assert await check(channel, "") == SERVING
        await server.stop()

    asyncio.run(scenario())


def test_the_main_port_answers_clients_with_a_certificate_and_lists_its_services(certificates: Path) -> None:
    async def scenario() -> None:
        server = grpc.aio.server()
        serving().add_to(server)
        add_reflection(server)
        credentials = server_credentials(TlsFiles.in_folder(certificates, "server"))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        client = channel_credentials(TlsFiles.in_folder(certificates, "nobody-client"))
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", client) as channel:
            assert await check(channel, LOG_SERVICE) == SERVING
            assert await services_listed(channel) == [
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
                "log.v1.Log",
                "raftlog.v1.Cluster",
            ]
        await server.stop(None)

    asyncio.run(scenario())


async def services_listed(channel: grpc.aio.Channel) -> list[str]:
    async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    ask = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = [answer async for answer in ask(requests(), timeout=CALL_DEADLINE_S)]
    return sorted(service.name for answer in answers for service in answer.list_services_response.service)
