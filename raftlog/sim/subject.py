"""What a protocol has to offer to be run in the simulated world, and what is asked of it.

The world knows the shape of engines (raftlog/engine.py) and nothing more. Everything particular - what is on a disk, what
a client's operation becomes, what must never happen - is behind a `Subject`. tests/raftlog/sim/primary_backup.py is a small
one, to begin from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from raftlog.engine import Engine, NodeId, Reply
from raftlog.sim.disk import Image
from raftlog.sim.models import Request

if TYPE_CHECKING:
    from raftlog.sim.cluster import Cluster
    from raftlog.sim.process import Process


class Violation(Exception):
    """Something happened that the protocol promises never to happen.

    `kind` is constant text: two failures are the same failure when their kinds are equal.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


# ── how an operation ended, as its client sees it ──


class Done(NamedTuple):
    """It took effect; `output` is what the model (raftlog/sim/models.py) says that it answers."""

    output: Any


class NotDone(NamedTuple):
    """It certainly did not take effect and never will. Worth trying at `leader`, if that is known."""

    leader: NodeId | None = None


class Unclear(NamedTuple):
    """It may have taken effect, may do so later, or never."""


Answer = Done | NotDone | Unclear


@dataclass(frozen=True, slots=True)
class Claims:
    """Which faults a protocol claims to survive; others are not tried on it."""

    crashes: bool = True  # of any number of processes, disks kept
    loses_messages: bool = True
    repeats_messages: bool = True
    reorders_messages: bool = True
    clocks_drift: bool = True
    stalls: bool = True  # of disks
    failed_syncs: bool = True
    serves_clients: bool = True  # reads and writes, judged as a history
    # what else a seed may do to it: the name of an act, and about how many of them in 1,000 steps
    acts: tuple[tuple[str, float], ...] = ()


class Subject(Protocol):
    """One protocol, all its nodes together, in one run."""

    def first_nodes(self) -> Sequence[NodeId]:
        """The cluster to begin with."""

    def make_image(self, node: NodeId) -> Image:
        """What is on the disk of a node that never ran."""

    def start(self, process: Process, now: float, random: Random) -> Engine:
        """A node's engine, and whatever it applies to, made anew from what is on its disk."""

    def stopped(self, process: Process) -> None:
        """The process ended; all that it knew is gone, its requests get no reply."""

    def submit(self, process: Process, request: int, operation: Request) -> None:
        """A client's operation reached a node that is up. It ends by `Cluster.answer(request, ...)`, or never."""

    def replied(self, process: Process, reply: Reply) -> None:
        """The engine told the outcome of a request."""

    def emitted(self, process: Process, event: Any) -> None:
        """The engine told its application of this."""

    def apply(self, process: Process, entries: Sequence[Any]) -> int:
        """Take these into the node's machine; the index of the last."""

    def stepped(self, process: Process, event: Any, effects: Sequence[Any]) -> None:
        """After every step, before its effects are carried out: raise Violation if something is not as promised."""

    def sending(self, process: Process, target: NodeId, message: Any) -> None:
        """A message leaves a node now: raise Violation if it vouches for what is not so."""

    def leader(self) -> NodeId | None:
        """Whoever leads now by its own belief, the newest if there are several."""

    def act(self, name: str, choice: int) -> None:
        """Do one of `Claims.acts`; `choice` is a drawn number, to choose by among whatever there is to choose from."""

    def cores(self, random: Random) -> Sequence[NodeId]:
        """Nodes of which the protocol claims that they converge when they alone are up and well."""

    def bears_the_deaf(self) -> bool:
        """Whether a core converges in spite of nodes that it hears and that do not hear it."""

    def has_converged(self, core: Sequence[NodeId]) -> bool:
        """Whether those nodes are in the same state and have nothing left to do."""

    def may_have_happened(self, request: int) -> bool:
        """At the end: whether a request with an unclear outcome took effect, or may have. True is always right, and
        makes histories harder to judge."""

    def finish(self) -> None:
        """Checks of the whole run, at its end."""


SubjectMaker = Callable[["Cluster", int, Random], Subject]


class ProtocolUnderTest(NamedTuple):
    """What is registered under the name of a protocol."""

    claims: Claims
    make: SubjectMaker  # of the cluster, how many nodes, and chance for its settings
