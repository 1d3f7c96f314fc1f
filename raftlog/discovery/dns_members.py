"""Members by DNS, looked up again and again: the names of a headless service, as Kubernetes has them.

What fails, "there is no such name" included, leaves what was known as it is: while all pods start anew, DNS knows none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import dns.asyncresolver

from raftlog.discovery.announcing import Announcer
from raftlog.discovery.dns_lookup import look_up
from raftlog.discovery.errors import LookupFailed
from raftlog.discovery.source import Candidate, Handler
from raftlog.net.addresses import split_address
from raftlog.net.quiet_log import QuietLog

log = logging.getLogger(__name__)

INTERVAL_S: Final = 5.0  # between two look-ups, at most; what DNS says may be kept no longer than it says
INTERVAL_S_MIN: Final = 1.0
SERVERS_MAX: Final = 256  # of one name; more are left out


class DnsMembers:
    """A Source. Servers that DNS does not name any more are gone from `members`; nobody is ever "left" or "failed"."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        handler: Handler | None = None,
        own_name: str = "",
        resolver: dns.asyncresolver.Resolver | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """`names`: host:port for A and AAAA, or the name of SRV records. ValueError. `resolver`: None is the system's."""
        self._names = list(dict.fromkeys(_parsed(name) for name in names))  # one that is given twice is one
        self._resolver = resolver
        self._interval_s = interval_s
        self._announcer = Announcer(handler, own_name=own_name)
        # What was looked up -> (name, address) of each server
        self._found: dict[str, list[tuple[str, str]]] = {}
        self._since: dict[tuple[str, str], float] = {}  # of those found, when each was found first
        self._task: asyncio.Task[None] | None = None
        self._quiet = QuietLog(log, time.monotonic)

    @property
    def is_authenticated(self) -> bool:
        """Whoever sits on the way can answer for DNS."""
        return False

    async def start(self) -> None:
        """Look once, and then for ever in the background. Nothing found is no error: there may be something later."""
        wait_s = await self._look()
        self._task = asyncio.get_running_loop().create_task(self._keep_looking(wait_s))

    @property
    def is_complete(self) -> bool:
        """Whether every name has been known once."""
        return len(self._found) == len(self._names)

    def members(self) -> Sequence[Candidate]:
        return tuple(
            Candidate(name=name, address=address, status="listed", since=since)
            for (name, address), since in sorted(self._since.items())
        )

    async def wait_for_change(self, timeout_s: float) -> None:
        await self._announcer.wait_for_change(timeout_s)

    async def set_tags(self, **tags: str) -> None:
        """DNS carries none."""

    async def leave(self) -> None:
        """Whoever keeps the names takes this server's away."""

    async def come_back(self) -> None:
        """It was never away."""

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _keep_looking(self, wait_s: float) -> None:
        while True:
            await asyncio.sleep(wait_s)
            try:
                wait_s = await self._look()
            except Exception:  # a bug, which must not end the looking
                log.exception("names were not looked up")

    async def _look(self) -> float:
        """Look all names up; seconds until they are to be looked up again."""
        ttls = await asyncio.gather(*(self._look_up(name, port) for name, port in self._names))
        found = dict.fromkeys(server for servers in self._found.values() for server in servers)
        if list(found) != list(self._since):
            now = time.monotonic()
            self._since = {server: self._since.get(server, now) for server in found}
            self._announcer.announce(self.members())
        return max(min(self._interval_s, *ttls), min(INTERVAL_S_MIN, self._interval_s))

    async def _look_up(self, name: str, port: int | None) -> float:
        """The time to live of what was found, in seconds."""
        try:
            servers, ttl_s = await look_up(name, port, resolver=self._resolver)
        except LookupFailed as error:
            text = "name not looked up, what was known is kept name=%s reason=%s"
            self._quiet.warning(f"fail {name}", text, name, error)
            return self._interval_s
        if len(servers) > SERVERS_MAX:
            self._quiet.warning(
                f"many {name}", "name has too many servers name=%s taken=%d", name, SERVERS_MAX
            )
        self._found[f"{name}:{port}"] = sorted(servers)[:SERVERS_MAX]
        return self._interval_s if ttl_s is None else ttl_s


def _parsed(name: str) -> tuple[str, int | None]:
    if ":" in name:
        return split_address(name)
    if not name:
        raise ValueError("a name of DNS is needed: host:port for addresses, or the name of SRV records")
    return name, None
