"""Clusters for tests of programs that use raftlog: real servers, and faults that happen when the test says so.

With pytest there is the fixture `cluster`; without, `Cluster` is a context manager. See docs/testing.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftlog.testing.cluster import Cluster, ClusterError

__all__ = ["Cluster", "ClusterError"]


def __getattr__(name: str) -> Any:
    """Imported when first used: pytest loads this package in every run, also where nobody wants a cluster."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raftlog.testing import cluster

    return getattr(cluster, name)
