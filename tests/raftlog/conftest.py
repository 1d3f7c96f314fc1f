from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raftlog import Client, TlsFiles, config_sources
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.server.acl import default_files
from tests.raftlog.configuring import Write

if TYPE_CHECKING:
    from raftlog.agent import Agent
    from tests.raftlog.fake_membership import Command, MembershipServer, Serve

DEADLINE_S = 10.0  # of a condition that a test waits for; far more than any needs


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `raftlog certs init` makes it. Tests that change files work on a copy."""
    folder = tmp_path_factory.mktemp("certificates")
    init_folder(folder, CertificatePlan(), extra_files=default_files())
    return folder


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition; fails the test if it does not come true in time."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.001)

    return wait


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No variables of ours, and a working folder, home and /etc without files."""
    for variable in [name for name in os.environ if name.startswith("RAFT")]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    here = config_sources.search_paths

    def without_etc() -> list[Path]:
        return [tmp_path / "etc" / path.name if path.is_relative_to("/etc") else path for path in here()]

    monkeypatch.setattr(config_sources, "search_paths", without_etc)
    return tmp_path


@pytest.fixture
def write(nowhere: Path) -> Write:
    """Writes a file below the folder of `nowhere`."""

    def write_file(name: str, text: str) -> Path:
        path = nowhere / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def agent(tmp_path: Path, certificates: Path) -> Iterator[Agent]:
    """A server on the loopback interface, in a thread."""
    from tests.raftlog.serving import server_in_thread

    with server_in_thread(tmp_path, certificates) as agent:
        yield agent


@pytest.fixture
def client(agent: Agent, certificates: Path) -> Iterator[Client]:
    """A client of `agent` that may do everything."""
    with Client(agent.rpc_address, tls=TlsFiles.in_folder(certificates, "root-client")) as client:
        yield client


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts the server of stand-ins that commands then connect to."""
    from tests.raftlog.fake_membership import membership_server

    with ExitStack() as servers:

        def start(**asked: Any) -> MembershipServer:
            server = servers.enter_context(membership_server(tmp_path, **asked))
            monkeypatch.setenv("RAFTLOG_CLIENT_ADDR", server.address)
            return server

        yield start


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command; its output. What it says on stderr has to be `errors`."""
    from raftlog.cli import run

    def run_command(*arguments: str, code: int = 0, errors: str = "") -> str:
        found = run([*arguments, "--insecure"])
        output, said = capfd.readouterr()
        assert (found, said) == (code, errors), output
        return output

    return run_command
