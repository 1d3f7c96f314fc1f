"""A log that is read while somebody else writes it, who does not know of the readers.

The writer acts at chosen moments: `Meddling` calls it in the middle of what the reader does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from logstore import Config, CorruptLog, Log, OffsetOutOfRange
from logstore.directory import Directory
from logstore.filesystem import OsFileSystem
from logstore.fsck import examine
from logstore.segment import Segment

CONFIG = Config(segment_bytes_max=32 * 1024, sync="never")
PATIENCE_S = 20.0  # a wait that ends only by this has failed


@dataclass
class _MeddlingFile:
    file: Any
    after_read: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, count: int, position: int) -> bytes:
        data: bytes = self.file.read(count, position)
        self.after_read()
        return data


class Meddling(OsFileSystem):
    """A reader's file system: `act` is called after each read of a store, or listing, with its number from 1 on."""

    def __init__(self, *, after_read: Callable[[int], Any] | None = None, after_list: Any = None) -> None:
        self.reads = self.lists = 0
        self._act_after_read = after_read
        self._act_after_list = after_list

    def open(self, path: str, *, writable: bool) -> Any:
        file = super().open(path, writable=writable)
        return _MeddlingFile(file, self._after_read) if path.endswith(".store") else file

    def _after_read(self) -> None:
        self.reads += 1
        if self._act_after_read is not None:
            self._act_after_read(self.reads)

    def list(self, directory: str) -> list[str]:
        names = super().list(directory)
        self.lists += 1
        if self._act_after_list is not None:
            self._act_after_list(self.lists)
        return names


def fill(log: Log, segments: int, batch: int = 1) -> None:
    while len(log.segments()) < segments:
        log.append_batch([b"%06d" % (log.end + number) * 10 for number in range(batch)])


def recycle(log: Log, batch: int = 1) -> None:
    """Remove the older segments, and overwrite the store of one of them."""
    assert not list(Path(log.path).glob("*.spare"))
    log.truncate(log.segments()[-2].base_offset)
    assert list(Path(log.path).glob("*.spare"))
    fill(log, 8, batch)
    assert not list(Path(log.path).glob("*.spare"))


WAYS: dict[str, Callable[[Log, int], Any]] = {
    "read": lambda log, offset: log.read(offset).value,
    "read_many": lambda log, offset: log.read_many([offset])[0],
    "read_many, dense": lambda log, offset: log.read_many(range(offset, offset + 20))[0],
    "scan": lambda log, offset: next(log.scan(offset)).value,
    "reverse": lambda log, offset: next(log.scan(offset, offset + 1, reverse=True)).value,
    "frames": lambda log, offset: next(log.frames(offset)).data,
    "raw_entries": lambda log, offset: log.raw_entries(log.segments()[0].base_index, 1 << 62)[0].data,
}


@pytest.mark.parametrize("batch", [1, 200], ids=["small frames", "large frames"])
@pytest.mark.parametrize("way", WAYS)
def test_overwritten_store_of_a_removed_segment_is_never_read_as_what_it_was(
    tmp_path: Path, way: str, batch: int
) -> None:
    with Log(tmp_path, CONFIG) as log:
        fill(log, 5, batch)
        with Log(tmp_path, read_only=True) as look:
            value = WAYS[way](log, 3)
            assert [WAYS[way](look, 3), WAYS[way](look, 3)] == [value, value]  # it counts as verified now

            recycle(log, batch)

            if way == "raw_entries":  # of the first segment that is there
                with pytest.raises(OffsetOutOfRange):
                    look.read(3)
                assert WAYS[way](look, 3) == WAYS[way](log, 3) != value
                return
            with pytest.raises(OffsetOutOfRange) as error:
                WAYS[way](look, 3)
            assert (error.value.start, error.value.end) == (log.start, log.end)
            assert look.read(log.end - 1) == log.read(log.end - 1)


@pytest.mark.parametrize("way", ["read", "read_many", "scan"])
def test_store_that_is_overwritten_during_the_read_is_not_believed(tmp_path: Path, way: str) -> None:
    with Log(tmp_path, CONFIG) as log:
        fill(log, 5)
        due: list[int] = []
        fs = Meddling(after_read=lambda number: recycle(log) if number in due else None)
        with Log(tmp_path, read_only=True, filesystem=fs) as look:
            WAYS[way](look, 3)
            due.append(fs.reads + 1)

            with pytest.raises(OffsetOutOfRange):
                WAYS[way](look, 3)


@pytest.mark.parametrize("batch", [1, 200], ids=["small frames", "large frames"])
@pytest.mark.parametrize("segments", [1, 4], ids=["in the newest segment", "in an older segment"])
def test_log_that_was_cut_and_filled_up_reads_as_it_is_now(tmp_path: Path, segments: int, batch: int) -> None:
    with Log(tmp_path, CONFIG) as log:
        log.append_batch([b"stays"] * 3)
        log.append_batch([b"goes!!"] * batch)
        fill(log, segments)
        with Log(tmp_path, read_only=True) as look:
            assert look.read(3).value == b"goes!!"
            following, below = iter(look.follow(look.end)), iter(look.follow(0))
            assert next(below).value == b"stays"

            log.truncate_suffix(3)
            log.append_batch([b"other!"] * batch)
            fill(log, segments + 1)

            assert look.read(3) == log.read(3) and look.read(3).value == b"other!"
            assert look.read_many([2, 3]) == log.read_many([2, 3])
            assert list(look.scan()) == list(log.scan())
            with pytest.raises(OffsetOutOfRange):
                next(following)


def test_segment_that_is_cut_before_it_is_first_read_is_not_read_by_its_old_index(
    tmp_path: Path, no_background: None
) -> None:
    with Log(tmp_path, CONFIG) as log:
        fill(log, 4)  # none is sealed
        with Log(tmp_path, read_only=True) as look:
            log.truncate_suffix(3)
            log.append_batch([b"another size"] * 7)
            fill(log, 4, batch=3)

            offsets = range(log.segments()[1].base_offset)
            assert [look.read(offset) for offset in offsets] == [log.read(offset) for offset in offsets]


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.reset(),
        lambda log: log.truncate_suffix(1),
        lambda log: log.truncate_suffix(2),  # within a frame: the store is written anew
        lambda log: (log.append_batch([b"x" * 1000] * 40), log.append(b"new"), log.truncate(log.end)),
    ],
    ids=["reset", "cut", "cut within a frame", "removed"],
)
def test_waiting_beside_a_writer_ends_whatever_it_does_to_the_log(
    tmp_path: Path, change: Callable[[Log], object]
) -> None:
    with Log(tmp_path, CONFIG) as log:
        log.append(b"first")
        log.append_batch([b"second", b"third"])
        with Log(tmp_path, read_only=True) as look:
            assert look.end == 3

            change(log)
            if log.end == 2:
                log.append_batch([b"more"] * 3)

            assert look.wait(3, timeout_s=PATIENCE_S) == log.end
            assert list(look.scan()) == list(log.scan())
            log.append(b"last")
            assert look.wait(look.end, timeout_s=PATIENCE_S) == log.end
            assert look.read(look.end - 1).value == b"last"


def test_follower_goes_on_when_only_older_records_were_removed(tmp_path: Path) -> None:
    with Log(tmp_path, CONFIG) as log:
        fill(log, 5)
        with Log(tmp_path, read_only=True) as look:
            records, end = iter(look.follow()), log.end
            look.read(0)

            recycle(log)

            with pytest.raises(OffsetOutOfRange):
                look.read(0)
            assert [next(records).offset for _ in range(5)] == list(range(end, end + 5))


def test_removed_log_is_missed_by_who_waits_for_it(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", CONFIG)
    log.append(b"value")
    with Log(tmp_path / "log", read_only=True) as look:
        log.remove()

        with pytest.raises(FileNotFoundError):
            look.wait(1, timeout_s=PATIENCE_S)


@pytest.mark.parametrize("sync", ["always", "never"])
def test_marks_that_are_written_while_a_log_is_opened_make_it_no_damaged_one(
    tmp_path: Path, sync: Any
) -> None:
    with Log(tmp_path, Config(sync=sync)) as log:
        log.append(b"before")

        def append(_: int) -> None:
            for _ in range(3):  # the second says that the first is durable, and so on
                log.append(b"x" * 100)
                log.sync()

        with Log(tmp_path, read_only=True, filesystem=Meddling(after_read=append)) as look:
            assert look.end > 1
            assert list(look.scan()) == list(log.scan(0, look.end))
        assert not examine(Directory(Meddling(after_read=append), str(tmp_path)))[1]


def test_segment_that_is_begun_while_the_log_is_opened_makes_it_no_damaged_one(tmp_path: Path) -> None:
    with Log(tmp_path, CONFIG) as log:
        fill(log, 2)
        begun = log.segments()[-1]
        header = (tmp_path / f"{begun.base_index:020d}.store").read_bytes()
        log.append(b"value")
        log.sync()
        log.append(b"marks it")
        store = tmp_path / f"{begun.base_index:020d}.store"
        whole = store.read_bytes()
        store.write_bytes(bytes(len(header)) + whole[len(header) :])

        def write_header(_: int) -> None:
            with store.open("r+b") as file:
                file.write(whole)

        with Log(tmp_path, read_only=True, filesystem=Meddling(after_read=write_header)) as look:
            assert look.end == log.end


def test_damage_beside_a_writer_is_reported(tmp_path: Path) -> None:
    with Log(tmp_path, Config()) as log:
        for _ in range(3):
            log.append(b"x" * 100)
        store = next(tmp_path.glob("*.store"))
        data = store.read_bytes()
        store.write_bytes(data[:140] + bytes(8) + data[148:])  # in the header of the first frame

        with pytest.raises(CorruptLog):
            Log(tmp_path, read_only=True)


def test_segments_that_are_removed_while_the_log_is_opened_are_not_missed(tmp_path: Path) -> None:
    with Log(tmp_path, CONFIG) as log:
        fill(log, 5)

        def remove(number: int) -> None:
            if number < 3:
                log.truncate(log.segments()[1].base_offset)

        with Log(tmp_path, read_only=True, filesystem=Meddling(after_list=remove)) as look:
            assert (look.start, look.end) == (log.start, log.end)


def test_threads_that_wait_on_one_log_take_in_each_record_once(tmp_path: Path) -> None:
    with Log(tmp_path, Config(sync="never")) as log, Log(tmp_path, read_only=True) as look:
        errors: list[BaseException] = []
        last = 20_000

        def wait() -> None:
            try:
                while look.end < last:
                    look.wait(look.end, 0)
            except BaseException as error:  # noqa: BLE001  # the test raises it in its own thread
                errors.append(error)

        threads = [threading.Thread(target=wait, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(last):
            log.append(b"%d" % number)
        for thread in threads:
            thread.join(PATIENCE_S)

        assert errors == []
        assert look.end == look.last_index == last
        assert look.read_many(range(last)) == [b"%d" % number for number in range(last)]


def test_index_that_another_thread_forgets_at_once_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Log(tmp_path, CONFIG) as log:
        fill(log, 3)
        values = [record.value for record in log.scan()]

    def forget(_: Directory, segment: Segment) -> None:
        segment.forget_index()

    monkeypatch.setattr(Directory, "note_loaded", forget)

    with Log(tmp_path, read_only=True) as look:
        assert [look.read(offset).value for offset in range(5)] == values[:5]
