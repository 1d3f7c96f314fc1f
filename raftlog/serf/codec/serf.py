"""Serf's messages as bytes: the kind in one byte, then a msgpack map. Source: serf, messages.go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, assert_never

from raftlog.serf.codec.addresses import to_wire
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.values import (
    MANY_ITEMS_MAX,
    NAME_BYTES_MAX,
    TEXT_BYTES_MAX,
    Fields,
    Unpacking,
    as_text,
    as_uint,
    pack,
    unpack,
    unpack_fields,
)
from raftlog.serf.config import META_BYTES_MAX
from raftlog.serf.messages import (
    Address,
    ConflictResponse,
    EventRecord,
    EventsAt,
    JoinIntent,
    KeyRequest,
    KeyResponse,
    LeaveIntent,
    Query,
    QueryResponse,
    Relay,
    SerfMessage,
    SerfState,
    TagFilter,
    UserEvent,
)

LEAVE: Final = 0
JOIN: Final = 1
PUSH_PULL: Final = 2
USER_EVENT: Final = 3
QUERY: Final = 4
QUERY_RESPONSE: Final = 5
CONFLICT_RESPONSE: Final = 6
KEY_REQUEST: Final = 7
KEY_RESPONSE: Final = 8
RELAY: Final = 9

WANTS_ACK: Final = 1  # flags of a query and of a response
NO_BROADCAST: Final = 2
NODE_FILTER: Final = 0  # kinds of a filter
TAG_FILTER: Final = 1
TAGS_MAX: Final = META_BYTES_MAX // 2  # of one member: one takes two bytes at least
FILTERED_NODES_MAX: Final = 1024  # named by one filter; more is refused
TIME_BITS: Final = 64  # of a Lamport clock
DURATION_BITS: Final = 63  # Go's, in nanoseconds; a negative one is refused
DURATION_MAX: Final = (1 << DURATION_BITS) - 1
NANOSECONDS: Final = 1_000_000_000

# In front of tags; without it the whole is the tag "role", as Serf's protocol 2 had it
TAGS_MAGIC: Final = 255


def encode(message: SerfMessage) -> bytes:
    """The bytes of a message; ValueError if an address is no `ip:port`.

    A ConflictResponse without node and address says that nobody is known by the name: Go's nil.
    """
    match message:
        case LeaveIntent():
            leave = {"LTime": message.time, "Node": message.node, "Prune": message.is_pruned}
            return _bytes(LEAVE, leave)
        case JoinIntent():
            return _bytes(JOIN, {"LTime": message.time, "Node": message.node})
        case SerfState():
            return _bytes(PUSH_PULL, _state_fields(message))
        case UserEvent():
            event = {"LTime": message.time, "Name": message.name, "Payload": message.payload}
            return _bytes(USER_EVENT, {**event, "CC": message.can_coalesce})
        case Query():
            return _bytes(QUERY, _query_fields(message))
        case QueryResponse():
            response = {"LTime": message.time, "ID": message.id, "From": message.node}
            flags = WANTS_ACK if message.is_ack else 0
            return _bytes(QUERY_RESPONSE, {**response, "Flags": flags, "Payload": message.payload})
        case Relay():
            ip, port = to_wire(message.address)
            destination = {"DestAddr": {"IP": ip, "Port": port, "Zone": ""}, "DestName": message.node}
            return _bytes(RELAY, destination) + message.message
        case ConflictResponse():
            return _bytes(CONFLICT_RESPONSE, _member_fields(message))
        case KeyRequest():
            return _bytes(KEY_REQUEST, {"Key": message.key})
        case KeyResponse():
            response = {"Result": message.is_done, "Message": message.message, "Keys": message.keys}
            return _bytes(KEY_RESPONSE, {**response, "PrimaryKey": message.primary_key})
        case _:
            assert_never(message)


def decode(data: bytes) -> SerfMessage:
    """The message that these bytes are. BadPacket if they are none."""
    if not data:
        raise BadPacket("Serf message: expected a kind, found nothing")
    if data[0] == RELAY:
        return _relay(data[1:])
    if data[0] == PUSH_PULL:
        return _state(unpack_fields(data[1:], "Serf state", MANY_ITEMS_MAX))
    if data[0] == CONFLICT_RESPONSE:
        return _conflict_response(unpack_fields(data[1:], "conflict response", TAGS_MAX))
    known = DECODERS.get(data[0])
    if known is None:
        raise BadPacket(f"Serf message: expected a kind from 0 to {RELAY}, found {data[0]}")
    what, decoder = known
    return decoder(unpack_fields(data[1:], what))


def encode_tags(tags: Mapping[str, str]) -> bytes:
    """Tags as a member's meta. ValueError above META_BYTES_MAX bytes, which no other member would take in."""
    meta = _bytes(TAGS_MAGIC, dict(tags))
    if len(meta) > META_BYTES_MAX:
        raise ValueError(f"tags: expected {META_BYTES_MAX} bytes at most when encoded, found {len(meta)}")
    return meta


def decode_tags(meta: bytes) -> dict[str, str]:
    """The tags in a member's meta; in the old form, the whole is the tag "role". BadPacket if it is neither."""
    if not meta:
        return {}
    if meta[0] != TAGS_MAGIC:
        return {"role": as_text(meta, META_BYTES_MAX, "role")}
    return _tags(Fields({b"Tags": unpack(meta[1:], "tags", TAGS_MAX)}, "tags"))


def _bytes(kind: int, fields: Mapping[str, object] | None) -> bytes:
    return bytes([kind]) + pack(fields)


def _state_fields(message: SerfState) -> dict[str, object]:
    return {
        "LTime": message.time,
        "StatusLTimes": message.status_times,
        "LeftMembers": message.left_members,
        "EventLTime": message.event_time,
        "Events": [
            {
                "LTime": at.time,
                "Events": [{"Name": event.name, "Payload": event.payload} for event in at.events],
            }
            for at in message.events
        ],
        "QueryLTime": message.query_time,
    }


def _query_fields(message: Query) -> dict[str, object]:
    ip, port = to_wire(message.source_address)
    filters = [_bytes_of_filter(NODE_FILTER, names) for names in message.node_filters]
    filters += [
        _bytes_of_filter(TAG_FILTER, {"Tag": f.tag, "Expr": f.expression}) for f in message.tag_filters
    ]
    flags = (WANTS_ACK if message.wants_ack else 0) | (0 if message.is_broadcast else NO_BROADCAST)
    return {
        "LTime": message.time,
        "ID": message.id,
        "Addr": ip,
        "Port": port,
        "SourceNode": message.source_node,
        "Filters": filters,
        "Flags": flags,
        "RelayFactor": message.relay_factor,
        "Timeout": min(round(message.timeout_s * NANOSECONDS), DURATION_MAX),
        "Name": message.name,
        "Payload": message.payload,
    }


def _bytes_of_filter(kind: int, content: object) -> bytes:
    return bytes([kind]) + pack(content)


def _member_fields(message: ConflictResponse) -> dict[str, object] | None:
    if not message.node and not message.address:
        return None
    ip, port = to_wire(message.address)
    return {"Name": message.node, "Addr": ip, "Port": port, "Tags": message.tags}


def _leave(fields: Fields) -> LeaveIntent:
    return LeaveIntent(fields.uint(b"LTime", TIME_BITS), fields.name(b"Node"), fields.flag(b"Prune"))


def _join(fields: Fields) -> JoinIntent:
    return JoinIntent(fields.uint(b"LTime", TIME_BITS), fields.name(b"Node"))


def _state(fields: Fields) -> SerfState:
    # Members whose names cannot be held here are left out, as they are out of memberlist's whole state (streams.py).
    times: dict[str, int] = {}
    for wire_name, time in fields.map(b"StatusLTimes").items():
        for name in _names([wire_name]):
            times[name] = as_uint(time, TIME_BITS, "status time")
    return SerfState(
        fields.uint(b"LTime", TIME_BITS),
        times,
        tuple(_names(fields.items(b"LeftMembers"))),
        fields.uint(b"EventLTime", TIME_BITS),
        tuple(_events_at(at) for at in fields.items(b"Events") if at is not None),
        fields.uint(b"QueryLTime", TIME_BITS),
    )


def _names(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        try:
            yield as_text(value, NAME_BYTES_MAX, "name of a member")
        except BadPacket:
            continue


def _events_at(value: Any) -> EventsAt:
    fields = Fields.of(value, "user events")
    return EventsAt(fields.uint(b"LTime", TIME_BITS), tuple(_event(each) for each in fields.items(b"Events")))


def _event(value: Any) -> EventRecord:
    fields = Fields.of(value, "user event")
    return EventRecord(fields.name(b"Name"), fields.blob(b"Payload"))


def _user_event(fields: Fields) -> UserEvent:
    return UserEvent(
        fields.uint(b"LTime", TIME_BITS), fields.name(b"Name"), fields.blob(b"Payload"), fields.flag(b"CC")
    )


def _query(fields: Fields) -> Query:
    nodes: list[tuple[str, ...]] = []
    tags: list[TagFilter] = []
    for each in fields.items(b"Filters"):
        found = _filter(each)
        if isinstance(found, TagFilter):
            tags.append(found)
        else:
            nodes.append(found)
    flags = fields.uint(b"Flags", 32)
    return Query(
        time=fields.uint(b"LTime", TIME_BITS),
        id=fields.uint(b"ID", 32),
        source_address=fields.address(b"Addr", b"Port"),
        source_node=fields.name(b"SourceNode"),
        name=fields.name(b"Name"),
        payload=fields.blob(b"Payload"),
        timeout_s=fields.uint(b"Timeout", DURATION_BITS) / NANOSECONDS,
        node_filters=tuple(nodes),
        tag_filters=tuple(tags),
        wants_ack=bool(flags & WANTS_ACK),
        is_broadcast=not flags & NO_BROADCAST,
        relay_factor=fields.uint(b"RelayFactor", 8),
    )


def _filter(value: Any) -> tuple[str, ...] | TagFilter:
    """Names of nodes, or a tag. One of a kind not known could hide whom the query means: it is refused."""
    data = Fields({b"filter": value}, "query").blob(b"filter")
    if data[:1] == bytes([NODE_FILTER]):
        listed = unpack(data[1:], "node filter", FILTERED_NODES_MAX)
        names = Fields({b"names": listed}, "node filter").items(b"names")
        return tuple(as_text(name, NAME_BYTES_MAX, "node filter") for name in names)
    if data[:1] == bytes([TAG_FILTER]):
        fields = unpack_fields(data[1:], "tag filter")
        return TagFilter(fields.name(b"Tag"), fields.text(b"Expr"))
    raise BadPacket("query: expected filters for nodes or tags, found another kind")


def _query_response(fields: Fields) -> QueryResponse:
    return QueryResponse(
        fields.uint(b"LTime", TIME_BITS),
        fields.uint(b"ID", 32),
        fields.name(b"From"),
        bool(fields.uint(b"Flags", 32) & WANTS_ACK),
        fields.blob(b"Payload"),
    )


def _relay(data: bytes) -> Relay:
    unpacking = Unpacking(data, "relay")
    header = unpacking.next_fields()
    address = header.struct(b"DestAddr").address(b"IP", b"Port")
    return Relay(address, header.name(b"DestName"), unpacking.rest())


def _conflict_response(fields: Fields) -> ConflictResponse:
    address = fields.address_or_none(b"Addr", b"Port")
    return ConflictResponse(fields.name(b"Name"), Address("") if address is None else address, _tags(fields))


def _tags(fields: Fields) -> dict[str, str]:
    tags: dict[str, str] = {}
    for tag, value in fields.map(b"Tags").items():
        tags[as_text(tag, META_BYTES_MAX, "tag")] = as_text(value, META_BYTES_MAX, "tag")
    return tags


def _key_request(fields: Fields) -> KeyRequest:
    return KeyRequest(fields.blob(b"Key", 32))


def _key_response(fields: Fields) -> KeyResponse:
    keys = tuple(as_text(key, NAME_BYTES_MAX, "key") for key in fields.items(b"Keys"))
    text = fields.text(b"Message", TEXT_BYTES_MAX)
    return KeyResponse(fields.flag(b"Result"), text, keys, fields.name(b"PrimaryKey"))


DECODERS: Final[Mapping[int, tuple[str, Callable[[Fields], SerfMessage]]]] = {
    LEAVE: ("leave", _leave),
    JOIN: ("join", _join),
    USER_EVENT: ("user event", _user_event),
    QUERY: ("query", _query),
    QUERY_RESPONSE: ("query response", _query_response),
    KEY_REQUEST: ("key request", _key_request),
    KEY_RESPONSE: ("key response", _key_response),
}
