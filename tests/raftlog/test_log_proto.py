"""What travels is what proglog's clients send and understand, byte for byte."""

from __future__ import annotations

from raftlog.pb.log.v1 import log_pb2

# (message, field, number, type) as in proglog's api/v1/log.proto; the types are descriptor.proto's numbers
UINT64, BOOL, STRING, MESSAGE, BYTES, UINT32 = 4, 8, 9, 11, 12, 13
PROGLOG_FIELDS = [
    ("Record", "value", 1, BYTES),
    ("Record", "offset", 2, UINT64),
    ("Record", "term", 3, UINT64),
    ("Record", "type", 4, UINT32),
    ("ProduceRequest", "record", 1, MESSAGE),
    ("ProduceResponse", "offset", 1, UINT64),
    ("ConsumeRequest", "offset", 1, UINT64),
    ("ConsumeResponse", "record", 2, MESSAGE),
    ("GetServersResponse", "servers", 1, MESSAGE),
    ("Server", "id", 1, STRING),
    ("Server", "rpc_addr", 2, STRING),
    ("Server", "is_leader", 3, BOOL),
]
# method: (request, response, request streams, response streams)
PROGLOG_METHODS = {
    "Produce": ("ProduceRequest", "ProduceResponse", False, False),
    "Consume": ("ConsumeRequest", "ConsumeResponse", False, False),
    "ConsumeStream": ("ConsumeRequest", "ConsumeResponse", False, True),
    "ProduceStream": ("ProduceRequest", "ProduceResponse", True, True),
    "GetServers": ("GetServersRequest", "GetServersResponse", False, False),
}


def test_proglogs_fields_keep_their_numbers_and_types() -> None:
    messages = log_pb2.DESCRIPTOR.message_types_by_name

    fields = [(message, name, messages[message].fields_by_name[name]) for message, name, *_ in PROGLOG_FIELDS]

    assert [(message, name, field.number, field.type) for message, name, field in fields] == PROGLOG_FIELDS


def test_proglogs_methods_keep_their_names_and_shapes() -> None:
    service = log_pb2.DESCRIPTOR.services_by_name["Log"]

    methods = {
        method.name: (
            method.input_type.name,
            method.output_type.name,
            method.client_streaming,
            method.server_streaming,
        )
        for method in service.methods
    }

    assert service.full_name == "log.v1.Log"
    assert {name: methods[name] for name in PROGLOG_METHODS} == PROGLOG_METHODS


def test_a_request_of_proglog_is_read_as_it_was_meant() -> None:
    bytes_of_proglog = b"\x0a\x0e" + b"\x0a\x05hello" + b"\x10\x07" + b"\x18\x02" + b"\x20\xff\x01"

    record = log_pb2.ProduceRequest.FromString(bytes_of_proglog).record

    assert record == log_pb2.Record(value=b"hello", offset=7, term=2, type=255)


def test_a_plain_record_is_written_as_proglog_writes_it() -> None:
    response = log_pb2.ConsumeResponse(record=log_pb2.Record(value=b"hello", offset=7))

    assert response.SerializeToString() == b"\x12\x09" + b"\x0a\x05hello" + b"\x10\x07"


def test_times_before_1970_and_far_ahead_travel() -> None:
    for timestamp_ns in (-(2**63), -1, 0, 2**63 - 1):
        record = log_pb2.Record(timestamp_ns=timestamp_ns)

        assert log_pb2.Record.FromString(record.SerializeToString()).timestamp_ns == timestamp_ns
