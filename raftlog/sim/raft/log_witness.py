"""What appenders were told and what each node applied in one run, for the log checker (raftlog/sim/log_checker.py).

A second opinion beside Checks: it looks into no node, only at what comes out, and judges once, at the end. An index of the
log is an offset here, every try of an operation is an append of its own, and what leaders add by themselves (no-ops,
changes of members) is an append of which nobody was told anything.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from raftlog.engine import NodeId
from raftlog.raft.messages import Entry, EntryKind
from raftlog.sim.log_checker import Appended, Consumed, Finding, Outcome, Reading, check_log
from raftlog.sim.subject import Violation

FINDINGS_SHOWN_MAX: Final = 3  # one fault breaks many promises at once


class _Reader(NamedTuple):
    """One incarnation of a node, until a snapshot takes the place of what it applied."""

    node: NodeId
    began_after: int  # the index of the snapshot that it began with
    inherited: list[Consumed]  # what that snapshot contains
    records: list[Consumed]  # what it applied itself


class LogWitness:
    """Event numbers are its own: all that counts is what came first."""

    def __init__(self) -> None:
        self._events = 0
        self._appends: dict[int, Appended] = {}  # by the client's request
        self._readers: list[_Reader] = []
        self._present: dict[NodeId, _Reader] = {}  # the latest of each node
        self._snapshots: dict[int, list[Consumed]] = {}  # by index: what a snapshot there contains
        self._unasked: dict[str, None] = {}  # values of entries that no client asked for

    def _next(self) -> int:
        self._events += 1
        return self._events

    # ── appenders ───────────────────────────────────────────────────────────────────────────────────

    def asked(self, request: int, data: bytes) -> None:
        self._appends[request] = Appended(
            f"request {request}", data.decode(), self._next(), ended=None, outcome=Outcome.UNKNOWN
        )

    def told_committed(self, request: int, index: int) -> None:
        self._ended(request, Outcome.ACKNOWLEDGED, index)

    def told_dropped(self, request: int) -> None:
        self._ended(request, Outcome.FAILED, None)

    def _ended(self, request: int, outcome: Outcome, index: int | None) -> None:
        append = self._appends[request]
        self._appends[request] = append._replace(ended=self._next(), outcome=outcome, offset=index)

    # ── readers ─────────────────────────────────────────────────────────────────────────────────────

    def begins(self, node: NodeId, index: int) -> None:
        """A node begins after what the snapshot at this index contains; 0: with nothing."""
        # Of a snapshot that nobody made nothing is known: then what it should contain is missed at the end.
        reader = _Reader(node, index, self._snapshots.get(index, []), [])
        self._readers.append(reader)
        self._present[node] = reader

    def applied(self, node: NodeId, entry: Entry) -> None:
        if entry.kind is EntryKind.COMMAND:
            value = entry.data.decode()
        else:
            value = f"{entry.kind.name} of term {entry.term} at {entry.index}"
            self._unasked[value] = None
        self._present[node].records.append(Consumed(entry.index, value, self._next()))

    def snapshot_made(self, node: NodeId, index: int) -> None:
        if index not in self._snapshots:
            reader = self._present[node]
            self._snapshots[index] = reader.inherited + reader.records

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────

    def findings(self, node: NodeId) -> list[Finding]:
        """`node` has all that the cluster agreed on."""
        unasked = [
            Appended("a leader", value, called=0, ended=None, outcome=Outcome.UNKNOWN)
            for value in self._unasked
        ]
        readings = [Reading(reader.node, reader.began_after + 1, reader.records) for reader in self._readers]
        present = self._present[node]
        final = Reading(node, 1, present.inherited + present.records)
        return check_log([*unasked, *self._appends.values()], readings, final=final)

    def finish(self, node: NodeId) -> None:
        """Raise a Violation of the first kind that is found."""
        findings = self.findings(node)
        if findings:
            shown = "; ".join(str(finding) for finding in findings[:FINDINGS_SHOWN_MAX])
            kind = re.sub("([A-Z])", r" \1", type(findings[0]).__name__).lower()  # LostWrite: " lost write"
            raise Violation(f"the log:{kind}", f"{shown}; {len(findings)} findings in all")
