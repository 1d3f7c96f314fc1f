"""PySyncObj, as the engine of one server, outside of the guarantees: docs/decisions/0007-pysyncobj-engine.md."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

from logstore.reading import SegmentSummary
from raftlog.config import ServerConfig
from raftlog.engine import NodeId
from raftlog.errors import ConfigError, IdentityError, NodeFailed
from raftlog.joining import Joining, cluster_of
from raftlog.net.handshake import Identity
from raftlog.net.stream_layer import StreamLayer
from raftlog.pysyncobj_home import PySyncObjHome
from raftlog.raft.log import LostEntries
from raftlog.runtime.logging import get_logger
from raftlog.storage.hard_state import DamagedState

if TYPE_CHECKING:  # the package pysyncobj may be missing
    from raftlog.pysyncobj.journal import Journal
    from raftlog.pysyncobj.log import SyncObjLog

log = get_logger(__name__)

ENGINE: Final = "pysyncobj"
NOT_POSSIBLE: Final = ("retention_bytes_max", "retention_age_ms_max", "retention_records_max")


class PySyncObjEngine:
    """Implements raftlog.agent.Engine."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._parts = AsyncExitStack()
        self._address = ""  # where others reach this server
        self._home: PySyncObjHome | None = None
        self._stream_layer: StreamLayer | None = None
        self._log: SyncObjLog | None = None

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────

    @property
    def log(self) -> SyncObjLog:
        assert self._log is not None, "it is not a member of a cluster yet"
        return self._log

    @property
    def cluster_id(self) -> str:
        home = self._open_home
        return "" if home.is_new else home.identity.cluster_id

    @property
    def leader(self) -> NodeId | None:
        return self.log.node.leader

    @property
    def failure(self) -> NodeFailed | None:
        return self.log.node.failure

    @property
    def is_to_begin_anew(self) -> bool:
        return False  # it has no learners, as which it could come back

    # It neither looks for others nor looks after them: members are changed by those who ask for it.
    removed: str = ""
    source: None = None
    autopilot: None = None

    async def depart(self) -> None:
        """Nobody is told: it does not look for others."""

    async def leave(self) -> None:
        """Removed by those who stay, or not at all."""

    def segments(self) -> Sequence[SegmentSummary]:
        return self.log.node.journal.log.segments()

    async def wait_for_change(self, timeout_s: float) -> None:
        await self.log.node.wait_for_change(timeout_s)

    @property
    def _open_home(self) -> PySyncObjHome:
        assert self._home is not None, "it is not prepared"
        return self._home

    # ── starting ────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, address: str) -> None:
        config = self._config
        _require_possible(config)
        self._address = address
        home = self._home = await asyncio.to_thread(PySyncObjHome, config.data_dir, NodeId(config.node_name))
        self._parts.callback(home.close)
        if home.is_new:
            await self._begin_cluster(home)

    async def _begin_cluster(self, home: PySyncObjHome) -> None:
        config = self._config
        if config.peers:
            if await self._joining().have_gone_on(self._others()):
                log.warning("the cluster has data and this server has none: it is to be let in anew")
                return
            members = {NodeId(peer.name): peer.address for peer in config.peers}
            await asyncio.to_thread(home.begin, cluster_of(config), members)
            log.info("cluster begun from the list of peers", members=len(members))
        elif config.bootstrap:
            cluster_id = str(uuid.uuid4())
            await asyncio.to_thread(home.begin, cluster_id, {NodeId(config.node_name): self._address})
            log.info("cluster begun with this server", cluster=cluster_id)

    async def start(self, stream_layer: StreamLayer) -> SyncObjLog | None:
        self._stream_layer = stream_layer
        if self._open_home.is_new:
            return None
        journal = await self._open_journal()
        if self._is_to_join(journal):
            await asyncio.to_thread(journal.close)
            return None
        await self._tell_address(journal)
        return self._start_node(journal, joins=False)

    async def join(self) -> SyncObjLog:
        """The leader counts who joins as a voter at once, so this node takes part before it asks."""
        home, joining = self._open_home, self._joining()
        asked = self._others()
        if home.is_new:
            status = await joining.find_cluster(asked)
            if status.engine != ENGINE:
                raise IdentityError(
                    f"the cluster of {', '.join(asked)} runs on the engine {status.engine}, this server on {ENGINE}"
                )
            known = {NodeId(member.id): member.rpc_addr for member in status.members}
            known.pop(NodeId(self._config.node_name), None)
            await asyncio.to_thread(home.begin, status.cluster_id, known)
        commit_log = self._start_node(await self._open_journal(), joins=True)
        await joining.ask(asked, home.identity.directory_id, home.identity.cluster_id)
        return commit_log

    def _others(self) -> list[str]:
        """Addresses of servers that may let this one in."""
        config, home = self._config, self._open_home
        peers = [peer.address for peer in config.peers if peer.name != config.node_name]
        known = {} if home.is_new else home.identity.members
        others = [address for node, address in known.items() if node != config.node_name]
        return list(config.join_addrs) or others or peers

    def _joining(self) -> Joining:
        config = self._config
        return Joining(
            config.peer_tls(), node=NodeId(config.node_name), address=self._address, engine="pysyncobj"
        )

    async def _open_journal(self) -> Journal:
        from raftlog.pysyncobj.journal import Journal

        home, known = self._open_home, self._open_home.identity
        members = {known.node: self._address, **known.members}
        try:
            return await asyncio.to_thread(
                Journal,
                home.folder,
                self._config.log_config(),
                node=known.node,
                cluster_id=known.cluster_id,
                members=members,
            )
        except (LostEntries, DamagedState) as error:
            raise IdentityError(
                f"{error}; the engine {ENGINE} cannot mend this: have this server leave the cluster, and join it with "
                "an empty directory and under another name"
            ) from error

    def _is_to_join(self, journal: Journal) -> bool:
        """It did not begin the cluster, and no leader has sent it anything yet."""
        from raftlog.pysyncobj.codec import FIRST_INDEX

        known = self._open_home.identity
        return known.node not in known.members and journal.last_index == FIRST_INDEX

    async def _tell_address(self, journal: Journal) -> None:
        """If the members know another address of this server, have them know this one before it takes part: whom they
        cannot answer only disturbs them."""
        member = journal.members.get(journal.node)
        if member is None or member.address == self._address:
            return
        others = [each.address for node, each in journal.members.items() if node != journal.node]
        known = self._open_home.identity
        if not others or not await self._joining().ask_once(others, known.directory_id, known.cluster_id):
            log.warning(
                "the members know this server at another address", known=member.address, now=self._address
            )

    def _start_node(self, journal: Journal, *, joins: bool) -> SyncObjLog:
        from raftlog.pysyncobj.log import SyncObjLog

        assert self._stream_layer is not None
        config, known = self._config, self._open_home.identity
        try:
            self._log = SyncObjLog(
                journal,
                self._stream_layer,
                Identity(cluster_id=known.cluster_id, directory_id=known.directory_id, address=self._address),
                joins=joins,
                election_timeout_s_min=config.election_timeout_ms_min / 1000,
                election_timeout_s_max=config.election_timeout_ms_max / 1000,
            )
        except BaseException:
            journal.close()
            raise
        self._parts.push_async_callback(self._log.close)
        return self._log

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────

    def work(self) -> list[Coroutine[Any, Any, None]]:
        return []

    async def begin_to_lead(self) -> None:
        if len(self.log.node.members) == 1:
            with suppress(TimeoutError):
                await self.log.wait_for_leader(2 * self._config.election_timeout_ms_max / 1000)

    async def close(self) -> None:
        await self._parts.aclose()


def _require_possible(config: ServerConfig) -> None:
    """ConfigError if the package is missing, or if these settings ask for what the engine cannot do."""
    try:
        import raftlog.pysyncobj.log  # noqa: F401  # the first use, for what it says
    except ImportError as error:
        raise ConfigError([str(error)]) from error
    problems = [
        f"{name.replace('_', '-')}: the engine {ENGINE} needs the whole log to bring a newcomer up; leave it out"
        for name in NOT_POSSIBLE
        if getattr(config, name) is not None
    ]
    if not (config.bootstrap or config.peers or config.join_addrs):
        problems.append(f"the engine {ENGINE} cannot wait to be joined: give bootstrap, peers or join-addrs")
    if problems:
        raise ConfigError(problems)
