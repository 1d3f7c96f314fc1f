"""Servers in network namespaces of their own, joined by a bridge: what is cut between them is cut as by a cable.

the tests' namespace      bridge with BRIDGE_HOST
that of n1                10.77.x.1, joined by a pair of virtual interfaces, and so on
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

BRIDGE_HOST: Final = 254


class NoNamespaces(Exception):
    """This user may not make any here. The text says what failed."""


class Namespaces:
    """Named after this process, so that several may run on one machine."""

    def __init__(self, names: Sequence[str]) -> None:
        self._tag = f"{os.getpid() % 100_000}"
        self._subnet = f"10.77.{os.getpid() % 250}"
        self._bridge = f"rlb{self._tag}"
        self.hosts = {name: f"{self._subnet}.{number}" for number, name in enumerate(names, start=1)}

    def prefix(self, name: str) -> tuple[str, ...]:
        """The command that runs another one in a server's namespace."""
        return ("ip", "netns", "exec", self._namespace(name))

    def unplug(self, name: str) -> None:
        """Nothing reaches the server or comes from it, and nobody is told."""
        _ip("link", "set", self._interface(name), "down")

    def plug_in(self, name: str) -> None:
        _ip("link", "set", self._interface(name), "up")

    @contextmanager
    def made(self) -> Iterator[None]:
        """NoNamespaces if that is not possible."""
        with ExitStack() as stack:
            _ip("link", "add", self._bridge, "type", "bridge")
            stack.callback(_ip, "link", "del", self._bridge)
            _ip("addr", "add", f"{self._subnet}.{BRIDGE_HOST}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for name, host in self.hosts.items():
                namespace, outside = self._namespace(name), self._interface(name)
                _ip("netns", "add", namespace)
                stack.callback(_ip, "netns", "del", namespace)  # which removes the interfaces
                _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
                _ip("link", "set", outside, "master", self._bridge, "up")
                _ip("-n", namespace, "addr", "add", f"{host}/24", "dev", "eth0")
                for interface in ("lo", "eth0"):
                    _ip("-n", namespace, "link", "set", interface, "up")
            yield

    def _namespace(self, name: str) -> str:
        return f"raftlog-{self._tag}-{name}"

    def _interface(self, name: str) -> str:
        return f"rlv{self._tag}{name}"


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NoNamespaces("there is no command ip") from error
    except subprocess.CalledProcessError as error:
        raise NoNamespaces(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from error
