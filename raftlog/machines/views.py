"""All views of one node's log: fed in commit order, kept in snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Many
from struct import Struct
from typing import Final

from google.protobuf.message import DecodeError

from raftlog.machines.autopilot import Autopilot
from raftlog.machines.cursors import Cursors
from raftlog.machines.members import Members
from raftlog.machines.producers import Producers, Sequence
from raftlog.pb.raftlog.v1 import command_pb2 as pb
from raftlog.raft.configuration import Configuration
from raftlog.raft.messages import Entry, EntryKind

# Of a frame of records (docs/FORMATS.md): append time, span, producer id, first sequence, producer epoch.
_RECORDS: Final = Struct("<32x q 4x I 8x Q Q I")


class BadViews(ValueError):
    """A snapshot's sections are not what they should be."""


class Views:
    """What entries up to `index` say. Entries at or below it are skipped, so none is applied twice."""

    index: int  # of the last entry that was applied
    log_start: int  # offset; records below it are gone for readers
    next_offset: int  # of the record that comes next
    time: int  # the latest append time

    def __init__(self, configuration: Configuration, *, index: int, next_offset: int = 0) -> None:
        self.index = index
        self.log_start = next_offset
        self.next_offset = next_offset
        self.time = 0
        self.members = Members(configuration, index=index)
        self.producers = Producers()
        self.cursors = Cursors()
        self.autopilot = Autopilot()

    def apply(self, entry: Entry) -> None:
        """Take in the entry that follows; DecodeError for a command that is none."""
        if entry.index <= self.index:
            return
        self.index = entry.index
        match entry.kind:
            case EntryKind.RECORDS:
                time, span, producer, first_sequence, epoch = _RECORDS.unpack_from(entry.data)
                self.time = max(self.time, time)
                if producer:
                    batch = Sequence(producer, epoch, first_sequence, span)
                    self.producers.stored(batch, first_offset=self.next_offset, time=self.time)
                self.next_offset += span
            case EntryKind.COMMAND:
                self._obey(pb.Command.FromString(entry.data))
            case EntryKind.CONFIGURATION:
                self.members.change(entry.index, entry.data)
            case _:
                pass  # a no-op

    def _obey(self, command: pb.Command) -> None:
        match command.WhichOneof("command"):
            case "set_member":
                self.members.set_member(self.index, command.set_member)
                self.autopilot.allow(command.set_member.id)  # it is asked for
            case "set_cursor":
                self.cursors.set(command.set_cursor)
            case "set_log_start":
                lowest = min(command.set_log_start.offset, self.next_offset)
                self.log_start = max(self.log_start, lowest)
            case "set_autopilot":
                self.autopilot.set_mode(command.set_autopilot)
            case "bar_server":
                self.autopilot.bar(command.bar_server)
            case _:
                raise DecodeError(f"entry {self.index} holds a command that this version does not know")

    def to_sections(self) -> dict[str, bytes]:
        log = pb.LogView(start=self.log_start, next_offset=self.next_offset, time_ns=self.time)
        return {
            "log": log.SerializeToString(deterministic=True),
            "members": self.members.to_bytes(),
            "producers": self.producers.to_bytes(),
            "cursors": self.cursors.to_bytes(),
            "autopilot": self.autopilot.to_bytes(),
        }

    @classmethod
    def from_sections(cls, index: int, sections: Mapping[str, bytes]) -> Views:
        """The views that `to_sections` gave these of, at entry `index`; BadViews for others."""
        try:
            log = pb.LogView.FromString(sections["log"])
            members = Members.from_bytes(sections["members"])
            views = cls(members.configuration, index=index, next_offset=log.next_offset)
            views.members = members
            views.producers = Producers.from_bytes(sections["producers"])
            views.cursors = Cursors.from_bytes(sections["cursors"])
            # A snapshot of a version that had none says nothing of it.
            views.autopilot = Autopilot.from_bytes(sections.get("autopilot", b""))
        except (KeyError, ValueError, DecodeError) as error:
            raise BadViews(
                f"the snapshot at entry {index} does not hold the views of this version: {error!r}"
            ) from error
        views.log_start, views.time = log.start, log.time_ns
        return views


def span_of(entry: Entry) -> int:
    """How many offsets the entry takes."""
    if entry.kind is not EntryKind.RECORDS:
        return 0
    span: int = _RECORDS.unpack_from(entry.data)[1]
    return span


def spans_of(entries: Many[Entry]) -> int:
    return sum(map(span_of, entries))
