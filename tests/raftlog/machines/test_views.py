"""The views of a log: fed in order, kept in snapshots, never fed twice."""

from __future__ import annotations

import struct

import pytest
from google.protobuf.message import DecodeError

from logstore import Config
from raftlog.distributed.frames import make_frame
from raftlog.engine import NodeId
from raftlog.machines.autopilot import BARRED_MAX, Autopilot
from raftlog.machines.producers import StoredBatch
from raftlog.machines.views import BadViews, Views, spans_of
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.raft.configuration import Change, ChangeKind, Configuration, ConfigurationChange
from raftlog.raft.messages import Entry, EntryKind

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
ALONE = Configuration(voters=(N1,))


def records(index: int, *values: bytes, time: int = 0) -> Entry:
    return Entry(index, 1, EntryKind.RECORDS, make_frame(list(values), Config(), time=time).data)


def command(index: int, command: pb.Command) -> Entry:
    return Entry(index, 1, EntryKind.COMMAND, command.SerializeToString())


def change(index: int, kind: ChangeKind, node: NodeId) -> Entry:
    return Entry(index, 1, EntryKind.CONFIGURATION, ConfigurationChange((Change(kind, node),)).to_bytes())


STORY = [
    records(2, b"a", b"b", time=50),
    command(3, pb.Command(set_member=pb.SetMember(id="n2", address="b:1", directory_id="d2"))),
    change(4, ChangeKind.ADD_LEARNER, N2),
    Entry(5, 1, EntryKind.NO_OP, b""),
    records(6, b"c", time=40),
    command(7, pb.Command(set_cursor=pb.SetCursor(group="g", offset=2, time_ns=60))),
    command(8, pb.Command(set_log_start=pb.SetLogStart(offset=1))),
    command(9, pb.Command(set_autopilot=pb.SetAutopilot(mode="advise"))),
    command(10, pb.Command(bar_server=pb.BarServer(id="n3", directory_id="d3"))),
]


def fed(entries: list[Entry]) -> Views:
    views = Views(ALONE, index=1)
    for entry in entries:
        views.apply(entry)
    return views


def test_records_take_offsets_and_other_entries_none() -> None:
    assert (fed(STORY).next_offset, spans_of(STORY)) == (3, 3)


def test_time_never_goes_back() -> None:
    assert fed(STORY).time == 50


def test_a_member_is_known_with_its_address_and_votes_by_the_configuration() -> None:
    members = fed(STORY).members

    assert members.known == {N2: ("b:1", "d2")}
    assert members.configuration == Configuration(voters=(N1,), learners=(N2,))
    assert members.at_address("b:1") == N2


def test_a_removed_member_is_forgotten() -> None:
    views = fed([*STORY, change(11, ChangeKind.REMOVE, N2)])

    assert (views.members.known, views.members.configuration) == ({}, ALONE)


def test_a_change_that_is_not_possible_changes_nothing() -> None:
    views = fed([*STORY, change(11, ChangeKind.REMOVE, N1)])

    assert views.members.configuration == Configuration(voters=(N1,), learners=(N2,))


def test_the_log_never_starts_behind_its_end_and_never_goes_back() -> None:
    start = [command(11, pb.Command(set_log_start=pb.SetLogStart(offset=offset))) for offset in (0, 99)]

    assert fed([*STORY, start[0]]).log_start == 1
    assert fed([*STORY, start[1]]).log_start == 3


def test_an_entry_is_never_applied_twice() -> None:
    once, twice = fed(STORY), fed([*STORY, *STORY])

    assert twice.to_sections() == once.to_sections()


@pytest.mark.parametrize("index", range(1, 11))
def test_views_from_a_snapshot_at_any_entry_go_on_as_the_others(index: int) -> None:
    before = fed([entry for entry in STORY if entry.index <= index])

    views = Views.from_sections(before.index, before.to_sections())
    for entry in STORY:  # from before the snapshot on: those are skipped
        views.apply(entry)

    assert views.to_sections() == fed(STORY).to_sections()


def test_sections_that_are_none_are_refused() -> None:
    sections = fed(STORY).to_sections()

    for name in sections:
        with pytest.raises(BadViews):
            Views.from_sections(8, {**sections, name: b"\xff\xff"})
    for name in sections.keys() - {"autopilot"}:
        with pytest.raises(BadViews):
            Views.from_sections(8, {key: value for key, value in sections.items() if key != name})


def test_a_command_of_a_newer_version_is_refused() -> None:
    with pytest.raises(DecodeError):
        fed([Entry(2, 1, EntryKind.COMMAND, b"")])


def test_a_producers_batch_is_remembered_with_its_offset() -> None:
    frame = bytearray(records(11, b"d", b"e").data)
    struct.pack_into("<QQI", frame, 56, 77, 5, 3)  # producer id, first sequence, epoch (docs/FORMATS.md)

    state = fed([*STORY, Entry(11, 1, EntryKind.RECORDS, bytes(frame))]).producers.get(77)

    assert state is not None
    assert (state.epoch, state.next_sequence, list(state.recent)) == (3, 7, [StoredBatch(5, 2, 3)])


def test_a_snapshot_from_before_autopilot_says_nothing_of_it() -> None:
    sections = fed(STORY).to_sections()
    del sections["autopilot"]

    autopilot = Views.from_sections(10, sections).autopilot

    assert (autopilot.mode, autopilot.is_barred(N3, "d3")) == ("", False)


@pytest.mark.parametrize(
    ("barred", "comes_with", "is_barred"),
    [("d3", "d3", True), ("d3", "", True), ("d3", "other", False), ("", "any", True)],
)
def test_a_barred_server_is_known_by_its_directory(barred: str, comes_with: str, is_barred: bool) -> None:
    views = fed([command(2, pb.Command(bar_server=pb.BarServer(id="n3", directory_id=barred)))])

    assert views.autopilot.is_barred(N3, comes_with) is is_barred


def test_who_is_asked_for_is_barred_no_more() -> None:
    asked_for = pb.Command(set_member=pb.SetMember(id="n3", address="c:1", directory_id="d3"))

    assert not fed([*STORY, command(11, asked_for)]).autopilot.is_barred(N3, "d3")


def test_of_too_many_barred_the_first_is_forgotten() -> None:
    autopilot = Autopilot()
    for number in range(BARRED_MAX + 1):
        autopilot.bar(pb.BarServer(id=f"m{number}"))

    assert not autopilot.is_barred(NodeId("m0"), "")
    assert autopilot.is_barred(NodeId("m1"), "") and autopilot.is_barred(NodeId(f"m{BARRED_MAX}"), "")
