"""The command line as a user has it: processes that talk to a server that is one as well."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import logstore
from raftlog.cli import demo, run
from raftlog.client.client import Client
from raftlog.demo.story import TEXT_FILE, Result, play
from raftlog.errors import ConfigError
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.net.probe import Unreachable, require_server
from raftlog.net.tls import TlsFiles
from raftlog.server_process import ServerFailed, server_process

COMMAND_S_MAX = 30.0
ANSWER_S_MAX = 10.0  # less than a producer waits for an answer
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAFTLOG_")}


class Shell:
    """Runs `raftlog` against one server."""

    def __init__(self, address: str, certificates: Path) -> None:
        self.address = address
        self.certificates = certificates
        self.environment = {
            **ENVIRONMENT,
            "RAFTLOG_CLIENT_ADDR": address,
            "RAFTLOG_CLIENT_CERTS": str(certificates),
        }

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "raftlog", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=self.environment, **more,
        )  # fmt: skip

    def __call__(self, *arguments: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
        """(exit code, output, errors)"""
        with self.start(*arguments) as process:
            output, errors = process.communicate(given, timeout=COMMAND_S_MAX)
            return process.returncode, output, errors

    def values(self, *arguments: str) -> list[bytes]:
        code, output, errors = self("consume", "--format", "raw", *arguments)
        assert (code, errors) == (0, b"")
        return output.splitlines()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Shell]:
    """A server that holds the lines a, b, c and then more, as tests go on."""
    folder = tmp_path_factory.mktemp("server")
    with server_process(folder, certificates, {"sync": "never", "node-name": "one"}) as server:
        shell = Shell(server.address, certificates)
        assert shell("produce", given=b"a\nb\r\nc")[0] == 0
        yield shell


# ── producing and consuming ─────────────────────────────────────────────────────────────────────────


def test_lines_of_files_are_stored_in_order_and_counted(shell: Shell, tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    files[0].write_bytes(b"1\n\n2")
    files[1].write_bytes(b"3\n")

    code, output, errors = shell("produce", "--json", "--batch", "2", *map(str, files))

    found = json.loads(output)
    assert (code, errors) == (0, b"")
    assert found["records"] == 4
    assert found["last_offset"] - found["first_offset"] == 3
    assert shell.values("--from", str(found["first_offset"])) == [b"1", b"", b"2", b"3"]


def test_a_line_loses_its_ending_and_nothing_else(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"a\r\r\nb\r\n\r\n\nc\r")

    _, output, _ = shell("produce", "--json", str(file))

    found = json.loads(output)
    with Client(shell.address, tls=TlsFiles.in_folder(shell.certificates, "root-client")) as client:
        values = [record.value for record in client.scan(found["first_offset"], found["last_offset"] + 1)]
    assert values == [b"a\r", b"b", b"", b"", b"c\r"]


def test_no_lines_are_no_records(shell: Shell) -> None:
    code, output, errors = shell("produce", given=b"")

    assert (code, errors) == (0, b"")
    assert output.startswith(b"stored 0 records; ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--to", "3"], [b"a", b"b", b"c"]),
        (["--from", "earliest", "--to", "1"], [b"a"]),
        (["--from", "1", "--to", "3"], [b"b", b"c"]),
        (["--from", "2020-01-01T00:00Z", "--to", "2"], [b"a", b"b"]),
        (["--from", "2200-01-01"], []),
        (["--from", "latest"], []),
        (["--from", "0", "--to", "0"], []),
        (["--from", "0", "--to", "2", "--follow"], [b"a", b"b"]),
    ],
)
def test_records_are_printed_from_and_to_where_the_user_says(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    arguments: list[str],
    expected: list[bytes],
) -> None:
    for name, value in shell.environment.items():
        monkeypatch.setenv(name, value)

    assert run(["consume", "--format", "raw", *arguments]) == 0

    sys.stdout.flush()
    assert capfdbinary.readouterr() == (b"".join(value + b"\n" for value in expected), b"")


def test_records_are_printed_for_people_and_for_programs(shell: Shell) -> None:
    _, text, _ = shell("consume", "--to", "2")
    _, lines, _ = shell("consume", "--to", "2", "--format", "json")

    assert [(line.split()[0], line.split()[-1]) for line in text.splitlines()] == [(b"0", b"a"), (b"1", b"b")]
    found = [json.loads(line) for line in lines.splitlines()]
    assert [(one["offset"], one["value"], one["term"]) for one in found] == [(0, "a", 1), (1, "b", 1)]


def test_following_prints_what_comes_and_ends_with_130_at_ctrl_c(shell: Shell) -> None:
    with shell.start("consume", "--from", "0", "--follow", "--format", "raw") as tail:
        assert tail.stdout is not None
        assert [tail.stdout.readline() for _ in range(3)] == [b"a\n", b"b\n", b"c\n"]
        shell("produce", given=b"later\n")
        while tail.stdout.readline() != b"later\n":
            assert tail.poll() is None
        tail.send_signal(signal.SIGINT)
        _, errors = tail.communicate(timeout=COMMAND_S_MAX)

    assert (tail.returncode, errors) == (130, b"")


def test_ctrl_c_ends_producing_although_the_server_hangs(tmp_path: Path, certificates: Path) -> None:
    with server_process(tmp_path, certificates, {"sync": "never"}) as server:
        shell = Shell(server.address, certificates)
        with (
            Client(server.address, tls=TlsFiles.in_folder(certificates, "root-client")) as client,
            shell.start("produce", "--timeout", "60") as process,
        ):
            assert process.stdin is not None
            process.stdin.write(b"first\n")
            process.stdin.flush()
            next(client.follow(0))  # it produces
            os.kill(server.process_id, signal.SIGSTOP)
            try:
                process.stdin.write(b"line\n" * 100_000)  # more than a pipe holds, so most are taken
                process.stdin.flush()
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=ANSWER_S_MAX)
            finally:
                os.kill(server.process_id, signal.SIGCONT)
                process.kill()

    assert process.returncode == 130
    assert re.fullmatch(
        rb"ended early: the first \d+ records are stored, of the next [\d,]+ some may be\n", errors
    )


def test_produce_gives_up_when_its_time_is_over(tmp_path: Path, certificates: Path) -> None:
    with (
        server_process(tmp_path, certificates, {}) as server,
        Shell(server.address, certificates).start("produce", "--timeout", "1") as process,
    ):
        assert process.stdin is not None
        with Client(server.address, tls=TlsFiles.in_folder(certificates, "root-client")) as client:
            process.stdin.write(b"first\n")
            process.stdin.flush()
            next(client.follow(0))  # it produces
            os.kill(server.process_id, signal.SIGSTOP)
            try:
                _, errors = process.communicate(b"second\n", timeout=ANSWER_S_MAX)
            finally:
                os.kill(server.process_id, signal.SIGCONT)
                process.kill()

    assert process.returncode == 1
    assert b"whether it was stored is not known" in errors


def test_a_reader_that_has_seen_enough_is_no_error_worth_a_word(shell: Shell) -> None:
    shell("produce", given=b"x" * 99 + b"\n" + b"y\n" * 200_000)
    with shell.start("consume") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()

    assert errors == b""


def test_the_servers_are_listed_for_people_and_for_programs(shell: Shell) -> None:
    assert shell("servers") == (0, f"one  {shell.address}  leader\n".encode(), b"")
    found = json.loads(shell("servers", "--json")[1])
    assert found == {"name": "one", "address": shell.address, "is_leader": True, "is_voter": True}


# ── what goes wrong is one clear line ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["servers", "--addr", "127.0.0.1:1"], 1, "127.0.0.1:1: Connection refused"),
        (["servers", "--addr", "nowhere"], 2, "--addr nowhere: not host:port, as in localhost:8400"),
        (["servers", "--insecure"], 2, "--insecure and certificates exclude each other; give one of them"),
        (["produce", "--as", "nobody-client", TEXT_FILE], 1,
            "PERMISSION_DENIED: nobody not permitted to produce to *"),
        (["consume", "--as", "nobody-client"], 1, "PERMISSION_DENIED: nobody not permitted to consume to *"),
        (["consume", "--as", "who"], 1, "{certs}/who.pem: no such file; `raftlog certs init` makes one"),
        (["consume", "--group", ""], 2, "--group is empty; give the group a name"),
        (["consume", "--from", "soon"], 2, "--from soon: neither an offset, earliest, latest, nor a time"),
        (["consume", "--from", str(1 << 64)], 2,
            f"--from {1 << 64}: neither an offset, earliest, latest, nor a time"),
        (["consume", "--from", "0001-01-01"], 2,
            "--from 0001-01-01: a time must be of the years 1678 to 2261"),
        (["consume", "--from", "9999-12-31"], 2,
            "--from 9999-12-31: a time must be of the years 1678 to 2261"),
        (["produce", "/nowhere/file"], 1, "/nowhere/file: No such file or directory"),
        (["produce", "/"], 1, "/: Is a directory"),
    ],
)  # fmt: skip
def test_what_the_user_got_wrong_is_one_line(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    line: str,
) -> None:
    for name, value in shell.environment.items():
        monkeypatch.setenv(name, value)

    assert run([str(argument) for argument in arguments]) == code

    expected = f"raftlog: {line.format(certs=shell.certificates)}\n"
    assert capfd.readouterr() == ("", expected)


def test_an_offset_that_does_not_exist_is_named_with_those_that_do(shell: Shell) -> None:
    code, output, errors = shell("consume", "--from", "999999999")

    assert (code, output) == (1, b"")
    assert errors.startswith(b"raftlog: offset 999999999 is outside of the log, which holds 0 to before ")
    assert errors.count(b"\n") == 1


def test_who_gives_no_certificate_is_asked_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["servers", "--addr", "127.0.0.1:1"]) == 2

    asked = "raftlog: who are you? give --certs FOLDER, all three of --tls-*-file, or --insecure\n"
    assert capsys.readouterr().err == asked


def test_a_server_that_does_not_know_us_or_that_we_do_not_know_is_told_at_once(
    shell: Shell, tmp_path: Path
) -> None:
    init_folder(tmp_path, CertificatePlan())
    others, ours = (TlsFiles.in_folder(folder, "root-client") for folder in (tmp_path, shell.certificates))
    stranger = TlsFiles(cert_file=others.cert_file, key_file=others.key_file, ca_file=ours.ca_file)

    require_server(shell.address, ours)
    for tls, words in (
        (others, "its certificate is not trusted: "),
        (stranger, "does not accept this client's certificate|no TLS connection: .*unknown ca"),
        (None, "it wants TLS"),
    ):
        with pytest.raises(Unreachable, match=words):
            require_server(shell.address, tls)
    with pytest.raises(Unreachable, match="Name or service not known|name resolution"):
        require_server("nowhere.invalid:1", ours)
    with pytest.raises(ConfigError, match="not host:port"):
        require_server("nowhere", ours)


# ── serving ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_cleanly_and_what_was_answered_is_in_the_log(
    tmp_path: Path, certificates: Path, number: signal.Signals
) -> None:
    with server_process(tmp_path, certificates, {"sync": "always"}) as server:
        shell = Shell(server.address, certificates)
        with shell.start("consume", "--follow") as tail:
            code, output, _ = shell("produce", "--json", str(TEXT_FILE))
            assert tail.stdout is not None
            tail.stdout.readline()
            os.kill(server.process_id, number)
            os.waitid(os.P_PID, server.process_id, os.WEXITED | os.WNOWAIT)  # a second signal would kill it
            tail.kill()
    # the context raises ServerFailed unless the exit code is 0

    assert code == 0
    lines = TEXT_FILE.read_bytes().splitlines()
    assert json.loads(output)["records"] == len(lines)
    with logstore.Log(tmp_path / "data" / "log", read_only=True) as log:
        assert [record.value for record in log.scan()] == lines


def test_a_server_that_cannot_start_says_why_in_one_line(tmp_path: Path, certificates: Path) -> None:
    with server_process(tmp_path, certificates, {}) as server:
        port = server.address.rpartition(":")[2]
        taken = ["serve", "--insecure", "--data-dir", str(tmp_path / "b"), "--rpc-port", port]
        locked = ["serve", "--insecure", "--data-dir", str(tmp_path / "data"), "--rpc-port", "0"]
        closed = ["--health-port", "off", "--admin-port", "off", "--log-level", "error"]
        shell = Shell(server.address, certificates)
        for name in ("RAFTLOG_CLIENT_ADDR", "RAFTLOG_CLIENT_CERTS"):
            assert name in shell.environment  # they are no settings of a server

        outcomes = [shell(*arguments, *closed) for arguments in (taken, locked)]

    address = f"127.0.0.1:{port}"
    assert outcomes[0] == (
        1, b"", f"raftlog: rpc-port: cannot listen on {address}: Address already in use\n".encode()
    )  # fmt: skip
    assert outcomes[1][0] == 1
    assert f"{tmp_path}/data is in use by process {server.process_id}".encode() in outcomes[1][2]
    assert outcomes[1][2].count(b"\n") == 1


def test_a_server_process_that_does_not_start_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, certificates: Path
) -> None:
    with (
        pytest.raises(ServerFailed, match="unknown key no-such-key"),
        server_process(tmp_path, certificates, {"no-such-key": 1}),
    ):
        pass


# ── the demonstration ───────────────────────────────────────────────────────────────────────────────


def test_the_demo_stores_the_lines_of_a_file_and_finds_them_equal(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo\n\xff\x00\n\n")

    done = subprocess.run(
        [sys.executable, "-m", "raftlog", "demo", str(file), "--json"],
        capture_output=True, check=False, env=ENVIRONMENT, timeout=COMMAND_S_MAX,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert (found["equal"], found["differences"], found["records"]) == (True, [], 4)
    assert {"produce_records_per_s", "consume_records_per_s", "single_ms_median"} <= set(found)


def test_the_demo_ended_by_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    def processes() -> list[bytes]:
        """The command lines that name the folder."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                found.append(file.read_bytes())
        return [line for line in found if os.fsencode(tmp_path) in line]

    command = [sys.executable, "-m", "raftlog", "demo"]
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            deadline = time.monotonic() + COMMAND_S_MAX
            while not processes():  # from the moment in which its server is there
                assert process.poll() is None
                assert time.monotonic() < deadline
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=COMMAND_S_MAX)
        finally:
            process.kill()

    assert (process.returncode, errors, processes(), list(tmp_path.iterdir())) == (143, b"", [], [])


def test_the_demo_of_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "/nowhere/file"]) == 1

    assert capsys.readouterr().err == "raftlog: /nowhere/file: No such file or directory\n"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_demo_ends_with_1_if_anything_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    tampered = Result(differences=["2 records came out, the first difference is at offset 1"])
    monkeypatch.setattr(demo, "play", lambda lines, progress: tampered)

    assert run(["demo", *flags]) == 1

    assert "the first difference is at offset 1" in capsys.readouterr().out


def test_the_demo_notices_a_record_that_comes_out_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    to_pylist: Callable[[Any], list[bytes]] = logstore.RecordBatch.to_pylist
    monkeypatch.setattr(
        logstore.RecordBatch,
        "to_pylist",
        lambda batch: [v.replace(b"two", b"TWO") for v in to_pylist(batch)],
    )

    result = play([b"one", b"two", b"three"], progress=lambda _: None)

    assert result.differences == [
        f"{name}: 3 records came out, 3 went in, the first difference is at offset 1"
        for name in ("n1", "n2", "n3")
    ]
