"""Damaged frames are found, and frames of a replica put in their place."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from logstore import (
    Config,
    CorruptBatch,
    CorruptLog,
    IndexOutOfRange,
    Kind,
    Log,
    LogReadOnly,
    RawEntry,
    Record,
)
from logstore.filesystem import File
from logstore.fsck import examine
from logstore.testing import CrashFileSystem
from tests.logstore.entries import all_entries, records_entry

LEADER, FOLLOWER = "n1", "n2"
CONFIG = Config(segment_bytes_max=1500, spare_segments_max=0)

pytestmark = pytest.mark.usefixtures("no_background")


def entries() -> list[RawEntry]:
    kinds = [Kind.COMMAND, Kind.NOOP, Kind.CONFIGURATION]
    return [
        RawEntry(index, 1 + index // 9, kinds[index % 3], b"%d" % index)
        if index % 5 == 0
        else records_entry(index, 1 + index // 9, [b"v" * (index * 7 % 60), b"w"], time=index * 10)
        for index in range(1, 41)
    ]


class Replicas:
    """Two logs with the same entries; the second has marks in other places, and other segments."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.config = config
        self.fs = CrashFileSystem()
        self.leader = Log(LEADER, Config(), filesystem=CrashFileSystem())
        self.leader.append_raw(entries())
        with Log(FOLLOWER, config, filesystem=self.fs) as log:
            for start in range(0, 40, 3):
                log.append_raw(entries()[start : start + 3])
            log._writer.seal_full_segments()
        self.frames = self.read_frames(self.fs)

    def read_frames(self, fs: CrashFileSystem) -> dict[int, tuple[str, int, bytes]]:
        """(path, position, bytes) of each frame, by entry index."""
        with Log(FOLLOWER, self.config, filesystem=fs) as log:
            return {
                item.entry_index: ("/" + segment.store_path, item.position, item.data())
                for segment in log._view.layout.segments
                for item in segment.walk(segment.base_index)
            }

    def open_with(self, change: Callable[[dict[str, bytearray]], None]) -> Log:
        """The follower's log in whose files something is changed once it is open, though nothing is in memory."""
        files = {path: bytearray(data) for path, data in self.fs.files().items()}
        change(files)
        fs = CrashFileSystem({path: bytes(data) for path, data in self.fs.files().items()})
        log = Log(FOLLOWER, self.config, filesystem=fs)
        for path, data in files.items():
            if path.endswith(".store") and data != self.fs.files()[path]:
                file = fs.open(path, writable=True)
                file.write(bytes(data), 0)
                file.sync()
        return log

    def harmed(self, files: dict[str, bytearray]) -> list[int]:
        return [
            index
            for index, (path, position, data) in self.frames.items()
            if files[path][position : position + len(data)] != data
        ]

    def require_mended(self, log: Log) -> None:
        assert log.damage(1, 41) == []
        assert all_entries(log) == all_entries(self.leader)
        log.close()
        fs = log._directory.fs
        assert isinstance(fs, CrashFileSystem)
        assert {index: data for index, (_, _, data) in self.read_frames(fs).items()} == {
            index: data for index, (_, _, data) in self.frames.items()
        }


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    made = Replicas()
    yield made
    made.leader.close()


def ranges_of(indexes: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for index in indexes:
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges


def test_whole_log_has_no_damage_and_nothing_is_replaced(replicas: Replicas) -> None:
    with replicas.open_with(lambda files: None) as log:
        assert log.damage(1, 41) == []
        assert log.replace_damaged(entries()) == 0
        assert log.replace_damaged([]) == 0


@pytest.mark.parametrize("index", [1, 2, 5, 13, 20, 39, 40])
def test_every_byte_of_a_frame_can_be_damaged_and_replaced(replicas: Replicas, index: int) -> None:
    path, position, data = replicas.frames[index]
    for at in range(position, position + len(data), 3):

        def change(files: dict[str, bytearray], at: int = at) -> None:
            files[path][at] ^= 0x41

        with replicas.open_with(change) as log:
            assert log.damage(1, 41) == [(index, index + 1)], at - position
            assert log.damage(index, 41) == [(index, index + 1)]
            assert log.replace_damaged(replicas.leader.raw_entries(index, index + 1)) == 1
            replicas.require_mended(log)


@pytest.mark.parametrize("seed", range(60))
def test_any_stretch_of_damage_is_told_exactly_and_mended_from_a_replica(
    replicas: Replicas, seed: int
) -> None:
    rng = random.Random(seed)
    harmed: list[int] = []

    def change(files: dict[str, bytearray]) -> None:
        for _ in range(rng.randint(1, 3)):
            path = rng.choice([path for path in files if path.endswith(".store")])
            first = min(position for where, position, _ in replicas.frames.values() if where == path)
            end = max(
                position + len(data) for where, position, data in replicas.frames.values() if where == path
            )
            start = rng.randrange(first, end)
            size = rng.choice([1, 8, 60, 300, 2000])
            garbage = rng.choice([bytes(size), rng.randbytes(size)])
            stop = min(start + size, end)
            files[path][start:stop] = garbage[: stop - start]
        harmed.extend(replicas.harmed(files))

    log = replicas.open_with(change)

    assert log.damage(1, 41) == ranges_of(harmed), f"seed {seed}"
    budget = rng.choice([1, 500, 1 << 20])  # of what a peer sends at once
    replaced = 0
    for first, end in log.damage(1, 41):
        while first < end:
            sent = replicas.leader.raw_entries(first, end, bytes_max=budget)
            replaced += log.replace_damaged(sent)
            first += len(sent)
    assert replaced == len(harmed)
    replicas.require_mended(log)


def test_entries_that_are_not_those_of_the_log_are_not_taken(replicas: Replicas) -> None:
    path, position, _ = replicas.frames[7]

    def change(files: dict[str, bytearray]) -> None:
        files[path][position : position + 80] = bytes(80)

    right = entries()[6]
    for wrong in (
        right._replace(term=right.term + 1),
        records_entry(7, right.term, [b"v" * 49, b"x"], time=70),  # only the chain tells
        records_entry(7, right.term, [b"v" * 49, b"w"], time=71),
        records_entry(7, right.term, [b"v" * 90, b"w"], time=70),
        RawEntry(7, right.term, Kind.COMMAND, b""),
    ):
        with replicas.open_with(change) as log:
            assert log.replace_damaged([wrong]) == 0
            assert log.damage(1, 41) == [(7, 8)]
            assert log.replace_damaged([right]) == 1


def test_entry_in_front_of_more_damage_is_taken_only_where_the_index_agrees(replicas: Replicas) -> None:
    path, position, _ = replicas.frames[7]
    end = replicas.frames[9][1] + 60

    def change(files: dict[str, bytearray]) -> None:
        files[path][position:end] = bytes(end - position)

    right = entries()[6]
    with replicas.open_with(change) as log:
        for wrong in (
            right._replace(term=right.term + 1),
            records_entry(7, right.term, [b"v" * 49, b"w"], time=71),
            records_entry(7, right.term, [b"v" * 49], time=70),
            records_entry(7, right.term, [b"v" * 40, b"w"], time=70),
            records_entry(7, right.term, [b"v" * 90, b"w"], time=70),
        ):
            assert log.replace_damaged([wrong]) == 0
        assert log.replace_damaged([right]) == 1


def test_damaged_entries_are_refused_and_nothing_changes(replicas: Replicas) -> None:
    path, position, data = replicas.frames[7]

    def change(files: dict[str, bytearray]) -> None:
        files[path][position + len(data) - 10] ^= 1

    with replicas.open_with(change) as log:
        with pytest.raises(CorruptBatch):
            log.replace_damaged([RawEntry(7, 1, Kind.RECORDS, data[:-1] + b"!")])
        assert log.damage(1, 41) == [(7, 8)]


def test_rest_of_a_stretch_waits_for_its_first_entry(replicas: Replicas) -> None:
    path, position, _ = replicas.frames[7]
    end = replicas.frames[9][1] + 60

    def change(files: dict[str, bytearray]) -> None:
        files[path][position:end] = bytes(end - position)

    with replicas.open_with(change) as log:
        assert log.damage(1, 41) == [(7, 10)]
        assert log.replace_damaged(entries()[7:9]) == 0
        assert log.replace_damaged(entries()[6:8]) == 2
        assert log.replace_damaged(entries()[8:9]) == 1
        replicas.require_mended(log)


def test_damaged_marks_behind_a_frame_are_made_again_with_it(replicas: Replicas) -> None:
    path, position, data = replicas.frames[6]
    end = position + len(data)
    assert replicas.fs.files()[path][end : end + 4] == b"LmrK"

    def change(files: dict[str, bytearray]) -> None:
        files[path][end - 20 : end + 24] = bytes(44)

    with replicas.open_with(change) as log:
        assert log.damage(1, 41) == [(6, 7)]
        assert log.replace_damaged(entries()[5:6]) == 1
        assert examine(log._directory)[1] == []
        replicas.require_mended(log)


def test_damaged_entry_reads_again_once_it_is_replaced(replicas: Replicas) -> None:
    path, position, data = replicas.frames[13]

    def change(files: dict[str, bytearray]) -> None:
        files[path][position + len(data) - 12] ^= 1

    with replicas.open_with(change) as log:
        offset = log.offset_of(13)
        with pytest.raises(CorruptLog):
            log.read(offset)
        log.replace_damaged(entries())
        assert log.read(offset).value == b"v" * (13 * 7 % 60)


def test_entries_outside_of_the_log_are_out_of_range(replicas: Replicas) -> None:
    with replicas.open_with(lambda files: None) as log:
        with pytest.raises(IndexOutOfRange):
            log.damage(0, 41)
        with pytest.raises(IndexOutOfRange):
            log.damage(41, 42)
        with pytest.raises(IndexOutOfRange):
            log.replace_damaged([RawEntry(41, 9, Kind.NOOP, b"")])


class BadSector:
    """A file that cannot be read at some bytes until they are written again."""

    def __init__(self, file: File, start: int, stop: int) -> None:
        self._file = file
        self._start, self._stop = start, stop
        self._lost = file.read(stop - start, start)
        self.size = file.size
        self.path = file.path

    def read(self, count: int, position: int, /) -> bytes:
        is_there = self._file.read(self._stop - self._start, self._start) != self._lost
        if not is_there and position < self._stop and self._start < position + count:
            raise OSError(errno.EIO, "Input/output error")
        return self._file.read(count, position)


def test_sector_that_the_disk_refuses_to_read_is_damage_and_mended(replicas: Replicas) -> None:
    path, position, _ = replicas.frames[23]

    def change(files: dict[str, bytearray]) -> None:
        files[path][position + 70 : position + 300] = bytes(230)

    log = replicas.open_with(change)
    segment = log._view.layout.at_index(23)
    segment.file = cast(File, BadSector(segment.file, position + 70, position + 300))

    assert [entry.index for entry in log.raw_entries(20, 25, bytes_max=1)] == [20]
    with pytest.raises(CorruptLog, match="the disk refused"):
        log.raw_entries(23, 25)
    assert log.damage(1, 41) == [(23, 25)]
    assert log.replace_damaged(entries()) == 2
    replicas.require_mended(log)


def test_segment_whose_index_and_frames_are_damaged_is_reported_but_not_mended(replicas: Replicas) -> None:
    base = replicas.frames[20][0]
    inside = [index for index, (path, _, _) in replicas.frames.items() if path == base]
    fs = CrashFileSystem(replicas.fs.files())
    for path in (base, base.replace("store", "index")):
        file = fs.open(path, writable=True)
        at = 70 if path.endswith("index") else replicas.frames[inside[1]][1]
        file.write(b"garbage!", at)
    with Log(FOLLOWER, CONFIG, filesystem=fs) as log:
        assert log.damage(1, 41) == [(inside[0], inside[-1] + 1)]
        assert log.replace_damaged(entries()) == 0


def test_read_only_log_finds_damage_but_mends_none(tmp_path: Path) -> None:
    with Log(tmp_path, CONFIG) as log:
        log.append_raw(entries())
    with Log(tmp_path, read_only=True) as look:
        assert look.damage(1, 41) == []
        with pytest.raises(LogReadOnly):
            look.replace_damaged(entries())


def test_compacted_entries_are_mended_from_a_replica_that_compacted_too(tmp_path: Path) -> None:
    with Log(tmp_path, Config(segment_bytes_max=1500)) as log:
        for number in range(30):
            log.append_batch([Record(b"%d" % number * 20, key=b"k%d" % (number % 3)), b"no key"])
        log.compact()
        before = all_entries(log)
        place = next(number for number, one in enumerate(before) if one.data.startswith(b"LcmP"))
        store = min(tmp_path.glob("*.store"))
        whole = store.read_bytes()
        at = whole.index(before[place].data)
        with store.open("r+b") as file:
            file.seek(at + 20)
            file.write(bytes(100))

        assert log.damage(1, 31) == [(place + 1, place + 2)]
        assert log.replace_damaged([before[place]]) == 1
        assert all_entries(log) == before and store.read_bytes() == whole


def test_power_loss_while_frames_are_replaced_leaves_each_damaged_or_whole(replicas: Replicas) -> None:
    path, position, _ = replicas.frames[7]
    end = replicas.frames[9][1] + 60

    def change(files: dict[str, bytearray]) -> None:
        files[path][position:end] = bytes(end - position)

    with replicas.open_with(change) as log:
        fs = log._directory.fs
        assert isinstance(fs, CrashFileSystem)
        before = len(fs.operations)
        assert log.replace_damaged(entries()) == 3
        after = len(fs.operations)
        rng = random.Random(3)
        for point in fs.crash_points(before, after):
            for disk in (point.random_state(rng) for _ in range(10)):
                with Log(FOLLOWER, CONFIG, filesystem=disk) as again:
                    left = again.damage(1, 41)
                    assert point.operation_count < after or left == []
                    again.replace_damaged(entries())
                    replicas.require_mended(again)
