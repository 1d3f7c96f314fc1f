from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.raftlog.cluster.servers import Servers, serving


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three servers in processes of their own, with mutual TLS; the tests of a module share them."""
    with serving(Servers(tmp_path_factory.mktemp("three")), 3) as servers:
        yield servers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
