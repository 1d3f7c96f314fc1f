"""Where a client begins: addresses of servers, and the names under which DNS or gossip knows them.

    host:port           a server
    dns:host:port       one at every address of the name (A and AAAA)
    srv:name            one at every target of the name's SRV records
    gossip:host:port    all that the member which gossips there knows to be of a cluster

Names are looked up again and again, in the background where servers are known already. A look-up that fails changes
nothing. What is found is a hint: with TLS, whoever has no certificate for the address, or for the name of which DNS
gave it, is no server.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from raftlog.discovery.errors import LookupFailed
from raftlog.net.addresses import host_and_port, split_address

LOOK_S_MAX: Final = 4.0  # for one name; longer than each way of looking gives itself
AGAIN_S: Final = 1.0  # between two looks at the same names, once something was found
FOUND_MAX: Final = 256  # servers of one name; more are left out
FAILURES_MAX: Final = 8  # that are told of

KINDS: Final = ("dns", "srv", "gossip")


class Seed(NamedTuple):
    """Where there may be a server."""

    address: str
    tls_name: str = ""  # what its certificate must be for; "": the host of the address


class Name(NamedTuple):
    """What is to be looked up."""

    kind: str  # one of KINDS
    host: str
    port: int | None  # None: of SRV records


def parse_name(text: str) -> Name | None:
    """None for an address as it is; ValueError for a name that cannot be one."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS or rest.isdecimal():  # the host of `dns:8400` is called so
        return None
    if kind == "srv":
        if not rest or ":" in rest:
            raise ValueError(f"{text}: expected srv:NAME, as in srv:_raftlog._tcp.example.org")
        return Name(kind, rest, None)
    try:
        host, port = split_address(rest)
    except ValueError as error:
        raise ValueError(f"{text}: expected {kind}:HOST:PORT: {error}") from error
    return Name(kind, host, port)


class Seeds:
    """Of one client."""

    def __init__(self, addresses: Iterable[str], *, gossip_keys: Sequence[bytes] = ()) -> None:
        """ValueError without an address, or for one that cannot be one."""
        texts = list(dict.fromkeys(addresses))
        if not texts:
            raise ValueError("no address of a server was given")
        parsed = {text: parse_name(text) for text in texts}
        self._fixed = [Seed(text) for text, name in parsed.items() if name is None]
        self._names = {text: name for text, name in parsed.items() if name is not None}
        self._gossip_keys = gossip_keys
        self._found: dict[str, list[Seed]] = {}  # by what was given; as it was found last
        self.known = self._fixed  # those that were given first, then those that were found; each address once
        self._reasons: dict[str, str] = {}  # why the last look-up of a name failed
        self._looking: asyncio.Task[None] | None = None
        self._looked_at: float | None = None  # by the monotonic clock

    def tls_name(self, address: str) -> str:
        """Of a server that was found there, what its certificate must be for; "" for the host of the address."""
        return next((seed.tls_name for seed in self.known if seed.address == address), "")

    @property
    def failures(self) -> list[str]:
        """Names under which no server was found, each with the reason; the first FAILURES_MAX."""
        names = [text for text in self._names if not self._found.get(text)]
        return [f"{text}: {self._reasons.get(text, 'not looked up yet')}" for text in names[:FAILURES_MAX]]

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def begin_look(self) -> asyncio.Task[None] | None:
        """Look all names up, in the background; None if there is none, or they were looked up just now."""
        if self._looking is not None and not self._looking.done():
            return self._looking
        is_recent = self._looked_at is not None and time.monotonic() < self._looked_at + AGAIN_S
        if not self._names or (is_recent and self.known):
            return None
        self._looking = asyncio.get_running_loop().create_task(self.look())
        return self._looking

    async def look(self) -> None:
        """Look all names up, within LOOK_S_MAX."""
        await asyncio.gather(*(self._look_up(text, name) for text, name in self._names.items()))
        self._looked_at = time.monotonic()

    async def look_closer(self) -> None:
        """Take each address of a host that was given by its name for a server of its own."""
        await asyncio.gather(*(self._spread(seed) for seed in self._fixed))

    async def _look_up(self, text: str, name: Name) -> None:
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                found = await self._servers_of(name)
        except TimeoutError:
            self._reasons[text] = f"no answer within {LOOK_S_MAX:g} s"
        except LookupFailed as error:
            self._reasons[text] = str(error)
        else:
            self._reasons[text] = "no server is there"
            self._learn(text, [seed for seed in found if _is_address(seed.address)])

    def _learn(self, text: str, found: list[Seed]) -> None:
        self._found[text] = found[:FOUND_MAX]
        known: dict[str, Seed] = {}
        for seed in (*self._fixed, *(seed for seeds in self._found.values() for seed in seeds)):
            known.setdefault(seed.address, seed)
        self.known = list(known.values())

    async def _servers_of(self, name: Name) -> list[Seed]:
        """LookupFailed. What looks up is imported when it is needed: most clients are told addresses."""
        if name.kind == "gossip":
            from raftlog.discovery.gossip_lookup import ask_gossip

            assert name.port is not None
            address = host_and_port(name.host, name.port)
            members = await ask_gossip(address, keys=self._gossip_keys)
            servers = [one for one in members if one.cluster_id and one.address]
            clusters = sorted({one.cluster_id for one in servers})
            if len(clusters) > 1:  # records must not go to another cluster because it was listed first
                raise LookupFailed(
                    f"servers of {len(clusters)} clusters are there, {', '.join(clusters[:2])}: give the address of one server"
                )
            return [Seed(one.address) for one in servers]
        from raftlog.discovery.dns_lookup import look_up

        found = await look_up(name.host, name.port)
        addresses = sorted(address for _, address in found.servers)
        if name.port is None:
            return [Seed(address) for address in addresses]
        return [Seed(address, name.host) for address in addresses]

    async def _spread(self, seed: Seed) -> None:
        try:
            host, port = split_address(seed.address)
            async with asyncio.timeout(LOOK_S_MAX):
                infos = await asyncio.get_running_loop().getaddrinfo(host, port, proto=socket.IPPROTO_TCP)
        except (ValueError, OSError, TimeoutError):
            return  # what is wrong with it, attempts to connect tell
        addresses = list(dict.fromkeys(host_and_port(str(info[4][0]), port) for info in infos))
        if len(addresses) > 1:
            self._learn(seed.address, [Seed(one, host) for one in addresses])


def _is_address(text: str) -> bool:
    try:
        split_address(text)
    except ValueError:
        return False
    return True
