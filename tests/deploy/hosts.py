"""Containers as processes of this machine: same commands and settings, with other addresses and folders."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.deploy.assets import stop_s, without_our_variables

START_S_MAX = 90.0  # on a machine with a lot else to do
LOOK_S = 0.1


def free_net() -> str:
    """The first three bytes of addresses of the loopback interface that nobody else listens on."""
    place = random.SystemRandom().randrange(2**14)
    return f"127.{64 + place // 256}.{place % 256}"


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's, with the commands of this environment, and these settings of ours alone."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return without_our_variables() | {"PATH": path} | dict(settings)


class Host:
    """A container that can be started and stopped. Its folder has its log."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        settings: Mapping[str, str],
        check: Sequence[str],
        folder: Path,
    ) -> None:
        """`check` is a command that ends with 0 while the server serves."""
        self.name = name
        self.rpc_address = settings["RAFTLOG_RPC_ADVERTISE_ADDR"]
        self._command = command
        self._environment = environment_with(settings)
        self._check = check
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment,
                cwd=self._folder,
            )  # fmt: skip

    def is_ready(self) -> bool:
        """AssertionError if it has ended."""
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended:\n{self.log()}"
        done = subprocess.run(
            self._check, env=self._environment, capture_output=True, check=False, timeout=30
        )
        return done.returncode == 0

    def run(self, *words: str) -> str:
        """What a command of ours prints within."""
        done = subprocess.run(
            ["raftlog", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.log()}"
        return done.stdout

    def stop(self) -> int:
        """Ask it to stop as an engine does, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(stop_s())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return "\n".join((self._folder / "log").read_text().splitlines()[-20:])


def wait_until(is_so: Callable[[], bool], hosts: Sequence[Host]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while not is_so():
        if time.monotonic() > deadline:
            logs = "\n\n".join(f"{host.name}:\n{host.log()}" for host in hosts)
            raise AssertionError(f"not so within {START_S_MAX:.0f} s\n{logs}")
        time.sleep(LOOK_S)


def wait_until_ready(hosts: Sequence[Host]) -> None:
    wait_until(lambda: all(host.is_ready() for host in hosts), hosts)
