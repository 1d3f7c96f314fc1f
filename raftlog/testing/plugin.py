"""The pytest plugin: the fixture `cluster`. It imports nothing of raftlog until a test asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from raftlog.testing.cluster import Cluster

MARKER: Final = "raftlog_cluster"
OPTIONS: Final = ("nodes", "tls", "settings")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(nodes=3, tls=False, settings=None): what the fixture `cluster` is to be; settings are keys of the "
        "configuration of its servers",
    )


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A raftlog cluster of three real servers in this process, with a leader; see raftlog.testing.Cluster."""
    from raftlog.testing.cluster import Cluster

    marker = request.node.get_closest_marker(MARKER)
    options = dict(marker.kwargs) if marker is not None else {}
    if marker is not None and (marker.args or not options.keys() <= set(OPTIONS)):
        raise pytest.UsageError(f"{MARKER} takes {', '.join(OPTIONS)}, by keyword")
    with Cluster(tmp_path_factory.mktemp("raftlog-cluster"), **options) as cluster:
        yield cluster
