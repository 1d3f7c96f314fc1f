"""The command line `logstore`: what it prints, how it exits, and that a wrong word changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest
import zstandard

from logstore import Config, Log, NoLog, Record
from logstore.cli.output import shown_bytes
from tests.logstore.entries import all_entries
from tests.logstore.shell import logstore

TIME = 1_600_000_000_123_456_789  # 2020-09-13T12:26:40.123Z
SHOWN_TIME = "2020-09-13T12:26:40.123Z"
SEGMENTED = Config(segment_bytes_max=1500)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with keys, headers, bytes that are no text, and several segments."""
    with Log(tmp_path / "log", SEGMENTED, clock=count(TIME, 1_000_000).__next__) as log:
        log.append(b"first")
        log.append(Record(b"\xff\x1b[31m\n", key=b"k\xc3\xa9y", timestamp=TIME + 10**9))
        log.append_batch([Record(b"third", headers=(("h", b"x"), ("b", b"\xff"))), b"fourth"])
        for number in range(20):
            log.append(Record(b"%d" % number * 50, key=b"%d" % (number % 3)))
    return tmp_path / "log"


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def values(path: Path) -> list[bytes]:
    with Log(path, read_only=True) as log:
        return [record.value for record in log.scan()]


# ── records in ──────────────────────────────────────────────────────────────────────────────────────


def test_each_line_of_standard_input_is_appended_without_its_end(tmp_path: Path) -> None:
    done = logstore("append", tmp_path, stdin=b"one\n two \t\r\n\n\xff\nwithout an end")

    assert done == (0, "appended 5 records, offsets 0 to before 5\n", "")
    assert values(tmp_path) == [b"one", b" two \t", b"", b"\xff", b"without an end"]


def test_files_are_appended_in_their_order_behind_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a1\na2\n")
    (tmp_path / "b").write_bytes(b"b1\n")
    logstore("append", tmp_path / "log", stdin=b"zero\n")

    done = logstore("append", tmp_path / "log", tmp_path / "b", tmp_path / "a", "--json")

    assert objects(done.out) == [{"first_offset": 1, "end_offset": 4, "records": 3}]
    assert values(tmp_path / "log") == [b"zero", b"b1", b"a1", b"a2"]


def test_nothing_to_append_makes_an_empty_log(tmp_path: Path) -> None:
    assert logstore("append", tmp_path / "log").out == "appended 0 records, offsets 0 to before 0\n"
    assert values(tmp_path / "log") == []


def test_batches_have_as_many_lines_as_asked_for_and_may_be_compressed(tmp_path: Path) -> None:
    text = b"".join(b"%050d\n" % number for number in range(25))

    logstore("append", tmp_path, "--batch", "10", "--compress", stdin=text)

    with Log(tmp_path, read_only=True) as log:
        assert [len(batch) for batch in log.batches()] == [10, 10, 5]
    assert values(tmp_path) == text.split()
    assert zstandard.MAGIC_NUMBER.to_bytes(4, "little") in next(tmp_path.glob("*.store")).read_bytes()


def test_lines_that_are_too_many_bytes_for_one_batch_are_several(tmp_path: Path) -> None:
    line = b"x" * 300_000 + b"\n"

    assert logstore("append", tmp_path / "log", stdin=line * 120).code == 0

    assert values(tmp_path / "log") == [line[:-1]] * 120


@contextlib.contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """`logstore ARGUMENTS` in a process of its own, which does not outlive the context."""
    command = [sys.executable, "-m", "logstore", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def when_made(path: Path, process: subprocess.Popen[bytes]) -> Log:
    """The log that the process makes, read only."""
    while True:
        with contextlib.suppress(NoLog):
            return Log(path, read_only=True)
        assert process.poll() is None, "it ended before there was a log"
        time.sleep(0)


def test_lines_of_a_pipe_are_stored_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with started("append", path) as process:
        assert process.stdin is not None and process.stderr is not None

        process.stdin.write(b"one\ntwo\nthr")
        process.stdin.flush()
        with when_made(path, process) as log:
            while log.end < 2:
                log.wait(log.end, timeout_s=20)
            assert [record.value for record in log.scan()] == [b"one", b"two"]
        process.send_signal(signal.SIGINT)

        assert (process.wait(20), process.stderr.read()) == (130, b"")
    assert values(path) == [b"one", b"two"]


# ── records out ─────────────────────────────────────────────────────────────────────────────────────


def test_cat_prints_a_line_for_each_record_that_cannot_move_the_cursor(path: Path) -> None:
    assert logstore("cat", path, "--to", "4").out == (
        f"         0  {SHOWN_TIME}  first\n"
        f"         1  2020-09-13T12:26:41.123Z  kéy  \\xff\\x1b[31m\\n\n"
        f"         2  2020-09-13T12:26:40.125Z  third\n"
        f"         3  2020-09-13T12:26:40.125Z  fourth\n"
    )


def test_cat_as_json_has_every_field_and_base64_for_what_is_no_text(path: Path) -> None:
    done = logstore("cat", path, "--to", "3", "--json")

    assert objects(done.out) == [
        {"offset": 0, "timestamp": TIME, "term": 0, "value": "first"},
        {"offset": 1, "timestamp": TIME + 10**9, "term": 0, "key": "kéy", "value_base64": "/xtbMzFtCg=="},
        {
            "offset": 2, "timestamp": TIME + 2_000_000, "term": 0, "value": "third",
            "headers": [{"name": "h", "value": "x"}, {"name": "b", "value_base64": "/w=="}],
        },
    ]  # fmt: skip
    assert logstore("cat", path, "--to", "3", "--format", "json") == done


@pytest.mark.parametrize(
    ("arguments", "offsets"),
    [
        (["cat"], range(24)),
        (["cat", "--from", "20"], range(20, 24)),
        (["cat", "--from", "24"], range(0)),
        (["cat", "--from", "3", "--to", "5"], range(3, 5)),
        (["cat", "--reverse"], range(23, -1, -1)),
        (["cat", "--from", "2", "--to", "5", "--reverse"], range(4, 1, -1)),
        (["tail"], range(14, 24)),
        (["tail", "-n", "3"], range(21, 24)),
        (["tail", "--lines", "0"], range(0)),
        (["tail", "-n", "99"], range(24)),
    ],
)
def test_cat_and_tail_print_the_records_that_were_asked_for(
    path: Path, arguments: list[str], offsets: range
) -> None:
    done = logstore(*arguments, path, "--json")

    assert (done.code, [one["offset"] for one in objects(done.out)]) == (0, list(offsets))


def test_raw_format_is_the_values_and_line_ends_alone(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "logstore", "cat", path, "--to", "2", "--format", "raw"],
        capture_output=True,
        check=True,
    )

    assert (done.stdout, done.stderr) == (b"first\n\xff\x1b[31m\n\n", b"")


def test_letters_that_the_terminal_cannot_write_are_escaped(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "logstore", "cat", path, "--from", "1", "--to", "2"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )

    assert b"  k\\xe9y  " in done.stdout


def test_tail_follows_until_it_is_interrupted(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.append(b"before")
        with started("tail", "-f", tmp_path, "--format", "raw") as process:
            assert process.stdout is not None and process.stderr is not None

            assert process.stdout.readline() == b"before\n"
            log.append(b"behind")
            assert process.stdout.readline() == b"behind\n"
            process.send_signal(signal.SIGINT)

            assert (process.wait(20), process.stderr.read()) == (130, b"")


def test_reader_that_has_seen_enough_is_no_crash(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.append_batch([b"x" * 100] * 5000)
    with started("cat", tmp_path) as process:
        assert process.stdout is not None and process.stderr is not None

        assert process.stdout.readline().endswith(b"x\n")
        process.stdout.close()

        assert (process.wait(20), process.stderr.read()) == (1, b"")


# ── looking ─────────────────────────────────────────────────────────────────────────────────────────


def test_stat_says_what_there_is_and_in_which_segments(path: Path) -> None:
    with Log(path, read_only=True) as log:
        segments = log.segments()
    done = logstore("stat", path)

    first, heading, *rows = lines(done.out)
    assert first.startswith("24 records, offsets 0 to before 24; entries 1 to before 24; ")
    assert heading == "entries offsets bytes last append state"
    assert [row.split()[:2] + row.split()[-1:] for row in rows] == [
        [f"{one.base_index}..{one.end_index}", f"{one.base_offset}..{one.end_offset}", one.state]
        for one in segments
    ]
    (fields,) = objects(logstore("stat", path, "--json").out)
    assert fields["segment"] == [one._asdict() for one in segments]
    del fields["segment"]
    assert fields == {
        "start": 0, "end": 24, "first_entry": 1, "last_entry": 23, "segments": len(segments),
        "bytes": sum(one.bytes for one in segments),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (1 << 42, "4,096.0 GiB")],
)
def test_bytes_are_shown_in_the_largest_fitting_unit(size: int, text: str) -> None:
    assert shown_bytes(size) == text


def test_dump_prints_the_header_of_every_frame(path: Path) -> None:
    with Log(path, read_only=True) as log:
        entries = all_entries(log)
        offsets = [log.offset_of(entry.index) for entry in entries] + [log.end]
        segments = log.segments()

    done = objects(logstore("dump", path, "--json").out)
    text = logstore("dump", path).out
    frames = [one for one in done if "item" in one]

    assert [one["base_index"] for one in done if "segment" in one] == [one.base_index for one in segments]
    assert [(one["entry"], one["first_offset"], one["end_offset"], one["bytes"]) for one in frames] == [
        (one.index, *ends, len(one.data)) for one, ends in zip(entries, pairwise(offsets), strict=True)
    ]
    assert {(one["item"], one["kind"], one["damage"]) for one in frames} == {("frame", "records", "")}
    assert len(text.splitlines()) == len(done)
    assert f"frame of records, 112 bytes, entry 1, offsets 0..1, term 0, {SHOWN_TIME}, header CRC" in text


def test_dump_of_one_segment_prints_that_alone(path: Path) -> None:
    with Log(path, read_only=True) as log:
        second = log.segments()[1]

    done = objects(logstore("dump", path, "--json", "--segment", str(second.base_index)).out)

    assert [one["base_index"] for one in done if "segment" in one] == [second.base_index]
    assert [one["entry"] for one in done if "item" in one] == list(range(second.base_index, second.end_index))


def test_dump_goes_on_behind_a_segment_whose_header_is_damaged(path: Path) -> None:
    first, *others = sorted(path.glob("*.store"))
    first.write_bytes(b"?" + first.read_bytes()[1:])

    done = objects(logstore("dump", path, "--json").out)

    assert done[0] == {"segment": str(first), "damage": "the segment's header is damaged"}
    assert [one["segment"] for one in done[1:] if "segment" in one] == [str(other) for other in others]
    assert logstore("dump", path).out.startswith(f"{first}: the segment's header is damaged\n")


# ── removing ────────────────────────────────────────────────────────────────────────────────────────


def test_retain_says_what_would_go_and_why_and_then_does_it(path: Path) -> None:
    with Log(path, read_only=True) as log:
        segments = log.segments()
    before = sorted(os.listdir(path))

    dry = logstore("retain", path, "--records-max", "10", "--dry-run")

    assert sorted(os.listdir(path)) == before
    assert [line.split()[0] for line in lines(dry.out)[1:]] == [
        f"{one.base_offset}..{one.end_offset}" for one in segments
    ]
    assert "would go with it the log has 24 records, retention_records_max is 10" in lines(dry.out)[1]
    assert "stays an older segment stays" in lines(dry.out)[-1]

    done = objects(logstore("retain", path, "--records-max", "10", "--json").out)

    assert [one["stays"] for one in done] == ["stays" in line for line in lines(dry.out)[1:]]
    start = next(one["base_offset"] for one in done if one["stays"])
    with Log(path, read_only=True) as log:
        assert log.start == start and log.end - log.start <= 10


def test_dry_run_of_retain_only_looks_so_another_may_have_the_log_open(path: Path) -> None:
    with Log(path) as log:
        done = logstore("retain", path, "--records-max", "1", "--dry-run", "--json")

        assert [one["stays"] for one in objects(done.out)] == [False] * (len(log.segments()) - 1) + [True]
        assert len(log) == 24


def test_compact_says_what_would_go_and_then_does_it(path: Path) -> None:
    dry = logstore("compact", path, "--dry-run")
    (would,) = objects(logstore("compact", path, "--dry-run", "--json").out)
    assert dry.out == f"would remove {would['records']} records from {would['segments']} segments\n"
    assert len(values(path)) == 24

    done = logstore("compact", path)

    assert done.out.startswith(
        f"removed {would['records']} records from {would['segments']} segments, freed "
    )
    assert len(values(path)) == 24 - int(str(would["records"])) < 15


# ── wrong inputs ────────────────────────────────────────────────────────────────────────────────────

COMMANDS = [
    ["cat"], ["tail"], ["tail", "-f"], ["stat"], ["verify"], ["verify", "--json"], ["dump"], ["repair"],
    ["repair", "--yes"], ["retain", "--records-max", "1"], ["compact"],
]  # fmt: skip


@pytest.mark.parametrize("exists", [True, False], ids=["empty directory", "no directory"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_on_a_directory_without_a_log_says_so_and_makes_nothing(
    tmp_path: Path, command: list[str], *, exists: bool
) -> None:
    place = tmp_path / "typo"
    if exists:
        place.mkdir()

    assert logstore(*command, place) == (1, "", f"logstore: {place} holds no log\n")
    assert [*tmp_path.rglob("*")] == [place] * exists


@pytest.mark.parametrize("command", [["cat"], ["verify"], ["append"], ["compact"]], ids=" ".join)
def test_command_on_a_file_says_that_it_is_no_directory(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"text")

    done = logstore(*command, tmp_path / "file")

    assert (done.code, done.out) == (1, "") and "a directory" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: logstore"),
        (["no-such"], "No such command 'no-such'"),
        (["cat"], "Missing argument 'DIR'"),
        (["cat", "DIR", "--from", "x"], "Invalid value for '--from'"),
        (["cat", "DIR", "--format", "xml"], "is not one of 'text', 'json', 'raw'"),
        (["tail", "DIR", "-n", "-1"], "Invalid value for '--lines'"),
        (["append", "DIR", "--batch", "0"], "Invalid value for '--batch'"),
        (["append", "DIR", "no-such-file"], "'no-such-file' does not exist"),
        (["append", "DIR", "."], "'.' is a directory"),
        (["dump", "DIR", "--segment", "77"], "there is no segment 77"),
        (["retain", "DIR", "--bytes-max", "-1"], "Invalid value for '--bytes-max'"),
        (["bench", "DIR", "--case", "no-such"], "there is no case no-such; choose from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_with_2_and_changes_nothing(
    path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    done = logstore(*(str(path) if one == "DIR" else one for one in arguments))

    assert done.code == 2 and message in " ".join((done.out + done.err).split())
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize("command", [["append"], ["repair", "--yes"], ["retain"], ["compact"]], ids=" ".join)
def test_command_that_writes_names_who_has_the_log_open(path: Path, command: list[str]) -> None:
    with Log(path):
        done = logstore(*command, path)

    assert done == (
        1, "", f"logstore: {path} is in use by process {os.getpid()}; close it there, or open with read_only=True\n"
    )  # fmt: skip


def test_offset_outside_of_the_log_is_one_line_without_a_stack_trace(path: Path) -> None:
    done = logstore("cat", path, "--from", "25")

    assert done == (1, "", "logstore: offset 25 is outside of the log, which holds 0 to before 24\n")


def test_command_line_without_its_packages_says_what_to_install() -> None:
    program = "import sys; sys.modules['typer'] = None; from logstore.__main__ import main; main()"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (
        1, "logstore: the command line needs typer: pip install typer rich\n"
    )  # fmt: skip


# ── bench ───────────────────────────────────────────────────────────────────────────────────────────


def test_bench_measures_the_cases_that_were_asked_for_and_leaves_nothing(tmp_path: Path) -> None:
    place, output = tmp_path / "bench", tmp_path / "measured.json"

    done = logstore(
        "bench", place, "--case", "unsynced_single", "--runs", "1", "--seconds", "0.05", "--output", output
    )

    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines() if line.lstrip().startswith("unsynced_single")]
    assert (
        rows[0][1] == "logstore" and len(rows) >= 3
    )  # beside it the plain file and sqlite, wherever it runs
    assert "medians of 1 runs" in done.out
    assert json.loads(output.read_text())
    assert list(place.rglob("*")) == []


def test_bench_as_json_is_one_document_with_the_facts_of_the_machine(tmp_path: Path) -> None:
    done = logstore(
        "bench", tmp_path, "--case", "unsynced_single", "--runs", "1", "--seconds", "0.05", "--json"
    )

    measured = json.loads(done.out)
    assert done.code == 0 and isinstance(measured, dict) and "machine" in measured
