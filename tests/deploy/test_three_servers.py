"""What compose starts, as processes of this machine: same commands and settings, with other addresses and folders."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from raftlog import Client, TlsFiles
from tests.deploy.assets import IMAGE, compose, compose_nodes, stop_s, without_our_variables

CERTS = "/etc/raftlog/certs"
START_S_MAX = 90.0  # on a machine with a lot else to do
LOOK_S = 0.1


class Host:
    """A container of compose, as a process with an address of its own on the loopback interface."""

    def __init__(
        self, name: str, service: dict[str, Any], translate: Callable[[str], str], folder: Path
    ) -> None:
        self.name = name
        self.address = translate(f"{name}:").removesuffix(":")
        self._service = service
        self._folder = folder
        folder.mkdir()

        def own(text: str) -> str:
            return (
                translate(text).replace("0.0.0.0", self.address).replace("/var/lib/raftlog", f"{folder}/data")
            )

        file = folder / "raftlog.toml"
        file.write_text(own((IMAGE / "raftlog.toml").read_text()))
        settings = {
            variable: str(value) if variable == "RAFTLOG_NODE_NAME" else own(str(value))
            for variable, value in service["environment"].items()
        }
        self.environment = (
            without_our_variables()
            | settings
            | {"RAFTLOG_CONFIG_FILE": str(file), "RAFTLOG_ADMIN_HOST": self.address}
        )
        self.rpc_address = self.environment["RAFTLOG_RPC_ADVERTISE_ADDR"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "raftlog", *self._service["command"]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self._folder,
            )  # fmt: skip

    def is_healthy(self) -> bool:
        """By compose's own check; AssertionError if the server has ended."""
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended:\n{self.log()}"
        kind, program, *arguments = self._service["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        command = [word.replace("/usr/local/lib/raftlog", str(IMAGE)) for word in arguments]
        done = subprocess.run(
            [sys.executable, *command], env=self.environment, capture_output=True, check=False, timeout=30
        )
        return done.returncode == 0

    def run(self, *words: str) -> str:
        """What a command prints, run as by `docker compose exec`."""
        done = subprocess.run(
            [sys.executable, "-m", "raftlog", *words], env=self.environment, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.log()}"
        return done.stdout

    def stop(self) -> int:
        """Ask it to stop as Docker does, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(stop_s())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return "\n".join((self._folder / "log").read_text().splitlines()[-20:])


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Those of the file, with the certificates that its first service makes, not started."""
    place = random.SystemRandom().randrange(2**14)
    net = f"127.{64 + place // 256}.{place % 256}"  # of this test alone, so that its ports are free
    certs = tmp_path / "certs"
    certs.mkdir()

    def translate(text: str) -> str:
        return re.sub(r"\braftlog-(\d)(?=[:\s]|$)", rf"{net}.\1", text).replace(CERTS, str(certs))

    secrets = compose()["services"]["secrets"]
    subprocess.run(
        [*secrets["entrypoint"], translate(secrets["command"][0])],
        env=without_our_variables() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=True, timeout=60,
    )  # fmt: skip
    with ExitStack() as stack:
        found = []
        for name, service in compose_nodes().items():
            found.append(Host(name, service, translate, tmp_path / name))
            stack.callback(found[-1].kill)
        yield found


def wait_until(is_so: Callable[[], bool], hosts: list[Host]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while not is_so():
        if time.monotonic() > deadline:
            logs = "\n\n".join(f"{host.name}:\n{host.log()}" for host in hosts)
            raise AssertionError(f"not so within {START_S_MAX:.0f} s\n{logs}")
        time.sleep(LOOK_S)


def test_three_servers_become_a_cluster_and_stay_one_while_each_is_restarted(
    hosts: list[Host], tmp_path: Path
) -> None:
    tls = TlsFiles.in_folder(tmp_path / "certs", "root-client")
    names = [host.name for host in hosts]
    for host in hosts:
        host.start()
    wait_until(lambda: all(host.is_healthy() for host in hosts), hosts)

    with Client([host.rpc_address for host in hosts], tls=tls) as client:

        def voters() -> list[str]:
            return sorted(server.name for server in client.servers() if server.is_voter)

        wait_until(lambda: voters() == names, hosts)
        for offset, host in enumerate(hosts):
            assert client.append(host.name.encode()) == offset
            assert host.stop() == 0
            host.start()
            wait_until(lambda: all(each.is_healthy() for each in hosts), hosts)

        assert [client.read(offset).value.decode() for offset in range(3)] == names
        assert voters() == names
    clusters = {json.loads(line)["cluster_id"] for line in hosts[1].run("status", "--json").splitlines()}
    assert len(clusters) == 1
    assert [host.stop() for host in hosts] == [0, 0, 0]
