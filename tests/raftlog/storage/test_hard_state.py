from __future__ import annotations

import errno
from itertools import product

import pytest

from logstore import DiskFull
from logstore.checksum import crc32c
from logstore.testing import CrashFileSystem
from raftlog.engine import NodeId
from raftlog.errors import IdentityError
from raftlog.raft.configuration import NODE_NAME_CHARACTERS_MAX
from raftlog.raft.storage import HardState
from raftlog.storage.hard_state import (
    COPY_BYTES,
    Condition,
    Copy,
    DamagedState,
    Decision,
    HardStateFiles,
    Relation,
    decide,
    pack,
    parse,
    relation,
)

N1, N2 = NodeId("n1"), NodeId("n2")
FOLDER = "/data"
FIRST, SECOND = f"{FOLDER}/state-a", f"{FOLDER}/state-b"
ALL_STATES = [
    HardState(),
    HardState(1, N1),
    HardState(2),
    HardState((1 << 63) - 1, NodeId("ü" * NODE_NAME_CHARACTERS_MAX)),
]


def made(*states: HardState) -> CrashFileSystem:
    """A disk on which these were written, one after the other."""
    fs = CrashFileSystem(directories=[FOLDER])
    HardStateFiles.create(fs, FOLDER)
    fs.sync_directory(FOLDER)
    files = HardStateFiles(fs, FOLDER)
    for state in states:
        files.write(state)
    return fs


def with_files(first: bytes | None, second: bytes | None) -> CrashFileSystem:
    found = {FIRST: first, SECOND: second}
    return CrashFileSystem(
        {path: data for path, data in found.items() if data is not None}, directories=[FOLDER]
    )


# ── what to do about two copies ─────────────────────────────────────────────────────────────────────

OF_TWO_WHOLE = {
    Relation.FIRST_AHEAD: Decision.USE_FIRST,
    Relation.SECOND_AHEAD: Decision.USE_SECOND,
    Relation.EQUAL: Decision.USE_FIRST,
    Relation.CONTRADICTORY: Decision.DAMAGED,
}
EXPECTED = {
    (Condition.MISSING, Condition.MISSING): Decision.DAMAGED,
    (Condition.MISSING, Condition.DAMAGED): Decision.DAMAGED,
    (Condition.MISSING, Condition.NEWER): Decision.REFUSE,
    (Condition.MISSING, Condition.WHOLE): Decision.USE_SECOND,
    (Condition.DAMAGED, Condition.MISSING): Decision.DAMAGED,
    (Condition.DAMAGED, Condition.DAMAGED): Decision.DAMAGED,
    (Condition.DAMAGED, Condition.NEWER): Decision.REFUSE,
    (Condition.DAMAGED, Condition.WHOLE): Decision.USE_SECOND,
    (Condition.NEWER, Condition.MISSING): Decision.REFUSE,
    (Condition.NEWER, Condition.DAMAGED): Decision.REFUSE,
    (Condition.NEWER, Condition.NEWER): Decision.REFUSE,
    (Condition.NEWER, Condition.WHOLE): Decision.REFUSE,
    (Condition.WHOLE, Condition.MISSING): Decision.USE_FIRST,
    (Condition.WHOLE, Condition.DAMAGED): Decision.USE_FIRST,
    (Condition.WHOLE, Condition.NEWER): Decision.REFUSE,
}


@pytest.mark.parametrize("conditions", list(product(Condition, repeat=2)))
def test_there_is_one_decision_for_any_two_copies(conditions: tuple[Condition, Condition]) -> None:
    seen = set()
    for first_sequence, second_sequence, state in product((1, 2), (1, 2), (HardState(3), HardState(4))):
        first = Copy(conditions[0], first_sequence, HardState(3))
        second = Copy(conditions[1], second_sequence, state)
        seen.add(relation(first, second))
        expected = EXPECTED.get(conditions) or OF_TWO_WHOLE[relation(first, second)]

        assert decide(first, second) is expected

    assert seen == set(Relation)


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ALL_STATES)
def test_state_comes_back_from_its_bytes(state: HardState) -> None:
    data = pack(7, state)

    assert len(data) == COPY_BYTES
    assert parse(data) == Copy(Condition.WHOLE, 7, state)


def test_every_changed_byte_is_found() -> None:
    data = pack(7, HardState(3, N1))

    for position in range(COPY_BYTES):
        for flip in (1, 0x80, 0xFF):
            changed = bytearray(data)
            changed[position] ^= flip
            assert parse(bytes(changed)).condition is Condition.DAMAGED


@pytest.mark.parametrize("size", [0, 1, 11, 36, COPY_BYTES - 1, COPY_BYTES + 1])
def test_other_lengths_are_damaged(size: int) -> None:
    assert parse(pack(7, HardState(3, N1)).ljust(size, b"\0")[:size]).condition is Condition.DAMAGED


# ── files ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ALL_STATES)
def test_state_is_there_after_reopening(state: HardState) -> None:
    assert HardStateFiles(made(state), FOLDER).state == state


def test_new_copies_promise_nothing() -> None:
    assert HardStateFiles(made(), FOLDER).state == HardState()


@pytest.mark.parametrize("path", [FIRST, SECOND])
def test_each_changed_byte_of_one_copy_is_mended_from_the_other(path: str) -> None:
    files = made(HardState(1, N1), HardState(2, N2)).files()

    for position in range(0, COPY_BYTES, 5):
        changed = bytearray(files[path])
        changed[position] ^= 0x10
        fs = CrashFileSystem({**files, path: bytes(changed)}, directories=[FOLDER])

        assert HardStateFiles(fs, FOLDER).state == HardState(2, N2)
        assert fs.files()[FIRST] == fs.files()[SECOND]


@pytest.mark.parametrize("path", [FIRST, SECOND])
@pytest.mark.parametrize("data", [None, b"", b"\0" * COPY_BYTES, b"x" * 2 * COPY_BYTES])
def test_lost_copy_is_made_anew(path: str, data: bytes | None) -> None:
    files = {**made(HardState(2, N2)).files()}
    del files[path]
    if data is not None:
        files[path] = data
    fs = CrashFileSystem(files, directories=[FOLDER])

    assert HardStateFiles(fs, FOLDER).state == HardState(2, N2)
    for moment in fs.crash_points(cut_bytes=50):
        for state in moment.states():
            assert HardStateFiles(state, FOLDER).state == HardState(2, N2)
    assert fs.files()[FIRST] == fs.files()[SECOND]


def test_higher_sequence_wins() -> None:
    newer, older = pack(8, HardState(5, N1)), pack(7, HardState(4, N2))

    assert HardStateFiles(with_files(newer, older), FOLDER).state == HardState(5, N1)
    assert HardStateFiles(with_files(older, newer), FOLDER).state == HardState(5, N1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (None, None),
        (b"", b""),
        (None, b"x" * COPY_BYTES),
        (pack(3, HardState(1, N1)), pack(3, HardState(1, N2))),
    ],
)
def test_state_that_neither_copy_tells_is_refused_and_left_alone(
    first: bytes | None, second: bytes | None
) -> None:
    fs = with_files(first, second)

    with pytest.raises(DamagedState, match="term and vote are lost"):
        HardStateFiles(fs, FOLDER)

    assert fs.operations == []


def test_state_of_a_newer_program_is_refused() -> None:
    data = bytearray(pack(3, HardState(1, N1)))
    data[12] = 2
    crc = crc32c(0, bytes(data[12:]))
    data[8:12] = crc.to_bytes(4, "little")

    with pytest.raises(IdentityError, match="newer"):
        HardStateFiles(with_files(bytes(data), pack(3, HardState(1, N1))), FOLDER)


def test_power_loss_at_any_moment_of_a_write_leaves_the_old_state_or_the_new() -> None:
    fs = CrashFileSystem(directories=[FOLDER])
    HardStateFiles.create(fs, FOLDER)
    fs.sync_directory(FOLDER)
    files, ends = HardStateFiles(fs, FOLDER), []
    states = [HardState(), HardState(1, N1), HardState(2), HardState(2, N2)]
    start = len(fs.operations)
    for state in states[1:]:
        files.write(state)
        ends.append(len(fs.operations))

    for point in fs.crash_points(start, cut_bytes=37):
        done = sum(end <= point.operation_count for end in ends)
        for disk in point.states():
            found = HardStateFiles(disk, FOLDER).state
            assert found in states[done : done + 2]
            # What was read once is read again, even if the power fails while it is mended.
            for moment in disk.crash_points(cut_bytes=200):
                for again in moment.states():
                    assert HardStateFiles(again, FOLDER).state == found


def test_full_disk_leaves_the_state_to_be_written_again() -> None:
    fs = made(HardState(1, N1))
    files = HardStateFiles(fs, FOLDER)
    fs.fail("write", nth=2, error=errno.ENOSPC)

    with pytest.raises(DiskFull):
        files.write(HardState(2, N2))
    assert files.state == HardState(1, N1)
    files.write(HardState(2, N2))

    assert files.state == HardState(2, N2)
    assert HardStateFiles(fs, FOLDER).state == HardState(2, N2)


@pytest.mark.parametrize("nth", [1, 2])
def test_after_a_failed_sync_nothing_is_written_any_more(nth: int) -> None:
    fs = made(HardState(1, N1))
    files = HardStateFiles(fs, FOLDER)
    fs.fail("sync", nth=nth)

    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            files.write(HardState(2, N2))

    assert files.state == HardState(1, N1)
    for state in fs.crash_states(cut_bytes=100):
        assert HardStateFiles(state, FOLDER).state in (HardState(1, N1), HardState(2, N2))
