"""The log service as functions of a request and a call, for tests: no gRPC, no network."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from logstore import Config, Record
from logstore.encode import encode_batch
from logstore.errors import LogError
from logstore.frame import wire_frame
from logstore.transfer import read_frames
from raftlog.errors import NotLeader, RaftlogError
from raftlog.pb.log.v1 import log_pb2 as pb
from raftlog.server import acl
from raftlog.server.authorizer import Authorizer
from raftlog.server.call import Access, Call, Leader
from raftlog.server.service import LogService
from tests.raftlog.fake_cluster_log import FakeClusterLog

ROOT = Call("root")
NOBODY = Call("nobody")
STRANGER = Call(None)
DEADLINE_S = 20.0
QUEUE_BYTES_MAX = 4096
UNSENT_BYTES_MAX = 1 << 20

CONFIG = Config(sync="never", record_bytes_max=1024, batch_bytes_max=4096, pending_bytes_max=QUEUE_BYTES_MAX)


class NobodyLeads:
    """Where no other server is there to be asked."""

    async def ask(self, refused: NotLeader, *_: Any) -> Any:
        raise refused

    async def relay(self, refused: NotLeader, *_: Any, **__: Any) -> Any:
        raise refused
        yield


def service_of(
    log: FakeClusterLog,
    *,
    queue_bytes_max: int = QUEUE_BYTES_MAX,
    unsent_bytes_max: int = UNSENT_BYTES_MAX,
    access: Access | None = None,
    leader: Leader | None = None,
) -> LogService:
    return LogService(
        log,
        access or shipped_access(),
        leader or NobodyLeads(),
        queue_bytes_max=queue_bytes_max,
        unsent_bytes_max=unsent_bytes_max,
    )


def shipped_access() -> Access:
    return Authorizer(str(acl.MODEL_FILE), str(acl.POLICY_FILE))


def run(scenario: Awaitable[Any]) -> None:
    """Run it, and fail if it hangs or if an error was left for nobody."""

    async def with_deadline() -> None:
        overlooked: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: overlooked.append(context))
        await asyncio.wait_for(scenario, DEADLINE_S)
        gc.collect()  # errors are reported as overlooked when they are forgotten
        assert overlooked == []

    asyncio.run(with_deadline())


def frame_of(*values: bytes | Record) -> bytes:
    return wire_frame(encode_batch(list(values)))


def produce(value: bytes, **more: Any) -> pb.ProduceRequest:
    return pb.ProduceRequest(record=pb.Record(value=value, **more))


async def each(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def taken(responses: AsyncIterator[Any], count: int) -> list[Any]:
    """The first `count` responses; the stream stays open."""
    return [await anext(responses) for _ in range(count)]


async def ended(responses: AsyncIterator[Any]) -> tuple[list[Any], Exception | None]:
    """All responses of a stream, and the error that ended it."""
    found = []
    try:
        async for response in responses:
            found.append(response)
    except (LogError, RaftlogError) as error:
        return found, error
    return found, None


def values_of(responses: list[pb.ConsumeBatchesResponse]) -> list[bytes]:
    frames = b"".join(response.frames for response in responses)
    return [record.value for found in read_frames(frames) for record in found.records(0, 1 << 60)]
