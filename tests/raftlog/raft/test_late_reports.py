"""What is reported late, by the network or by the disk, confirms nothing newer."""

from __future__ import annotations

from raftlog.raft.configuration import Configuration
from raftlog.raft.messages import Append, Heartbeat, HeartbeatReply, Snapshot, SnapshotChunk
from tests.raftlog.raft.builders import N1, N2, N3, entries
from tests.raftlog.raft.cluster import Cluster, Letter


def test_reply_to_a_heartbeat_of_an_earlier_term_confirms_no_read() -> None:
    cluster = Cluster(3)
    cluster.elect(N1)
    cluster.elect(N2)
    cluster.elect(N1)
    request = cluster.read(N1)
    heartbeat = cluster.take(Heartbeat)[0].message
    assert isinstance(heartbeat, Heartbeat)

    cluster.deliver(Letter(N2, N1, HeartbeatReply(1, heartbeat.round)))

    assert cluster.outcome(N1, request) is None


def test_write_from_before_a_snapshot_makes_nothing_of_the_log_after_it_durable() -> None:
    """Entries 4 and 5 of the log that was are written; those that follow the snapshot have the same indexes."""
    cluster = Cluster(3)
    cluster.hold_disk(N2)
    cluster.deliver(Letter(N1, N2, Append(1, 0, 0, entries(1, 1, 1, 1, 1), 0)))
    snapshot = Snapshot(3, 2, Configuration((N1, N2, N3)), 0)
    cluster.deliver(Letter(N3, N2, SnapshotChunk(3, snapshot, 0, b"", True)))
    cluster.deliver(Letter(N3, N2, Append(3, 3, 2, entries(3, 3, first=4), 5)))

    cluster.persist(N2, 2)
    cluster.drain(N2)

    assert (cluster[N2].log.applied, cluster[N2].log.durable) == (3, 3)
    assert cluster.servers[N2].applied == []
