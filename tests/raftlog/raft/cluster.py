"""Raft nodes that are driven by hand: no message arrives, no time passes, no disk stalls unless a test says so.

What a disk is asked to write is durable at once, unless the test holds it. After every step the helper checks, beside the
node's own invariants, what the whole cluster promises: one leader per term, and one entry per applied index.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, NamedTuple

from raftlog.engine import (
    Applied,
    Apply,
    Effect,
    NodeId,
    Note,
    Persist,
    Persisted,
    Receive,
    Reply,
    Send,
    Token,
    Wake,
)
from raftlog.raft import RaftConfig, RaftNode, Role, invariants
from raftlog.raft.configuration import Configuration, ConfigurationChange
from raftlog.raft.events import Campaign, ChangeConfiguration, Propose, Read, TransferLeadership
from raftlog.raft.leader import Leader
from raftlog.raft.memory import MemoryStorage
from raftlog.raft.messages import Entry, Message, Snapshot
from raftlog.raft.progress import Progress
from raftlog.raft.storage import Write
from tests.raftlog.raft.builders import CONFIG, N1, SEED

# delivered by one `settle`: no story needs as many, so beyond it two nodes talk for ever
MESSAGES_MAX = 20_000


class Letter(NamedTuple):
    """A message on its way."""

    sender: NodeId
    to: NodeId
    message: Message


@dataclass(slots=True)
class Server:
    """A node with its disk and what came out of it."""

    node: RaftNode
    storage: MemoryStorage
    is_disk_held: bool = False
    is_applying_held: bool = False
    is_up: bool = True
    unwritten: deque[Persist[Write]] = field(default_factory=deque)
    unsent: list[Send[Message]] = field(default_factory=list)  # wait for the disk
    durable: Token = Token(0)
    unapplied: deque[int] = field(default_factory=deque)
    applied: list[Entry] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


class Cluster:
    def __init__(
        self,
        voters: int | Sequence[NodeId] = 3,
        *,
        learners: Sequence[NodeId] = (),
        outside: Sequence[NodeId] = (),
        storages: Mapping[NodeId, MemoryStorage] | None = None,
        config: RaftConfig = CONFIG,
        **settings: Any,
    ) -> None:
        """Nodes with empty disks or the given ones; `outside` are up, know the first configuration, and are not in it.

        `settings` are RaftConfig's.
        """
        names = [NodeId(f"n{number + 1}") for number in range(voters)] if isinstance(voters, int) else voters
        self.configuration = Configuration(tuple(sorted(names)), learners=tuple(sorted(learners)))
        self.config = replace(config, **settings)
        self.now = 0.0
        self.letters: list[Letter] = []  # on their way, in the order in which they left
        self.cut: set[tuple[NodeId, NodeId]] = set()  # what goes from the first to the second is lost
        self.leaders: dict[int, NodeId] = {}  # of each term
        # Term and data of each index that any node has applied
        self.chosen: dict[int, tuple[int, bytes]] = {}
        self.servers: dict[NodeId, Server] = {}
        self._request = 0
        for name in [*sorted([*names, *learners]), *outside]:
            known = (storages or {}).get(name)
            self._start(name, known if known is not None else MemoryStorage(self.configuration))

    def _start(self, name: NodeId, storage: MemoryStorage) -> None:
        node = RaftNode(name, self.config, storage, Random(f"{SEED} {name} {self.now}"), self.now)
        self.servers[name] = Server(node, storage)

    def __getitem__(self, name: NodeId) -> RaftNode:
        return self.servers[name].node

    # ── one node ────────────────────────────────────────────────────────────────────────────────────

    def step(self, name: NodeId, event: object) -> None:
        """Take in an event, and carry out all that comes of it on this node; what it sends stays on its way."""
        assert self.servers[name].is_up, f"{name} is down"
        self.servers[name].node.step(event, self.now)
        self.drain(name)

    def drain(self, name: NodeId) -> list[Effect]:
        """Carry out what the node wants done, until it wants no more. Returns it."""
        server, all_effects = self.servers[name], list[Effect]()
        while effects := server.node.drain():
            all_effects += effects
            for effect in effects:
                match effect:
                    case Persist():
                        server.unwritten.append(effect)
                    case Send():
                        server.unsent.append(effect)
                    case Apply():
                        self._apply(server, effect.entries)
                    case Reply():
                        server.replies.append(effect)
                    case Note():
                        server.notes.append(effect)
            self._post(name)
            if not server.is_disk_held:
                self.persist(name)
            if not server.is_applying_held and server.unapplied:
                self._applied(name)
            self._check(name)
        return all_effects

    def _post(self, name: NodeId) -> None:
        server = self.servers[name]
        for send in list(server.unsent):
            if send.after is None or send.after <= server.durable:
                server.unsent.remove(send)
                self.letters.append(Letter(name, send.to, send.message))

    def _apply(self, server: Server, found: Sequence[Entry]) -> None:
        for entry in found:
            chosen = self.chosen.setdefault(entry.index, (entry.term, entry.data))
            assert chosen == (entry.term, entry.data), f"{server.node.id} applied another entry {entry.index}"
        server.applied += found
        server.unapplied.append(found[-1].index)

    def _applied(self, name: NodeId) -> None:
        server = self.servers[name]
        index = server.unapplied[-1]
        server.unapplied.clear()
        server.node.step(Applied(index), self.now)

    def _check(self, name: NodeId) -> None:
        node = self.servers[name].node
        invariants.check(node)
        if node.role.name is Role.LEADER:
            leader = self.leaders.setdefault(node.term, name)
            assert leader == name, f"{leader} and {name} lead in term {node.term}"

    # ── disks, crashes ──────────────────────────────────────────────────────────────────────────────

    def hold_disk(self, name: NodeId) -> None:
        self.servers[name].is_disk_held = True

    def persist(self, name: NodeId, count: int | None = None) -> None:
        """The next `count` writes (all, if None) become durable, and what waited for them leaves."""
        server = self.servers[name]
        for _ in range(len(server.unwritten) if count is None else count):
            write = server.unwritten.popleft()
            server.storage.write(write.write)
            server.durable = write.token
            self._post(name)
            server.node.step(Persisted(write.token), self.now)

    def release_disk(self, name: NodeId) -> None:
        self.servers[name].is_disk_held = False
        self.persist(name)
        self.drain(name)

    def hold_applying(self, name: NodeId) -> None:
        self.servers[name].is_applying_held = True

    def release_applying(self, name: NodeId) -> None:
        self.servers[name].is_applying_held = False
        if self.servers[name].unapplied:
            self._applied(name)
        self.drain(name)

    def crash(self, name: NodeId) -> None:
        """What is not durable is gone, and so is what waited for it. Messages that had left are still on their way."""
        self.servers[name].is_up = False

    def restart(self, name: NodeId) -> None:
        replies = self.servers[name].replies  # of all its lives
        self._start(name, self.servers[name].storage)
        self.servers[name].replies = replies

    def compact(self, name: NodeId, index: int, data: bytes = b"state") -> Snapshot:
        """A snapshot of the views up to `index` takes the place of the entries."""
        server = self.servers[name]
        snapshot = Snapshot(index, server.storage.term(index), server.node.configuration, len(data))
        server.storage.compact(snapshot, data)
        return snapshot

    # ── the network ─────────────────────────────────────────────────────────────────────────────────

    def deliver(self, letter: Letter) -> None:
        """This one arrives now, whether it is on its way or was kept by the test (a late or repeated one)."""
        if letter in self.letters:
            self.letters.remove(letter)
        if self.servers[letter.to].is_up:
            self.step(letter.to, Receive(letter.sender, letter.message))

    def on_the_way(
        self,
        kind: type | tuple[type, ...] = object,
        *,
        sender: NodeId | None = None,
        to: NodeId | None = None,
    ) -> list[Letter]:
        return [
            letter
            for letter in self.letters
            if isinstance(letter.message, kind) and letter.sender == (sender or letter.sender)
            and letter.to == (to or letter.to)
        ]  # fmt: skip

    def take(
        self,
        kind: type | tuple[type, ...] = object,
        *,
        sender: NodeId | None = None,
        to: NodeId | None = None,
    ) -> list[Letter]:
        """Take these off the network: they are lost, unless the test delivers them later."""
        taken = self.on_the_way(kind, sender=sender, to=to)
        for letter in taken:
            self.letters.remove(letter)
        return taken

    def settle(self, *, until: Callable[[], bool] = lambda: False) -> int:
        """Deliver everything in order until nothing is on its way. Returns how many messages arrived."""
        count = 0
        while self.letters and not until():
            letter = self.letters.pop(0)
            if (letter.sender, letter.to) in self.cut or not self.servers[letter.to].is_up:
                continue
            self.step(letter.to, Receive(letter.sender, letter.message))
            count += 1
            assert count < MESSAGES_MAX, f"still talking: {self.letters[:3]}"
        return count

    def isolate(self, *names: NodeId) -> None:
        """These nodes hear nothing of the others, nor the others of them."""
        for name in names:
            for other in self.servers:
                if other not in names:
                    self.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cut.clear()

    # ── time ────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, seconds: float, *, settle: bool = True) -> None:
        """Time passes; each node is woken when its deadline comes."""
        end = self.now + seconds
        while True:
            deadlines = [
                (max(deadline, self.now), name)
                for name, server in self.servers.items()
                if server.is_up and (deadline := server.node.deadline()) is not None and deadline <= end
            ]
            if not deadlines:
                break
            self.now, name = min(deadlines)
            self.step(name, Wake())
            if settle:
                self.settle()
        self.now = end

    def wake(self, name: NodeId) -> None:
        """Let time pass until this node's deadline; the others are not woken."""
        deadline = self[name].deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.step(name, Wake())

    def wake_next(self) -> None:
        """Let time pass until the earliest deadline."""
        deadlines = [
            (server.node.deadline() or 0.0, name) for name, server in self.servers.items() if server.is_up
        ]
        self.wake(min(deadlines)[1])

    def heartbeat(self, name: NodeId, *, count: int = 1) -> None:
        """The leader's next heartbeats, and what comes of them."""
        for _ in range(count):
            self.wake(name)
            self.settle()

    def happen(self, rng: Random) -> None:
        """Something happens: mostly a message arrives, at times out of order, twice or never; time passes; disks stall."""
        name, what = rng.choice(list(self.servers)), rng.random()
        if what < 0.95 and self.letters:
            letter = rng.choice(self.letters[:4])
            if rng.random() < 0.97:
                self.letters.remove(letter)
            if rng.random() < 0.97:
                self.deliver(letter)
        elif what < 0.98:
            self.wake_next()
        elif what < 0.984:
            self.step(name, Campaign())
        elif what < 0.988:
            self.step(name, TransferLeadership(rng.choice(list(self.servers))))
        elif what < 0.992:
            self.hold_disk(name)
        elif what < 0.998:
            self.release_disk(name)
        else:
            self.crash(name)
            self.restart(name)

    # ── what tests ask for ──────────────────────────────────────────────────────────────────────────

    def elect(self, name: NodeId) -> None:
        """The node campaigns when nobody else is heard of, and wins; its no-op is committed by all that can be reached."""
        self.now += self.config.election_timeout_s_max
        self.step(name, Campaign())
        self.settle()
        assert self[name].role.name is Role.LEADER, self[name].status()

    def campaign(self, name: NodeId) -> None:
        """The node campaigns when nobody else is heard of; nothing is delivered yet."""
        self.now += self.config.election_timeout_s_max
        self.step(name, Campaign())

    def propose(self, name: NodeId, *payloads: bytes) -> int:
        """Returns the number of the request."""
        self._request += 1
        self.step(name, Propose(self._request, payloads or (b"%d" % self._request,)))
        return self._request

    def change(self, name: NodeId, change: ConfigurationChange) -> int:
        self._request += 1
        self.step(name, ChangeConfiguration(self._request, change))
        return self._request

    def read(self, name: NodeId) -> int:
        self._request += 1
        self.step(name, Read(self._request))
        return self._request

    def outcomes(self, name: NodeId, request: int) -> list[Any]:
        """All that was replied to this request."""
        return [reply.outcome for reply in self.servers[name].replies if reply.request == request]

    def outcome(self, name: NodeId, request: int) -> Any:
        """The one reply to this request; None as long as there is none."""
        outcomes = self.outcomes(name, request)
        assert len(outcomes) <= 1, f"request {request} was answered more than once: {outcomes}"
        return outcomes[0] if outcomes else None

    def notes(self, name: NodeId, event: str) -> list[dict[str, Any]]:
        return [note.fields for note in self.servers[name].notes if note.event == event]

    def roles(self) -> dict[NodeId, Role]:
        return {name: server.node.role.name for name, server in self.servers.items()}

    def terms(self, name: NodeId) -> list[int]:
        """Of the entries of its log."""
        return [entry.term for entry in self.log(name)]

    def log(self, name: NodeId) -> list[Entry]:
        view = self[name].view
        return list(view.after(self[name].log.first_index))

    def commits(self) -> dict[NodeId, int]:
        return {name: server.node.log.committed for name, server in self.servers.items()}

    def progress(self, leader: NodeId, of: NodeId) -> Progress:
        role = self[leader].role
        assert isinstance(role, Leader)
        return role.progress[of]


def led(voters: int = 3, **settings: Any) -> Cluster:
    """A cluster that n1 leads in term 1."""
    cluster = Cluster(voters, **settings)
    cluster.elect(N1)
    return cluster
