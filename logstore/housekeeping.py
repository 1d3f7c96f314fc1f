"""The background work of a log: the timed sync of sync="interval", sealing full segments, retention."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from logstore.errors import LogClosed, LogError, LogPoisoned
from logstore.writer import Writer

log = logging.getLogger("logstore")


class Housekeeper:
    """A thread that is started when there is work for it, and ends with `close`."""

    def __init__(
        self, writer: Writer, *, interval_ms: int | None, retain: Callable[[], object], name: str
    ) -> None:
        self._writer = writer
        self._interval_s = None if interval_ms is None else interval_ms / 1000
        self._retain = retain
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._has_work = threading.Event()
        self._is_closed = False

    def wake(self) -> None:
        """There is a full segment, or a first record to be synced by the interval."""
        self._has_work.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._is_closed:
                    self._thread = threading.Thread(
                        target=self._run, name=f"{self._name} housekeeping", daemon=True
                    )
                    self._thread.start()

    def _run(self) -> None:
        while not self._is_closed:
            self._has_work.wait(self._interval_s)
            rolled = self._has_work.is_set()
            self._has_work.clear()
            try:
                if self._is_closed:
                    return
                if self._interval_s is not None:
                    self._writer.make_durable(self._writer.last_index)
                if rolled:
                    self._writer.seal_full_segments()
                    self._retain()
            except (LogClosed, LogPoisoned):
                return
            except (LogError, OSError) as error:
                # Appends meet a full disk themselves; an index that is not saved is rebuilt.
                log.warning("housekeeping failed path=%s error=%s", self._name, error)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            thread = self._thread
        self._has_work.set()
        if thread is not None:
            thread.join()
