"""Repair: gives up what cannot be read, and nothing else.

Damaged stretches become holes, so that every whole record keeps its offset, and the chain of header CRCs goes on
behind them. A store is written anew and renamed, so a crash leaves either the old file or the repaired one.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from logstore.directory import Directory
from logstore.frame import SegmentHeader, pack_hole
from logstore.fsck import Damage, Store
from logstore.opening import FIRST_SEGMENT
from logstore.segment import write_store
from logstore.walk import Tail


def repair(directory: Directory, stores: list[Store]) -> None:
    """Make the log readable again, durably. `stores` is what `examine` found and nobody has changed since."""
    previous: Tail | None = None
    for store in stores:
        if previous is not None and previous.next_index < store.base_index:
            _fill_gap(directory, previous, store.start)
        if store.header is None or store.damages:
            _rewrite(directory, store)
        previous = store.end


def _rewrite(directory: Directory, store: Store) -> None:
    header = store.header or FIRST_SEGMENT._replace(
        base_index=store.base_index,
        base_offset=store.start.offset,
        previous_term=store.start.term,
        previous_time=store.start.time,
        previous_crc=store.start.chain,
    )
    _write(directory, header, _pieces(store), store.end)


def _pieces(store: Store) -> Iterator[bytes]:
    """Whole items as they are and holes for damage, in order; nothing for what is lost at the log's end."""
    places: list[tuple[int, int | Damage]] = [*store.items]
    places += [(damage.position, damage) for damage in store.damages if damage.end_offset is not None]
    for position, piece in sorted(places, key=itemgetter(0)):
        yield _hole(piece) if isinstance(piece, Damage) else store.file.read(piece, position)


def _hole(damage: Damage) -> bytes:
    assert damage.end_offset is not None
    before = damage.before
    return pack_hole(
        first_index=before.next_index, end_index=damage.end_index, first_offset=before.offset,
        end_offset=damage.end_offset, term=before.term, append_time=before.time, chain=damage.chain,
    )  # fmt: skip


def _fill_gap(directory: Directory, before: Tail, behind: Tail) -> None:
    """A segment that is one hole, in place of files that are gone."""
    header = FIRST_SEGMENT._replace(
        base_index=before.next_index, base_offset=before.offset, previous_term=before.term,
        previous_time=before.time, previous_crc=before.chain,
    )  # fmt: skip
    hole = pack_hole(
        first_index=before.next_index, end_index=behind.next_index, first_offset=before.offset,
        end_offset=behind.offset, term=before.term, append_time=before.time, chain=behind.chain,
    )  # fmt: skip
    _write(directory, header, iter([hole]), behind)


def _write(directory: Directory, header: SegmentHeader, pieces: Iterator[bytes], end: Tail) -> None:
    header = header._replace(durable_index=end.next_index - 1)
    path = write_store(directory, header, pieces, end).store_path
    _remove_indexes(directory)
    directory.put_in_place(path)


def _remove_indexes(directory: Directory) -> None:
    """One that says where its store ended before would contradict a hole that is put behind it."""
    for name in directory.names():
        if name.suffix == "index":
            directory.fs.remove(f"{directory.path}/{name}")
    directory.sync()
