"""What `verify` finds and what `repair` gives up: what is damaged, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from logstore import Config, CorruptLog, Log, LogError, Record, RecordCompacted
from logstore import repair as repairing
from logstore.directory import Directory
from logstore.filesystem import OsFileSystem
from logstore.fsck import Finding, Harm, examine
from tests.logstore.shell import logstore

CONFIG = Config(segment_bytes_max=1000)


@dataclass
class Place:
    """Where a frame lies."""

    path: Path
    position: int
    length: int
    entry: int
    first: int
    end: int


class Made:
    """A closed log of batches of three records in several segments, and where each frame is."""

    def __init__(self, path: Path, batches: int = 18) -> None:
        self.path = path
        with Log(path, CONFIG, clock=count(1000).__next__) as log:
            for number in range(batches):
                log.append_batch([b"%d of batch %d" % (n, number) for n in range(3)])
            self.records = list(log.scan())
            self.segments = log.segments()
        self.stores = sorted(path.glob("*.store"))
        self.frames = list(self._frames())
        assert len(self.segments) > 3 and self.findings() == []

    def _frames(self) -> Iterator[Place]:
        store = self.path
        for line in logstore("dump", self.path, "--json").out.splitlines():
            one = json.loads(line)
            if "segment" in one:
                store = Path(one["segment"])
            else:
                yield Place(
                    store, one["position"], one["bytes"], one["entry"], one["first_offset"], one["end_offset"]
                )

    def findings(self) -> list[Finding]:
        return examine(Directory(OsFileSystem(), str(self.path)))[1]

    def damage(self, path: Path, position: int, data: bytes = b"\xaa\x55") -> None:
        with path.open("r+b") as file:
            file.seek(position)
            file.write(data)

    def image(self) -> dict[str, bytes]:
        """Every file but the lock."""
        return {
            str(path): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file() and path.name != "LOCK"
        }

    def without(self, lost: range) -> list[Record]:
        return [record for record in self.records if record.offset not in lost]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "log")


def middle_of_a_body(made: Made) -> tuple[range, int]:
    frame = made.frames[4]
    made.damage(frame.path, frame.position + 100)
    return range(frame.first, frame.end), frame.position


def middle_of_a_header(made: Made) -> tuple[range, int]:
    frame = made.frames[4]
    made.damage(frame.path, frame.position + 20)
    return range(frame.first, frame.end), frame.position


def length_of_a_frame(made: Made) -> tuple[range, int]:
    frame = made.frames[4]
    made.damage(frame.path, frame.position + 48, b"\xff\xff\xff\xff")
    return range(frame.first, frame.end), frame.position


def two_frames_in_a_row(made: Made) -> tuple[range, int]:
    first, second = made.frames[1:3]
    assert first.path == second.path
    made.damage(first.path, first.position, bytes(second.position + 60 - first.position))
    return range(first.first, second.end), first.position


def last_frame_of_a_sealed_segment(made: Made) -> tuple[range, int]:
    frame = max((one for one in made.frames if one.path == made.stores[1]), key=lambda one: one.position)
    made.damage(frame.path, frame.position + 8)
    return range(frame.first, frame.end), frame.position


def end_of_a_sealed_store(made: Made) -> tuple[range, int]:
    frame = max((one for one in made.frames if one.path == made.stores[1]), key=lambda one: one.position)
    with frame.path.open("r+b") as file:
        file.truncate(frame.position + 50)
    return range(frame.first, frame.end), frame.position


DAMAGES = [
    middle_of_a_body, middle_of_a_header, length_of_a_frame, two_frames_in_a_row, last_frame_of_a_sealed_segment,
    end_of_a_sealed_store,
]  # fmt: skip


@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__)
def test_damage_is_reported_with_its_place_and_repaired_into_a_hole(
    made: Made, harm: Callable[[Made], tuple[range, int]]
) -> None:
    lost, position = harm(made)
    entries = range(lost.start // 3 + 1, lost.stop // 3 + 1)
    before = made.image()

    # Reported: once, with file, position and what is lost.
    verified = logstore("verify", made.path)
    (finding,) = [json.loads(line) for line in logstore("verify", made.path, "--json").out.splitlines()]
    assert verified.code == 1 and verified.out.endswith("\n1 damaged places\n")
    assert f"offsets {lost.start} to before {lost.stop}, entries {entries.start} to before" in verified.out
    assert {key: finding[key] for key in ("harm", "position", "first_offset", "end_offset")} == {
        "harm": "lost", "position": position, "first_offset": lost.start, "end_offset": lost.stop
    }  # fmt: skip
    assert (finding["first_entry"], finding["end_entry"]) == (entries.start, entries.stop)
    assert verified.out.startswith(f"{finding['path']}: byte {position}: lost: ")

    # Without --yes nothing changes.
    would = logstore("repair", made.path)
    assert would == (
        1,
        f"would give up: {verified.out.splitlines()[0]}\nnothing was changed; run again with --yes to do it\n",
        "",
    )
    assert made.image() == before

    # With it, exactly that is lost.
    done = logstore("repair", made.path, "--yes")
    assert done == (0, f"gave up: {verified.out.splitlines()[0]}\n", "")
    assert logstore("verify", made.path) == (0, "the log is whole\n", "")
    assert logstore("repair", made.path) == (0, "nothing to repair\n", "")
    with Log(made.path, CONFIG) as log:
        assert log.repairs == []
        assert list(log.scan()) == made.without(lost)
        assert list(log.scan(reverse=True)) == made.without(lost)[::-1]
        assert [log.read(one.offset) for one in made.without(lost)] == made.without(lost)
        for offset in lost:
            with pytest.raises(RecordCompacted, match="it was damaged, and repair gave it up"):
                log.read(offset)
            with pytest.raises(RecordCompacted, match="it was damaged, and repair gave it up"):
                log.read_many([offset])
        assert (log.start, log.end) == (0, 54)
        assert log.append(b"and on") == 54


def test_reading_over_damage_raises_until_it_is_repaired(made: Made) -> None:
    lost, position = middle_of_a_body(made)

    with Log(made.path, CONFIG) as log:
        with pytest.raises(CorruptLog) as error:
            list(log.scan())
        assert (error.value.position, error.value.entry, error.value.offset) == (position, 5, lost.start)
        assert list(log.scan(lost.stop)) == made.records[lost.stop :]
        assert [log.read(offset) for offset in range(lost.start)] == made.records[: lost.start]


def test_several_damages_are_each_reported_and_given_up(made: Made) -> None:
    frames = [made.frames[1], made.frames[7], made.frames[13]]
    for frame in frames:
        made.damage(frame.path, frame.position + 100)

    assert [(one.path, one.position, one.first_offset, one.end_offset) for one in made.findings()] == [
        (str(frame.path), frame.position, frame.first, frame.end) for frame in frames
    ]
    assert logstore("repair", made.path, "--yes").code == 0
    with Log(made.path, read_only=True) as log:
        lost = {offset for frame in frames for offset in range(frame.first, frame.end)}
        assert list(log.scan()) == [one for one in made.records if one.offset not in lost]


def test_frames_of_an_older_life_of_the_file_are_not_taken_for_records_behind_the_damage(
    tmp_path: Path,
) -> None:
    with Log(tmp_path, CONFIG) as log:
        while len(log.segments()) < 4:
            log.append(b"older" * 20)
        log.truncate(log.segments()[2].base_offset)
        while len(log.segments()) < 4:
            log.append(b"newer" * 20)
        records = list(log.scan())
        active = log.segments()[-1]
    store = tmp_path / f"{active.base_index:020d}.store"
    data = bytearray(store.read_bytes())
    at = data.index(b"newer")
    assert data.count(b"older" * 20) > 1 and active.end_offset == active.base_offset + 1
    data[at - 80] ^= 1  # in the stamp of the only frame that the file holds now
    store.write_bytes(data)

    (finding,) = examine(Directory(OsFileSystem(), str(tmp_path)))[1]

    assert (finding.harm, finding.first_offset, finding.end_offset) == (Harm.LOST, active.base_offset, None)
    assert logstore("repair", tmp_path, "--yes").code == 0
    with Log(tmp_path, CONFIG) as log:
        assert list(log.scan()) == records[:-1]


def test_damaged_header_of_a_segment_costs_no_record(made: Made) -> None:
    path = made.stores[1]
    made.damage(path, 30)

    (finding,) = made.findings()

    assert finding.harm is Harm.LOST and (finding.path, finding.position) == (str(path), 0)
    assert finding.reason == "the segment's header is damaged"
    assert finding.first_offset == finding.end_offset == made.segments[1].base_offset
    with pytest.raises(CorruptLog):
        Log(made.path, CONFIG)
    assert logstore("repair", made.path, "--yes").code == 0
    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.records


def test_damaged_header_and_first_frame_of_a_segment_cost_only_that_frame(made: Made) -> None:
    first = next(one for one in made.frames if one.path == made.stores[2])
    made.damage(made.stores[2], 20)
    made.damage(made.stores[2], first.position + 20)

    assert logstore("repair", made.path, "--yes").code == 0

    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.without(range(first.first, first.end))
        assert (log.start, log.end) == (0, 54)
    assert made.findings() == []


@pytest.mark.parametrize("missing", [[1], [1, 2]], ids=["one", "two"])
def test_missing_segments_become_one_hole(made: Made, missing: list[int]) -> None:
    lost = range(made.segments[missing[0]].base_offset, made.segments[missing[-1]].end_offset)
    for number in missing:
        made.stores[number].unlink()

    (finding,) = made.findings()

    assert finding.path == str(made.stores[0])
    assert finding.reason.endswith(f"; the next file starts with entry {lost.stop // 3 + 1}")
    assert (finding.first_offset, finding.end_offset) == (lost.start, lost.stop)
    assert logstore("repair", made.path, "--yes").code == 0
    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.without(lost)
        assert (log.start, log.end) == (0, 54)


def test_missing_segment_in_front_of_a_damaged_header_becomes_a_hole_too(made: Made) -> None:
    lost = range(made.segments[1].base_offset, made.segments[1].end_offset)
    made.stores[1].unlink()
    made.damage(made.stores[2], 30)

    assert {(one.first_offset, one.end_offset) for one in made.findings()} == {
        (lost.start, lost.stop), (lost.stop, lost.stop)
    }  # fmt: skip
    assert logstore("repair", made.path, "--yes").code == 0
    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.without(lost)
    assert logstore("verify", made.path) == (0, "the log is whole\n", "")


def test_store_that_ends_earlier_since_it_was_sealed_is_followed_by_a_hole(made: Made) -> None:
    lost, _ = end_of_a_sealed_store(made)
    made.damage(made.stores[2], 20)

    assert logstore("repair", made.path, "--yes").code == 0

    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.without(lost)
        assert (log.start, log.end) == (0, 54)


def test_loss_at_the_end_of_the_log_is_of_unknown_extent_and_the_log_goes_on_before_it(made: Made) -> None:
    frame = made.frames[-1]
    made.damage(frame.path, frame.position + 10)  # a mark vouches for it
    with pytest.raises(CorruptLog):
        Log(made.path, CONFIG)

    (finding,) = made.findings()

    assert (finding.first_offset, finding.end_offset) == (frame.first, None)
    assert str(finding).endswith(
        f"offsets {frame.first} and on, entries {frame.entry} to before {frame.entry + 1}"
    )
    assert logstore("repair", made.path, "--yes").code == 0
    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.records[: frame.first]
        assert log.append(b"and on") == frame.first


def test_torn_tail_is_no_damage_and_repair_leaves_it_to_the_next_opening(made: Made) -> None:
    last = made.stores[-1]
    frame = made.frames[-1]
    with last.open("ab") as file:
        file.write(last.read_bytes()[frame.position : frame.position + 100])

    verified = logstore("verify", made.path)

    assert verified.code == 0 and ": torn: a write that a crash cut short\n" in verified.out
    assert verified.out.endswith(
        "the log is whole (what a crash cut short is no damage: the next opening puts it aside)\n"
    )
    assert json.loads(logstore("verify", made.path, "--json").out)["harm"] == "torn"
    before = made.image()
    assert logstore("repair", made.path, "--yes") == (0, "nothing to repair\n", "")
    assert made.image() == before
    with Log(made.path, CONFIG) as log:
        assert len(log.repairs) == 1 and list(log.scan()) == made.records
    assert logstore("verify", made.path) == (0, "the log is whole\n", "")


def test_segment_that_a_crash_kept_from_being_made_is_no_damage(made: Made) -> None:
    Directory(OsFileSystem(), str(made.path))
    (made.path / f"{19:020d}.store").write_bytes(b"half a header")

    verified = logstore("verify", made.path)

    assert verified.code == 0 and ": torn: a segment that a crash kept from being made\n" in verified.out
    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.records


@pytest.mark.parametrize("position", [70, 12], ids=["a row", "the header"])
def test_damaged_index_is_reported_as_harmless_or_ignored_and_never_believed(
    made: Made, position: int
) -> None:
    index = min(made.path.glob("*.index"))
    made.damage(index, position)

    findings = made.findings()

    # A damaged header is that of an index that was never saved: nobody looks further.
    assert [(one.harm, one.path) for one in findings] == [(Harm.NONE, str(index))] * (position == 70)
    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.records
        assert [log.read(offset) for offset in range(54)] == made.records


def test_damaged_mark_is_reported_as_harmless(made: Made) -> None:
    data = made.stores[0].read_bytes()
    at = data.index(b"LmrK")
    made.damage(made.stores[0], at + 5)

    (finding,) = made.findings()

    assert (finding.harm, finding.path, finding.position) == (Harm.NONE, str(made.stores[0]), at)
    assert logstore("verify", made.path).code == 1
    with Log(made.path, CONFIG) as log:
        assert list(log.scan()) == made.records


def test_holes_survive_compaction_truncation_and_another_repair(made: Made) -> None:
    for number in (4, 8):
        frame = made.frames[number]
        made.damage(frame.path, frame.position + 100)
        assert logstore("repair", made.path, "--yes").code == 0
    lost = {12, 13, 14, 24, 25, 26}

    with Log(made.path, CONFIG) as log:
        log.append(Record(b"old", key=b"k"))
        log.append(Record(b"new", key=b"k"))
        log.append(b"x" * 1000)
        log.append(b"active")
        log.compact()
        expected = [one.offset for one in log.scan()]
        assert expected == [offset for offset in range(58) if offset not in {*lost, 54}]
        log.truncate_suffix(26)
        assert [one.offset for one in log.scan()] == [offset for offset in range(24) if offset not in lost]
        assert log.end == 26 and log.append(b"in place of the hole") == 26

    assert logstore("verify", made.path).code == 0
    with Log(made.path, CONFIG) as log:
        assert [one.offset for one in log.scan()][-2:] == [23, 26]


def test_repair_that_goes_wrong_leaves_the_store_as_it_was(made: Made) -> None:
    middle_of_a_body(made)
    directory = Directory(OsFileSystem(), str(made.path))
    stores, _ = examine(directory)
    before = made.image()
    store: Any = next(store for store in stores if store.damages)
    store.damages[0].end_offset += 1

    with pytest.raises(LogError, match="rewriting it went wrong at .* it stays as it was"):
        repairing.repair(directory, stores)

    assert {name: data for name, data in made.image().items() if not name.endswith(".tmp")} == before


def test_repair_as_json_says_what_is_lost_and_whether_it_was_given_up(made: Made) -> None:
    lost, _ = middle_of_a_body(made)

    would = json.loads(logstore("repair", made.path, "--json").out)
    done = json.loads(logstore("repair", made.path, "--json", "--yes").out)

    assert (would["first_offset"], would["end_offset"]) == (lost.start, lost.stop)
    assert done == would | {"repaired": True} and would["repaired"] is False
