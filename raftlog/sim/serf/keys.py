"""An operator who replaces the key of the encryption while the cluster runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from raftlog.engine import NodeId
from raftlog.serf.events import ChangeKeys, KeyAction, KeysResult
from raftlog.sim.process import Process
from raftlog.sim.serf.host import Requests

Everybody = Callable[[], Sequence[Process] | None]  # all nodes there are; None if some are down


class Keys:
    """A new key is installed, then used, then the old one removed: each by all, before the next is begun.

    Whoever is down meanwhile would come back without the new key, so then the operator stops half way. That is safe: all
    have the keys that anybody uses. Newcomers get all keys that everybody has, and the one that is being installed.
    """

    def __init__(
        self, requests: Requests, random: Random, everybody: Everybody, *, is_encrypted: bool
    ) -> None:
        self._requests = requests
        self._random = random
        self._everybody = everybody
        self.keys: list[bytes] = [self._draw()] if is_encrypted else []  # that everybody has, primary first
        self._installing: list[bytes] = []  # keys that some have already: at most one
        self._asked: NodeId | None = None  # by whom the keys are being changed now

    def _draw(self) -> bytes:
        return self._random.getrandbits(128).to_bytes(16, "big")

    def handed_out(self) -> list[bytes]:
        """What whoever comes gets: who has answered already and comes back must not be the only one without the new key."""
        return [*self.keys, *self._installing]

    def stopped(self, node: NodeId) -> None:
        """What was asked of it is over, whatever came of it."""
        if node == self._asked:
            self._asked = None

    def rotate(self, process: Process) -> None:
        """Ask this node for it, unless a rotation runs, or some node is down, or nothing is encrypted."""
        if self.keys and self._asked is None:
            new = self._draw()
            self._installing = [new]
            self._asked = process.node
            self._step(
                process,
                [(KeyAction.INSTALL, new), (KeyAction.USE, new), (KeyAction.REMOVE, self.keys[0])],
            )

    def _step(self, process: Process, steps: list[tuple[KeyAction, bytes]]) -> None:
        nodes = self._everybody()
        if nodes is None or not steps:
            self._asked = None
            return
        action, key = steps[0]

        def ended(outcome: Any) -> None:
            if self._everybody() == nodes and _is_done_by(outcome, len(nodes)):
                self._done(action, key)
                self._step(process, steps[1:])
            else:
                self._asked = None

        self._requests.ask(process, lambda request: ChangeKeys(request, action, key), ended)

    def _done(self, action: KeyAction, key: bytes) -> None:
        match action:
            case KeyAction.INSTALL:
                self.keys.append(key)
                self._installing.clear()
            case KeyAction.USE:
                self.keys.remove(key)
                self.keys.insert(0, key)
            case KeyAction.REMOVE:
                self.keys.remove(key)
            case _:
                raise AssertionError(action)


def _is_done_by(outcome: Any, count: int) -> bool:
    if not isinstance(outcome, KeysResult) or outcome.errors:
        return False
    return outcome.answers == outcome.members == count
