"""Scripts in the language of etcd's rafttest, run on our core.

Each command does what it does there, in the same order; what is printed is compared only where the
rules of rafttest_rules.py do not say otherwise. The expected state of the nodes is read from the traces (rafttest_trace.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raftlog.engine import NodeId
from raftlog.raft import events, messages
from raftlog.raft.config import RaftConfig
from raftlog.raft.configuration import Change, ChangeKind, Configuration, ConfigurationChange, Transition
from raftlog.raft.progress import Progress, ProgressState
from raftlog.raft.role import Role
from tests.raftlog.raft.datadriven import Directive
from tests.raftlog.raft.rafttest_node import (
    ETCD_TYPES,
    Envelope,
    ForwardedProposal,
    Node,
    describe_entry,
    node_id,
    node_number,
    soft_state,
)
from tests.raftlog.raft.rafttest_storage import ScriptStorage

LEVELS = ("debug", "info", "warn", "error", "fatal", "none")
LEVEL_QUIET = LEVELS.index("none")
UNLIMITED = 1 << 62
ELECTION_TICKS = 3
OTHER_TYPES = (
    "MsgHup", "MsgBeat", "MsgProp", "MsgUnreachable", "MsgSnapStatus", "MsgCheckQuorum", "MsgStorageAppend",
    "MsgStorageAppendResp", "MsgStorageApply", "MsgStorageApplyResp", "MsgForgetLeader",
)  # fmt: skip
STATES = {
    ProgressState.PROBE: "StateProbe",
    ProgressState.REPLICATE: "StateReplicate",
    ProgressState.SNAPSHOT: "StateSnapshot",
}
KINDS = {
    "v": ChangeKind.ADD_VOTER,
    "l": ChangeKind.ADD_LEARNER,
    "r": ChangeKind.REMOVE,
    "u": ChangeKind.UPDATE,
}
TRANSITIONS = {"auto": Transition.AUTO, "implicit": Transition.IMPLICIT, "explicit": Transition.EXPLICIT}


class BadScript(Exception):
    """The script asks for something that rafttest does not know."""


class Environment:
    """The nodes, what is between them, and how much is printed."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.messages: list[Envelope] = []  # in flight, in the order in which they were sent
        self.level = 0
        self._requests = 0

    def handle(self, directive: Directive) -> str | None:
        """Carry it out. Returns what it prints, if that is to be compared."""
        handler = _HANDLERS.get(directive.command)
        if handler is None:
            raise BadScript(f"line {directive.line}: unknown command {directive.command}")
        return handler(self, directive)

    def node(self, number: int) -> Node:
        return self.nodes[number - 1]

    # ── nodes ───────────────────────────────────────────────────────────────────────────────────────

    def add_nodes(self, directive: Directive) -> None:
        voters: list[NodeId] = []
        learners: list[NodeId] = []
        settings: dict[str, str] = {}
        for argument in directive.arguments[1:]:
            match argument.key:
                case "voters":
                    voters += map(to_id, argument.values)
                case "learners":
                    learners += map(to_id, argument.values)
                case key:
                    if key not in ADD_NODES_SETTINGS:
                        raise BadScript(f"line {directive.line}: unknown argument {key}")
                    settings.update((key, value) for value in argument.values)
        index = int(settings.get("index", 0))
        data = settings.get("content", "").encode()
        if (voters or learners or index or data) and index <= 1:
            return  # etcd: "index must be specified as > 1 due to bootstrap"
        read_only = settings.get("read-only", "safe")
        if read_only not in ("safe", "lease-based"):
            return  # etcd: "invalid read-only option"

        page_bytes = int(settings.get("max-committed-size-per-ready", 0)) or UNLIMITED
        config = RaftConfig(
            heartbeat_interval_s=1.0,
            election_timeout_s_min=float(ELECTION_TICKS),
            election_timeout_s_max=float(2 * ELECTION_TICKS),
            persist_timeout_s=float(UNLIMITED),
            append_bytes_max=UNLIMITED,
            inflight_messages_max=int(settings.get("inflight", UNLIMITED)),
            inflight_bytes_max=UNLIMITED,
            uncommitted_bytes_max=UNLIMITED,
            apply_bytes_max=8 * page_bytes,  # RULES["page sizes"]: ours counts an entry 8 times at most
            snapshot_chunk_bytes=UNLIMITED,
            pre_vote=is_true(settings.get("prevote", "false")),
            check_quorum=is_true(settings.get("checkquorum", "false")),
            step_down_on_removal=is_true(settings.get("step-down-on-removal", "false")),
            validate_changes=not is_true(settings.get("disable-conf-change-validation", "false")),
            lease_reads=read_only == "lease-based",
        )
        configuration = Configuration(tuple(sorted(voters)), learners=tuple(sorted(learners)))
        for _ in range(first_number(directive)):
            storage = ScriptStorage(index=index, configuration=configuration, data=data)
            is_async = is_true(settings.get("async-storage-writes", "false"))
            number = len(self.nodes) + 1
            self.nodes.append(Node(number, config, storage, is_async=is_async, apply_bytes_max=page_bytes))

    def compact(self, directive: Directive) -> str:
        storage = self.node(first_number(directive)).storage
        try:
            storage.compact(int(directive.arguments[1].key))
        except ValueError:
            return "requested index is unavailable due to compaction"
        return describe_log(storage)

    def raft_log(self, directive: Directive) -> str:
        return describe_log(self.node(first_number(directive)).storage)

    def raft_state(self, _: Directive) -> str:
        lines = []
        for node in self.nodes:
            status = node.raft.status()
            role, leader = soft_state(status)
            voter = "Voter" if status.node in status.configuration.all_voters else "Non-Voter"
            lines.append(f"{node.number}: {role} ({voter}) Term:{status.term} Lead:{leader}")
        return "\n".join(lines)

    def status(self, directive: Directive) -> str:
        status = self.node(first_number(directive)).raft.status()
        progress = sorted(status.progress.items())
        return "\n".join(f"{node_number(node)}: {describe_progress(found)}" for node, found in progress)

    # ── events ──────────────────────────────────────────────────────────────────────────────────────

    def campaign(self, directive: Directive) -> None:
        self.node(first_number(directive)).step(events.Campaign())

    def forget_leader(self, directive: Directive) -> None:
        self.node(first_number(directive)).step(events.ForgetLeader())

    def report_unreachable(self, directive: Directive) -> None:
        reporter, unreachable = numbers(directive)
        self.node(reporter).step(events.Unreachable(node_id(unreachable)))

    def transfer_leadership(self, directive: Directive) -> None:
        target = int(directive.value("to", ""))
        assert 0 < target <= len(self.nodes)
        self.node(int(directive.value("from", ""))).step(events.TransferLeadership(node_id(target)))

    def set_election_timeout(self, directive: Directive) -> None:
        self.node(first_number(directive)).raft.election_timeout_s = float(directive.value("timeout", ""))

    def tick_election(self, directive: Directive) -> None:
        self.node(first_number(directive)).tick(ELECTION_TICKS)

    def tick_heartbeat(self, directive: Directive) -> None:
        self.node(first_number(directive)).tick(1)

    def propose(self, directive: Directive) -> None:
        _, payload = directive.arguments
        self._requests += 1
        self._propose(first_number(directive), events.Propose(self._requests, [payload.key.encode()]))

    def propose_change(self, directive: Directive) -> None:
        """Propose what the input says, as in `v1 l2 r3`. A change that cannot be read is not proposed, as in etcd."""
        transition = TRANSITIONS.get(directive.value("transition", "auto"))
        changes = []
        for word in directive.input.split():
            if word[0] not in KINDS or not word[1:].isdecimal():
                return
            changes.append(Change(KINDS[word[0]], to_id(word[1:])))
        is_first_form = is_true(directive.value("v1", "false"))
        if transition is None or (is_first_form and (len(changes) != 1 or transition is not Transition.AUTO)):
            return
        change = ConfigurationChange(tuple(changes), transition)
        self._requests += 1
        self._propose(first_number(directive), events.ChangeConfiguration(self._requests, change))

    def _propose(self, number: int, proposal: events.Propose | events.ChangeConfiguration) -> None:
        node = self.node(number)
        node.step(proposal)
        match node.outcomes.pop(proposal.request, None):
            case events.Refused(
                why=events.Why.CHANGE_PENDING | events.Why.INVALID_CHANGE
            ):  # RULES["refused change"]
                node.step(events.Propose(proposal.request, [b""]))
            case events.Refused(why=events.Why.NOT_LEADER) if node.raft.status().role is Role.FOLLOWER:
                leader = node_number(node.raft.status().leader)
                if leader:  # RULES["forwarding"]; a candidate of etcd drops it
                    node.forward(proposal, leader)
            case _:
                pass

    def send_snapshot(self, directive: Directive) -> None:
        sender, to = numbers(directive)
        kept = self.node(sender).storage.history[-1]
        term = self.node(sender).raft.status().term
        chunk = messages.SnapshotChunk(term, kept.snapshot, position=0, data=kept.data, is_last=True)
        self.messages.append(Envelope(sender, to, "MsgSnap", chunk))

    # ── what is on its way ──────────────────────────────────────────────────────────────────────────

    def deliver_messages(self, directive: Directive) -> None:
        wanted = None
        recipients: list[tuple[int, bool]] = []
        for argument in directive.arguments:
            match argument.key:
                case "drop":
                    recipients += [(int(value), True) for value in argument.values]
                case "type":
                    (wanted,) = argument.values
                    if wanted not in ETCD_TYPES.values() and wanted not in OTHER_TYPES:
                        raise BadScript(f"line {directive.line}: unknown message type {wanted}")
                case recipient:
                    recipients.append((int(recipient), False))
        for number, is_dropped in recipients:
            self._deliver(number, wanted, is_dropped=is_dropped)

    def _deliver(self, to: int, wanted: str | None, *, is_dropped: bool) -> bool:
        """Returns whether there was a message. Messages that a node sends to itself are never dropped."""
        taken: list[Envelope] = []
        kept: list[Envelope] = []
        for envelope in self.messages:
            is_meant = (
                envelope.to == to
                and not (is_dropped and envelope.is_local)
                and (wanted is None or wanted == envelope.type)
            )
            (taken if is_meant else kept).append(envelope)
        self.messages = kept
        if not is_dropped:
            for envelope in taken:
                if isinstance(envelope.content, ForwardedProposal):
                    self._propose(to, envelope.content.proposal)
                else:
                    self.node(to).receive(envelope)
        return bool(taken)

    def process_ready(self, directive: Directive) -> None:
        for number in numbers(directive):
            self.messages += self.node(number).process_ready()

    def process_append_thread(self, directive: Directive) -> None:
        for number in numbers(directive):
            self.messages += self.node(number).process_append_thread()

    def process_apply_thread(self, directive: Directive) -> None:
        for number in numbers(directive):
            self.messages += self.node(number).process_apply_thread()

    def stabilize(self, directive: Directive) -> None:
        nodes = [self.node(number) for number in numbers(directive)] or self.nodes
        is_busy = True
        while is_busy:
            is_busy = False
            for node in nodes:
                if node.has_ready:
                    self.messages += node.process_ready()
                    is_busy = True
            for node in nodes:
                is_busy |= self._deliver(node.number, None, is_dropped=False)
            for node in nodes:
                while node.append_work:
                    self.messages += node.process_append_thread()
                    is_busy = True
            for node in nodes:
                while node.apply_work:
                    self.messages += node.process_apply_thread()
                    is_busy = True

    # ── what is printed ─────────────────────────────────────────────────────────────────────────────

    def set_level(self, directive: Directive) -> None:
        self.level = to_level(directive.arguments[0].key)

    def do_nothing(self, _: Directive) -> None:
        pass


_HANDLERS = {
    "_breakpoint": Environment.do_nothing,
    "add-nodes": Environment.add_nodes,
    "campaign": Environment.campaign,
    "compact": Environment.compact,
    "deliver-msgs": Environment.deliver_messages,
    "forget-leader": Environment.forget_leader,
    "log-level": Environment.set_level,
    "process-append-thread": Environment.process_append_thread,
    "process-apply-thread": Environment.process_apply_thread,
    "process-ready": Environment.process_ready,
    "propose": Environment.propose,
    "propose-conf-change": Environment.propose_change,
    "raft-log": Environment.raft_log,
    "raft-state": Environment.raft_state,
    "report-unreachable": Environment.report_unreachable,
    "send-snapshot": Environment.send_snapshot,
    "set-randomized-election-timeout": Environment.set_election_timeout,
    "stabilize": Environment.stabilize,
    "status": Environment.status,
    "tick-election": Environment.tick_election,
    "tick-heartbeat": Environment.tick_heartbeat,
    "transfer-leadership": Environment.transfer_leadership,
}
COMMANDS = frozenset(_HANDLERS)
ADD_NODES_SETTINGS = frozenset((
    "async-storage-writes", "checkquorum", "content", "disable-conf-change-validation", "index", "inflight",
    "max-committed-size-per-ready", "prevote", "read-only", "step-down-on-removal",
))  # fmt: skip


def describe_log(storage: ScriptStorage) -> str:
    entries = storage.all_entries()
    if not entries:
        return f"log is empty: first index={storage.first_index}, last index={storage.last_index}"
    return "\n".join(map(describe_entry, entries))


def describe_progress(progress: Progress) -> str:
    words = [f"{STATES[progress.state]} match={progress.match} next={progress.next}"]
    if progress.is_learner:
        words.append("learner")
    if progress.is_paused:
        words.append("paused")
    if progress.pending_snapshot:
        words.append(f"pendingSnap={progress.pending_snapshot}")
    if not progress.recent_active:
        words.append("inactive")
    if progress.inflights.count:
        words.append(f"inflight={progress.inflights.count}{'[full]' if progress.inflights.is_full else ''}")
    return " ".join(words)


def numbers(directive: Directive) -> Sequence[int]:
    """Of the nodes that the directive names."""
    return [int(argument.key) for argument in directive.arguments if not argument.values]


def first_number(directive: Directive) -> int:
    return int(directive.arguments[0].key)


def to_id(number: str) -> NodeId:
    return node_id(int(number))


def to_level(name: str) -> int:
    return LEVELS.index(name.lower())


def is_true(text: str) -> bool:
    """As Go reads a boolean."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise BadScript(f"neither true nor false: {text}")


def printed_level(directive: Directive, level: int) -> int:
    """How much this directive prints; `level` is what log-level said last."""
    return (
        to_level(directive.value("log-level", LEVELS[level])) if directive.command == "stabilize" else level
    )


def all_numbers(directive: Directive, environment: Environment) -> Iterable[int]:
    return numbers(directive) or [node.number for node in environment.nodes]
