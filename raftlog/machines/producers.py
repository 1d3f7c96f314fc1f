"""Idempotent producers: what each has stored, so that a retry is not stored again.

The leader decides before it appends (`check`), from what is committed and from what it has appended itself since; every
node keeps the same table of what is committed (`stored`), so that the next leader can go on. A producer numbers its
records from 0 in each epoch; a newer epoch ends the older one. (The scheme is Kafka's: KIP-98.)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from raftlog.errors import AlreadyStored, SequenceGap, StaleEpoch
from raftlog.pb.raftlog.v1 import command_pb2 as pb

PRODUCERS_MAX: Final = 10_000  # beyond it the longest silent is forgotten: its retries may be stored twice
SILENCE_NS_MAX: Final = 7 * 24 * 3600 * 10**9  # by the log's time; forgotten after it
RECENT_MAX: Final = 256  # batches of a producer whose offsets are kept: more than may be on their way


class Sequence(NamedTuple):
    """How a producer names a batch."""

    producer: int  # not 0
    epoch: int
    first: int  # sequence number of the first record
    span: int  # records


class StoredBatch(NamedTuple):
    first_sequence: int
    span: int  # records
    first_offset: int


class ProducerState:
    __slots__ = ("epoch", "next_sequence", "recent", "time")

    def __init__(self, epoch: int, next_sequence: int, time: int) -> None:
        self.epoch = epoch
        self.next_sequence = next_sequence
        self.time = time  # of its last batch, by the log's clock
        self.recent: deque[StoredBatch] = deque(maxlen=RECENT_MAX)


class Producers:
    def __init__(self) -> None:
        self._states: OrderedDict[int, ProducerState] = OrderedDict()  # the longest silent first

    def __len__(self) -> int:
        return len(self._states)

    def get(self, producer: int) -> ProducerState | None:
        return self._states.get(producer)

    def stored(self, batch: Sequence, *, first_offset: int, time: int) -> None:
        """A batch is committed. Whatever its numbers are: that they are right was decided by the leader."""
        state = self._states.get(batch.producer)
        if state is None or batch.epoch != state.epoch:
            state = self._states[batch.producer] = ProducerState(batch.epoch, 0, time)
        state.next_sequence = batch.first + batch.span
        state.time = time
        state.recent.append(StoredBatch(batch.first, batch.span, first_offset))
        self._states.move_to_end(batch.producer)
        self._expire(time)

    def _expire(self, time: int) -> None:
        states = self._states
        while len(states) > PRODUCERS_MAX or next(iter(states.values())).time < time - SILENCE_NS_MAX:
            states.popitem(last=False)

    def to_bytes(self) -> bytes:
        view = pb.ProducersView()
        for number, state in self._states.items():
            producer = view.producers.add(
                id=number, epoch=state.epoch, next_sequence=state.next_sequence, time_ns=state.time
            )
            for batch in state.recent:
                producer.recent.add(
                    first_sequence=batch.first_sequence, count=batch.span, first_offset=batch.first_offset
                )
        return view.SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Producers:
        """What `to_bytes` gave; DecodeError for other bytes."""
        producers = cls()
        for each in pb.ProducersView.FromString(data).producers:
            state = ProducerState(each.epoch, each.next_sequence, each.time_ns)
            state.recent.extend(
                StoredBatch(one.first_sequence, one.count, one.first_offset) for one in each.recent
            )
            producers._states[each.id] = state
        return producers


def check(
    batch: Sequence, *, epoch: int, next_sequence: int, recent: deque[StoredBatch] | None
) -> int | None:
    """None if the batch is to be appended; the offset of its first record if it is stored already.

    `epoch` and `next_sequence` are the producer's as of the log's end, `recent` what of it is committed. Raises
    StaleEpoch, SequenceGap, AlreadyStored.
    """
    if batch.epoch < epoch:
        raise StaleEpoch(batch.epoch, epoch)
    if batch.epoch > epoch:
        if batch.first:
            raise SequenceGap(batch.first, 0)
        return None
    if batch.first == next_sequence:
        return None
    if batch.first > next_sequence:
        raise SequenceGap(batch.first, next_sequence)
    for stored in recent or ():
        if stored.first_sequence <= batch.first < stored.first_sequence + stored.span:
            if batch.first + batch.span > stored.first_sequence + stored.span:
                break  # cut differently than the first time: only a part of it is this one
            return stored.first_offset + batch.first - stored.first_sequence
    raise AlreadyStored(batch.first, next_sequence)
