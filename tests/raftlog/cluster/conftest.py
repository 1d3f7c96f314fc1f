from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.raftlog.cluster.servers import Network, Servers, serving, serving_by_proxies


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three servers in processes of their own, with mutual TLS; the tests of a module share them."""
    with serving(Servers(tmp_path_factory.mktemp("three")), 3) as servers:
        yield servers


@pytest.fixture(scope="module")
def whole_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("proxies find out who calls them by /proc, which only Linux has")
    with serving_by_proxies(tmp_path_factory.mktemp("network"), 3) as network:
        yield network


@pytest.fixture
def network(whole_network: Network) -> Iterator[Network]:
    """Three servers that know each other by the addresses of proxies; the tests of a module share them."""
    yield whole_network
    whole_network.proxies.heal()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
