"""PySyncObj as it is, and made to sync: three processes, whose leader is its own client, for there is no other."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of_package
from pathlib import Path
from typing import Any, Final, Literal

from bench.peers.peer import LOOK_S, START_S_MAX, STOP_S_MAX, ServerMissing
from raftlog.local_cluster import free_ports

Mode = Literal["stock", "synced"]
ROOT: Final = Path(__file__).parent.parent.parent


class Node:
    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def ask(self, *words: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"PySyncObj ended\n{self._log.read_text()}")
        return json.loads(line)


@contextmanager
def leader_of_three(folder: Path, mode: Mode) -> Iterator[Node]:
    """Asked, it does what bench.peers.pysyncobj_node says."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    with ExitStack() as stack:
        nodes = []
        for number, address in enumerate(addresses):
            own = folder / f"p{number + 1}"
            own.mkdir()
            others = ",".join(one for one in addresses if one != address)
            log = own / "server.log"
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.peers.pysyncobj_node", address, others, mode],
                cwd=own, env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                stderr=stack.enter_context(log.open("w")),
            )  # fmt: skip
            stack.callback(_stop, process)
            nodes.append(Node(process, log))
        yield _wait_for_leader(nodes)


def _wait_for_leader(nodes: list[Node]) -> Node:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        for node in nodes:
            if node.ask("leads"):
                return node
        time.sleep(LOOK_S)
    raise TimeoutError(f"PySyncObj has no leader after {START_S_MAX:.0f} s")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def version() -> str:
    try:
        return f"PySyncObj {version_of_package('pysyncobj')}"
    except PackageNotFoundError:
        raise ServerMissing("there is no pysyncobj; `pip install raftlog[pysyncobj]` installs it") from None
