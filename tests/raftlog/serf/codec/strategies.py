"""Messages of every kind, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from raftlog.serf.codec.swim import PacketMessage
from raftlog.serf.messages import (
    Ack,
    Address,
    Alive,
    ConflictResponse,
    Dead,
    ErrorReply,
    EventRecord,
    EventsAt,
    IndirectPing,
    JoinIntent,
    KeyRequest,
    KeyResponse,
    LeaveIntent,
    Nack,
    NodeState,
    Ping,
    PushPull,
    Query,
    QueryResponse,
    Relay,
    SerfMessage,
    SerfState,
    State,
    Suspect,
    TagFilter,
    UserEvent,
    UserMessage,
    Versions,
)

names = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers(0, 2**32 - 1)
times = st.integers(0, 2**64 - 1)
blobs = st.binary(max_size=100)
versions = st.builds(Versions, *[st.integers(0, 255)] * 6)
tags = st.dictionaries(names, names, max_size=3)


def _address(ip: str, port: int) -> Address:
    return Address(f"{ip}:{port}")


HOSTS = ("10.0.0.1", "127.0.0.1", "240.1.2.3", "[fe80::2]", "[2001:db8::1]", "[::1]")
addresses = st.builds(_address, st.sampled_from(HOSTS), st.integers(1, 65535))
sources = st.none() | addresses

packet_messages: st.SearchStrategy[PacketMessage] = st.one_of(
    st.builds(Ping, numbers, names, sources, names),
    st.builds(IndirectPing, numbers, addresses, names, st.booleans(), sources, names),
    st.builds(Ack, numbers, blobs),
    st.builds(Nack, numbers),
    st.builds(Suspect, numbers, names, names),
    st.builds(Alive, numbers, names, addresses, blobs, versions),
    st.builds(Dead, numbers, names, names),
    st.builds(UserMessage, blobs),
)

node_states = st.builds(NodeState, names, addresses, blobs, numbers, st.sampled_from(State), versions)
stream_messages = st.one_of(
    st.builds(PushPull, st.lists(node_states, max_size=8).map(tuple), blobs, st.booleans()),
    st.builds(Ping, numbers, names),
    st.builds(Ack, numbers, blobs),
    st.builds(UserMessage, st.binary(max_size=2000)),
    st.builds(ErrorReply, names),
)

event_records = st.builds(EventRecord, names, blobs)
events_at = st.builds(EventsAt, times, st.lists(event_records, max_size=3).map(tuple))
tag_filters = st.builds(TagFilter, names, names)
serf_messages: st.SearchStrategy[SerfMessage] = st.one_of(
    st.builds(LeaveIntent, times, names, st.booleans()),
    st.builds(JoinIntent, times, names),
    st.builds(
        SerfState,
        times,
        st.dictionaries(names, times, max_size=5),
        st.lists(names, max_size=5).map(tuple),
        times,
        st.lists(events_at, max_size=3).map(tuple),
        times,
    ),
    st.builds(UserEvent, times, names, blobs, st.booleans()),
    st.builds(
        Query,
        times,
        numbers,
        addresses,
        names,
        names,
        blobs,
        st.integers(0, 3_600_000).map(lambda milliseconds: milliseconds / 1000),
        st.lists(st.lists(names, max_size=3).map(tuple), max_size=3).map(tuple),
        st.lists(tag_filters, max_size=3).map(tuple),
        st.booleans(),
        st.booleans(),
        st.integers(0, 255),
    ),
    st.builds(QueryResponse, times, numbers, names, st.booleans(), blobs),
    st.builds(Relay, addresses, names, blobs),
    st.builds(ConflictResponse, names, addresses, tags),
    st.builds(KeyRequest, st.binary(max_size=32)),
    st.builds(KeyResponse, st.booleans(), names, st.lists(names, max_size=3).map(tuple), names),
)
