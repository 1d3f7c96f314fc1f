"""A client of proglog, which knows its five calls and their messages and nothing else, at any server of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from raftlog.net.tls import channel_credentials
from tests.raftlog.cluster.servers import Servers

CALL_S_MAX: Final = 10.0
FIELDS: Final = {  # as in proglog's api/v1/log.proto: (name, number, type, repeated)
    "Record": [("value", 1, "BYTES", False), ("offset", 2, "UINT64", False), ("term", 3, "UINT64", False), ("type", 4, "UINT32", False)],
    "ProduceRequest": [("record", 1, "Record", False)],
    "ProduceResponse": [("offset", 1, "UINT64", False)],
    "ConsumeRequest": [("offset", 1, "UINT64", False)],
    "ConsumeResponse": [("record", 2, "Record", False)],
    "GetServersRequest": [],
    "GetServersResponse": [("servers", 1, "Server", True)],
    "Server": [("id", 1, "STRING", False), ("rpc_addr", 2, "STRING", False), ("is_leader", 3, "BOOL", False)],
}  # fmt: skip


def messages() -> dict[str, Any]:
    """Its messages, by name, made without anything of ours."""
    Field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="proglog.proto", package="log.v1", syntax="proto3")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, is_repeated in fields:
            label = Field.LABEL_REPEATED if is_repeated else Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if kind in FIELDS:
                added.type, added.type_name = Field.TYPE_MESSAGE, f".log.v1.{kind}"
            else:
                added.type = getattr(Field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"log.v1.{name}")) for name in FIELDS
    }


MESSAGES: Final = messages()


class ProglogClient:
    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, shape: str, method: str, request: Any) -> Any:
        """`shape` is that of the method, as grpc has it; `request` a message, or an iterator of some."""
        open_call = getattr(self._channel, shape)(
            f"/log.v1.Log/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES[f"{method.removesuffix('Stream')}Response"].FromString,
        )
        return open_call(request, timeout=CALL_S_MAX)

    def produce(self, value: bytes) -> int:
        return int(self.call("unary_unary", "Produce", produce_request(value)).offset)


def produce_request(value: bytes) -> Any:
    return MESSAGES["ProduceRequest"](record=MESSAGES["Record"](value=value))


@pytest.fixture(params=["n1", "n2", "n3"])
def client(three: Servers, request: pytest.FixtureRequest) -> Iterator[ProglogClient]:
    with grpc.secure_channel(three.addresses[request.param], channel_credentials(three.tls)) as channel:
        yield ProglogClient(channel)


def test_its_five_calls_work_at_any_server(client: ProglogClient, three: Servers) -> None:
    servers = client.call("unary_unary", "GetServers", MESSAGES["GetServersRequest"]()).servers
    first = client.produce(b"one")
    sent = (produce_request(value) for value in (b"two", b"three"))
    streamed = [answer.offset for answer in client.call("stream_stream", "ProduceStream", sent)]
    consumed = client.call("unary_unary", "Consume", MESSAGES["ConsumeRequest"](offset=first)).record
    stream = client.call("unary_stream", "ConsumeStream", MESSAGES["ConsumeRequest"](offset=first))
    read = [next(stream).record for _ in range(3)]
    stream.cancel()

    assert {each.id: each.rpc_addr for each in servers} == three.addresses
    assert [each.is_leader for each in servers].count(True) == 1
    assert streamed == [first + 1, first + 2]
    assert (consumed.value, consumed.offset) == (b"one", first)
    assert [(each.value, each.offset) for each in read] == [
        (b"one", first), (b"two", first + 1), (b"three", first + 2)
    ]  # fmt: skip


def test_an_offset_that_does_not_exist_is_refused_as_proglog_does(client: ProglogClient) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.call("unary_unary", "Consume", MESSAGES["ConsumeRequest"](offset=1 << 40))

    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
