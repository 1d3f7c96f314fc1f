"""What a source says, with a name for each: a source such as DNS knows addresses alone, and those there are asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from raftlog.discovery.source import Candidate, Source
from raftlog.errors import RaftlogError
from raftlog.net.handshake import Welcome
from raftlog.runtime.logging import get_logger

log = get_logger(__name__)

STRANGERS_MAX: Final = 256  # no members, that are looked at: the first by name; each may cost a connection
KNOWN_S: Final = 60.0  # how long an answer counts
UNKNOWN_S: Final = 5.0  # until one that did not answer is asked again


class Identifying(Protocol):
    async def identify(self, address: str) -> Welcome:
        """Who is there; RaftlogError."""
        ...


class _Answer(NamedTuple):
    welcome: Welcome | None
    until: float


class Candidates:
    """Of one source."""

    def __init__(self, source: Source | None, links: Identifying, clock: Callable[[], float]) -> None:
        self._source = source
        self._links = links
        self._clock = clock
        self._answers: dict[str, _Answer] = {}  # by address

    async def named(self, members: Collection[str], addresses: Collection[str]) -> Sequence[Candidate]:
        """By name, each name once; who is alive counts before who is not. Asks one address at a call at most.

        `members` are left out never, whatever else the source says. Those at `addresses`, of members, are not asked: a
        source without names has nothing to say of them.
        """
        if self._source is None:
            return ()
        found = sorted(self._source.members(), key=lambda each: (each.name, not each.is_there))
        by_name: dict[str, Candidate] = {}
        nameless: list[Candidate] = []
        strangers = 0
        for candidate in found:
            is_nameless = not candidate.name
            if is_nameless and candidate.address in addresses:
                continue
            if candidate.name not in members:
                strangers += 1
                if strangers > STRANGERS_MAX:
                    continue
            if is_nameless:
                nameless.append(candidate)
            else:
                by_name.setdefault(candidate.name, candidate)
        await self._ask([candidate.address for candidate in nameless])
        for candidate in nameless:
            answer = self._answers.get(candidate.address)
            if answer is not None and (welcome := answer.welcome) is not None:
                named = replace(
                    candidate,
                    name=welcome.node,
                    address=welcome.address,
                    directory_id=welcome.directory_id,
                    cluster_id=welcome.cluster_id,
                )
                by_name.setdefault(named.name, named)
        return sorted(by_name.values(), key=lambda each: each.name)

    async def _ask(self, addresses: Sequence[str]) -> None:
        for address in self._answers.keys() - set(addresses):
            del self._answers[address]
        now = self._clock()
        for address in addresses:
            answer = self._answers.get(address)
            if answer is not None and now < answer.until:
                continue
            try:
                self._answers[address] = _Answer(await self._links.identify(address), now + KNOWN_S)
            except RaftlogError as error:
                log.debug("nobody known there", address=address, reason=str(error))
                self._answers[address] = _Answer(None, now + UNKNOWN_S)
            return
