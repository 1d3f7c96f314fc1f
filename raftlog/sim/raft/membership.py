"""Nodes that come, go, are promoted, or lose their disks, never so many that a quorum is lost."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from raftlog.engine import NodeId
from raftlog.raft.configuration import (
    Change,
    ChangeKind,
    Configuration,
    ConfigurationChange,
    InvalidChange,
    Transition,
    apply_change,
)
from raftlog.raft.events import ChangeConfiguration, Promote

if TYPE_CHECKING:
    from raftlog.sim.raft.subject import RaftSubject

NEWCOMERS_MAX: Final = 4  # in a run: each makes it slower
MEMBERS_MAX: Final = 7


def has_quorums(configuration: Configuration, nodes: Collection[NodeId]) -> bool:
    """Whether these are enough for every decision under this configuration."""
    for voters in (configuration.voters, configuration.outgoing):
        if voters and 2 * sum(voter in nodes for voter in voters) <= len(voters):
            return False
    return True


class Membership:
    def __init__(self, subject: RaftSubject) -> None:
        self._subject = subject
        self._newcomers = 0

    def possible_configurations(self) -> list[Configuration]:
        """All that some node may act on, now or after a restart, unless it learns better."""
        subject = self._subject
        found = subject.checks.possible_configurations()
        found += [node.configuration for node in subject.nodes_up()]
        for node, disk in subject.disks.items():
            if node not in subject.cluster.lost:
                found += disk.configurations(subject.checks.is_live)
        return found

    def lose_a_disk(self, choice: int) -> None:
        """For good: the node is never started again. A change of members may replace it."""
        cluster = self._subject.cluster
        members = self._subject.checks.configuration.members
        node = members[choice % len(members)]
        left = [other for other in cluster.processes if other != node and other not in cluster.lost]
        if all(has_quorums(configuration, left) for configuration in self.possible_configurations()):
            cluster.lose(node)

    def change(self, choice: int) -> None:
        """Ask whoever leads for a change of any kind, valid or not, that leaves quorums of nodes with disks."""
        subject, cluster = self._subject, self._subject.cluster
        leader = subject.leader()
        if leader is None:
            return
        process = cluster.processes[leader]
        configuration = subject.checks.configuration
        if configuration.is_joint and not configuration.auto_leave:
            self._ask(leader, ConfigurationChange(()))
            return
        kind, choice = choice % 8, choice // 8
        if kind < 2 and configuration.learners:
            learner = configuration.learners[choice % len(configuration.learners)]
            if self._is_safe(ConfigurationChange((Change(ChangeKind.ADD_VOTER, learner),))):
                process.happen(Promote(process.machine.requests.ask_other(), learner))
            return
        changes = [self._draw(configuration, choice)]
        if kind >= 5:
            changes.append(self._draw(configuration, choice // 100))
        if kind >= 7:
            changes.append(self._draw(configuration, choice // 10_000))
        transition = (Transition.AUTO, Transition.AUTO, Transition.IMPLICIT, Transition.EXPLICIT)[choice % 4]
        self._ask(leader, ConfigurationChange(tuple(changes), transition))

    def _draw(self, configuration: Configuration, choice: int) -> Change:
        members = configuration.members
        lost = [node for node in self._subject.cluster.lost if node in members]
        kind, choice = choice % 10, choice // 10
        if kind < 4 and len(members) < MEMBERS_MAX and self._newcomers < NEWCOMERS_MAX:
            return Change(ChangeKind.ADD_LEARNER if kind < 3 else ChangeKind.ADD_VOTER, self._newcomer())
        if kind < 6 and lost:
            return Change(ChangeKind.REMOVE, lost[choice % len(lost)])
        member = members[choice % len(members)]
        if kind < 8:
            return Change(ChangeKind.REMOVE, member)
        return Change(ChangeKind.ADD_LEARNER if kind == 8 else ChangeKind.ADD_VOTER, member)

    def _newcomer(self) -> NodeId:
        """A node with an empty disk, up and waiting."""
        self._newcomers += 1
        cluster = self._subject.cluster
        node = NodeId(f"n{len(cluster.processes) + 1}")
        cluster.add(node)
        cluster.start(node)
        return node

    def _ask(self, leader: NodeId, change: ConfigurationChange) -> None:
        process = self._subject.cluster.processes[leader]
        if self._is_safe(change):
            process.happen(ChangeConfiguration(process.machine.requests.ask_other(), change))

    def _is_safe(self, change: ConfigurationChange) -> bool:
        """Whether quorums of nodes with disks are left, whichever configuration it changes."""
        cluster = self._subject.cluster
        well = [node for node in cluster.processes if node not in cluster.lost]
        for configuration in self.possible_configurations():
            try:
                after = apply_change(configuration, change).configuration
            except InvalidChange:
                continue  # the leader may refuse it, too
            if not has_quorums(after, well):
                return False
        return True
