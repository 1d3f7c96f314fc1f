"""Members by gossip, in Serf's protocol: who is there as far as this node has heard, and telling others of this one."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from raftlog.discovery.announcing import Announcer
from raftlog.discovery.source import Candidate, Handler
from raftlog.errors import RaftlogError
from raftlog.net.backoff import BackOff
from raftlog.net.gossip.keyring_file import load_keyring, save_keyring
from raftlog.net.gossip.limits import TransportLimits
from raftlog.net.gossip.runner import GossipConfig, GossipEnded, GossipNode
from raftlog.net.gossip.transport import Filter
from raftlog.net.quiet_log import QuietLog
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.serf import encode_tags
from raftlog.serf.config import LAN, SerfConfig
from raftlog.serf.events import (
    KeyAction,
    KeysResult,
    Member,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberReaped,
    MemberUpdated,
    NameTaken,
    QueryResult,
    Status,
    Told,
)

log = logging.getLogger(__name__)

RETRY_S_MIN: Final = 0.25  # until an address that did not answer is tried again
RETRY_S_MAX: Final = 30.0
# Between two looks whether nobody else is alive, in which case all addresses are tried anew
ALONE_S: Final = 10.0
NAME_PAUSE_S: Final = 10.0  # until a node that lost its name asks for it again
LEAVE_S: Final = 2.0  # beyond what the profile gives a goodbye
REMEMBERED_MAX: Final = 64  # addresses of members, to find them again

# Of a server's tags, which others read.
ADDRESS_TAG: Final = "rpc_addr"
DIRECTORY_TAG: Final = "node_id"
CLUSTER_TAG: Final = "cluster"
ROLE_TAG: Final = "role"
VERSION_TAG: Final = "version"

ABOUT_MEMBERS: Final = (MemberJoined, MemberUpdated, MemberLeft, MemberFailed, MemberReaped, NameTaken)


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipConfig:
    """Of one node. Addresses are host:port."""

    node_name: str
    bind_addr: str  # of UDP and TCP; port 0 is any that is free
    tags: Mapping[str, str] = field(default_factory=dict)
    start_join_addrs: Sequence[str] = ()
    advertise_addr: str | None = None  # what others are told; None: bind_addr, or this machine's address
    profile: SerfConfig = LAN
    keys: tuple[bytes, ...] = ()  # the first encrypts; none: in the clear
    keyring_file: Path | None = None  # keys are kept there when they change; what it has counts before `keys`
    limits: TransportLimits | None = None
    filter: Filter | None = None


class Membership:
    """A Source. `start` it once, and `close` it; a goodbye is said by `leave` only."""

    def __init__(
        self,
        handler: Handler | None,
        config: MembershipConfig,
        *,
        on_told: Callable[[Told], None] | None = None,
    ) -> None:
        """`handler.join(name, addr)` is called for each other member that is alive and says by its tag rpc_addr where
        it serves, and again when that changes; `handler.leave(name)` when such a member left or failed. `on_told` gets
        everything, user events and queries included. Both are called in the loop and must not block.
        """
        self._config = config
        self._on_told = on_told
        self._announcer = Announcer(handler, own_name=config.node_name)
        self._tags = dict(config.tags)
        self._since: dict[str, tuple[Status, float]] = {}  # by name: its status, and since when it has that
        self._remembered: dict[str, None] = {}  # addresses of members' gossip, the latest last
        self._node_or_none: GossipNode | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._unanswered: Sequence[str] = config.start_join_addrs  # those that never answered yet
        self._looked = asyncio.Event()  # every address answered or failed once
        self._quiet = QuietLog(log, time.monotonic)

    @property
    def _node(self) -> GossipNode:
        assert self._node_or_none is not None, "start comes first"
        return self._node_or_none

    # ── a source ────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_authenticated(self) -> bool:
        """Whether only who has a key is heard."""
        return not self._node.keyring.is_empty

    async def start(self) -> None:
        """Be there, and look for others in the background. ListenError, ConfigError; OSError or ValueError for what the
        settings or the file of keys hold.
        """
        keys = await asyncio.to_thread(_keys_of, self._config)
        await self._start(keys, self._config.bind_addr)

    async def _start(self, keys: tuple[bytes, ...], bind_addr: str) -> None:
        await self._begin(keys, bind_addr)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep_joined()), loop.create_task(self._keep_running())]

    async def first_look(self) -> None:
        """Return once every one of start_join_addrs has answered or failed once."""
        await self._looked.wait()

    @property
    def is_complete(self) -> bool:
        """Whether every one of start_join_addrs has answered once."""
        return not self._unanswered

    def members(self) -> Sequence[Candidate]:
        """By name, those that left or failed and this one included."""
        members = self._node.members()
        now = time.monotonic()
        before = self._since
        self._since = {}
        for member in members:
            status, since = before.get(member.name, (member.status, now))
            self._since[member.name] = (member.status, since if status is member.status else now)
        return tuple(_candidate(member, self._since[member.name][1]) for member in members)

    async def wait_for_change(self, timeout_s: float) -> None:
        await self._announcer.wait_for_change(timeout_s)

    async def set_tags(self, **tags: str) -> None:
        """ValueError if they are too large together with those it has; nothing changed then."""
        wanted = {**self._tags, **tags}
        encode_tags(wanted)
        with suppress(GossipEnded):  # the next node has them from its start
            await self._node.set_tags(wanted)
        self._tags = wanted

    async def leave(self) -> None:
        """Say goodbye, for good; return when it was told, or after a while. Others are not heard any more."""
        profile = self._config.profile
        try:
            async with asyncio.timeout(2 * profile.broadcast_timeout_s + profile.leave_propagate_s + LEAVE_S):
                await self._node.leave()
        except (TimeoutError, GossipEnded) as error:
            log.warning("gossip left without a goodbye reason=%s", str(error) or "nobody heard it in time")
            await self.close()  # lest a node that is made anew tells all that this server is back

    async def come_back(self) -> None:
        """After `leave`: be there again, and look for others as at the start. ListenError, ConfigError."""
        await self.close()
        await self._start(self._node.keyring.keys, self._node.bound_address)

    async def close(self) -> None:
        """Fall silent: to others this node fails, unless it has left."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        if self._node_or_none is not None:
            await self._node.close()

    # ── what only gossip has ────────────────────────────────────────────────────────────────────────

    @property
    def bound_address(self) -> str:
        """Where it listens, which may be every interface."""
        return self._node.bound_address

    @property
    def gossip_address(self) -> str:
        """As others are told."""
        return self._node.address

    @property
    def is_over(self) -> bool:
        """It is silent: it said goodbye, or lost its name to another, for which it asks again after a while."""
        return self._node.is_over

    @property
    def has_left(self) -> bool:
        """It said goodbye: it is silent for ever."""
        return self._node.is_over and not self._node.has_lost_name

    def counts(self) -> Mapping[str, int]:
        """For metrics."""
        return self._node.counts()

    async def join(self, addresses: Sequence[str]) -> dict[str, str]:
        """Once, now: "" or why it was not possible, by address."""
        return await self._node.join(addresses)

    async def keys(self, action: KeyAction, key: bytes = b"") -> KeysResult:
        """On all members. ValueError if it cannot be: there is no encryption, or it is no key."""
        return await self._node.change_keys(action, key)

    async def user_event(self, name: str, payload: bytes, *, can_coalesce: bool = True) -> None:
        """ValueError if it is too large."""
        await self._node.user_event(name, payload, can_coalesce=can_coalesce)

    async def query(
        self, name: str, payload: bytes, *, nodes: Sequence[str] = (), timeout_s: float | None = None
    ) -> QueryResult:
        """What came in time. ValueError if it is too large."""
        return await self._node.query(name, payload, nodes=nodes, timeout_s=timeout_s)

    def respond(self, *, id: int, time: int, payload: bytes) -> None:
        """To a QueryCame, by its numbers."""
        self._node.respond(id=id, time=time, payload=payload)

    async def remove_failed(self, name: str, *, is_pruned: bool = False) -> None:
        """Have a failed member taken for one that left. KeyError if there is none of that name."""
        await self._node.remove_failed(name, is_pruned=is_pruned)

    # ── staying there ───────────────────────────────────────────────────────────────────────────────

    async def _begin(self, keys: tuple[bytes, ...], bind_addr: str) -> None:
        config = self._config
        gossip = GossipConfig(
            name=config.node_name, bind_addr=bind_addr, advertise_addr=config.advertise_addr, tags=self._tags,
            profile=config.profile, keys=keys, keyring_file=config.keyring_file, limits=config.limits,
            filter=config.filter,
        )  # fmt: skip
        self._node_or_none = await GossipNode.bind(gossip, self._told)
        await self._node.start()

    async def _keep_running(self) -> None:
        """A node that ended is made anew: this server must not vanish for a bug, nor for ever because of its name.

        It loses that to itself if it comes back with another address before the others know that it was away, as
        containers do. Once they know, the name is free.
        """
        backoff = BackOff(seconds_min=RETRY_S_MIN, seconds_max=RETRY_S_MAX, random=random.Random())
        while True:
            try:
                await self._node.listen()
                if not self._node.has_lost_name:
                    return  # it was closed
                pause_s = NAME_PAUSE_S
            except Exception as error:  # noqa: BLE001  # whatever the bug is
                log.error("gossip failed; it begins anew reason=%s", error)
                pause_s = backoff.next()
            await self._node.close()
            await asyncio.sleep(pause_s)
            while not await self._begin_anew():
                await asyncio.sleep(backoff.next())

    async def _begin_anew(self) -> bool:
        try:
            await self._begin(self._node.keyring.keys, self._node.bound_address)
        except RaftlogError as error:
            log.warning("gossip does not begin anew yet reason=%s", error)
            return False
        return True

    async def _keep_joined(self) -> None:
        """Ask every address until it has answered once; and all of them anew whenever nobody else is alive."""
        backoff = BackOff(seconds_min=RETRY_S_MIN, seconds_max=RETRY_S_MAX, random=random.Random())
        asked = tuple(dict.fromkeys(self._config.start_join_addrs))
        while not self.has_left:
            if asked and not self.is_over:
                asked = await self._ask(asked)
            self._looked.set()
            await asyncio.sleep(backoff.next() if asked else ALONE_S)
            if self._is_alone:
                asked = tuple(dict.fromkeys((*self._config.start_join_addrs, *self._remembered)))
            if not asked:
                backoff.reset()
        self._looked.set()

    async def _ask(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Those that are to be asked again."""
        try:
            outcomes = await self._node.join(addresses)
        except Exception as error:  # noqa: BLE001  # of a node that failed: a new one comes
            self._quiet.warning("join", "not joined reason=%s", str(error) or type(error).__name__)
            return addresses
        self._unanswered = [address for address in self._unanswered if outcomes.get(address) != ""]
        for address, reason in outcomes.items():
            if reason:
                text = "not joined yet; it is tried again address=%s reason=%s"
                self._quiet.warning(f"join {address}", text, address, reason)
        return tuple(address for address, reason in outcomes.items() if reason)

    @property
    def _is_alone(self) -> bool:
        return not any(
            member.status is Status.ALIVE and member.name != self._config.node_name
            for member in self._node.members()
        )

    def _told(self, several: Sequence[Told]) -> None:
        for told in several:
            self._hear(told)
        if any(isinstance(told, ABOUT_MEMBERS) for told in several):
            self._announcer.announce(self.members())
        if self._on_told is None:
            return
        for told in several:
            try:
                self._on_told(told)
            except Exception:
                log.exception("what was told of the gossip was not taken event=%s", type(told).__name__)

    def _hear(self, told: Told) -> None:
        match told:
            case MemberJoined(member):
                self._remember(member)
                log.info("member is there name=%s address=%s", member.name, member.address)
            case MemberUpdated(member):
                self._remember(member)
            case MemberLeft(member):
                log.info("member left name=%s address=%s", member.name, member.address)
            case MemberFailed(member):
                log.warning("member failed name=%s address=%s", member.name, member.address)
            case MemberReaped(member):
                log.info("member forgotten name=%s address=%s", member.name, member.address)
            case NameTaken(other):
                log.error(
                    "another node has the name of this one, or it had it there just before; it is asked for again, "
                    "and if this goes on: give each its own name=%s other=%s after_s=%.0f",
                    self._config.node_name,
                    other,
                    NAME_PAUSE_S,
                )
            case _:
                pass

    def _remember(self, member: Member) -> None:
        if member.name == self._config.node_name:
            return
        self._remembered.pop(member.address, None)
        self._remembered[member.address] = None
        if len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]


def _candidate(member: Member, since: float) -> Candidate:
    tags = member.tags
    return Candidate(
        name=member.name,
        address=tags.get(ADDRESS_TAG, ""),
        directory_id=tags.get(DIRECTORY_TAG, ""),
        cluster_id=tags.get(CLUSTER_TAG, ""),
        role=tags.get(ROLE_TAG, ""),
        version=tags.get(VERSION_TAG, ""),
        gossip_address=member.address,
        status=member.status.value,
        since=since,
    )


def _keys_of(config: MembershipConfig) -> tuple[bytes, ...]:
    """Those that are kept, or those of the settings, which are kept from now on."""
    if config.keyring_file is None:
        return config.keys
    kept = load_keyring(config.keyring_file)
    if kept is None:
        if config.keys:
            save_keyring(config.keyring_file, Keyring(config.keys).to_json())
        return config.keys
    if not set(config.keys) <= set(kept.keys):
        log.warning(
            "gossip keys of the settings are not used: those that were kept count path=%s",
            config.keyring_file,
        )
    return kept.keys
