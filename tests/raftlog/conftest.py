from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.server.acl import default_files

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
