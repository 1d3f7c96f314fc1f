"""Servers in processes of their own: for demonstrations, measurements, tests, and local clusters.

Each has a folder:

    raftlog.json   its settings
    data/          its data; LOCK there is held as long as it runs
    server.log     what it says, as JSON lines
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from logstore.errors import LogLocked
from logstore.filesystem import OsFileSystem
from raftlog.errors import RaftlogError

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 30.0
LOOK_S: Final = 0.02  # between two looks at what a server says, or whether it has ended
LOCK_S_MAX: Final = 5.0  # for a process that has locked its data to say which it is
TAIL_LINES_MAX: Final = 20  # of the server's log, shown when it fails
LOG_BYTES_MAX: Final = 16 * 1024 * 1024  # beyond it the next start begins a new one, and keeps this as .1

SETTINGS: Final = "raftlog.json"
DATA: Final = "data"
LOG: Final = "server.log"


class ServerFailed(RaftlogError):
    """The server did not start, or did not stop."""


def write_settings(folder: Path, certs: Path, settings: Mapping[str, object]) -> None:
    """Settings of a server on free ports of the loopback interface, with certificates that `raftlog certs init` made.

    `settings` are keys of the configuration, which override these.
    """
    content: dict[str, object] = {
        "data-dir": str(folder / DATA), "bind-addr": "127.0.0.1:0", "rpc-port": 0, "health-port": 0, "admin-port": 0,
        "log-format": "json",
    }  # fmt: skip
    for side in ("server", "peer"):
        content |= {
            f"{side}-tls-cert-file": str(certs / f"{side}.pem"),
            f"{side}-tls-key-file": str(certs / f"{side}-key.pem"),
            f"{side}-tls-ca-file": str(certs / "ca.pem"),
        }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(json.dumps({**content, **settings}, indent=1) + "\n")


def read_settings(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / SETTINGS).read_text())
    if not isinstance(content, dict):
        raise ServerFailed(f"{folder / SETTINGS}: not a server's settings")
    return content


def process_of(folder: Path) -> int | None:
    """Id of the process that uses the data in `folder`, whoever started it; None if there is none."""
    path = folder / DATA / "LOCK"
    deadline = time.monotonic() + LOCK_S_MAX
    while path.exists():
        try:
            OsFileSystem().lock(str(path)).close()
        except LogLocked as locked:
            if locked.pid is not None:
                return locked.pid
            if time.monotonic() > deadline:
                raise ServerFailed(f"{path} is held by a process that does not say which it is") from locked
            time.sleep(LOOK_S)  # it is about to write its id
        else:
            return None
    return None


def end_process(folder: Path) -> bool:
    """Stop the server in `folder`, whoever started it; False if none runs. ServerFailed if it does not end in time."""
    process_id = process_of(folder)
    if process_id is None:
        return False
    os.kill(process_id, signal.SIGCONT)  # one that was paused would not hear
    os.kill(process_id, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S_MAX
    while process_of(folder) is not None:
        if time.monotonic() > deadline:
            os.kill(process_id, signal.SIGKILL)
            raise ServerFailed(
                f"{folder}: process {process_id} did not stop within {STOP_S_MAX:.0f} s; it was killed"
            )
        time.sleep(LOOK_S)
    return True


class ServerProcess:
    """A server that is started, and may be paused, killed and started again, by this process."""

    def __init__(self, folder: Path, *, prefix: Sequence[str] = ()) -> None:
        """Its settings are in `folder`; see `write_settings`. `prefix`: a command that becomes the server, such as nice."""
        self.folder = folder
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        # No signal interrupts this thread: what it was told to start is known, and so is stopped.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="server-starter")
        self._starter.submit(_nothing).result()  # it is there from now on
        self._log_start = 0  # bytes of its log that are of earlier runs
        self._address: str | None = None

    # ── starting ────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to start it; `address` waits until it listens. Nothing is done if it runs."""
        if self.is_running:
            return
        log = self.folder / LOG
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        self._log_start = log.stat().st_size if log.exists() else 0
        self._address = None
        self._starter.submit(self._spawn).result()

    def _spawn(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAFT")}
        serve = [sys.executable, "-m", "raftlog", "serve", "--config-file", str(self.folder / SETTINGS)]
        with (self.folder / LOG).open("ab") as log:
            # A session of its own: Ctrl-C reaches us alone, and we stop the server.
            self._process = subprocess.Popen(
                [*self._prefix, *serve],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    @property
    def address(self) -> str:
        """Where it serves, once it does; ServerFailed with the end of its log if it ends or takes too long."""
        deadline = time.monotonic() + START_S_MAX
        while self._address is None:
            is_running = self.is_running  # before its log is read: what it says last counts
            self._address = self._started_at()
            if self._address is not None:
                break
            if not is_running:
                raise ServerFailed(f"the server did not start\n{self.tail}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"the server did not start within {START_S_MAX:.0f} s\n{self.tail}")
            time.sleep(LOOK_S)
        return self._address

    def _started_at(self) -> str | None:
        for line in self._said():
            if b'"server started"' in line and line.endswith(b"\n"):
                return str(json.loads(line)["rpc"])
        return None

    def _said(self) -> list[bytes]:
        """The lines of its log since it was started."""
        with (self.folder / LOG).open("rb") as log:
            log.seek(self._log_start)
            return log.readlines()

    @property
    def tail(self) -> str:
        """The last lines of its log."""
        return "".join(line.decode(errors="replace") for line in self._said()[-TAIL_LINES_MAX:]).rstrip()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int:
        assert self._process is not None, "it was never started"
        return self._process.pid

    # ── what can befall it ──────────────────────────────────────────────────────────────────────────

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        self._know()
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Let it do nothing until `resume`; its connections stay open."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop, and wait; ServerFailed if it takes too long or its exit code is not 0. No error if it ended."""
        self._know()
        process = self._process
        if process is None:
            return
        self.resume()
        self._send(signal.SIGTERM)
        try:
            code = process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"the server did not stop within {STOP_S_MAX:.0f} s\n{self.tail}") from None
        # By SIGTERM: it had not begun to listen to signals.
        if code not in (0, -signal.SIGKILL, -signal.SIGTERM):
            raise ServerFailed(f"the server ended with exit code {code}\n{self.tail}")

    def leave_running(self) -> None:
        """It goes on when this process has ended."""
        if self._process is not None:
            self._process.returncode = 0  # else Python complains of a child that nobody waited for
            self._process = None

    def _know(self) -> None:
        """Wait until a start that was interrupted is over."""
        self._starter.submit(_nothing).result()

    def _send(self, number: signal.Signals) -> None:
        if self.is_running:
            assert self._process is not None
            self._process.send_signal(number)


def _nothing() -> None:
    pass


@contextmanager
def server_process(folder: Path, certs: Path, settings: Mapping[str, object]) -> Iterator[ServerProcess]:
    """A cluster of one server with its files in `folder`; it serves when the context begins.

    `settings` are keys of the configuration. Raises ServerFailed if it does not start, or does not stop cleanly.
    """
    write_settings(folder, certs, {"bootstrap": True, **settings})
    server = ServerProcess(folder)
    try:
        server.start()
        _ = server.address
    except BaseException:
        server.kill()
        raise
    try:
        yield server
    finally:
        server.stop()
