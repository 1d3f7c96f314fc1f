from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftlog.engine import NodeId
from raftlog.raft.configuration import Configuration
from raftlog.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    HigherTerm,
    Message,
    PreVote,
    PreVoteReply,
    ReadReply,
    ReadRequest,
    Snapshot,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    TransferRequest,
    Vote,
    VoteReply,
)
from raftlog.wire.raft_messages import NUMBER_MAX, NUMBERS, BadMessage, decode, encode

CONFIGURATION = Configuration(
    voters=(NodeId("n1"), NodeId("n2")), outgoing=(NodeId("n1"), NodeId("n3")), learners=(NodeId("n4"),)
)
ENTRIES = [
    Entry(8, 2, EntryKind.RECORDS, b"frame"),
    Entry(9, 2, EntryKind.COMMAND, b""),
    Entry(10, 3, EntryKind.NO_OP, b""),
    Entry(11, 3, EntryKind.CONFIGURATION, b"{}"),
]
EXAMPLES: list[Message] = [
    Append(term=3, prev_index=7, prev_term=2, entries=ENTRIES, commit=6, attempt=1),
    Append(term=3, prev_index=0, prev_term=0, entries=[], commit=0),
    AppendReply(term=3, match=11),
    AppendRejected(term=3, prev_index=7, hint_index=5, hint_term=1, attempt=2),
    HigherTerm(term=9),
    Heartbeat(term=3, commit=6, round=70),
    HeartbeatReply(term=3, round=70),
    Vote(term=4, last_index=11, last_term=3),
    Vote(term=4, last_index=11, last_term=3, is_transfer=True),
    VoteReply(term=4, is_granted=True),
    VoteReply(term=4, is_granted=False, commit=6, commit_term=2),
    PreVote(term=4, last_index=11, last_term=3),
    PreVoteReply(term=4, is_granted=False, commit=6, commit_term=2),
    SnapshotChunk(
        term=3, snapshot=Snapshot(7, 2, CONFIGURATION, 10), position=0, data=b"1234", is_last=False
    ),
    SnapshotChunk(
        term=3, snapshot=Snapshot(7, 2, CONFIGURATION, 10), position=4, data=b"567890", is_last=True
    ),
    SnapshotReply(term=3, index=7, position=4),
    TimeoutNow(term=3),
    TransferRequest(term=3, to="nœud"),
    ReadRequest(term=3, request=1),
    ReadReply(term=3, request=1, index=6),
]
IDS = [type(one).__name__ for one in EXAMPLES]

numbers = st.integers(0, NUMBER_MAX)


@st.composite
def appends(draw: st.DrawFn) -> Append:
    prev_index = draw(st.integers(0, NUMBER_MAX - 10))
    prev_term, *terms, term = sorted(draw(st.lists(numbers, min_size=2, max_size=8)))
    entries = [
        Entry(prev_index + 1 + place, each, draw(st.sampled_from(EntryKind)), draw(st.binary(max_size=50)))
        for place, each in enumerate(terms)
    ]
    return Append(term, prev_index, prev_term, entries, draw(numbers), draw(numbers))


@st.composite
def chunks(draw: st.DrawFn) -> SnapshotChunk:
    data, position, rest = draw(st.binary(max_size=50)), draw(st.integers(0, 2**40)), draw(st.integers(0, 3))
    snapshot = Snapshot(draw(numbers), draw(numbers), CONFIGURATION, position + len(data) + rest)
    return SnapshotChunk(draw(numbers), snapshot, position, data, rest == 0)


MESSAGES: st.SearchStrategy[Message] = st.one_of(
    appends(), chunks(),
    st.builds(AppendReply, numbers, numbers), st.builds(AppendRejected, *[numbers] * 5),
    st.builds(HigherTerm, numbers), st.builds(Heartbeat, *[numbers] * 3),
    st.builds(HeartbeatReply, numbers, numbers), st.builds(Vote, *[numbers] * 3, st.booleans()),
    st.builds(VoteReply, numbers, st.booleans(), numbers, numbers), st.builds(PreVote, *[numbers] * 3),
    st.builds(PreVoteReply, numbers, st.booleans(), numbers, numbers), st.builds(SnapshotReply, *[numbers] * 3),
    st.builds(TimeoutNow, numbers), st.builds(TransferRequest, numbers, st.text(min_size=1, max_size=63).filter(str.isprintable)),
    st.builds(ReadRequest, numbers, numbers), st.builds(ReadReply, *[numbers] * 3),
)  # fmt: skip


def as_bytes(message: Message) -> bytes:
    return b"".join(encode(message))


def test_every_message_has_a_number_and_an_example() -> None:
    kinds = set(get_args(Message))

    assert NUMBERS.keys() == kinds == {type(one) for one in EXAMPLES}
    assert sorted(NUMBERS.values()) == list(range(1, len(kinds) + 1))


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_an_example_comes_back_as_it_was(message: Message) -> None:
    assert decode(as_bytes(message)) == message


@given(MESSAGES)
def test_any_message_comes_back_as_it_was(message: Message) -> None:
    assert decode(memoryview(as_bytes(message))) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_a_message_cut_short_anywhere_is_bad(message: Message) -> None:
    data = as_bytes(message)

    for length in range(len(data)):
        with pytest.raises(BadMessage):
            decode(data[:length])


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_a_message_with_a_byte_too_many_is_bad(message: Message) -> None:
    with pytest.raises(BadMessage):
        decode(as_bytes(message) + b"x")


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_a_changed_byte_gives_a_message_or_a_bad_one_and_no_other_error(message: Message) -> None:
    data = bytearray(as_bytes(message))

    for place in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            data[place] ^= change
            try:
                decode(bytes(data))
            except BadMessage:
                pass
            data[place] ^= change


@given(st.binary(max_size=120))
def test_any_bytes_give_a_message_or_a_bad_one_and_no_other_error(data: bytes) -> None:
    try:
        message = decode(data)
    except BadMessage:
        return
    assert as_bytes(message) == data


def test_an_entrys_data_is_not_copied_when_it_is_encoded() -> None:
    payload = b"a" * 1000

    parts = encode(Append(1, 0, 0, [Entry(1, 1, EntryKind.RECORDS, payload)], 0))

    assert parts[1] is payload


# ── what is refused ──


def changed(message: Message, position: int, new: bytes) -> bytes:
    data = bytearray(as_bytes(message))
    data[position : position + len(new)] = new
    return bytes(data)


def test_an_entry_of_a_term_below_the_one_before_is_bad() -> None:
    with pytest.raises(BadMessage, match="an entry of term 1 after one of 2, in term 3"):
        decode(changed(EXAMPLES[0], 45, b"\x01"))


def test_an_entry_of_a_later_term_than_the_leaders_is_bad() -> None:
    with pytest.raises(BadMessage, match="an entry of term 4 after one of 3, in term 3"):
        decode(changed(EXAMPLES[0], 45 + 3 * 13, b"\x04"))


def test_an_entry_of_no_known_kind_is_bad() -> None:
    with pytest.raises(BadMessage, match="no entry is of kind 9"):
        decode(changed(EXAMPLES[0], 45 + 8, b"\x09"))


def test_more_entries_than_bytes_are_bad() -> None:
    with pytest.raises(BadMessage, match="4294967295 entries do not fit"):
        decode(changed(EXAMPLES[0], 41, b"\xff\xff\xff\xff"))


def test_a_number_above_63_bits_is_bad() -> None:
    with pytest.raises(BadMessage, match="is above"):
        decode(changed(AppendReply(1, 1), 8, b"\x80"))


def test_a_boolean_of_two_is_bad() -> None:
    with pytest.raises(BadMessage, match="a boolean is 0 or 1, not 2"):
        decode(changed(VoteReply(1, True), 9, b"\x02"))


def test_a_part_beyond_the_end_of_its_snapshot_is_bad() -> None:
    snapshot = Snapshot(7, 2, CONFIGURATION, 10)

    with pytest.raises(BadMessage, match="4 bytes at 8 of a snapshot of 10, is_last=True"):
        decode(as_bytes(SnapshotChunk(3, snapshot, 8, b"1234", True)))


def test_a_configuration_that_is_none_is_bad() -> None:
    data = as_bytes(EXAMPLES[IDS.index("SnapshotChunk")])

    with pytest.raises(BadMessage):
        decode(data.replace(b'"n4"', b'"n1"'))


@pytest.mark.parametrize("name", [b"", b"\xff", b"n" * 64])
def test_a_transfer_to_what_is_no_name_is_bad(name: bytes) -> None:
    head = as_bytes(TransferRequest(1, ""))[:-2]

    with pytest.raises(BadMessage, match="a node's name"):
        decode(head + len(name).to_bytes(2, "little") + name)


def test_an_unknown_number_is_bad() -> None:
    with pytest.raises(BadMessage, match="no message has the number 200"):
        decode(b"\xc8")
