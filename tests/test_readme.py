"""Every block of the README's tour is run, and prints what the README says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from raftlog.local_cluster import free_ports

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text()
COMMAND_S_MAX = 60.0


class Block(NamedTuple):
    language: str
    text: str


def blocks(markdown: str) -> list[Block]:
    return [
        Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    ]


def test_every_block_of_the_tour_runs_and_prints_what_is_shown(tmp_path: Path) -> None:
    [port] = free_ports(1)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAFTLOG_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAFTLOG_RPC_PORT": str(port),
        "RAFTLOG_BIND_ADDR": "127.0.0.1:0",
        "RAFTLOG_HEALTH_PORT": "0",
        "RAFTLOG_ADMIN_PORT": "0",
        "RAFTLOG_CLIENT_ADDR": f"localhost:{port}",
    }
    own = {name: value for name, value in environment.items() if not name.startswith("RAFTLOG_")}
    tour = blocks(README.split("## A tour of five minutes")[1])
    servers: list[subprocess.Popen[str]] = []
    printed = ""

    try:
        for block in tour:
            text = block.text.replace("localhost:8400", f"localhost:{port}")
            if block.language == "text":
                assert printed == text
            elif text.startswith("raftlog serve"):
                servers.append(start_server(text, tmp_path, environment))
            else:
                command = [sys.executable, "-c"] if block.language == "python" else ["sh", "-ec"]
                done = subprocess.run(
                    [*command, text], cwd=tmp_path, env=own if "cluster" in text else environment, capture_output=True, text=True,
                    timeout=COMMAND_S_MAX, check=False,
                )  # fmt: skip
                printed = done.stdout
                assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        codes = [stop(server) for server in servers]
    finally:
        for server in servers:
            server.kill()
            server.communicate()

    assert codes == [0]


def start_server(command: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        ["sh", "-c", f"exec {command}"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    log = ""
    for line in server.stderr:
        log += line
        if "server started" in line:
            return server
    raise AssertionError(f"the server ended:\n{log}")


def stop(server: subprocess.Popen[str]) -> int:
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=COMMAND_S_MAX)
    return server.returncode


def test_ci_runs_exactly_the_test_command_of_the_readme() -> None:
    _demo, tests = blocks(README.split("## Two commands")[1])[:2]

    assert tests.text in (REPOSITORY / ".ci" / "run").read_text()


def test_every_file_that_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)

    assert [link for link in links if not (REPOSITORY / link).exists()] == []
