"""What clients asked of one Raft node and have not been told yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from raftlog.raft.events import Committed, Dropped, Propose, Read, ReadReady, Refused, Unknown
from raftlog.sim.machine import StateMachine, encode
from raftlog.sim.models import CompareAndSet, Request
from raftlog.sim.models import Read as ReadRequest
from raftlog.sim.raft.checks import Checks
from raftlog.sim.raft.log_witness import LogWitness
from raftlog.sim.subject import Answer, Done, NotDone, Unclear, Violation


class _Asked(NamedTuple):
    request: int  # the client's number
    operation: Request
    data: bytes  # proposed; empty for a read
    committed: int  # the highest index that any node knew to be committed when this was asked
    term: int  # the highest in which anybody had been elected then


class Requests:
    """Of one incarnation of a node; gone with it.

    The node's numbers are as unkind as it allows: the lowest that is not open, from 1 again after a restart.
    """

    def __init__(
        self,
        checks: Checks,
        witness: LogWitness,
        machine: StateMachine,
        answer: Callable[[int, Answer], None],
    ) -> None:
        self.machine = machine
        self._checks = checks
        self._witness = witness
        self._answer = answer
        self._open: dict[int, _Asked] = {}  # by the node's number
        self._applied_at: dict[int, int] = {}  # index: the client's request that is answered by what it gives
        self._reads: list[tuple[int, _Asked]] = []  # with the index that they wait for

    def ask(self, request: int, operation: Request) -> Propose | Read:
        """The event that asks for it."""
        number = self._free_number()
        is_read = isinstance(operation, ReadRequest)
        data = b"" if is_read else encode(operation, request)
        self._open[number] = _Asked(request, operation, data, self._checks.committed, self._checks.term)
        self._checks.asked(request, data)
        if not is_read:
            self._witness.asked(request, data)
        return Read(number) if is_read else Propose(number, (data,))

    def ask_other(self) -> int:
        """A number for what no client asked; its outcome is of no interest."""
        number = self._free_number()
        self._open[number] = _Asked(0, ReadRequest(""), b"", 0, 0)
        return number

    def _free_number(self) -> int:
        number = 1
        while number in self._open:
            number += 1
        return number

    def ended(self, node: Any, term: int, number: int, outcome: Any) -> None:
        """The node told an outcome, in this term."""
        asked = self._open.pop(number, None)
        if asked is None:
            raise Violation("a reply to no request", f"{node}: {number} {outcome}")
        if asked.request == 0:
            return
        match outcome:
            case Committed(first=index, term=term):
                self._checks.told_committed(node, index, term, asked.data)
                self._witness.told_committed(asked.request, index)
                if not isinstance(asked.operation, CompareAndSet):
                    self._answer(asked.request, Done(None))
                elif index > self.machine.applied:
                    self._applied_at[index] = asked.request
                else:
                    self._answer(asked.request, Unclear())  # its outcome is hidden in a snapshot
            case Dropped():
                self._checks.told_dropped(node, asked.data)
                self._witness.told_dropped(asked.request)
                self._answer(asked.request, NotDone())
            case Unknown():
                self._answer(asked.request, Unclear())
            case Refused(leader=leader):
                if asked.data:
                    self._checks.told_dropped(node, asked.data)
                    self._witness.told_dropped(asked.request)
                self._answer(asked.request, NotDone(leader))
            case ReadReady(index=index):
                if index < asked.committed:
                    raise Violation(
                        "stale read",
                        f"{node}: at {index}; entry {asked.committed} was committed before it was asked",
                    )
                if term < asked.term:
                    raise Violation(
                        "stale read",
                        f"{node}: answered in term {term}; the leader of term {asked.term} was elected before it was asked",
                    )
                self._reads.append((index, asked))
                self.serve_reads()
            case _:
                raise AssertionError(f"no outcome that a node may have: {outcome!r}")

    def applied(self, index: int, output: Any) -> None:
        request = self._applied_at.pop(index, None)
        if request is not None:
            self._answer(request, Done(output))

    def skipped(self) -> None:
        """A snapshot took the place of the machine: what it did at each index is not known any more."""
        for index in [index for index in self._applied_at if index <= self.machine.applied]:
            self._answer(self._applied_at.pop(index), Unclear())
        self.serve_reads()

    def serve_reads(self) -> None:
        if not self._reads:
            return
        applied = self.machine.applied
        ready = [asked for index, asked in self._reads if index <= applied]
        self._reads = [(index, asked) for index, asked in self._reads if index > applied]
        for asked in ready:
            self._answer(asked.request, Done(self.machine.read(asked.operation.key)))
