"""The thread that writes: what arrives while it syncs joins the next sync."""

from __future__ import annotations

import logging
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, Protocol, TypeVar

from logstore import DiskFull
from raftlog.engine import Token
from raftlog.raft.storage import Write

T = TypeVar("T")

log = logging.getLogger(__name__)

RETRY_S: Final = 0.2  # how often a full disk is tried again


class Disk(Protocol):
    def write(self, writes: Sequence[Write]) -> None: ...


class DiskThread:
    """Carries out writes in their order, as many at once as there are.

    A full disk keeps what it was given, and is tried again until there is room. After any other error nothing is
    written any more, because it is not known what the disk holds.
    """

    def __init__(
        self,
        storage: Disk,
        loop: AbstractEventLoop,
        on_durable: Callable[[Token], None],
        on_failed: Callable[[Exception], None],
        *,
        on_full: Callable[[bool], None] = lambda is_full: None,
    ) -> None:
        """The callbacks are called in the loop's thread: `on_durable` with the highest token of a group, `on_full`
        when the disk gets full and when it has room again, `on_failed` at most once.
        """
        self._storage = storage
        self._loop = loop
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._on_full = on_full
        self._waiting: SimpleQueue[tuple[Token, Write] | None] = SimpleQueue()  # None: close
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raft-disk", daemon=True)
        self._thread.start()

    def submit(self, token: Token, write: Write) -> None:
        """Have this written after all that was submitted before. Never waits; what is bounded is the node's to bound
        (RaftConfig.uncommitted_bytes_max, inflight_bytes_max).
        """
        assert not self._is_closing.is_set(), "a write after close()"
        self._waiting.put((token, write))

    def close(self) -> None:
        """Return when what was submitted is written, or the disk failed or is full. Twice is no error."""
        if not self._is_closing.is_set():
            self._is_closing.set()
            self._waiting.put(None)
        self._thread.join()

    # ── in the thread ───────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._take()
            if not group:
                continue
            try:
                is_written = self._write([write for _, write in group])
            except Exception as error:  # noqa: BLE001 - whatever it is, the node must learn of it
                log.error("disk failed error=%s", error)
                self._tell(self._on_failed, error)
                return
            if not is_written:
                return
            self._tell(self._on_durable, group[-1][0])

    def _take(self) -> tuple[list[tuple[Token, Write]], bool]:
        """(all that waits, whether more may come); waits until there is something."""
        group = []
        item = self._waiting.get()
        try:
            while item is not None:
                group.append(item)
                item = self._waiting.get_nowait()
        except Empty:
            return group, True
        return group, False

    def _write(self, writes: Sequence[Write]) -> bool:
        """False if the disk was full until this was closed."""
        is_full = False
        while True:
            try:
                self._storage.write(writes)
            except DiskFull as error:
                if self._is_closing.is_set():
                    log.warning("closed with a full disk, writes are lost error=%s", error)
                    return False
                if not is_full:
                    is_full = True
                    log.error("disk is full, waiting for room error=%s", error)
                    self._tell(self._on_full, True)
                self._is_closing.wait(RETRY_S)
            else:
                if is_full:
                    log.warning("disk has room again")
                    self._tell(self._on_full, False)
                return True

    def _tell(self, callback: Callable[[T], None], what: T) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, what)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits for this any more
