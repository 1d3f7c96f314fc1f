"""Looking at a log that this process may not write, perhaps while another does."""

from __future__ import annotations

from logstore.directory import Directory
from logstore.index import Index
from logstore.layout import Layout
from logstore.opening import Opened
from logstore.recovery import read_header
from logstore.segment import Segment, index_rows
from logstore.walk import Walk
from logstore.writer import Cut


class ReadOnlyView:
    """What the files held when they were last looked at; `refresh` looks again.

    Nothing on disk is touched. A log that is cut or reset meanwhile has to be opened again: reads then raise
    CorruptLog or OffsetOutOfRange.
    """

    def __init__(self, directory: Directory, opened: Opened) -> None:
        self._directory = directory
        self._make_growing(opened.segments[-1])
        self.layout = Layout.of(tuple(opened.segments))
        self.end = opened.segments[-1].end_offset
        self.epoch = 0
        self.cuts: tuple[Cut, ...] = ()
        self.is_closed = False

    @staticmethod
    def _make_growing(segment: Segment) -> None:
        rows = segment.index.rows[: segment.index.count]
        segment.index = Index.growing_in_memory()
        segment.index.extend(rows)

    def refresh(self) -> None:
        """Take in what was appended since."""
        while True:
            self._read_on()
            directory, active = self._directory, self.layout.active
            path = directory.store_path(active.end_index)
            if active.end_index == active.base_index or not directory.fs.exists(path):
                break
            file = directory.fs.open(path, writable=False)
            header = read_header(file, path)
            if header is None or header.base_index != active.end_index:
                break  # it is being made
            following = Segment(directory, header, file)
            following.index = Index.growing_in_memory()
            self.layout = Layout.of((*self.layout.segments, following))
        self.end = self.layout.active.end_offset

    def _read_on(self) -> None:
        segment = self.layout.active
        walk = Walk(segment.file, segment.tail, segment_id=segment.header.segment_id)
        for item in walk:
            if item.damage:  # its header is there already, its body not yet
                return
            segment.index.extend(index_rows(item))
            segment.tail = walk.tail
