"""Runs a list of steps against a log on a crash file system, and says what a power loss may leave of them.

The model is a list of frames. A step that was done must be there; of the one in flight:
- an append is there wholly or not at all; of entries for replication, the first of them may be;
- a truncation of the front has removed some of its segments, oldest first;
- a truncation of the suffix, or a reset, has removed some of its segments, newest first, or is done;
- of a compaction, any record that it would remove may still be there.
Without sync="always", the newest frames may be missing, back to what was made durable.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logstore import Config, Log, Record, RecordCompacted
from logstore.config import SyncPolicy
from logstore.testing import CrashFileSystem, CrashPoint
from tests.logstore.entries import records_entry

PATH = "data"

Step = tuple[Any, ...]  # name, arguments


class Frame(NamedTuple):
    first: int
    values: tuple[bytes | None, ...]  # None: compacted
    keys: tuple[bytes, ...]

    @property
    def end(self) -> int:
        return self.first + len(self.values)


class Content(NamedTuple):
    """What the log holds after a step."""

    start: int
    end: int
    frames: tuple[Frame, ...]
    durable_end: int  # records below it survive, whatever the policy

    def values(self) -> dict[int, bytes | None]:
        return {frame.first + i: value for frame in self.frames for i, value in enumerate(frame.values)}


EMPTY = Content(0, 0, (), 0)


class Allowed(NamedTuple):
    """One way in which a log may look after a power loss."""

    starts: frozenset[int]
    ends: frozenset[int]
    values: dict[int, set[bytes | None]]


class Done(NamedTuple):
    """A step of a trace: what the log held before and after it, and which operations it took."""

    step: Step
    before: Content
    after: Content
    segment_starts: tuple[int, ...]  # offsets, before the step
    first_operation: int
    end_operation: int


@dataclass
class Trace:
    """Steps that were run. `values` are unique, so that no record can be taken for another."""

    config: Config
    fs: CrashFileSystem = field(default_factory=CrashFileSystem)
    done: list[Done] = field(default_factory=list)
    content: Content = EMPTY
    now: int = 1_000_000_000
    count: int = 0
    log: Log | None = None

    def run(self, steps: Sequence[Step]) -> Trace:
        for step in steps:
            self.do(step)
        return self

    def do(self, step: Step) -> None:
        first = len(self.fs.operations)
        before = self.content
        segment_starts = () if self.log is None else self.log._view.layout.base_offsets
        name, *arguments = step
        getattr(self, f"_{name}")(*arguments)
        self.done.append(Done(step, before, self.content, segment_starts, first, len(self.fs.operations)))

    def clock(self) -> int:
        self.now += 1_000
        return self.now

    def _value(self, size: int) -> bytes:
        self.count += 1
        return (b"%d:" % self.count + bytes(range(97, 123)) * 20)[:size]

    def _live(self) -> Log:
        assert self.log is not None
        return self.log

    def _put(self, values: Sequence[bytes], keys: Sequence[bytes]) -> None:
        start, end, frames, durable_end = self.content
        frame = Frame(end, tuple(values), tuple(keys))
        if self.config.sync == "always":
            durable_end = frame.end
        self.content = Content(start, frame.end, (*frames, frame), durable_end)

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        self.log = Log(PATH, self.config, filesystem=self.fs, clock=self.clock)
        self.content = self.content._replace(durable_end=self.content.end)

    def _close(self) -> None:
        self._live().close()
        self.log = None
        self.content = self.content._replace(durable_end=self.content.end)

    def _append(self, size: int = 20) -> None:
        value = self._value(size)
        assert self._live().append(value) == self.content.end
        self._put([value], [b""])

    def _batch(self, *sizes: int) -> None:
        values = [self._value(size) for size in sizes]
        assert self._live().append_batch(values) == (self.content.end, self.content.end + len(sizes))
        self._put(values, [b""] * len(sizes))

    def _raw(self, *sizes: int) -> None:
        """Entries of one record each, appended together."""
        values = [self._value(size) for size in sizes]
        index, term = self._live().last_index + 1, self._live().term(self._live().last_index)
        entries = [
            records_entry(number, term, [value], time=self.clock())
            for number, value in enumerate(values, index)
        ]
        self._live().append_raw(entries)
        for value in values:
            self._put([value], [b""])

    def _keyed(self, *keys: str) -> None:
        """A batch of records with these keys; an upper-case one is a tombstone."""
        values = [b"" if key.isupper() else self._value(12) for key in keys]
        records = [Record(value, key=key.lower().encode()) for key, value in zip(keys, values, strict=True)]
        self._live().append_batch(records)
        self._put(values, [key.lower().encode() for key in keys])

    def _sync(self) -> None:
        self._live().sync()
        self.content = self.content._replace(durable_end=self.content.end)

    def _seal(self) -> None:
        self._live()._writer.seal_full_segments()

    def _truncate(self, lowest: int) -> None:
        self._live().truncate(lowest)
        self._cut_front()

    def _retain(self) -> None:
        self._live().apply_retention()
        self._cut_front()

    def _cut_front(self) -> None:
        start = self._live().start  # which segments there are is the log's to choose
        _, end, frames, durable_end = self.content
        assert start >= self.content.start and end == self._live().end
        left = tuple(frame for frame in frames if frame.end > start)
        assert not left or left[0].first == start
        self.content = Content(start, end, left, max(durable_end, start))

    def _truncate_suffix(self, end: int) -> None:
        self._live().truncate_suffix(end)
        start, _, frames, durable_end = self.content
        left = [frame for frame in frames if frame.end <= end]
        cut = [frame for frame in frames if frame.first < end < frame.end]
        left += [Frame(one.first, one.values[: end - one.first], one.keys[: end - one.first]) for one in cut]
        self.content = Content(start, end, tuple(left), min(durable_end, end))

    def _compact(self) -> None:
        bases = self._live()._view.layout.base_offsets
        self._live().compact()
        start, end, frames, _ = self.content
        lasts = {key: frame.first + i for frame in frames for i, key in enumerate(frame.keys) if key}
        compacted = []
        for frame in frames:
            values = list(frame.values)
            for i, key in enumerate(frame.keys):
                is_last = lasts.get(key) == frame.first + i
                if key and frame.first < bases[-1] and (not is_last or values[i] == b""):
                    values[i] = None
            compacted.append(frame._replace(values=tuple(values)))
        self.content = Content(start, end, tuple(compacted), end)

    def _reset(self) -> None:
        self._live().reset()
        self.content = EMPTY

    # ── what a power loss may leave ─────────────────────────────────────────────────────────────────

    def is_closed_at(self, operation_count: int) -> bool:
        """Whether the log had been closed, or not yet been opened again, after so many operations."""
        behind = [done for done in self.done if done.end_operation <= operation_count]
        is_in_flight = any(done.first_operation < operation_count < done.end_operation for done in self.done)
        return bool(behind) and behind[-1].step[0] == "close" and not is_in_flight

    def allowed(self, operation_count: int) -> list[Allowed]:
        """What the log may hold if the power fails after so many operations."""
        settled = EMPTY
        for done in self.done:
            if done.end_operation <= operation_count:
                settled = done.after
            elif done.first_operation < operation_count:
                return in_flight(done)
        return [at_rest(settled)]


def at_rest(content: Content) -> Allowed:
    """Back to what was durable, any frame may be the last."""
    ends = {content.durable_end, *(f.end for f in content.frames if f.end >= content.durable_end)}
    return _allowed({content.start}, ends, content.values())


def _allowed(starts: set[int], ends: set[int], *values: dict[int, bytes | None]) -> Allowed:
    merged: dict[int, set[bytes | None]] = {}
    for one in values:
        for offset, value in one.items():
            merged.setdefault(offset, set()).add(value)
    return Allowed(frozenset(starts), frozenset(ends), merged)


def in_flight(done: Done) -> list[Allowed]:
    before, after = at_rest(done.before), at_rest(done.after)
    bases = {base for base in done.segment_starts if base >= done.before.start}
    match done.step[0]:
        case "truncate" | "retain":
            starts = {base for base in bases if base <= done.after.start}
            return [_allowed(starts, set(before.ends | after.ends), done.before.values())]
        case "truncate_suffix":
            ends = {base for base in bases if base > done.after.end} | before.ends | after.ends
            ends = {end for end in ends if end >= min(done.before.durable_end, done.after.end)}
            return [_allowed({done.before.start}, ends, done.before.values())]
        case "raw":
            ends = {frame.first for frame in done.after.frames if frame.first >= done.before.end}
            return [_allowed({done.before.start}, ends | before.ends | after.ends, done.after.values())]
        case "reset":
            ends = {base for base in bases if base > done.before.start} | before.ends
            return [_allowed({done.before.start}, ends, done.before.values()), after]
        case "compact":
            return [
                _allowed(
                    {done.before.start},
                    set(before.ends | after.ends),
                    done.before.values(),
                    done.after.values(),
                )
            ]
        case _:
            return [
                _allowed(
                    {done.before.start},
                    set(before.ends | after.ends),
                    done.before.values(),
                    done.after.values(),
                )
            ]


# ── looking at what is left ─────────────────────────────────────────────────────────────────────────


def read_all(log: Log) -> dict[int, bytes | None]:
    """Every record by its offset, None where it was compacted; the ways to read must agree."""
    found: dict[int, bytes | None] = dict.fromkeys(range(log.start, log.end))
    for record in log.scan():
        found[record.offset] = record.value
    for offset, value in found.items():
        try:
            assert log.read(offset).value == value
        except RecordCompacted:
            assert value is None
    return found


def require_allowed(log: Log, allowed: Sequence[Allowed]) -> dict[int, bytes | None]:
    """Fail unless the log looks as one of `allowed` says; return what it holds."""
    found = read_all(log)
    for one in allowed:
        is_range_right = log.start in one.starts and log.end in one.ends
        if is_range_right and all(value in one.values[offset] for offset, value in found.items()):
            return found
    raise AssertionError(f"found {log.start}..{log.end}: {found}; allowed is one of {allowed}")


def require_repairs(log: Log, before: dict[str, bytes]) -> None:
    """Fail unless `repairs` names what is in the stores of `before` and not in the log, and nothing else."""
    segments = {"/" + segment.store_path: segment for segment in log._view.layout.segments}
    repairs = {"/" + repair.path: repair for repair in log.repairs}
    assert len(repairs) == len(log.repairs)
    for path, data in before.items():
        if not path.endswith(".store"):
            continue
        repair = repairs.pop(path, None)
        segment = segments.get(path)
        if segment is None or repair is not None and repair.position == 0:
            assert repair is not None and repair.position == 0, f"{path} was dropped in silence"
            continue
        end, stale_end = segment.end_position, segment.header.stale_end
        torn = data[max(end, stale_end) :].rstrip(b"\0")
        if torn:
            assert repair is not None, f"{path}: bytes from {end} were dropped in silence"
        if repair is not None:
            assert repair.position == end and repair.action.startswith("cut")
            assert torn or stale_end > end, f"{path} was whole: {repair}"
            kept = data[end : end + repair.bytes]
            assert kept in [copy for name, copy in log._directory.fs.files().items() if "/aside/" in name]  # type: ignore[attr-defined]
            assert not data[max(end + repair.bytes, stale_end) :].rstrip(b"\0")
    assert not repairs, f"repairs of what was not there: {repairs}"


def verify_state(
    trace: Trace, point: CrashPoint, disk: CrashFileSystem, rng: random.Random, *, crash_again: bool
) -> None:
    """Open what a power loss left, compare it with the model, write on, and open it again."""
    allowed = trace.allowed(point.operation_count)
    before = disk.files()
    log = Log(PATH, trace.config, filesystem=disk, clock=trace.clock)
    found = require_allowed(log, allowed)
    require_repairs(log, before)
    if trace.is_closed_at(point.operation_count):
        assert log.repairs == []
    if crash_again:
        again = rng.randrange(len(disk.operations) + 1)
        second = disk.crash_point(again).random_state(rng)
        with Log(PATH, trace.config, filesystem=second, clock=trace.clock) as log_after:
            require_allowed(log_after, allowed)

    assert log.append(b"after the power loss") == log.end - 1
    log.close()
    with Log(PATH, trace.config, filesystem=disk, clock=trace.clock) as log:
        assert log.repairs == []
        assert read_all(log) == {**found, log.end - 1: b"after the power loss"}


def verify_trace(trace: Trace, rng: random.Random, *, states_max: int) -> None:
    """Every point, and of each every state, with cuts so wide that there are `states_max`; or that many random ones."""
    for point in trace.fs.crash_points():
        thinned = _thinned(point, trace.fs, states_max)
        states = (point.random_state(rng) for _ in range(states_max)) if thinned is None else thinned.states()
        for number, disk in enumerate(states):
            try:
                verify_state(trace, point, disk, rng, crash_again=rng.random() < 0.2)
            except Exception as error:
                which = "a random state" if thinned is None else f"state {number} of {thinned.count}"
                before = trace.fs.operations[max(point.operation_count - 12, 0) : point.operation_count]
                error.add_note(f"steps: {[done.step for done in trace.done]}\n{trace.config}")
                error.add_note(f"{point}, {which}; operations before it: {before}")
                raise


def _thinned(point: CrashPoint, fs: CrashFileSystem, states_max: int) -> CrashPoint | None:
    for cut_bytes in (1, 2, 4, 8, 16, 32, 64, 128):
        thinned = fs.crash_point(point.operation_count, cut_bytes=cut_bytes)
        if thinned.count <= states_max:
            return thinned
    return None


def random_trace(rng: random.Random, step_count: int) -> Trace:
    """A log with limits and a policy by chance, and what somebody might do to it. Not closed at its end."""
    policies: list[SyncPolicy] = ["always", "always", "never", "interval"]
    trace = Trace(
        Config(
            sync=rng.choice(policies),
            segment_bytes_max=rng.choice((200, 300, 480, 900)),
            spare_segments_max=rng.choice((0, 1, 2)),
            unsealed_segments_max=rng.choice((1, 4)),
            retention_records_max=rng.choice((5, 20)),
            compression=rng.choice(("none", "none", "zstd")),
            tombstone_age_ms_min=0,
        )
    )
    trace.do(("open",))
    while len(trace.done) < step_count:
        trace.do(_random_step(rng, trace))
    return trace


def _random_step(rng: random.Random, trace: Trace) -> Step:
    if trace.log is None:
        return ("open",)
    start, end = trace.content.start, trace.content.end
    match rng.choices(
        (
            "append",
            "batch",
            "raw",
            "keyed",
            "sync",
            "seal",
            "truncate",
            "truncate_suffix",
            "retain",
            "compact",
            "reset",
            "close",
        ),
        (10, 4, 4, 5, 2, 3, 2, 3, 1, 2, 0.5, 1),
    )[0]:
        case "append":
            return ("append", rng.choice((0, 1, 20, 100, 250)))
        case "batch":
            return ("batch", *(rng.randrange(40) for _ in range(rng.randint(1, 4))))
        case "raw":
            return ("raw", *(rng.randrange(150) for _ in range(rng.randint(1, 5))))
        case "keyed":
            return ("keyed", *(rng.choice("abcABC") for _ in range(rng.randint(1, 4))))
        case "truncate":
            return ("truncate", rng.randint(start, end))
        case "truncate_suffix":
            return ("truncate_suffix", rng.randint(max(start, end - 6), end))
        case name:
            return (name,)
