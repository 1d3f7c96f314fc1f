"""One server of a cluster in this process: an agent on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from logstore import LogError
from raftlog.agent import Agent
from raftlog.config import ServerConfig
from raftlog.distributed.log import DistributedLog
from raftlog.distributed.replica import Links, Replica
from raftlog.engine import NodeId
from raftlog.errors import ConfigError
from raftlog.raft.messages import Message
from raftlog.raft_engine import RaftEngine
from raftlog.server.forwarding import Forwarder
from raftlog.storage.raft_storage import RaftStorage
from raftlog.testing.files import MortalFileSystem
from raftlog.testing.network import CutForwarder, CutLinks, Network

T = TypeVar("T")

END_S_MAX: Final = 20.0  # to end a server, orderly or not
PAUSE_S_MAX: Final = 10.0  # until a server that is to pause does


class _Engine(RaftEngine):
    """Raft whose messages go through a network that may be cut."""

    def __init__(self, config: ServerConfig, network: Network, filesystem: MortalFileSystem) -> None:
        if config.engine != "raft":
            raise ConfigError([f"engine {config.engine}: clusters for tests run on raft alone"])
        super().__init__(config, filesystem=filesystem)
        self._network = network
        self._node = NodeId(config.node_name)
        self.is_dead = False

    def _make_log(self, storage: RaftStorage, links: Links) -> DistributedLog:
        return super()._make_log(storage, CutLinks(self._node, links, self._network))

    def _received(self, sender: NodeId, message: Message) -> None:
        # What was on its way when the network was cut is lost, too.
        if not self.is_dead and self._network.is_open(sender, self._node):
            super()._received(sender, message)

    async def die(self) -> None:
        """Take part no more, and say nothing."""
        if self._links is not None:
            await self._links.close()
        if self._log is not None:
            replica = self._log.replica
            replica.is_ready = False  # it has nothing to hand over
            replica.driver.close()


class _Agent(Agent):
    """An agent that can end as if it was killed."""

    def __init__(
        self, config: ServerConfig, engine: _Engine, network: Network, filesystem: MortalFileSystem
    ) -> None:
        super().__init__(config, engine)
        self._files = filesystem
        self._network = network
        self._mortal = engine

    def _make_forwarder(self) -> Forwarder:
        config = self._config
        bytes_max = 2 * config.message_bytes_max
        node = NodeId(config.node_name)
        return CutForwarder(node, self._network, config.peer_tls(), message_bytes_max=bytes_max)

    async def die(self) -> None:
        """End without a goodbye: first the connections, so that nobody is told anything, then what is behind them."""
        if self._listener is not None:
            await self._listener.close()
        await self._mortal.die()
        self._files.bury()
        with suppress(OSError, LogError):  # of files that cannot be made or removed any more
            await self.stop()


class LocalServer:
    """Starts when it is made; `wait_until_started` says whether that worked. Used once: another run is another object."""

    def __init__(self, config: ServerConfig, network: Network) -> None:
        self.name = config.node_name
        self.is_paused = False
        self._filesystem = MortalFileSystem()
        self._resumed = threading.Event()
        self._loop = _new_loop()
        self._engine = _Engine(config, network, self._filesystem)
        self._agent = _Agent(config, self._engine, network, self._filesystem)
        self._thread = threading.Thread(target=self._run_loop, name=f"raftlog {self.name}", daemon=True)
        self._thread.start()
        self._started: Future[Any] = self._begin(self._agent.__aenter__())

    def wait_until_started(self, timeout_s: float) -> None:
        """Raises what the start failed with; then nothing of the server is left. TimeoutError."""
        try:
            self._started.result(timeout_s)
        except BaseException:
            self._started.cancel()
            self._end_loop()
            raise

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────

    @property
    def is_member(self) -> bool:
        """It has a log; one without data has to be let in first."""
        return self._engine.has_log

    @property
    def replica(self) -> Replica:
        """Its fields may be read by any thread; they change at any time."""
        return self._engine.log.replica

    @property
    def high_watermark(self) -> int:
        return self._engine.log.end if self.is_member else 0

    @property
    def failure(self) -> str:
        """Why it cannot go on; empty if it can."""
        return str(self.replica.failure or "") if self.is_member else ""

    def call(self, what: Callable[[DistributedLog], Coroutine[Any, Any, T]], timeout_s: float) -> T:
        """What `what` gives of the log of this server, run by its loop."""
        return self._begin(what(self._engine.log)).result(timeout_s)

    # ── what befalls it ─────────────────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Return when it does nothing any more; its connections stay open, and the kernel takes what is sent to it."""
        held = threading.Event()
        self._resumed.clear()
        self._loop.call_soon_threadsafe(self._hold, held)
        if not held.wait(PAUSE_S_MAX):
            self._resumed.set()
            raise TimeoutError(f"{self.name} did not pause within {PAUSE_S_MAX:.0f} s")
        self.is_paused = True

    def _hold(self, held: threading.Event) -> None:
        held.set()
        self._resumed.wait()

    def resume(self) -> None:
        self._resumed.set()
        self.is_paused = False

    def slow_down_disk(self, seconds: float) -> None:
        self._filesystem.sync_delay_s = seconds

    def begin_kill(self) -> Future[None]:
        """From this moment on nothing is written or said. `end` waits for it."""
        self._filesystem.die()
        self._engine.is_dead = True
        self.resume()
        return self._begin(self._agent.die())

    def begin_stop(self) -> Future[None]:
        """Stop as a server does that is asked to. `end` waits for it."""
        self.resume()
        return self._begin(self._agent.stop())

    def end(self, ending: Future[None]) -> None:
        """Return when it has ended as it was told to. TimeoutError."""
        try:
            ending.result(END_S_MAX)
        finally:
            self._end_loop()

    # ── its thread ──────────────────────────────────────────────────────────────────────────────────

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run_loop(self) -> None:
        loop = self._loop
        loop.run_forever()
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_S_MAX)


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _new_loop() -> asyncio.AbstractEventLoop:
    """As a server has it (raftlog.server_main.run)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
