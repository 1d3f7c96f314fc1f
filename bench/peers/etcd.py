"""etcd through gRPC, one key per record: single puts, and transactions of 100 puts, at the leader.

The few messages that are needed are described here, so that no client library is.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench.peers.peer import LOOK_S, QUORUM_POWER, START_S_MAX, program, started, version_of
from raftlog.local_cluster import free_ports

SURVIVES: Final = QUORUM_POWER
NAMES: Final = ("e1", "e2", "e3")
QUOTA_BYTES: Final = 8 * 1024**3
MESSAGE_BYTES_MAX: Final = 64 * 1024**2
READ_AT_ONCE: Final = 10_000

Field = tuple[str, int, str]  # name, number, and a scalar type, or the name of a message that is repeated
MESSAGES: Final[Mapping[str, Sequence[Field]]] = {
    "PutRequest": [("key", 1, "bytes"), ("value", 2, "bytes")],
    "PutResponse": [],
    "KeyValue": [("key", 1, "bytes"), ("value", 5, "bytes")],
    "RangeRequest": [("key", 1, "bytes"), ("range_end", 2, "bytes"), ("limit", 3, "int64")],
    "RangeResponse": [("kvs", 2, "KeyValue")],
    "RequestOp": [("request_put", 2, "PutRequest")],
    "TxnRequest": [("success", 2, "RequestOp")],
    "TxnResponse": [("succeeded", 2, "bool")],
}
SINGLE: Final = {("RequestOp", "request_put")}  # a message, and not a list of them


def message_types() -> dict[str, Any]:
    """The classes of MESSAGES by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="bench_etcd.proto", package="etcdserverpb", syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            described = descriptor_pb2.FieldDescriptorProto
            one = message.field.add(name=field, number=number, label=described.LABEL_OPTIONAL)
            if kind in MESSAGES:
                one.type, one.type_name = described.TYPE_MESSAGE, f".etcdserverpb.{kind}"
                if (name, field) not in SINGLE:
                    one.label = described.LABEL_REPEATED
            else:
                one.type = described.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"etcdserverpb.{name}"))
        for name in MESSAGES
    }


class EtcdStore:
    group = 100  # 128 is the most that a server takes by default
    groups_in_flight = 8

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._types = message_types()
        self._put = self._method(channel, "Put", "Put")
        self._txn = self._method(channel, "Txn", "Txn")
        self._range = self._method(channel, "Range", "Range")
        self._numbers = count()

    def _method(self, channel: grpc.aio.Channel, name: str, message: str) -> Any:
        return channel.unary_unary(
            f"/etcdserverpb.KV/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=self._types[f"{message}Response"].FromString,
        )

    def _putting(self, value: bytes) -> Any:
        return self._types["PutRequest"](key=b"%020d" % next(self._numbers), value=value)

    async def append(self, value: bytes) -> None:
        await self._put(self._putting(value))

    async def append_group(self, values: Sequence[bytes]) -> None:
        request = self._types["TxnRequest"]()
        for value in values:
            request.success.add().request_put.CopyFrom(self._putting(value))
        answer = await self._txn(request)
        if not answer.succeeded:
            raise RuntimeError("etcd refused a transaction")

    async def read_all(self) -> int:
        found, key = 0, b"0"
        while True:
            answer = await self._range(
                self._types["RangeRequest"](key=key, range_end=b":", limit=READ_AT_ONCE)
            )
            values = [one.value for one in answer.kvs]
            if not values:
                return found
            found += len(values)
            key = answer.kvs[-1].key + b"\0"


@asynccontextmanager
async def etcd(folder: Path) -> AsyncIterator[EtcdStore]:
    command = program("etcd", "etcd-server")
    ports = free_ports(2 * len(NAMES))
    clients = dict(zip(NAMES, (f"127.0.0.1:{port}" for port in ports[:3]), strict=True))
    peers = dict(zip(NAMES, (f"http://127.0.0.1:{port}" for port in ports[3:]), strict=True))
    commands = {
        name: [
            command, "--name", name, "--data-dir", "data", "--log-level", "error", "--logger", "zap",
            "--listen-client-urls", f"http://{clients[name]}", "--advertise-client-urls", f"http://{clients[name]}",
            "--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name],
            "--initial-cluster", ",".join(f"{one}={url}" for one, url in peers.items()),
            "--initial-cluster-state", "new", "--quota-backend-bytes", str(QUOTA_BYTES),
        ]
        for name in NAMES
    }  # fmt: skip
    with started(commands, folder):
        leader = await asyncio.to_thread(_leader_among, list(clients.values()))
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        async with grpc.aio.insecure_channel(leader, options=options) as channel:
            yield EtcdStore(channel)


def _leader_among(addresses: Sequence[str]) -> str:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        for address in addresses:
            try:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=1.0) as answer:
                    if b"\netcd_server_is_leader 1\n" in answer.read():
                        return address
            except OSError:
                pass  # it has just been started
        time.sleep(LOOK_S)
    raise TimeoutError(f"etcd has no leader after {START_S_MAX:.0f} s")


def version() -> str:
    return version_of("etcd", [program("etcd", "etcd-server"), "--version"])
