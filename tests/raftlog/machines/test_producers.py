"""What an idempotent producer may do next, by what it has stored."""

from __future__ import annotations

from collections import deque

import pytest

from raftlog.errors import AlreadyStored, SequenceGap, StaleEpoch
from raftlog.machines import producers as module
from raftlog.machines.producers import Producers, Sequence, StoredBatch, check

RECENT = deque([StoredBatch(0, 10, 100), StoredBatch(10, 5, 200)])


def decide(epoch: int, first: int, span: int = 1) -> int | None:
    """For a producer whose epoch 3 has stored records 0 to 14, the last 15 of them remembered."""
    return check(Sequence(7, epoch, first, span), epoch=3, next_sequence=15, recent=RECENT)


def test_the_next_batch_is_appended() -> None:
    assert decide(3, 15, 100) is None


def test_a_repeated_batch_has_the_offset_of_the_first_time() -> None:
    assert [decide(3, 0, 10), decide(3, 10, 5)] == [100, 200]


def test_a_part_of_a_stored_batch_has_its_place_in_it() -> None:
    assert decide(3, 12, 2) == 202


def test_a_batch_cut_differently_than_the_first_time_is_already_stored() -> None:
    with pytest.raises(AlreadyStored):
        decide(3, 8, 5)


def test_a_gap_is_refused_with_the_number_that_is_next() -> None:
    with pytest.raises(SequenceGap) as refused:
        decide(3, 16)

    assert (refused.value.expected, refused.value.actual) == (16, 15)


def test_an_older_epoch_is_refused() -> None:
    with pytest.raises(StaleEpoch) as refused:
        decide(2, 15)

    assert refused.value.actual == 3


def test_a_new_epoch_begins_at_zero() -> None:
    assert decide(4, 0) is None
    with pytest.raises(SequenceGap):
        decide(4, 15)


def test_a_producer_that_is_not_known_begins_at_zero() -> None:
    assert check(Sequence(7, 0, 0, 1), epoch=0, next_sequence=0, recent=None) is None
    with pytest.raises(SequenceGap):
        check(Sequence(7, 0, 4, 1), epoch=0, next_sequence=0, recent=None)


def test_a_batch_that_is_not_remembered_any_more_is_already_stored() -> None:
    with pytest.raises(AlreadyStored):
        check(Sequence(7, 3, 0, 10), epoch=3, next_sequence=15, recent=deque([StoredBatch(10, 5, 200)]))


def table_of(*batches: tuple[int, int, int, int, int]) -> Producers:
    """Of (producer, epoch, first sequence, span, time), stored one behind the other."""
    producers, offset = Producers(), 0
    for producer, epoch, first, span, time in batches:
        producers.stored(Sequence(producer, epoch, first, span), first_offset=offset, time=time)
        offset += span
    return producers


def test_the_table_survives_as_bytes() -> None:
    producers = table_of((1, 0, 0, 3, 10), (2, 5, 0, 1, 11), (1, 0, 3, 4, 12))

    again = Producers.from_bytes(producers.to_bytes())

    state = again.get(1)
    assert state is not None
    assert (state.epoch, state.next_sequence, list(state.recent)) == (
        0, 7, [StoredBatch(0, 3, 0), StoredBatch(3, 4, 4)],
    )  # fmt: skip
    assert again.to_bytes() == producers.to_bytes()


def test_a_new_epoch_forgets_the_batches_of_the_old_one() -> None:
    state = table_of((1, 0, 0, 3, 10), (1, 1, 0, 2, 11)).get(1)

    assert state is not None
    assert (state.epoch, list(state.recent)) == (1, [StoredBatch(0, 2, 3)])


def test_the_longest_silent_producer_is_forgotten_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PRODUCERS_MAX", 2)

    producers = table_of((1, 0, 0, 1, 10), (2, 0, 0, 1, 11), (1, 0, 1, 1, 12), (3, 0, 0, 1, 13))

    assert [producers.get(number) is not None for number in (1, 2, 3)] == [True, False, True]


def test_a_producer_is_forgotten_after_a_silence_by_the_logs_time() -> None:
    producers = table_of((1, 0, 0, 1, 10), (2, 0, 0, 1, 10 + module.SILENCE_NS_MAX))
    assert len(producers) == 2

    producers.stored(Sequence(2, 0, 1, 1), first_offset=2, time=11 + module.SILENCE_NS_MAX)

    assert (producers.get(1), len(producers)) == (None, 1)
