"""A node of Serf on real sockets: the engine in its actor, what it says to the network, and what is asked of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from raftlog.engine import Ask, Effect, Emit, Note, Reply, Send
from raftlog.net.gossip.binding import advertised, bind, resolve
from raftlog.net.gossip.keyring_file import save_keyring
from raftlog.net.gossip.limits import TransportLimits
from raftlog.net.gossip.transport import Filter, GossipTransport
from raftlog.net.quiet_log import QuietLog
from raftlog.runtime.actor import Actor, InboxFull
from raftlog.serf.codec.framing import StreamReader
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.config import LAN, SerfConfig
from raftlog.serf.events import (
    ChangeKeys,
    Join,
    KeyAction,
    KeysChanged,
    KeysResult,
    Leave,
    Member,
    NameTaken,
    QueryResult,
    RemoveFailed,
    Request,
    Respond,
    SendQuery,
    SendUserEvent,
    SetTags,
    Told,
)
from raftlog.serf.messages import Address, TagFilter
from raftlog.serf.node import SerfNode

log = logging.getLogger(__name__)

INBOX_MAX: Final = 2048  # packets and questions that wait for the engine; more are dropped

# Notes of what belongs to a restart, to a change of keys or to a member that is away; all others are warnings.
USUAL: Final = {
    "refuted": "others had an older or a wrong word of this node, and get a newer one",
    "serf_leave_refuted": "this node was taken for leaving, and says that it stays",
    "serf_keys_asked": "a change of the keys was asked for",
    "serf_reconnecting": "a member that failed is tried again",
}
REQUESTS_MAX: Final = 256  # of this program that wait for their outcome; more are refused
RESOLVE_S: Final = 5.0  # for the name of an address to be looked up


class GossipEnded(Exception):
    """The node was closed, or failed, before the outcome was known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipConfig:
    name: str  # of this node; unique in the cluster
    bind_addr: str  # host:port of UDP and TCP; port 0 is any that is free
    advertise_addr: str | None = None  # what others are told; None: bind_addr, or the name of this host
    tags: Mapping[str, str] = field(default_factory=dict)
    profile: SerfConfig = LAN
    keys: tuple[bytes, ...] = ()  # the first encrypts; none: everything is sent in the clear
    keyring_file: Path | None = None  # where keys are kept when they change
    limits: TransportLimits | None = None  # None: by the profile
    filter: Filter | None = None


class GossipNode:
    """All calls are made in the event loop's thread. `bind` makes one; `close` it, whatever became of it."""

    def __init__(
        self,
        config: GossipConfig,
        transport: GossipTransport,
        address: Address,
        on_told: Callable[[Sequence[Told]], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._transport = transport
        self._on_told = on_told
        self._keyring_file = config.keyring_file
        self._numbers = itertools.count(1)  # of requests and of streams: both are answered by Reply
        self._requests: dict[int, asyncio.Future[Any]] = {}  # REQUESTS_MAX at most
        self._saving: asyncio.Task[None] | None = None
        self._is_keyring_changed = False  # since it was saved last
        self._is_name_taken = False
        self._quiet = QuietLog(log, loop.time)
        self._engine = SerfNode(
            config.profile,
            name=config.name,
            address=address,
            tags=config.tags,
            codec=Codec(Keyring(config.keys), nonce=os.urandom),
            random=random.Random(os.urandom(16)),
            now=time.monotonic(),
        )
        self._actor = Actor(self._engine, self._perform, inbox_max=INBOX_MAX)
        self._end = loop.create_task(self._give_up_requests())

    @classmethod
    async def bind(cls, config: GossipConfig, on_told: Callable[[Sequence[Told]], None]) -> GossipNode:
        """A node that is there, alone, and tells `on_told` in the loop of what happened in each turn; deaf until `start`.

        ListenError, ConfigError; ValueError if the name, the tags or the keys cannot be used.
        """
        sockets = bind(config.bind_addr)
        try:
            address = await advertised(sockets, config.advertise_addr)
            limits = config.limits or TransportLimits(stream_timeout_s=config.profile.swim.stream_timeout_s)
            transport = GossipTransport(sockets, StreamReader, limits=limits, filter=config.filter)
            return cls(config, transport, address, on_told)
        except BaseException:
            sockets.close()
            raise

    async def start(self) -> None:
        """Hear others. To be called once, soon."""
        await self._transport.start(self._actor.dispatch, self._numbers)

    @property
    def address(self) -> Address:
        """Of its gossip, as others are told."""
        return self._engine.local.address

    @property
    def bound_address(self) -> Address:
        """Where it listens, which may be every interface."""
        return self._transport.bound_address

    @property
    def is_over(self) -> bool:
        """It said goodbye, or lost its name to another: it is silent for ever."""
        return self._engine.has_left or self._is_name_taken

    @property
    def has_lost_name(self) -> bool:
        """Another node has it, or had it so lately that the others do not know yet that it is gone."""
        return self._is_name_taken

    @property
    def local(self) -> Member:
        return self._engine.local

    def members(self) -> tuple[Member, ...]:
        """All that are known, by name; itself too."""
        return self._engine.members()

    @property
    def keyring(self) -> Keyring:
        return self._engine.keyring

    def counts(self) -> Mapping[str, int]:
        """For metrics: of the engine and of the network."""
        return {
            **self._engine.counts(), **self._transport.counts,
            "streams_open": self._transport.streams_open, "inbox": len(self._actor),
        }  # fmt: skip

    async def listen(self) -> None:
        """Return once it is closed; raises what ended it otherwise, which is a bug of ours."""
        await self._actor.listen()

    async def _give_up_requests(self) -> None:
        """Once it has ended: nobody is left to answer them."""
        try:
            await self._actor.listen()
        except Exception as error:
            log.error("the gossip of this node ended", exc_info=error)
        for future in self._requests.values():
            if not future.done():
                future.set_exception(GossipEnded("the gossip ended before the outcome was known"))

    async def close(self) -> None:
        """Fall silent, without a goodbye."""
        self._actor.close()
        await asyncio.wait((self._end,))
        await self._transport.close()
        if self._saving is not None:
            await self._saving

    # ── what is asked of it ─────────────────────────────────────────────────────────────────────────

    async def join(self, addresses: Sequence[str]) -> dict[str, str]:
        """Exchange states with whoever is at each host:port, names looked up anew: "" or why it was not possible."""
        found = dict(zip(addresses, await asyncio.gather(*map(_resolved, addresses)), strict=True))
        own = self.address
        known = (one for those in found.values() if isinstance(those, tuple) for one in those)
        asked = tuple(dict.fromkeys(one for one in known if one != own))
        outcomes: dict[str, str] = {own: ""}
        if asked:
            outcomes |= await self._request(lambda number: Join(number, asked))

        def outcome(those: tuple[Address, ...] | str) -> str:
            if isinstance(those, str):
                return those
            reasons = [outcomes.get(one, "not tried") for one in those]
            return "" if "" in reasons else "; ".join(reasons)

        return {address: outcome(those) for address, those in found.items()}

    async def leave(self) -> None:
        """Say goodbye; return when it was told. Nothing is sent after."""
        await self._request(Leave)

    async def set_tags(self, tags: Mapping[str, str]) -> None:
        """In the place of those it had. ValueError if they are too large."""
        await self._request(lambda number: SetTags(number, dict(tags)))

    async def user_event(self, name: str, payload: bytes, *, can_coalesce: bool = True) -> None:
        """ValueError if it is too large."""
        await self._request(lambda number: SendUserEvent(number, name, payload, can_coalesce))

    async def query(
        self,
        name: str,
        payload: bytes,
        *,
        nodes: Sequence[str] = (),
        tags: Sequence[TagFilter] = (),
        wants_ack: bool = False,
        timeout_s: float | None = None,
    ) -> QueryResult:
        """What came in time, or all that could come. ValueError if it is too large."""
        result: QueryResult = await self._request(
            lambda number: SendQuery(
                number, name, payload, tuple(nodes), tuple(tags), wants_ack=wants_ack, timeout_s=timeout_s
            )
        )
        return result

    def respond(self, *, id: int, time: int, payload: bytes) -> None:
        """To a query that came, by its numbers; InboxFull if too much waits."""
        self._actor.dispatch(Respond(id, time, payload))

    async def remove_failed(self, name: str, *, is_pruned: bool = False) -> None:
        """Have a failed member taken for one that left. KeyError if there is none of that name."""
        await self._request(lambda number: RemoveFailed(number, name, is_pruned))

    async def change_keys(self, action: KeyAction, key: bytes = b"") -> KeysResult:
        """On all members."""
        result: KeysResult = await self._request(lambda number: ChangeKeys(number, action, key))
        return result

    async def _request(self, make: Callable[[int], Request]) -> Any:
        """Its outcome, which is raised if it is an exception. InboxFull, GossipEnded."""
        if self._actor.is_closed:
            raise GossipEnded("the gossip has ended")
        if len(self._requests) >= REQUESTS_MAX:
            raise InboxFull
        number = next(self._numbers)
        future = self._requests[number] = asyncio.get_running_loop().create_future()
        try:
            self._actor.dispatch(make(number), is_urgent=True)
            outcome = await future
        finally:
            del self._requests[number]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    # ── what it wants done ──────────────────────────────────────────────────────────────────────────

    def _perform(self, effects: Sequence[Effect]) -> None:
        told: list[Told] = []
        for effect in effects:
            match effect:
                case Send():
                    self._transport.send(effect)
                case Ask():
                    self._transport.ask(effect)
                case Reply(number, outcome):
                    self._reply(number, outcome)
                case Emit(event):
                    self._hear(event)
                    told.append(event)
                case Note():
                    self._note(effect)
                case _:
                    raise AssertionError(f"an effect that no gossip has: {effect}")
        if told:
            self._on_told(told)

    def _reply(self, number: int, outcome: Any) -> None:
        future = self._requests.get(number)
        if future is None:
            self._transport.reply(number, outcome)
        elif not future.done():
            future.set_result(outcome)

    def _hear(self, told: Told) -> None:
        if isinstance(told, KeysChanged):
            self._keep_keyring()
        elif isinstance(told, NameTaken):  # a goodbye would be said in the other's name
            self._is_name_taken = True
            self._actor.close()
            self._transport.fall_silent()

    def _note(self, note: Note) -> None:
        is_usual = note.event in USUAL
        words = USUAL.get(note.event) or note.event.removeprefix("serf_").replace("_", " ")
        text = "".join(f" {key}=%s" for key in note.fields)
        say = self._quiet.info if is_usual else self._quiet.warning
        say(note.event, f"gossip: {words.removeprefix('gossip ')}{text}", *note.fields.values())

    def _keep_keyring(self) -> None:
        self._is_keyring_changed = True
        if self._keyring_file is not None and (self._saving is None or self._saving.done()):
            self._saving = asyncio.get_running_loop().create_task(self._save_keyring(self._keyring_file))

    async def _save_keyring(self, path: Path) -> None:
        while self._is_keyring_changed:
            self._is_keyring_changed = False
            try:
                await asyncio.to_thread(save_keyring, path, self._engine.keyring.to_json())
            except OSError as error:
                log.error("gossip keys not kept path=%s reason=%s", path, error.strerror)


async def _resolved(address: str) -> tuple[Address, ...] | str:
    """Where it is, or why that is not known."""
    try:
        async with asyncio.timeout(RESOLVE_S):
            return await resolve(address)
    except TimeoutError:
        return f"{address}: its name was not looked up within {RESOLVE_S:g} s"
    except (OSError, ValueError) as error:
        return f"{address}: {(error.strerror if isinstance(error, OSError) else None) or error}"
