"""Where our design differs from etcd's on purpose, and what the harness does about it."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """Where our design differs on purpose: in which directives, and why that is right."""

    directives: str
    difference: str
    why: str


RULES = {
    "messages": Rule(
        "all that print messages, a Ready or what the node logs",
        "what is printed is not compared; the state of the nodes in it is",
        "several of etcd's messages have one type, and one of etcd's may be several of ours: the words differ",
    ),
    "forwarding": Rule(
        "propose, propose-conf-change at a follower",
        "the harness sends the proposal to the leader, in the follower's next Ready",
        "our follower refuses and names the leader: a client that is told so sends its batch once, not twice",
    ),
    "refused change": Rule(
        "propose-conf-change when it is invalid, or one is pending",
        "the harness proposes an empty entry",
        "ours refuses at once and says why; etcd appends an empty entry in its place and the client has to find out",
    ),
    "first change form": Rule(
        "propose-conf-change v1=true, and what prints the entry",
        "EntryConfChange is read as EntryConfChangeV2",
        "we have one form of change from the start",
    ),
    "page sizes": Rule(
        "add-nodes max-committed-size-per-ready",
        "the harness cuts what is handed out to be applied into pages by the size of etcd's encoding",
        "our bound counts the entries' data and a fixed overhead",
    ),
    "change applied": Rule(
        "process-apply-thread of a configuration change",
        "everything up to the change counts as applied at once, not only when the answer is delivered",
        "in our engine a change is in force when it is reported as applied: one event instead of two",
    ),
    "lease": Rule(
        "add-nodes read-only=lease-based",
        "the harness lets heartbeat replies leave at once, and followers forget that they promised to wait with campaigns",
        "with them the reads of a leader's lease are safe, also if a follower campaigns or is restarted; etcd's are not, and "
        "no script reads or restarts",
    ),
    "own vote": Rule(
        "process-ready of a candidate, with async-storage-writes",
        "the harness lets requests for votes leave at once; ours wait until the candidate's own vote is durable",
        "it could forget the term in a crash, and be elected in it by votes that it was given for a log that it lost; "
        "no script restarts",
    ),
    "own pre-vote": Rule(
        "campaign with prevote, process-ready of a pre-candidate",
        "ours counts its own pre-vote at once, etcd's after the next write",
        "a pre-vote promises nothing, so there is nothing to be durable",
    ),
    "refused vote": Rule(
        "deliver-msgs of a MsgVoteResp or MsgPreVoteResp that refuses",
        "the harness takes out what the sender of a refusal knows to be committed",
        "it may be what a candidate lacks to see which configuration is in force; etcd's learns of commits from leaders only",
    ),
    "ended transfer": Rule(
        "tick-election and transfer-leadership that end a transfer while a joint configuration waits to be left",
        "ours proposes to leave it at once, etcd's with the next entry that is applied",
        "there may be no next entry",
    ),
    "lost snapshot": Rule(
        "tick-heartbeat while a snapshot is on its way",
        "ours sends it again when heartbeats are answered and it is not, etcd's waits to be told by the application",
        "nobody beside the core needs to watch over a transfer",
    ),
    "early snapshot": Rule(
        "send-snapshot to a node that is no member in the snapshot",
        "ours installs it, etcd's ignores it",
        "a newcomer's membership may be in the entries that follow the snapshot, and it has no other way to them",
    ),
    "one completion": Rule(
        "deliver-msgs type=MsgAppResp, MsgVoteResp or MsgStorageAppendResp to the node itself, with async-storage-writes",
        "what etcd's node is told in two messages, that it counts itself and that its entries are durable, is told in one",
        "both are one fact: the write is durable",
    ),
}  # fmt: skip
