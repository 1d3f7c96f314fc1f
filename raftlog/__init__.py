"""A replicated commit log for Python: the server, its clients, and the protocols between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftlog.client.async_client import AsyncClient
    from raftlog.client.client import Client
    from raftlog.client.producer import ProducerConfig
    from raftlog.net.tls import TlsFiles

__all__ = ["AsyncClient", "Client", "ProducerConfig", "TlsFiles"]

_HOMES = {
    "AsyncClient": "raftlog.client.async_client",
    "Client": "raftlog.client.client",
    "ProducerConfig": "raftlog.client.producer",
    "TlsFiles": "raftlog.net.tls",
}


def __getattr__(name: str) -> Any:
    """Imported when first used, so that `raftlog --help` does not wait for grpc."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
