from __future__ import annotations

from pathlib import Path

import pytest

from raftlog.sim.history import Operation
from raftlog.sim.history_files import REGISTER_KEY, HistoryFileError, read_history
from raftlog.sim.models import Append, CompareAndSet, Read, Write


def register_log(*events: str) -> str:
    return "".join(f"INFO  jepsen.util - {event}\n" for event in events)


def key_value_log(*events: str) -> str:
    lines = [event.split(" ", 4) for event in events]
    return "".join(
        f'{{:process {process}, :type :{kind}, :f :{verb}, :key "{key}", :value {value}}}\n'
        for process, kind, verb, key, value in lines
    )


def operations_of(folder: Path, text: str, model: str) -> list[Operation]:
    path = folder / "history"
    path.write_text(text)
    return read_history(path, model)


def test_register_log_with_every_kind_of_outcome(tmp_path: Path) -> None:
    text = register_log(
        "0\t:invoke\t:read\tnil",
        "1   :invoke :write  4",  # both manners of spacing occur
        "2\t:invoke\t:cas\t[4 0]",
        "0\t:ok\t:read\tnil",
        "3\t:invoke\t:cas\t[1 2]",
        "1\t:info\t:write\t:timed-out",
        "2\t:ok\t:cas\t[4 0]",
        "3\t:fail\t:cas\t[1 2]",
        "0\t:invoke\t:read\tnil",
        "2\t:invoke\t:cas\t[4 4]",
        "3\t:invoke\t:read\tnil",
        "0\t:ok\t:read\t0",
        "2\t:fail\t:cas\t:timed-out",
        "3\t:fail\t:read\t:timed-out",
        "0\t:invoke\t:write\t-1",
    )

    assert operations_of(tmp_path, text, "register") == [
        Operation("0", 1, 4, Read(REGISTER_KEY), None),
        Operation("1", 2, None, Write(REGISTER_KEY, "4")),
        Operation("2", 3, 7, CompareAndSet(REGISTER_KEY, "4", "0"), True),
        Operation("3", 5, 8, CompareAndSet(REGISTER_KEY, "1", "2"), False),
        Operation("0", 9, 12, Read(REGISTER_KEY), "0"),
        Operation("0", 15, None, Write(REGISTER_KEY, "-1")),
    ]


def test_lines_of_faults_and_of_the_test_itself_are_passed_over(tmp_path: Path) -> None:
    text = (
        "INFO  jepsen.core - Running test\n\n"
        "INFO  jepsen.util - :nemesis\t:info\t:start\tnil\n"
        "WARN  jepsen.core - Process 3 indeterminate\n" + register_log("0\t:invoke\t:write\t1")
    )

    assert operations_of(tmp_path, text, "register") == [Operation("0", 5, None, Write(REGISTER_KEY, "1"))]


def test_key_value_log_with_every_kind_of_outcome(tmp_path: Path) -> None:
    text = key_value_log(
        '0 invoke put k "x 0 y"',
        '1 invoke append l "\\"}"',
        "2 invoke get k nil",
        '0 ok put k "x 0 y"',
        '1 info append l "\\"}"',
        '2 ok get k "x 0 y"',
        '0 invoke append k "z"',
        "2 invoke get k nil",
        '0 fail append k "z"',
        "2 ok get k nil",
    )

    assert operations_of(tmp_path, text, "kv-append") == [
        Operation("0", 1, 4, Write("k", "x 0 y")),
        Operation("1", 2, None, Append("l", '\\"}')),
        Operation("2", 3, 6, Read("k"), "x 0 y"),
        Operation("2", 8, 10, Read("k"), ""),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: no event in the whole file"),
        ("INFO  jepsen.core - Running test\n\n", "line 1: no event in the whole file"),
        ("\nwhat?", "line 2: not an event of a register: 'what?'"),
        (key_value_log('0 invoke put k "x"'), "line 1: not an event of a register: "),
        (register_log("0\t:invoke\t:delete\t1"), "line 1: not an event of a register"),
        (register_log("0\t:invoke\t:cas\t[1 2 3]"), "line 1: not an event of a register"),
        (register_log("0\t:invoke\t:write\tnil"), "line 1: no value to write"),
        (register_log("0\t:invoke\t:write\t[1 2]"), "line 1: no value to write"),
        (register_log("0\t:invoke\t:read\tnil") * 2, "line 2: process 0 is busy since line 1"),
        (register_log("0\t:ok\t:read\tnil"), "line 1: process 0 did not invoke read"),
        (
            register_log("0\t:invoke\t:read\tnil", "0\t:ok\t:write\t1"),
            "line 2: process 0 did not invoke write",
        ),
        (
            register_log("0\t:invoke\t:write\t1", "0\t:ok\t:write\t2"),
            "line 2: not the value that was invoked in line 1",
        ),
        (
            register_log("0\t:invoke\t:cas\t[1 2]", "0\t:fail\t:cas\t[2 2]"),
            "line 2: not the value that was invoked in line 1",
        ),
        (
            register_log("0\t:invoke\t:read\tnil", "0\t:ok\t:read\t:timed-out"),
            "line 2: not the value that was invoked in line 1",
        ),
    ],
)
def test_register_log_that_makes_no_sense_is_refused_with_its_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(HistoryFileError) as refused:
        operations_of(tmp_path, text, "register")

    assert str(refused.value).startswith(f"{tmp_path / 'history'}: {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{:process 0}", "line 1: not an event of a key-value store: '{:process 0}'"),
        (key_value_log("0 invoke put k nil"), "line 1: no value to put"),
        (key_value_log('0 invoke put k "x"', '0 ok put l "x"'), "line 2: not the value that was invoked"),
        (key_value_log("0 invoke get k nil", '0 ok get l "x"'), "line 2: not the value that was invoked"),
    ],
)
def test_key_value_log_that_makes_no_sense_is_refused_with_its_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(HistoryFileError) as refused:
        operations_of(tmp_path, text, "kv-append")

    assert str(refused.value).startswith(f"{tmp_path / 'history'}: {problem}")


def test_file_that_is_no_text_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "history").write_bytes(register_log("0\t:invoke\t:read\tnil").encode() + b"\xff\n")

    with pytest.raises(HistoryFileError, match="line 2: not UTF-8"):
        read_history(tmp_path / "history", "register")
