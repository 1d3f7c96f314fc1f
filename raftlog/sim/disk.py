"""A node's disk: writes take time, and a crash loses what was not synced.

One sync runs at a time and carries all writes that waited when it began, as a real log does (group commit). A crash
leaves a prefix of the writes that were not yet durable, and perhaps a part of the next one: writes reach the platter in
order, but nobody knows how many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from raftlog.engine import Token
from raftlog.sim.world import World


class Image(Protocol):
    """What is durable of one node, in the form that its protocol needs. Declared here, made by each protocol."""

    def write(self, write: Any) -> None:
        """Carry out a write as a whole."""

    def write_torn(self, write: Any, random: Random) -> None:
        """A crash met this write: carry out what the protocol must bear, nothing at least."""


@dataclass(frozen=True, slots=True)
class DiskSpeed:
    """How long a sync takes, in microseconds: at least, and at most on top."""

    sync_us: int
    jitter_us: int


class Disk:
    """Survives its node's crashes."""

    def __init__(self, world: World, image: Image, speed: DiskSpeed, random: Random) -> None:
        self.image = image
        self.speed = speed
        self._world = world
        self._random = random
        self._waiting: list[tuple[Token, Any]] = []  # written, no sync begun
        self._syncing: list[tuple[Token, Any]] = []  # carried by the sync that runs
        self._sync = 0  # the number of the sync that runs or ran last; a crash makes it stale
        self._stalled_until_us = 0
        self._fails_next = False
        self._on_durable: Callable[[Token], None] | None = None
        self._on_failure: Callable[[], None] | None = None

    def open(self, on_durable: Callable[[Token], None], on_failure: Callable[[], None]) -> None:
        """A process begins to use it: it is told of each write that became durable, or that a sync failed."""
        self._on_durable = on_durable
        self._on_failure = on_failure

    def submit(self, token: Token, write: Any) -> None:
        self._waiting.append((token, write))
        if not self._syncing:
            self._begin_sync()

    def stall(self, duration_us: int) -> None:
        """Syncs that would end before then end only then."""
        self._stalled_until_us = self._world.now_us + duration_us

    def fail_next_sync(self) -> None:
        self._fails_next = True

    def heal(self) -> None:
        """No more stalls and failures; what stalls goes on."""
        self._fails_next = False
        self._stalled_until_us = 0
        if self._syncing:
            self._sync += 1  # takes the place of the one that is stalled
            self._world.after(self.speed.sync_us, self._end_sync, self._sync)

    def crash(self) -> None:
        """Nobody is told of anything any more; what was not durable is decided."""
        unsynced = self._syncing + self._waiting
        self._syncing, self._waiting = [], []
        self._sync += 1
        self._on_durable = self._on_failure = None
        if not unsynced:
            return
        done = self._random.randrange(len(unsynced) + 1)
        for _, write in unsynced[:done]:
            self.image.write(write)
        if done < len(unsynced) and self._random.random() < 0.5:
            self.image.write_torn(unsynced[done][1], self._random)

    def _begin_sync(self) -> None:
        self._syncing, self._waiting = self._waiting, []
        self._sync += 1
        duration_us = self.speed.sync_us + int(self.speed.jitter_us * self._random.random())
        self._world.after(duration_us, self._end_sync, self._sync)

    def _end_sync(self, sync: int) -> None:
        if sync != self._sync:
            return
        stalled_us = self._stalled_until_us - self._world.now_us
        if stalled_us > 0:
            self._world.after(stalled_us, self._end_sync, sync)
            return
        if self._fails_next:
            self._fails_next = False
            if self._on_failure is not None:
                self._on_failure()
            return
        done, self._syncing = self._syncing, []
        for _, write in done:
            self.image.write(write)
        on_durable = self._on_durable
        for token, _ in done:
            if self._on_durable is not on_durable or on_durable is None:
                return  # the process ended meanwhile
            on_durable(token)
        if self._waiting and not self._syncing:
            self._begin_sync()
