"""Term and vote on disk, in two identical copies: whoever forgets a vote may vote twice.

A copy is overwritten in its place, and synced, before the other is begun. So whenever the power fails, at most one is
torn, and a promise that was made (after both were synced) is in each copy that is whole. What is wrong with one copy is
mended from the other at the next opening. docs/FORMATS.md has the bytes.
"""

from __future__ import annotations

import logging
from enum import Enum
from struct import Struct
from typing import Final, NamedTuple

from logstore.checksum import crc32c
from logstore.filesystem import File, FileSystem
from raftlog.engine import NodeId
from raftlog.errors import IdentityError, RaftlogError
from raftlog.raft.configuration import NODE_NAME_CHARACTERS_MAX
from raftlog.raft.storage import HardState
from raftlog.storage.files import told_when_full

log = logging.getLogger(__name__)

NAMES: Final = ("state-a", "state-b")
MAGIC: Final = b"RAFTSTA\n"
FORMAT_VERSION: Final = 1
COPY_BYTES: Final = 512  # a sector, which disks write as one
_FIELDS: Final = Struct("<8sIIQQI")  # magic, CRC, version, sequence, term, bytes of the vote
_CRC_START: Final = 12
_TERM_LIMIT: Final = 1 << 63
assert _FIELDS.size + 4 * NODE_NAME_CHARACTERS_MAX <= COPY_BYTES


class DamagedState(RaftlogError):
    """What this node has promised is not known any more: it must not vote. Set its data aside and rejoin as a learner."""


class Condition(Enum):
    """Of one copy."""

    MISSING = "is missing"
    DAMAGED = "is damaged"
    NEWER = "is of a newer format"
    WHOLE = "is whole"


class Relation(Enum):
    """Of two whole copies."""

    FIRST_AHEAD = "the first is ahead"
    SECOND_AHEAD = "the second is ahead"
    EQUAL = "they are equal"
    CONTRADICTORY = "they contradict each other"  # the same sequence number, other contents


class Decision(Enum):
    USE_FIRST = "use the first"
    USE_SECOND = "use the second"
    DAMAGED = "the state is lost"
    REFUSE = "use a newer program"


class Copy(NamedTuple):
    """What was found of one copy; sequence and state count if it is whole."""

    condition: Condition
    sequence: int = 0
    state: HardState = HardState()


_TWO_WHOLE: Final = {
    Relation.FIRST_AHEAD: Decision.USE_FIRST,
    Relation.SECOND_AHEAD: Decision.USE_SECOND,
    Relation.EQUAL: Decision.USE_FIRST,
    Relation.CONTRADICTORY: Decision.DAMAGED,
}


def relation(first: Copy, second: Copy) -> Relation:
    if first.sequence != second.sequence:
        return Relation.FIRST_AHEAD if first.sequence > second.sequence else Relation.SECOND_AHEAD
    return Relation.EQUAL if first.state == second.state else Relation.CONTRADICTORY


def decide(first: Copy, second: Copy) -> Decision:
    """What to do about two copies."""
    match first.condition, second.condition:
        case (Condition.NEWER, _) | (_, Condition.NEWER):
            return Decision.REFUSE
        case Condition.WHOLE, Condition.WHOLE:
            return _TWO_WHOLE[relation(first, second)]
        case Condition.WHOLE, _:
            return Decision.USE_FIRST
        case _, Condition.WHOLE:
            return Decision.USE_SECOND
        case _:
            return Decision.DAMAGED


def pack(sequence: int, state: HardState) -> bytes:
    vote = (state.vote or "").encode()
    covered = _FIELDS.pack(MAGIC, 0, FORMAT_VERSION, sequence, state.term, len(vote))[_CRC_START:] + vote
    covered = covered.ljust(COPY_BYTES - _CRC_START, b"\0")
    return MAGIC + crc32c(0, covered).to_bytes(4, "little") + covered


def parse(data: bytes) -> Copy:
    """What these bytes are; never an error."""
    if len(data) != COPY_BYTES:
        return Copy(Condition.DAMAGED)
    magic, crc, version, sequence, term, vote_bytes = _FIELDS.unpack_from(data)
    if magic != MAGIC or crc != crc32c(0, data[_CRC_START:]):
        return Copy(Condition.DAMAGED)
    if version != FORMAT_VERSION:
        return Copy(Condition.NEWER)
    if term >= _TERM_LIMIT or vote_bytes > COPY_BYTES - _FIELDS.size:
        return Copy(Condition.DAMAGED)
    try:
        vote = data[_FIELDS.size : _FIELDS.size + vote_bytes].decode()
    except UnicodeDecodeError:
        return Copy(Condition.DAMAGED)
    return Copy(Condition.WHOLE, sequence, HardState(term, NodeId(vote) if vote else None))


class HardStateFiles:
    """Both copies, open for writing. Used by one thread at a time."""

    state: HardState  # what is durable in both copies; moved by `write` alone

    def __init__(self, fs: FileSystem, folder: str) -> None:
        """Read the copies, and mend the one that is not as it should be.

        Raises DamagedState if neither tells the state, IdentityError if a newer program wrote them.
        """
        self._paths = [f"{folder}/{name}" for name in NAMES]
        copies = [_read(fs, path) for path in self._paths]
        found = ", ".join(f"{name} {copy.condition.value}" for name, copy in zip(NAMES, copies, strict=True))
        decision = decide(*copies)
        if decision is Decision.REFUSE:
            raise IdentityError(
                f"{folder}: {found}; this program writes format {FORMAT_VERSION}: use a newer one"
            )
        if decision is Decision.DAMAGED:
            raise DamagedState(f"{folder}: term and vote are lost: {found}")
        chosen = 0 if decision is Decision.USE_FIRST else 1
        if any(copy.condition is not Condition.WHOLE for copy in copies):
            log.warning("hard state mended from its other copy folder=%s found=%s", folder, found)
        self._sequence, self.state = copies[chosen].sequence, copies[chosen].state
        self._failure: OSError | None = None
        self._files = [_open_or_create(fs, path) for path in self._paths]
        # The chosen one last: until the other is durable it may be the only one. It is written again, because a process
        # that was killed may not have synced it.
        for number in (1 - chosen, chosen):
            self._write_copy(number)
        fs.sync_directory(folder)

    @staticmethod
    def create(fs: FileSystem, folder: str) -> None:
        """Make both copies, of a node that has promised nothing. Their names are durable once the folder is synced."""
        for name in NAMES:
            file = fs.create(f"{folder}/{name}")
            try:
                file.write(pack(0, HardState()), 0)
                file.sync()
            finally:
                file.close()

    def write(self, state: HardState) -> None:
        """Durable in both copies on return.

        DiskFull: what is read after a restart is the old or the new; write it again. After another OSError nothing is
        known, and every later write raises it.
        """
        if self._failure is not None:
            raise self._failure
        self._sequence += 1
        self.state, before = state, self.state
        try:
            for number in (0, 1):
                self._write_copy(number)
        except BaseException:
            self.state = before
            raise

    def _write_copy(self, number: int) -> None:
        with told_when_full(self._paths[number]):
            self._files[number].write(pack(self._sequence, self.state), 0)
        try:
            self._files[number].sync()
        except OSError as error:
            self._failure = error
            raise

    def close(self) -> None:
        for file in self._files:
            file.close()


def _read(fs: FileSystem, path: str) -> Copy:
    if not fs.exists(path):
        return Copy(Condition.MISSING)
    try:
        file = fs.open(path, writable=False)
        try:
            return parse(file.read(COPY_BYTES + 1, 0))
        finally:
            file.close()
    except OSError as error:
        log.warning("a copy of the hard state cannot be read path=%s error=%s", path, error)
        return Copy(Condition.DAMAGED)


def _open_or_create(fs: FileSystem, path: str) -> File:
    if not fs.exists(path):
        return fs.create(path)
    file = fs.open(path, writable=True)
    if file.size() > COPY_BYTES:
        file.truncate(COPY_BYTES)
    return file
