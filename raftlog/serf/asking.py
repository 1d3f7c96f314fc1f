"""Queries at work: sending them, answering them, passing answers on, and those that Serf asks for itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from raftlog.serf import conflicts, keys, queries
from raftlog.serf.broadcasts import Kind
from raftlog.serf.codec.serf import encode
from raftlog.serf.events import (
    ChangeKeys,
    KeyAction,
    KeysChanged,
    NameTaken,
    QueryCame,
    QueryResult,
    Respond,
    SendQuery,
    Status,
)
from raftlog.serf.home import Home
from raftlog.serf.messages import (
    Address,
    ConflictResponse,
    KeyRequest,
    Query,
    QueryResponse,
    Relay,
    TagFilter,
)
from raftlog.serf.queries import Queries, Running

INTERNAL: Final = "_serf_"  # queries of Serf itself begin so
PING: Final = "_serf_ping"  # answered by its acknowledgement alone
TIMEOUT_S_MAX: Final = 3600.0  # of a query; one that came with a longer one is open for so long
KEY_ASKS_MAX: Final = 3  # how often a member is asked to change its keys, where real Serf asks once
# Members that one query names, and their names' bytes, so that it fits into a packet; of more, all are asked.
NAMED_MAX: Final = 8
NAMED_BYTES_MAX: Final = 512
RELAY_PROTOCOL_MIN: Final = 5  # of memberlist, that a member must speak to pass an answer on
RELAY_FACTOR_MAX: Final = 16  # one packet must not cost hundreds: a query that came with more gets so many
# Queries answered per second, acknowledgements included. A forged source address would have this node send packets to
# a stranger; beyond it queries are passed on, but not answered.
ANSWERS_PER_SECOND_MAX: Final = 1000


class Asking:
    """The queries of one node."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.queries = Queries(home.config.event_buffer)
        self._has_ended = False
        self._conflict_asked_at = -math.inf
        self._answers = 0  # in the second that began then
        self._second_began_at = -math.inf

    @property
    def deadline(self) -> float:
        return self.queries.deadline

    def advance(self) -> None:
        for running in self.queries.ended(self._home.now):
            running.on_end(running.result())

    def end(self) -> None:
        """Whoever asked gets what has come so far; nothing is asked any more."""
        self._has_ended = True
        for running in self.queries.ended(math.inf):
            running.on_end(running.result())

    # ── asking ──

    def send(self, event: SendQuery) -> None:
        home = self._home
        if event.name.startswith(INTERNAL) and event.name != PING:
            home.reply(
                event.request, ValueError(f"a query's name must not begin with {INTERNAL}: {event.name}")
            )
            return
        try:
            self._ask(
                event.name,
                event.payload,
                lambda result: home.reply(event.request, result),
                nodes=event.nodes,
                tags=event.tags,
                wants_ack=event.wants_ack,
                relay_factor=event.relay_factor,
                timeout_s=event.timeout_s,
            )
        except ValueError as error:
            home.reply(event.request, error)

    def change_keys(self, event: ChangeKeys) -> None:
        try:
            self._ask_for_keys(event, {}, missing=(), asks_left=KEY_ASKS_MAX)
        except ValueError as error:  # no key is so long
            self._home.reply(event.request, error)

    def _ask_for_keys(
        self, event: ChangeKeys, responses: dict[str, bytes], *, missing: tuple[str, ...], asks_left: int
    ) -> None:
        """Those missing are asked again: rumours do not reach everybody, and to do it twice changes nothing."""
        home = self._home

        def end(result: QueryResult) -> None:
            responses.update(result.responses)
            members = [member.name for member in home.table.here]
            silent = tuple(name for name in members if name not in responses)
            if silent and asks_left > 1 and not self._has_ended:
                self._ask_for_keys(event, responses, missing=silent, asks_left=asks_left - 1)
            else:
                home.reply(event.request, keys.tally(responses, members=len(members)))

        key = b"" if event.action is KeyAction.LIST else event.key
        can_be_named = len(missing) <= NAMED_MAX and len("".join(missing).encode()) <= NAMED_BYTES_MAX
        named = missing if can_be_named else ()
        self._ask(keys.QUERIES[event.action], encode(KeyRequest(key)), end, nodes=named)

    def resolve_conflict(self, other: Address) -> None:
        """Another claims this node's name: ask all others who has it."""
        home = self._home
        if home.now - self._conflict_asked_at < conflicts.PAUSE_S:
            return
        self._conflict_asked_at = home.now
        home.note("serf_name_conflict", name=home.name, other=other)

        def end(result: QueryResult) -> None:
            has_lost = conflicts.has_lost(result.responses, home.address)
            home.note(
                "serf_name_conflict_over", name=home.name, answers=len(result.responses), has_lost=has_lost
            )
            if has_lost:
                home.tell(NameTaken(other))

        self._ask(conflicts.QUERY, home.name.encode(), end)

    def _ask(
        self,
        name: str,
        payload: bytes,
        on_end: Callable[[QueryResult], None],
        *,
        nodes: tuple[str, ...] = (),
        tags: tuple[TagFilter, ...] = (),
        wants_ack: bool = False,
        relay_factor: int = 0,
        timeout_s: float | None = None,
    ) -> None:
        """ValueError, and nothing is asked, if it is too large."""
        home = self._home
        alive = max(1, home.swim.alive_count)  # this node, too, while it says goodbye
        if timeout_s is None:
            timeout_s = queries.timeout_s(home.config, alive)
        if not 0 < timeout_s <= TIMEOUT_S_MAX:
            raise ValueError(f"timeout of a query: expected up to {TIMEOUT_S_MAX} s, found {timeout_s} s")
        if not 0 <= relay_factor <= RELAY_FACTOR_MAX:
            raise ValueError(f"relay factor: expected 0 to {RELAY_FACTOR_MAX}, found {relay_factor}")
        query = Query(
            time=self.queries.clock.time,
            id=home.random.getrandbits(31),
            source_address=home.address,
            source_node=home.name,
            name=name,
            payload=payload,
            timeout_s=timeout_s,
            node_filters=(nodes,) if nodes else (),
            tag_filters=tags,
            wants_ack=wants_ack,
            relay_factor=relay_factor,
        )
        data = encode(query)
        if len(data) > home.config.query_bytes_max:
            raise ValueError(
                f"query: expected {home.config.query_bytes_max} bytes at most, found {len(data)}"
            )

        expected: frozenset[str] | None = None
        if not tags:
            expected = frozenset(nodes or (member.name for member in home.table.here))
        self.queries.begin(
            Running(query, home.now + timeout_s, names_max=alive, expected=expected, on_end=on_end)
        )
        home.broadcasts.put(Kind.QUERY, data)
        self.take(query)

    # ── being asked ──

    def take(self, query: Query) -> bool:
        """A query came. True if it is news to be passed on."""
        home = self._home
        if not self.queries.take(query):
            return False
        if queries.is_for(query, home.name, home.tags) and self._may_answer(query):
            self.queries.open(query, home.now, timeout_s=min(query.timeout_s, TIMEOUT_S_MAX))
            if query.wants_ack:
                self._reply(query, QueryResponse(query.time, query.id, home.name, is_ack=True))
            if query.name.startswith(INTERNAL):
                self._answer_internal(query)
            else:
                timeout_s = min(query.timeout_s, TIMEOUT_S_MAX)
                home.tell(
                    QueryCame(query.name, query.payload, query.id, query.time, query.source_node, timeout_s)
                )
        return query.is_broadcast

    def _may_answer(self, query: Query) -> bool:
        home = self._home
        if home.now - self._second_began_at >= 1:
            self._second_began_at = home.now
            self._answers = 0
        self._answers += 1
        if self._answers > ANSWERS_PER_SECOND_MAX:
            home.note("serf_query_not_answered", query=query.name, limit_per_second=ANSWERS_PER_SECOND_MAX)
            return False
        return True

    def _answer_internal(self, query: Query) -> None:
        home = self._home
        action = keys.ACTIONS.get(query.name)
        if action is not None:
            self._answer_about_keys(query, action)
        elif query.name == conflicts.QUERY:
            self._answer_about_name(query)
        elif query.name != PING:
            home.note("serf_query_unknown", query=query.name)

    def _answer_about_keys(self, query: Query, action: KeyAction) -> None:
        home = self._home
        before = tuple(home.keyring.keys)
        response = keys.answer(action, query.payload, home.keyring)
        if tuple(home.keyring.keys) != before:
            home.tell(KeysChanged())
        if action is not KeyAction.LIST:
            home.note("serf_keys_asked", action=action.value, by=query.source_node, is_done=response.is_done)

        def fits(payload: bytes) -> bool:
            size = len(encode(QueryResponse(query.time, query.id, home.name, payload=payload)))
            return size <= home.config.query_response_bytes_max

        self.respond(Respond(query.id, query.time, keys.fit(response, fits=fits)))

    def _answer_about_name(self, query: Query) -> None:
        home = self._home
        name = query.payload.decode(errors="replace")
        member = home.table.get(name)
        if name == home.name or (member is not None and member.status in (Status.FAILED, Status.LEFT)):
            return  # a party to it has no vote, and who is gone no claim to its name
        vote = ConflictResponse("", Address(""))  # nobody is known by it
        if member is not None:
            vote = ConflictResponse(member.name, member.address, dict(member.tags))
        self.respond(Respond(query.id, query.time, encode(vote)))

    # ── answers ──

    def respond(self, event: Respond) -> None:
        """Answer a query that came; an answer that is too late or too large is noted and dropped."""
        home = self._home
        query = self.queries.close(event.time, event.id, home.now)
        if query is None:
            home.note("serf_answer_too_late", query_id=event.id, query_time=event.time)
            return
        response = QueryResponse(query.time, query.id, home.name, payload=event.payload)
        size = len(encode(response))
        if size > home.config.query_response_bytes_max:
            home.note("serf_answer_too_large", query=query.name, found=size)
            return
        self._reply(query, response)

    def _reply(self, query: Query, response: QueryResponse) -> None:
        home = self._home
        if query.source_address == home.address:
            self.take_response(response)
            return
        home.send(query.source_address, response)
        if query.relay_factor:
            self._relay(query, response)

    def _relay(self, query: Query, response: QueryResponse) -> None:
        """Send it a second way, through others; not worth it where there are hardly as many."""
        home = self._home
        factor = min(query.relay_factor, RELAY_FACTOR_MAX)
        if len(home.table) < factor + 1:
            return
        relay = Relay(query.source_address, query.source_node, encode(response))
        if len(encode(relay)) > home.config.query_response_bytes_max:
            return
        able = [
            member.address
            for member in home.table.here
            if member.status is Status.ALIVE
            and member.name not in (home.name, query.source_node)
            and member.versions.protocol_max >= RELAY_PROTOCOL_MIN
        ]
        for address in home.random.sample(able, min(factor, len(able))):
            home.send(address, relay)

    def pass_on(self, relay: Relay) -> None:
        """To members only: a stranger's address could be anybody's."""
        home = self._home
        if any(member.address == relay.address for member in home.table.here):
            home.swim.send(relay.address, relay.message, home.now)
        else:
            home.note("serf_relay_refused", to=relay.address)

    def take_response(self, response: QueryResponse) -> None:
        running = self.queries.answered(response, self._home.now)
        if running is not None:
            running.on_end(running.result())
