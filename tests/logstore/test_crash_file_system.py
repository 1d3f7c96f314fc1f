"""The crash file system is itself a promise to users: these are its rules, one by one."""

import errno
import random
from collections import Counter
from collections.abc import Callable

import pytest

from logstore.errors import LogLocked
from logstore.testing import CrashFileSystem, Operation


def contents_after_power_loss(fs: CrashFileSystem, path: str) -> set[bytes | None]:
    """Everything that `path` may hold, None where it does not exist."""
    return {disk.files().get(path) for disk in fs.crash_states()}


def with_durable_file(data: bytes = b"") -> CrashFileSystem:
    return CrashFileSystem({"/d/f": data})


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────────


def test_unsynced_write_is_cut_at_any_byte() -> None:
    fs = with_durable_file()

    fs.open("/d/f", writable=True).write(b"abc", 0)

    assert contents_after_power_loss(fs, "/d/f") == {b"", b"a", b"ab", b"abc"}
    assert fs.crash_point().count == 4


def test_unsynced_writes_are_lost_in_any_combination_and_leave_zeros() -> None:
    fs = with_durable_file()
    file = fs.open("/d/f", writable=True)

    file.write(b"a", 0)
    file.write(b"b", 1)

    assert contents_after_power_loss(fs, "/d/f") == {b"", b"a", b"\0b", b"ab"}


def test_synced_write_stays() -> None:
    fs = with_durable_file(b"old")
    file = fs.open("/d/f", writable=True)

    file.write(b"new", 0)
    file.sync()

    assert contents_after_power_loss(fs, "/d/f") == {b"new"}


def test_sync_makes_one_file_durable_and_not_others() -> None:
    fs = CrashFileSystem({"/d/f": b"", "/d/g": b""})
    fs.open("/d/f", writable=True).write(b"a", 0)

    fs.open("/d/g", writable=True).sync()

    assert contents_after_power_loss(fs, "/d/f") == {b"", b"a"}


def test_unsynced_truncation_may_be_undone() -> None:
    fs = with_durable_file(b"abc")
    file = fs.open("/d/f", writable=True)

    file.truncate(1)
    file.write(b"x", 1)

    assert contents_after_power_loss(fs, "/d/f") == {b"abc", b"axc", b"a", b"ax"}


def test_truncation_can_make_a_file_longer() -> None:
    fs = with_durable_file(b"a")
    file = fs.open("/d/f", writable=True)

    file.truncate(3)
    file.sync()

    assert contents_after_power_loss(fs, "/d/f") == {b"a\0\0"}


def test_cut_bytes_thins_out_the_cuts_but_keeps_both_ends() -> None:
    fs = with_durable_file()

    fs.open("/d/f", writable=True).write(b"abcde", 0)

    states = [disk.files()["/d/f"] for disk in fs.crash_states(cut_bytes=2)]
    assert states == [b"", b"ab", b"abcd", b"abcde"]


def test_random_state_may_lack_sectors_in_the_middle_of_a_write() -> None:
    fs = with_durable_file()
    fs.open("/d/f", writable=True).write(b"x" * 2048, 0)
    rng = random.Random(1)

    states = [fs.random_crash_state(rng).files()["/d/f"] for _ in range(300)]

    assert any(state[:512] == bytes(512) and state[512:1024] == b"x" * 512 for state in states)


def test_mapped_file_holds_anything_after_power_loss() -> None:
    fs = with_durable_file()
    file = fs.open("/d/f", writable=True)

    file.map(8)[0:4] = b"word"
    file.sync()

    assert fs.files()["/d/f"] == b"word\0\0\0\0"
    held = []
    for _ in range(3):
        file.sync()
        held.append(fs.crash_point().state(0).files()["/d/f"])
    assert sorted(map(len, held)) == [0, 8, 8] and bytes(8) in held


def test_larger_mapping_takes_over_what_the_smaller_one_held() -> None:
    fs = with_durable_file()
    file = fs.open("/d/f", writable=True)
    small = file.map(4)
    small[:] = b"word"

    large = file.map(8)

    assert bytes(large) == b"word\0\0\0\0" and bytes(small) == b"word"


# ── names ───────────────────────────────────────────────────────────────────────────────────────────


def test_created_file_has_no_name_until_its_directory_is_synced() -> None:
    fs = CrashFileSystem(directories=["/d"])
    file = fs.create("/d/f")
    file.write(b"a", 0)
    file.sync()
    before = contents_after_power_loss(fs, "/d/f")

    fs.sync_directory("/d")

    assert before == {None, b"a"}
    assert contents_after_power_loss(fs, "/d/f") == {b"a"}


def test_removed_file_may_come_back() -> None:
    fs = with_durable_file(b"a")

    fs.remove("/d/f")

    assert contents_after_power_loss(fs, "/d/f") == {None, b"a"}


def test_rename_is_one_step() -> None:
    fs = CrashFileSystem({"/d/old": b"new", "/d/f": b"before"})

    fs.rename("/d/old", "/d/f")

    states = [disk.files() for disk in fs.crash_states()]
    assert states == [{"/d/old": b"new", "/d/f": b"before"}, {"/d/f": b"new"}]


def test_rename_may_survive_though_the_creation_before_it_does_not() -> None:
    fs = CrashFileSystem(directories=["/d"])
    file = fs.create("/d/t")
    file.write(b"a", 0)
    file.sync()

    fs.rename("/d/t", "/d/f")

    states = [disk.files() for disk in fs.crash_states()]
    assert states == [{}, {"/d/f": b"a"}, {"/d/t": b"a"}]  # both done gives the second again


def test_unsynced_bytes_follow_a_renamed_file() -> None:
    fs = CrashFileSystem({"/d/t": b""})
    fs.open("/d/t", writable=True).write(b"a", 0)

    fs.rename("/d/t", "/d/f")
    fs.sync_directory("/d")

    assert contents_after_power_loss(fs, "/d/f") == {b"", b"a"}


def test_made_directory_is_durable_with_its_parents() -> None:
    fs = CrashFileSystem()

    fs.make_directory("/a/b/c")

    assert all(disk.exists("/a/b/c") for disk in fs.crash_states())


def test_removed_directory_may_come_back_empty() -> None:
    fs = CrashFileSystem(directories=["/a/b"])

    fs.remove_directory("/a/b")

    assert [disk.exists("/a/b") for disk in fs.crash_states()] == [True, False]


# ── points and states ───────────────────────────────────────────────────────────────────────────────


def two_files_with_everything_open() -> CrashFileSystem:
    fs = with_durable_file(b"abc")
    file = fs.open("/d/f", writable=True)
    file.write(b"xyz", 1)
    file.truncate(2)
    other = fs.create("/d/g")
    other.write(b"12", 0)
    fs.rename("/d/g", "/d/h")
    fs.create("/d/index").map(16)
    return fs


def test_states_are_counted_and_numbered_without_being_made() -> None:
    point = two_files_with_everything_open().crash_point()

    states = [disk.files() for disk in point.states()]

    assert len(states) == point.count
    assert [point.state(number).files() for number in range(point.count)] == states
    with pytest.raises(IndexError):
        point.state(point.count)


def test_random_states_are_among_all_states() -> None:
    point = two_files_with_everything_open().crash_point()
    all_states = {
        (*disk.files(), *disk.files().values()) for disk in point.states() if "/d/index" not in disk.files()
    }
    rng = random.Random(2)

    seen = [point.random_state(rng).files() for _ in range(500)]

    assert {(*files, *files.values()) for files in seen if "/d/index" not in files} <= all_states


def test_there_is_a_point_before_every_operation_and_one_behind_the_last() -> None:
    fs = two_files_with_everything_open()

    points = list(fs.crash_points())

    assert [point.operation_count for point in points] == list(range(len(fs.operations) + 1))
    assert points[0].count == 1 and points[0].state(0).files() == {"/d/f": b"abc"}
    assert [point.operation_count for point in fs.crash_points(2, 3)] == [2, 3]


def test_killed_process_loses_nothing() -> None:
    fs = two_files_with_everything_open()

    files = fs.crash_point().killed().files()

    assert {path: data for path, data in files.items() if path != "/d/index"} == {
        "/d/f": b"ax",
        "/d/h": b"12",
    }


def test_state_is_durable_and_can_fail_again() -> None:
    fs = with_durable_file()
    fs.open("/d/f", writable=True).write(b"ab", 0)
    disk = fs.crash_point().state(1)

    disk.open("/d/f", writable=True).write(b"xy", 0)

    assert contents_after_power_loss(disk, "/d/f") == {b"a", b"x", b"xy"}


def test_states_do_not_share_what_is_written_to_them() -> None:
    point = with_durable_file(b"a").crash_point()

    point.state(0).open("/d/f", writable=True).write(b"x", 0)

    assert point.state(0).files() == {"/d/f": b"a"}


def test_operations_are_recorded_in_order_with_absolute_paths() -> None:
    fs = CrashFileSystem(directories=["d"])
    file = fs.create("d/f")
    file.write_all([b"a", memoryview(b"b")], 3)
    file.truncate(1)
    file.map(2)
    file.sync()
    fs.rename("d/f", "d/g")
    fs.remove("d/g")
    fs.sync_directory("d")

    assert fs.operations == [
        Operation("create", "/d/f", 1),
        Operation("write", "/d/f", 1, 3, b"ab"),
        Operation("truncate", "/d/f", 1, 1),
        Operation("map", "/d/f", 1, 2),
        Operation("sync", "/d/f", 1),
        Operation("rename", "/d/f", 1, target="/d/g"),
        Operation("remove", "/d/g", 1),
        Operation("sync_directory", "/d"),
    ]
    assert repr(fs.operations[1]) == "<write /d/f 3+2>" and repr(fs.operations[5]) == "<rename /d/f to /d/g>"


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────


def test_failed_sync_leaves_doubt_for_ever() -> None:
    fs = with_durable_file()
    file = fs.open("/d/f", writable=True)
    file.write(b"a", 0)
    fs.fail("sync")

    with pytest.raises(OSError, match="Input/output error"):
        file.sync()
    file.write(b"b", 1)
    file.sync()

    assert fs.files()["/d/f"] == b"ab"  # the program is none the wiser
    assert contents_after_power_loss(fs, "/d/f") == {b"\0b", b"ab"}


def test_failed_directory_sync_leaves_doubt_for_ever() -> None:
    fs = CrashFileSystem(directories=["/d"])
    fs.create("/d/f")
    fs.fail("sync_directory")

    with pytest.raises(OSError, match="Input/output error"):
        fs.sync_directory("/d")
    fs.create("/d/g")
    fs.sync_directory("/d")

    assert [sorted(disk.files()) for disk in fs.crash_states()] == [["/d/g"], ["/d/f", "/d/g"]]


def test_full_disk_takes_the_part_of_a_write_that_fits() -> None:
    fs = with_durable_file(b"ab")
    fs.capacity_bytes = 4

    with pytest.raises(OSError) as failure:
        fs.open("/d/f", writable=True).write(b"cdef", 2)

    assert failure.value.errno == errno.ENOSPC
    assert fs.files()["/d/f"] == b"abcd"


def test_full_disk_still_overwrites_and_takes_exactly_what_fits() -> None:
    fs = with_durable_file(b"ab")
    fs.capacity_bytes = 3
    file = fs.open("/d/f", writable=True)

    file.write(b"xyz", 0)
    file.write(b"123", 0)

    assert fs.files()["/d/f"] == b"123"


def test_full_disk_refuses_a_mapping_and_leaves_the_file_as_it_was() -> None:
    fs = with_durable_file(b"ab")
    fs.capacity_bytes = 4

    with pytest.raises(OSError) as failure:
        fs.open("/d/f", writable=True).map(5)

    assert failure.value.errno == errno.ENOSPC and fs.files()["/d/f"] == b"ab"


def test_removed_file_makes_room() -> None:
    fs = CrashFileSystem({"/d/f": b"abc", "/d/g": b""})
    fs.capacity_bytes = 3
    fs.remove("/d/f")

    fs.open("/d/g", writable=True).write(b"xyz", 0)

    assert fs.files() == {"/d/g": b"xyz"}


def test_nth_write_fails_half_done() -> None:
    fs = with_durable_file()
    file = fs.open("/d/f", writable=True)
    fs.fail("write", nth=2)
    file.write(b"ab", 0)

    with pytest.raises(OSError, match="Input/output error"):
        file.write(b"cd", 2)
    file.write(b"ef", 3)

    assert fs.files()["/d/f"] == b"abcef"


@pytest.mark.parametrize("kind", ["create", "open", "read", "truncate", "map", "rename", "remove"])
def test_other_faults_change_nothing(kind: str) -> None:
    fs = with_durable_file(b"abc")
    file = fs.open("/d/f", writable=True)
    acts: dict[str, Callable[[], object]] = {
        "create": lambda: fs.create("/d/g"),
        "open": lambda: fs.open("/d/f", writable=False),
        "read": lambda: file.read(1, 0),
        "truncate": lambda: file.truncate(0),
        "map": lambda: file.map(8),
        "rename": lambda: fs.rename("/d/f", "/d/g"),
        "remove": lambda: fs.remove("/d/f"),
    }
    fs.fail(kind, times=2, error=errno.EROFS)  # type: ignore[arg-type]

    for _ in range(2):
        with pytest.raises(OSError, match="Read-only file system"):
            acts[kind]()

    assert fs.files() == {"/d/f": b"abc"} and fs.operations == []
    acts[kind]()


def test_program_is_called_before_each_operation() -> None:
    fs = with_durable_file()
    file = fs.open("/d/f", writable=True)
    seen: Counter[str] = Counter()
    fs.before_operation = lambda operation: seen.update([operation.kind])

    file.write(b"a", 0)
    file.sync()

    assert seen == {"write": 1, "sync": 1}


# ── what any file system does ───────────────────────────────────────────────────────────────────────


def test_read_ends_where_the_file_does() -> None:
    file = with_durable_file(b"abc").open("/d/f", writable=False)

    assert (file.read(2, 0), file.read(9, 1), file.read(1, 3), file.read(1, 9)) == (b"ab", b"bc", b"", b"")
    with pytest.raises(OSError, match="Invalid argument"):
        file.read(-1, 0)


def test_files_can_be_read_after_they_lost_their_name() -> None:
    fs = with_durable_file(b"abc")
    file = fs.open("/d/f", writable=False)

    fs.remove("/d/f")

    assert file.read(3, 0) == b"abc"


def test_missing_and_taken_names_are_refused() -> None:
    fs = with_durable_file()

    with pytest.raises(FileExistsError):
        fs.create("/d/f")
    for act in (lambda: fs.open("/d/x", writable=False), lambda: fs.create("/e/f"), lambda: fs.list("/e")):
        with pytest.raises(FileNotFoundError):
            act()
    with pytest.raises(FileNotFoundError):
        fs.remove("/d/x")
    with pytest.raises(FileNotFoundError):
        fs.rename("/d/x", "/d/y")
    with pytest.raises(NotADirectoryError):
        fs.make_directory("/d/f")
    with pytest.raises(OSError, match="not empty"):
        fs.remove_directory("/d")
    with pytest.raises(OSError, match="cross-device"):
        fs.rename("/d/f", "/f")


def test_closed_and_read_only_files_are_refused() -> None:
    fs = with_durable_file()
    reader, closed = fs.open("/d/f", writable=False), fs.open("/d/f", writable=True)
    closed.close()

    acts: list[Callable[[], object]] = [
        lambda: reader.write(b"a", 0), lambda: reader.truncate(0), closed.sync, lambda: closed.read(1, 0),
    ]  # fmt: skip
    for act in acts:
        with pytest.raises(OSError, match="Bad file descriptor"):
            act()


def test_lock_is_held_once_until_it_is_closed_or_the_power_fails() -> None:
    fs = CrashFileSystem(directories=["/d"])
    lock = fs.lock("/d/LOCK")

    with pytest.raises(LogLocked):
        fs.lock("/d/LOCK")
    fs.crash_point().killed().lock("/d/LOCK")
    lock.close()

    fs.lock("/d/LOCK").close()
    assert fs.list("/d") == []


def test_list_names_files_and_directories_sorted() -> None:
    fs = CrashFileSystem({"/d/b": b"", "/d/a/x": b""}, directories=["/d/c"])

    assert (fs.list("/d"), fs.list("/"), fs.exists("/d/a"), fs.exists("/d/z")) == (
        ["a", "b", "c"],
        ["d"],
        True,
        False,
    )
