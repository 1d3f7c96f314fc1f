"""A server in this process, over mutual TLS on the loopback interface, for tests that need a real connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc

from raftlog import AsyncClient, TlsFiles
from raftlog.agent import Agent
from raftlog.client.connection import open_channel, stub_of
from raftlog.config import ServerConfig

SCENARIO_S_MAX = 30.0
CALL_S_MAX = 10.0


def config_of(folder: Path, certificates: Path, **settings: Any) -> ServerConfig:
    """Settings for a server whose data are in `folder`, on free ports."""
    files = TlsFiles.in_folder(certificates, "server")
    fixed = {
        "data_dir": str(folder / "data"), "node_name": "one", "bootstrap": True, "bind_addr": "127.0.0.1:0", "rpc_port": 0,
        "health_port": None, "admin_port": None, "sync": "never",
        "server_tls_cert_file": files.cert_file, "server_tls_key_file": files.key_file,
        "server_tls_ca_file": files.ca_file,
    }  # fmt: skip
    return ServerConfig(**{**fixed, **settings})


@asynccontextmanager
async def serving(folder: Path, certificates: Path, **settings: Any) -> AsyncIterator[Agent]:
    async with Agent(config_of(folder, certificates, **settings)) as agent:
        yield agent


@contextmanager
def server_in_thread(folder: Path, certificates: Path, **settings: Any) -> Iterator[Agent]:
    """A server on an event loop in a thread, for clients that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    agent = Agent(config_of(folder, certificates, **settings))
    try:
        asyncio.run_coroutine_threadsafe(agent.__aenter__(), loop).result(CALL_S_MAX)
        try:
            yield agent
        finally:
            asyncio.run_coroutine_threadsafe(agent.stop(), loop).result(CALL_S_MAX)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def client_of(agent: Agent, certificates: Path, name: str = "root-client", **more: Any) -> AsyncClient:
    return AsyncClient(agent.rpc_address, tls=TlsFiles.in_folder(certificates, name), **more)


@asynccontextmanager
async def stub(agent: Agent, certificates: Path, name: str = "root-client") -> AsyncIterator[Any]:
    """The methods of the service, as gRPC has them."""
    async with open_channel(agent.rpc_address, TlsFiles.in_folder(certificates, name)) as channel:
        yield stub_of(channel)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run it, and fail if it hangs."""

    async def with_deadline() -> None:
        await asyncio.wait_for(scenario, SCENARIO_S_MAX)

    asyncio.run(with_deadline())


async def status_of(call: Any) -> grpc.aio.AioRpcError:
    """The error that ends a call or stream."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")
