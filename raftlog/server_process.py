"""A server in a process of its own, for as long as a context lasts: for demonstrations and measurements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from raftlog.errors import RaftlogError

START_S_MAX: Final = 30.0
STOP_S_MAX: Final = 30.0
TAIL_LINES_MAX: Final = 20  # of the server's log, shown when it fails


class ServerFailed(RaftlogError):
    """The server did not start, or did not stop."""


class ServerProcess:
    """A running server: where it listens, and its process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process_id = process.pid
        self._lines: deque[str] = deque(maxlen=TAIL_LINES_MAX)
        self._address: Future[str] = Future()
        assert process.stderr is not None
        # Somebody must read what the server says, lest it wait.
        self._listener = threading.Thread(target=self._listen, args=(process.stderr,), daemon=True)
        self._listener.start()

    @property
    def address(self) -> str:
        """Once the server listens; ServerFailed with the end of its log if it ends or takes too long."""
        try:
            return self._address.result(START_S_MAX)
        except TimeoutError:
            raise ServerFailed(f"the server did not start within {START_S_MAX:.0f} s\n{self.tail}") from None

    @property
    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self._lines)

    def join(self) -> None:
        """Wait until all that the server said has been read; it must have ended."""
        self._listener.join()

    def _listen(self, log: IO[bytes]) -> None:
        for line in log:
            self._lines.append(line.decode(errors="replace").rstrip())
            if b'"server started"' in line:
                self._address.set_result(json.loads(line)["rpc"])
        if not self._address.done():
            self._address.set_exception(ServerFailed(f"the server did not start\n{self.tail}"))


@contextmanager
def server_process(folder: Path, certs: Path, settings: Mapping[str, object]) -> Iterator[ServerProcess]:
    """A server with its data in `folder` and the certificates of `certs`, on free ports of the loopback interface.

    `settings` are keys of the configuration. Raises ServerFailed if it does not start, or does not stop cleanly.
    """
    config = folder / "raftlog.json"
    config.write_text(
        json.dumps(
            {
                "data-dir": str(folder / "data"), "bind-addr": "127.0.0.1:0", "rpc-port": 0, "health-port": 0,
                "admin-port": 0, "log-format": "json", "server-tls-cert-file": str(certs / "server.pem"),
                "server-tls-key-file": str(certs / "server-key.pem"), "server-tls-ca-file": str(certs / "ca.pem"),
                **settings,
            }
        )
    )  # fmt: skip
    command = [sys.executable, "-m", "raftlog", "serve", "--config-file", str(config)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAFTLOG_")}
    with ThreadPoolExecutor(1) as starter:
        # By a thread, since no signal interrupts it: what was started is known, and so is stopped.
        # A session of its own: Ctrl-C reaches us alone, and we stop the server.
        started = starter.submit(
            subprocess.Popen, command, stderr=subprocess.PIPE, env=environment, start_new_session=True
        )
        server = None
        try:
            server = ServerProcess(started.result())
            _ = server.address
            yield server
        finally:
            with started.result() as process:
                server = server or ServerProcess(process)
                process.terminate()
                try:
                    code = process.wait(STOP_S_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
                    server.join()
                    raise ServerFailed(
                        f"the server did not stop within {STOP_S_MAX:.0f} s\n{server.tail}"
                    ) from None
                server.join()  # before its pipe is closed
        if code:
            raise ServerFailed(f"the server ended with exit code {code}\n{server.tail}")
