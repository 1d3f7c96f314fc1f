"""Raft as a value: no I/O, clock, randomness or asyncio of its own (raftlog/engine.py says how it is run).

    node         what all roles share: time, writes, commit and apply      voting   terms and votes
    follower  candidate  leader      what each role does with a message
    log          what the node believes about its log      view   the same, to read
    messages  events  storage        what it says, is asked, and writes
    configuration  quorum  progress  who votes, what a majority has, what each member has
    proposals  reads  snapshots      what became of requests; read-index; snapshots in chunks
    invariants   what must always hold

The semantics are those of etcd's raft; sections of the paper and of the dissertation stand where they are followed.
"""

from raftlog.raft.config import RaftConfig
from raftlog.raft.node import RaftNode, Status
from raftlog.raft.role import Role

__all__ = ["RaftConfig", "RaftNode", "Role", "Status"]
