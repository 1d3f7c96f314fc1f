"""Whether an append-only log kept its promises, by what producers were told and consumers read.

Producers append values, all different; an append is acknowledged with an offset, failed for certain, or its outcome is
unknown. Consumers read records in the order of offsets, from wherever they began. Events have numbers: of two, the
smaller came first. Each kind of finding below is a promise that was broken, with the facts that show it.

A log may serve old records to a consumer for as long as it likes; it may not serve wrong ones, ever.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final, NamedTuple

THE_END: Final = "the log at the end"  # the consumer of the final reading, in findings


class Outcome(StrEnum):
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"  # for certain: it must never be in the log
    UNKNOWN = "unknown"  # it may be in the log, or come into it later


class Appended(NamedTuple):
    """One attempt to append, with all its retries."""

    producer: str
    value: str  # different for each append
    called: int  # event number
    ended: int | None  # event number of the outcome; None: still open
    outcome: Outcome
    offset: int | None = None  # where it is said to be; only if acknowledged


class Consumed(NamedTuple):
    """A record that a consumer was given."""

    offset: int
    value: str
    at: int  # event number


class Reading(NamedTuple):
    """What one consumer was given, in order, from where it asked to begin; another for each time it begins anew."""

    consumer: str
    start: int  # offset asked for
    records: Sequence[Consumed]


@dataclass(frozen=True, slots=True)
class LostWrite:
    """It was promised that the record is there, and somebody who read past its offset did not get it."""

    offset: int
    value: str
    promised_to: str  # the producer, or a consumer that was given it
    missed_by: str  # a consumer, or THE_END


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One append, and several offsets at which it was told or found to be."""

    value: str
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AbortedRead:
    """The append failed for certain, and yet its value was read."""

    append: Appended
    consumer: str
    offset: int


@dataclass(frozen=True, slots=True)
class InventedRead:
    """A value was read that nobody had yet asked to append."""

    consumer: str
    record: Consumed


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Not all were told the same value at this offset."""

    offset: int
    told: tuple[tuple[str, str], ...]  # (value, the first who was told it), in order of values


@dataclass(frozen=True, slots=True)
class Gap:
    """A consumer was given no record for these offsets, and then one for `end`."""

    consumer: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class WentBack:
    """A consumer was given an offset that is not above the one before."""

    consumer: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class OrderReversal:
    """The first record was known to be in the log before the second was asked for, and lies behind it."""

    first: str  # value
    first_offset: int
    second: str  # value
    second_offset: int


Finding = LostWrite | Duplicate | AbortedRead | InventedRead | Disagreement | Gap | WentBack | OrderReversal


def check_log(
    appends: Sequence[Appended], readings: Sequence[Reading], *, final: Reading | None = None
) -> list[Finding]:
    """Every broken promise, by kind; none if the log did well.

    `final` is the whole log, read when all had settled, from the first offset that it still has. What lies below it was
    removed on purpose. Its consumer is called THE_END, whatever its name.
    """
    if final is not None:
        readings = [*readings, final._replace(consumer=THE_END)]
    promises = _promises(appends, readings)
    findings: list[Finding] = []
    findings += _lost_writes(promises, readings, has_final=final is not None)
    findings += _duplicates(promises)
    findings += _unfounded_reads(appends, readings)
    findings += _disagreements(promises)
    findings += _steps(readings)
    findings += _reversals(appends, promises)
    return findings


class _Promise(NamedTuple):
    """Somebody was told, at some event, that this value is at this offset."""

    offset: int
    value: str
    told: str
    at: int


def _promises(appends: Iterable[Appended], readings: Iterable[Reading]) -> list[_Promise]:
    """All of them, the earliest first."""
    found = []
    for append in appends:
        if append.outcome is Outcome.ACKNOWLEDGED:
            assert append.offset is not None and append.ended is not None, (
                f"an acknowledgement of nothing: {append}"
            )
            found.append(_Promise(append.offset, append.value, append.producer, append.ended))
    for reading in readings:
        found += [_Promise(one.offset, one.value, reading.consumer, one.at) for one in reading.records]
    return sorted(found, key=lambda promise: promise.at)


def _lost_writes(
    promises: Iterable[_Promise], readings: Sequence[Reading], *, has_final: bool
) -> list[LostWrite]:
    """One finding per record and reading. A record that is there with another value is a disagreement instead."""
    first_told: dict[int, _Promise] = {}
    for promise in promises:
        first_told.setdefault(promise.offset, promise)
    offsets = sorted(first_told)
    findings = []
    for number, reading in enumerate(readings):
        got = {one.offset for one in reading.records}
        end = max(got, default=reading.start)
        if has_final and number == len(readings) - 1:
            end = max(end, offsets[-1] + 1 if offsets else 0)
        for offset in offsets[bisect_left(offsets, reading.start) : bisect_left(offsets, end)]:
            if offset not in got:
                promise = first_told[offset]
                findings.append(LostWrite(offset, promise.value, promise.told, reading.consumer))
    return findings


def _duplicates(promises: Iterable[_Promise]) -> list[Duplicate]:
    offsets: dict[str, dict[int, None]] = {}
    for promise in promises:
        offsets.setdefault(promise.value, {})[promise.offset] = None
    return [Duplicate(value, tuple(sorted(found))) for value, found in offsets.items() if len(found) > 1]


def _unfounded_reads(
    appends: Iterable[Appended], readings: Iterable[Reading]
) -> list[AbortedRead | InventedRead]:
    by_value: dict[str, Appended] = {}
    for append in appends:
        assert append.value not in by_value, f"a value is appended once: {append}, {by_value[append.value]}"
        by_value[append.value] = append
    findings: list[AbortedRead | InventedRead] = []
    for reading in readings:
        for record in reading.records:
            source = by_value.get(record.value)
            if source is None or record.at < source.called:
                findings.append(InventedRead(reading.consumer, record))
            elif source.outcome is Outcome.FAILED:
                findings.append(AbortedRead(source, reading.consumer, record.offset))
    return findings


def _disagreements(promises: Iterable[_Promise]) -> list[Disagreement]:
    told: dict[int, dict[str, str]] = {}
    for promise in promises:
        told.setdefault(promise.offset, {}).setdefault(promise.value, promise.told)
    return [
        Disagreement(offset, tuple(sorted(values.items())))
        for offset, values in sorted(told.items())
        if len(values) > 1
    ]


def _steps(readings: Iterable[Reading]) -> list[Gap | WentBack]:
    """Where a consumer did not go on by one."""
    findings: list[Gap | WentBack] = []
    for reading in readings:
        for before, after in pairwise([reading.start - 1, *(one.offset for one in reading.records)]):
            if after <= before:
                findings.append(WentBack(reading.consumer, before, after))
            elif after > before + 1:
                findings.append(Gap(reading.consumer, before + 1, after))
    return findings


def _reversals(appends: Iterable[Appended], promises: Sequence[_Promise]) -> list[OrderReversal]:
    """One finding per append: against the record with the highest offset of those that were there before it."""
    offset_of: dict[str, int] = {}  # as first told
    for promise in promises:
        offset_of.setdefault(promise.value, promise.offset)
    findings = []
    told = 0
    highest: _Promise | None = None  # of those told before the append was called
    for append in sorted(appends, key=lambda append: append.called):
        while told < len(promises) and promises[told].at < append.called:
            if highest is None or promises[told].offset > highest.offset:
                highest = promises[told]
            told += 1
        offset = offset_of.get(append.value)
        if offset is not None and highest is not None and highest.offset > offset:
            findings.append(OrderReversal(highest.value, highest.offset, append.value, offset))
    return findings
