"""One PySyncObj node, which is its own client: it answers the lines of its input.

    python -m bench.peers.pysyncobj_node ADDRESS OTHER,OTHER stock|synced

`leads` -> `true` or `false`; `singles SECONDS` -> the seconds that each took; `in-flight COUNT SECONDS` -> records/s.
The journal is the file `journal` in the working folder. `synced`: it is flushed to the disk before any message is sent
that follows a change of it, once for all changes since the last.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, Final

from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.journal import FileJournal
from pysyncobj.transport import TCPTransport

NEVER: Final = 2**62  # compaction loses entries of a journal without dumps
VALUE: Final = b"x" * 100
ANSWER_S_MAX: Final = 30.0
BATCHES_FROM: Final = 1_000  # records in flight


class List(SyncObj):  # type: ignore[misc]
    """What is replicated: the number of records. The records are in the journal."""

    def __init__(self, address: str, others: list[str]) -> None:
        conf = SyncObjConf(
            journalFile="journal",
            logCompactionMinEntries=NEVER,
            logCompactionMinTime=NEVER,
            dynamicMembershipChange=False,
            appendEntriesUseBatch=False,
        )
        self.count = 0
        super().__init__(address, others, conf)

    @replicated  # type: ignore[untyped-decorator]
    def append(self, value: bytes) -> int:
        self.count += 1
        return self.count


def sync_before_sending() -> None:
    changed: set[FileJournal] = set()
    add, send = FileJournal.add, TCPTransport.send

    def add_and_note(journal: FileJournal, *entry: Any) -> None:
        add(journal, *entry)
        changed.add(journal)

    def sync_and_send(transport: TCPTransport, *message: Any) -> Any:
        while changed:
            changed.pop().flush()
        return send(transport, *message)

    FileJournal.add, TCPTransport.send = add_and_note, sync_and_send


def singles(node: List, seconds: float) -> list[float]:
    times = []
    start = time.perf_counter()
    while (began := time.perf_counter()) < start + seconds:
        node.append(VALUE, sync=True, timeout=ANSWER_S_MAX)
        times.append(time.perf_counter() - began)
    return times


def in_flight(node: List, count: int, seconds: float) -> float:
    # They are sent every 0.1 s only, so few would wait
    node.conf.appendEntriesUseBatch = count >= BATCHES_FROM
    room = threading.Semaphore(count)
    answered = refused = 0

    def done(_: Any, failure: int) -> None:
        nonlocal answered, refused
        if failure:
            refused += 1
        else:
            answered += 1
        room.release()

    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        room.acquire()
        node.append(VALUE, callback=done)
    for _ in range(count):
        if not room.acquire(timeout=ANSWER_S_MAX):
            raise TimeoutError("PySyncObj does not answer")
    if refused:
        raise RuntimeError(f"PySyncObj refused {refused} records")
    return answered / (time.perf_counter() - start)


def main() -> None:
    address, others, mode = sys.argv[1:]
    if mode == "synced":
        sync_before_sending()
    node = List(address, others.split(","))
    for line in sys.stdin:
        answer: object
        match line.split():
            case ["leads"]:
                answer = bool(node._isLeader()) and node.isReady()
            case ["singles", seconds]:
                answer = singles(node, float(seconds))
            case ["in-flight", count, seconds]:
                answer = in_flight(node, int(count), float(seconds))
            case _:
                raise ValueError(f"unknown request {line!r}")
        print(json.dumps(answer), flush=True)
    node.destroy()


if __name__ == "__main__":
    main()
