"""How far each group of consumers has come."""

from __future__ import annotations

from typing import Final, NamedTuple

from raftlog.pb.raftlog.v1 import command_pb2 as pb

GROUPS_MAX: Final = 10_000  # the leader refuses a cursor for one more
NAME_CHARACTERS_MAX: Final = 255


class Cursor(NamedTuple):
    group: str
    offset: int  # of the record to consume next
    time: int  # when it was set, UTC nanoseconds


class Cursors:
    def __init__(self) -> None:
        self._cursors: dict[str, Cursor] = {}

    def __len__(self) -> int:
        return len(self._cursors)

    def __contains__(self, group: str) -> bool:
        return group in self._cursors

    def all(self) -> list[Cursor]:
        """Sorted by group."""
        return [self._cursors[group] for group in sorted(self._cursors)]

    def set(self, command: pb.SetCursor) -> None:
        self._cursors[command.group] = Cursor(command.group, command.offset, command.time_ns)

    def to_bytes(self) -> bytes:
        view = pb.CursorsView()
        for cursor in self.all():
            view.cursors.add(group=cursor.group, offset=cursor.offset, time_ns=cursor.time)
        return view.SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Cursors:
        """What `to_bytes` gave; DecodeError for other bytes."""
        cursors = cls()
        for each in pb.CursorsView.FromString(data).cursors:
            cursors.set(each)
        return cursors
