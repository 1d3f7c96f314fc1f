"""Faults drawn at random, one after another: of one server while the others go on, or of as many as stop all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

from raftlog import Client
from tests.raftlog.cluster.servers import Network

FAULT_S_MIN: Final = 0.1  # how long a fault lasts
FAULT_S_MAX: Final = 3.0


class Chaos:
    """`history` says what was done, a line for each fault."""

    def __init__(self, network: Network, random: Random) -> None:
        self._servers, self._proxies = network
        self._random = random
        self.history: list[str] = []

    def strike(self) -> None:
        """Let one fault happen, and repair it."""
        faults: list[Callable[[list[str]], None]] = [
            self._kill, self._kill, self._pause, self._cut_off, self._cut_off, self._deafen, self._mute, self._restart,
            self._transfer, self._wipe,
        ]  # fmt: skip
        fault = self._random.choice(faults)
        names = sorted(self._servers.servers)
        if self._random.random() < 0.5:
            struck = [self._servers.leader()]
        else:
            struck = self._random.sample(names, self._random.choice([1, 1, 1, 2, 3]))
        self.history.append(f"{fault.__name__.strip('_')} {', '.join(struck)}")
        fault(struck)

    def _kill(self, struck: list[str]) -> None:
        for name in struck:
            self._servers.servers[name].kill()
        self._wait()
        self._servers.start()

    def _restart(self, struck: list[str]) -> None:
        for name in struck:
            self._servers.servers[name].stop()
            self._servers.restart(name)

    def _pause(self, struck: list[str]) -> None:
        for name in struck:
            self._servers.servers[name].pause()
        self._wait()
        for name in struck:
            self._servers.servers[name].resume()

    def _cut_off(self, struck: list[str]) -> None:
        """Each of them from all others."""
        with self._cut({(one, other) for one, other in self._pairs() if one in struck or other in struck}):
            self._wait()

    def _deafen(self, struck: list[str]) -> None:
        with self._cut({(one, other) for one, other in self._pairs() if other in struck}):
            self._wait()

    def _mute(self, struck: list[str]) -> None:
        with self._cut({(one, other) for one, other in self._pairs() if one in struck}):
            self._wait()

    def _transfer(self, struck: list[str]) -> None:
        with Client(list(self._servers.advertised.values()), tls=self._servers.tls, timeout_s=30.0) as client:
            client.transfer_leadership()

    def _wipe(self, struck: list[str]) -> None:
        """One of them: with the disks of two gone, so is what they had acknowledged."""
        name = struck[0]
        self._servers.wait_for_voters(*self._servers.servers)
        self._servers.servers[name].kill()
        shutil.rmtree(self._servers.servers[name].folder / "data")
        self._servers.restart(name)
        self._servers.wait_for_voters(*self._servers.servers)

    @contextmanager
    def _cut(self, directions: set[tuple[str, str]]) -> Iterator[None]:
        self._proxies.cut(directions)
        try:
            yield
        finally:
            self._proxies.heal()

    def _pairs(self) -> list[tuple[str, str]]:
        names = sorted(self._servers.servers)
        return [(one, other) for one in names for other in names if one != other]

    def _wait(self) -> None:
        time.sleep(self._random.uniform(FAULT_S_MIN, FAULT_S_MAX))  # the length of a fault
